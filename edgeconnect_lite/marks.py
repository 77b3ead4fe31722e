"""Marks: run the notebooks that students handed in, and ask the course's own checkers. For teachers; TEACHING.md says how.

A notebook runs in a copy of its own, in a new kernel. All its cells are executed, whatever fails. Then the exercises'
checkers, imported anew, are called with what stands under the course's names: nothing that a notebook printed, stored or
left out counts. What runs here is the students' code, with the rights of whoever calls this: use a container.
"""

import ast
import contextlib
import csv
import importlib
import io
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

from edgeconnect_lite.photos import write_bytes

OTHER = ""  # the lesson of a notebook that is named as none
LEVELS = ("easy", "medium", "hard")
COLUMNS = ("student", "lesson", *LEVELS, "notes")
CHECK = re.compile(r"^(check_\w+)\((\w+)\)\s*$", re.M)
CHECK_SECONDS = 60.0  # a solution's takes less than one
GUARDED = ("builtins", "numpy", "torch", "torch.nn.functional")  # and the course's packages: what checkers rely on


class Row(NamedTuple):
    """One student and lesson. easy, medium, hard: "correct", "not attempted", "wrong: ...", or why there is no answer."""

    student: str
    lesson: str
    easy: str
    medium: str
    hard: str
    notes: str


class Stopped(Exception):
    """The kernel is gone; the message says why."""


# What runs here: the collection.


def collect(folder: Path, course: Path | None = None, minutes: float = 6.0) -> Iterator[Row]:
    """The rows of FOLDER/<student>/NN_*.ipynb, or FOLDER/NN_*.ipynb, one by one: each lesson that anybody handed in.

    course: the lessons as they were handed out, by default this checkout's. minutes: for the cells of one notebook.
    Raises ValueError where there is nothing to do.
    """
    if not minutes > 0:
        raise ValueError(f"minutes is {minutes}; wanted more than 0")
    course = course or Path(__file__).resolve().parents[1] / "notebooks"
    checks = course_checks(course)
    students = handed_in(folder, set(checks))
    for student, lessons in students.items():
        for lesson in checks:
            if any(lesson in others for others in students.values()):
                outcomes, notes = mark(lessons.get(lesson, []), checks[lesson], course, minutes)
                if lesson not in lessons and OTHER in lessons:
                    notes.append(f"no lesson's name: {_names(lessons[OTHER])}")
                easy, medium, hard = outcomes
                yield Row(student, lesson, easy, medium, hard, "; ".join(notes))


def course_checks(course: Path) -> dict[str, list[tuple[str, str]]]:
    """lesson -> the three (checker, function) of its own notebook, easy first."""
    checks = {}
    for path in sorted(course.glob("[0-9][0-9]_*.ipynb")):
        found = CHECK.findall("\n".join(_code_of(path)))
        if len(found) != len(LEVELS):
            raise ValueError(f"{path} calls {len(found)} checkers; wanted {len(LEVELS)}")
        checks[path.name[:2]] = found
    if not checks:
        raise ValueError(f"{course} holds no lessons; wanted a checkout's notebooks, from which the checks are taken")
    return checks


def handed_in(folder: Path, lessons: set[str]) -> dict[str, dict[str, list[Path]]]:
    """student -> lesson, or OTHER -> files. Notebooks in the folder itself are one student's, named as the folder."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; wanted one with notebooks, or with a folder of them for each student")
    inner = (path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith("."))
    students: dict[str, dict[str, list[Path]]] = {}
    for home in (folder, *inner):
        paths = sorted(home.glob("*.ipynb"))
        if paths or home != folder:
            mine = students.setdefault(home.resolve().name, {})
            for path in paths:
                mine.setdefault(path.name[:2] if path.name[:2] in lessons else OTHER, []).append(path)
    if not any(set(mine) - {OTHER} for mine in students.values()):
        raise ValueError(f"{folder}: no notebook is named as a lesson is; wanted 01_....ipynb, as it was handed out")
    return students


def mark(paths: list[Path], checks: list[tuple[str, str]], course: Path, minutes: float) -> tuple[list[str], list[str]]:
    """The three outcomes of one student's files of one lesson, and notes."""
    if not paths:
        return ["missing"] * 3, []
    if len(paths) > 1:
        return [f"{len(paths)} files"] * 3, [f"{_names(paths)}; wanted one"]
    try:
        cells = _code_of(paths[0])
    except Exception as error:  # nbformat lets through whatever its parsers raise
        return ["not run"] * 3, [f"{paths[0].name} cannot be read: {_line(error)}"]
    lines = {line.strip() for cell in cells for line in cell.splitlines()}
    changed = [level for level, (checker, name) in zip(LEVELS, checks) if f"{checker}({name})" not in lines]
    notes = [f"check missing or changed: {', '.join(changed)}"] if changed else []
    outcomes = []
    with _kernel(course) as kernel:
        try:
            notes += run_cells(kernel, cells, minutes * 60)
            for check in checks:
                outcomes.append(kernel.evaluate("outcome", *check, seconds=CHECK_SECONDS))
        except Stopped as stopped:
            notes.append(str(stopped))
    return outcomes + ["no answer"] * (3 - len(outcomes)), notes


def run_cells(kernel: "Kernel", cells: list[str], seconds: float) -> list[str]:
    """Execute all. What went wrong, but for what checkers say: it is asked for later. One cell may take half the time."""
    kernel.evaluate("remember", seconds=5 * CHECK_SECONDS)  # it imports torch
    failed, end = [], time.monotonic() + seconds
    for number, source in enumerate(cells, start=1):
        left = end - time.monotonic()
        if left <= 0:
            return [*failed, f"out of time: code cells from {number} on were left out"]
        reply = kernel.execute(source, min(left, seconds / 2))
        if reply["status"] != "ok" and reply.get("ename") != "WrongAnswer":
            failed.append(f"cell {number}: {_line(reply.get('ename', reply['status']), reply.get('evalue', ''))}")
    return failed


class Kernel:
    """A kernel of this Python, in a folder of its own."""

    def __init__(self, folder: Path):
        self.manager = _ThisPython()
        environment = {**os.environ, "TQDM_DISABLE": "1", "IPYTHONDIR": str(folder / "ipython")}
        environment.pop("MPLBACKEND", None)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # the kernel's own log
        self.manager.start_kernel(cwd=str(folder / "notebooks"), env=environment, **quiet)
        self.client = self.manager.blocking_client()
        self.client.start_channels(shell=True, iopub=False, stdin=False, hb=False)  # what is printed interests nobody

    def execute(self, code: str, seconds: float, **expressions: str) -> dict[str, Any]:
        """The kernel's reply. Code that takes longer is interrupted; if that does not end it, the kernel is Stopped."""
        request = self.client.execute(code, user_expressions=expressions, allow_stdin=False, stop_on_error=False)
        if reply := self._reply(request, seconds):
            return reply
        self.manager.interrupt_kernel()
        if self._reply(request, 5):
            return {"status": "error", "ename": "Timeout", "evalue": f"longer than {seconds:.0f} s, interrupted"}
        raise Stopped(f"longer than {seconds:.0f} s, and could not be interrupted: {_line(code)}")

    def _reply(self, request: str, seconds: float) -> dict[str, Any] | None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(queue.Empty):
                message = self.client.get_shell_msg(timeout=0.5)
                if message["parent_header"].get("msg_id") == request:
                    return message["content"]
            if not self.manager.is_alive():
                raise Stopped("the kernel died")
        return None

    def evaluate(self, function: str, *arguments: str, seconds: float) -> str:
        """What one of this module's functions returns there."""
        here = f"__import__({__name__!r}, fromlist=['marks'])"
        reply = self.execute("", seconds, value=f"{here}.{function}(*{arguments!r})")
        value = reply.get("user_expressions", {}).get("value", {})
        if value.get("status") == "ok":
            return str(ast.literal_eval(value["data"]["text/plain"]))
        return f"no answer: {_line(*(each.get(key, '') for each in (reply, value) for key in ('ename', 'evalue')))}"

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


class _ThisPython(KernelManager):
    """Whatever kernels the user has registered."""

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())


@contextlib.contextmanager
def _kernel(course: Path) -> Iterator[Kernel]:
    """A kernel in a temporary copy of what lessons read: ../results."""
    root = course.resolve().parent
    with tempfile.TemporaryDirectory(prefix="marks-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "notebooks").mkdir()
        if (root / "results").is_dir():
            shutil.copytree(root / "results", folder / "results")
        kernel = Kernel(folder)
        try:
            yield kernel
        finally:
            kernel.close()


def _code_of(path: Path) -> list[str]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code" and cell.source.strip()]


def _names(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths)


def _line(*parts: object, limit: int = 200) -> str:
    """One line of a table."""
    line = " ".join(": ".join(filter(None, map(str, parts))).split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


# What is written.


def write_csv(path: Path, rows: list[Row]) -> None:
    """The table, whole or not at all."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    write_bytes(path, text.getvalue().encode())


def print_table(rows: list[Row]) -> None:
    """The same to look at, and how many are correct."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*COLUMNS, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else 160, markup=False)
    console.print(table)
    for level in LEVELS:
        console.print(f"{level}: {sum(getattr(row, level) == 'correct' for row in rows)} of {len(rows)} correct")


# What runs in the kernel, called by Kernel.evaluate.

_kept: dict[str, dict[str, Any]] = {}


def remember() -> str:
    """Before a student's first cell: the names that checkers rely on."""
    importlib.import_module("edgeconnect_lite.exercises")
    ours = re.compile(r"edgeconnect_(lite|kernels)(\.|$)")
    names = [name for name in sys.modules if name in GUARDED or ours.match(name)]
    _kept.update({name: dict(vars(sys.modules[name])) for name in names})
    return ""


def outcome(checker: str, name: str) -> str:
    """After a student's last cell: what a checker says of the function, with its modules as they were and itself new."""
    from IPython.core.getipython import get_ipython

    for module, names in _kept.items():
        vars(sys.modules[module]).update(names)
    for module in [module for module in sys.modules if module.startswith("edgeconnect_lite.exercises")]:
        del sys.modules[module]
    exercises = importlib.import_module("edgeconnect_lite.exercises")
    check, said = getattr(exercises, checker), []
    vars(sys.modules[check.__module__])["say"] = said.append  # what is printed could be anybody's
    namespace = get_ipython().user_ns  # type: ignore[union-attr]
    if name not in namespace:
        return f"no answer: there is no {name}"
    try:
        check(namespace[name])
    except exercises.WrongAnswer as error:
        return _line("wrong", error)
    except Exception as error:
        return _line("wrong", type(error).__name__, error)
    return {True: "correct", False: "not attempted"}[said[-1]] if said else "not checked on this machine"
