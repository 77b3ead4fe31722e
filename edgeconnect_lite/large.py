"""Large photos: painted from coarse to fine, in windows of the networks' size, so that time and memory stay bounded.

What lies deep in a hole follows from the whole face, which the networks know at one scale; what lies near its border follows
from the known pixels beside it, at their full detail. So the whole hole is painted where it is small enough, and at each
octave from there only its rim is painted again, between the photo on one side and the coarser picture on the other. The
octaves: Burt and Adelson, "The Laplacian Pyramid as a Compact Image Code", IEEE Trans. Communications 1983.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np

RIM = 8  # px from the hole's border, at each scale, that the networks paint better there than at half the scale
MOST = 160  # windows in one level; above it the finer levels are left out
WHOLE = 8  # a picture at the networks' scale is one window unless it is so many times as long as high


class Level(NamedTuple):
    """The photo at one scale, and what is to be done there."""

    photo: np.ndarray  # uint8 (H, W, 3), the hole 0
    mask: np.ndarray  # bool (H, W), True = hole
    wanted: np.ndarray  # bool (H, W): what is painted here, the whole hole or its rim
    windows: list[tuple[slice, slice]]  # of the networks' size; they hold all that is wanted


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
    return Level(photo, mask, wanted, windows(wanted, size))


def octaves(shape: tuple[int, ...], size: int) -> list[tuple[int, ...]]:
    """(height, width) of the levels: the shorter side is `size`, then doubles, and ends with the photo's own."""
    steps = math.ceil(math.log2(max(min(shape) / size, 1)) - 0.3)  # the last step may be 2.5, and is not below 1.2
    scales = [size * 2**i / min(shape) for i in range(steps)]
    return [*(tuple(max(1, round(side * scale)) for side in shape) for scale in scales), tuple(shape)]


def depth(mask: np.ndarray) -> np.ndarray:
    """How far each hole pixel is from the nearest known one, px; 0 outside. bool (H, W) -> float32 (H, W)."""
    return cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, 3)


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
    near = cv2.dilate(wanted.view(np.uint8), np.ones((2 * margin + 1, 2 * margin + 1), np.uint8))
    found = []
    for left, top, width, height, _ in cv2.connectedComponentsWithStats(near)[2][1:]:
        rows = _spans(top, top + height, wanted.shape[0], size, margin)
        columns = _spans(left, left + width, wanted.shape[1], size, margin)
        found += [(row, column) for row in rows for column in columns if wanted[row, column].any()]
    return found


def _spans(start: int, end: int, length: int, size: int, overlap: int) -> list[slice]:
    """Intervals of `size` px in 0 ... length that cover start ... end, evenly placed, and overlap by at least `overlap`."""
    size = min(size, length)
    count = 1 + math.ceil(max(end - start - size, 0) / (size - overlap)) if size > overlap else 1
    middles = np.linspace(start + size / 2, end - size / 2, count) if count > 1 else [(start + end) / 2]
    starts = [int(np.clip(round(middle - size / 2), 0, length - size)) for middle in middles]
    return [slice(at, at + size) for at in dict.fromkeys(starts)]


def blend(
    shape: tuple[int, ...], places: list[tuple[slice, slice]], run: Callable[[tuple[slice, slice]], np.ndarray]
) -> np.ndarray:
    """run(window) in all windows, (C, h, w) each, as one (C, H, W); where windows overlap one passes smoothly into the other.

    Outside all windows it is NaN.
    """
    if len(places) == 1 and all(part == slice(0, side) for part, side in zip(places[0], shape)):
        return run(places[0])
    total, weights = None, np.zeros(shape, np.float32)
    for place in places:
        found = run(place)
        weight = np.minimum.outer(*(_hat(side) for side in found.shape[1:]))
        total = np.zeros((len(found), *shape), np.float32) if total is None else total
        total[:, *place] += weight * found
        weights[place] += weight
    if total is None:
        return np.full((1, *shape), np.nan, np.float32)
    with np.errstate(invalid="ignore"):
        return np.divide(total, weights, out=total)


def _hat(side: int) -> np.ndarray:
    """A window's weight along one side: 1 in the middle, falling over a quarter to nearly 0."""
    distance = np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5
    return np.minimum(distance / max(side / 4, 1), 1).astype(np.float32)


def cells(shape: tuple[int, ...], small_shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Row and column, in the smaller picture, of every pixel of the larger: small[cells(...)] enlarges small to shape."""
    rows, columns = (np.arange(side) * small // side for side, small in zip(shape, small_shape))
    return np.ix_(rows, columns)  # type: ignore[return-value]


def shrink_edges(edges: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A cell holds an edge where any of its pixels does, so that a thin line survives. bool (H, W) -> bool shape."""
    small, (rows, columns) = np.zeros(shape, bool), cells(edges.shape, shape)
    y, x = edges.nonzero()
    small[rows[y, 0], columns[0, x]] = True
    return small


def enlarge_edges(edges: np.ndarray, shape: tuple[int, ...], threshold: float) -> np.ndarray:
    """Edge probabilities at up to 2.5 times the size. What is above the threshold stays as thin and connected as it was.

    edges: float32 (H, W) in [0, 1]. Each pixel above the threshold becomes one pixel, joined to its neighbours' ones.
    """
    if edges.shape == tuple(shape):
        return edges
    large = np.minimum(edges[cells(shape, edges.shape)], np.float32(threshold))
    y, x = (edges > threshold).nonzero()
    scale = np.divide(shape, edges.shape)
    at = lambda y, x: (((y + 0.5) * scale[0]).astype(int), ((x + 0.5) * scale[1]).astype(int))  # noqa: E731
    large[at(y, x)] = edges[y, x]
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        inside = (y + down < edges.shape[0]) & (x + right >= 0) & (x + right < edges.shape[1])
        y1, x1 = y[inside], x[inside]
        y2, x2 = y1 + down, x1 + right
        joined = edges[y2, x2] > threshold
        if down and right:  # a step along both axes is already there where a corner is
            joined &= (edges[y1, x2] <= threshold) & (edges[y2, x1] <= threshold)
        y1, x1, y2, x2 = (index[joined] for index in (y1, x1, y2, x2))
        lower = np.minimum(edges[y1, x1], edges[y2, x2])
        for round_up in (0, 1):
            between = tuple((a + b + round_up) // 2 for a, b in zip(at(y1, x1), at(y2, x2)))
            large[between] = np.maximum(large[between], lower)
    return large
