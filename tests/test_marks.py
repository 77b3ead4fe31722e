"""edgeconnect_lite.marks: what is reported is what the checkers say, whatever a notebook prints, breaks or leaves out."""

import csv
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest

from edgeconnect_lite import marks
from edgeconnect_lite.cli import main

EASY = "check_mask_photo(mask_photo)"
MEDIUM = "check_edge_effect(my_edge_effect)"
HARD = "check_redraw(redraw)"
START = """\
import numpy as np
from edgeconnect_lite.exercises import check_edge_effect, check_mask_photo, check_redraw"""
MASK_PHOTO = "def mask_photo(photo, mask):\n    return np.where(mask[..., None], np.uint8(0), photo)"
EDGE_EFFECT = """\
def my_edge_effect(result, other, mask):
    return np.abs(result[mask].astype(float) - other[mask]).mean()"""
REDRAW = "def redraw(edges, stroke, mask):\n    return np.where(mask, stroke, edges)"
STUBS = [
    f"def {name}(*given):\n    return None  # TODO: your code" for name in ("mask_photo", "my_edge_effect", "redraw")
]


def write(path: Path, *cells: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [nbformat.v4.new_code_cell(source) for source in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def checked(*functions: str) -> list[str]:
    """Cells as a student leaves them: each function above its check."""
    return [f"{function}\n\n\n{check}" for function, check in zip(functions, (EASY, MEDIUM, HARD))]


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A tiny course: lesson 00 with its three exercises, lesson 01 with the same."""
    folder = tmp_path_factory.mktemp("course") / "notebooks"
    for name in ("00_start.ipynb", "01_more.ipynb"):
        write(folder / name, START, *checked(*STUBS))
    (folder.parent / "results").mkdir()
    (folder.parent / "results/figures.json").write_text("{}")
    return folder


def of(folder, course, **options):
    return {(row.student, row.lesson): row for row in marks.collect(folder, course, **options)}


def test_one_folder_of_a_class_as_the_command_writes_it(course, tmp_path, capsys):
    given = tmp_path / "given"
    wrong = "def my_edge_effect(result, other, mask):\n    return np.abs(result.astype(float) - other).mean()"
    write(given / "ada/00_start.ipynb", START, "open('../results/figures.json').close()",
          *checked(MASK_PHOTO, wrong, STUBS[2]))  # fmt: skip
    (given / "bea").mkdir()
    write(given / "bea/00_start.ipynb", START)
    write(given / "bea/00_start (1).ipynb", START)
    (given / "cyd").mkdir()
    (given / "cyd/00_start.ipynb").write_text("no notebook {")
    write(given / "dan/my homework.ipynb", START)
    main(["marks", str(given), "--out", str(tmp_path / "marks.csv"), "--course", str(course)])
    with open(tmp_path / "marks.csv", newline="") as file:
        rows = {row.pop("student"): row for row in csv.DictReader(file)}
    assert [*rows] == ["ada", "bea", "cyd", "dan"] and {row.pop("lesson") for row in rows.values()} == {"00"}
    ada, bea, cyd, dan = rows.values()
    assert ada["easy"] == "correct" and ada["hard"] == "not attempted" and not ada["notes"]
    assert ada["medium"].startswith("wrong: came: ") and "over the whole picture" in ada["medium"]
    assert {bea[level] for level in marks.LEVELS} == {"2 files"}
    assert bea["notes"] == "00_start (1).ipynb, 00_start.ipynb; wanted one"
    assert {cyd[level] for level in marks.LEVELS} == {"not run"} and "cannot be read" in cyd["notes"]
    assert {dan[level] for level in marks.LEVELS} == {"missing"} and "my homework.ipynb" in dan["notes"]
    printed = capsys.readouterr().out
    assert "easy: 1 of 4 correct" in printed and all(name in printed for name in rows)


def test_what_a_notebook_says_of_itself_does_not_count(course, tmp_path):
    """Deleted and changed checks, "correct" printed, checkers, their helpers and their rulers replaced: all in one."""
    claims = [
        START,
        "print('correct')\nmask_photo = lambda photo, mask: print('correct')",  # its check is not there
        "def check_edge_effect(function):\n    print('correct')",
        f"def my_edge_effect(result, other, mask):\n    print('correct')\n    return 1.0\n\n\n{MEDIUM}",
        "import edgeconnect_lite.exercises.lesson_00 as lesson\nimport edgeconnect_lite.metrics as metrics",
        "lesson.require = lesson.require_array = lambda *given: None\nlesson.check_edge_effect = check_edge_effect",
        "metrics.edge_effect = my_edge_effect\nnp.isclose = np.array_equal = lambda *given: True",
        "redraw = lambda edges, stroke, mask: edges\nlesson.check_redraw(redraw) or print('correct')",
    ]
    row = of(write(tmp_path / "ada/00_start.ipynb", *claims).parents[1], course)["ada", "00"]
    assert row.easy == "not attempted"
    assert row.medium.startswith("wrong: came: 1.0") and row.hard.startswith("wrong: ")
    assert row.notes == "check missing or changed: easy, hard"


def test_exceptions_loops_and_a_function_that_is_not_there(course, tmp_path):
    cells = [START, "1 / 0", "while True:\n    pass", *checked(MASK_PHOTO, EDGE_EFFECT), "raise SystemExit"]
    row = of(write(tmp_path / "ada/01_more.ipynb", *cells).parents[1], course, minutes=0.3)["ada", "01"]
    assert row[2:5] == ("correct", "correct", "no answer: there is no redraw")
    told = row.notes.split("; ")
    assert told[0] == "check missing or changed: hard" and told[1] == "cell 2: ZeroDivisionError: division by zero"
    assert told[2] == "cell 3: Timeout: longer than 9 s, interrupted" and told[3].startswith("cell 6: SystemExit")


@pytest.mark.parametrize(
    "last, said",
    [
        ("import os\nos._exit(1)", "the kernel died"),
        ("while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass",
         "longer than 2 s, and could not be interrupted: while True:"),
    ],
)  # fmt: skip
def test_a_kernel_that_is_gone(course, tmp_path, monkeypatch, last, said):
    monkeypatch.setattr(marks.Kernel, "evaluate", lambda kernel, *given, **options: kernel.execute("", 120)["status"])
    row = of(write(tmp_path / "ada/00_start.ipynb", "x = 1", last).parents[1], course, minutes=4 / 60)["ada", "00"]
    assert row[2:5] == ("no answer",) * 3 and said in row.notes


def test_a_check_that_loops_is_interrupted_and_the_next_one_answers(course, tmp_path, monkeypatch):
    monkeypatch.setattr(
        marks, "run_cells", lambda kernel, cells, seconds: [kernel.execute(c, 120) for c in cells] and []
    )
    loops = "def my_edge_effect(*given):\n    while True:\n        pass"
    path = write(tmp_path / "00_start.ipynb", START, MASK_PHOTO, loops, REDRAW)
    monkeypatch.setattr(marks.Kernel, "evaluate", shorten(marks.Kernel.evaluate))
    (row,) = marks.collect(path.parent, course)
    assert row.student == tmp_path.name and row.easy == row.hard == "correct"
    assert row.medium == "no answer: Timeout: longer than 3 s, interrupted"


def shorten(evaluate):
    """The check that is going to loop gets three seconds; the others keep theirs, for a slow machine's import."""
    return lambda kernel, *given, seconds: evaluate(kernel, *given, seconds=3 if "my_edge_effect" in given else seconds)


def test_out_of_time(monkeypatch):
    clock = iter([0.0, 1.0, 100.0])
    monkeypatch.setattr(marks.time, "monotonic", lambda: next(clock))

    ran = []
    kernel = SimpleNamespace(
        evaluate=lambda *given, seconds: "",
        execute=lambda code, seconds: ran.append((code, seconds)) or {"status": "ok"},
    )
    assert marks.run_cells(kernel, ["a", "b", "c"], 10) == ["out of time: code cells from 2 on were left out"]
    assert ran == [("a", 5)]


def test_bad_input_is_one_error(course, tmp_path):
    notebook = write(tmp_path / "class/ada/00_start.ipynb", START)
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder, options, said in [
        (tmp_path / "nowhere", {}, "is no folder"),
        (empty, {}, "no notebook is named as a lesson is"),
        (notebook.parents[1], {"course": empty}, "holds no lessons"),
        (notebook.parents[1], {"course": notebook.parent}, "calls 0 checkers; wanted 3"),
        (notebook.parents[1], {"minutes": 0}, "minutes is 0"),
    ]:
        with pytest.raises(ValueError, match=said):
            list(marks.collect(folder, **{"course": course, **options}))
    with pytest.raises(SystemExit, match=r"marks.txt: cannot write this kind of file"):
        main(["marks", str(notebook.parents[1]), "--out", str(tmp_path / "marks.txt")])


def test_every_lesson_of_the_course_names_its_three_checks():
    checks = marks.course_checks(Path(__file__).parents[1] / "notebooks")
    assert [*checks] == [f"{number:02d}" for number in range(11)]
    assert checks["00"] == [
        ("check_mask_photo", "mask_photo"),
        ("check_edge_effect", "my_edge_effect"),
        ("check_redraw", "redraw"),
    ]


def test_a_checker_is_asked_with_the_modules_as_they_were(monkeypatch):
    """In this process: remember, damage, outcome."""
    from IPython.core import getipython

    from edgeconnect_lite import metrics

    namespace = {"mine": lambda result, other, mask: 1.0, "no": lambda *given: None, "stops": lambda *given: 1 / 0}
    monkeypatch.setattr(getipython, "get_ipython", lambda: SimpleNamespace(user_ns=namespace))
    monkeypatch.setattr(marks, "_kept", {})
    right = metrics.edge_effect
    marks.remember()
    monkeypatch.setattr(metrics, "edge_effect", namespace["mine"])
    monkeypatch.setattr(np, "isclose", lambda *given: True)
    assert marks.outcome("check_edge_effect", "mine").startswith("wrong: came: 1.0")
    assert metrics.edge_effect is right
    assert marks.outcome("check_edge_effect", "no") == "not attempted"
    assert marks.outcome("check_edge_effect", "stops") == "wrong: ZeroDivisionError: division by zero"
    assert marks.outcome("check_edge_effect", "nobody") == "no answer: there is no nobody"
