"""Every lesson keeps the course's form, and is stored executed."""

import base64
import io
import re
import statistics
from pathlib import Path

import nbformat
import pytest
from PIL import Image

FOLDER = Path(__file__).parents[1] / "notebooks"
LESSONS = sorted(FOLDER.glob("*.ipynb"))
FIRST_LESSONS = ["00_start_here.ipynb", "01_photos_masks_edges.ipynb"]
# Not in a lesson's text or outputs: they differ from one machine or day to the next.
MACHINE = {
    "absolute path": r"(?<![\w.:/<])/(?:home|root|tmp|usr|opt|mnt|var|Users|work|private|content)/|\b[A-Z]:\\",
    "memory address": r"\b0x[0-9a-f]{6,}\b",
    "time stamp": r"\b20\d\d-\d\d-\d\d[ T]\d\d:\d\d|\b\d\d:\d\d:\d\d\b",
    "device name": r"\b(?:cuda|mps):\d|\b(?:NVIDIA|GeForce|Tesla|Intel|AMD|EPYC|Xeon)\b",
    "version": r"\b(?:torch|numpy|python|triton|matplotlib|cuda)\s*(?:version)?[ =:v]+\d+\.\d+",
}
ADDRESS = r"\]\(https://[^\s)]+\)"  # of a link: no prose
PAPER_PAGE = r"https://(?:arxiv\.org/abs/\d{4}\.\d{4,5}|doi\.org/10\.\d{4,}/\S+|kellerjordan\.github\.io/posts/muon/)"
INSTALL = r"\bpip3? install|\bconda install|\bapt(?:-get)? install|\buv add"


@pytest.fixture(params=LESSONS, ids=[path.stem for path in LESSONS])
def path(request):
    return request.param


@pytest.fixture
def lesson(path):
    return nbformat.read(path, as_version=4)


def code(lesson):
    return [cell for cell in lesson.cells if cell.cell_type == "code"]


def markdown(lesson):
    return [cell.source for cell in lesson.cells if cell.cell_type == "markdown"]


def papers(lesson):
    """The part of the first cell that names papers, and its links: (title, address)."""
    part = " ".join(lesson.cells[0].source.partition("**Papers:**")[2].split())
    return part, re.findall(r"\[\*([^*]+)\*\]\((https://[^\s)]+)\)", part)


def outputs(lesson):
    return [output for cell in code(lesson) for output in cell.outputs]


def texts(lesson):
    """Everything a reader sees: sources, and outputs as text."""
    yield from (cell.source for cell in lesson.cells)
    for output in outputs(lesson):
        yield output.get("text", "")
        yield from (text for kind, text in output.get("data", {}).items() if kind.startswith("text/"))


def test_the_first_lessons_are_there():
    assert set(FIRST_LESSONS) <= {path.name for path in LESSONS}


def test_name_and_solutions(path):
    assert re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem)
    assert (FOLDER / "solutions" / f"{path.stem}.py").is_file()


def test_length(path, lesson):
    lengths = [len(cell.source.splitlines()) for cell in code(lesson)]
    assert 15 <= len(lengths) <= 30
    assert statistics.median(lengths) <= 8 and max(lengths) <= 25
    prose = re.sub(rf"{ADDRESS}|\$\$.*?\$\$|<[^>]+>", " ", "\n".join(markdown(lesson)), flags=re.S)
    assert 600 <= len(re.findall(r"\w[\w'-]*", prose)) <= 1500
    assert path.stat().st_size <= 400 * 1024


def test_first_two_cells(lesson):
    first, second = lesson.cells[:2]
    assert first.cell_type == "markdown" and re.match(r"# \S", first.source) and "?" in first.source
    able = first.source[first.source.lower().index("you will be able to") :]
    bullets = re.match(r".*\n+((?:[-*] .*\n(?:[ \t]+\S.*\n)*)+)", able + "\n")[1]
    assert len(re.findall(r"^[-*] ", bullets, re.M)) == 3
    for needed in ("lesson", "minutes", "paper"):
        assert needed in first.source.lower(), f"the first cell says nothing of {needed}s"
    assert second.cell_type == "code" and "import " in second.source
    assert re.search(r"\bseed\b|_rng\(\d+\)", second.source), "the second cell sets no seed"


def test_every_paper_in_the_first_cell_is_a_link(lesson):
    part, links = papers(lesson)
    rest = re.sub(rf"\[\*[^*]+\*{ADDRESS}", " ", part)
    assert links and "*" not in rest, "a title that is no link"
    assert len(re.findall(r"\b(?:19|20)\d\d\b", rest)) == len(links), (
        "a paper with a year and no link, or a link without"
    )
    assert not [address for _, address in links if not re.fullmatch(PAPER_PAGE, address)]


def test_one_paper_has_one_name_and_one_address():
    named = {link for path in LESSONS for link in papers(nbformat.read(path, as_version=4))[1]}
    assert len(named) == len({title for title, _ in named}) == len({address for _, address in named})


def test_stored_executed(lesson):
    cells = [cell for cell in code(lesson) if cell.source.strip()]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all("nbval-skip" not in cell.metadata.get("tags", []) for cell in cells)
    assert not [output for output in outputs(lesson) if output.output_type == "error" or output.get("name") == "stderr"]
    assert sum(bool(cell.outputs) for cell in cells) * 2 >= len(cells)


def test_stored_in_the_form_that_execute_writes(path, lesson):
    text = path.read_text(encoding="utf-8")
    assert text == nbformat.writes(lesson).rstrip("\n") + "\n" and "widget-view+json" not in text
    assert set(lesson.metadata) == {"kernelspec", "language_info"}
    assert lesson.metadata.language_info == {"name": "python"}
    assert not [cell.id for cell in lesson.cells if "execution" in cell.metadata]


def test_pictures(lesson):
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(data)))
        for output in outputs(lesson)
        for kind, data in output.get("data", {}).items()
        if kind in ("image/png", "image/jpeg")
    ]
    assert pictures
    assert not [picture.info for picture in pictures if "Software" in picture.info], "drop matplotlib's version"


@pytest.mark.parametrize("what", MACHINE)
def test_nothing_of_one_machine(lesson, what):
    assert not [found[0] for text in texts(lesson) for found in re.finditer(MACHINE[what], text, re.I)]


def test_no_install_cells(lesson):
    assert not [cell.source for cell in code(lesson) if re.search(rf"{INSTALL}|^\s*[!%]", cell.source, re.M)]


def test_three_exercises_each_with_a_folded_hint(lesson):
    text = "\n".join(cell.source for cell in lesson.cells)
    parts = re.split(r"^\*\*\d\. (\w+), (core|extra), \d+ minutes\.\*\*", text, flags=re.M)[1:]
    assert parts[::3] == ["Easy", "Medium", "Hard"] and parts[1] == "core"
    for level, part in zip(parts[::3], parts[2::3]):
        hint = r"<details><summary>Hint</summary>\n\n.*?\n\n</details>"  # without the blank lines it shows no Markdown
        assert re.search(hint, part, re.S), f"{level}: no folded hint"
        assert re.search(r"(return None|pass)  # TODO", part) and re.search(r"^check_\w+\(", part, re.M), (
            f"{level}: no stub, or no check"
        )
    checks = [cell for cell in code(lesson) if re.search(r"^check_\w+\(", cell.source, re.M)]
    said = ["".join(output.get("text", "") for output in cell.outputs) for cell in checks]
    assert said == ["not attempted yet\n"] * 3


def test_no_cell_needs_a_readers_function(lesson):
    """Whoever leaves an exercise out can follow the rest."""
    for cell in code(lesson):
        if "# TODO: your code" in cell.source:
            name = re.search(r"^def (\w+)\(", cell.source, re.M)[1]
            users = [other.source for other in code(lesson) if re.search(rf"(?<![\w.\"]){name}\b", other.source)]
            assert users == [cell.source]
