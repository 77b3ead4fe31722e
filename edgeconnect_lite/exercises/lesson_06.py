"""Checkers of lesson 06: recall pooled over a set, the edge weight with the best expected F1, thinning along one direction."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from edgeconnect_lite.exercises.checking import WrongAnswer, close, require, require_tensor, say


def check_pooled_recall(pooled_recall: Callable) -> None:
    """Lesson 06, easy. pooled_recall(predicted, true, mask), each bool (N, H, W) -> recall in the hole over all N, a float."""
    rng = np.random.default_rng(0)
    predicted, true = rng.random((2, 3, 9, 11)) < np.array([0.4, 0.3]).reshape(2, 1, 1, 1)
    predicted[1] |= true[1]  # the second picture is found whole, and its hole is small
    mask = rng.random((3, 9, 11)) < np.array([0.8, 0.3, 0.6]).reshape(3, 1, 1)
    answer = pooled_recall(predicted.copy(), true.copy(), mask.copy())
    if answer is None:
        return say(False)
    came = f"{type(answer).__name__} {np.shape(answer)}"
    require(np.shape(answer) == () and not isinstance(answer, bool), f"came: {came}; wanted: one number")
    answer = float(answer)
    hits, wanted = predicted & true & mask, (predicted & true & mask).sum() / (true & mask).sum()
    if np.isclose(answer, np.mean(hits.sum((1, 2)) / (true & mask).sum((1, 2)))):
        raise WrongAnswer(
            f"came: {answer:.4f}, the mean of the pictures' recalls; wanted {wanted:.4f}: sum over the set, then divide"
        )
    if np.isclose(answer, (predicted & true).sum() / true.sum()):
        raise WrongAnswer(f"came: {answer:.4f}, of the whole pictures; wanted {wanted:.4f}, of the hole")
    if np.isclose(answer, hits.sum() / (predicted & mask).sum()):
        raise WrongAnswer(f"came: {answer:.4f}, the precision; wanted {wanted:.4f}: divide by the true edges")
    require(np.isclose(answer, wanted), f"came: {answer:.4f}; wanted {wanted:.4f}")
    nothing = np.zeros((1, 4, 4), bool)
    try:
        none = float(pooled_recall(nothing, nothing, ~nothing))
    except ZeroDivisionError:
        none = float("nan")
    require(none == 0, f"where no true edge lies in the hole came {none:g}; wanted 0")
    say(True)


def check_best_weight(best_weight: Callable) -> None:
    """Lesson 06, medium. best_weight(q (N,)) -> the edge weight whose decision p > 1/2 has the best expected F1, one number."""
    q = torch.rand(400, generator=torch.Generator().manual_seed(1)) ** 3
    answer = best_weight(q.clone())
    if answer is None:
        return say(False)
    answer = torch.as_tensor(answer, dtype=torch.float32)
    require(answer.shape == (), f"came: shape {tuple(answer.shape)}; wanted: one number")
    drawn = torch.arange(1, len(q) + 1)
    hits = q.sort(descending=True).values.cumsum(0)
    f1 = (2 * hits / (drawn + q.sum())).max()
    wanted = 2 / f1 - 1
    came = f"came: {answer:.3f}; wanted {wanted:.3f}"
    if close(answer, f1 / 2):
        raise WrongAnswer(f"{came}: that is the threshold; the weight w puts it at 1 / (1 + w)")
    if close(answer, 1 / f1 - 1):
        raise WrongAnswer(f"{came}: the best threshold is half of the best F1, not F1 itself")
    if close(answer, 2 / f1):
        raise WrongAnswer(f"{came}: the threshold is 1 / (1 + w), not 1 / w")
    if close(answer, 2 / (2 * q.cumsum(0) / (drawn + q.sum())).max() - 1):
        raise WrongAnswer(f"{came}: q was not sorted; the surest pixels are drawn first")
    require(close(answer, wanted), came)
    say(True)


def check_thin_lines(thin_lines: Callable) -> None:
    """Lesson 06, hard. thin_lines(p (N, 1, H, W)) -> p, times 0.8 where it is not above both neighbours across its line."""
    p = torch.rand(2, 1, 7, 9, generator=torch.Generator().manual_seed(2))
    p[0, 0, 2:5, 3:6] = 0.5  # a plateau: nothing on it stands above its neighbours
    answer = thin_lines(p.clone())
    if answer is None:
        return say(False)
    require_tensor(answer, (2, 1, 7, 9))
    wanted = _thinned(p)
    wrong = {
        "the other direction was taken: across the line is where p bends down more": _thinned(p, larger=False),
        "a pixel must stand above both neighbours, not above one of them": _thinned(p, both=False),
        "beyond the border lies 0, not the border's own value again": _thinned(p, mode="replicate"),
        "a pixel as high as a neighbour is not above it": _thinned(p, equal=True),
        "a pixel that does not stand out counts for four fifths; yours fell to 0": _thinned(p, beside=0.0),
        "each pixel has one direction; yours had to stand above all four neighbours": _thinned(p, four=True),
    }
    for said, tensor in wrong.items():
        if close(answer, tensor):
            raise WrongAnswer(said)
    different = int((~torch.isclose(answer, wanted, atol=1e-6)).sum())
    require(different == 0, f"{different} of {p.numel()} pixels are not p, or 0.8 p, as wanted")
    say(True)


def _thinned(
    p: torch.Tensor, larger: bool = True, both: bool = True, equal: bool = False, four: bool = False,
    beside: float = 0.8, mode: str = "constant",
) -> torch.Tensor:  # fmt: skip
    """What is wanted, or one of the usual mistakes."""
    padded = F.pad(p, (1, 1, 1, 1), mode=mode)
    left, right = padded[..., 1:-1, :-2], padded[..., 1:-1, 2:]
    above, below = padded[..., :-2, 1:-1], padded[..., 2:, 1:-1]
    horizontal = left + right <= above + below if larger else left + right > above + below
    highest = torch.maximum if both else torch.minimum
    neighbour = torch.where(horizontal, highest(left, right), highest(above, below))
    if four:
        neighbour = torch.maximum(highest(left, right), highest(above, below))
    stands = p >= neighbour if equal else p > neighbour
    return torch.where(stands, p, beside * p)
