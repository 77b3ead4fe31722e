"""Checkers of lesson 01: masks, the input of stage 1, noised edges."""

from collections.abc import Callable

import numpy as np

from edgeconnect_lite.edges import fill_from_known, near_hole, to_gray, true_edges
from edgeconnect_lite.exercises.checking import WrongAnswer, face_and_mask, require, require_array, say
from edgeconnect_lite.samples import make_sample


def check_read_quick_draw(read_quick_draw: Callable) -> None:
    """Lesson 01, easy. read_quick_draw(picture uint8 (H, W), black = hole) -> bool (H, W), True = hole."""
    picture = np.full((4, 6), 255, np.uint8)
    picture[1:3, 2:5] = 0
    picture[0, 0] = 100  # gray from a lossy file: still nearer to black
    answer = read_quick_draw(picture)
    if answer is None:
        return say(False)
    require_array(answer, picture.shape, bool)
    wanted = picture < 128
    if np.array_equal(answer, ~wanted):
        raise WrongAnswer("known and hole are the wrong way round: in these files black = hole")
    require(np.array_equal(answer, wanted), f"{int((answer != wanted).sum())} pixels differ; wanted hole where < 128")
    say(True)


def check_edge_input(edge_input: Callable) -> None:
    """Lesson 01, medium. edge_input(photo uint8 (H, W, 3), mask bool (H, W)) -> float32 (3, H, W), stage 1's input."""
    photo, mask = face_and_mask()
    answer = edge_input(photo, mask)
    if answer is None:
        return say(False)
    require_array(answer, (3, *mask.shape), np.float32)
    sample = make_sample(photo, mask)
    wanted = {
        "masked gray": (sample.gray * (1 - sample.mask))[0].numpy(),
        "known edges": sample.known_edges[0].numpy(),
        "mask": sample.mask[0].numpy(),
    }
    noise = np.random.default_rng(1).integers(0, 256, photo.shape, dtype=np.uint8)
    noisy = edge_input(np.where(mask[..., None], noise, photo), mask)
    for i, (name, channel) in enumerate(wanted.items()):
        require(
            np.array_equal(answer[i], noisy[i]),
            f"channel {i} ({name}) changes with what lies in the hole: no look into it",
        )
        if i == 1:
            _require_no_usual_mistake(answer[1], photo, mask)
        require(
            np.allclose(answer[i], channel, atol=1e-6),
            f"channel {i}: {int((~np.isclose(answer[i], channel, atol=1e-6)).sum())} pixels differ from the {name} in [0, 1]",
        )
    say(True)


def _require_no_usual_mistake(channel: np.ndarray, photo: np.ndarray, mask: np.ndarray) -> None:
    gray = to_gray(photo)
    for erased in (~near_hole(mask), ~mask, np.ones_like(mask)):
        blanked = true_edges(np.where(mask, np.uint8(0), gray)) & erased
        if np.array_equal(channel, blanked):
            raise WrongAnswer(
                "channel 1: Canny saw the black hole; fill it from known pixels first, or use known_edges"
            )
    if np.array_equal(channel, true_edges(fill_from_known(gray, mask)) & ~mask):
        raise WrongAnswer("channel 1: edges within 2 px of the hole are guesses too; wanted them erased")


def check_noised_edges(noised: Callable) -> None:
    """Lesson 01, hard. noised(edges float (H, W) of 0 and 1, rng) -> float: 0 in [0, 0.2], 1 in [0.8, 1]."""
    given = np.zeros((64, 64))
    given[::3] = 1
    answer = noised(given.copy(), np.random.default_rng(0))
    if answer is None:
        return say(False)
    require(isinstance(answer, np.ndarray) and answer.shape == given.shape, f"wanted an array {given.shape}")
    zeros, ones = answer[given == 0], answer[given == 1]
    for name, values, low, high in (("zeros", zeros, 0, 0.2), ("ones", ones, 0.8, 1)):
        require(
            bool((values >= low).all() and (values <= high).all()),
            f"{name} lie in [{values.min():.2f}, {values.max():.2f}]; wanted [{low}, {high}]",
        )
    require(zeros.std() > 0.03, f"the noise on zeros has a spread of {zeros.std():.3f}; wanted a normal of 0.1, folded")
    heaped = np.mean((zeros == 0) | (zeros == 0.2))
    require(heaped < 0.02, f"{heaped:.0%} of the zeros sit on a bound: clipped; wanted values beyond it drawn again")
    require(zeros.mean() < 0.09, f"zeros have mean {zeros.mean():.3f}: uniform? wanted a normal, folded (about 0.07)")
    again = noised(given.copy(), np.random.default_rng(0))
    require(np.array_equal(answer, again), "the same rng gave another result; wanted every draw taken from rng")
    another = noised(given.copy(), np.random.default_rng(1))
    require(not np.array_equal(answer, another), "another rng gave the same result; wanted every draw taken from rng")
    say(True)
