"""Solutions to the exercises of lesson 02. Try them yourself first: the checkers tell you where you stand."""

import torch
import torch.nn.functional as F


def gated_activation(x):
    gate, feature = x.chunk(2, dim=1)
    return torch.sigmoid(gate) * F.elu(feature)


def gated_backward(x, dy):
    gate, feature = x.chunk(2, dim=1)
    s = torch.sigmoid(gate)
    d_gate = dy * s * (1 - s) * F.elu(feature)
    d_feature = dy * s * torch.where(feature > 0, 1.0, feature.exp())
    return torch.cat([d_gate, d_feature], dim=1)


def residual_block(x, first, second, dilation):
    y = gated_activation(F.conv2d(x, *first, padding=dilation, dilation=dilation))
    return x + gated_activation(F.conv2d(y, *second, padding=1))
