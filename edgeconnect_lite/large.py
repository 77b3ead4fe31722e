"""Large photos: painted from coarse to fine, in windows of the networks' size, so that time and memory stay bounded.

What lies deep in a hole follows from the whole face, which the networks know at one scale; what lies near its border follows
from the known pixels beside it, at their full detail. So the whole hole is painted where it is small enough, and at each
octave from there only its rim is painted again, between the photo on one side and the coarser picture on the other. The
octaves: Burt and Adelson, "The Laplacian Pyramid as a Compact Image Code", IEEE Trans. Communications 1983.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from edgeconnect_lite.edges import blur_sigma

RIM = 8  # px from the hole's border, at each scale, that the networks paint better there than at half the scale
MOST = 100  # windows in one level; above it the finer levels are left out
WHOLE = 8  # a picture at the networks' scale is one window unless it is so many times as long as high


class Level(NamedTuple):
    """The photo at one scale, and what is to be done there."""

    photo: np.ndarray  # uint8 (H, W, 3), the hole 0
    mask: np.ndarray  # bool (H, W), True = hole
    wanted: np.ndarray  # bool (H, W): what is painted here, the whole hole or its rim
    windows: list[tuple[slice, slice]]  # of the networks' size; they hold all that is wanted
    sigma: float  # px, the blur before Canny that the networks know

    @property
    def is_whole(self) -> bool:
        """Whether one window shows all of it."""
        return self.windows == [(slice(0, self.mask.shape[0]), slice(0, self.mask.shape[1]))]


def pyramid(photo: np.ndarray, mask: np.ndarray, size: int) -> list[Level]:
    """The levels, from coarse to fine. photo: uint8 (H, W, 3). mask: bool (H, W). size: the networks', px.

    The first is the finest in which no hole pixel is deeper than RIM, or the one in which the shorter side is `size`. The
    last has the photo's own size, unless it would take more than MOST windows.
    """
    shapes, deepest = octaves(mask.shape, size), depth(mask).max()
    start = max(i for i, shape in enumerate(shapes) if i == 0 or deepest * shape[0] / mask.shape[0] <= RIM)
    first = _level(photo, mask, shapes[start], size)
    while len(first.windows) > MOST and start > 0:
        start -= 1
        first = _level(photo, mask, shapes[start], size)
    levels = [first]
    for shape in shapes[start + 1 :]:
        level = _level(photo, mask, shape, size, RIM)
        if len(level.windows) > MOST:
            break
        levels.append(level)
    return levels


def _level(photo: np.ndarray, mask: np.ndarray, shape: tuple[int, ...], size: int, rim: float = math.inf) -> Level:
    photo, mask = shrink(photo, mask, shape)
    wanted = mask if rim == math.inf else mask & (depth(mask) <= rim)
    places = windows(wanted, size)
    seen = (part.stop - part.start for part in places[0])
    return Level(photo, mask, wanted, places, blur_sigma(tuple(seen)))


def octaves(shape: tuple[int, ...], size: int) -> list[tuple[int, ...]]:
    """(height, width) of the levels: the shorter side is `size`, then doubles, and ends with the photo's own."""
    steps = math.ceil(math.log2(max(min(shape) / size, 1)) - 0.3)  # the last step may be 2.5, and is not below 1.2
    scales = [size * 2**i / min(shape) for i in range(steps)]
    return [*(tuple(max(1, round(side * scale)) for side in shape) for scale in scales), tuple(shape)]


def depth(mask: np.ndarray) -> np.ndarray:
    """How far each hole pixel is from the nearest known one, px; 0 outside. bool (H, W) -> float32 (H, W)."""
    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)


def shrink(photo: np.ndarray, mask: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Photo and mask at another size: each cell is the mean of its known pixels, or hole where most of it is hole.

    The hole is blanked first: what lies in it never matters.
    """
    blanked = np.where(mask[..., None], np.uint8(0), photo)
    if mask.shape == tuple(shape):
        return blanked, mask
    known = cv2.resize((~mask).astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)
    total = cv2.resize(blanked.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)
    mask = known < 0.5
    mean = total / np.maximum(known, 0.5)[..., None]
    return np.where(mask[..., None], 0, np.round(mean).clip(0, 255)).astype(np.uint8), mask


def windows(wanted: np.ndarray, size: int) -> list[tuple[slice, slice]]:
    """Where the networks look. The whole picture if it has their scale; else squares around the parts of what is wanted.

    wanted: bool (H, W). A part that leaves a quarter of a window free on all sides has one, with the part in its middle.
    """
    if min(wanted.shape) <= 1.25 * size and max(wanted.shape) <= WHOLE * size:
        return [(slice(0, wanted.shape[0]), slice(0, wanted.shape[1]))]
    margin = size // 4
    near = cv2.dilate(wanted.astype(np.uint8), np.ones((2 * margin + 1, 2 * margin + 1), np.uint8))
    found = []
    for left, top, width, height, _ in cv2.connectedComponentsWithStats(near)[2][1:]:
        rows = _spans(top, top + height, wanted.shape[0], size, margin)
        columns = _spans(left, left + width, wanted.shape[1], size, margin)
        found += [(row, column) for row in rows for column in columns if wanted[row, column].any()]
    corner = slice(0, min(size, wanted.shape[0])), slice(0, min(size, wanted.shape[1]))
    return found or [corner]


def _spans(start: int, end: int, length: int, size: int, overlap: int) -> list[slice]:
    """Intervals of `size` px in 0 ... length that cover start ... end, evenly placed, and overlap by at least `overlap`."""
    size = min(size, length)
    count = 1 + math.ceil(max(end - start - size, 0) / (size - overlap)) if size > overlap else 1
    middles = np.linspace(start + size / 2, end - size / 2, count) if count > 1 else [(start + end) / 2]
    starts = [int(np.clip(round(middle - size / 2), 0, length - size)) for middle in middles]
    return [slice(at, at + size) for at in dict.fromkeys(starts)]


def blend(level: Level, run: Callable[[tuple[slice, slice]], np.ndarray]) -> np.ndarray:
    """run(window) in all windows, (C, h, w) each, as one (C, H, W): where windows overlap, one fades into the other.

    It is 0 outside all windows, and just what run gave where one window is the whole.
    """
    if level.is_whole:
        return run(level.windows[0])
    total, weights = np.zeros((1, *level.mask.shape), np.float32), np.full(level.mask.shape, 1e-9, np.float32)
    for window in level.windows:
        found = run(window)
        weight = np.minimum.outer(*(_hat(side) for side in found.shape[1:]))
        if len(total) < len(found):
            total = np.zeros((len(found), *level.mask.shape), np.float32)
        total[:, *window] += weight * found
        weights[window] += weight
    total /= weights
    return total


def _hat(side: int) -> np.ndarray:
    """A window's weight along one side: 1 in the middle, falling over a quarter to nearly 0."""
    distance = np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5
    return np.minimum(distance / max(side / 4, 1), 1).astype(np.float32)


def cells(shape: tuple[int, ...], small_shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Row and column, in the smaller picture, of every pixel of the larger: small[cells(...)] enlarges small to shape."""
    rows, columns = (np.arange(side) * small // side for side, small in zip(shape, small_shape))
    return np.ix_(rows, columns)  # type: ignore[return-value]


def shrink_edges(edges: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A thin line stays, and thin: a cell holds an edge where a line crosses at least half of it. bool (H, W) -> bool shape."""
    rows, columns = cells(edges.shape, shape)
    y, x = edges.nonzero()
    count = np.bincount(rows[y, 0] * shape[1] + columns[0, x], minlength=shape[0] * shape[1]).reshape(shape)
    return count >= max(min(np.divide(edges.shape, shape)) / 2, 1)


def enlarge_edges(edges: np.ndarray, shape: tuple[int, ...], threshold: float) -> np.ndarray:
    """Edge probabilities at a larger size. What is above the threshold stays as thin and as connected as it was.

    edges: float32 (H, W) in [0, 1]. Each pixel above the threshold becomes one pixel, joined to those of its neighbours.
    """
    while edges.shape != tuple(shape):
        step = [side if side <= 2.5 * now else 2 * now for side, now in zip(shape, edges.shape)]
        edges = _enlarge_lines(edges, tuple(step), threshold)
    return edges


def _enlarge_lines(edges: np.ndarray, shape: tuple[int, ...], threshold: float) -> np.ndarray:
    large = edges[cells(shape, edges.shape)]
    large[large > threshold] = 0
    scale = np.divide(shape, edges.shape)
    at = lambda y, x: (((y + 0.5) * scale[0]).astype(int), ((x + 0.5) * scale[1]).astype(int))  # noqa: E731
    lines = np.pad(edges > threshold, 1)  # no neighbour lies beyond the border
    y, x = lines.nonzero()
    large[at(y - 1, x - 1)] = edges[y - 1, x - 1]
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        joined = lines[y + down, x + right]
        if down and right:  # one corner between the two joins them already; with both it is an area, which is filled
            joined &= lines[y + down, x] == lines[y, x + right]
        y1, x1 = y[joined] - 1, x[joined] - 1
        y2, x2 = y1 + down, x1 + right
        for half in (0, 1):  # with a distance of 3 px there are two pixels between
            between = tuple((a + b + half) // 2 for a, b in zip(at(y1, x1), at(y2, x2)))
            large[between] = np.minimum(edges[y1, x1], edges[y2, x2])
    return large
