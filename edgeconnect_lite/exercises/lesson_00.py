"""Checkers of lesson 00: the parts of the line, by hand."""

from collections.abc import Callable

import numpy as np

from edgeconnect_lite import edges, metrics
from edgeconnect_lite.exercises.checking import WrongAnswer, face_and_mask, require, require_array, say


def check_mask_photo(mask_photo: Callable) -> None:
    """Lesson 00, easy. mask_photo(photo uint8 (H, W, 3), mask bool (H, W)) -> uint8 (H, W, 3), 0 in the hole."""
    photo, mask = face_and_mask()
    before = photo.copy()
    answer = mask_photo(photo, mask)
    if answer is None:
        return say(False)
    require(np.array_equal(photo, before), "your function changed the photo that it was given; wanted a new array")
    require_array(answer, photo.shape, np.uint8)
    if not answer[~mask].any() and np.array_equal(answer[mask], photo[mask]):
        raise WrongAnswer("the known part is 0 and the hole is kept: the mask is the wrong way round (True = hole)")
    require(not answer[mask].any(), f"the hole holds values up to {answer[mask].max()}; wanted 0 everywhere in it")
    require(np.array_equal(answer[~mask], photo[~mask]), "known pixels differ from the photo; wanted them unchanged")
    say(True)


def check_edge_effect(edge_effect: Callable) -> None:
    """Lesson 00, medium. edge_effect(result, other, mask) -> mean absolute difference over the hole, in gray levels."""
    photo, mask = face_and_mask()
    other = np.where(mask[..., None], photo // 2, photo)
    answer = edge_effect(photo, other, mask)
    if answer is None:
        return say(False)
    require(isinstance(answer, int | float | np.number), f"came: {type(answer).__name__}; wanted: one number")
    wanted = metrics.edge_effect(photo, other, mask)
    gap = np.abs(photo.astype(float) - other)
    if np.isclose(answer, gap.mean()):
        raise WrongAnswer(
            f"came: {answer:.2f}, the mean over the whole picture; wanted {wanted:.2f}, over the hole alone"
        )
    brighter = edge_effect(other, photo, mask)
    require(bool(np.isclose(answer, wanted)), f"came: {answer:.2f}; wanted {wanted:.2f}")
    require(
        bool(np.isclose(brighter, wanted)),
        f"came: {brighter:.2f} with the pictures swapped; wanted {wanted:.2f} both ways (uint8 wraps around below 0)",
    )
    say(True)


def check_redraw(redraw: Callable) -> None:
    """Lesson 00, hard. redraw(edges bool, stroke bool, mask bool) -> bool: erase in the hole, then draw the stroke there."""
    photo, mask = face_and_mask()
    before = edges.true_edges(photo)
    given = before.copy()
    stroke = np.zeros_like(mask)
    stroke[64, 10:118] = True
    answer = redraw(given, stroke, mask)
    if answer is None:
        return say(False)
    require_array(answer, mask.shape, bool)
    require(np.array_equal(given, before), "your function changed the edges that it was given; wanted a new array")
    require(np.array_equal(answer[~mask], before[~mask]), "edges outside the hole changed; wanted them as they were")
    require(
        bool(answer[mask & stroke].all()), "the stroke is not whole inside the hole; wanted every pixel of it there"
    )
    extra = int((answer & mask & ~stroke).sum())
    require(extra == 0, f"{extra} old edge pixels are left in the hole; wanted the stroke alone there")
    say(True)
