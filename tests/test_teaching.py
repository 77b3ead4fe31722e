"""What TEACHING.md and docs/capstones.md say: tables against the lessons, answers against computed ones, commands that run."""

import ast
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from statistics import mean, median

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from edgeconnect_kernels import gated_elu, gated_elu_reference_backward_from_yg
from edgeconnect_kernels.roofline import GPUS, ISSUED
from helpers import load_module, needs_triton, run_python

from edgeconnect_lite import exercises, losses, metrics
from edgeconnect_lite.cli import main
from edgeconnect_lite.editor import strokes
from edgeconnect_lite.inpainting import Inpainter
from edgeconnect_lite.layers import GatedConv2d

ROOT = Path(__file__).parents[1]
TEACHING = (ROOT / "TEACHING.md").read_text(encoding="utf-8")
CAPSTONES = (ROOT / "docs/capstones.md").read_text(encoding="utf-8")
LESSONS = {path.name[:2]: path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}


def rows(text: str) -> list[list[str]]:
    """The cells of a section's tables, without their heads."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    rules = [number for number, cells in enumerate(lines) if set("".join(cells)) <= set("-: ")]
    heads = {number - 1 for number in rules} | set(rules)
    return [[cell.strip() for cell in cells] for number, cells in enumerate(lines) if number not in heads]


def section(text: str, title: str) -> str:
    level = re.search(rf"^(#+) {re.escape(title)}$", text, re.M)
    rest = text[level.end() :]
    return re.split(rf"^#{{1,{len(level[1])}}} ", rest, flags=re.M)[0]


# The tables.


def lesson(number: str) -> tuple[str, str]:
    """Its first cell, on one line, and all of its text."""
    cells = nbformat.read(LESSONS[number], as_version=4).cells
    return " ".join(cells[0].source.split()), "\n".join(cell.source for cell in cells)


def needed(first: str) -> list[str]:
    """The lessons that a first cell asks for: "00, 01, 05 to 07" is five."""
    text = re.search(r"\*\*Lessons needed:\*\* (.*?)[.;]", first)[1]
    spans = re.findall(r"(\d\d)(?: to (\d\d))?", text)
    return [f"{n:02d}" for start, end in spans for n in range(int(start), int(end or start) + 1)]


def test_the_table_of_needs_is_complete_and_says_what_the_lessons_and_their_measurement_say():
    """benchmarks/lessons.py measured; the last column and the minutes are in each lesson's first cell and exercises."""
    lines = [line for line in section(TEACHING, "What you need").splitlines() if re.match(r"\| \d\d ", line)]
    costs, wanted = json.loads((ROOT / "results/lessons.json").read_text(encoding="utf-8"))["lessons"], []
    for number in LESSONS:
        first, text = lesson(number)
        reading = re.search(r"\*\*Time:\*\* (\d+) minutes", first)[1]
        tasks = ", ".join(re.findall(r"^\*\*\d\. [\w, ]+?, (\d+) minutes\.\*\*", text, re.M))
        cost = f"{costs[number]['cpu_seconds']:.0f} | {costs[number]['peak_mb']:.0f}"
        wanted.append(f"| {number} | {reading} | {tasks} | {cost} | {', '.join(needed(first)) or 'none'} |")
    assert "\n".join(lines) == "\n".join(wanted)


def test_the_sections_that_the_plans_name_are_there():
    headings = [h for number in LESSONS for h in re.findall(r"^## (.*)", lesson(number)[1], re.M)]
    named = re.findall(r'"([A-Z].*?)"', section(TEACHING, "Four classes"))
    assert len(named) > 10 and not [name for name in named if not any(h.startswith(name) for h in headings)]


def test_the_plans_add_up_and_leave_out_no_lesson():
    four = section(TEACHING, "Four classes")
    for title, total in [(f"Class {n}", 120) for n in (1, 2, 3, 4)] + [("Shorter", 180)]:
        (heading,) = re.findall(rf"^### ({title}:? ?.*)$", four, re.M)
        assert sum(int(row[0]) for row in rows(section(TEACHING, heading))) == total, heading
    planned = four.split("### Shorter")[0]
    assert {number for number in LESSONS if re.search(rf"\b{number}\b", planned)} == set(LESSONS)
    assert {row[0] for row in rows(section(TEACHING, "Common wrong ideas"))} == set(LESSONS)
    named = set(re.findall(r"\b(\d\d)\.(\d)\b", four))
    assert all(lesson in LESSONS and task in "123" for lesson, task in named)


@pytest.mark.parametrize("title", ["1. Another data set", "2. A kernel of your own"])
def test_a_rubric_has_the_points_that_it_says_and_the_hours_add_up(title):
    text = section(CAPSTONES, title)
    (points,) = re.findall(r"^### Rubric: (\d+) points$", text, re.M)
    criteria = rows(section(text, f"Rubric: {points} points"))
    assert len(criteria) * 4 == int(points) and all(len(row) == 4 and all(row) for row in criteria)
    assert sum(int(row[0]) for row in rows(section(text, "Milestones"))) == 12


# The exam.

LEVELS = "recall", "reason", "compute", "design"
ANSWER = r"\n\n<details><summary>Answer</summary>\n\n(.*?)\n\n</details>"
QUESTION = re.compile(rf"^\*\*(\d+)\.\*\* \((\d\d), ({'|'.join(LEVELS)})\) (.*?){ANSWER}", re.M | re.S)


def test_the_exam_is_spread_over_lessons_and_levels():
    found = QUESTION.findall(TEACHING)
    assert [number for number, *_ in found] == [str(n) for n in range(1, 1 + TEACHING.count("<summary>Answer"))]
    assert len(found) >= 20 and {lesson for _, lesson, *_ in found} == set(LESSONS)
    levels = [level for _, _, level, *_ in found]
    assert all(levels.count(level) >= 3 for level in LEVELS)


def _field(layers):
    side = step = 1
    for kernel, stride, dilation in layers:
        side, step = side + dilation * (kernel - 1) * step, step * stride
    return side


def _gated(g, f):
    x = torch.tensor([g, f], dtype=torch.float64).view(1, 2, 1, 1).requires_grad_()
    y = gated_elu(x)
    y.backward()
    return [y.item(), *x.grad.flatten().tolist()]


def _filled():
    known, gray = np.array([1, 1, 0, 0, 1.0]), np.array([10, 20, 0, 0, 50.0])
    total, count = (np.convolve(values, np.ones(3), "same") for values in (gray, known))
    return [*(total / count)[2:4], *(total / 3)[2:4]]


def _best_f1():
    q = np.array([0.9, 0.6, 0.3, 0.1])
    f1 = 2 * q.cumsum() / (np.arange(1, 5) + q.sum())
    assert q[1] > f1.max() / 2 > q[2] and np.allclose(f1, [0.62, 0.77, 0.73, 0.64], atol=0.005)
    return [f1.max(), "two" if f1.argmax() == 1 else None, 2 / f1.max() - 1]


def _line():
    pixels = strokes.path(np.array([[0, 0], [5, 2]]))[0]
    return [", ".join(f"({x}, {y})" for x, y in pixels)]


def _held():
    history = strokes.History(np.zeros((8, 8), bool))
    a, b, c = ({"tool": "pen", "points": [[n, n]], "radius": 0} for n in (1, 2, 3))
    history.do(a)
    history.do(b)
    history.undo()
    history.do(c)
    assert not history.redo()
    return [", ".join("abc"[stroke["points"][0][0] - 1] for stroke in history.strokes[: history.position])]


def _bytes():
    unit = 4 * 32 * 64 * 64
    sizes = [3 * unit * 2, 5 * unit * 2]
    return sizes + [f"{1e6 * size / 3.35e12:.2f} µs" for size in sizes]


def _ridge():
    gpu = GPUS["H100 SXM"]
    return [gpu.sms * gpu.clock * ISSUED / gpu.bandwidth, 30 / 6]


def _counts():
    return [sum(p.numel() for p in layer.parameters()) for layer in (GatedConv2d(64, 32), torch.nn.Conv2d(64, 32, 3))]


def _slopes():
    z = torch.tensor([-4.0], requires_grad=True)
    return [torch.autograd.grad(y.sum(), z)[0].item() for y in (F.logsigmoid(-z), -F.logsigmoid(z))]


def _recalls():
    pictures = np.array([[8, 10, 8, 8], [10, 90, 10, 10]])
    return [mean([8 / 10, 10 / 90]), metrics.precision_recall_f1(pictures.sum(0))[1]]


COMPUTED = {  # a question's words -> what stands in bold in its answer, in order
    "A row of gray levels": _filled,
    "How many parameters": _counts,
    "Under a 3 × 3 kernel": lambda: [(6 + 9 + 12) / 9 * 9 / 3],
    "g = 0, f = -1": lambda: _gated(0.0, -1.0),
    "y is 4 × 32 × 64 × 64": _bytes,
    "A kernel issues 30": _ridge,
    "receptive field of three": lambda: [_field([(3, 1, 1), (3, 2, 1), (3, 1, 2)])],
    "To which size is": lambda: [f"{100 + -100 % 8} × {76 + -76 % 8}"],
    "three equally likely photos": lambda: [median([10, 20, 90]), mean([10, 20, 90])],
    "How steep are": _slopes,
    "edges weighted w = 4": lambda: [1 / (1 + 4), 4 * 0.3 / (4 * 0.3 + 0.7)],
    "true edge probabilities": _best_f1,
    "Hole A": _recalls,
    "each trained with three seeds": lambda: [f"{2 / math.comb(2 * n, n):.0%}".replace("%", " %") for n in (3, 2)],
    "Which pixels does the editor": _line,
    "Acts: a, b": _held,
    "A hole covers 4 %": lambda: [f"{30 - 10 * math.log10(1 / 0.04):.1f} dB"],
    "85 % of a stroke": lambda: [(0.85 - 0.45) / (1 - 0.45)],
    "Two processes share": lambda: [(5 + 3) / (10 + 30), mean([5 / 10, 3 / 30])],
}


def as_written(value, said):
    """The value in the form of what is said: as many decimals, thousands parted."""
    if isinstance(value, str):
        return value
    return f"{value:,.{len(said.partition('.')[2])}f}"


@pytest.mark.parametrize("words", COMPUTED)
def test_a_computed_answer_is_right(words):
    (answer,) = [answer for *_, question, answer in QUESTION.findall(TEACHING) if words in " ".join(question.split())]
    said = [" ".join(bold.split()) for bold in re.findall(r"\*\*(.+?)\*\*", answer, re.S)]
    assert said == [as_written(value, bold) for value, bold in zip(COMPUTED[words](), said, strict=True)]


def test_every_question_to_compute_is_computed():
    asked = [
        " ".join(question.split()) for _, _, level, question, _ in QUESTION.findall(TEACHING) if level == "compute"
    ]
    assert len(asked) == len(COMPUTED) and all(any(words in question for words in COMPUTED) for question in asked)


def test_the_claims_about_digits_hold():
    f = torch.tensor(-1e-8)
    assert f.exp() - 1 == 0 and f.expm1() == f
    assert 1 - torch.sigmoid(torch.tensor(17.1)) == 0 < torch.sigmoid(torch.tensor(-17.1))
    assert torch.tensor(89.0).exp().isinf() and torch.tensor(88.0).exp().isfinite()
    with np.errstate(over="ignore"):
        assert np.uint8(3) - np.uint8(5) == 254


# Handing out.


def test_the_package_answers_the_exercises_that_the_page_names(capsys):
    exercises.check_edge_effect(metrics.edge_effect)
    exercises.check_gated_activation(gated_elu)
    exercises.check_backward_from_yg(gated_elu_reference_backward_from_yg)
    exercises.check_gram_matrix(losses.gram_matrix)
    assert capsys.readouterr().out == "correct\n" * 4


@pytest.fixture(scope="module")
def handout(needs_tool, tmp_path_factory):
    """What `make handout` makes of the last commit, unpacked."""
    needs_tool("git", shutil.which("git") and (ROOT / ".git").exists())
    needs_tool("make", shutil.which("make"))
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name and name != "MFLAGS"}
    command = ["make", "--no-print-directory", "-n", "handout"]
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    folder = tmp_path_factory.mktemp("handout")
    assert said.count("handout.zip") == 1
    subprocess.run(
        said.replace("handout.zip", shlex.quote(str(folder / "handout.zip"))), shell=True, cwd=ROOT, check=True
    )
    with zipfile.ZipFile(folder / "handout.zip") as archive:
        archive.extractall(folder)
    return folder / "edgeconnect-lite"


def functions(source):
    """Name and body of every function, however it is laid out."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and not isinstance(node.body[0], ast.Pass):
            yield node.name, "\n".join(ast.unparse(line) for line in node.body)


def test_the_handout_holds_the_lessons_and_no_solution(handout):
    assert sorted(path.name for path in handout.glob("notebooks/*.ipynb")) == [path.name for path in LESSONS.values()]
    for name in (
        "README.md",
        "pyproject.toml",
        "conftest.py",
        "results/weights.json",
        "edgeconnect_lite/assets/faces-128.zip",
    ):
        assert (handout / name).is_file(), name
    for name in ("notebooks/solutions", "tests", "TEACHING.md", "docs/code/solutions.md"):
        assert not (handout / name).exists(), name
    solved = {}
    for path in sorted((ROOT / "notebooks/solutions").glob("[0-9]*.py")):
        solved |= {body: name for name, body in functions(path.read_text(encoding="utf-8"))}
    sources = [path.read_text(encoding="utf-8") for path in handout.rglob("*.py")]
    for path in handout.glob("notebooks/*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        sources += [re.sub(r"^[%!].*", "", cell.source, flags=re.M) for cell in cells if cell.cell_type == "code"]
    handed = {body for source in sources for _, body in functions(source)}
    longer = {
        body: name for body, name in solved.items() if body.count("\n") > 1
    }  # a line or two may be a lesson's own
    assert len(longer) > 15 and not [name for body, name in longer.items() if body in handed]


def test_a_lesson_runs_in_the_handout(handout):
    lesson = handout / "notebooks/01_photos_masks_edges.ipynb"
    path = os.pathsep.join([str(handout), str(handout / "kernels")])
    code = "import runpy, sys; sys.argv = sys.argv[:1] + ['notebooks/01_photos_masks_edges.ipynb']; "
    code += "runpy.run_path('notebooks/execute.py', run_name='__main__')"
    before = lesson.read_text(encoding="utf-8")
    lesson.write_text(before.replace("not attempted yet", "not run yet"), encoding="utf-8")
    done = run_python(code, handout, path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert lesson.read_text(encoding="utf-8").count("not attempted yet") == 3


# The capstones.


def blocks(text, kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.M | re.S)


def test_capstone_1_runs_from_pictures_to_published_weights(tmp_path, monkeypatch, capsys):
    """Every command of the page, with the same options, and then smaller numbers."""
    monkeypatch.chdir(tmp_path)
    text = section(CAPSTONES, "1. Another data set")
    (script,) = blocks(text, "python")
    small = script.replace("800 if", "8 if").replace("else 60", "else 1")
    assert small.count("8 if") == small.count("else 1)") == 1
    exec(compile(small, "views.py", "exec"), {})
    commands = [shlex.split(line) for block in blocks(text, "sh") for line in block.splitlines()]
    assert [command[0] for command in commands].count("edgeconnect-lite") == 5
    few = ["--validation", "2", "--steps", "2", "--width", "8", "--bottom", "16", "--blocks", "1", "--warmup", "1"]
    for program, *arguments in commands:
        if program == "edgeconnect-lite":
            more = {"train": few, "evaluate": ["--limit", "1", "--sets", "brush"]}.get(arguments[0], [])
            main(arguments + more)
        elif program == "python":
            assert arguments == ["views.py"]
        else:
            subprocess.run([program, *arguments], check=True)
    assert len(Path("photos.txt").read_text().split()) == 8 and "wrote mine.json" in capsys.readouterr().out
    report = json.loads(Path("mine.json").read_text())["results"]["brush"]["20-40%"]
    assert {"telea", "predicted", "none"} <= set(report)
    photo, mask = np.zeros((64, 64, 3), np.uint8), np.eye(64, dtype=bool)
    assert Inpainter.from_pretrained("published", device="cpu")(photo, mask).shape == photo.shape


@pytest.fixture(scope="module")
def kernel():
    return load_module(ROOT / "notebooks/solutions/capstone_kernel.py")


@needs_triton
def test_capstone_2_starts(tmp_path, capsys):
    text = section(CAPSTONES, "2. A kernel of your own")
    (script,) = blocks(text, "python")
    (tmp_path / "start.py").write_text(script)
    done = run_python("import runpy; runpy.run_path('start.py')", tmp_path, os.pathsep.join(sys.path[1:] + [""]))
    assert done.returncode == 0, done.stderr
    assert "'LDG.128': 1" in done.stdout and "4000 bytes loaded, 4000 stored; 0 elements differ" in done.stdout
    (commands,) = blocks(text, "sh")
    first, second = commands.splitlines()
    assert first == "python start.py"
    main(shlex.split(second)[1:])
    assert "backward_from_x" in capsys.readouterr().out


@needs_triton
def test_capstone_2_is_solved_and_no_mutant_passes(kernel):
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    dy = torch.randn(2, 2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (wanted,) = torch.autograd.grad(kernel.reference(x), x, dy)
    assert torch.allclose(kernel.reference_backward(dy, x.detach()), wanted, rtol=1e-12, atol=1e-15)
    for elements in (1, 63, 64, 65):  # of a picture, around the block's 64
        kernel.check_interpreted((2, 2, elements, 1))
    kernel.check_interpreted()
    kernel.check_compiled()
    kernel.check_compiled(torch.float32)
    assert kernel.survivors() == []


@needs_triton
def test_capstone_2_quotes_its_own_figures(kernel):
    table = {row[0]: row[1:] for row in rows(section(CAPSTONES, "2. A kernel of your own")) if row[0] in kernel.TENSORS}
    for name, said in table.items():
        figures, time = kernel.cost(name)
        counted = f"{figures.instructions_per_element:.1f}", f"{figures.mufu_per_element:.0f}", str(figures.registers)
        assert [*said[:3], said[-1]] == [*counted, f"{1e6 * time['seconds']:.0f}"], name
    assert set(table) == set(kernel.TENSORS)
