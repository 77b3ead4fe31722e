"""Colab, Binder, VS Code, a devcontainer: their files and the README's "Elsewhere" agree with each other and with the project.

None of the four places can be reached from a test.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import nbformat
import pytest
from packaging.specifiers import SpecifierSet
from test_environment import EXTRAS, PROJECT, REQUIREMENTS, ROOT, TARGETS, run_make

README = (ROOT / "README.md").read_text(encoding="utf-8")
START, ELSEWHERE = (re.search(rf"^## {title}\n(.*?)^## ", README, re.S | re.M)[1] for title in ("Start", "Elsewhere"))
LESSONS = {path.name[:2]: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
PYTHON = SpecifierSet(PROJECT["requires-python"])
DEVCONTAINER = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
SETTINGS, RECOMMENDED = (json.loads((ROOT / f".vscode/{name}.json").read_text()) for name in ("settings", "extensions"))
BINDER_MB, SERVER_MB = 2000, 500


def packages(text):
    """What apt-get is asked to install."""
    return {word for line in re.findall(r"apt-get install ([-\w .]+)", text) for word in line.split() if word[0] != "-"}


def pip_arguments(line):
    words = shlex.split(line, comments=True)
    return [word for word in words[words.index("install") + 1 :] if word != "--no-cache-dir"]


def costs():
    return json.loads((ROOT / "results/lessons.json").read_text())["lessons"]


def test_the_placeholder_is_the_only_owner():
    owners = set(re.findall(r"(?:github(?:\.com)?|/gh)/([\w.-]+)/edgeconnect-lite", README))
    assert owners == {"OWNER"} and "`OWNER` stands for" in ELSEWHERE


def test_links_open_a_lesson_that_exists():
    opened = re.findall(r"edgeconnect-lite/\S*?(notebooks/[\w.]+)", ELSEWHERE)
    assert opened == ["notebooks/00_start_here.ipynb"] * 2 and (ROOT / opened[0]).is_file()


def test_colab_installs_the_clone_and_leaves_torch_alone():
    (line,) = re.findall(r"^ {4}!(.*)", ELSEWHERE, re.M)
    clone, install = line.split(" && ")
    assert clone == "git clone -q https://github.com/OWNER/edgeconnect-lite"
    assert pip_arguments(install) == ["-q", f"./{PROJECT['name']}"]  # no constraint, no index: what is there may stay
    (torch,) = [requirement for requirement in REQUIREMENTS if requirement.name == "torch"]
    assert {specifier.operator for specifier in torch.specifier} == {">="}
    assert f"PyTorch, which must be {str(torch.specifier)[2:]} or later" in ELSEWHERE
    assert f"Python, which must be {str(PYTHON)[2:]} or later" in ELSEWHERE


def test_colab_is_told_which_lessons_read_files_beside_them():
    def reads(path):
        cells = nbformat.read(path, as_version=4).cells
        return any("../" in cell.source for cell in cells if cell.cell_type == "code")

    named = re.search(r"Lessons ([\d, and\n]+) read `results/`", ELSEWHERE)[1]
    assert re.findall(r"\d\d", named) == [number for number, path in LESSONS.items() if reads(path)]


def test_binder_takes_a_python_in_range_and_the_readmes_debian_packages():
    assert {path.name for path in (ROOT / "binder").iterdir()} == {"apt.txt", "postBuild", "runtime.txt", "start"}
    runtime = (ROOT / "binder/runtime.txt").read_text().strip()
    assert f"{runtime.removeprefix('python-')}.1" in PYTHON
    libraries = packages(START) & {"libgl1", "libglib2.0-0", "libxcb1"}
    assert set((ROOT / "binder/apt.txt").read_text().split()) == libraries | {"make"}


def test_binder_installs_as_the_readme_does_but_the_tools(needs_tool):
    needs_tool("make", shutil.which("make"))
    (command,) = [line for line in (ROOT / "binder/postBuild").read_text().splitlines() if line.startswith("make ")]
    line = run_make("-n", *command.split()[1:]).stdout
    assert line.startswith("python -m pip install ")  # the Python that Binder's server runs
    (by_hand,) = re.findall(r"^ {4}\S+/bin/(pip install .*)", START, re.M)
    readme, index = pip_arguments(by_hand), re.search(r"--extra-index-url \S+", by_hand)[0].split()
    extras = re.fullmatch(r"\.\[(.*)\]", readme.pop())[1]
    assert pip_arguments(line) == [*index, *readme, "."] and set(extras.split(",")) <= set(EXTRAS)


@pytest.mark.skipif(sys.platform == "win32", reason="Binder's scripts are for Linux")
@pytest.mark.parametrize("name", ["postBuild", "start"])
def test_binders_scripts_can_run(name, needs_tool):
    needs_tool("bash", bash := shutil.which("bash"))
    path = ROOT / "binder" / name
    assert os.access(path, os.X_OK)
    assert subprocess.run([bash, "-n", path], check=False).returncode == 0
    if name == "start":
        said = subprocess.check_output([path, "sh", "-c", "echo $OMP_NUM_THREADS $0 $1", "a", "b c"], text=True)
        assert said == "2 a b c\n"


def test_the_readme_lists_the_lessons_that_fit_on_binder():
    assert f"gives {BINDER_MB // 1000} GB" in ELSEWHERE and f"leaves {SERVER_MB} MB" in ELSEWHERE
    listed = re.search(r"These do:([\d,\s]+)\.", ELSEWHERE)[1]
    assert re.findall(r"\d\d", listed) == [
        number for number, cost in costs().items() if cost["peak_mb"] + SERVER_MB <= BINDER_MB
    ]


def test_vscode_runs_lessons_in_their_folder_with_the_makefiles_python():
    (venv,) = re.findall(r"^VENV \?= (\S+)", (ROOT / "Makefile").read_text(), re.M)
    assert SETTINGS["python.defaultInterpreterPath"] == f"${{workspaceFolder}}/{venv}/bin/python"
    assert SETTINGS["jupyter.notebookFileRoot"] == "${fileDirname}"
    assert all((ROOT / folder).is_dir() for folder in SETTINGS["python.analysis.extraPaths"])
    assert {"ms-python.python", "ms-toolsai.jupyter"} <= set(RECOMMENDED["recommendations"])


def test_the_devcontainer_does_what_the_readme_says():
    image = re.fullmatch(r"python:(3\.\d+)-bookworm", DEVCONTAINER["image"])
    assert f"{image[1]}.1" in PYTHON
    assert packages(DEVCONTAINER["onCreateCommand"]) <= packages(START) >= {"chromium", "fonts-dejavu-core"}
    command = DEVCONTAINER["postCreateCommand"]
    assert command in START and re.fullmatch(r"make (\w+) CPU=1", command)[1] in TARGETS
    assert DEVCONTAINER["customizations"]["vscode"]["extensions"] == RECOMMENDED["recommendations"]
    memory = 1000 * int(DEVCONTAINER["hostRequirements"]["memory"].removesuffix("gb"))
    assert memory >= SERVER_MB + max(cost["peak_mb"] for cost in costs().values())
