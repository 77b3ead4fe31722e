"""Generators: one U-Net body of gated convolutions with residual blocks at its bottom, and the two stages made of it.

U-Net: Ronneberger et al., MICCAI 2015. The residual bottom and the two stages: Nazeri et al., "EdgeConnect", 2019, section 3;
the sizes are ours. The first halving and the last doubling move pixels into channels and back (Shi et al., "Real-Time
Single Image ... Sub-Pixel Convolutional Neural Network", CVPR 2016, section 2.2), so no wide layer runs at full size.
Any picture size: the input is padded to a multiple of 8 inside and the output cropped.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from edgeconnect_lite.canny import CANNY_VIEW_CHANNELS, canny_view
from edgeconnect_lite.layers import GatedConv2d, GatedDown, GatedUp, ResidualBlock


class UNet(nn.Module):
    """(N, in_channels, H, W) -> (N, out_channels, H, W), three times down and up, skips, residual blocks at H/8.

    width: channels at H/2, twice that at H/4. bottom: channels at H/8. blocks: residual blocks there, dilated 1, 2, 4, 1, ...;
    where there are some, one more refines at H/2 before the outlet.
    skips: whether each step up is given what lay beside it on the way down. The report's three networks are blocks=0,
    skips=False (sequential); skips=False (+ residual bottom); and all of it (+ skips).
    """

    STRIDE = 8

    def __init__(self, in_channels: int, out_channels: int, width: int, bottom: int, blocks: int, skips: bool = True):
        super().__init__()
        self.skips = skips
        # H/2       H/4        H/8
        w1, w2, w3 = width, 2 * width, bottom
        self.inlet = GatedConv2d(4 * in_channels, w1)
        self.downs = nn.ModuleList([GatedDown(w1, w2), GatedDown(w2, w3)])
        self.blocks = nn.Sequential(*(ResidualBlock(w3, dilation=(1, 2, 4)[i % 3]) for i in range(blocks)))
        s1, s2 = (w1, w2) if skips else (0, 0)
        self.ups = nn.ModuleList([GatedUp(w3 + s2, w2), GatedUp(w2 + s1, w1)])
        self.last = ResidualBlock(w1) if blocks else nn.Identity()
        self.outlet = nn.Conv2d(w1, 4 * out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % self.STRIDE, 0, -height % self.STRIDE), mode="replicate")
        x = self.inlet(F.pixel_unshuffle(x, 2))
        skips = []
        for down in self.downs:
            skips.append(x)
            x = down(x)
        x = self.blocks(x)
        for up in self.ups:
            skip = skips.pop()
            x = up(x, skip if self.skips else None)
        return F.pixel_shuffle(self.outlet(self.last(x)), 2)[..., :height, :width]


def push_pull(picture: Tensor, mask: Tensor) -> Tensor:
    """Fill the hole smoothly from ever coarser averages of known pixels (Gortler et al., "The Lumigraph", 1996, sec. 3.4).

    Both generators begin with it, so that their first layers meet no step at the border of the hole and what is far away
    reaches its middle. picture: (N, C, H, W). mask: (N, 1, H, W), 1 = hole. Returns (N, C, H, W).
    """
    known = 1 - mask
    height, width = picture.shape[-2:]
    if height * width == 1:
        return picture * known
    pool = lambda x: F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)  # noqa: E731
    weight = pool(known)
    coarse = push_pull(pool(picture * known) / weight.clamp(min=1e-6), (weight == 0).to(mask.dtype))
    return picture * known + F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False) * mask


def place(x: Tensor) -> Tensor:
    """Where each pixel lies: rows and columns from -1 to 1, (N, 2, H, W). Faces are aligned, so it tells much."""
    rows, columns = (torch.linspace(-1, 1, side, device=x.device, dtype=x.dtype) for side in x.shape[-2:])
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(x), -1, -1, -1)


def repaint(filled: Tensor, change: Tensor, mask: Tensor) -> Tensor:
    """The fill, changed inside the hole on the logit scale, so that it stays in (0, 1). All (N, C or 1, H, W)."""
    painted = torch.sigmoid(torch.logit(filled, eps=0.01) + change)
    return filled * (1 - mask) + painted * mask


class EdgePrediction(NamedTuple):
    """What stage 1 gives."""

    logits: Tensor  # (N, 1, H, W): the probability of an edge is their sigmoid
    gray: Tensor  # (N, 1, H, W) in [0, 1]: the gray photo that it painted on its way, known pixels as they are


class EdgeGenerator(nn.Module, PyTorchModelHubMixin):
    """Stage 1: masked gray photo, known edges and mask (N, 3, H, W) -> logits of the whole edge map (N, 1, H, W).

    On its way it paints the gray photo, looks at it as Canny would (canny.py), and decides with both. About 4 million
    parameters. decision: channels of the last layers, at full size; 0 = none: the U-Net alone, as in the report, from its
    input straight to the logits.
    """

    FEATURES = 11  # what the U-Net hands to the decision beside the painted gray photo

    def __init__(self, width: int = 32, bottom: int = 160, blocks: int = 4, skips: bool = True, decision: int = 20):
        super().__init__()
        self.decision = None
        if decision == 0:
            self.unet = UNet(3, 1, width, bottom, blocks, skips)
            return
        self.unet = UNet(6, 1 + self.FEATURES, width, bottom, blocks, skips)
        nn.init.zeros_(self.unet.outlet.weight.data[:4])  # its gray photo begins near the fill
        seen = self.FEATURES + CANNY_VIEW_CHANNELS + 2
        self.decision = nn.Sequential(GatedConv2d(seen, decision), GatedConv2d(decision, decision))
        self.outlet = nn.Conv2d(decision, 1, 3, padding=1)

    def forward(self, x: Tensor) -> EdgePrediction:
        gray, known_edges, mask = x.split(1, dim=1)
        filled = push_pull(gray, mask)
        if self.decision is None:
            return EdgePrediction(self.unet(torch.cat([gray * (1 - mask), known_edges, mask], dim=1)), filled)
        given = [filled - 0.5, filled - filled.mean((2, 3), keepdim=True), known_edges, mask, place(gray)]
        change, features = self.unet(torch.cat(given, dim=1)).split((1, self.FEATURES), dim=1)
        painted = repaint(filled, change.float(), mask)
        seen = torch.cat([features, canny_view(painted).to(features.dtype), known_edges, mask], dim=1)
        return EdgePrediction(self.outlet(self.decision(seen)), painted)


class ImageGenerator(nn.Module, PyTorchModelHubMixin):
    """Stage 2: masked photo, edge map and mask (N, 5, H, W) -> the painted photo (N, 3, H, W) in (0, 1).

    About 6 million parameters, the larger of the two.
    """

    def __init__(self, width: int = 40, bottom: int = 192, blocks: int = 4, skips: bool = True):
        super().__init__()
        self.unet = UNet(7, 3, width, bottom, blocks, skips)

    def forward(self, x: Tensor) -> Tensor:
        masked_photo, edges, mask = x.split((3, 1, 1), dim=1)
        filled = push_pull(masked_photo, mask)
        change = self.unet(torch.cat([filled - 0.5, edges, mask, place(mask)], dim=1))
        return torch.sigmoid(torch.logit(filled, eps=0.01) + change)  # it learns what the fill lacks
