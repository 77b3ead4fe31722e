"""EdgeEditor: draw and erase edges, paint the hole, and see the face change. An anywidget with its own canvas.

The front end (editor.js) draws a stroke as it is made and sends it when it ends, one small message; here the same rules
(strokes.py) give the same pixels. The networks run on a thread of their own, always on the newest state: strokes wait for
nothing, several that come meanwhile are painted at once, and stage 1 runs again only where the hole has changed.
"""

import base64
import contextlib
import json
import struct
import threading
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anywidget
import cv2
import numpy as np
import torch
import traitlets as t

from edgeconnect_lite.canny import crest
from edgeconnect_lite.edges import known_edges, merge_edges, near_hole
from edgeconnect_lite.editor.strokes import (
    DRAWN,
    ERASED,
    BadStroke,
    History,
    check_stroke,
    edited_edges,
    pack_bits,
    unpack_bits,
)
from edgeconnect_lite.masks import as_mask
from edgeconnect_lite.photos import as_photo, read_bytes, write_bytes, write_picture

HERE = Path(__file__).parent
COLOURS = {  # Okabe and Ito's palette, made for colour-blind readers
    "known": (90, 90, 90), "predicted": (213, 94, 0), "drawn": (0, 114, 178), "erased": (240, 228, 66),
    "true": (0, 158, 115), "hole": (204, 121, 167),
}  # fmt: skip
THRESHOLD = 128  # of the 256 steps of a probability: above one half
PROPOSALS = 4  # beside the prediction
STATE, STATE_VERSION = "editor.json", 1
MAX_STROKES, MAX_PIXELS = 10_000, 1 << 26  # of a saved state: what it claims must not take hours or gigabytes
PAINTER = ThreadPoolExecutor(1, thread_name_prefix="edge-editor")  # one picture at a time, whichever editor wants it


class EditorNotSaved(ValueError):
    """A folder that holds no editor's state, or a broken one; the message names the file."""


def quantise(probability: np.ndarray) -> np.ndarray:
    """Probabilities in [0, 1] as uint8, so that both sides compare whole numbers: p > n / 256 exactly if the result is >= n."""
    return (np.ceil(np.asarray(probability, np.float64) * 256) - 1).clip(0, 255).astype(np.uint8)


def middle(steps: np.ndarray) -> np.ndarray:
    """Back from quantise to the middle of each step, float32."""
    return ((steps.astype(np.float32) + 0.5) / 256).astype(np.float32)


def lines_of(probability: np.ndarray) -> np.ndarray:
    """A map (H, W) in which what is unsure, at most one half, counts on the crests of lines alone: thin at any threshold."""
    probability = np.asarray(probability, np.float32)
    on_crest = crest(torch.tensor(probability)[None, None])[0, 0].numpy() > 0
    return np.where(on_crest | (probability > 0.5), probability, np.float32(0))


class EdgeEditor(anywidget.AnyWidget):
    """Edit the edges of a photo's hole, and the hole. Shown as the last line of a notebook's cell.

    photo: as for photos.as_photo. mask: as for masks.as_mask, of the same size; may be empty, then paint a hole.
    inpainter: an Inpainter, or anything with its predict_edges(photo, mask), propose_edges(photo, mask, n) and
    (photo, mask, edges) -> uint8 (H, W, 3); None = edges are edited, nothing is painted. edges: (H, W), bool or probability, to
    begin with in place of the prediction, until the hole changes. true_edges: bool (H, W), shown on demand.

    Attributes: photo, mask, edges, true_edges, result (arrays, copies), strokes (a list that JSON can hold, for replay).
    threshold, 1 to 255: a predicted edge needs a probability above threshold / 256. proposal: 0 = the prediction, 1 to 4 =
    one of propose_edges. Errors of the inpainter are shown in the widget, and raised where result is asked for.
    """

    _esm = HERE / "editor.js"
    _css = HERE / "editor.css"
    _key = t.Unicode().tag(sync=True)
    _shape = t.List(t.Int()).tag(sync=True)
    _photo = t.Bytes().tag(sync=True)
    _true = t.Bytes().tag(sync=True)  # empty: not given
    _history = t.Dict().tag(sync=True, to_json=lambda _, editor: editor._told_history())  # as it is when asked for
    _forecast_hole = t.Unicode("").tag(sync=True)  # the hole that the probability was predicted for (pack_bits)
    _probability = t.Bytes().tag(sync=True)
    _result = t.Bytes().tag(sync=True)  # RGB, empty: none
    _colours = t.Dict(COLOURS).tag(sync=True)
    _paints = t.Bool(False).tag(sync=True)
    _proposals = t.Int(0).tag(sync=True)
    threshold = t.Int(THRESHOLD, min=1, max=255).tag(sync=True)
    proposal = t.Int(0, min=0, max=PROPOSALS).tag(sync=True)
    busy = t.Bool(False).tag(sync=True)
    message = t.Unicode("").tag(sync=True)
    FROM_THE_FRONT_END = ("threshold", "proposal")  # all that it may set; strokes come as messages

    def __init__(
        self, photo: np.ndarray, mask: np.ndarray, inpainter: Any = None, edges: np.ndarray | None = None,
        true_edges: np.ndarray | None = None,
    ):  # fmt: skip
        self._picture = as_photo(photo)
        first = as_mask(mask, self._picture.shape[:2])
        self._given = None if edges is None else self._checked_plane(edges, "edges")
        self._truth = None if true_edges is None else self._checked_plane(true_edges, "true_edges") > 0.5
        self._history_of, self._inpainter = History(first), inpainter
        self._changed, self._wanted, self._ready = threading.Condition(threading.RLock()), 0, 0
        self._job_runs, self._error = False, None
        self._acts, self._complaint = 0, ""  # of all windows and of Python; about what a front end said last
        self._forecast_of: tuple = ()  # the hole and the proposal of the probability
        self._painted_of: tuple = ()  # the hole and the edges of the result
        self._forecast, self._painted = np.zeros(first.shape, np.uint8), None
        super().__init__(
            _key=uuid.uuid4().hex, _shape=list(first.shape), _photo=self._picture.tobytes(),
            _true=b"" if self._truth is None else self._truth.tobytes(), _paints=inpainter is not None,
            _proposals=PROPOSALS if hasattr(inpainter, "propose_edges") else 0,
        )  # fmt: skip
        self.on_msg(self._receive)
        self._refresh()  # an error in the first picture is the caller's
        self.observe(lambda change: self._touch(), ["threshold", "proposal"])

    def _checked_plane(self, plane: np.ndarray, name: str) -> np.ndarray:
        plane, shape = np.asarray(plane), self._picture.shape[:2]
        if plane.shape != shape or not (plane.dtype == np.bool_ or plane.dtype.kind == "f"):
            raise ValueError(f"{name} are {plane.dtype} {plane.shape}; wanted {shape}, bool or probabilities in [0, 1]")
        if plane.size and not (plane.min() >= 0 and plane.max() <= 1):  # NaN fails too
            raise ValueError(
                f"{name} hold values from {plane.min():g} to {plane.max():g}; wanted probabilities in [0, 1]"
            )
        return plane.astype(np.float32)

    # ----- the state, as arrays -----

    @property
    def photo(self) -> np.ndarray:
        """uint8 (H, W, 3)."""
        return self._picture.copy()

    @property
    def true_edges(self) -> np.ndarray | None:
        """bool (H, W), or None where they were not given."""
        return None if self._truth is None else self._truth.copy()

    @property
    def mask(self) -> np.ndarray:
        """bool (H, W), True = hole, as it is painted now."""
        return self._history_of.layers.mask.copy()

    @property
    def predicted_edges(self) -> np.ndarray:
        """What the edges are before a person touches them: float32 (H, W) in [0, 1], in 256 steps."""
        self.wait()
        return middle(self._forecast)

    @property
    def edges(self) -> np.ndarray:
        """bool (H, W): known, predicted, drawn, less what was erased (near the hole: strokes.py)."""
        self.wait()
        return self._edges()

    @property
    def result(self) -> np.ndarray | None:
        """uint8 (H, W, 3), painted from the edges as they are now; None without an inpainter."""
        self.wait()
        return None if self._painted is None else self._painted.copy()

    @property
    def strokes(self) -> list[dict[str, Any]]:
        """What was done, oldest first: the list that replay takes and JSON can hold.

        Replayed on the same photo and first hole, with the same inpainter, threshold and proposal, it gives the same pixels.
        """
        return self._history_of.done

    def _edges(self) -> np.ndarray:
        return edited_edges(self._base(), self._history_of.layers)

    def _base(self) -> np.ndarray:
        """The edges before a person touches them; where stage 1 has not answered, the known ones: no look into a new hole."""
        if self._is_predicted():
            return self._forecast >= self.threshold
        return known_edges(self._picture, self._history_of.layers.mask)

    def _is_predicted(self) -> bool:
        """Whether the forecast is that of the hole and the proposal as they are now."""
        return _same(self._forecast_of, (self._history_of.layers.mask, self.proposal))

    # ----- a person's hand, in Python -----

    def line(self, points: Iterable, radius: int | list[int] = 0) -> None:
        """Draw edges near the hole along (x, y), (x, y), ..., in whole px from the left and from the top.

        radius: px, 0 to 64, one number or one a point. Raises BadStroke, as all of these do.
        """
        self._do({"tool": "pen", "points": _listed(points), "radius": radius})

    def erase(self, points: Iterable, radius: int | list[int] = 2) -> None:
        """Erase edges near the hole along the points."""
        self._do({"tool": "eraser", "points": _listed(points), "radius": radius})

    def paint_mask(self, points: Iterable, radius: int | list[int] = 6) -> None:
        """Make the hole larger along the points; edges are predicted for it anew."""
        self._do({"tool": "mask", "points": _listed(points), "radius": radius})

    def erase_mask(self, points: Iterable, radius: int | list[int] = 6) -> None:
        """Give the photo back along the points."""
        self._do({"tool": "unmask", "points": _listed(points), "radius": radius})

    def clear(self) -> None:
        """No edge near the hole."""
        self._do({"tool": "clear"})

    def reset(self) -> None:
        """Back to the predicted edges."""
        self._do({"tool": "reset"})

    def import_edges(self, edges: np.ndarray) -> None:
        """Put a whole edge map (H, W), bool or probability, in the place of the hole's."""
        self._do({"tool": "edges", "bits": pack_bits(self._checked_plane(edges, "edges") > 0.5)})

    def import_mask(self, mask: np.ndarray) -> None:
        """Put another hole in the place of this one. mask: as for masks.as_mask."""
        self._do({"tool": "hole", "bits": pack_bits(as_mask(mask, self._picture.shape[:2]))})

    def undo(self) -> bool:
        """Take back the last stroke, on whichever layer. Returns whether there was one."""
        return self._step("undo")

    def redo(self) -> bool:
        """Do again what was undone. Returns whether there was something."""
        return self._step("redo")

    def replay(self, strokes: Iterable[dict[str, Any]]) -> None:
        """Do a list of strokes, all or, where one of them is bad, none. Raises BadStroke."""
        checked = [check_stroke(stroke, self._picture.shape[:2]) for stroke in strokes]
        with self._changed:
            for stroke in checked:
                self._history_of.do(stroke)
            self._acts += len(checked)
            self._tell_history()
        self._touch()

    def _do(self, stroke: dict[str, Any]) -> None:
        with self._changed:
            self._pass_on("do", self._history_of.do(stroke))
        self._touch()

    def _step(self, way: str) -> bool:
        with self._changed:
            if moved := getattr(self._history_of, way)():
                self._pass_on(way)
        if moved:
            self._touch()
        return moved

    def _pass_on(self, kind: str, stroke: dict[str, Any] | None = None, sender: Any = None) -> None:
        """Tell all windows of one act; `sender`, which has done it, leaves it alone."""
        self.send({"type": kind, "at": self._acts, "from": sender} | ({} if stroke is None else {"stroke": stroke}))
        self._acts += 1

    # ----- the front end -----

    def _told_history(self) -> dict[str, Any]:
        history = self._history_of
        return {"hole": pack_bits(history.first.mask), "strokes": history.strokes, "position": history.position,
                "acts": self._acts}  # fmt: skip

    def _tell_history(self) -> None:
        self.send({"type": "history", **self._told_history()})

    def _receive(self, _: Any, content: Any, buffers: Any) -> None:
        """A message of the front end: a stroke, undo, or redo, and how many acts it knew before."""
        told: dict = content if isinstance(content, dict) else {}
        kind, stroke = told.get("type"), None
        with self._changed:
            agrees = told.get("at") == self._acts
            try:
                if kind == "do":
                    stroke = self._history_of.do(told.get("stroke"))
                elif kind not in ("undo", "redo"):
                    raise BadStroke(f"a message is of type {str(kind)[:40]!r}; wanted do, undo or redo")
                elif not getattr(self._history_of, kind)():
                    agrees = False
            except (BadStroke, RecursionError) as error:
                self._complain(str(error))
                self._tell_history()
                return
            self._complaint = ""
            if agrees:
                sender = told.get("from")
                self._pass_on(kind, stroke, sender if isinstance(sender, str) else None)
            else:  # another window drew meanwhile: all take what holds here
                self._acts += 1
                self._tell_history()
        self._touch()

    def _complain(self, about: str) -> None:
        """Show what was wrong with what a front end said, until it says something better."""
        self._complaint = self.message = about

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """What the front end may set, checked; anything else is left alone."""
        for name in self.FROM_THE_FRONT_END:
            if name in sync_data:
                try:
                    super().set_state({name: sync_data[name]})
                except t.TraitError as error:
                    self._complain(str(error))
                    self.send_state(name)  # its slider goes back

    # ----- the networks, off the drawing path -----

    def _touch(self) -> None:
        """Something has changed: the newest state is wanted."""
        with self._changed:
            self._wanted += 1
            if not self._job_runs:
                self._job_runs = True
                PAINTER.submit(self._work)

    def _work(self) -> None:
        """On the painter's thread: refresh until nothing newer is wanted."""
        while True:
            with self._changed:
                number = self._wanted
            error = None
            try:
                self._refresh()
            except Exception as caught:  # nobody would see it: the widget shows it, and result raises it
                error = caught
            with self._changed:
                self._error, self._ready = error, number
                self.message = self._complaint if error is None else f"{type(error).__name__}: {error}"
                self._job_runs = number != self._wanted
                self._changed.notify_all()
                if not self._job_runs:
                    return

    def _refresh(self) -> None:
        """Predict and paint what the state as it is now asks for, and no more."""
        with self._changed:
            layers, proposal = self._history_of.layers, self.proposal
        if not _same(self._forecast_of, (layers.mask, proposal)):
            forecast = quantise(self._predict(layers.mask, proposal))
            with self._changed:
                self._take_forecast(forecast, layers.mask, proposal)
        if self._inpainter is None:
            return
        with self._changed:
            layers = self._history_of.layers
            edges = self._edges()
        if not _same(self._forecast_of, (layers.mask, self.proposal)):
            return  # the hole has changed meanwhile: another round follows
        if not _same(self._painted_of, (layers.mask, edges)):
            self.busy = True
            try:
                painted = self._inpainter(self._picture, layers.mask, edges)
                if painted.shape != self._picture.shape or painted.dtype != np.uint8:
                    raise ValueError(
                        f"the inpainter gave {painted.dtype} {painted.shape}; wanted uint8 {self._picture.shape}"
                    )
            finally:
                self.busy = False
            with self._changed:
                self._painted, self._painted_of = painted, (layers.mask, edges)
                self._result = painted.tobytes()

    def _take_forecast(self, forecast: np.ndarray, mask: np.ndarray, proposal: int) -> None:
        self._forecast, self._forecast_of = forecast, (mask, proposal)
        self._forecast_hole = pack_bits(mask)
        self._probability = forecast.tobytes()

    def _predict(self, mask: np.ndarray, proposal: int) -> np.ndarray:
        """The edges before a person touches them, as probabilities (H, W)."""
        if self._given is not None and proposal == 0 and np.array_equal(mask, self._history_of.first.mask):
            return self._given
        if self._inpainter is None or not mask.any():
            inside = np.zeros(mask.shape, np.float32) if self._given is None else self._given
            return merge_edges(known_edges(self._picture, mask), inside, mask).astype(np.float32)
        if proposal:
            return lines_of(self._inpainter.propose_edges(self._picture, mask, PROPOSALS)[proposal - 1])
        return lines_of(self._inpainter.predict_edges(self._picture, mask))

    def wait(self, seconds: float = 60.0) -> None:
        """Until the edges and the result are those of the strokes. Raises TimeoutError, or RuntimeError for the inpainter's."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._ready >= self._wanted, seconds):
                raise TimeoutError(f"no result after {seconds:g} s")
            if self._error is not None:
                raise RuntimeError(f"the inpainter failed: {self._error}") from self._error

    # ----- kept -----

    def save(self, folder: str | Path) -> Path:
        """Keep everything in a folder, which is made where it is not there: result.png, edges.png and mask.png for people, and
        at last editor.json, from which load goes on. Each file is written whole or not at all, so a killed save leaves the
        last editor.json as it was. Without a result for these edges there is no result.png."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for half_written in folder.glob(".*.part"):  # by a save that was killed
            half_written.unlink(missing_ok=True)
        with contextlib.suppress(RuntimeError, TimeoutError):  # what was drawn is kept even where the inpainter fails
            self.wait()
        with self._changed:
            layers, edges, painted = self._history_of.layers, self._edges(), self._painted
            planes = {"photo": self._picture}
            planes |= {"probability": self._forecast} if self._is_predicted() else {}
            planes |= {} if self._truth is None else {"true_edges": self._truth.astype(np.uint8)}
            planes |= {} if self._given is None else {"given": quantise(self._given)}
            state = {
                "version": STATE_VERSION, "threshold": self.threshold, "proposal": self.proposal,
                "history": self._told_history(), "pictures": {name: _to_png(plane) for name, plane in planes.items()},
            }  # fmt: skip
            is_current = _same(self._painted_of, (layers.mask, edges))
        pictures = {"mask": layers.mask.astype(np.uint8) * 255, "edges": edges.astype(np.uint8) * 255}
        if painted is not None and is_current:
            pictures["result"] = painted
        else:
            (folder / "result.png").unlink(missing_ok=True)
        for name, picture in pictures.items():
            write_picture(folder / f"{name}.png", picture)
        write_bytes(folder / STATE, json.dumps(state).encode())
        return folder

    @classmethod
    def load(cls, folder: str | Path, inpainter: Any = None) -> "EdgeEditor":
        """The editor as it was saved, undone strokes included. Raises EditorNotSaved, naming the file."""
        path = Path(folder) / STATE
        if not path.is_file():
            raise EditorNotSaved(f"{path}: there is no saved editor")
        try:
            state = json.loads(read_bytes(path))
            editor = cls._from_state(state)
        except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, MemoryError, RecursionError,
                t.TraitError, cv2.error) as error:  # fmt: skip
            raise EditorNotSaved(
                f"{path}: not an editor's state, or broken ({type(error).__name__}: {error})"
            ) from None
        editor.wait()
        with editor._changed:
            if "probability" not in state["pictures"]:
                editor._forecast_of = ()
            editor._inpainter, editor._paints = inpainter, inpainter is not None
            editor._proposals = PROPOSALS if hasattr(inpainter, "propose_edges") else 0
            editor._tell_history()  # the front end was opened on an empty one
        editor._touch()
        return editor

    @classmethod
    def _from_state(cls, state: dict[str, Any]) -> "EdgeEditor":
        """What save kept, without an inpainter: no network runs before all of it is in place."""
        pictures = {name: _from_png(text) for name, text in state["pictures"].items()}
        photo, history, position = pictures["photo"], state["history"], state["history"]["position"]
        first = unpack_bits(history["hole"], photo.shape[:2])
        given, truth = pictures.get("given"), pictures.get("true_edges")
        if len(history["strokes"]) > MAX_STROKES:
            raise ValueError(f"{len(history['strokes'])} strokes; wanted at most {MAX_STROKES}")
        strokes = [check_stroke(stroke, first.shape) for stroke in history["strokes"]]
        if state["version"] != STATE_VERSION or type(position) is not int or not 0 <= position <= len(strokes):
            raise ValueError(f"version {str(state['version'])[:20]}, position {str(position)[:20]} of {len(strokes)}")
        forecast = pictures.get("probability")
        if forecast is not None and forecast.shape != first.shape:
            raise ValueError(f"a probability of shape {forecast.shape}; wanted {first.shape}")
        editor = cls(photo, first, None, None if given is None else middle(given), None if truth is None else truth > 0)
        with editor._changed:
            for stroke in strokes:
                editor._history_of.do(stroke)
            editor._history_of.position = position
            for name in cls.FROM_THE_FRONT_END:
                setattr(editor, name, state[name])
            if forecast is not None:
                editor._take_forecast(forecast, editor._history_of.layers.mask, editor.proposal)
        return editor

    # ----- where no widget can be shown -----

    def preview(self, scale: int = 2) -> np.ndarray:
        """Photo, hole and edges, and beside them the result: uint8 (scale H, scale W or 2 scale W, 3), of the strokes as they
        are now. Raises as wait does."""
        self.wait()
        return self._drawn_now(scale)

    def _drawn_now(self, scale: int) -> np.ndarray:
        """What there is to see, without waiting."""
        with self._changed:
            layers, edges, painted = self._history_of.layers, self._edges(), self._painted
            base = self._base()
        picture, near = (self._picture.astype(np.float32) + 255) / 2, near_hole(layers.mask)
        picture[layers.mask] = 0.75 * picture[layers.mask] + 0.25 * np.array(COLOURS["hole"])
        drawn = near & (layers.touched == DRAWN)
        picture[near & (layers.touched == ERASED) & base] = COLOURS["erased"]
        for name, where in (("known", ~near), ("predicted", near & ~drawn), ("drawn", drawn)):
            picture[edges & where] = COLOURS[name]
        shown = [picture.astype(np.uint8)] + ([] if painted is None else [painted])
        return np.concatenate(shown, axis=1).repeat(scale, axis=0).repeat(scale, axis=1)

    def __repr__(self) -> str:
        height, width = self._picture.shape[:2]
        edges = int((self._edges() & self.mask).sum())
        plural = "" if len(self.strokes) == 1 else "s"
        return f"EdgeEditor({width} x {height}, {edges} edge pixels in the hole, {len(self.strokes)} stroke{plural})"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        with contextlib.suppress(RuntimeError, TimeoutError):  # the widget says what is wrong
            self.wait()
        return shown_as(super()._repr_mimebundle_(**options), self._drawn_now(2), repr(self))


def _listed(points: Iterable) -> list:
    """Points as lists, for the checks of strokes.py."""
    return [np.asarray(point).tolist() for point in points]


def _same(one: tuple, other: tuple) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other))


def shown_as(bundle: Any, picture: np.ndarray, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A widget's mimebundle with what shows where no widget can: a picture, RGB, as JPEG (PNG is five times as large)."""
    data, about = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
    _, jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    return {**data, "image/jpeg": base64.b64encode(jpeg.tobytes()).decode(), "text/plain": text}, about


def _to_png(plane: np.ndarray) -> str:
    """uint8 (H, W) or RGB (H, W, 3) as PNG in base64."""
    _, data = cv2.imencode(".png", plane if plane.ndim == 2 else plane[..., ::-1])
    return base64.b64encode(data.tobytes()).decode()


def _from_png(text: str) -> np.ndarray:
    """What _to_png made. Raises ValueError."""
    data = base64.b64decode(text, validate=True)
    width, height = struct.unpack_from(">II", data.ljust(24), 16)  # what it claims, before OpenCV makes room for it
    if not data.startswith(b"\x89PNG\r\n") or width * height > MAX_PIXELS:
        raise ValueError(f"a picture in it is no PNG of at most {MAX_PIXELS >> 20} million pixels")
    plane = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if plane is None or plane.dtype != np.uint8:
        raise ValueError("a picture in it cannot be read; wanted a PNG of 8 bit")
    return plane if plane.ndim == 2 else np.ascontiguousarray(plane[..., ::-1])
