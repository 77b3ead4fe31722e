"""The editor where people use it, with the shipped weights and a real mouse: in JupyterLab, in Notebook 7, and on the page of
`edgeconnect-lite edit`. What the screen shows is compared with what Python holds, pixel by pixel."""

import base64
import functools
import json
import re
import signal
import sys
import time
import urllib.request
from types import SimpleNamespace

import cv2
import nbformat
import numpy as np
import pytest
from helpers import shapes_photo
from test_editor_front import press
from test_lab import RUN

from conftest import JUPYTERLAB, SECONDS, ended_at_last
from edgeconnect_lite.edges import near_hole
from edgeconnect_lite.editor import EdgeEditor
from edgeconnect_lite.editor.crop import EYES_AT
from edgeconnect_lite.editor.strokes import DRAWN, ERASED, UNTOUCHED, History, edited_edges, unpack_bits
from edgeconnect_lite.editor.widget import COLOURS
from edgeconnect_lite.photos import FacePhotos, read_photo, write_picture

SIDE = 128  # px of a shipped face
CELLS = {
    "imports": """import json
import numpy as np
from edgeconnect_lite.editor import EdgeEditor
from edgeconnect_lite.inpainting import Inpainter
from edgeconnect_lite.photos import FacePhotos
inpainter = Inpainter.from_pretrained()""",
    "make": """mask = np.zeros((128, 128), bool)
mask[40:80, 36:92] = True
editor = EdgeEditor(FacePhotos("test")[10], mask, inpainter)
editor""",
    "ask": """editor.wait()
np.savez("asked", photo=editor.photo, mask=editor.mask, edges=editor.edges, result=editor.result, forecast=editor._forecast,
         predicted=editor.predicted_edges, touched=editor._history_of.layers.touched)
print(json.dumps({name: getattr(editor, name) for name in ("strokes", "threshold", "proposal")}))""",
    "predict": """anew = inpainter.predict_edges(editor.photo, editor.mask) > 0.5
print(np.array_equal(editor.predicted_edges > 0.5, anew), int((anew & editor.mask).sum()))""",
    "line": "editor.line([(40, 44), (60, 44)])",
    "save": 'editor.save("kept")',
    "load": 'editor = EdgeEditor.load("kept", inpainter)',
    "show": "editor",
    "crop": """from edgeconnect_lite.editor import CropTool
tool = CropTool(editor.photo)
tool""",
    "eyes": "print(json.dumps(tool.eyes))",
}
STAGE, SHOWN = ".edge-editor canvas[role=application]", ".edge-editor canvas[role=slider]"
SEEN = """canvas => {  // the colours at the middle of each pixel of the picture
    const side = 128, { width, height } = canvas, { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
    let text = '';
    for (let y = 0; y < side; y++) for (let x = 0; x < side; x++) {
        const at = 4 * (Math.floor((y + .5) * height / side) * width + Math.floor((x + .5) * width / side));
        text += String.fromCharCode(data[at], data[at + 1], data[at + 2]);
    }
    return btoa(text);
}"""
RUN_OR_FAIL = f"""place => Promise.race([({RUN})(place),
    new Promise((_, fail) => setTimeout(fail, {SECONDS * 1000}, Error('the cell does not end')))])"""
RESTART = """async () => {
    const { sessionContext } = window.jupyterapp.shell.currentWidget.context;
    await sessionContext.restartKernel();
}"""
BOOK = """() => {
    const { content } = window.jupyterapp.shell.currentWidget;
    return [content.activeCellIndex, content.widgets.map(({ model }) => {
        const { id, cell_type, source, execution_count } = model.sharedModel.toJSON();
        return [id, cell_type, source, execution_count ?? null];
    })];
}"""
DIRTY = "() => window.jupyterapp.shell.currentWidget.context.model.dirty"


def until(holds, what):
    """Ask until there is an answer. Returns it."""
    end = time.monotonic() + SECONDS
    while not (answer := holds()):
        assert time.monotonic() < end, f"after {SECONDS} s still not: {what}"
        time.sleep(0.05)
    return answer


# what is on the screen


def at(page, x, y, pane=STAGE):
    """The middle of a pixel of the whole picture, on the page."""
    page.locator(pane).scroll_into_view_if_needed()
    box = page.locator(pane).bounding_box()
    side = box["width"] / SIDE
    return box["x"] + (x + 0.5) * side, box["y"] + (y + 0.5) * side


def drag(page, *points, pane=STAGE):
    page.mouse.move(*at(page, *points[0], pane))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*at(page, *point, pane), steps=6)
    page.mouse.up()


def act(page, name):
    page.locator(f".edge-editor [data-act={name}]").click()


def seen(page, pane):
    """What a pane shows of the picture, uint8 (128, 128, 3)."""
    data = base64.b64decode(page.locator(pane).evaluate(SEEN))
    return np.frombuffer(data, np.uint8).reshape(SIDE, SIDE, 3)


def ink(page):
    """The pixels that have one of the editor's colours: {name: bool (128, 128)}."""
    page.mouse.move(1, 1)  # off the picture: no ring of the brush
    picture = seen(page, STAGE)
    return {name: (picture == COLOURS[name]).all(axis=2) for name in ("known", "predicted", "drawn")}


def said(page):
    """(edge pixels in the hole, strokes), as the status line has them."""
    text = page.locator(".edge-editor .ee-status").text_content()
    return tuple(int(number) for number in re.findall(r"\d+", text))


def differences(page, state):
    """In what the screen is not what Python holds."""
    on, near = state.forecast >= state.threshold, near_hole(state.mask)
    wanted = {
        "known": ~near & on,
        "predicted": near & on & (state.touched == UNTOUCHED),
        "drawn": near & (state.touched == DRAWN),
    }
    found = ink(page)
    wrong = [name for name, pixels in wanted.items() if not np.array_equal(found[name], pixels)]
    wrong += [] if np.array_equal(seen(page, SHOWN), state.result) else ["result"]
    wrong += [] if said(page) == ((state.edges & state.mask).sum(), len(state.strokes)) else ["status"]
    return wrong + [text for text in page.locator(".edge-editor [role=alert]").all_text_contents() if text]


def settled(page, ask, strokes):
    """Wait until Python knows so many strokes, and the screen shows what Python holds. Returns that."""
    end = time.monotonic() + SECONDS
    while True:
        state = ask()
        wrong = differences(page, state)
        if len(state.strokes) == strokes and not wrong:
            return state
        late = f"after {SECONDS} s Python has {len(state.strokes)} strokes, wanted {strokes}; the screen differs in {wrong}"
        assert time.monotonic() < end, late


def differ(one, other):
    return bool((np.asarray(one) != other).any())


# in a notebook


class Live:
    """A notebook of the cells above, open in a front end."""

    def __init__(self, front_end, page):
        self.server, self.page, self.path = front_end, page, front_end.root / "live.ipynb"
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        book = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
        book.cells = [nbformat.v4.new_code_cell(source) for source in CELLS.values()]
        nbformat.write(book, self.path)
        front_end.open(page, self.path.name)

    def run(self, name):
        """Run a cell. Returns what it printed."""
        cell = self.page.evaluate(RUN_OR_FAIL, list(CELLS).index(name))
        errors = [output for output in cell["outputs"] if output["output_type"] == "error"]
        assert not errors, errors
        return "".join("".join(output.get("text", "")) for output in cell["outputs"])

    def close_views(self):
        self.page.evaluate("window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
        self.page.wait_for_function("() => !document.querySelector('.edge-editor')")

    def ask(self):
        """What Python holds: arrays, strokes and settings."""
        settings = json.loads(self.run("ask"))
        with np.load(self.path.with_name("asked.npz")) as arrays:
            return SimpleNamespace(**settings, **arrays)

    def after(self, strokes):
        return settled(self.page, self.ask, strokes)


@pytest.fixture(scope="session")
def notebook(browser, front_end):
    page = browser.new_page()
    page.set_viewport_size({"width": 1500, "height": 1500})  # the editor's panes at their largest, all cells in sight
    yield Live(front_end, page)
    page.close()


@pytest.fixture
def live(notebook):
    """The notebook, with a new editor in it."""
    notebook.close_views()
    notebook.run("imports")
    notebook.run("make")
    notebook.page.locator(STAGE).wait_for()
    return notebook


in_jupyterlab = pytest.mark.parametrize("front_end", [JUPYTERLAB], ids=["JupyterLab"], indirect=True)


def test_draw_erase_and_undo(live):
    page = live.page
    bare = live.after(0)
    drag(page, (44, 50), (80, 50), (80, 70))
    drawn = live.after(1)
    assert (drawn.touched[50, 44:81] == DRAWN).all() and (drawn.edges[50, 44:81]).all()
    assert differ(drawn.result, bare.result)
    act(page, "eraser")
    drag(page, (50, 46), (50, 76))
    erased = live.after(2)
    assert (erased.touched[46:77, 50] == ERASED).all() and not erased.edges[46:77, 50].any()
    act(page, "undo")
    once = live.after(1)
    page.locator(STAGE).focus()
    press(page, "Control+z")
    twice = live.after(0)
    for undone, before in ((once, drawn), (twice, bare)):
        assert np.array_equal(undone.edges, before.edges) and np.array_equal(undone.result, before.result)


def test_a_larger_hole_has_its_edges_predicted_anew(live):
    page = live.page
    before = live.after(0)
    act(page, "mask")
    drag(page, (50, 90), (80, 90))
    after = live.after(1)
    grown = after.mask & ~before.mask
    assert grown[90, 50:81].all() and not (before.mask & ~after.mask).any()
    same, count = live.run("predict").split()
    assert same == "True" and int(count) > 0
    assert differ(after.forecast[grown], before.forecast[grown])  # known edges before
    assert differ(after.result, before.result)


@in_jupyterlab
def test_the_confidence_slider(live):
    page = live.page
    before = live.after(0)
    act(page, "more")
    slider = page.locator(".edge-editor [data-act=confidence]")
    box = slider.bounding_box()
    page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + box["height"] / 2)
    wanted = int(slider.input_value())
    assert 200 < wanted < 255
    until(lambda: live.ask().threshold == wanted, "the slider's threshold in Python")
    after = live.after(0)
    assert after.edges.sum() < before.edges.sum() and differ(after.result, before.result)


@in_jupyterlab
def test_strokes_lie_under_the_pointer_when_zoomed(live):
    page = live.page
    act(page, "more")
    whole = seen(page, STAGE)
    page.mouse.move(*at(page, 60, 60))
    page.keyboard.down("Control")
    page.mouse.wheel(0, -200)  # e times as large
    page.keyboard.up("Control")
    until(lambda: differ(seen(page, STAGE)[:, :20], whole[:, :20]), "zoomed")  # beside the ring of the brush
    drag(page, (60, 60), (90, 60))
    until(lambda: said(page)[1] == 1, "one stroke")
    act(page, "fit")
    first, *_, last = live.after(1).strokes[0]["points"]
    assert first == [60, 60] and abs(last[0] - (60 + 30 / np.e)) < 1.5 and last[1] == 60
    for _ in range(2):
        act(page, "zoomin")  # 2.25 times, about the middle
    drag(page, (SIDE / 2 - 0.5, 50), (SIDE / 2 + 22.5, 50))
    act(page, "fit")
    first, *_, last = live.after(2).strokes[1]["points"]
    assert abs(last[0] - first[0] - 23 / 2.25) < 1.5 and abs(first[0] - SIDE / 2) <= 1


@in_jupyterlab
def test_before_and_after(live):
    page = live.page
    state = live.after(0)
    page.locator(STAGE).focus()
    page.keyboard.down("c")
    until(lambda: np.array_equal(seen(page, SHOWN), state.photo), "the photo while C is held")
    page.keyboard.up("c")
    until(lambda: np.array_equal(seen(page, SHOWN), state.result), "the result again")
    drag(page, (20, 100), (63.5, 100), pane=SHOWN)
    half = np.concatenate([state.photo[:, :64], state.result[:, 64:]], axis=1)
    beside = np.r_[0:62, 66:SIDE]  # the divider itself is white
    until(lambda: not differ(seen(page, SHOWN)[:, beside], half[:, beside]), "photo to the left, result to the right")
    assert differ(half, state.result) and differ(half, state.photo)
    assert page.locator(SHOWN).get_attribute("aria-valuenow") == "50"
    drag(page, (63.5, 100), (-2, 100), pane=SHOWN)
    assert np.array_equal(live.after(0).result, state.result)


@in_jupyterlab
def test_saved_and_loaded_by_another_kernel(live):
    page = live.page
    drag(page, (44, 50), (80, 50))
    act(page, "mask")
    drag(page, (50, 90), (80, 90))
    act(page, "unmask")
    drag(page, (40, 42), (44, 42))
    live.after(3)
    act(page, "undo")
    before = live.after(2)
    live.run("save")
    page.evaluate(RESTART)
    live.server.ready(page)
    live.close_views()
    live.run("imports")
    with pytest.raises(AssertionError, match="NameError"):
        live.run("show")
    live.run("load")
    live.run("show")
    after = live.after(2)
    assert {name for name in vars(before) if differ(vars(before)[name], vars(after)[name])} == set()
    act(page, "redo")
    assert live.after(3).strokes[2]["tool"] == "unmask"


@in_jupyterlab
def test_shown_again_it_is_as_it_was(live):
    page = live.page
    drag(page, (44, 50), (80, 50))
    act(page, "mask")
    drag(page, (50, 90), (80, 90))
    live.after(2)
    live.close_views()
    live.run("line")  # while nobody looks
    live.run("show")
    assert [stroke["tool"] for stroke in live.after(3).strokes] == ["pen", "mask", "pen"]
    drag(page, (44, 60), (80, 60))
    before = live.after(4)
    page.reload()
    live.server.ready(page)
    live.run("show")
    assert live.after(4).strokes == before.strokes
    act(page, "undo")
    live.after(3)


LETTERS = [*"ambddzxcvyr1"]  # what JupyterLab's notebook does in command mode: insert, change, cut, delete, ...
OTHERS = ["Delete", "ArrowUp", "ArrowDown", "Enter", "Shift+Enter", "Control+Enter", "Control+z", "Control+y"]


def keys_stay(live, places):
    """No key that is pressed in these places of a widget changes the notebook or moves in it, but Ctrl+S saves it."""
    page = live.page
    page.locator(places[0]).focus()
    before = page.evaluate(BOOK)
    for place in places:
        page.locator(place).focus()
        press(page, *LETTERS, *OTHERS)
        assert page.evaluate(BOOK) == before, place
    for place in places:
        live.run("ask")
        until(lambda: page.evaluate(DIRTY), "a change in the notebook")
        stored = live.path.read_bytes()
        page.locator(place).focus()
        press(page, "Control+s")
        page.wait_for_function(f"() => !({DIRTY})()")
        assert live.path.read_bytes() != stored and len(nbformat.read(live.path, 4).cells) == len(CELLS), place
        before = page.evaluate(BOOK)
        press(page, *LETTERS)
        assert page.evaluate(BOOK) == before, place


def test_keys_stay_in_the_editor_and_ctrl_s_saves(live):
    page = live.page
    drag(page, (44, 50), (80, 50))
    live.after(1)
    page.mouse.click(*at(page, 50, 60))
    until(lambda: said(page)[1] == 2, "a click in the notebook's output")
    keys_stay(live, [STAGE, SHOWN, ".edge-editor [data-act=pen]", ".edge-editor [data-act=size]"])

    before = page.evaluate(BOOK)[1]
    page.locator(".jp-InputArea-prompt").nth(2).click()  # outside, the same keys are the notebook's
    press(page, "b", "m")
    cells = page.evaluate(BOOK)[1]
    assert len(cells) == len(CELLS) + 1 and cells[3][1] == "markdown"
    press(page, "d", "d")
    assert page.evaluate(BOOK)[1] == before


@in_jupyterlab
def test_keys_stay_in_the_crop_tool_too(live):
    page = live.page
    live.run("crop")
    before = np.array(json.loads(live.run("eyes")))
    handle = page.get_by_label("Left eye")
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    x, y = box["x"] + 9, box["y"] + 9
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 75, y, steps=4)  # 128 px of the photo are 480 on the page
    page.mouse.up()
    moved = before + [[20, 0], [0, 0]]
    until(lambda: np.allclose(json.loads(live.run("eyes")), moved, atol=0.01), "the handle's place in Python")
    keys_stay(live, [".ee-handle >> nth=0"])


# the page of `edgeconnect-lite edit`


CORNER = (20, 40)  # x, y of the face in the photo, at twice its size


def asked_of(address):
    """What the server's editor holds, as `Live.ask` has it."""
    with urllib.request.urlopen(f"{address}state", timeout=SECONDS) as answer:
        state = json.load(answer)["editor"]
    forecast, result = (
        np.frombuffer(base64.b64decode(state[name]["base64"]), np.uint8).reshape(SIDE, SIDE, -1)
        for name in ("_probability", "_result")
    )
    told, forecast, threshold = state["_history"], forecast[..., 0], state["threshold"]
    history = History(unpack_bits(told["hole"], (SIDE, SIDE)))
    for stroke in told["strokes"][: told["position"]]:
        history.do(stroke)
    (mask, touched), edges = history.layers, edited_edges(forecast >= threshold, history.layers)
    return SimpleNamespace(
        strokes=history.done, threshold=threshold, forecast=forecast, result=result, edges=edges, mask=mask, touched=touched,
    )  # fmt: skip


def put_on_eye(page, name, x, y, photo):
    """Drag a handle of the crop tool to (x, y), in px of the photo."""
    handle = page.get_by_label(name)
    ring, frame = handle.bounding_box(), page.locator("#crop canvas").first.bounding_box()
    page.mouse.move(ring["x"] + ring["width"] / 2, ring["y"] + ring["height"] / 2)
    page.mouse.down()
    scale = frame["width"] / photo.shape[1]
    page.mouse.move(frame["x"] + x * scale, frame["y"] + y * scale, steps=6)
    page.mouse.up()


def test_a_photo_is_edited_on_its_own_page(browser, page, tmp_path):
    face, photo, kept, log = FacePhotos("test")[10], shapes_photo(330, 300), tmp_path / "kept", tmp_path / "log.txt"
    left, top = CORNER
    photo[top : top + 2 * SIDE, left : left + 2 * SIDE] = cv2.resize(
        face, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_CUBIC
    )
    write_picture(tmp_path / "photo.png", photo)
    command = [sys.executable, "-m", "edgeconnect_lite.cli", "edit", "photo.png", "--out", "kept", "--no-browser"]
    interruptible = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # even where the tests are not
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    with (
        log.open("w") as output,
        ended_at_last(command, cwd=tmp_path, stdout=output, stderr=output, preexec_fn=interruptible) as process,
    ):
        until(lambda: "Ctrl+C ends it" in log.read_text() or process.poll() is not None, "the editor's address")
        assert process.poll() is None, log.read_text()
        address = re.search(r"http://\S+", log.read_text())[0]
        page.goto(address)
        for name, (x, y) in zip(("Left eye", "Right eye"), EYES_AT):
            put_on_eye(page, name, left + 2 * x + 0.5, top + 2 * y + 0.5, photo)
        page.get_by_role("button", name="Edit this face").click()
        page.locator(STAGE).wait_for()
        ask = functools.partial(asked_of, address)
        bare = settled(page, ask, 0)
        assert np.abs(bare.result.astype(float) - face).mean() < 3 and not page.locator("#crop").is_visible()

        act(page, "mask")
        drag(page, (44, 60), (84, 60))
        until(lambda: differ(seen(page, SHOWN), bare.result), "a first result")
        hole = settled(page, ask, 1)
        assert (hole.edges & hole.mask).any() and differ(hole.forecast[hole.mask], bare.forecast[hole.mask])
        act(page, "pen")
        drag(page, (50, 58), (80, 62))
        until(lambda: differ(seen(page, SHOWN), hole.result), "another result")
        drawn = settled(page, ask, 2)
        assert (drawn.touched == DRAWN).sum() >= 31

        page.get_by_role("button", name="Save").click()
        page.get_by_text("kept in").wait_for()
        saved = read_photo(kept / "photo.png")
        covered = np.zeros(photo.shape[:2], np.uint8)
        covered[top : top + 2 * SIDE, left : left + 2 * SIDE] = drawn.mask.repeat(2, axis=0).repeat(2, axis=1)
        beside, inside = (change(covered, np.ones((5, 5), np.uint8)) > 0 for change in (cv2.dilate, cv2.erode))
        assert np.array_equal(saved[~beside], photo[~beside]) and (saved != photo).any(axis=2)[inside].mean() > 0.9
        assert np.array_equal(read_photo(kept / "result.png"), drawn.result)

        page.reload()
        page.locator(STAGE).wait_for()
        assert settled(page, ask, 2).strokes == drawn.strokes
        page.locator(STAGE).focus()
        press(page, "Control+z")
        until(lambda: not differ(seen(page, SHOWN), hole.result), "the first result")
        settled(page, ask, 1)
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0 and "kept in" in log.read_text()
    assert EdgeEditor.load(kept).strokes == hole.strokes
    assert errors == []
