"""Figures: the panels that the lessons, the demo and the training log share.

Edges are drawn in the report's colours: red = predicted, green = true, blue = known.
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from edgeconnect_lite.inpainting import Inpainter

RED, GREEN, BLUE = (214, 39, 40), (44, 160, 44), (31, 119, 180)


class Panel(Figure):
    """A matplotlib figure of photos: notebooks store it as JPEG, a tenth of the size of a PNG."""

    def _repr_jpeg_(self) -> bytes:
        return self.to_bytes("jpg", dpi=80, pil_kwargs={"quality": 78})

    def to_bytes(self, format: str = "png", dpi: int = 110, **options) -> bytes:
        """The encoded picture. format: png, jpg or webp."""
        buffer = io.BytesIO()
        self.savefig(buffer, format=format, dpi=dpi, **options)
        return buffer.getvalue()


class Plot(Panel):
    """A matplotlib figure of curves and bars: notebooks store it as PNG, without the name of the software."""

    def _repr_jpeg_(self) -> None:  # type: ignore[override]
        return None

    def _repr_png_(self) -> bytes:
        return self.to_bytes("png", dpi=80, metadata={"Software": None})


def as_picture(array: np.ndarray) -> np.ndarray:
    """Anything that the pipeline makes as uint8 (H, W, 3): bool and [0, 1] maps (H, W) become gray, 1 = white."""
    array = np.asarray(array)
    if array.dtype != np.uint8:
        array = np.round(np.clip(array.astype(np.float32), 0, 1) * 255).astype(np.uint8)
    return np.repeat(array[..., None], 3, axis=2) if array.ndim == 2 else array


def tile(rows: Sequence[Sequence[np.ndarray]], gap: int = 2) -> np.ndarray:
    """Pictures of one size, row by row, on white with a gap between them. uint8 (H', W', 3)."""
    pictures = [[np.pad(as_picture(p), ((0, gap), (0, gap), (0, 0)), constant_values=255) for p in row] for row in rows]
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in pictures])
    return sheet[: sheet.shape[0] - gap, : sheet.shape[1] - gap]


def colour_edges(
    known: np.ndarray, inside: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int] = RED
) -> np.ndarray:
    """The edge map on white: known edges in blue, those in and near the hole in `colour`, the hole light gray.

    known, inside, mask: bool (H, W). Returns uint8 (H, W, 3).
    """
    picture = np.full((*mask.shape, 3), 255, np.uint8)
    picture[mask] = 232
    picture[known] = BLUE
    picture[inside & ~known] = colour
    return picture


def difference(result: np.ndarray, other: np.ndarray, gain: float = 3.0) -> np.ndarray:
    """Where two pictures differ: mean absolute difference over the channels, times gain, black = equal. (H, W, 3)."""
    gap = np.abs(result.astype(np.float32) - other).mean(axis=2) * gain
    return as_picture(np.clip(gap, 0, 255).astype(np.uint8))


def steps_of(inpainter: "Inpainter", photo: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Every step of the line for one photo, titled, in order; the last three are results to compare with the photo.

    photo: uint8 (H, W, 3). mask: bool (H, W), True = hole.
    """
    from edgeconnect_lite.edges import known_edges, true_edges
    from edgeconnect_lite.inpainting import THRESHOLD, composite
    from edgeconnect_lite.metrics import telea

    known, true = known_edges(photo, mask), true_edges(photo)
    predicted = inpainter.predict_edges(photo, mask) > THRESHOLD
    from_predicted, from_true = (inpainter.paint(photo, mask, edges) for edges in (predicted, true))
    return {
        "photo": photo,
        "mask (white = hole)": mask,
        "masked photo": np.where(mask[..., None], np.uint8(0), photo),
        "true edges": colour_edges(known, true & mask, mask, GREEN),
        "predicted edges": colour_edges(known, predicted & mask, mask, RED),
        "painted, predicted edges": from_predicted,
        "painted, true edges": from_true,
        "Telea": telea(photo, mask),
        "composite, predicted edges": composite(photo, from_predicted, mask),
        "composite, true edges": composite(photo, from_true, mask),
    }


def show(pictures: dict[str, np.ndarray], columns: int = 5, size: float = 1.9, kind: type[Panel] = Panel) -> Panel:
    """Titled pictures, row by row. pictures: title -> array, as for as_picture. size: inches of one picture's side.

    kind: Panel for photos, Plot for line drawings, which PNG stores better.
    """
    rows = -(-len(pictures) // columns)
    columns = min(columns, len(pictures))
    figure = kind(figsize=(columns * size, rows * (size + 0.25)), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, (title, picture) in zip(axes, pictures.items()):
        axis.imshow(as_picture(picture), interpolation="nearest")
        axis.set_title(title, fontsize=9)
    return figure
