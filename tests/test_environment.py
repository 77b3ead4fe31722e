"""The four files that set up an environment agree: pyproject.toml, constraints.txt, environment.yml, Makefile."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
EXTRAS = PROJECT["optional-dependencies"]
ASKED = [Requirement(line) for line in sum(EXTRAS.values(), PROJECT["dependencies"])]
REQUIREMENTS = [each for each in ASKED if each.name != PROJECT["name"]]  # an extra may hold another
TARGETS = ["demo", "lab", "test", "notebooks", "lint", "book"]
NO_SETUP = ["handout", "here"]  # need git alone; the Python that runs


def pins():
    lines = [line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    return [Requirement(line) for line in lines if line]


def test_constraints_are_exact():
    names = [canonicalize_name(pin.name) for pin in pins()]
    assert len(names) > 100 and len(names) == len(set(names))
    for pin in pins():
        (specifier,) = pin.specifier
        assert specifier.operator == "==" and not pin.marker and not pin.extras and not pin.url, pin
        version = Version(specifier.version)  # not "==1.*"
        assert version.local is None, f"{pin}: only one build satisfies a local suffix"


def test_constraints_satisfy_every_bound():
    versions = {canonicalize_name(pin.name): str(pin.specifier)[2:] for pin in pins()}
    for requirement in REQUIREMENTS:
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement}: pinned to {version}"
    assert versions["torch"] == "2.13.0" and versions["triton"] == "3.7.1"  # the pair that torch itself asks for


def test_triton_is_asked_for_on_linux_only():
    (triton,) = [requirement for requirement in REQUIREMENTS if requirement.name == "triton"]
    assert triton.marker.evaluate({"sys_platform": "linux"})
    assert not any(triton.marker.evaluate({"sys_platform": other}) for other in ("darwin", "win32"))


def test_conda_brings_python_and_pip_only():
    assert set(CONDA) == {"name", "channels", "dependencies"} and CONDA["name"] == PROJECT["name"]
    assert CONDA["channels"] == ["conda-forge"]
    plain = [line for line in CONDA["dependencies"] if isinstance(line, str)]
    assert [re.match(r"[a-z]+", line)[0] for line in plain] == ["python", "pip"]  # a pip section without pip warns
    allowed, asked = SpecifierSet(plain[0].removeprefix("python").strip()), SpecifierSet(PROJECT["requires-python"])
    minors = [f"3.{minor}.1" for minor in range(8, 20) if f"3.{minor}.1" in allowed]
    assert minors[0] == "3.11.1" and "3.19.1" not in minors and all(minor in asked for minor in minors)


def test_conda_installs_this_checkout_with_the_constraints():
    (section,) = [line["pip"] for line in CONDA["dependencies"] if isinstance(line, dict)]
    constraints, editable = section  # two lines of a requirements file: pip refuses both on one line
    assert constraints == "-c constraints.txt" and (ROOT / "constraints.txt").is_file()
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", editable)[1].split(",")
    assert set(extras) <= set(EXTRAS)


def run_make(*arguments, **options):
    command = ["make", "--no-print-directory", *arguments]
    env = {name: value for name, value in os.environ.items() if "MAKE" not in name and name != "MFLAGS"}  # `make test`
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, **options)


@pytest.fixture(autouse=True)
def make_is_there(request, needs_tool):
    if "make" in request.node.name:
        needs_tool("make", shutil.which("make"))


def test_make_lists_its_targets():
    assert re.findall(r"^make (\w+)", run_make().stdout, re.M) == ["help", *TARGETS, *NO_SETUP]


@pytest.mark.parametrize("target", TARGETS)
def test_make_sets_up_before_each_target(tmp_path, target):
    venv = tmp_path / "venv"
    lines = run_make("-n", target, f"VENV={venv}", "CPU=1").stdout
    cpu = "--extra-index-url https://download.pytorch.org/whl/cpu"
    install = f"{venv}/bin/python -m pip install {cpu} -c constraints.txt -e '.[dev]'"
    assert f"-m venv {venv}" in lines and install in lines and lines.index(install) < lines.rindex(f"{venv}/bin/")
    assert "extra-index-url" not in run_make("-n", target, f"VENV={venv}").stdout


def test_make_refuses_an_old_python_in_one_message(tmp_path):
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    for python in (old, "no-such-python"):
        done = run_make("test", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}")
        said = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
        assert done.returncode and len(said) == 1 and said[0].startswith("This course needs Python 3.11 or newer"), done
        assert not (tmp_path / "venv").exists()


def test_readme_names_only_targets_that_make_has():
    code = re.findall(r"```.*?```|`[^`]+`", (ROOT / "README.md").read_text(), re.S)
    named = set(re.findall(r"\bmake ([a-z]+)", " ".join(code)))
    assert named and named <= {"help", *TARGETS, *NO_SETUP}
