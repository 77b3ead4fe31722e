"""Deliberately wrong notebooks must fail under the root conftest.py, and a right one must pass.

The cells are tampered with one by one in a temporary notebook (under tests/ pytest would collect it), and one pytest of
its own runs it: the good cells must pass, and each wrong one must fail.
"""

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).parents[1]
NUMBERS = "print('loss', 0.5000, 'of', 7)"
PICTURE = """\
from PIL import Image, ImageDraw
picture = Image.new("RGB", (96, 96), "white")
ImageDraw.Draw(picture).rectangle((8, 8, 40, 88), fill="black")
picture"""
VALUE = "{'seen': 3}"
HIDDEN = "sum([1, 2]);"
BOTH = "print('first')\n{'then': 2}"


def unchanged(cell):
    pass


def strip(cell):
    cell.outputs, cell.execution_count = [], None


def empty_outputs(cell):
    cell.outputs = []


def stored_text(old, new, *tags):
    """The stored output says something else than the cell prints."""

    def change(cell):
        cell.outputs[0].text = cell.outputs[0].text.replace(old, new)
        cell.metadata.tags = list(tags)

    return change


def wrong_value(cell):
    cell.outputs[0].data["text/plain"] = "{'seen': 4}"


def flip(cell):
    cell.source += ".transpose(Image.Transpose.FLIP_LEFT_RIGHT)"


def flip_approx(cell):
    flip(cell)
    cell.metadata.tags = ["nbval-approx"]


def no_picture(cell):
    for kind in ("image/png", "image/jpeg"):
        cell.outputs[0].data.pop(kind, None)


def widen(cell):
    cell.source += ".resize((120, 96))"


def swap(cell):
    cell.outputs.reverse()


def only_show(cell):
    """Shown, but not the cell's value."""
    cell.outputs[0].output_type = "display_data"
    del cell.outputs[0]["execution_count"]


def show(cell):
    cell.source = cell.source.rstrip(";")


GOOD, NEVER_RUN, OTHER, OTHER_PICTURE = None, "run `make notebooks`", "Cell outputs differ", "is not the stored one"
OTHER_KINDS = "stored outputs, in order"
CASES = {  # name: (the cell, what is done to it once it is stored, what the failure says)
    "numbers": (NUMBERS, unchanged, GOOD),
    "picture": (PICTURE, unchanged, GOOD),
    "value": (VALUE, unchanged, GOOD),
    "hidden value": (HIDDEN, unchanged, GOOD),
    "approx, 1 % off": (NUMBERS, stored_text("0.5", "0.505", "nbval-approx"), GOOD),
    "stripped numbers": (NUMBERS, strip, NEVER_RUN),
    "stripped picture": (PICTURE, strip, NEVER_RUN),
    "stripped, no value": (HIDDEN, strip, NEVER_RUN),
    "outputs removed": (NUMBERS, empty_outputs, OTHER),
    "picture removed with its text": (PICTURE, empty_outputs, OTHER),
    "picture removed": (PICTURE, no_picture, OTHER_KINDS),
    "picture flipped": (PICTURE, flip, OTHER_PICTURE),
    "picture wider": (PICTURE, widen, "has (120, 96) pixels, the stored one (96, 96)"),
    "picture flipped, approx": (PICTURE, flip_approx, OTHER_PICTURE),
    "number 0.2 % off": (NUMBERS, stored_text("0.5", "0.501"), OTHER),
    "approx, 10 % off": (NUMBERS, stored_text("0.5", "0.55", "nbval-approx"), OTHER),
    "approx, an integer off": (NUMBERS, stored_text("7", "8", "nbval-approx"), OTHER),
    "approx, other words": (NUMBERS, stored_text("loss", "gain", "nbval-approx"), OTHER),
    "outputs swapped": (BOTH, swap, OTHER_KINDS),
    "value only shown": (VALUE, only_show, OTHER_KINDS),
    "wrong value": (VALUE, wrong_value, OTHER),
    "hidden value shown": (HIDDEN, show, OTHER),
}


def run_pytest(folder, *arguments, **environment):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "", **environment}
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "--rootdir", folder, "-p", "no:cacheprovider", "-rA", "--color=no"]
    done = subprocess.run([*command, *arguments, "."], cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    return done.stdout + done.stderr


def outcomes(output):
    lines = re.findall(r"^(PASSED|FAILED|ERROR) (\S+?(?:::Cell \d+)?)(?: -|$)", output, re.M)
    return {name: outcome for outcome, name in lines}


@pytest.fixture(scope="module")
def verdict(tmp_path_factory):
    """The outcome of each case, what was said about it, and the whole output of the one pytest that ran them."""
    folder = tmp_path_factory.mktemp("guard")
    path = folder / "cases.ipynb"
    cells = [new_code_cell(source, id=f"cell-{place}") for place, (source, _, _) in enumerate(CASES.values())]
    nbformat.write(new_notebook(cells=cells), path)
    execute = [sys.executable, ROOT / "notebooks" / "execute.py", path]
    subprocess.run(execute, check=True, capture_output=True, timeout=120)
    notebook = copy.deepcopy(nbformat.read(path, as_version=4))
    for cell, (_, change, _) in zip(notebook.cells, CASES.values()):
        change(cell)
    nbformat.write(notebook, path)
    output = run_pytest(folder, "-p", "conftest", "--nbval", "--nbval-current-env")
    results = outcomes(output)
    said = dict(re.findall(r"^_+ cases\.ipynb::Cell (\d+) _+$(.*?)(?=^[_=]{10,})", output, re.M | re.S))
    places = range(len(CASES))
    return {
        name: (results.get(f"cases.ipynb::Cell {place}"), said.get(str(place), ""), output)
        for name, place in zip(CASES, places)
    }


@pytest.mark.parametrize("name", CASES)
def test_a_right_cell_passes_and_a_wrong_one_fails(verdict, name):
    outcome, said, output = verdict[name]
    reason = CASES[name][2]
    assert outcome == ("FAILED" if reason else "PASSED"), output
    assert (reason or "") in said, said


def test_skips_fail_under_ci_except_for_a_missing_gpu(tmp_path):
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_skips.py").write_text(
        "import pytest\n"
        "def test_tool(needs_tool): needs_tool('Chromium', False)\n"
        "def test_there(needs_tool): needs_tool('Python', True)\n"
        "@pytest.mark.skipif(True, reason='no CUDA GPU')\n"
        "def test_gpu(): pass\n"
    )
    (tmp_path / "test_module.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")
    arguments = ["-p", "no:nbval", "--continue-on-collection-errors"]
    plain, ci = (run_pytest(tmp_path, *arguments, CI=value) for value in ("", "1"))
    assert "1 passed, 3 skipped" in plain and "Chromium is missing" in plain
    assert outcomes(ci) == {
        "test_skips.py::test_tool": "FAILED",
        "test_skips.py::test_there": "PASSED",
        "test_module.py": "ERROR",
    }, ci
    assert "skipped, which CI does not allow: Chromium is missing" in ci
