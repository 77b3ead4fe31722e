"""The gated ELU as a pair of Triton kernels: one pass over memory forward, one backward.

For every output element the forward kernel reads two numbers and writes one (plain torch: sigmoid, ELU and product read
and write seven). Offsets within one picture are counted from a 64-bit base, so tensors of more than 2^31 elements work.
Arithmetic is in float32 whatever the dtype in memory. The mathematics is in gated_elu.py.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _gated_elu_forward_kernel(x_ptr, y_ptr, chw, alpha, BLOCK: tl.constexpr):
    n = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < chw
    x_ptr += n * 2 * chw
    g = tl.load(x_ptr + i, mask=inside, other=0.0).to(tl.float32)
    f = tl.load(x_ptr + chw + i, mask=inside, other=0.0).to(tl.float32)
    s = tl.sigmoid(g)
    elu = tl.where(f > 0, f, alpha * (tl.exp(tl.minimum(f, 0.0)) - 1.0))
    tl.store(y_ptr + n * chw + i, (s * elu).to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _gated_elu_backward_kernel(x_ptr, dy_ptr, dx_ptr, chw, alpha, BLOCK: tl.constexpr):
    n = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < chw
    x_ptr += n * 2 * chw
    dx_ptr += n * 2 * chw
    g = tl.load(x_ptr + i, mask=inside, other=0.0).to(tl.float32)
    f = tl.load(x_ptr + chw + i, mask=inside, other=0.0).to(tl.float32)
    dy = tl.load(dy_ptr + n * chw + i, mask=inside, other=0.0).to(tl.float32)
    s = tl.sigmoid(g)
    exp_f = tl.exp(tl.minimum(f, 0.0))
    elu = tl.where(f > 0, f, alpha * (exp_f - 1.0))
    dg = dy * elu * s * (1.0 - s)
    df = dy * s * tl.where(f > 0, 1.0, alpha * exp_f)
    tl.store(dx_ptr + i, dg.to(dx_ptr.dtype.element_ty), mask=inside)
    tl.store(dx_ptr + chw + i, df.to(dx_ptr.dtype.element_ty), mask=inside)


def _launch(kernel, batch: int, chw: int, arguments: tuple, block: int) -> None:
    """One program per `block` elements of one picture; batches beyond the grid's limit of 65,535 go in pieces."""
    with torch.cuda.device_of(arguments[0]):  # Triton launches on the current device, which need not be the tensor's
        for first in range(0, batch, 65_535):
            pieces = [tensor[first : first + 65_535] for tensor in arguments[:-1]]
            kernel[(triton.cdiv(chw, block), len(pieces[0]))](*pieces, chw, arguments[-1], BLOCK=block)


def forward(x: Tensor, alpha: float, block: int = BLOCK) -> Tensor:
    """x: (N, 2C, H, W) float32, float16 or bfloat16. Returns y (N, C, H, W), contiguous."""
    x = x.contiguous()
    y = x.new_empty(x.shape[0], x.shape[1] // 2, *x.shape[2:])
    if y.numel():
        _launch(_gated_elu_forward_kernel, x.shape[0], y[0].numel(), (x, y, alpha), block)
    return y


def backward(x: Tensor, dy: Tensor, alpha: float, block: int = BLOCK) -> Tensor:
    """x: (N, 2C, H, W), dy: (N, C, H, W). Returns dx, shaped like x."""
    x, dy = x.contiguous(), dy.contiguous()
    dx = torch.empty_like(x)
    if dy.numel():
        _launch(_gated_elu_backward_kernel, x.shape[0], dy[0].numel(), (x, dy, dx, alpha), block)
    return dx
