"""Generators: one U-Net body of gated convolutions with residual blocks at its bottom, and the two stages made of it.

U-Net: Ronneberger et al., MICCAI 2015. The residual bottom and the two stages: Nazeri et al., "EdgeConnect", 2019, section 3;
the sizes are ours. Any picture size: the input is padded to a multiple of 8 inside and the output cropped.
"""

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from edgeconnect_lite.layers import GatedConv2d, GatedDown, GatedUp, ResidualBlock


class UNet(nn.Module):
    """(N, in_channels, H, W) -> (N, out_channels, H, W), three times down and up, skips, residual blocks at H/8.

    width: channels at full size. bottom: channels at H/8. blocks: residual blocks there, dilated 1, 2, 4, 1, 2, 4, ...
    skips: whether each step up is given what lay beside it on the way down. The report's three networks are blocks=0,
    skips=False (sequential); skips=False (+ residual bottom); and all of it (+ skips).
    """

    STRIDE = 8

    def __init__(self, in_channels: int, out_channels: int, width: int, bottom: int, blocks: int, skips: bool = True):
        super().__init__()
        self.skips = skips
        # H             H/2          H/4        H/8
        w1, w2, w3, w4 = width, 2 * width, 4 * width, bottom
        self.inlet = GatedConv2d(in_channels, w1)
        self.downs = nn.ModuleList([GatedDown(w1, w2), GatedDown(w2, w3), GatedDown(w3, w4)])
        self.blocks = nn.Sequential(*(ResidualBlock(w4, dilation=(1, 2, 4)[i % 3]) for i in range(blocks)))
        s1, s2, s3 = (w1, w2, w3) if skips else (0, 0, 0)
        self.ups = nn.ModuleList([GatedUp(w4 + s3, w3), GatedUp(w3 + s2, w2), GatedUp(w2 + s1, w1)])
        self.outlet = nn.Conv2d(w1, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % self.STRIDE, 0, -height % self.STRIDE), mode="replicate")
        x = self.inlet(x)
        skips = []
        for down in self.downs:
            skips.append(x)
            x = down(x)
        x = self.blocks(x)
        for up in self.ups:
            skip = skips.pop()
            x = up(x, skip if self.skips else None)
        return self.outlet(x)[..., :height, :width]


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


def blurred_gradient(gray: Tensor) -> Tensor:
    """What Canny thresholds: the gradient after a blur of sigma = 1 px, and its length. (N, 1, H, W) -> (N, 3, H, W).

    Measured in gray levels of 255 per Sobel step over 64, so that Canny's thresholds of 25 and 60 lie near 0.4 and 1.
    """
    place = torch.arange(-4, 5, device=gray.device, dtype=gray.dtype)
    blur = torch.exp(-place.square() / 2)
    blur = (blur / blur.sum())[None, None]
    smooth, slope = (  # the blur, then a Sobel step along the edge and across it
        F.conv1d(blur, blur.new_tensor([[step]]), padding=2)[0, 0] for step in ([1.0, 2.0, 1.0], [1.0, 0.0, -1.0])
    )
    along_x = torch.outer(smooth, slope)
    kernels = torch.stack([along_x, along_x.T])[:, None] * (255 / 64)
    gradient = F.conv2d(F.pad(gray, (5, 5, 5, 5), mode="replicate"), kernels)
    return torch.cat([gradient, gradient.square().sum(1, keepdim=True).add(1e-8).sqrt()], dim=1)


class EdgeGenerator(nn.Module, PyTorchModelHubMixin):
    """Stage 1: masked gray photo, known edges and mask (N, 3, H, W) -> logits of the whole edge map (N, 1, H, W).

    The probability of an edge is the sigmoid of the logit. About 2 million parameters.
    """

    def __init__(self, width: int = 16, bottom: int = 128, blocks: int = 3, skips: bool = True):
        super().__init__()
        self.unet = UNet(6, 1, width, bottom, blocks, skips)

    def forward(self, x: Tensor) -> Tensor:
        gray, known_edges, mask = x.split(1, dim=1)
        filled = push_pull(gray, mask)
        return self.unet(torch.cat([filled - 0.5, blurred_gradient(filled), known_edges, mask], dim=1))


class ImageGenerator(nn.Module, PyTorchModelHubMixin):
    """Stage 2: masked photo, edge map and mask (N, 5, H, W) -> the painted photo (N, 3, H, W) in (0, 1).

    About 4 million parameters, the larger of the two.
    """

    def __init__(self, width: int = 20, bottom: int = 176, blocks: int = 3, skips: bool = True):
        super().__init__()
        self.unet = UNet(5, 3, width, bottom, blocks, skips)

    def forward(self, x: Tensor) -> Tensor:
        masked_photo, edges, mask = x.split((3, 1, 1), dim=1)
        filled = push_pull(masked_photo, mask)
        change = self.unet(torch.cat([filled - 0.5, edges, mask], dim=1))
        return torch.sigmoid(torch.logit(filled, eps=0.01) + change)  # it begins as the fill and learns what that lacks
