"""Checkers of lesson 03: bytes that an op moves, the backward pass from (y, gate), a Triton kernel that adds the bias."""

from collections.abc import Callable
from typing import Any

import torch
from edgeconnect_kernels import gated_elu_reference, gated_elu_reference_backward_from_yg
from edgeconnect_kernels.gated_elu import HAS_TRITON
from torch import Tensor

from edgeconnect_lite.exercises.checking import WrongAnswer, close, require, require_tensor, say

MARGIN = 4096  # elements around a kernel's tensors: most accesses out of bounds land there, and are seen


def check_bytes_moved(bytes_moved: Callable) -> None:
    """Lesson 03, easy. bytes_moved(shape (N, 2C, H, W), itemsize, save "x" or "yg") -> (forward, backward), in bytes."""
    if bytes_moved((1, 2, 1, 1), 4, "x") is None:
        return say(False)
    for shape, itemsize, save in (((2, 6, 5, 7), 4, "x"), ((1, 16, 8, 8), 2, "x"), ((3, 4, 9, 2), 2, "yg")):
        n, channels, height, width = shape
        unit = n * channels * height * width // 2 * itemsize
        wanted = ((4 if save == "yg" else 3) * unit, 5 * unit)
        answer = bytes_moved(shape, itemsize, save)
        came = f"came for {shape}, {itemsize} bytes, save={save!r}: {answer!r}; wanted {wanted}"
        require(isinstance(answer, tuple | list) and len(answer) == 2, f"{came}, two numbers")
        if tuple(answer) == wanted:
            continue
        mistakes = {
            (wanted[0], 6 * unit): "from x the backward pass does not read y, which is kept for the next layer",
            (2 * wanted[0], 2 * wanted[1]): "the unit is the size of y, which has C channels and not 2C",
            (wanted[0] // itemsize, wanted[1] // itemsize): "these are elements; wanted bytes",
            (3 * unit, wanted[1]): "with 'yg' the forward pass writes the gate, too",
            (wanted[0], 4 * unit): "the gradient of x has both halves",
            (wanted[0], 3 * unit): "the backward pass reads dy, and two tensors of y's size more",
        }
        raise WrongAnswer(f"{came}: {mistakes[tuple(answer)]}" if tuple(answer) in mistakes else came)
    say(True)


def check_backward_from_yg(backward_from_yg: Callable) -> None:
    """Lesson 03, medium. backward_from_yg(dy, y, gate, alpha), each (N, C, H, W) -> the gradient of x, (N, 2C, H, W)."""
    draw = torch.Generator().manual_seed(3)
    gate, feature, dy = 2 * torch.randn(3, 2, 3, 5, 4, generator=draw)
    gate[0, :, 0], feature[0, :, 0] = 20.0, 1.5  # wide open: in float32, 1 - s is 0
    gate[0, :, 1] = -100.0  # shut: in float32, exp(-g) is infinite
    x = torch.cat([gate, feature], dim=1)
    for alpha, dtype in ((1.0, torch.float32), (0.5, torch.float32), (1.0, torch.bfloat16)):
        given = [t.to(dtype) for t in (dy, gated_elu_reference(x.to(dtype), alpha=alpha), gate)]
        answer = backward_from_yg(*(t.clone() for t in given), alpha)
        if answer is None:
            return say(False)
        wanted = gated_elu_reference_backward_from_yg(*given, alpha=alpha)
        if dtype == torch.bfloat16:
            _require_rounded_once(answer, wanted)
            continue
        require_tensor(answer, x.shape)
        bad = int((~answer.isfinite()).sum())
        require(
            bad == 0, f"{bad} values are not finite: at g = -100 exp(-g) overflows, and times 0 is NaN; use sigmoid(-g)"
        )
        s, y = torch.sigmoid(gate), given[1]
        mistakes = {
            "the halves are swapped: the gate's gradient is the first half": wanted.roll(3, dims=1),
            "dy is missing: both derivatives must be multiplied by it": wanted / torch.cat([dy, dy], dim=1),
            "alpha is missing: below 0, df is dy (y + alpha s)": torch.cat(
                [wanted[:, :3], dy * torch.where(y > 0, s, y + s)], dim=1
            ),
            "where y > 0, df is dy s": torch.cat([wanted[:, :3], dy * (y + alpha * s)], dim=1),
        }
        for message, mistaken in mistakes.items():
            if close(answer, mistaken) and not close(answer, wanted):
                raise WrongAnswer(message)
        gap = (answer - wanted).abs().max()
        require(close(answer, wanted), f"differs by up to {gap:.3g} from the gradient, with alpha = {alpha}")
        came = (answer / wanted - 1)[0, :3, 0].abs().max()
        require(
            bool(came < 1e-3), f"at g = 20 the gate's gradient is {came:.0%} off: 1 - s cancels; sigmoid(-g) does not"
        )
    say(True)


def _require_rounded_once(answer: object, wanted: Tensor) -> None:
    came = f"{answer.dtype} {tuple(answer.shape)}" if isinstance(answer, Tensor) else type(answer).__name__
    require(came == f"{wanted.dtype} {tuple(wanted.shape)}", f"came for bfloat16: {came}; wanted y's dtype, packed")
    assert isinstance(answer, Tensor)
    differ = int((answer != wanted).sum())
    require(differ <= 2, f"{differ} bfloat16 values of {wanted.numel()} differ: compute in float32, and round once")


def check_fused_bias(kernel: Any) -> None:
    """Lesson 03, hard. A Triton kernel (x_ptr, bias_ptr, y_ptr, C, run, BLOCK), its grid (blocks of a plane, N * C)."""
    body: Callable = getattr(kernel, "fn", kernel)
    if _is_stub(body):
        return say(False)
    if not HAS_TRITON:
        return print("not checked: this needs Triton, which exists for Linux alone")
    from edgeconnect_kernels.interpreter import interpret, triton  # here, since Triton is slow to import

    draw = torch.Generator().manual_seed(4)
    n, c, height, width, block = 2, 3, 5, 7, 16
    x, bias = torch.randn(n, 2 * c, height, width, generator=draw), torch.randn(2 * c, generator=draw)
    inputs = [_with_margin(t, 1000.0) for t in (x, bias)]
    y, whole = _with_margin(torch.full((n, c, height, width), torch.nan), torch.nan)
    run = height * width
    try:
        interpret(body)[(triton.cdiv(run, block), n * c)](*(t for t, _ in inputs), y, c, run, BLOCK=block)
    except Exception as error:  # whatever a learner's kernel raises
        hint = "; did you call tl.sigmoid? the interpreter knows tl.exp" if "outside of the scope" in str(error) else ""
        raise WrongAnswer(f"the interpreter stopped: {type(error).__name__}: {error}{hint}") from error
    before, after = whole[:MARGIN], whole[MARGIN + y.numel() :]
    outside = int((~before.isnan()).sum() + (~after.isnan()).sum())
    require(outside == 0, f"{outside} elements were stored outside of y: does every plane's tl.store have its mask?")
    require(not bool(y.isnan().all()), "nothing was stored: wanted tl.store(y_ptr + ..., ..., mask=...)")
    missing = int(y.isnan().sum())
    require(missing == 0, f"{missing} of {y.numel()} elements were never stored, or are not a number")
    wanted, only_gate, only_feature = gated_elu_reference(x, bias), bias.clone(), bias.clone()
    only_gate[c:], only_feature[:c] = bias[:c], bias[c:]
    mistakes = {
        "the bias is missing": gated_elu_reference(x),
        "the halves are swapped: the gate is the first half of the channels": gated_elu_reference(
            x.roll(c, dims=1), bias.roll(c)
        ),
        "the feature got the gate's bias; its own is C numbers further": gated_elu_reference(x, only_gate),
        "the gate got the feature's bias; its own is number c": gated_elu_reference(x, only_feature),
    }
    for message, mistaken in mistakes.items():
        if close(y, mistaken):
            raise WrongAnswer(message)
    first_alone = close(y[0], wanted[0]) and not close(y, wanted)
    require(not first_alone, "the first picture is right, the second is not: each has 2C planes in x, and C in y")
    require(close(y, wanted), f"y differs by up to {(y - wanted).abs().max():.3g} from sigmoid(gate) * ELU(feature)")
    say(True)


def _is_stub(body: Callable) -> bool:
    """Triton's functions raise outside of a kernel, so a body that runs as plain Python does nothing."""
    try:
        return body(*[None] * 6) is None
    except Exception:
        return False


def _with_margin(values: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """The values inside a larger piece of memory, and that piece, flat."""
    whole = torch.full((values.numel() + 2 * MARGIN,), margin)
    inner = whole[MARGIN : MARGIN + values.numel()].view(values.shape)
    return inner.copy_(values), whole
