"""EdgeEditor without a browser: the state as arrays, the networks off the drawing path, messages, save and load."""

import base64
import json
import threading
import time

import cv2
import numpy as np
import pytest

from edgeconnect_lite.edges import known_edges
from edgeconnect_lite.editor import EdgeEditor
from edgeconnect_lite.editor.strokes import BadStroke
from edgeconnect_lite.editor.widget import COLOURS, STATE, EditorNotSaved, _to_png, lines_of, middle, quantise
from edgeconnect_lite.inpainting import THRESHOLD, Inpainter
from edgeconnect_lite.photos import FacePhotos

SHAPE = (48, 64)


class Painter:
    """Stands in for an Inpainter: edges red, the hole gray; counts its work, and waits where it is told to."""

    def __init__(self):
        self.predicted, self.painted, self.gate, self.error = [], [], threading.Event(), None
        self.gate.set()

    def predict_edges(self, photo, mask):
        self.predicted.append(mask.copy())
        grid = np.indices(mask.shape).sum(axis=0) % 8 / 10  # 0 to 0.7
        return np.where(mask, grid, 0).astype(np.float32)

    def propose_edges(self, photo, mask, n=4, seed=0):
        return np.stack([np.roll(self.predict_edges(photo, mask), k + 1, axis=1) for k in range(n)])

    def __call__(self, photo, mask, edges=None):
        self.gate.wait(20)
        if self.error:
            raise self.error
        self.painted.append(edges.copy())
        result = np.where(mask[..., None], np.uint8(128), photo)
        result[edges] = (255, 0, 0)
        return result


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), np.uint8)


@pytest.fixture
def mask():
    mask = np.zeros(SHAPE, bool)
    mask[10:30, 12:40] = True
    return mask


@pytest.fixture
def painter():
    return Painter()


@pytest.fixture
def editor(photo, mask, painter):
    editor = EdgeEditor(photo, mask, painter)
    editor.told = []
    editor.send = lambda content, buffers=None: editor.told.append(content)
    return editor


def say(editor, **content):
    """A message as the front end sends it."""
    editor._handle_custom_msg(content, [])


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.01)


# the state


def test_it_begins_with_the_prediction_and_its_picture(editor, photo, mask, painter):
    assert np.array_equal(editor.photo, photo) and np.array_equal(editor.mask, mask) and editor.true_edges is None
    wanted = painter.predict_edges(photo, mask) > THRESHOLD
    assert np.array_equal(editor.edges, wanted) and wanted.any()
    assert np.array_equal(editor.result, painter(photo, mask, wanted)) and editor.strokes == []
    assert repr(editor) == f"EdgeEditor(64 x 48, {wanted.sum()} edge pixels in the hole, 0 strokes)"


def test_what_is_handed_out_are_copies(editor):
    for name in ("photo", "mask", "edges", "result", "predicted_edges"):
        first = getattr(editor, name)
        first[:] = 0
        assert getattr(editor, name).any(), name


def test_strokes_change_the_edges_and_the_picture_follows(editor, painter):
    before = editor.edges
    editor.line([(14, 12), (36, 12)])
    after = editor.edges
    assert (after & ~before).any() and after[12, 14:37].all()
    editor.erase([(14, 12), (36, 12)], radius=0)
    assert not editor.edges[12, 14:37].any()
    assert (editor.result[editor.edges] == (255, 0, 0)).all() and len(painter.predicted) == 1  # stage 1 ran once
    editor.clear()
    assert not (editor.edges & editor.mask).any()
    editor.reset()
    assert np.array_equal(editor.edges, before)
    assert [stroke["tool"] for stroke in editor.strokes] == ["pen", "eraser", "clear", "reset"]


def test_a_new_hole_is_predicted_anew(editor, painter, mask):
    editor.paint_mask([(50, 40)], radius=4)
    assert editor.mask.sum() > mask.sum() and np.array_equal(editor.result[~editor.mask], editor.photo[~editor.mask])
    assert len(painter.predicted) == 2 and np.array_equal(painter.predicted[-1], editor.mask)
    editor.erase_mask([(50, 40)], radius=6)
    assert np.array_equal(editor.mask, mask)


def test_undo_and_redo_cross_both_layers(editor, mask):
    start = editor.edges
    editor.line([(14, 12), (36, 20)])
    editor.paint_mask([(50, 40)])
    drawn, grown = editor.edges, editor.mask
    assert editor.undo() and np.array_equal(editor.mask, mask)
    assert editor.undo() and np.array_equal(editor.edges, start) and not editor.undo()
    assert editor.redo() and editor.redo() and not editor.redo()
    assert np.array_equal(editor.edges, drawn) and np.array_equal(editor.mask, grown)


def test_imported_maps(editor):
    some = np.random.default_rng(1).random(SHAPE) < 0.3
    editor.import_edges(some)
    assert np.array_equal(editor.edges & editor.mask, some & editor.mask)
    editor.import_mask(np.roll(editor.mask, 5, axis=1))
    assert editor.mask[15, 42] and not editor.mask[15, 14]
    with pytest.raises(ValueError, match=r"edges are bool \(2, 2\); wanted \(48, 64\)"):
        editor.import_edges(np.zeros((2, 2), bool))
    with pytest.raises(ValueError, match="mask is 2 x 2 and the photo 64 x 48"):
        editor.import_mask(np.zeros((2, 2), bool))


def test_replay_gives_the_same_again_or_changes_nothing(editor, photo, mask, painter):
    editor.line([(14, 12), (36, 20)], radius=[0, 2])
    editor.paint_mask([(50, 40)])
    editor.erase([(20, 14)])
    again = EdgeEditor(photo, mask, painter)
    again.replay(json.loads(json.dumps(editor.strokes)))
    assert np.array_equal(again.edges, editor.edges) and np.array_equal(again.result, editor.result)
    with pytest.raises(BadStroke):
        again.replay([{"tool": "clear"}, {"tool": "laser"}])
    assert again.strokes == editor.strokes


def test_the_threshold_moves_what_is_predicted_and_keeps_what_is_drawn(editor, painter, photo, mask):
    editor.line([(14, 12), (36, 12)])
    counts = []
    for threshold in (60, 128, 200):
        editor.threshold = threshold
        wanted = lines_of(painter.predict_edges(photo, mask)) > threshold / 256
        wanted[12, 14:37] = True
        assert np.array_equal(editor.edges, wanted)
        counts.append(editor.edges.sum())
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]


def test_below_one_half_the_crests_of_lines_count_alone():
    across = np.array([0, 0.1, 0.3, 0.45, 0.3, 0.1, 0, 0.2, 0.6, 0.9, 0.7, 0.2], np.float32)
    lines = lines_of(np.broadcast_to(across, (9, 12)))
    assert np.array_equal(lines[4], np.where([0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 1, 0], across, 0))


def test_nothing_of_a_new_hole_is_shown_before_stage_1_answers(editor, painter, photo):
    """Its edges were the photo's own until then."""
    answered, predict = threading.Event(), painter.predict_edges
    painter.predict_edges = lambda *given: answered.wait(20) and predict(*given)
    editor.paint_mask([(44, 20)], radius=3)
    assert np.array_equal(editor._edges(), known_edges(photo, editor.mask))
    answered.set()
    assert (editor.edges & editor.mask).any()


def test_probabilities_in_steps_decide_as_they_do_themselves():
    p = np.concatenate([np.linspace(0, 1, 10_001), np.arange(257) / 256, [0.5 + 1e-7, 0.5 - 1e-7]])
    for threshold in range(1, 256):
        assert np.array_equal(quantise(p) >= threshold, p > threshold / 256)
    steps = np.arange(256, dtype=np.uint8)
    assert np.array_equal(quantise(middle(steps)), steps)


def test_proposals_take_the_place_of_the_prediction(editor, painter, photo, mask):
    predicted = editor.edges
    editor.proposal = 2
    assert np.array_equal(editor.edges, painter.propose_edges(photo, mask)[1] > THRESHOLD)
    editor.proposal = 0
    assert np.array_equal(editor.edges, predicted)


def test_without_an_inpainter_edges_can_still_be_edited(photo, mask):
    editor = EdgeEditor(photo, mask)
    assert editor.result is None and np.array_equal(editor.edges, known_edges(photo, mask))
    editor.line([(14, 12), (36, 12)])
    assert editor.edges[12, 14:37].all() and editor.result is None
    editor.paint_mask([(50, 40)])
    assert np.array_equal(editor.edges & ~editor.mask, known_edges(photo, editor.mask))


def test_given_edges_come_first_until_the_hole_changes(photo, mask, painter):
    given = np.random.default_rng(2).random(SHAPE).astype(np.float32)
    editor = EdgeEditor(photo, mask, painter, edges=given)
    assert np.array_equal(editor.edges, given > THRESHOLD) and painter.predicted == []
    editor.line([(14, 12), (36, 12)])
    editor.reset()
    assert np.array_equal(editor.edges, given > THRESHOLD)
    editor.paint_mask([(50, 40)])
    assert len(editor.result) and len(painter.predicted) == 1


def test_a_hole_may_be_painted_from_nothing(photo, painter):
    editor = EdgeEditor(photo, np.zeros(SHAPE, bool), painter)
    assert np.array_equal(editor.edges, known_edges(photo, editor.mask)) and painter.predicted == []
    editor.paint_mask([(30, 20), (40, 20)])
    assert len(painter.predicted) == 0 or editor.mask.any()
    assert (editor.result[editor.mask & ~editor.edges] == 128).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"photo": np.zeros((4, 4, 7), np.uint8)}, r"photo has shape \(4, 4, 7\)"),
        ({"mask": np.zeros((4, 4), bool)}, "mask is 4 x 4 and the photo 64 x 48"),
        ({"edges": np.zeros((4, 4), bool)}, r"edges are bool \(4, 4\); wanted \(48, 64\)"),
        ({"edges": np.zeros(SHAPE, np.uint8)}, "edges are uint8"),
        ({"edges": np.full(SHAPE, np.nan)}, "edges hold values from nan"),
        ({"true_edges": np.full(SHAPE, 2.0)}, "true_edges hold values from 2 to 2"),
    ],
)
def test_bad_arguments_say_what_was_wanted(photo, mask, change, message):
    with pytest.raises(ValueError, match=message):
        EdgeEditor(**{"photo": photo, "mask": mask, **change})


def test_an_inpainter_that_fails_at_once_fails_the_construction(photo, mask, painter):
    painter.error = MemoryError("too large")
    with pytest.raises(MemoryError, match="too large"):
        EdgeEditor(photo, mask, painter)


# the networks, off the drawing path


def test_strokes_wait_for_nothing_and_only_the_latest_is_painted(editor, painter):
    painted = len(painter.painted)
    painter.gate.clear()
    start = time.monotonic()
    for row in range(11, 29):
        editor.line([(14, row), (36, row)])
    assert time.monotonic() - start < 5 and len(editor.strokes) == 18
    painter.gate.set()
    editor.wait()
    assert len(painter.painted) - painted <= 2  # the first, and one for all that came meanwhile
    assert np.array_equal(painter.painted[-1], editor.edges) and (editor.result[editor.edges] == (255, 0, 0)).all()


def test_an_error_is_shown_and_raised_and_the_next_edit_recovers(editor, painter):
    painter.error = ValueError("mask covers everything")
    editor.line([(14, 12), (36, 12)])
    with pytest.raises(RuntimeError, match="the inpainter failed: mask covers everything"):
        _ = editor.result
    assert editor.message == "ValueError: mask covers everything" and not editor.busy
    painter.error = None
    editor.line([(14, 14), (36, 14)])
    assert editor.result is not None and editor.message == ""


def test_a_wrong_result_is_named(editor, painter, monkeypatch):
    monkeypatch.setattr(Painter, "__call__", lambda self, *given: np.zeros((2, 2, 3)))
    editor.line([(14, 12), (36, 12)])
    with pytest.raises(RuntimeError, match=r"gave float64 \(2, 2, 3\); wanted uint8 \(48, 64, 3\)"):
        editor.wait()


def test_waiting_has_an_end(editor, painter):
    painter.gate.clear()
    editor.line([(14, 12), (36, 12)])
    try:
        with pytest.raises(TimeoutError, match="no result after"):
            editor.wait(0.05)
    finally:
        painter.gate.set()
    editor.wait()


def test_the_networks_of_the_package_fit_in():
    face, inpainter = FacePhotos("test")[10], Inpainter.from_pretrained()
    mask = np.zeros((128, 128), bool)
    mask[40:80, 40:90] = True
    editor = EdgeEditor(face, mask, inpainter)
    assert np.array_equal(editor.edges, inpainter.predict_edges(face, mask) > THRESHOLD)
    assert np.array_equal(editor.result, inpainter(face, mask))
    before = editor.result
    editor.line([(45, 60), (85, 60)])
    assert np.array_equal(editor.result, inpainter(face, mask, editor.edges)) and (editor.result != before).any()


# messages of the front end


def test_a_stroke_of_one_window_is_drawn_and_told_to_the_others(editor):
    acts = [{"type": "do", "stroke": {"tool": "pen", "points": [[14, 12], [36, 12]], "radius": 0}}, {"type": "undo"}]
    acts = [act | {"at": at, "from": "window 1"} for at, act in enumerate([*acts, {"type": "redo"}])]
    for act in acts:
        say(editor, **act)
    assert editor.edges[12, 14:37].all() and len(editor.strokes) == 1
    assert editor.told == acts  # the window knows its own by their name


def test_windows_at_the_same_position_with_other_strokes_do_not_agree(editor):
    one, other, third = ({"tool": "pen", "points": [[x, 12]], "radius": 0} for x in (14, 20, 26))
    say(editor, type="do", stroke=one, at=0)
    say(editor, type="undo", at=1)
    say(editor, type="do", stroke=other, at=2)
    say(editor, type="do", stroke=third, at=1)  # a window that knows of `one` alone
    assert editor.strokes == [other, third]
    assert editor.told[-1]["type"] == "history" and editor.told[-1]["acts"] == 4


def test_what_python_does_is_told(editor):
    editor.line([(14, 12)])
    editor.undo()
    editor.redo()
    assert [(told["type"], told["at"]) for told in editor.told] == [("do", 0), ("undo", 1), ("redo", 2)]


def test_windows_that_disagree_are_told_what_holds(editor):
    editor.line([(14, 12)])
    say(
        editor, type="do", stroke={"tool": "pen", "points": [[20, 20]], "radius": 0}, at=0
    )  # it had not heard of the line
    assert len(editor.strokes) == 2  # nothing drawn is lost
    assert editor.told[-1]["type"] == "history" and editor.told[-1]["position"] == 2


@pytest.mark.parametrize(
    "content",
    [
        None, [], "do", {}, {"type": "do"}, {"type": "do", "stroke": {"tool": "pen", "points": [[10**12, 0]]}, "at": 0},
        {"type": "do", "stroke": {"tool": "edges", "bits": "A" * 1000}, "at": 0}, {"type": "exec", "at": 0},
        {"type": "do", "stroke": "pen", "at": "x"}, {"type": ["do"], "stroke": {}},
    ],
)  # fmt: skip
def test_bad_messages_leave_the_state_unharmed(editor, content):
    editor.line([(14, 12)])
    edges, strokes = editor.edges, editor.strokes
    editor._handle_custom_msg(content, [])
    editor.wait()
    assert "wanted" in editor.message
    assert editor.told[-1]["type"] == "history"
    assert np.array_equal(editor.edges, edges) and editor.strokes == strokes


@pytest.mark.parametrize(
    "state",
    [
        {"threshold": 0}, {"threshold": "high"}, {"threshold": None}, {"proposal": -1}, {"proposal": 99}, {"proposal": [1]},
        {"_photo": b""}, {"_history": {}}, {"_result": b"\0" * 7}, {"_shape": [9**9, 9**9]}, {"busy": True}, {"nonsense": 1},
    ],
)  # fmt: skip
def test_the_front_end_cannot_set_what_is_not_its_own(editor, state):
    before = {name: value for name, value in editor.get_state().items() if name != "message"}
    editor.set_state(state)
    assert {name: value for name, value in editor.get_state().items() if name != "message"} == before
    assert len(editor.result)


def test_the_front_end_may_set_threshold_and_proposal(editor):
    editor.set_state({"threshold": 200, "proposal": 1})
    assert (editor.threshold, editor.proposal) == (200, 1)


def test_a_new_window_gets_the_state_as_it_is(editor):
    editor.line([(14, 12), (36, 12)])
    editor.undo()
    history = editor.get_state()["_history"]
    assert len(history["strokes"]) == 1 and history["position"] == 0


# save and load


def test_save_and_load_keep_everything(editor, tmp_path, painter, photo, mask):
    editor.line([(14, 12), (36, 20)])
    editor.paint_mask([(50, 40)])
    editor.erase([(20, 14)])
    editor.undo()
    editor.threshold, editor.proposal = 100, 3
    folder = editor.save(tmp_path / "kept")
    again = EdgeEditor.load(folder, painter)
    for name in ("photo", "mask", "edges", "result", "predicted_edges"):
        assert np.array_equal(getattr(again, name), getattr(editor, name)), name
    assert again.strokes == editor.strokes and (again.threshold, again.proposal) == (100, 3)
    assert again.redo() and len(again.strokes) == 3
    assert np.array_equal(cv2.imread(str(folder / "mask.png"), 0) > 127, editor.mask)
    assert np.array_equal(cv2.imread(str(folder / "edges.png"), 0) > 127, editor.edges)
    assert np.array_equal(cv2.imread(str(folder / "result.png"))[..., ::-1], editor.result)


def test_a_saved_prediction_is_there_without_an_inpainter(editor, tmp_path):
    editor.paint_mask([(50, 40)])
    editor.line([(14, 12), (36, 20)])
    again = EdgeEditor.load(editor.save(tmp_path))
    assert np.array_equal(again.edges, editor.edges) and again.result is None


def test_what_was_drawn_is_saved_even_where_the_inpainter_fails(editor, tmp_path, painter):
    painter.error = ValueError("broken")
    editor.line([(14, 12), (36, 20)])
    again = EdgeEditor.load(editor.save(tmp_path))
    assert again.strokes == editor.strokes


def test_a_result_of_other_edges_is_not_kept(editor, painter, tmp_path):
    editor.save(tmp_path)
    assert (tmp_path / "result.png").exists()
    painter.error = ValueError("no")
    editor.line([(14, 12), (36, 20)])
    editor.save(tmp_path)
    assert not (tmp_path / "result.png").exists() and (tmp_path / "edges.png").exists()
    painter.error = None
    assert np.array_equal(EdgeEditor.load(tmp_path, painter).edges, editor._edges())


def test_given_and_true_edges_are_kept_too(photo, mask, tmp_path):
    given, true = np.random.default_rng(3).random(SHAPE), np.random.default_rng(4).random(SHAPE) < 0.2
    editor = EdgeEditor(photo, mask, edges=given, true_edges=true)
    again = EdgeEditor.load(editor.save(tmp_path))
    assert np.array_equal(again.edges, editor.edges) and np.array_equal(again.true_edges, true)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"version": 1', '"version": 99'),
        lambda text: text.replace('"position": 1', '"position": 7'),
        lambda text: text.replace('"tool": "pen"', '"tool": "laser"'),
        lambda text: text.replace('"photo": "', '"photo": "AAAA'),
        lambda text: text.replace('"threshold": 128', '"threshold": "x"'),
        lambda text: text.replace('"threshold": 128', '"threshold": 0'),
        lambda text: text.replace('"proposal": 0', '"proposal": 9'),
        lambda text: text.replace(
            '"probability": "', '"probability": "' + _to_png(np.zeros((3, 3), np.uint8)) + '", "x": "'
        ),
        lambda text: text.replace(
            '"pictures": {', '"pictures": {"given": "' + _to_png(np.zeros((3, 3), np.uint8)) + '", '
        ),
        lambda text: text.replace('"strokes": [', '"strokes": ' + 9000 * "[" + 9000 * "]" + ', "x": ['),
    ],
)
def test_a_broken_state_is_named(editor, tmp_path, damage):
    editor.line([(14, 12)])
    editor.save(tmp_path)
    path = tmp_path / STATE
    damaged = damage(path.read_text())
    assert damaged != path.read_text()
    path.write_text(damaged)
    with pytest.raises(EditorNotSaved, match=r"editor\.json: not an editor's state, or broken"):
        EdgeEditor.load(tmp_path)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(EditorNotSaved, match=r"editor\.json: there is no saved editor"):
        EdgeEditor.load(tmp_path)


# where no widget can be shown


def test_its_picture_shows_where_no_widget_can(editor):
    data, _ = editor._repr_mimebundle_()
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(data["image/jpeg"]), np.uint8), 1)[..., ::-1]
    assert picture.shape == (2 * 48, 4 * 64, 3) and np.abs(picture - editor.preview().astype(float)).mean() < 30
    assert data["text/plain"] == repr(editor)
    editor.line([(14, 12), (36, 12)])
    editor.wait()
    shown = editor.preview(scale=1)
    assert (shown[12, 14:37] == COLOURS["drawn"]).all() and np.array_equal(shown[:, 64:], editor.result)
