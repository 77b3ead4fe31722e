"""Strokes: what a person did to the hole and its edges, as a list that can be replayed. No widget, no network here.

A stroke is a dict that JSON can hold:

    {"tool": "pen" | "eraser" | "mask" | "unmask", "points": [[x, y], ...], "radius": 0}    a line through the points
    {"tool": "clear"}                     no edge in the hole, predicted ones neither
    {"tool": "reset"}                     the prediction again, nothing drawn or erased
    {"tool": "edges" | "hole", "bits": ...}   a whole map, from an imported picture (pack_bits)

Edges are drawn and erased in the hole and within 2 px of it (edges.near_hole), where they are predicted, not known.
x counts columns, y rows, both whole pixels; radius is in px, one number or one a point (pen pressure); 0 draws one pixel.
editor.js holds the same rules: both sides paint the same pixels, which the tests compare.
"""

import base64
import binascii
import copy
from collections.abc import Iterable
from typing import Any, NamedTuple

import cv2
import numpy as np

from edgeconnect_lite.edges import near_hole

UNTOUCHED, DRAWN, ERASED = 0, 1, 2  # what a person did to a pixel's edge
PATHS = ("pen", "eraser", "mask", "unmask")
MAPS = ("edges", "hole")
TOOLS = (*PATHS, "clear", "reset", *MAPS)
MAX_POINTS, MAX_RADIUS = 20_000, 64
MAX_LENGTH = 1 << 20  # px of one path, more than a hand draws: a few points may lie far apart
PIECE = 256  # px of a path that are drawn at once, in a frame of their own: no work where the brush does not come


class BadStroke(ValueError):
    """A stroke that cannot be drawn; the message says what came and what was wanted."""


class Layers(NamedTuple):
    """What the strokes change."""

    mask: np.ndarray  # bool (H, W), True = hole
    touched: np.ndarray  # uint8 (H, W): UNTOUCHED, DRAWN, ERASED; counts near the hole alone


def check_stroke(stroke: Any, shape: tuple[int, int]) -> dict[str, Any]:
    """A copy of a stroke for a picture of shape (H, W), with nothing in it but what is known. Raises BadStroke."""
    if not isinstance(stroke, dict) or stroke.get("tool") not in TOOLS:
        given = stroke.get("tool") if isinstance(stroke, dict) else type(stroke).__name__
        raise BadStroke(f"a stroke's tool is {str(given)[:40]!r}; wanted one of {', '.join(TOOLS)}")
    tool = stroke["tool"]
    if tool in MAPS:
        unpack_bits(stroke.get("bits"), shape)
        return {"tool": tool, "bits": stroke["bits"]}
    if tool not in PATHS:
        return {"tool": tool}
    points = _whole_numbers(stroke.get("points"), "points")
    if points.ndim != 2 or points.shape[1] != 2 or not 1 <= len(points) <= MAX_POINTS:
        raise BadStroke(f"a stroke's points have shape {points.shape}; wanted (N, 2) with N of 1 to {MAX_POINTS}")
    reach = max(shape)
    if points.min() < -reach or points.max() > 2 * reach:
        raise BadStroke(
            f"a stroke's points go from {points.min()} to {points.max()}; wanted {-reach} to {2 * reach} for a picture of "
            f"{shape[0]} x {shape[1]}"
        )
    length = int(np.abs(np.diff(points, axis=0)).max(axis=1, initial=0).sum())
    if length > MAX_LENGTH:
        raise BadStroke(f"a stroke is {length} px long; wanted at most {MAX_LENGTH}")
    radius = _whole_numbers(stroke.get("radius", 0), "radius")
    if radius.shape not in ((), (len(points),)) or radius.min() < 0 or radius.max() > MAX_RADIUS:
        raise BadStroke(
            f"a stroke's radius is {str(stroke.get('radius'))[:40]}; wanted a whole number of 0 to {MAX_RADIUS}, or one a point"
        )
    return {"tool": tool, "points": points.tolist(), "radius": radius.tolist()}


def _whole_numbers(given: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(given)
    except ValueError:  # rows of different lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "iu":
        raise BadStroke(f"a stroke's {name} are {str(given)[:40]}; wanted whole numbers")
    return array.astype(np.int64)


def pack_bits(plane: np.ndarray) -> str:
    """A bool map (H, W), row by row, eight pixels a byte, the first in the highest bit; in base64."""
    return base64.b64encode(np.packbits(plane.ravel()).tobytes()).decode()


def unpack_bits(bits: Any, shape: tuple[int, int]) -> np.ndarray:
    """The map (H, W) that pack_bits packed. Raises BadStroke."""
    count = shape[0] * shape[1]
    try:
        packed = base64.b64decode(bits, validate=True)
    except (TypeError, ValueError, binascii.Error):
        packed = b""
    if len(packed) != (count + 7) // 8:
        raise BadStroke(f"a map has {len(packed)} bytes; wanted {(count + 7) // 8} for {shape[0]} x {shape[1]} pixels")
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=count).reshape(shape) > 0


def path(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pixels of the straight lines between successive points, and which point each one leads to.

    points: (N, 2). Returns (M, 2), (M,). A line has max(|dx|, |dy|) steps; positions halfway go to the larger number.
    """
    pixels, ends = [points[:1]], [np.zeros(1, int)]
    for i in range(1, len(points)):
        delta = points[i] - points[i - 1]
        steps = max(int(np.abs(delta).max()), 1)
        along = np.arange(1, steps + 1)[:, None]
        pixels.append(points[i - 1] + (2 * along * delta + steps) // (2 * steps))
        ends.append(np.full(steps, i))
    return np.concatenate(pixels), np.concatenate(ends)


def raster(points: Iterable, radius: int | list[int], shape: tuple[int, int]) -> np.ndarray:
    """The pixels that a round brush covers along a path: those within radius + 1/4 px of its pixels. Returns bool (H, W)."""
    height, width = shape
    pixels, ends = path(np.asarray(list(points), np.int64))
    radii = np.broadcast_to(np.asarray(radius), (int(ends[-1]) + 1,))[ends]
    covered = np.zeros(shape, bool)
    changes = np.flatnonzero(np.diff(radii)) + 1
    for part in np.split(np.arange(len(radii)), np.union1d(changes, np.arange(PIECE, len(radii), PIECE))):
        r, (x, y) = int(radii[part[0]]), pixels[part].T
        near = (x >= -r) & (x < width + r) & (y >= -r) & (y < height + r)  # what lies farther out covers nothing
        if not near.any():
            continue
        x, y = x[near], y[near]
        left, top = x.min() - r, y.min() - r
        elsewhere = np.ones((y.max() + r + 1 - top, x.max() + r + 1 - left), np.uint8)
        elsewhere[y - top, x - left] = 0
        rows, columns = slice(max(top, 0), min(y.max() + r + 1, height)), slice(max(left, 0), min(x.max() + r + 1, width))
        seen = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        covered[rows, columns] |= cv2.distanceTransform(elsewhere, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[seen] < r + 0.25
    return covered


def apply_stroke(layers: Layers, stroke: dict[str, Any]) -> Layers:
    """The layers after one checked stroke. Edges are drawn and erased near the hole alone."""
    mask, touched = layers
    tool, shape = stroke["tool"], mask.shape
    if tool in PATHS:
        covered = raster(stroke["points"], stroke["radius"], shape)
        if tool in ("mask", "unmask"):
            return Layers(mask | covered if tool == "mask" else mask & ~covered, touched)
        return Layers(mask, np.where(covered & near_hole(mask), np.uint8(DRAWN if tool == "pen" else ERASED), touched))
    if tool == "clear":
        return Layers(mask, np.where(near_hole(mask), np.uint8(ERASED), touched))
    if tool == "reset":
        return Layers(mask, np.zeros_like(touched))
    given = unpack_bits(stroke["bits"], shape)
    if tool == "hole":
        return Layers(given, touched)
    return Layers(mask, np.where(near_hole(mask), np.where(given, np.uint8(DRAWN), np.uint8(ERASED)), touched))


class History:
    """Strokes on top of a first mask, with undo and redo across both layers.

    The layers are kept after each of the last RECENT strokes (fewer for large pictures) and after every APARTth; what lies
    between is drawn again.
    """

    RECENT, APART = 64, 50
    ROOM = 1 << 20  # px of all recent layers together, or a few layers

    def __init__(self, mask: np.ndarray):
        self.strokes: list[dict[str, Any]] = []  # done ones, then undone ones
        self.position = 0  # how many are done
        self._kept = {0: Layers(mask.copy(), np.zeros(mask.shape, np.uint8))}  # after so many strokes

    @property
    def first(self) -> Layers:
        return self._kept[0]

    @property
    def layers(self) -> Layers:
        if self.position not in self._kept:
            start = max(n for n in self._kept if n < self.position)
            layers = self._kept[start]
            for stroke in self.strokes[start : self.position]:
                layers = apply_stroke(layers, stroke)
            self._kept[self.position] = layers
        return self._kept[self.position]

    @property
    def done(self) -> list[dict[str, Any]]:
        """Copies of the strokes that are in force."""
        return copy.deepcopy(self.strokes[: self.position])

    def do(self, stroke: Any) -> dict[str, Any]:
        """Check a stroke and draw it; undone ones are forgotten. Returns it as it was checked. Raises BadStroke."""
        stroke = check_stroke(stroke, self.first.mask.shape)
        after = apply_stroke(self.layers, stroke)
        del self.strokes[self.position :]
        self.strokes.append(stroke)
        self.position += 1
        last, recent = self.position, max(4, min(self.RECENT, self.ROOM // max(1, self.first.mask.size)))
        kept = (n for n in self._kept if n < last and (n > last - recent or n % self.APART == 0))
        self._kept = {n: self._kept[n] for n in kept} | {last: after}
        return stroke

    def undo(self) -> bool:
        """Take the last stroke back. Returns whether there was one."""
        self.position -= (can := self.position > 0)
        return can

    def redo(self) -> bool:
        """Draw the last undone stroke again. Returns whether there was one."""
        self.position += (can := self.position < len(self.strokes))
        return can


def edited_edges(base: np.ndarray, layers: Layers) -> np.ndarray:
    """The edge map: base, and on top of it what a person drew and erased near the hole. All (H, W). Returns bool."""
    touched = np.where(near_hole(layers.mask), layers.touched, UNTOUCHED)
    return np.where(touched == DRAWN, True, np.where(touched == ERASED, False, base))
