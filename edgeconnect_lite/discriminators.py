"""Discriminators: patch discriminators with spectral normalisation, and what they are shown beside the picture.

Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017, section 3.2.2 (patches);
Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

Condition = Literal["nothing", "mask", "mask+photo"]
GAIN = 2.0  # a layer of spectral norm 1 about halves its signal; four of them would leave the judge no voice


class PatchDiscriminator(nn.Module):
    """(N, in_channels, H, W) -> (logits (N, 1, H/8 - 2, W/8 - 2), features of each layer before it).

    Three convolutions of stride 2, one of stride 1, then the logits: one judgement per overlapping patch of 70 x 70 px.
    The features, a list of four tensors, are for losses.feature_matching_loss.
    """

    def __init__(self, in_channels: int, width: int = 32):
        super().__init__()
        widths = [in_channels, width, 2 * width, 4 * width, 8 * width]
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, 4, stride, padding=1))
            for a, b, stride in zip(widths, widths[1:], (2, 2, 2, 1))
        )
        self.outlet = nn.Conv2d(widths[-1], 1, 4, 1, padding=1)  # not normalised, and 0: the judge begins undecided
        nn.init.zeros_(self.outlet.weight)
        nn.init.zeros_(self.outlet.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = []
        x = x - 0.5
        for layer in self.layers:
            x = GAIN * F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.outlet(x), features


def condition_channels(condition: Condition, photo_channels: int) -> int:
    """How many channels discriminator_input adds to the picture: 0, 1 (mask), or 1 + photo_channels."""
    if condition not in get_args(Condition):
        raise ValueError(f"condition is {condition!r}; wanted one of {', '.join(get_args(Condition))}")
    return {"nothing": 0, "mask": 1, "mask+photo": 1 + photo_channels}[condition]


def discriminator_input(picture: Tensor, mask: Tensor, masked_photo: Tensor, condition: Condition) -> Tensor:
    """What the discriminator sees: the picture (an edge map or a photo) and, if conditioned, where the hole is.

    picture: (N, C, H, W). mask: (N, 1, H, W). masked_photo: (N, 1 or 3, H, W), gray in stage 1.
    """
    extra = {"nothing": [], "mask": [mask], "mask+photo": [mask, masked_photo]}[condition]
    return torch.cat([picture, *extra], dim=1)
