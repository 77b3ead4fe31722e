"""Free sizes: what the generators compute with the picture's size in Python, computed with tensors, for export.py.

A trace fixes what Python computed: how deep the pyramid of the fill goes, how wide Canny's blur is, how much is padded. Each of
these functions has a twin here that gives the same numbers for any size, and takes its place while a network is traced, and
then alone; the package itself never runs them. tests/test_export.py holds each twin against what it replaces.
"""

import contextlib
from collections.abc import Iterator
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeconnect_lite import canny, generators

SMALLEST, LARGEST = 16, 1024  # px of a side


@contextlib.contextmanager
def sizes_as_tensors() -> Iterator[None]:
    """While a network is traced: the twins below in the place of what computes with its size in Python."""
    swaps = (
        (generators, "push_pull", push_pull),
        (generators, "place", place),
        (generators.UNet, "forward", padded_forward),
        (canny, "blurred_gradient", blurred_gradient),
    )
    with contextlib.ExitStack() as stack:
        for owner, name, twin in swaps:
            stack.enter_context(mock.patch.object(owner, name, twin))
        yield


SYMBOLIC = 2  # levels of the pyramid whose arrays have the picture's size / 2^level; all the others, LARGEST / 2^level


def push_pull(picture: Tensor, mask: Tensor) -> Tensor:
    """generators.push_pull with a pyramid that is always as deep as LARGEST asks for; beyond 1 x 1, levels repeat it.

    From the second level on the arrays have fixed sizes, and the picture lies in their corner; halving and doubling are
    products with matrices, in which the picture's own size at each level is a number in a tensor.
    """
    sides, levels = picture.shape[-2:], LARGEST.bit_length() - 1
    arrays = [
        [(side + 2**level - 1) // 2**level for side in sides] if level < SYMBOLIC else [LARGEST // 2**level] * 2
        for level in range(levels + 1)
    ]
    true = [torch.stack([picture.new_full((1,), side) for side in sides])]  # (2, 1) at each level
    for _ in range(levels):
        true.append(torch.ceil(true[-1] / 2))
    total, known, kept = picture * (1 - mask), 1 - mask, []
    for level in range(levels):
        kept.append((total, known))
        both = torch.cat([total, known], dim=1)
        if level < SYMBOLIC:
            rows, columns = (halving(*sizes, picture) for sizes in zip(arrays[level], arrays[level + 1]))
            both = rows @ both @ columns.T
        else:
            both = F.avg_pool2d(both, 2)
        total, weight = both.split([picture.shape[1], 1], dim=1)
        total, known = total / weight.clamp(min=1e-6), (weight > 0).to(picture.dtype)
    filled = total
    for level in reversed(range(levels)):
        total, known = kept[level]
        if level < SYMBOLIC:
            rows, columns = (
                doubling(*sizes, picture)
                for sizes in zip(arrays[level], arrays[level + 1], true[level], true[level + 1])
            )
        else:
            rows, columns = doubling(arrays[level][0], arrays[level + 1][0], true[level], true[level + 1], picture)
        filled = total + (rows @ filled @ columns.T) * (1 - known)
    return filled


def halving(fine: int, coarse: int, like: Tensor) -> Tensor:
    """(coarse, fine): half of each of two neighbours."""
    rows, columns = (torch.arange(side, device=like.device) for side in (coarse, fine))
    return (rows[:, None] == columns // 2).to(like.dtype) / 2


def doubling(fine: int, coarse: int, true_fine: Tensor, true_coarse: Tensor, like: Tensor) -> Tensor:
    """F.interpolate's linear weights from true_coarse to true_fine pixels, tensors: (1,) -> (fine, coarse), (2, 1) -> two."""
    rows, columns = (torch.arange(side, device=like.device, dtype=like.dtype) for side in (fine, coarse))
    at = torch.minimum(((rows + 0.5) * (true_coarse / true_fine) - 0.5).clamp(min=0), true_coarse - 1)
    return (1 - (at[..., None] - columns).abs()).clamp(min=0)


def place(x: Tensor) -> Tensor:
    """generators.place without linspace, whose number of steps a trace fixes."""
    rows, columns = (torch.arange(side, device=x.device, dtype=x.dtype) * 2 / (side - 1) - 1 for side in x.shape[-2:])
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(x.shape[0], -1, -1, -1)


unet_forward = generators.UNet.forward


def padded_forward(unet: generators.UNet, x: Tensor) -> Tensor:
    """UNet.forward with its padding to the stride, and the cut back, as indices: no size modulo 8 enters the trace."""
    height, width = x.shape[-2:]
    stride = unet.STRIDE
    for dim, side in ((2, height), (3, width)):
        padded = torch.arange(stride * ((side + stride - 1) // stride), device=x.device)
        x = x.index_select(dim, padded.clamp(max=side - 1))
    y = unet_forward(unet, x)
    for dim, side in ((2, height), (3, width)):
        y = y.index_select(dim, torch.arange(side, device=x.device))
    return y


RADIUS = len(canny.bell_in_256ths(canny.blur_sigma((LARGEST, LARGEST)))) // 2  # of the widest blur


def blurred_gradient(gray: Tensor) -> Tensor:
    """canny.blurred_gradient, forward alone, with the blur's weights in a tensor of the widest blur's size."""
    bell = bell_in_256ths(gray.shape[-2], gray.shape[-1], gray) / 256
    x = 255 * gray
    for dim in (2, 3):
        side = gray.shape[dim]
        inward = (torch.arange(-RADIUS, side + RADIUS, device=gray.device)).abs()
        x = x.index_select(dim, (side - 1 - (side - 1 - inward).abs()).clamp(min=0))  # mirrored at both borders
    blurred = F.conv2d(F.conv2d(x, bell.view(1, 1, 1, -1)), bell.view(1, 1, -1, 1))
    blurred = (blurred + 0.5).floor()
    smooth, slope = gray.new_tensor([1.0, 2.0, 1.0]), gray.new_tensor([-1.0, 0.0, 1.0])
    along_x = torch.outer(smooth, slope)
    return F.conv2d(F.pad(blurred, (1, 1, 1, 1), mode="replicate"), torch.stack([along_x, along_x.T])[:, None])


def bell_in_256ths(height: int, width: int, like: Tensor) -> Tensor:
    """canny.bell_in_256ths of the picture's blur, with zeros around it to 2 RADIUS + 1 numbers.

    There each weight hands its rounding to the next: the sums from the outside in are rounded sums.
    """
    shorter = like.new_full((), torch.sym_min(height, width), dtype=torch.float64)
    sigma = (shorter / 128).clamp(0.3, LARGEST / 128)
    radius = torch.floor(torch.round(6 * sigma + 1) / 2)  # (n | 1) // 2 = n // 2
    steps = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64, device=like.device)
    bell = torch.exp(-((steps / sigma) ** 2) / 2) * (steps.abs() <= radius)
    sums = torch.round(torch.cumsum(256 * bell / bell.sum(), 0)[:RADIUS])
    outer = torch.diff(sums, prepend=sums.new_zeros(1))
    return torch.cat([outer, 256 - 2 * outer.sum(0, keepdim=True), outer.flip(0)]).to(like.dtype)
