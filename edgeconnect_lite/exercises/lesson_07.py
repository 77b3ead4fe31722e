"""Checkers of lesson 07: where a stroke changes the picture, half-drawn edge maps, a step through a judge."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeconnect_lite import losses
from edgeconnect_lite.exercises.checking import WrongAnswer, close, face_and_mask, require, require_tensor, say


def check_near_and_far(near_and_far: Callable) -> None:
    """Lesson 07, easy. near_and_far(after, before, near, mask) -> mean change of the hole near the stroke, and elsewhere."""
    before, mask = face_and_mask()
    near = np.zeros_like(mask)
    near[40:80] = True
    after = np.where(near[..., None], before // 2, before // 4 + 150)  # darker near the stroke, brighter elsewhere
    after[~mask] = 255 - before[~mask]
    answer = near_and_far(after, before, near, mask)
    if answer is None:
        return say(False)
    pair = isinstance(answer, tuple | list) and len(answer) == 2
    require(
        pair and all(isinstance(x, int | float | np.number) for x in answer), f"came: {answer!r}; wanted two numbers"
    )
    change = np.abs(after.astype(float) - before).mean(axis=2)
    wanted = change[near & mask].mean(), change[~near & mask].mean()
    came = f"came: {answer[0]:.2f} and {answer[1]:.2f}; wanted {wanted[0]:.2f} and {wanted[1]:.2f}"
    wrapped, signed = (after - before).mean(axis=2), (after.astype(float) - before).mean(axis=2)
    usual = {
        "near the stroke first, then the rest of the hole": wanted[::-1],
        "only pixels of the hole count, near the stroke too": (change[near].mean(), wanted[1]),
        "only pixels of the hole count, in the rest of it too": (wanted[0], change[~near].mean()),
        "only pixels of the hole count": (change[near].mean(), change[~near].mean()),
        "uint8 wraps around below 0: convert first": tuple(wrapped[part & mask].mean() for part in (near, ~near)),
        "a change counts whichever way it goes": tuple(signed[part & mask].mean() for part in (near, ~near)),
    }
    for message, other in usual.items():
        if np.allclose(answer, other):
            raise WrongAnswer(f"{came}: {message}")
    require(bool(np.allclose(answer, wanted)), came)
    say(True)


def check_half_drawn(half_drawn: Callable) -> None:
    """Lesson 07, medium. half_drawn(true, predicted, known, near, generator) -> edge maps (N, 1, H, W), drawn to a column.

    In near: true edges left of a column that is drawn for each sample, predicted ones from it on; elsewhere known edges.
    """
    count, height, width = 6, 12, 64
    known, true, predicted = torch.randint(
        2, (3, count, 1, height, width), generator=torch.Generator().manual_seed(3)
    ).float()
    near = torch.zeros_like(known)
    near[:, :, 3:9] = 1
    drawn = lambda a, b, seed: half_drawn(a, b, known, near, torch.Generator().manual_seed(seed))  # noqa: E731
    ones, zeros = torch.ones_like(known), torch.zeros_like(known)
    answer = drawn(ones, zeros, 4)
    if answer is None:
        return say(False)
    require_tensor(answer, known.shape)
    require(torch.equal(answer * (1 - near), known * (1 - near)), "edges away from the hole are not the known ones")
    inside = answer[:, 0, 3:9]
    if (inside.diff(dim=-1) > 0).any() and not (inside.diff(dim=-1) < 0).any():
        raise WrongAnswer("the true edges lie right of the column; wanted them left of it")
    require(
        not (inside.diff(dim=-1) > 0).any() and torch.equal(inside, inside[:, :1].expand_as(inside)),
        "true and predicted edges alternate; wanted one column a sample: true left of it, predicted from it on",
    )
    columns = inside[:, 0].sum(-1)
    require(len(columns.unique()) > 1, f"every sample is cut at column {columns[0]:.0f}; wanted a draw for each")
    require(torch.equal(answer, drawn(ones, zeros, 4)), "the same seed gave other edges: draw from the given generator")
    require(not torch.equal(answer, drawn(ones, zeros, 5)), "another seed gave the same edges: draw from the generator")
    left = torch.arange(width) < columns.view(-1, 1, 1, 1)
    wanted = torch.where(near > 0, torch.where(left, true, predicted), known)
    gap = int((drawn(true, predicted, 4) != wanted).sum())
    require(gap == 0, f"{gap} pixels differ from the edges that were given: copy them, and change nothing else")
    say(True)


def check_judged_step(judged_step: Callable) -> None:
    """Lesson 07, hard. judged_step(painter, judge, optimizer, given, photo, mask) -> the loss, after the painter's step."""
    draw = torch.Generator().manual_seed(7)
    given, photo = torch.rand(2, 5, 8, 8, generator=draw), torch.rand(2, 3, 8, 8, generator=draw)
    mask = (torch.rand(2, 1, 8, 8, generator=draw) < 0.4).float()
    painter, judge = nn.Conv2d(5, 3, 1, bias=False), nn.Conv2d(3, 1, 3, bias=False)
    with torch.no_grad():
        for layer in (painter, judge):
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=draw))
    painted = painter(given)
    rebuilt, fooled = losses.reconstruction_loss(painted, photo, mask), losses.adversarial_loss(judge(painted))
    wanted = rebuilt + 0.1 * fooled
    gradient, by_pixels = (
        torch.autograd.grad(loss, painter.weight, retain_graph=True)[0] for loss in (wanted, rebuilt)
    )
    weight, judge_weight = painter.weight.detach().clone(), judge.weight.detach().clone()
    painter.weight.grad = torch.full_like(weight, 5.0)  # left by an earlier step
    answer = judged_step(painter, judge, torch.optim.SGD(painter.parameters(), lr=0.5), given, photo, mask)
    if answer is None:
        return say(False)
    require_tensor(answer, ())
    real, fake = judge(photo), judge(painted)
    usual = {
        "the judge looked at the photo; it must look at what was painted": 0.1 * losses.adversarial_loss(real),
        "that is the judge's own loss; the painter wants to be taken for real": 0.1
        * losses.discriminator_loss(real, fake),
        "log(1 - D) is flat where the painter is found out (lesson 05)": -0.1 * F.softplus(fake).mean(),
        "the adversarial term counts a tenth": fooled,
        "the judge's term is missing": 0.0,
    }
    came = f"came: a loss of {answer.item():.4f}; wanted {wanted.item():.4f}"
    for message, other in usual.items():
        if close(answer, (rebuilt + other).detach()):
            raise WrongAnswer(f"{came}: {message}")
    require(close(answer, wanted.detach()), came)
    require(torch.equal(judge.weight, judge_weight), "the judge moved; wanted the painter's step alone")
    require(not torch.equal(painter.weight, weight), "the painter did not move; wanted one step of its optimizer")
    _require_step(weight - painter.weight.detach(), gradient, by_pixels)
    say(True)


def _require_step(moved: Tensor, gradient: Tensor, by_pixels: Tensor) -> None:
    """moved: how far the painter went; wanted half of the gradient."""
    if close(moved, 0.5 * (gradient + 5.0)):
        raise WrongAnswer("old gradients were added to the new ones; wanted them cleared before the backward pass")
    if close(moved, 0.5 * by_pixels):
        raise WrongAnswer("the judge's say did not reach the painter: what it was shown was detached")
    require(close(moved, 0.5 * gradient), "the step is not the optimizer's along this loss")
