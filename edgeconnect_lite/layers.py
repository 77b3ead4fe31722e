"""Layers: the gated convolution, and the blocks that the generators are built of.

Yu et al., "Free-Form Image Inpainting with Gated Convolution", ICCV 2019, section 3.1, with ELU as the report has it.
A plain convolution treats hole pixels as zeros that mean something; the gate learns, per pixel and channel, what to trust.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from edgeconnect_kernels import gated_elu
from torch import Tensor, nn

GAIN = 2.3  # 1 / sqrt(E[(sigmoid(g) ELU(f))^2]) for g, f ~ N(0, 1): signals keep their size through many gated layers


class GatedConv2d(nn.Module):
    """One convolution with twice the channels, then sigmoid(gate) * ELU(feature); the op adds the convolution's bias.

    (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)). state_dict: conv.weight
    (2 * out_channels, in_channels, k, k), gate half first, and conv.bias. `save` may be set at any time: "yg" keeps
    the output and the gates for the backward pass instead of the convolution's result, a third less memory in a chain.
    Hooks belong on this layer: `conv` only holds the parameters, and is not called.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, dilation: int = 1):
        super().__init__()
        self.save: Literal["x", "yg"] = "x"
        padding = dilation * (kernel_size - 1) // 2
        self.conv = nn.Conv2d(in_channels, 2 * out_channels, kernel_size, stride, padding, dilation)
        nn.init.normal_(self.conv.weight, std=GAIN / (in_channels * kernel_size**2) ** 0.5)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        packed = F.conv2d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation)
        return gated_elu(packed, conv.bias, save=self.save)


class GatedDown(GatedConv2d):
    """Half the size: a gated convolution of stride 2. (N, C, H, W) -> (N, C', H/2, W/2)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, stride=2)


class GatedUp(GatedConv2d):
    """Twice the size, beside a skip if there is one: nearest neighbour, concatenate, one gated convolution.

    No transposed convolution, so no checkerboard. (N, C, H, W), skip (N, S, 2H, 2W) -> (N, C', 2H, 2W), C + S = in_channels.
    """

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:  # type: ignore[override]
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return super().forward(x if skip is None else torch.cat([x, skip], dim=1))


class ResidualBlock(nn.Module):
    """x + gated(gated(x)); the first convolution is dilated, to see further. (N, C, H, W) -> the same shape."""

    def __init__(self, channels: int, dilation: int = 1):
        super().__init__()
        self.first = GatedConv2d(channels, channels, dilation=dilation)
        self.second = GatedConv2d(channels, channels)
        nn.init.zeros_(self.second.conv.weight.data[channels:])  # the feature half: at first the block is the identity

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))
