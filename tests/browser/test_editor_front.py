"""The editor's front end alone, in a real browser, with a stand-in for the model: no server, no kernel."""

import base64
import json
import uuid
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import shapes_photo

import edgeconnect_lite.editor.widget as widget
from edgeconnect_lite.edges import near_hole
from edgeconnect_lite.editor import CropTool, EdgeEditor
from edgeconnect_lite.editor.strokes import History, pack_bits, unpack_bits

HERE = Path(widget.__file__).parent
SCRIPT, STYLE, CROP_SCRIPT = ((HERE / name).read_text("utf-8") for name in ("editor.js", "editor.css", "crop.js"))
H, W = 48, 64
MOUNT = """async ([script, style, state, binary]) => {
    document.head.append(Object.assign(document.createElement('style'), {textContent: style}));
    for (const name of binary) state[name] = new DataView(Uint8Array.from(atob(state[name]), c => c.charCodeAt(0)).buffer);
    const heard = {};
    window.sent = []; window.heard = heard;
    window.model = {
        get: name => state[name], send: content => sent.push(content), save_changes() {},
        set: (name, value) => { state[name] = value; (heard['change:' + name] ?? []).forEach(f => f()); },
        on: (name, f) => (heard[name] ??= []).push(f),
        off: (name, f) => { heard[name] = (heard[name] ?? []).filter(g => g !== f); },
        tell: content => heard['msg:custom'].forEach(f => f(content)),
    };
    window.lib = await import(URL.createObjectURL(new Blob([script], {type: 'text/javascript'})));
    window.close = window.lib.default.initialize?.({model});
    window.show = () => {
        const el = document.body.appendChild(document.createElement('div'));
        el.style.width = '700px';
        return window.lib.default.render({model, el});
    };
    window.off = show();
}"""
POINTER = """([events, kind, pressure]) => events.forEach(([type, id, [x, y]]) =>
    document.querySelector('.edge-editor canvas').dispatchEvent(new PointerEvent('pointer' + type, {pointerId: id,
        pointerType: kind, pressure, button: 0, clientX: x, clientY: y, bubbles: true, cancelable: true})))"""
PIXEL = """([which, x, y]) => {
    const canvas = document.querySelectorAll('.edge-editor canvas')[which];
    const place = [Math.floor((x + .5) * canvas.width / 64), Math.floor((y + .5) * canvas.height / 48)];
    return [...canvas.getContext('2d').getImageData(...place, 1, 1).data];
}"""
REPLAY = """([hole, width, height, acts]) => {
    const history = new lib.History(lib.unpackBits(hole, width * height), width, height);
    return acts.map(act => {
        typeof act === 'string' ? history[act]() : history.do(act);
        const { mask, touched } = history.layers;
        return [1, 2].map(v => lib.packBits(touched.map(t => t === v ? 1 : 0))).concat(lib.packBits(mask));
    });
}"""


@pytest.fixture
def editor():
    rng = np.random.default_rng(0)
    mask = np.zeros((H, W), bool)
    mask[8:40, 10:54] = True
    edges = (rng.random((H, W)) * (rng.random((H, W)) < 0.2)).astype(np.float32)
    editor = EdgeEditor(
        rng.integers(0, 256, (H, W, 3), np.uint8), mask, edges=edges, true_edges=rng.random((H, W)) < 0.1
    )
    editor._result, editor._paints, editor._proposals = bytes(3 * H * W), True, 4
    return editor


def mount(page, widget, script):
    """Show a widget with a stand-in for its model. Returns what went wrong on the page, as it comes."""
    page.set_content("<html><body></body></html>")
    own = [
        name for name in widget.trait_names(sync=True) if not name.startswith(("_esm", "_css", "_anywidget", "layout"))
    ]
    state = {name: value for name, value in widget.get_state().items() if name in own}
    binary = [name for name, value in state.items() if isinstance(value, bytes | memoryview)]
    state |= {name: base64.b64encode(bytes(state[name])).decode() for name in binary} | {"_key": uuid.uuid4().hex}
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.evaluate(MOUNT, [script, STYLE, state, binary])
    return errors


@pytest.fixture
def front(page, editor):
    errors = mount(page, editor, SCRIPT)
    stage(page).focus()
    yield page
    assert errors == []


@pytest.fixture
def cropping(page):
    errors = mount(page, CropTool(shapes_photo(300, 200, 0)), CROP_SCRIPT)
    yield page
    assert errors == []


def stage(page):
    return page.locator(".edge-editor canvas").first


def at(page, x, y):
    """The middle of a pixel of the picture, on the page."""
    box = stage(page).bounding_box()
    side = box["width"] / W
    return box["x"] + (x + 0.5) * side, box["y"] + (y + 0.5) * side


def drag(page, *points, steps=8):
    page.mouse.move(*at(page, *points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*at(page, *point), steps=steps)
    page.mouse.up()


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def sent(page):
    return page.evaluate("sent")


def told(page, editor):
    """Hand all that the front end sent to Python, and check that both hold the same layers. Returns them."""
    for content in sent(page):
        editor._handle_custom_msg(content, [])
    page.evaluate("sent.length = 0")
    layers = editor._history_of.layers
    touched, mask = page.evaluate(
        """() => { const { touched, mask } = lib.storeOf(model).history.layers; return [[...touched], [...mask]] }"""
    )
    assert np.array_equal(np.reshape(touched, (H, W)), layers.touched)
    assert np.array_equal(np.reshape(mask, (H, W)) > 0, layers.mask)
    assert editor.message == ""
    return layers


# the same pixels on both sides


def random_stroke(rng):
    tools = ["pen", "eraser", "mask", "unmask", "clear", "reset", "edges", "hole"]
    tool = str(rng.choice(tools, p=[0.3, 0.2, 0.15, 0.15, *[0.05] * 4]))
    if tool in ("edges", "hole"):
        return {"tool": tool, "bits": pack_bits(rng.random((H, W)) < 0.5)}
    if tool in ("clear", "reset"):
        return {"tool": tool}
    points = rng.integers(-10, 74, (rng.integers(1, 9), 2)).tolist()
    radius = int(rng.integers(0, 8)) if rng.random() < 0.7 else rng.integers(0, 8, len(points)).tolist()
    return {"tool": tool, "points": points, "radius": radius}


def compare(page, hole, acts):
    """The pixels in which any state of the two histories differs."""
    found = page.evaluate(REPLAY, [pack_bits(hole), W, H, acts])
    history, differing = History(hole), 0
    for act, (drawn, erased, mask) in zip(acts, found, strict=True):
        getattr(history, act)() if isinstance(act, str) else history.do(act)
        touched = unpack_bits(drawn, (H, W)) + 2 * unpack_bits(erased, (H, W))
        differing += int(
            (touched != history.layers.touched).sum() + (unpack_bits(mask, (H, W)) != history.layers.mask).sum()
        )
    return differing


def test_a_thousand_random_strokes_cover_the_same_pixels(front, editor):
    rng = np.random.default_rng(1)
    strokes = [random_stroke(rng) for _ in range(1000)]
    assert sum(stroke["tool"] in ("pen", "eraser", "mask", "unmask") for stroke in strokes) > 700
    assert compare(front, editor.mask, strokes) == 0


def test_five_hundred_sequences_of_tools_undo_and_redo_end_alike(front, editor):
    rng = np.random.default_rng(2)
    for _ in range(500):
        acts = [str(rng.choice(["undo", "redo"])) if rng.random() < 0.45 else random_stroke(rng) for _ in range(12)]
        assert compare(front, editor.mask, acts) == 0


def test_long_histories_are_drawn_again_alike(front, editor):
    rng = np.random.default_rng(3)
    acts = [random_stroke(rng) for _ in range(150)] + ["undo"] * 140 + ["redo"] * 120
    assert compare(front, editor.mask, acts) == 0


def test_strokes_of_a_real_pointer_are_those_that_python_draws(front, editor):
    rng = np.random.default_rng(4)
    for number in range(40):
        press(front, "bemn"[number % 4])
        drag(front, *rng.integers(0, (W, H), (3, 2)).tolist(), steps=int(rng.integers(1, 12)))
    layers = told(front, editor)
    assert len(editor.strokes) == 40 and (layers.touched > 0).any()


# tools


def test_a_fast_stroke_has_no_gaps(front, editor):
    drag(front, (12, 20), (50, 20), steps=1)
    assert (told(front, editor).touched[20, 12:51] == 1).all()


def test_draw_erase_undo_redo(front, editor):
    drag(front, (12, 20), (40, 20))
    press(front, "e")
    drag(front, (20, 20), (30, 20))
    assert (told(front, editor).touched[20, 20:31] == 2).all()
    press(front, "Control+z")
    assert (told(front, editor).touched[20, 12:41] == 1).all()
    press(front, "Control+z", "Control+z")
    assert not told(front, editor).touched.any()
    press(front, "Control+Shift+Z", "Control+y")
    assert (told(front, editor).touched[20, 20:31] == 2).all()


def test_a_line_a_polyline_and_escape(front, editor):
    press(front, "l")
    drag(front, (12, 12), (50, 36), steps=3)
    press(front, "p")
    for point in ((12, 36), (30, 30), (50, 12)):
        front.mouse.click(*at(front, *point))
    press(front, "Enter")
    assert [stroke["points"] for stroke in (told(front, editor), editor.strokes)[1]] == [
        [[12, 12], [50, 36]], [[12, 36], [30, 30], [50, 12]],
    ]  # fmt: skip
    front.mouse.click(*at(front, 20, 20))
    press(front, "Escape", "b")
    front.mouse.move(*at(front, 15, 15))
    front.mouse.down()
    front.mouse.move(*at(front, 25, 15))
    press(front, "Escape")
    front.mouse.up()
    assert sent(front) == []


def test_the_hole_is_painted_and_given_back(front, editor):
    before = editor.mask.sum()
    press(front, "m")
    drag(front, (56, 4), (60, 4))
    grown = told(front, editor).mask.sum()
    press(front, "n")
    drag(front, (10, 20), (54, 20))
    assert grown > before and told(front, editor).mask.sum() < grown


def test_clear_reset_and_the_drawer(front, editor):
    clear = front.locator("[data-act=clear]")
    assert not clear.is_visible()
    front.locator("[data-act=more]").click()
    clear.click()
    assert (told(front, editor).touched[editor.mask] == 2).all()
    front.locator("[data-act=reset]").click()
    assert not told(front, editor).touched.any()


def test_sizes(front, editor):
    press(front, "]", "]")
    drag(front, (30, 20), (30, 20))
    assert (
        editor.strokes == [] and told(front, editor).touched.sum() == (np.hypot(*np.indices((5, 5)) - 2) <= 2.25).sum()
    )
    assert front.locator(".ee-number").first.text_content() == "5 px"


def test_with_the_keyboard_alone(front, editor):
    stage(front).focus()
    press(front, "Space", "ArrowRight", "Shift+ArrowRight", "ArrowDown", "Space")
    touched = told(front, editor).touched
    assert touched.sum() == 11 and touched[24, 32:42].all() and touched[25, 41]
    press(front, "Control+z")
    assert not told(front, editor).touched.any()


def test_a_stroke_of_the_keyboard_survives_the_mouse(front, editor):
    stage(front).focus()
    press(front, "Space", "ArrowRight", "ArrowRight")
    front.mouse.click(*at(front, 20, 20))
    assert told(front, editor).touched.sum() == 4 and [len(stroke["points"]) for stroke in editor.strokes] == [3, 1]


def test_a_pinch_adds_no_corner(front, editor):
    press(front, "p")
    front.mouse.click(*at(front, 20, 20))
    a, b = at(front, 28, 24), at(front, 36, 24)
    front.evaluate(POINTER, [[["down", 1, a], ["down", 2, b], ["up", 1, a], ["up", 2, b]], "touch", 0])
    front.mouse.click(*at(front, 30, 20))
    press(front, "Enter")
    assert editor.strokes == [] and [len(content["stroke"]["points"]) for content in sent(front)] == [2]


def test_a_new_hole_shows_no_edges_before_they_are_predicted(front, editor):
    """They were the photo's own until then; so were those within 2 px of it."""
    press(front, "m")
    drag(front, (2, 4), (8, 4))
    layers = told(front, editor)
    new = layers.mask & ~near_hole(editor._history_of.first.mask)
    colours = {tuple(colour_at(front, 0, x, y)) for y, x in np.argwhere(new).tolist()}
    assert new.sum() > 40 and not colours & {widget.COLOURS["predicted"], widget.COLOURS["known"]}


def test_within_2_px_of_the_hole_edges_are_predicted_and_can_be_erased(front, editor):
    ring = near_hole(editor.mask) & ~editor.mask & editor.edges
    y, x = next(iter(np.argwhere(ring)))
    assert colour_at(front, 0, int(x), int(y)) == list(widget.COLOURS["predicted"])
    press(front, "e")
    front.mouse.click(*at(front, int(x), int(y)))
    told(front, editor)
    assert not editor.edges[y, x]


def test_the_view_follows_the_keyboard(front, editor):
    stage(front).focus()
    press(front, "+", "+", "+")  # 3.4 times, about the middle
    press(front, *["Shift+ArrowRight"] * 3, "Space", "Space")
    front.mouse.click(*at(front, W - 1, 24))  # the pane's right column is the picture's now, or close to it
    pressed, clicked = (stroke["points"][0] for stroke in (told(front, editor), editor.strokes)[1])
    assert pressed == [56, 24] and 56 <= clicked[0] <= 57


@pytest.mark.parametrize(
    ("kind", "pressure", "width"), [("touch", 0, 5), ("pen", 0.5, 5), ("pen", 0.1, 1), ("mouse", 0.5, 5)]
)
def test_touch_and_pressure(front, editor, kind, pressure, width):
    press(front, "]", "]")
    a, b = at(front, 20, 20), at(front, 40, 20)
    front.evaluate(POINTER, [[["down", 7, a], ["move", 7, b], ["up", 7, b]], kind, pressure])
    assert (told(front, editor).touched[:, 30] == 1).sum() == width


def test_two_fingers_zoom_and_draw_nothing(front, editor):
    a, b = at(front, 28, 24), at(front, 36, 24)
    apart = [a[0] - 60, a[1]], [b[0] + 60, b[1]]
    moves = [["down", 1, a], ["down", 2, b], ["move", 1, apart[0]], ["move", 2, apart[1]], ["up", 1, a], ["up", 2, b]]
    front.evaluate(POINTER, [moves, "touch", 0])
    assert sent(front) == []
    drag(front, (2, 24), (62, 24), steps=1)  # across the pane: now fewer pixels than before
    (stroke,) = [content["stroke"] for content in sent(front)]
    assert 5 < stroke["points"][-1][0] - stroke["points"][0][0] < 40


def test_a_cancelled_touch_draws_nothing(front):
    a, b = at(front, 20, 20), at(front, 40, 20)
    front.evaluate(POINTER, [[["down", 1, a], ["move", 1, b], ["cancel", 1, b]], "touch", 0])
    assert sent(front) == []


def test_zoom_by_keys_draws_where_the_pointer_is(front, editor):
    press(front, "b")
    stage(front).focus()
    press(front, "+", "+")  # 2.25 times
    front.mouse.click(*at(front, 32, 24))
    press(front, "0")
    front.mouse.click(*at(front, 20, 20))
    first, second = (stroke["points"] for stroke in (told(front, editor), editor.strokes)[1])
    assert second == [[20, 20]] and np.abs(np.subtract(first[0], (32, 24))).max() <= 1


# what stands beside


def test_settings_go_to_the_model(front):
    front.locator("[data-act=more]").click()
    front.locator("[data-act=confidence]").fill("200")
    assert front.evaluate("model.get('threshold')") == 200
    press(front, ".")  # a slider takes its own keys alone
    stage(front).focus()
    press(front, ".")
    assert front.evaluate("model.get('proposal')") == 2 and front.get_by_text("2 of 4").is_visible()
    press(front, ",", ",", ",")
    assert front.evaluate("model.get('proposal')") == 4


def drawn(front):
    """Wait until what was asked for is on the canvas: it is drawn with the next frame."""
    front.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def colour_at(front, which, x, y):
    """The colour of a pane at a pixel of the picture."""
    drawn(front)
    return front.evaluate(PIXEL, [which, x, y])[:3]


def test_before_and_after(front, editor):
    photo = editor.photo
    stage(front).focus()
    assert colour_at(front, 1, 20, 20) == [0, 0, 0]  # the made-up result
    front.keyboard.down("c")
    assert colour_at(front, 1, 20, 20) == photo[20, 20].tolist()
    front.keyboard.up("c")
    assert colour_at(front, 1, 20, 20) == [0, 0, 0]
    front.locator("[data-act=compare]").press("Enter")
    assert colour_at(front, 1, 20, 20) == photo[20, 20].tolist()
    front.locator("[data-act=compare]").press("Enter")
    assert colour_at(front, 1, 20, 20) == [0, 0, 0]
    result = front.locator(".edge-editor canvas").nth(1)
    box = result.bounding_box()
    front.mouse.click(box["x"] + box["width"] / 2, box["y"] + 10)
    assert colour_at(front, 1, 20, 20) == photo[20, 20].tolist() and colour_at(front, 1, 44, 20) == [0, 0, 0]
    drawn(front)
    assert 45 <= int(result.get_attribute("aria-valuenow")) <= 55
    result.focus()
    press(front, *["ArrowLeft"] * 11)
    drawn(front)
    assert result.get_attribute("aria-valuenow") == "0" and sent(front) == []


def test_three_colours(front, editor):
    drag(front, (20, 20), (24, 20))
    assert colour_at(front, 0, 22, 20) == list(widget.COLOURS["drawn"])
    y, x = np.argwhere((editor.predicted_edges > 0.5) & editor.mask)[5].tolist()
    assert colour_at(front, 0, x, y) == list(widget.COLOURS["predicted"])
    press(front, "e", "[", "[")
    drag(front, (x, y), (x, y))
    red, green, blue = colour_at(front, 0, x, y)
    assert red > 180 and green > 150 and blue < 140  # yellow, a little of the photo through it


def test_python_draws_too_and_windows_that_disagree_take_what_holds(front, editor):
    front.evaluate("model.tell({type: 'do', stroke: {tool: 'pen', points: [[20, 20]], radius: 0}, at: 0})")
    front.evaluate("model.tell({type: 'undo', at: 1})")
    front.evaluate("model.tell({type: 'redo', at: 2})")
    assert front.evaluate("lib.storeOf(model).history.position") == 1
    editor.line([(30, 30), (40, 30)])
    front.evaluate("content => model.tell({type: 'history', ...content})", editor._told_history())
    assert np.array_equal(told(front, editor).touched, editor._history_of.layers.touched)


def test_two_views_show_one_editor(front, editor):
    front.evaluate("void show()")
    drag(front, (20, 20), (40, 20))
    assert front.locator(".ee-status").all_text_contents()[0] == front.locator(".ee-status").all_text_contents()[1]
    front.evaluate("off()")
    front.evaluate("model.tell({type: 'undo', at: 1})")
    assert "0 strokes" in front.locator(".ee-status").nth(1).text_content()


def test_it_can_be_taken_down(front):
    front.evaluate("off(); close()")
    drag(front, (20, 20), (40, 20))
    assert sent(front) == [] and front.evaluate("Object.values(heard).flat().length") == 0


def test_messages_are_shown_as_text(front):
    front.evaluate("model.set('message', 'broken <b>here</b>')")
    assert front.locator("[role=alert]").text_content() == "broken <b>here</b>"


def test_keys_that_are_not_ours_go_through(front):
    front.evaluate("window.through = []; document.addEventListener('keydown', e => through.push(e.key))")
    stage(front).focus()
    press(front, "b", "Control+z", "Space", "Space", "x", "Control+s", "Tab")
    assert [key for key in front.evaluate("through") if key != "Control"] == ["x", "s", "Tab"]


def test_every_control_has_a_name(front):
    front.locator("[data-act=more]").click()
    names = front.evaluate(
        """() => [...document.querySelectorAll('.edge-editor button, .edge-editor input:not([type=file]), .edge-editor canvas')]
            .map(n => n.getAttribute('aria-label') || n.closest('label')?.textContent || n.textContent || '')"""
    )
    assert len(names) > 25 and all(name.strip() for name in names)


# files


def png(picture):
    return cv2.imencode(".png", picture)[1].tobytes()


def choose_file(front, act, data, name="some.png"):
    with front.expect_file_chooser() as chooser:
        front.locator(f"[data-act={act}]").click()
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": data})


def test_maps_are_opened_and_saved(front, editor, tmp_path):
    front.locator("[data-act=more]").click()
    some = np.random.default_rng(5).random((H, W)) < 0.3
    choose_file(front, "openmask", png(some.astype(np.uint8) * 255))
    front.wait_for_function("sent.length === 1")
    choose_file(front, "openedges", png(~some * np.uint8(255)))
    front.wait_for_function("sent.length === 2")
    told(front, editor)
    assert np.array_equal(editor.mask, some) and not (editor.edges & some).any()
    for act, wanted in (("savemask", some), ("saveedges", editor.edges)):
        with front.expect_download() as download:
            front.locator(f"[data-act={act}]").click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        assert np.array_equal(cv2.imread(str(path), 0) > 127, wanted), act
    with front.expect_download() as download:
        front.locator("[data-act=saveresult]").click()
    assert download.value.suggested_filename == "result.png"


def test_files_that_do_not_fit_are_named(front):
    front.locator("[data-act=more]").click()
    choose_file(front, "openmask", png(np.zeros((5, 7), np.uint8)), "small.png")
    front.get_by_text("small.png is 7 x 5; wanted 64 x 48, as the photo").wait_for()
    choose_file(front, "openmask", b"no picture", "text.png")
    front.get_by_text("text.png is no picture").wait_for()
    assert sent(front) == []


# the crop


def test_eyes_are_dragged_and_moved_by_keys(cropping):
    first, second = cropping.locator(".ee-handle").all()
    before = cropping.evaluate("model.get('_eyes')")
    box = first.bounding_box()
    cropping.mouse.move(box["x"] + 9, box["y"] + 9)
    cropping.mouse.down()
    cropping.mouse.move(box["x"] + 9 + 32, box["y"] + 9 + 16, steps=4)  # 300 px of the photo are 480 on the page
    cropping.mouse.up()
    eyes = cropping.evaluate("model.get('_eyes')")
    np.testing.assert_allclose(np.subtract(eyes, before), [[20, 10], [0, 0]], atol=1e-6)
    second.focus()
    press(cropping, "ArrowRight", "Shift+ArrowDown")
    moved = cropping.evaluate("model.get('_eyes')")
    np.testing.assert_allclose(np.subtract(moved, eyes), [[0, 0], [1, 10]], atol=1e-6)
    press(cropping, *["Shift+ArrowLeft"] * 40)  # never onto the other one, nor out of the photo
    (ax, ay), (bx, by) = cropping.evaluate("model.get('_eyes')")
    assert np.hypot(bx - ax, by - ay) >= 3 and 0 <= bx <= 200


def test_the_preview_is_the_crop(cropping):
    tool = CropTool(shapes_photo(300, 200, 0), eyes=((70, 120), (130, 140)))
    cropping.evaluate("eyes => model.set('_eyes', eyes)", [list(eye) for eye in tool.eyes])
    found = cropping.evaluate(
        """() => { const c = document.querySelectorAll('.edge-editor canvas')[1];
            return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data] }"""
    )
    shown = np.reshape(found, (256, 256, 4))[..., :3]
    inside = warp_of_ones(tool)
    difference = np.abs(cv2.resize(tool.crop, (256, 256)).astype(int) - shown).mean(axis=2)[inside]
    assert np.median(difference) < 6


def warp_of_ones(tool):
    """Where the crop of 256 px shows the photo itself."""
    matrix = 2 * tool.matrix
    inside = cv2.warpAffine(np.ones(tool._shape, np.uint8), matrix, (256, 256))
    return inside > 0


def test_the_scripts_are_small_and_call_nobody():
    assert len((SCRIPT + CROP_SCRIPT).encode()) <= 40 * 1024
    assert not any(
        word in SCRIPT + CROP_SCRIPT for word in ("fetch(", "http:", "https:", "WebSocket", "import(", "eval(")
    )


def test_it_takes_what_python_says(editor):
    assert json.loads(json.dumps(editor._told_history()))["position"] == 0
