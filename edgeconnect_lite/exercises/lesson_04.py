"""Checkers of lesson 04: padded sizes, receptive fields, a step up."""

from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F

from edgeconnect_lite.exercises.checking import WrongAnswer, require, require_tensor, say
from edgeconnect_lite.layers import GatedConv2d


def check_padding(padded_size: Callable) -> None:
    """Lesson 04, easy. padded_size(height, width, stride=8) -> (height, width), the next multiples of the stride."""
    if padded_size(100, 75) is None:
        return say(False)
    for given, wanted in (((100, 75), (104, 80)), ((128, 64), (128, 64)), ((1, 9), (8, 16)), ((33, 70, 32), (64, 96))):
        answer = padded_size(*given)
        came = f"came for {given}: {answer!r}; wanted {wanted}"
        require(isinstance(answer, tuple | list) and len(answer) == 2, f"{came}, two numbers")
        require(all(isinstance(side, Integral) for side in answer), f"{came}, whole numbers")
        if tuple(answer) == wanted:
            continue
        if tuple(answer) == (wanted[0] - given[0], wanted[1] - given[1]):
            raise WrongAnswer(f"{came}: that is the padding; wanted the padded size")
        if tuple(answer) == wanted[::-1]:
            raise WrongAnswer(f"{came}: height first, then width")
        if given[:2] == wanted:
            raise WrongAnswer(f"{came}: a multiple of the stride stays as it is")
        if answer[0] < given[0] or answer[1] < given[1]:
            raise WrongAnswer(f"{came}: pad up to the next multiple, do not crop")
        if len(given) == 3:
            raise WrongAnswer(f"{came}: the stride was 32")
        raise WrongAnswer(came)
    say(True)


def check_receptive_field(receptive_field: Callable) -> None:
    """Lesson 04, medium. receptive_field([(kernel, stride, dilation), ...]) -> side in px, of the first layer's input."""
    fold, plain, down = (2, 2, 1), (3, 1, 1), (3, 2, 1)
    blocks = [layer for dilation in (1, 2, 4, 1) for layer in ((3, 1, dilation), plain)]
    if receptive_field([plain]) is None:
        return say(False)
    cases = (
        ([], 1, "without layers a pixel sees itself"),
        ([plain], 3, "one 3x3 layer sees one pixel to each side"),
        ([plain] * 3, 7, "each 3x3 layer adds two pixels"),
        ([(7, 1, 1), (1, 1, 1)], 7, "a kernel of k adds k - 1"),
        ([(3, 1, 4), plain], 11, "dilation moves the taps of its own layer apart, and of no other"),
        ([down], 3, "a layer's own stride counts from the next layer on"),
        ([down, down, plain], 15, "every stride before a layer multiplies what it adds"),
        ([fold, plain, down, down, *blocks], 210, "the lesson's way down, from the fold to the last block"),
    )
    for layers, wanted, why in cases:
        answer = receptive_field(list(layers))
        require(answer == wanted, f"came for {layers}: {answer!r}; wanted {wanted}: {why}")
    say(True)


@torch.no_grad()
def check_step_up(step_up: Callable) -> None:
    """Lesson 04, hard. step_up(x (N, C, H, W), skip (N, S, 2H or 2H - 1, ...) or None, conv) -> what conv gives."""
    draw = torch.Generator().manual_seed(0)
    conv, alone = GatedConv2d(6, 5), GatedConv2d(4, 5)
    for layer in (conv, alone):
        layer.conv.weight.copy_(torch.randn(layer.conv.weight.shape, generator=draw) / 5)
    x = torch.randn(2, 4, 4, 3, generator=draw)
    large = F.interpolate(x, scale_factor=2, mode="nearest")
    for height, width in ((8, 6), (7, 5), (8, 5)):
        skip = torch.randn(2, 2, height, width, generator=draw)
        answer = _call(step_up, x.clone(), skip.clone(), conv, f"a skip of {height} x {width}")
        if answer is None:
            return say(False)
        cropped = large[..., :height, :width]
        wanted = conv(torch.cat([cropped, skip], dim=1))
        require_tensor(answer, wanted.shape)
        smooth = F.interpolate(x, scale_factor=2, mode="bilinear")[..., :height, :width]
        other = {
            "the skip came first; wanted x first, then the skip": conv(torch.cat([skip, cropped], dim=1)),
            "x was enlarged smoothly (bilinear); wanted nearest neighbour": conv(torch.cat([smooth, skip], dim=1)),
            "the crop took the last rows and columns; wanted the first": conv(
                torch.cat([large[..., -height:, -width:], skip], dim=1)
            ),
        }
        _require_same(answer, wanted, other)
    answer = _call(step_up, x.clone(), None, alone, "skip=None")
    wanted = alone(large)
    require_tensor(answer, wanted.shape)
    _require_same(answer, wanted, {})
    say(True)


def _call(step_up: Callable, x: torch.Tensor, skip: torch.Tensor | None, conv: GatedConv2d, what: str) -> Any:
    """The learner's answer; an error in it names what it was given."""
    try:
        return step_up(x, skip, conv)
    except (AttributeError, RuntimeError, TypeError) as error:
        raise WrongAnswer(f"with {what} your function raised {type(error).__name__}: {error}") from error


def _require_same(answer: torch.Tensor, wanted: torch.Tensor, other: dict[str, torch.Tensor]) -> None:
    """other: what is wrong -> what that would give."""
    if torch.allclose(answer, wanted, atol=1e-5):
        return
    for message, value in other.items():
        if torch.allclose(answer, value, atol=1e-5):
            raise WrongAnswer(message)
    raise WrongAnswer(f"values differ by up to {(answer - wanted).abs().max():.2f}; wanted conv of [enlarged x, skip]")
