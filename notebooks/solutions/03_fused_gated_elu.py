"""Solutions to the exercises of lesson 03. Try them yourself first: the checkers tell you where you stand."""

import torch
from edgeconnect_kernels.interpreter import tl, triton


def bytes_moved(shape, itemsize, save):
    n, channels, height, width = shape
    unit = n * (channels // 2) * height * width * itemsize
    forward = 2 + 1 + (1 if save == "yg" else 0)  # x, y, and the gate
    backward = 1 + 2 + 2  # dy; x, or y and the gate; the gradient of x
    return forward * unit, backward * unit


def backward_from_yg(dy, y, gate, alpha):
    dtype = y.dtype
    dy, y, gate = dy.float(), y.float(), gate.float()
    s = torch.sigmoid(gate)
    d_gate = dy * y * torch.sigmoid(-gate)
    d_feature = dy * torch.where(y > 0, s, y + alpha * s)
    return torch.cat([d_gate, d_feature], dim=1).to(dtype)


@triton.jit
def biased_kernel(x_ptr, bias_ptr, y_ptr, C, run, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    plane = tl.program_id(1).to(tl.int64)
    inside = i < run
    picture, c = plane // C, plane % C
    gates = x_ptr + (2 * picture * C + c) * run
    g = tl.load(gates + i, mask=inside) + tl.load(bias_ptr + c)
    f = tl.load(gates + C * run + i, mask=inside) + tl.load(bias_ptr + C + c)
    s = 1 / (1 + tl.exp(-g))
    y = s * tl.where(f > 0, f, tl.exp(f) - 1)
    tl.store(y_ptr + plane * run + i, y, mask=inside)
