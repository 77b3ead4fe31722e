"""Checkers for the lessons' exercises: check_*(your function) says "not attempted yet", "correct", or what is wrong.

A checker calls the function on small inputs of its own. The stub returns None: "not attempted yet" is printed and the
notebook goes on. A wrong answer raises WrongAnswer, which says what came and what was wanted.
"""

from collections.abc import Callable

import numpy as np

from edgeconnect_lite import edges, masks, metrics, photos
from edgeconnect_lite.samples import make_sample


class WrongAnswer(AssertionError):
    """An exercise's function gave something else than was wanted; the message says what."""


def _say(attempted: bool) -> None:
    print("correct" if attempted else "not attempted yet")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise WrongAnswer(message)


def _require_array(answer: object, shape: tuple[int, ...], dtype: np.dtype | type) -> None:
    came = f"{answer.dtype} {answer.shape}" if isinstance(answer, np.ndarray) else type(answer).__name__
    wanted = f"{np.dtype(dtype)} {shape}"
    _require(came == wanted, f"came: {came}; wanted: an array {wanted}")


def _face_and_mask(number: int = 3) -> tuple[np.ndarray, np.ndarray]:
    return photos.FacePhotos("test")[number], masks.stroke_mask(np.random.default_rng(number), ratio=(0.2, 0.3))


def check_mask_photo(mask_photo: Callable) -> None:
    """Lesson 00, easy. mask_photo(photo uint8 (H, W, 3), mask bool (H, W)) -> uint8 (H, W, 3), 0 in the hole."""
    photo, mask = _face_and_mask()
    before = photo.copy()
    answer = mask_photo(photo, mask)
    if answer is None:
        return _say(False)
    _require(np.array_equal(photo, before), "your function changed the photo that it was given; wanted a new array")
    _require_array(answer, photo.shape, np.uint8)
    if not answer[~mask].any() and np.array_equal(answer[mask], photo[mask]):
        raise WrongAnswer("the known part is 0 and the hole is kept: the mask is the wrong way round (True = hole)")
    _require(not answer[mask].any(), f"the hole holds values up to {answer[mask].max()}; wanted 0 everywhere in it")
    _require(np.array_equal(answer[~mask], photo[~mask]), "known pixels differ from the photo; wanted them unchanged")
    _say(True)


def check_edge_effect(edge_effect: Callable) -> None:
    """Lesson 00, medium. edge_effect(result, other, mask) -> mean absolute difference over the hole, in gray levels."""
    photo, mask = _face_and_mask()
    other = np.where(mask[..., None], photo // 2, photo)
    answer = edge_effect(photo, other, mask)
    if answer is None:
        return _say(False)
    _require(isinstance(answer, int | float | np.number), f"came: {type(answer).__name__}; wanted: one number")
    wanted = metrics.edge_effect(photo, other, mask)
    gap = np.abs(photo.astype(float) - other)
    if np.isclose(answer, gap.mean()):
        raise WrongAnswer(
            f"came: {answer:.2f}, the mean over the whole picture; wanted {wanted:.2f}, over the hole alone"
        )
    brighter = edge_effect(other, photo, mask)
    _require(bool(np.isclose(answer, wanted)), f"came: {answer:.2f}; wanted {wanted:.2f}")
    _require(
        bool(np.isclose(brighter, wanted)),
        f"came: {brighter:.2f} with the pictures swapped; wanted {wanted:.2f} both ways (uint8 wraps around below 0)",
    )
    _say(True)


def check_redraw(redraw: Callable) -> None:
    """Lesson 00, hard. redraw(edges bool, stroke bool, mask bool) -> bool: erase in the hole, then draw the stroke there."""
    photo, mask = _face_and_mask()
    before = edges.true_edges(photo)
    given = before.copy()
    stroke = np.zeros_like(mask)
    stroke[64, 10:118] = True
    answer = redraw(given, stroke, mask)
    if answer is None:
        return _say(False)
    _require_array(answer, mask.shape, bool)
    _require(np.array_equal(given, before), "your function changed the edges that it was given; wanted a new array")
    _require(np.array_equal(answer[~mask], before[~mask]), "edges outside the hole changed; wanted them as they were")
    _require(
        bool(answer[mask & stroke].all()), "the stroke is not whole inside the hole; wanted every pixel of it there"
    )
    extra = int((answer & mask & ~stroke).sum())
    _require(extra == 0, f"{extra} old edge pixels are left in the hole; wanted the stroke alone there")
    _say(True)


def check_read_quick_draw(read_quick_draw: Callable) -> None:
    """Lesson 01, easy. read_quick_draw(picture uint8 (H, W), black = hole) -> bool (H, W), True = hole."""
    picture = np.full((4, 6), 255, np.uint8)
    picture[1:3, 2:5] = 0
    picture[0, 0] = 100  # gray from a lossy file: still nearer to black
    answer = read_quick_draw(picture)
    if answer is None:
        return _say(False)
    _require_array(answer, picture.shape, bool)
    wanted = picture < 128
    if np.array_equal(answer, ~wanted):
        raise WrongAnswer("known and hole are the wrong way round: in these files black = hole")
    _require(np.array_equal(answer, wanted), f"{int((answer != wanted).sum())} pixels differ; wanted hole where < 128")
    _say(True)


def check_noised_edges(noised: Callable) -> None:
    """Lesson 01, medium. noised(edges float (H, W) of 0 and 1, rng) -> float: 0 in [0, 0.2], 1 in [0.8, 1]."""
    given = np.zeros((64, 64))
    given[::3] = 1
    answer = noised(given.copy(), np.random.default_rng(0))
    if answer is None:
        return _say(False)
    _require(isinstance(answer, np.ndarray) and answer.shape == given.shape, f"wanted an array {given.shape}")
    zeros, ones = answer[given == 0], answer[given == 1]
    for name, values, low, high in (("zeros", zeros, 0, 0.2), ("ones", ones, 0.8, 1)):
        _require(
            bool((values >= low).all() and (values <= high).all()),
            f"{name} lie in [{values.min():.2f}, {values.max():.2f}]; wanted [{low}, {high}]",
        )
    _require(
        zeros.std() > 0.03, f"the noise on zeros has a spread of {zeros.std():.3f}; wanted a normal of 0.1, folded"
    )
    heaped = np.mean((zeros == 0) | (zeros == 0.2))
    _require(heaped < 0.02, f"{heaped:.0%} of the zeros sit on a bound: clipped; wanted values beyond it drawn again")
    _require(zeros.mean() < 0.09, f"zeros have mean {zeros.mean():.3f}: uniform? wanted a normal, folded (about 0.07)")
    again = noised(given.copy(), np.random.default_rng(0))
    _require(np.array_equal(answer, again), "the same rng gave another result; wanted every draw taken from rng")
    _say(True)


def check_edge_input(edge_input: Callable) -> None:
    """Lesson 01, hard. edge_input(photo uint8 (H, W, 3), mask bool (H, W)) -> float32 (3, H, W), stage 1's input."""
    photo, mask = _face_and_mask()
    answer = edge_input(photo, mask)
    if answer is None:
        return _say(False)
    _require_array(answer, (3, *mask.shape), np.float32)
    sample = make_sample(photo, mask)
    wanted = {
        "masked gray": (sample.gray * (1 - sample.mask))[0].numpy(),
        "known edges": sample.known_edges[0].numpy(),
        "mask": sample.mask[0].numpy(),
    }
    noise = np.random.default_rng(1).integers(0, 256, photo.shape, dtype=np.uint8)
    noisy = edge_input(np.where(mask[..., None], noise, photo), mask)
    for i, (name, channel) in enumerate(wanted.items()):
        _require(
            np.array_equal(answer[i], noisy[i]),
            f"channel {i} ({name}) changes with what lies in the hole: no look into it",
        )
        _require(
            np.allclose(answer[i], channel, atol=1e-6),
            f"channel {i}: {int((~np.isclose(answer[i], channel, atol=1e-6)).sum())} pixels differ from the {name} in [0, 1]",
        )
    _say(True)
