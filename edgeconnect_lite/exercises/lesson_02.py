"""Checkers of lesson 02: the gated activation, its backward pass, the residual block."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from edgeconnect_kernels import gated_elu
from torch import Tensor

from edgeconnect_lite.exercises.checking import WrongAnswer, close, require, require_tensor, say
from edgeconnect_lite.layers import ResidualBlock


def _gap(answer: Tensor, wanted: Tensor) -> str:
    return f"differs by up to {(answer - wanted).abs().max():.3g}"


def _packed(generator: torch.Generator) -> Tensor:
    return 2 * torch.randn(2, 6, 5, 4, generator=generator)


def check_gated_activation(gated_activation: Callable) -> None:
    """Lesson 02, easy. gated_activation(x (N, 2C, H, W), gate first) -> (N, C, H, W), sigmoid(gate) * ELU(feature)."""
    x = _packed(torch.Generator().manual_seed(0))
    before = x.clone()
    answer = gated_activation(x)
    if answer is None:
        return say(False)
    require(torch.equal(x, before), "your function changed the tensor that it was given; wanted a new one")
    gate, feature = x.chunk(2, dim=1)
    require_tensor(answer, gate.shape)
    every_second = torch.sigmoid(x[:, ::2]) * F.elu(x[:, 1::2])
    mistakes = {
        "the halves are swapped: the gate is the first half of the channels": torch.sigmoid(feature) * F.elu(gate),
        "every second channel was taken for the gate: wanted the first half": every_second,
        "the gate went through tanh, which can be negative; wanted a sigmoid": torch.tanh(gate) * F.elu(feature),
        "the feature went through ReLU; wanted ELU, which is exp(f) - 1 below 0": torch.sigmoid(gate) * F.relu(feature),
        "the feature went through nothing; wanted ELU": torch.sigmoid(gate) * feature,
        "the gate went through nothing; wanted a sigmoid": gate * F.elu(feature),
    }
    for message, mistaken in mistakes.items():
        if close(answer, mistaken):
            raise WrongAnswer(message)
    wanted = gated_elu(x)
    require(close(answer, wanted), f"the answer {_gap(answer, wanted)}; wanted sigmoid(gate) * ELU(feature)")
    say(True)


def check_gated_backward(gated_backward: Callable) -> None:
    """Lesson 02, medium. gated_backward(x (N, 2C, H, W), dy (N, C, H, W)) -> the gradient of x, (N, 2C, H, W)."""
    generator = torch.Generator().manual_seed(1)
    x = _packed(generator)
    x[0, :, 0, 0] = 100.0  # exp(100) is infinite in float32
    dy = torch.randn(2, 3, 5, 4, generator=generator)
    given_x, given_dy = x.clone(), dy.clone()
    answer = gated_backward(given_x, given_dy)
    if answer is None:
        return say(False)
    require_tensor(answer, x.shape)
    answer = answer.detach()
    unchanged = torch.equal(given_x.detach(), x) and torch.equal(given_dy.detach(), dy)
    require(unchanged, "your function changed a tensor that it was given; wanted a new one")
    bad = int((~answer.isfinite()).sum())
    require(bad == 0, f"{bad} values are not finite: for f = 100, exp(f) overflows and times 0 is NaN; use torch.where")
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(gated_elu(leaf), leaf, dy)
    (without_dy,) = torch.autograd.grad(gated_elu(leaf).sum(), leaf)
    if close(answer, without_dy):
        raise WrongAnswer("dy is missing: both derivatives must be multiplied by it")
    halves = dict(zip(("gate", "feature"), zip(answer.chunk(2, dim=1), wanted.chunk(2, dim=1))))
    if close(answer, wanted.roll(3, dims=1)):
        raise WrongAnswer("the halves are swapped: the gate's gradient is the first half, the feature's the second")
    for name, (came, right) in halves.items():
        require(close(came, right), f"the {name}'s half {_gap(came, right)} from what autograd gives")
    say(True)


def check_residual_block(residual_block: Callable) -> None:
    """Lesson 02, hard. residual_block(x, (weight, bias), (weight, bias), dilation) -> x + gated(gated(x)), as the package's."""
    generator = torch.Generator().manual_seed(2)
    for dilation in (1, 2):
        block = ResidualBlock(4, dilation).requires_grad_(False)
        for parameter in block.parameters():
            parameter.normal_(std=0.3, generator=generator)
        pairs = [(layer.conv.weight, layer.conv.bias) for layer in (block.first, block.second)]
        x = torch.randn(2, 4, 9, 12, generator=generator)
        before = x.clone()
        try:
            answer = residual_block(x, *pairs, dilation)
        except RuntimeError as error:
            if "channels" not in str(error):
                raise
            hint = "each convolution makes 2C channels: was the first one's result gated down to C?"
            raise WrongAnswer(f"{error}; {hint}") from error
        if answer is None:
            return say(False)
        require(torch.equal(x, before), "your function changed the tensor that it was given; wanted a new one")
        require_tensor(answer, x.shape)
        wanted = block(x)
        if close(answer, wanted - x):
            raise WrongAnswer("the input is missing: wanted x + gated(gated(x))")
        if close(answer, gated_elu(torch.cat([torch.full_like(x, 100.0), wanted], dim=1))):
            raise WrongAnswer("ELU was applied after the sum; wanted nothing there")
        where = f"with dilation {dilation}" + (
            ": is the first convolution dilated, and only the first?" if dilation > 1 else ""
        )
        require(close(answer, wanted), f"the answer {_gap(answer, wanted)} from the package's block {where}")
    say(True)
