"""The gated ELU as three Triton kernels: forward, backward from x, backward from (y, gate). The mathematics: gated_elu.py.

A convolution gives x, shaped (N, 2C, H, W), gates first. One program makes BLOCK neighbouring elements of y: it finds
them in memory (_locate), loads their gates and features, computes in float32, and stores. In both memory formats the
two halves lie the same distance apart everywhere, C * H * W elements (contiguous) or C (channels_last), so that one
kernel serves both. Each thread moves 16 bytes per access where `run` (see _locate) is a multiple of 16, and with
channels_last C one of 8; for other sizes the accesses are narrower.

On a GPU the two special functions are the hardware's own, by inline PTX. Their documented errors (PTX ISA, "ex2" and
"rcp"): ex2.approx.ftz has a relative error below 2^-22, rcp.approx.ftz one of 1 ulp; both flush numbers below 2^-126.
`HARDWARE` is False in Triton's interpreter, which knows no PTX.
"""
# pyright: reportGeneralTypeIssues=false

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"  # as @triton.jit below saw it

LOG2E = tl.constexpr(1.4426950408889634)  # e^x = 2^(x LOG2E)


@triton.jit
def _exp2(x, HARDWARE: tl.constexpr):
    if HARDWARE:
        return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)
    return tl.exp2(x)


@triton.jit
def _reciprocal(x, HARDWARE: tl.constexpr):
    if HARDWARE:
        return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)
    return 1.0 / x


@triton.jit
def _sigmoid(g, HARDWARE: tl.constexpr):
    return _reciprocal(1 + _exp2(g * -LOG2E, HARDWARE), HARDWARE)


@triton.jit
def _sigmoid_both_ways(g, HARDWARE: tl.constexpr):
    """s = sigmoid(g) and sigmoid(-g) = 1 - s, without the subtraction's loss of digits where s is near 1.

    With t = e^-g, s is 1 / (1 + t) and 1 - s is t s. t is kept below infinity: infinity times 0 is not a number.
    """
    t = _exp2(tl.minimum(g * -LOG2E, 126, propagate_nan=tl.PropagateNan.ALL), HARDWARE)
    s = _reciprocal(1 + t, HARDWARE)
    return s, t * s


@triton.jit
def _expm1(f, exp_f, EXACT: tl.constexpr):
    """e^f - 1, right for f <= 0 (the callers drop the rest). Near 0 the subtraction would cancel: there a polynomial.

    EXACT, for float32: Taylor's of degree 6, relative error below 1e-6. Else, for 16 bits: degree 2, below 1e-4.
    """
    if EXACT:
        near = f * (1 + f * (1 / 2 + f * (1 / 6 + f * (1 / 24 + f * (1 / 120 + f * (1 / 720))))))
        return tl.where(f > -0.35, near, exp_f - 1)
    return tl.where(f > -1 / 64, f * (1 + f * 0.5), exp_f - 1)


@triton.jit
def _locate(run, C: tl.constexpr, CHANNELS_LAST: tl.constexpr, BLOCK: tl.constexpr):
    """Where this program's elements lie: (index in x of the gate, distance from there to the feature, index in y,
    channel, which elements exist). Indices are 64-bit: n * 2C * H * W may pass 2^31.

    Contiguous: run = H * W, and the grid is (pieces of one channel's plane, N * C). Without a bias nobody asks for the
    channel, and a picture is launched as one long plane: C = 1, run = C * H * W.
    channels_last: run = N * H * W * C, and the grid is (pieces of that,); a piece is as many whole pixels as fit.
    """
    lane = tl.arange(0, BLOCK)
    if CHANNELS_LAST:
        PIECE: tl.constexpr = BLOCK // C * C
        start = tl.program_id(0).to(tl.int64) * PIECE
        pixel, channel = lane // C, lane % C
        gate_i = 2 * start + (pixel * (2 * C) + channel)
        y_i = start + (pixel * C + channel)  # start + lane, in a form that Triton gives threads as it does gate_i's
        return gate_i, tl.cast(C, tl.int64), y_i, channel, (lane < PIECE) & (lane < run - start)
    else:
        start = tl.program_id(0).to(tl.int64) * BLOCK
        plane = tl.program_id(1)
        to_feature = C * tl.cast(run, tl.int64)
        y_i = plane * tl.cast(run, tl.int64) + start
        gate_i = y_i + plane // C * to_feature  # before picture n lie the features of n others
        return gate_i + lane, to_feature, y_i + lane, plane % C, lane < run - start


@triton.jit
def _load(ptr, i, inside, bias_ptr, channel):
    """Load in float32, plus the channel's bias if there is one. Elements that do not exist are undefined, never stored."""
    value = tl.load(ptr + i, mask=inside).to(tl.float32)
    if bias_ptr is not None:
        value += tl.load(bias_ptr + channel).to(tl.float32)
    return value


@triton.jit
def _gated_elu_forward_kernel(
    x_ptr, bias_ptr, y_ptr, gate_ptr, run, alpha,
    C: tl.constexpr, CHANNELS_LAST: tl.constexpr, HARDWARE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """y = s ELU(f). gate_ptr: None, or where g is kept for the backward pass, laid out as y is."""
    gate_i, to_feature, y_i, channel, inside = _locate(run, C, CHANNELS_LAST, BLOCK)
    g = _load(x_ptr, gate_i, inside, bias_ptr, channel)
    f = _load(x_ptr, gate_i + to_feature, inside, bias_ptr, C + channel)
    s = _sigmoid(g, HARDWARE)
    elu = tl.where(f > 0, f, alpha * _expm1(f, _exp2(f * LOG2E, HARDWARE), x_ptr.dtype.element_ty == tl.float32))
    tl.store(y_ptr + y_i, (s * elu).to(y_ptr.dtype.element_ty), mask=inside)
    if gate_ptr is not None:
        tl.store(gate_ptr + y_i, g.to(gate_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _gated_elu_backward_from_x_kernel(
    dy_ptr, x_ptr, bias_ptr, dx_ptr, run, alpha,
    C: tl.constexpr, CHANNELS_LAST: tl.constexpr, HARDWARE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """dg = dy ELU(f) s (1 - s),  df = dy s (1 if f > 0 else alpha e^f)."""
    gate_i, to_feature, y_i, channel, inside = _locate(run, C, CHANNELS_LAST, BLOCK)
    dy = tl.load(dy_ptr + y_i, mask=inside).to(tl.float32)
    g = _load(x_ptr, gate_i, inside, bias_ptr, channel)
    f = _load(x_ptr, gate_i + to_feature, inside, bias_ptr, C + channel)
    s, one_minus_s = _sigmoid_both_ways(g, HARDWARE)
    exp_f = _exp2(f * LOG2E, HARDWARE)
    elu = tl.where(f > 0, f, alpha * _expm1(f, exp_f, x_ptr.dtype.element_ty == tl.float32))
    dg = dy * s * elu * one_minus_s
    df = dy * s * tl.where(f > 0, 1.0, alpha * exp_f)
    tl.store(dx_ptr + gate_i, dg.to(dx_ptr.dtype.element_ty), mask=inside)
    tl.store(dx_ptr + gate_i + to_feature, df.to(dx_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _gated_elu_backward_from_yg_kernel(
    dy_ptr, y_ptr, gate_ptr, dx_ptr, run, alpha,
    C: tl.constexpr, CHANNELS_LAST: tl.constexpr, HARDWARE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The same without f: s ELU(f) is y, and where f <= 0, s alpha e^f is y + alpha s."""
    gate_i, to_feature, y_i, _, inside = _locate(run, C, CHANNELS_LAST, BLOCK)
    dy = tl.load(dy_ptr + y_i, mask=inside).to(tl.float32)
    y = tl.load(y_ptr + y_i, mask=inside).to(tl.float32)
    g = tl.load(gate_ptr + y_i, mask=inside).to(tl.float32)
    s, one_minus_s = _sigmoid_both_ways(g, HARDWARE)
    dg = dy * y * one_minus_s
    df = dy * tl.where(y > 0, s, y + alpha * s)
    tl.store(dx_ptr + gate_i, dg.to(dx_ptr.dtype.element_ty), mask=inside)
    tl.store(dx_ptr + gate_i + to_feature, df.to(dx_ptr.dtype.element_ty), mask=inside)


def _launch(
    kernel, packed: Tensor, tensors: list[Tensor | None], bias: Tensor | None, alpha: float, block: int | None
) -> None:
    """Run a kernel. tensors: its pointers in order, `bias` among them, laid out as `packed` (N, 2C, H, W) is.

    More planes than the grid's limit of 65,535 go in parts. Small planes get small programs, or threads would idle.
    """
    n, c, h, w = packed.shape[0], packed.shape[1] // 2, *packed.shape[2:]
    vector = 16 // packed.element_size()  # elements in 128 bits
    block = block or (65_536 if INTERPRETED else 128 * vector)
    last = not packed.is_contiguous()  # not y's: with one channel that is both
    if last:
        block = max(block, _power_of_2(c))
        run, part = n * c * h * w, n
        grid = (triton.cdiv(run, block // c * c),)
    else:
        c, run = (1, c * h * w) if bias is None else (c, h * w)  # without a bias a picture is one long plane
        block = min(block, max(32 * vector, _power_of_2(run)))
        grid, part = (triton.cdiv(run, block),), 65_535 // c
    options = {"num_warps": max(1, min(8, block // (32 * vector))), "enable_fp_fusion": True}
    for first in range(0, n, part):
        pointers = [t if t is None or t is bias else t[first : first + part] for t in tensors]
        planes = () if last else (min(part, n - first) * c,)
        with torch.cuda.device_of(packed):  # Triton launches on the current device, which need not be the tensor's
            kernel[grid + planes](
                *pointers, run, alpha, C=c, CHANNELS_LAST=last, HARDWARE=not INTERPRETED, BLOCK=block, **options
            )


def _power_of_2(number: int) -> int:
    """The least that is not below number."""
    return 1 << (number - 1).bit_length()


# Tensors: float32, float16 or bfloat16, all contiguous or all channels_last. bias: (2C,), of any of these.


def forward(
    x: Tensor, bias: Tensor | None, alpha: float, y: Tensor, gate: Tensor | None, block: int | None = None
) -> None:
    """Write y (N, C, H, W), and the gates if `gate` is given, from x (N, 2C, H, W)."""
    _launch(_gated_elu_forward_kernel, x, [x, bias, y, gate], bias, alpha, block)


def backward_from_x(
    dy: Tensor, x: Tensor, bias: Tensor | None, alpha: float, dx: Tensor, block: int | None = None
) -> None:
    """Write dx (N, 2C, H, W)."""
    _launch(_gated_elu_backward_from_x_kernel, dx, [dy, x, bias, dx], bias, alpha, block)


def backward_from_yg(dy: Tensor, y: Tensor, gate: Tensor, alpha: float, dx: Tensor, block: int | None = None) -> None:
    """Write dx (N, 2C, H, W) from the output and the gates that forward wrote."""
    _launch(_gated_elu_backward_from_yg_kernel, dx, [dy, y, gate, dx], None, alpha, block)
