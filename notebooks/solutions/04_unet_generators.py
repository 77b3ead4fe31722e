"""Solutions to the exercises of lesson 04. Try them yourself first: the checkers tell you where you stand."""

import torch
import torch.nn.functional as F


def padded_size(height, width, stride=8):
    return height + -height % stride, width + -width % stride


def receptive_field(layers):
    field = step = 1  # step: how far apart two neighbouring pixels lie, in pixels of the input
    for kernel, stride, dilation in layers:
        field += dilation * (kernel - 1) * step
        step *= stride
    return field


def step_up(x, skip, conv):
    x = F.interpolate(x, scale_factor=2, mode="nearest")
    if skip is None:
        return conv(x)
    height, width = skip.shape[-2:]
    return conv(torch.cat([x[..., :height, :width], skip], dim=1))
