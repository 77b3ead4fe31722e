"""What benchmarks/editor.py opens in the kernel: the editor and the networks as they are, which note when things happen."""

import json
import threading
import time
from typing import Any

import numpy as np
import torch

from edgeconnect_lite import FacePhotos, Inpainter
from edgeconnect_lite.editor import EdgeEditor

SIZE, PHOTO, HOLE = 128, 10, (32, 96)  # px; a test face; the rows and the columns of its hole
Span = tuple[float, float]  # from time.time() to time.time()


class TimedInpainter(Inpainter):
    """Notes from when to when each stage ran."""

    predictions: list[Span]
    paintings: list[Span]

    def predict_edges(self, *given: Any) -> np.ndarray:
        start = time.time()
        edges = super().predict_edges(*given)
        self.predictions.append((start, time.time()))
        return edges

    def __call__(self, *given: Any) -> np.ndarray:
        start = time.time()
        painted = super().__call__(*given)
        self.paintings.append((start, time.time()))
        return painted


class TimedEditor(EdgeEditor):
    """Notes when each stroke came, and when the edges with it were there."""

    strokes_at: list[Span]

    def _receive(self, *message: Any) -> None:
        came = time.time()
        super()._receive(*message)
        self._edges()
        self.strokes_at.append((came, time.time()))

    def forget(self) -> None:
        """What was noted until now does not count."""
        self.strokes_at, self._inpainter.predictions, self._inpainter.paintings = [], [], []

    def noted(self) -> str:
        """All of it, as JSON, when all is painted."""
        self.wait()
        networks = {name: getattr(self._inpainter, name) for name in ("predictions", "paintings")}
        return json.dumps({"strokes": self.strokes_at, **networks, "message": self.message})

    def paint_on(self, seconds: float) -> None:
        """For so long stage 2 begins anew whenever it is done, as under strokes that come faster than it paints."""
        end = time.time() + seconds

        def again() -> None:
            while time.time() < end:
                self._painted_of = ()
                self._touch()
                self.wait()

        threading.Thread(target=again).start()


def open_editor() -> TimedEditor:
    """The shipped weights, on one thread, and a test face with a square hole."""
    torch.set_num_threads(1)
    mask = np.zeros((SIZE, SIZE), bool)
    mask[slice(*HOLE), slice(*HOLE)] = True
    inpainter = TimedInpainter.from_pretrained(device="cpu")
    inpainter.predictions, inpainter.paintings = [], []
    editor = TimedEditor(FacePhotos("test")[PHOTO], mask, inpainter)
    editor.forget()
    return editor
