"""editor/serve.py: the editor's page and what is said to it, over HTTP."""

import http.client
import json
import queue
import threading
import time

import cv2
import numpy as np
import pytest
from helpers import shapes_photo
from test_editor import Painter

from edgeconnect_lite.editor import EdgeEditor
from edgeconnect_lite.editor.serve import EYES, LONGEST, EditorServer
from edgeconnect_lite.editor.widget import STATE, EditorNotSaved


class SmallPainter(Painter):
    size = 64


def serving(tmp_path, photo, mask=None):
    server = EditorServer(photo, mask, SmallPainter(), tmp_path)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def server(tmp_path):
    """The editor alone: the photo has the networks' size."""
    server = serving(tmp_path, shapes_photo(64, 64, 0))
    yield server
    server.shutdown()
    server.server_close()


def ask(server, name, body=None, host=None, secret=None, length=None):
    """(status, text, headers) of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    headers = {"Host": host} if host else {}
    if length is not None:
        headers["Content-Length"] = str(length)
    path = f"/{server.secret if secret is None else secret}/{name}"
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("GET" if body is None else "POST", path, data, headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, answer.headers


def stroke(*points, tool="mask", radius=4):
    return {"tool": tool, "points": points, "radius": radius}


def test_the_page_and_its_parts(server):
    assert server.address.startswith("http://127.0.0.1:") and len(server.secret) > 30
    parts = {"": "text/html", "editor.js": "text/javascript", "crop.js": "text/javascript", "editor.css": "text/css"}
    for name, kind in parts.items():
        status, text, headers = ask(server, name)
        assert status == 200 and text and headers["Content-Type"].startswith(kind)
        assert headers["Cache-Control"] == "no-store"
    state = json.loads(ask(server, "state")[1])
    assert list(state) == ["editor"] and state["editor"]["_shape"] == [64, 64] and "base64" in state["editor"]["_photo"]


@pytest.mark.parametrize("name", ["../serve.py", "page.html", "widget.py", "state/", "%2e%2e/x", "/etc/passwd"])
def test_nothing_else_is_served(server, name):
    assert ask(server, name)[0] == 404


def test_who_does_not_know_the_address_gets_nothing(server):
    for given in (
        {"secret": ""},
        {"secret": "x" * 32},
        {"host": "example.org"},
        {"host": f"example.org:{server.server_port}"},
    ):
        assert ask(server, "state", **given)[0] == 404
        assert ask(server, "message", {"do": "save"}, **given)[0] == 404
    assert ask(server, "state", host=f"localhost:{server.server_port}")[0] == 200


def test_strokes_come_in_and_changes_go_out(server):
    told = queue.Queue()
    server.listeners.append(told)
    drawn = {"type": "do", "stroke": stroke([20, 20], [40, 20]), "at": 0}
    ask(server, "message", {"widget": "editor", "content": drawn})
    editor = server.widgets["editor"]
    assert editor.mask[20, 20:41].all() and len(editor.result)
    ask(server, "message", {"widget": "editor", "state": {"threshold": 200, "_photo": ""}})
    assert editor.threshold == 200 and len(editor.photo)
    editor.undo()
    editor.wait()
    events = [told.get_nowait() for _ in range(told.qsize())]
    seen = {name for event in events for name in event.get("state", {})}
    assert {"_probability", "_result", "busy", "threshold"} <= seen <= set(EdgeEditor.class_own_traits())
    assert [event["content"]["type"] for event in events if "content" in event] == ["do", "undo"]


def test_a_page_hears_what_happens(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request("GET", f"/{server.secret}/events")
    answer = connection.getresponse()
    while not server.listeners:
        time.sleep(0.01)
    server.widgets["editor"].line([(5, 5)])
    event = json.loads(answer.readline().removeprefix(b"data: "))
    assert event["widget"] == "editor" and event["content"]["type"] == "do"
    connection.close()


@pytest.mark.parametrize(
    "body",
    [
        b"not json", b"[]", b"{", b"\xff\xfe", b"nan", {}, {"do": "rm"}, {"widget": "crop", "state": {}},
        {"widget": ["editor"]}, {"widget": "editor", "content": 7}, {"widget": "editor", "state": {"_shape": [9, 9]}},
    ],
)  # fmt: skip
def test_bad_messages_change_nothing(server, body):
    before = server.widgets["editor"].get_state()
    status, _, _ = ask(server, "message", body)
    assert status in (200, 400)
    after = server.widgets["editor"].get_state()
    assert {**before, "message": ""} == {**after, "message": ""}


@pytest.mark.parametrize("length", [LONGEST + 1, -1, "x", 10**30])
def test_lengths_that_cannot_be_are_refused(server, length):
    assert ask(server, "message", b"", length=length)[0] == 404


def test_save_keeps_the_photo_and_all_that_is_needed_to_go_on(server, tmp_path):
    ask(
        server,
        "message",
        {"widget": "editor", "content": {"type": "do", "stroke": stroke([20, 20], [40, 20]), "at": 0}},
    )
    status, said, _ = ask(server, "message", {"do": "save"})
    assert status == 200 and said.startswith("kept in ")
    again = EdgeEditor.load(tmp_path, SmallPainter())
    assert len(again.strokes) == 1
    assert np.array_equal(cv2.imread(str(tmp_path / "photo.png"))[..., ::-1], again.result)


def test_a_large_photo_is_cropped_and_pasted_back(tmp_path):
    photo = shapes_photo(300, 200, 1)
    server = serving(tmp_path, photo)
    try:
        assert list(server.widgets) == ["crop"] and ask(server, "message", {"do": "save"})[1] == "nothing is edited yet"
        ask(server, "message", {"widget": "crop", "state": {"_eyes": [[70, 140], [130, 140]]}})
        assert server.widgets["crop"].eyes == ((70, 140), (130, 140))
        for _ in range(2):  # the second does not lose what the first began
            ask(server, "message", {"do": "edit"})
        editor = server.widgets["editor"]
        assert np.array_equal(editor.photo, server.widgets["crop"].crop) and not editor.mask.any()
        editor.paint_mask([(32, 40)], radius=6)
        assert ask(server, "message", {"do": "edit"})[0] == 200 and server.widgets["editor"] is editor
        ask(server, "message", {"do": "save"})
        kept = cv2.imread(str(tmp_path / "photo.png"))[..., ::-1]
        changed = (kept != photo).any(axis=2)
        assert kept.shape == photo.shape and 0 < changed.mean() < 0.2
    finally:
        server.shutdown()
        server.server_close()


def test_with_a_mask_the_photo_is_taken_as_it_is(tmp_path):
    mask = np.zeros((90, 100), bool)
    mask[10:40, 20:60] = True
    server = EditorServer(shapes_photo(90, 100, 2), mask, SmallPainter(), tmp_path)
    try:
        assert list(server.widgets) == ["editor"] and np.array_equal(server.widgets["editor"].mask, mask)
    finally:
        server.server_close()


def test_an_inpainter_that_fails_is_told(server):
    server.inpainter.error = ValueError("broken")
    ask(server, "message", {"widget": "editor", "content": {"type": "do", "stroke": stroke([20, 20]), "at": 0}})
    status, said, _ = ask(server, "message", {"do": "save"})
    assert status == 400 and "the inpainter failed: broken" in said


# what was kept goes on


@pytest.mark.parametrize("sides", [(64, 64), (150, 220)])
def test_it_goes_on_where_it_was_saved(tmp_path, sides):
    photo = shapes_photo(*sides, 3)
    first = serving(tmp_path, photo)
    if "crop" in first.widgets:
        first.widgets["crop"].eyes = ((80, 60), (120, 66))
        first.hear({"do": "edit"})
    editor = first.widgets["editor"]
    editor.paint_mask([(20, 20), (40, 30)])
    editor.line([(22, 22), (38, 28)])
    editor.undo()
    first.save()
    second = serving(tmp_path, photo)
    again = second.widgets["editor"]
    assert again.strokes == editor.strokes and np.array_equal(again.result, editor.result)
    assert np.array_equal(second.result(), first.result())
    assert again.redo() and len(again.strokes) == 2
    for server in (first, second):
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("broken", ["another photo", "eyes", "state"])
def test_what_cannot_go_on_is_named(tmp_path, broken):
    photo = shapes_photo(150, 220, 3)
    server = serving(tmp_path, photo)
    server.hear({"do": "edit"})
    server.save()
    server.shutdown()
    server.server_close()
    if broken == "eyes":
        (tmp_path / EYES).write_text("[[1, 2], [1, 2]]")
    if broken == "state":
        (tmp_path / STATE).write_text("{")
    other = shapes_photo(150, 220, 4) if broken == "another photo" else photo
    message = {"another photo": "drawn on another photo", "eyes": "eyes.json: eyes are", "state": "editor.json"}[broken]
    with pytest.raises(EditorNotSaved, match=message):
        EditorServer(other, None, SmallPainter(), tmp_path)
