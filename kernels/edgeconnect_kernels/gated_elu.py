"""The gated ELU, the activation of every gated convolution here: y = sigmoid(g) * ELU_alpha(f).

One convolution gives x (N, 2C, H, W): gate g first, feature f second, as the student report has it. Gating: Yu et al.,
"Free-Form Image Inpainting with Gated Convolution", ICCV 2019, eq. 2; ELU: Clevert et al., ICLR 2016, eq. 15.

With s = sigmoid(g), and dy the gradient that arrives at y:

    dg = dy * ELU(f) * s * (1 - s)
    df = dy * s * (1 if f > 0 else alpha * exp(f))

Only x is kept for the backward pass (3 units of C*H*W with y), where plain autograd keeps every intermediate (5).
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def gated_elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """sigmoid(gate) * ELU(feature) of a packed tensor.

    x: (N, 2C, H, W), floating point, any memory format; channels [0, C) are the gate, [C, 2C) the feature.
    alpha: > 0, ELU's value at minus infinity, negated. Returns (N, C, H, W) in x's dtype.
    Raises ValueError on another shape or alpha, TypeError on another dtype.
    On a CUDA GPU with Triton this is one fused kernel forward and one backward; elsewhere torch operations.
    """
    if x.ndim != 4 or x.shape[1] % 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; wanted (N, 2C, H, W): gate and feature halves on the channels")
    if not x.is_floating_point():
        raise TypeError(f"x has dtype {x.dtype}; wanted a floating point dtype")
    if not alpha > 0:
        raise ValueError(f"alpha is {alpha}; wanted alpha > 0")
    if torch.compiler.is_compiling():
        return gated_elu_reference(x, alpha)  # plain operations, which Inductor fuses by itself
    return _GatedELU.apply(x, alpha)


def gated_elu_reference(x: Tensor, alpha: float = 1.0) -> Tensor:
    """The same by torch's own sigmoid and ELU: what every other path is checked against."""
    gate, feature = x.chunk(2, dim=1)
    return torch.sigmoid(gate) * torch.nn.functional.elu(feature, alpha)


def runs_on_triton(x: Tensor) -> bool:
    """Whether x is where the Triton kernels run: an NVIDIA GPU, a dtype that they take, and triton installed."""
    if not x.is_cuda or torch.version.cuda is None or x.dtype == torch.float64:
        return False
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


class _GatedELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, alpha: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.alpha = alpha
        if runs_on_triton(x):
            from edgeconnect_kernels.triton_gated_elu import forward

            return forward(x, alpha)
        gate, feature = x.chunk(2, dim=1)
        return torch.nn.functional.elu(feature, alpha).mul_(torch.sigmoid(gate))

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor):
        (x,) = ctx.saved_tensors
        if runs_on_triton(x):
            from edgeconnect_kernels.triton_gated_elu import backward

            return backward(x, dy, ctx.alpha), None
        dx = torch.empty_like(x)
        (gate, feature), (dg, df) = x.chunk(2, dim=1), dx.chunk(2, dim=1)
        s = torch.sigmoid(gate)
        elu = torch.nn.functional.elu(feature, ctx.alpha)
        torch.mul(dy, s, out=df)
        torch.mul(df, elu, out=dg)
        dg.mul_(1 - s)
        df.mul_(torch.where(feature > 0, 1.0, ctx.alpha * feature.clamp(max=0).exp()))
        return dx, None
