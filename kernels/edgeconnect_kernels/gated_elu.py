"""The gated ELU, the activation of every gated convolution here: y = sigmoid(g) ELU_alpha(f).

One convolution gives x (N, 2C, H, W): gate g first, feature f second, as the student report has it. Gating: Yu et al.,
"Free-Form Image Inpainting with Gated Convolution", ICCV 2019, eq. 2; ELU: Clevert et al., ICLR 2016, eq. 15.

With s = sigmoid(g), and dy the gradient that arrives at y:

    from x:         dg = dy ELU(f) s (1 - s)    df = dy s (1 if f > 0 else alpha e^f)
    from (y, g):    dg = dy y (1 - s)           df = dy (s if y > 0 else y + alpha s)

In units of C * H * W elements a picture, the output y with it: plain autograd keeps 5 for these, save="x" 3 (y and x),
save="yg" 2 (y and g) where y is kept anyway, as the next convolution's input.
"""

import importlib.util
from typing import Literal

import torch
from torch import Tensor

from edgeconnect_kernels import cpu_gated_elu

TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
HAS_TRITON = importlib.util.find_spec("triton") is not None  # found, not imported


def gated_elu(
    x: Tensor,
    bias: Tensor | None = None,
    alpha: float = 1.0,
    save: Literal["x", "yg"] = "x",
    impl: Literal["triton", "torch"] | None = None,
) -> Tensor:
    """sigmoid(gate) * ELU(feature) of a packed tensor, to which the convolution's bias may still have to be added.

    x: (N, 2C, H, W), floating point, any strides; channels [0, C) are the gate, [C, 2C) the feature.
    bias: (2C,), of x's dtype or at most float32, added to x first; None = already added.
    alpha: > 0, minus ELU's value at minus infinity. save: what the backward pass is computed from (module docstring).
    impl: "triton" = the fused GPU kernels, or RuntimeError with the reason why they cannot run; "torch" = plain operations;
    None = Triton where it can run; else, on a CPU, the same passes in cache-sized pieces (within torch.compile and
    torch.export: plain operations, which Inductor fuses); else plain operations. Plain operations ignore save.

    Returns (N, C, H, W) in x's dtype, channels_last where x is, else contiguous. Arithmetic is at least float32.
    Differentiable once, backward; impl="torch" any number of times and with torch.func. Raises ValueError or TypeError
    on other input.
    """
    _check(x, bias, alpha, save, impl)
    reason = why_not_triton(x)
    if impl == "triton" and reason:
        raise RuntimeError(f"impl='triton' cannot run: {reason}")
    by_hand = x.device.type == "cpu" and not torch.compiler.is_compiling()
    if impl == "torch" or (reason and not by_hand):
        return gated_elu_reference(x, bias, alpha)
    training = torch.is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad))
    return _forward_op(x, bias, alpha, save == "yg" and training)[0]


def gated_elu_reference(x: Tensor, bias: Tensor | None = None, alpha: float = 1.0) -> Tensor:
    """The forward formula, by plain torch operations. Arguments and result as for gated_elu."""
    gate, feature = _widened(x, bias).chunk(2, dim=1)
    return (torch.sigmoid(gate) * torch.nn.functional.elu(feature, alpha)).to(x.dtype)


def gated_elu_reference_backward(dy: Tensor, x: Tensor, bias: Tensor | None = None, alpha: float = 1.0) -> Tensor:
    """The backward formula from x. dy: (N, C, H, W). Returns dx (N, 2C, H, W); its sum over N, H, W is bias's gradient."""
    gate, feature = _widened(x, bias).chunk(2, dim=1)
    negative = feature.clamp(max=0)
    s, elu = torch.sigmoid(gate), torch.where(feature > 0, feature, alpha * torch.expm1(negative))
    dg = dy * elu * s * torch.sigmoid(-gate)
    df = dy * s * torch.where(feature > 0, 1.0, alpha * torch.exp(negative))
    return torch.cat([dg, df], dim=1).to(x.dtype)


def gated_elu_reference_backward_from_yg(dy: Tensor, y: Tensor, gate: Tensor, alpha: float = 1.0) -> Tensor:
    """The backward formula from the output and the gate, bias included, each (N, C, H, W). Returns dx (N, 2C, H, W)."""
    dtype, (dy, y, gate) = y.dtype, (_widened(tensor) for tensor in (dy, y, gate))
    s = torch.sigmoid(gate)
    dg, df = dy * y * torch.sigmoid(-gate), dy * torch.where(y > 0, s, y + alpha * s)
    return torch.cat([dg, df], dim=1).to(dtype)


def why_not_triton(x: Tensor) -> str | None:
    """Why the Triton kernels cannot run on x, or None where they can."""
    if not HAS_TRITON:
        return "triton is not installed"
    if x.dtype not in TRITON_DTYPES:
        return f"x has dtype {x.dtype}; wanted float32, float16 or bfloat16"
    if not x.is_cuda:
        return f"x lies on {x.device}; wanted an NVIDIA GPU"
    if x.shape[1] > 2 * 65_535:
        return f"x has {x.shape[1]} channels; wanted at most {2 * 65_535}, the limit of a grid"
    if torch.version.cuda is None:
        return "this torch is built for another maker's GPU, and the kernels hold NVIDIA's PTX"
    properties = torch.cuda.get_device_properties(x.device)
    if (properties.major, properties.minor) < (7, 5):
        return f"{properties.name} is of compute capability {properties.major}.{properties.minor}; wanted 7.5 or more"
    return None


def _check(x: Tensor, bias: Tensor | None, alpha: float, save: str, impl: str | None) -> None:
    if x.ndim != 4 or x.shape[1] % 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; wanted (N, 2C, H, W): gate and feature halves on the channels")
    if not x.is_floating_point():
        raise TypeError(f"x has dtype {x.dtype}; wanted a floating point dtype")
    if bias is not None and bias.shape != x.shape[1:2]:
        raise ValueError(f"bias has shape {tuple(bias.shape)}; wanted ({x.shape[1]},), a number for each channel of x")
    if bias is not None and (bias.dtype not in (x.dtype, *TRITON_DTYPES) or bias.device != x.device):
        raise TypeError(
            f"bias is {bias.dtype} on {bias.device}; wanted {x.dtype} or a smaller float on {x.device}, as x"
        )
    if not alpha > 0:
        raise ValueError(f"alpha is {alpha}; wanted alpha > 0")
    if save not in ("x", "yg"):
        raise ValueError(f"save is {save!r}; wanted 'x' or 'yg'")
    if impl not in (None, "triton", "torch"):
        raise ValueError(f"impl is {impl!r}; wanted None, 'triton' or 'torch'")


def _widened(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """x + bias, in float32 where x has fewer bits."""
    x = x if x.dtype == torch.float64 else x.float()
    return x if bias is None else x + bias.view(1, -1, 1, 1)


def memory_format(x: Tensor) -> torch.memory_format:
    """The one layout rule, of the real and the fake kernels: channels_last where x is, else contiguous."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _empty(like: Tensor, channels: int) -> Tensor:
    n, _, h, w = like.shape
    return torch.empty((n, channels, h, w), dtype=like.dtype, device=like.device, memory_format=memory_format(like))


def _kernels(x: Tensor):
    """The module of the three passes for x's device."""
    if x.device.type == "cpu":
        return cpu_gated_elu
    from edgeconnect_kernels import triton_gated_elu

    return triton_gated_elu


@torch.library.custom_op("edgeconnect_kernels::gated_elu", mutates_args=())
def _forward_op(x: Tensor, bias: Tensor | None, alpha: float, save_gate: bool) -> tuple[Tensor, Tensor]:
    """y and, if asked for, the gates with their bias."""
    x = x.contiguous(memory_format=memory_format(x))
    y = _empty(x, x.shape[1] // 2)
    gate = torch.empty_like(y) if save_gate else y.new_empty(0)
    if y.numel():
        _kernels(x).forward(x, bias, alpha, y, gate if save_gate else None)
    return y, gate


@_forward_op.register_fake
def _(x, bias, alpha, save_gate):
    y = _empty(x, x.shape[1] // 2)
    return y, torch.empty_like(y) if save_gate else y.new_empty(0)


@torch.library.custom_op("edgeconnect_kernels::gated_elu_backward_from_x", mutates_args=())
def _backward_from_x_op(dy: Tensor, x: Tensor, bias: Tensor | None, alpha: float) -> Tensor:
    layout = memory_format(x)
    dx = _empty(x, x.shape[1])
    if dx.numel():
        dy, x = dy.contiguous(memory_format=layout), x.contiguous(memory_format=layout)
        _kernels(x).backward_from_x(dy, x, bias, alpha, dx)
    return dx


@_backward_from_x_op.register_fake
def _(dy, x, bias, alpha):
    return _empty(x, x.shape[1])


@torch.library.custom_op("edgeconnect_kernels::gated_elu_backward_from_yg", mutates_args=())
def _backward_from_yg_op(dy: Tensor, y: Tensor, gate: Tensor, alpha: float) -> Tensor:
    dx = _empty(y, 2 * y.shape[1])
    if dx.numel():
        _kernels(y).backward_from_yg(dy.contiguous(memory_format=memory_format(y)), y, gate, alpha, dx)
    return dx


@_backward_from_yg_op.register_fake
def _(dy, y, gate, alpha):
    return _empty(y, 2 * y.shape[1])


def _keep_for_backward(ctx, inputs, output) -> None:
    x, bias, ctx.alpha, ctx.from_yg = inputs
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.save_for_backward(*(output if ctx.from_yg else (x, bias)))
    ctx.set_materialize_grads(False)


def _differentiate(ctx, dy, _):
    if dy is None:
        return None, None, None, None
    backward = _backward_from_yg_op if ctx.from_yg else _backward_from_x_op
    dx = backward(dy, *ctx.saved_tensors, ctx.alpha)
    wanted = ctx.bias_dtype is not None and ctx.needs_input_grad[1]
    return dx, dx.sum((0, 2, 3), dtype=ctx.bias_dtype) if wanted else None, None, None


_forward_op.register_autograd(_differentiate, setup_context=_keep_for_backward)
