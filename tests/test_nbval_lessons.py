"""Damage to any output of any lesson fails under the root conftest.py.

In a replay, nbval judges each stored lesson against its own stored outputs, said again by a stand-in for the kernel: undamaged,
then with one damage at a time, of every kind, to every output. And in one real run, the beginning of each lesson is executed
with its first output damaged: that cell must fail, and none before it.
"""

import base64
import copy
import io
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_notebook, new_output
from nbval.plugin import IPyNbFile, NbCellError
from PIL import Image, ImageChops, ImageEnhance, ImageOps
from test_nbval_guard import outcomes, run_pytest

LESSONS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
APPROX = 0.02  # what the tag nbval-approx lets pass
FORMATS = {"image/png": {"compress_level": 1}, "image/jpeg": {"quality": 95}}


class Replay:
    """In place of a kernel: runs nothing, and sends the outputs that it was given."""

    def __init__(self, outputs):
        said = [(output.output_type, output) for output in copy.deepcopy(outputs)]
        said.append(("status", {"execution_state": "idle"}))
        self.messages = ({"msg_type": kind, "parent_header": {"msg_id": "1"}, "content": what} for kind, what in said)

    def is_alive(self):
        return True

    def execute_cell_input(self, source, allow_stdin=None):
        return "1"

    def await_reply(self, msg_id, timeout=None):
        pass

    def get_message(self, stream, timeout=None):
        return next(self.messages)


def passes(item, stored, fresh):
    """Whether nbval lets a stored cell pass whose run gives these outputs."""
    item.cell, item.parent.kernel = stored, Replay(fresh)
    try:
        item.runtest()
    except NbCellError:
        return False
    return True


# ----- damages: (name, what it does to a stored cell, whether nbval may let it pass) -----


def picture_of(output):
    """The format of an output's picture, or None."""
    return next((kind for kind in FORMATS if kind in output.get("data", {})), None)


def pictures(cells):
    return [output.data[kind] for cell in cells for output in cell.outputs if (kind := picture_of(output))]


def decode(data):
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def encode(picture, kind):
    buffer = io.BytesIO()
    picture.save(buffer, kind.removeprefix("image/"), **FORMATS[kind])
    return base64.b64encode(buffer.getvalue()).decode()


def erase(picture):
    """Blank the part, as large as a short word of a plot, that has most to show."""
    pixels, height, width = np.array(picture), 12, 30
    corners = [(y, x) for y in range(0, picture.height - 11, height) for x in range(0, picture.width - 29, width)]
    tiles = [(slice(y, y + height), slice(x, x + width)) for y, x in corners]
    tile = max(tiles, key=lambda tile: pixels[tile].std(axis=(0, 1)).sum())
    pixels[tile] = np.median(pixels[tile], axis=(0, 1))
    return Image.fromarray(pixels)


CHANGES = {
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
    "12 % brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.12),
    "12 % darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.88),
    "gray": lambda picture: picture.convert("L").convert("RGB"),
    "red and blue swapped": lambda picture: Image.merge("RGB", picture.split()[::-1]),
    "moved": lambda picture: ImageChops.offset(picture, picture.width // 16, 0),
    "wider": lambda picture: picture.resize((picture.width * 9 // 8, picture.height)),
    "a word erased": erase,
}


def hardly_seen(changed, picture):
    """Less than 3 of 255 on average, and 32 nowhere: a gray picture made gray, lines on white made 12 % brighter."""
    if changed.size != picture.size:
        return False
    gap = np.abs(np.asarray(changed, float) - np.asarray(picture, float))
    return gap.mean() < 3 and gap.max() < 32


def put(place, data, kind):
    def change(cell):
        del cell.outputs[place].data[picture_of(cell.outputs[place])]
        cell.outputs[place].data[kind] = data

    return change


def picture_damages(place, data, kind, others):
    picture = decode(data)
    for name, change in CHANGES.items():
        changed = change(picture)
        if not hardly_seen(changed, picture):
            yield name, put(place, encode(changed, kind), kind), False
    other = decode(next(other for other in others if other != data))
    yield "another picture", put(place, encode(other.resize(picture.size), kind), kind), False
    for swapped in FORMATS.keys() - {kind}:
        yield "another format", put(place, encode(picture, swapped), swapped), False


def write(place, key, text):
    def change(cell):
        (cell.outputs[place] if key == "text" else cell.outputs[place].data)[key] = text

    return change


def close(before, after):
    """Whether both words are one decimal number to 2 %."""
    if "." not in before:
        return False
    try:
        return abs(float(after) - float(before)) <= APPROX * abs(float(before)) + 1e-6
    except ValueError:
        return False


def text_damages(place, key, text, approx):
    for found in re.finditer(r"[\w.]+(?:(?<=e)[-+]\d+)?", text):
        for digit in re.finditer(r"\d", found[0]):
            word = found[0][: digit.start()] + str((int(digit[0]) + 5) % 10) + found[0][digit.end() :]
            changed = text[: found.start()] + word + text[found.end() :]
            yield "another digit", write(place, key, changed), approx and close(found[0], word)
    if letter := re.search(r"[A-Za-z]", text):  # some say nothing but numbers
        changed = text[: letter.start()] + letter[0].swapcase() + text[letter.end() :]
        yield "another word", write(place, key, changed), False
    yield "text cut", write(place, key, text[:-2]), False


def remove(place):
    return lambda cell: cell.outputs.pop(place)


def swap(place):
    def change(cell):
        cell.outputs[place : place + 2] = cell.outputs[place : place + 2][::-1]

    return change


def retype(place):
    """Said on the other stream; or shown, and not the cell's value; or the other way round."""
    other = {"execute_result": "display_data", "display_data": "execute_result"}

    def change(cell):
        output = cell.outputs[place]
        output.update({"name": "stderr"} if "name" in output else {"output_type": other[output.output_type]})

    return change


def never_run(cell):
    cell.outputs, cell.execution_count = [], None


def damages(cell, others):
    """others: the lesson's pictures."""
    approx = "nbval-approx" in cell.metadata.get("tags", [])
    yield "never run", never_run, False
    yield "count removed", lambda cell: cell.update(execution_count=None), False
    yield "one output more", lambda cell: cell.outputs.append(new_output("stream", name="stdout", text="0\n")), False
    for place, output in enumerate(cell.outputs):
        yield "output removed", remove(place), False
        yield "another type", retype(place), False
        if place:
            yield "order swapped", swap(place - 1), False
        key, holder = ("text", output) if "text" in output else ("text/plain", output.data)
        yield from text_damages(place, key, holder[key], approx)
        if kind := picture_of(output):
            yield from picture_damages(place, output.data[kind], kind, others)


# ----- the replay -----


@pytest.mark.parametrize("path", LESSONS, ids=[path.stem for path in LESSONS])
def test_every_damage_to_every_output_is_found(request, path):
    items = list(IPyNbFile.from_parent(request.session, path=path).collect())
    cells = [item.cell for item in items]
    others = pictures(cells)
    wrong, judged = [], 0
    for item, cell in zip(items, cells):
        assert passes(item, copy.deepcopy(cell), cell.outputs), f"cell {item.cell_num} is as stored"
        for name, damage, may_pass in damages(cell, others):
            stored = copy.deepcopy(cell)
            damage(stored)
            judged += 1
            if passes(item, stored, cell.outputs) != may_pass:
                wrong.append(f"cell {item.cell_num}: {name}: {'fails' if may_pass else 'passes'}")
    assert judged > 10 * len(cells) and not wrong, "\n".join(wrong)


# ----- the real run -----


def beginning(path):
    """The code cells up to the first with an output, and that one damaged: text in its first digit, a picture mirrored."""
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    last = next(place for place, cell in enumerate(code) if cell.outputs)
    wanted = "mirrored" if picture_of(code[last].outputs[0]) else "another digit"
    found = damages(code[last], pictures(code))
    next(damage for name, damage, may_pass in found if name == wanted and not may_pass)(code[last])
    return code[: last + 1]


def test_the_damaged_cell_fails_when_it_is_run(tmp_path):
    expected = {}
    for path in LESSONS:
        cells = beginning(path)
        nbformat.write(new_notebook(cells=cells), tmp_path / path.name)
        expected |= {f"{path.name}::Cell {place}": "PASSED" for place in range(len(cells))}
        expected[f"{path.name}::Cell {len(cells) - 1}"] = "FAILED"
    output = run_pytest(tmp_path, "-p", "conftest", "--nbval", "--nbval-current-env")
    assert outcomes(output) == expected, output
    assert output.count("Cell outputs differ") >= len(LESSONS), output  # under CI pytest says each twice
