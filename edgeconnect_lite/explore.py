"""Explore: sliders over a figure, and a picture of it for readers without a kernel (GitHub, a stored notebook)."""

import base64
import html
import threading
from collections.abc import Callable
from typing import Any

from ipywidgets import HTML, Image, ValueWidget, VBox

from edgeconnect_lite.figures import Panel


class Explorer(VBox):
    """`explore`'s widget. `controls` are the given widgets by name, `picture` holds the figure as JPEG."""

    def __init__(self, draw: Callable[..., Panel], controls: dict[str, ValueWidget]):
        self.draw, self.controls, self.lock = draw, controls, threading.Lock()
        self.picture, self.alert = Image(format="jpeg"), HTML()
        self.picture.layout.object_fit = "contain"  # a wide box must not stretch it
        for name, control in controls.items():
            control.description = control.description or name  # type: ignore[attr-defined]
            control.style.description_width = "initial"  # type: ignore[attr-defined]
            control.observe(self._redraw, names="value")
        self.picture.value = self._encoded()  # an error in the first figure is the caller's
        super().__init__([*controls.values(), self.alert, self.picture])

    def _encoded(self) -> bytes:
        with self.lock:  # front ends may call back on another thread
            figure = self.draw(**{name: control.value for name, control in self.controls.items()})
            return figure.to_bytes("jpg", dpi=80, pil_kwargs={"quality": 80})

    def _redraw(self, change: Any) -> None:
        try:
            self.picture.value, self.alert.value = self._encoded(), ""
        except Exception as error:  # nobody would see an error raised in a callback
            said = html.escape(f"{type(error).__name__}: {error}")
            self.alert.value = f'<p role="alert" style="color: #b00020">{said}</p>'

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        bundle = dict(super()._repr_mimebundle_(**options) or {})
        bundle["text/plain"] = f"sliders: {', '.join(self.controls)} (they move where a kernel runs)"
        return bundle | {"image/jpeg": base64.b64encode(self.picture.value).decode()}


def explore(draw: Callable[..., Panel], **controls: ValueWidget) -> Explorer:
    """Show draw(**values) under sliders, drawn again whenever one of them moves.

    draw: gives a figures.Panel or Plot. controls: ipywidgets by the names of draw's arguments, each with its first value.
    """
    return Explorer(draw, controls)
