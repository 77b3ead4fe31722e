"""Checkers of lesson 05: the error over the hole, the Gram matrix, a discriminator's step."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from edgeconnect_lite import losses
from edgeconnect_lite.exercises.checking import WrongAnswer, close, require, require_tensor, say


def check_hole_error(hole_error: Callable) -> None:
    """Lesson 05, easy. hole_error(painted, photo (N, 3, H, W), mask (N, 1, H, W)) -> mean absolute error over the hole, ()."""
    generator = torch.Generator().manual_seed(0)
    painted, photo = torch.rand(2, 2, 3, 8, 10, generator=generator)
    mask = (torch.rand(2, 1, 8, 10, generator=generator) < 0.3).float()
    answer = hole_error(painted, photo, mask)
    if answer is None:
        return say(False)
    require_tensor(answer, ())
    gap = (painted - photo).abs()
    wanted = gap[mask.expand_as(gap) > 0].mean()
    if close(answer, (gap * mask).mean()):
        raise WrongAnswer(f"came: {answer:.4f}: divided by all pixels; wanted {wanted:.4f}, by those of the hole alone")
    if close(answer, 3 * wanted):
        raise WrongAnswer(f"came: {answer:.4f}, three times too large: the mask is shared by three colours")
    if close(answer, gap[mask.expand_as(gap) > 0].square().mean()):
        raise WrongAnswer(f"came: {answer:.4f}, the squared error; wanted {wanted:.4f}, the absolute one")
    if close(answer, torch.stack([g[:, m[0] > 0].mean() for g, m in zip(gap, mask)]).mean()):
        raise WrongAnswer(
            f"came: {answer:.4f}, the mean of each picture's; wanted {wanted:.4f}, over all hole pixels at once"
        )
    require(close(answer, wanted), f"came: {answer:.4f}; wanted {wanted:.4f}")
    say(True)


def check_gram_matrix(gram_matrix: Callable) -> None:
    """Lesson 05, medium. gram_matrix(features (N, C, H, W)) -> (N, C, C), divided by C * H * W."""
    features = torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(1))
    answer = gram_matrix(features)
    if answer is None:
        return say(False)
    require_tensor(answer, (2, 5, 5))
    wanted = losses.gram_matrix(features)
    for divisor, said in ((1, "not divided"), (4 * 6, "divided by H W"), (5, "divided by C")):
        if close(answer, wanted * 5 * 4 * 6 / divisor):
            raise WrongAnswer(f"{said}; wanted the sums over all places divided by C H W")
    gap = (answer - wanted).abs().max().item()
    require(close(answer, wanted), f"differs by up to {gap:.3g} from the sums of products over all places / (C H W)")
    say(True)


def check_discriminator_step(discriminator_step: Callable) -> None:
    """Lesson 05, hard. discriminator_step(d, optimizer, real, fake) -> the loss, after one step of d's optimizer."""
    generator = torch.Generator().manual_seed(2)
    real, noise = torch.randn(2, 4, 1, 6, 6, generator=generator)
    pair = [nn.Conv2d(1, 1, 3, bias=False), nn.Conv2d(1, 1, 3, bias=False)]
    for d in pair:
        with torch.no_grad():
            d.weight.copy_(torch.linspace(-0.5, 0.7, 9).view(1, 1, 3, 3))
        d.weight.grad = torch.full_like(d.weight, 5.0)  # left by a generator step
    mine, theirs = pair
    scale = torch.tensor(0.8, requires_grad=True)  # stands for a generator
    fake = noise * scale
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.5)
    before = theirs.weight.detach().clone()
    answer = discriminator_step(theirs, optimizer, real, fake)
    if answer is None:
        return say(False)
    answer = torch.tensor(answer) if isinstance(answer, float) else answer
    swapped = losses.discriminator_loss(mine(fake), mine(real))
    if isinstance(answer, torch.Tensor) and answer.shape == () and close(answer, swapped):
        raise WrongAnswer("real and fake are swapped: the loss falls where the discriminator is fooled")
    require(scale.grad is None, "the generator behind the fake got a gradient; wanted the fake detached")
    require_tensor(answer, ())
    wanted = losses.discriminator_loss(mine(real), mine(fake.detach()))
    if close(answer, losses.discriminator_loss(mine(real)[0], mine(fake)[0])):
        raise WrongAnswer("that is the loss of the first picture alone: this d gives logits, not a pair")
    require(close(answer, wanted), f"came: a loss of {answer.item():.4f}; wanted {wanted.item():.4f}")
    require(not torch.equal(theirs.weight, before), "the discriminator did not move; wanted one step of its optimizer")
    gradient = torch.autograd.grad(wanted, mine.weight)[0]
    if close(theirs.weight.detach(), before - 0.5 * (gradient + 5.0)):
        raise WrongAnswer("old gradients were added to the new ones; wanted them cleared before the backward pass")
    of_real = torch.autograd.grad(F.softplus(-mine(real)).mean() / 2, mine.weight)[0]
    if close(theirs.weight.detach(), before - 0.5 * of_real):
        raise WrongAnswer("the fake's half of the loss gave no gradient: detach the picture, not the logits")
    require(close(theirs.weight.detach(), before - 0.5 * gradient), "the step is not the optimizer's along this loss")
    say(True)
