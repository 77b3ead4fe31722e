"""Masks: the holes. Strokes in the manner of the Quick, Draw! Irregular Mask Dataset, a free-form brush, boxes, a folder.

A mask is bool (size, size), True = hole. Quick, Draw! Irregular Mask Dataset: Iskakov, "Semi-parametric Image
Inpainting", arXiv:1807.02855, section 4.1. The brush: Yu et al., "Free-Form Image Inpainting with Gated Convolution",
ICCV 2019, section 3.4 (written from the text).
"""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from edgeconnect_lite.edges import to_gray
from edgeconnect_lite.listing import BadPhoto, list_pictures, read_bytes
from edgeconnect_lite.photos import centre_square, decode_photo

DATA_SET_SIZE = 512  # px: the size at which the Quick, Draw! masks and their stroke widths are given
BINS: tuple[tuple[float, float], ...] = ((0.0, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.6))


class BadMask(ValueError):
    """A mask that cannot be read or has the wrong form; the message says what came and what was wanted."""


class BrokenMaskWarning(UserWarning):
    """A mask of a folder could not be read and was skipped; the message names it."""


class MaskPolarityWarning(UserWarning):
    """A folder of masks looks as if hole and known were the other way round."""


def as_mask(mask: np.ndarray, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Check an array that claims to be a mask. Returns bool (H, W), True = hole.

    mask: (H, W) or (H, W, 1), bool, or uint8 with >= 128 = hole. shape: the (H, W) of the photo that it is for.
    Raises BadMask on another shape or dtype, on uint8 that holds only 0 and 1, and on a mask that is all hole.
    """
    mask = np.asarray(mask)
    if mask.ndim == 3 and mask.shape[2] == 1:
        mask = mask[..., 0]
    if mask.ndim != 2 or mask.dtype not in (np.bool_, np.uint8):
        raise BadMask(f"mask is {mask.dtype} {mask.shape}; wanted (H, W) bool, or uint8 with >= 128 = hole")
    if shape is not None and mask.shape != tuple(shape):
        raise BadMask(
            f"mask is {mask.shape[1]} x {mask.shape[0]} and the photo {shape[1]} x {shape[0]}; wanted the same size"
        )
    if mask.dtype == np.uint8:
        if mask.size and mask.max() == 1:
            raise BadMask("mask is uint8 and holds only 0 and 1; wanted bool, or uint8 with >= 128 = hole")
        mask = mask >= 128
    if mask.size and mask.all():
        raise BadMask("mask is all hole: nothing of the photo is known; wanted at least one known pixel (0)")
    return mask


def read_mask(path: str | Path, invert: bool = False) -> np.ndarray:
    """Read a mask file as bool (H, W): white = hole; with invert black = hole, as the Quick Draw masks have it.

    What is transparent is known. Raises BadMask, naming the file.
    """
    try:
        return decode_mask(read_bytes(path), str(path), invert)
    except BadPhoto as error:
        raise BadMask(str(error)) from None


def decode_mask(data: bytes, name: str, invert: bool = False) -> np.ndarray:
    """The bytes of a mask file as bool (H, W), as read_mask has it. Raises BadPhoto, naming the file."""
    gray = to_gray(decode_photo(data, name, background=255 if invert else 0))
    return (gray < 128) if invert else (gray >= 128)


def centre_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Cut the largest centred square out of bool (H, W) and resize it: hole where at least half was. bool (size, size)."""
    return centre_square(mask.astype(np.uint8) * 255, size) >= 128


def _doodle(rng: np.random.Generator) -> np.ndarray:
    """One drawn line as (K, 2) points around the origin, about 1 across: line, zigzag, loop, polygon or scribble."""
    kind = rng.integers(5)
    if kind == 0:  # line
        points = rng.uniform(-0.5, 0.5, (2, 2))
    elif kind == 1:  # zigzag
        count = int(rng.integers(4, 9))
        points = np.stack(
            [np.linspace(-0.5, 0.5, count), np.tile([-0.5, 0.5], count)[:count] * rng.uniform(0.2, 0.8)], 1
        )
    elif kind == 2:  # loop: one or two turns of an ellipse that drifts
        turn = np.linspace(0, 2 * np.pi * rng.uniform(0.8, 2.0), 24)
        radius = rng.uniform(0.2, 0.5, 2)
        points = np.stack([np.cos(turn), np.sin(turn)], 1) * radius + np.linspace(0, 1, 24)[:, None] * rng.normal(
            0, 0.2, 2
        )
    elif kind == 3:  # closed polygon
        count = int(rng.integers(3, 7))
        angles = np.sort(rng.uniform(0, 2 * np.pi, count))
        points = np.stack([np.cos(angles), np.sin(angles)], 1) * rng.uniform(0.25, 0.5, (count, 1))
        points = np.concatenate([points, points[:1]])
    else:  # scribble: a random walk that keeps its direction for a while
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.7, 30))
        points = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1), 0) / 15
        points -= points.mean(0)
    turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return points @ rotation


def _draw_stroke(canvas: np.ndarray, rng: np.random.Generator) -> None:
    """Draw one doodle on a square canvas; it may reach over the border, as in a picture cropped at its centre."""
    side = len(canvas)
    extent = rng.uniform(0.35, 1.0) * side
    centre = rng.uniform(0, side, 2)
    width = rng.uniform(5, 15) * rng.uniform(1, 1.5) * side / DATA_SET_SIZE
    points = np.round(_doodle(rng) * extent + centre).astype(np.int32)
    cv2.polylines(canvas, [points], False, 255, max(1, round(width)))


def _draw_brush(canvas: np.ndarray, rng: np.random.Generator) -> None:
    """Draw one free-form brush line: 4 to 11 segments that turn back and forth, round joints, 12 to 40 px at 256."""
    side = len(canvas)
    scale = side / 256
    width = max(1, round(rng.uniform(12, 40) * scale))
    points, heading = [rng.uniform(0, side, 2)], rng.uniform(0, 2 * np.pi)
    for _ in range(rng.integers(4, 12)):
        heading += np.pi - rng.uniform(0.3, 1.2) * rng.choice([-1, 1])  # sharp turns, as one rubs with a brush
        step = rng.uniform(20, 60) * scale * np.array([np.cos(heading), np.sin(heading)])
        points.append(np.clip(points[-1] + step, 0, side - 1))
    line = np.round(np.array(points)).astype(np.int32)
    cv2.polylines(canvas, [line], False, 255, width)


def _shrink(canvas: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA) >= 128


def _drawn_mask(draw: Callable, count: int, rng: np.random.Generator, size: int, ratio: tuple[float, float] | None):
    """Draw `count` lines, or with a ratio as many as it takes: a line that would overshoot is taken back."""
    if size < 16:
        raise ValueError(f"size is {size}; wanted at least 16 px to draw a mask on")
    low, high = _check_ratio(ratio) if ratio else (0.0, 1.0)
    target = rng.uniform(low, 0.3 * low + 0.7 * high)
    while True:
        canvas = np.zeros((2 * size, 2 * size), np.uint8)  # drawn at twice the size, then halved: softer steps
        for _ in range(count if ratio is None else 200):
            before = canvas.copy() if ratio else canvas
            draw(canvas, rng)
            if ratio:
                share = cv2.countNonZero(canvas) / canvas.size
                if share > high:
                    canvas = before
                elif share >= target:
                    break
        mask = _shrink(canvas, size)
        if 0 < mask.sum() < mask.size and low <= mask.mean() <= high:
            return mask


def _check_ratio(ratio: tuple[float, float]) -> tuple[float, float]:
    low, high = ratio
    if not (0 <= low < high <= 1 and high - low >= 0.02 and low <= 0.75):
        raise ValueError(f"ratio is ({low}, {high}); wanted 0 <= low < high <= 1, at least 0.02 apart, low <= 0.75")
    return low, high


def stroke_mask(rng: np.random.Generator, size: int = 128, ratio: tuple[float, float] | None = None) -> np.ndarray:
    """A mask of drawn strokes as in the Quick, Draw! Irregular Mask Dataset. bool (size, size), True = hole.

    N(4, 2) strokes (at least 1), each U(5, 15) px x U(1, 1.5) wide at 512 px; never empty, never full.
    ratio: (low, high) share of the hole; strokes are then added until it is reached.
    """
    return _drawn_mask(_draw_stroke, max(1, round(rng.normal(4, 2))), rng, size, ratio)


def brush_mask(rng: np.random.Generator, size: int = 128, ratio: tuple[float, float] | None = None) -> np.ndarray:
    """A free-form brush mask: 1 to 3 lines of 4 to 11 segments, 12 to 40 px wide at 256 px. bool (size, size)."""
    return _drawn_mask(_draw_brush, int(rng.integers(1, 4)), rng, size, ratio)


def box_mask(rng: np.random.Generator, size: int = 128, ratio: tuple[float, float] | None = None) -> np.ndarray:
    """One box at a random place; its share of the picture is uniform in ratio, by default (0.1, 0.3). bool (size, size)."""
    low, high = _check_ratio(ratio or (0.1, 0.3))
    for _ in range(1000):
        share, aspect = rng.uniform(low, high), np.exp(rng.uniform(-0.5, 0.5))
        height, width = (int(np.clip(round(size * np.sqrt(share * a)), 1, size)) for a in (aspect, 1 / aspect))
        if height * width < size * size and low <= height * width / size**2 <= high:
            break
    else:
        raise ValueError(f"no box of whole pixels covers {low:.0%} to {high:.0%} of {size} x {size} px")
    top, left = rng.integers(size - height + 1), rng.integers(size - width + 1)
    mask = np.zeros((size, size), bool)
    mask[top : top + height, left : left + width] = True
    return mask


KINDS: dict[str, Callable[..., np.ndarray]] = {"strokes": stroke_mask, "brush": brush_mask, "boxes": box_mask}


class RandomMasks:
    """A source of generated masks: `masks.draw(rng)` gives bool (size, size).

    kind: one of KINDS or a tuple of them (one is drawn each time). ratio: None, or the (low, high) share of the hole.
    """

    def __init__(
        self, kind: str | tuple[str, ...] = "strokes", size: int = 128, ratio: tuple[float, float] | None = None
    ):
        self.kinds = (kind,) if isinstance(kind, str) else tuple(kind)
        unknown = [name for name in self.kinds if name not in KINDS]
        if unknown or not self.kinds:
            raise ValueError(f"kind is {kind!r}; wanted {', '.join(KINDS)}")
        self.size, self.ratio = size, ratio and _check_ratio(ratio)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return KINDS[self.kinds[rng.integers(len(self.kinds))]](rng, self.size, self.ratio)


class MaskFolder:
    """A folder tree, list or zip archive of mask files: `masks[i]` and `masks.draw(rng)` give bool (size, size), True = hole.

    White = hole; invert=True for sets that store the opposite, as the Quick, Draw! Irregular Mask Dataset does.
    A broken file is named in a BrokenMaskWarning and skipped by iteration and `draw`.
    Warns (MaskPolarityWarning) when most of a sample of masks is hole: then the polarity is likely the other one.
    """

    def __init__(self, path: str | Path, size: int = 128, invert: bool = False):
        try:
            self.paths = list_pictures(path)
        except BadPhoto as error:
            raise BadMask(str(error)) from None
        self.size, self.invert = size, invert
        few = np.linspace(0, len(self) - 1, min(len(self), 16)).astype(int)
        probe = [mask.mean() for i in few if (mask := self._read(i)) is not None]
        if probe and np.median(probe) > 0.6:
            warnings.warn(
                f"{path}: {np.median(probe):.0%} of a typical mask is hole with invert={invert}; if the holes are the "
                f"{'white' if invert else 'black'} part, pass invert={not invert}",
                MaskPolarityWarning,
                stacklevel=2,
            )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        try:
            mask = decode_mask(self.paths.read(index), str(self.paths[index]), self.invert)
        except BadPhoto as error:
            raise BadMask(str(error)) from None
        return centre_mask(mask, self.size)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (mask for i in range(len(self)) if (mask := self._read(i)) is not None)

    def _read(self, index: int) -> np.ndarray | None:
        try:
            return self[index]
        except BadMask as error:
            warnings.warn(f"skipped a broken mask: {error}", BrokenMaskWarning, stacklevel=3)
            return None

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One mask of the folder at random; a broken, empty or full one is drawn again, 100 times at most."""
        for _ in range(100):
            mask = self._read(int(rng.integers(len(self))))
            if mask is not None and 0 < mask.sum() < mask.size:
                return mask
        raise BadMask(f"{self.paths[0].parent}: 100 masks in a row were broken, empty or all hole")
