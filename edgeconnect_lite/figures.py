"""Figures: the panels that the lessons, the demo and the training log share.

Edges are drawn in the report's colours: red = predicted, green = true, blue = known.
"""

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from edgeconnect_lite.inpainting import Inpainter

RED, GREEN, BLUE = (214, 39, 40), (44, 160, 44), (31, 119, 180)
METHOD_COLOURS = {
    "telea": "gray", "navier_stokes": "tan", "predicted": "tab:red", "true": "tab:green", "none": "tab:blue",
}  # fmt: skip


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


def sheet(rows: Sequence[tuple[str, Sequence[np.ndarray]]], columns: Sequence[str], size: float = 1.4) -> Panel:
    """A table of pictures: (label, pictures) a row, a title over each column. size: inches of one picture's side."""
    figure = Panel(figsize=((len(columns) + 0.5) * size, len(rows) * size + 0.3), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for line, (label, pictures) in zip(axes, rows, strict=True):
        line[0].set_ylabel(label, fontsize=8)
        for axis, picture in zip(line, pictures, strict=True):
            axis.imshow(as_picture(picture), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title, fontsize=9)
    return figure


def plot_results(sets: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Plot:
    """Hole PSNR of each method, and exact F1 of the predicted edges against Telea's, with 95 % intervals.

    sets: title of a mask set -> [method][metric], as evaluation.summarize gives it and `evaluate --json` stores it.
    """
    figure = Plot(figsize=(11, 4), layout="constrained")
    methods = list(next(iter(sets.values())))
    others = cycle(("tab:purple", "tab:orange", "tab:cyan", "tab:pink", "tab:olive"))
    colours = {method: METHOD_COLOURS.get(method) or next(others) for method in methods}
    for axis, metric in zip(figure.subplots(1, 2), ("psnr", "f1")):
        lines = [method for method in methods if all(metric in figures[method] for figures in sets.values())]
        for place, line in enumerate(lines):
            values = np.array([figures[line][metric] for figures in sets.values()])
            ends = np.array([figures[line][f"{metric}_interval"] for figures in sets.values()])
            x = np.arange(len(sets)) + 0.7 / len(lines) * (place - (len(lines) - 1) / 2)
            reach = np.abs(ends.T - values)  # below and above
            axis.errorbar(x, values, reach, fmt="o", markersize=4, capsize=2, color=colours[line], label=line)
        axis.set_xticks(np.arange(len(sets)), list(sets), rotation=35, ha="right", fontsize=8)
        axis.grid(axis="y", alpha=0.3)
        axis.legend(fontsize=8)
        axis.set_ylabel("PSNR of the hole, dB" if metric == "psnr" else "F1 of edges in the hole, exact pixel")
    return figure
