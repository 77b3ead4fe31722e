"""The editor without a notebook, for `edgeconnect-lite edit`: a page from a small server on this machine.

The page (page.html) shows the widgets' own front ends with a stand-in for their models: the state once, then changes as
server-sent events; what a front end says comes back by POST. Only 127.0.0.1 is served, behind an unguessable address.
A large photo is cropped first (CropTool), and the result is pasted back into it.
"""

import base64
import json
import queue
import re
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from edgeconnect_lite.editor.crop import CropTool
from edgeconnect_lite.editor.widget import STATE, EdgeEditor, EditorNotSaved
from edgeconnect_lite.photos import read_bytes, write_bytes, write_picture

HERE = Path(__file__).parent
LONGEST = 4 << 20  # bytes of a message
EYES = "eyes.json"  # where the crop's handles stood
FILES = {
    "": ("page.html", "text/html"),
    "editor.js": ("editor.js", "text/javascript"),
    "crop.js": ("crop.js", "text/javascript"),
    "editor.css": ("editor.css", "text/css"),
}


def encoded(state: dict[str, Any]) -> dict[str, Any]:
    """What JSON can hold: bytes become {"base64": ...}."""
    binary = bytes | bytearray | memoryview
    return {
        name: {"base64": base64.b64encode(bytes(value)).decode()} if isinstance(value, binary) else value
        for name, value in state.items()
    }


def shared_names(widget: EdgeEditor | CropTool) -> list[str]:
    """The traits that a front end of ours knows."""
    own = (
        EdgeEditor if isinstance(widget, EdgeEditor) else CropTool
    )  # an instance's class is another: anywidget adds to it
    return list(own.class_own_traits(sync=True))


class EditorServer(ThreadingHTTPServer):
    """Serves one photo at `address` until it is shut down.

    photo: uint8 (H, W, 3). mask: bool (H, W), or None = nothing yet. inpainter: as for EdgeEditor. folder: where `save` keeps
    the editor's state and, at the photo's own size, photo.png; where it holds a state of this photo already, that goes on.
    port: 0 = any free one. A photo that is not the inpainter's size is cropped first, unless a mask is given. Raises OSError
    where the port is taken, EditorNotSaved where the folder's state is broken or of another photo.
    """

    daemon_threads = True

    def __init__(self, photo: np.ndarray, mask: np.ndarray | None, inpainter: Any, folder: Path, port: int = 0):
        super().__init__(("127.0.0.1", port), Handler)
        self.photo, self.inpainter, self.folder, self.secret = photo, inpainter, folder, secrets.token_urlsafe(24)
        self.listeners: list[queue.Queue] = []
        self.lock = threading.Lock()
        self.widgets: dict[str, Any] = {}
        try:
            if (folder / STATE).exists():
                self.go_on()
            elif mask is None and photo.shape[:2] != (inpainter.size, inpainter.size):
                self.add("crop", CropTool(photo, size=inpainter.size))
            else:
                self.edit(photo, np.zeros(photo.shape[:2], bool) if mask is None else mask)
        except BaseException:
            self.server_close()  # the port is bound already
            raise

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{self.secret}/"

    def go_on(self) -> None:
        """Open what the folder holds."""
        editor, photo = EdgeEditor.load(self.folder, self.inpainter), self.photo
        if (self.folder / EYES).is_file():
            try:
                eyes = json.loads(read_bytes(self.folder / EYES))
                crop = CropTool(photo, eyes, self.inpainter.size)
            except (ValueError, RecursionError) as error:
                raise EditorNotSaved(f"{self.folder / EYES}: {error}") from None
            self.add("crop", crop)
            photo = crop.crop
        if not np.array_equal(photo, editor.photo):
            raise EditorNotSaved(f"{self.folder} holds what was drawn on another photo; wanted another --out")
        self.add("editor", editor)

    def edit(self, photo: np.ndarray, mask: np.ndarray) -> None:
        """Open the editor on the photo, or on the crop of it."""
        self.add("editor", EdgeEditor(photo, mask, self.inpainter))

    def add(self, name: str, widget: Any) -> None:
        """Show a widget on the page, and tell the page of its changes from now on."""
        widget.observe(
            lambda change: self.tell(widget=name, state=encoded({change.name: change.new})), shared_names(widget)
        )
        widget.send = lambda content, buffers=None: self.tell(widget=name, content=content)
        self.widgets[name] = widget

    def tell(self, **event: Any) -> None:
        """To every open page."""
        with self.lock:
            for listener in self.listeners:
                listener.put(event)

    def state(self) -> dict[str, Any]:
        """[widget]: the traits that its front end knows."""
        return {
            name: encoded({key: value for key, value in widget.get_state().items() if key in shared_names(widget)})
            for name, widget in self.widgets.items()
        }

    def result(self) -> np.ndarray:
        """The photo at its own size with the result in its hole."""
        editor, crop = self.widgets["editor"], self.widgets.get("crop")
        with editor._changed:  # both of one moment
            result, mask = editor.result, editor.mask
        return result if crop is None else crop.paste(result, mask)

    def save(self) -> str:
        """Keep the editor's state and the result. Returns what to say."""
        if "editor" not in self.widgets:
            return "nothing is edited yet"
        if "crop" in self.widgets:  # before the state, which without the eyes would seem to be of another photo
            self.folder.mkdir(parents=True, exist_ok=True)
            write_bytes(self.folder / EYES, json.dumps(self.widgets["crop"].eyes).encode())
        self.widgets["editor"].save(self.folder)
        write_picture(self.folder / "photo.png", self.result())
        return f"kept in {self.folder}: photo.png, and all that is needed to go on"

    def hear(self, said: Any) -> Any:
        """What a page posts: {"widget", "state" or "content"}, or {"do": "edit" or "save"}. Returns what to answer."""
        if not isinstance(said, dict):
            raise ValueError("wanted an object")
        if said.get("do") == "save":
            return self.save()
        if said.get("do") == "edit" and "crop" in self.widgets and "editor" not in self.widgets:
            crop = self.widgets["crop"].crop
            self.edit(crop, np.zeros(crop.shape[:2], bool))
        elif widget := self.widgets.get(str(said.get("widget"))):
            if isinstance(said.get("state"), dict):
                widget.set_state(said["state"])
            elif "content" in said and isinstance(widget, EdgeEditor):
                widget._receive(None, said["content"], [])
        return ""


class Handler(BaseHTTPRequestHandler):
    """One request. Whoever does not know the address, or asks under another host's name, gets nothing."""

    server: EditorServer
    protocol_version = "HTTP/1.1"
    timeout = 60  # s of silence: who promises more than comes does not hold a thread

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are no news."""

    def asked(self) -> str | None:
        """What of the page is asked for, or None."""
        port, prefix = self.server.server_port, f"/{self.server.secret}/"
        known = self.headers.get("Host", "") in (f"127.0.0.1:{port}", f"localhost:{port}")
        return self.path.removeprefix(prefix) if known and self.path.startswith(prefix) else None

    def answer(self, body: str | bytes, kind: str = "text/plain", status: int = 200) -> None:
        body = body.encode() if isinstance(body, str) else body
        headers = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body))}
        self.send_response(status)
        for name, value in (headers | {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        name = self.asked()
        if name in FILES:
            file, kind = FILES[name]
            self.answer((HERE / file).read_bytes(), kind)
        elif name == "state":
            self.answer(json.dumps(self.server.state()), "application/json")
        elif name == "events":
            self.stream()
        else:
            self.answer("not here", status=404)

    def stream(self) -> None:
        """Server-sent events, until the page is closed."""
        events: queue.Queue = queue.Queue()
        with self.server.lock:
            self.server.listeners.append(events)
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        try:
            while True:
                try:
                    said = f"data: {json.dumps(events.get(timeout=15))}\n\n"
                except queue.Empty:
                    said = ": still here\n\n"  # finds out whether the page is gone
                self.wfile.write(said.encode())
                self.wfile.flush()
        except OSError:
            pass  # it is
        finally:
            with self.server.lock:
                self.server.listeners.remove(events)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self.asked() != "message" or not re.fullmatch(r"[0-9]{1,9}", length) or int(length) > LONGEST:
            self.close_connection = True  # what it still sends is not read
            return self.answer("not here, or too long", status=404)
        try:
            self.answer(self.server.hear(json.loads(self.rfile.read(int(length)))))
        except (ValueError, RuntimeError, OSError) as error:
            self.answer(str(error), status=400)
