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
    """

    STRIDE = 8

    def __init__(self, in_channels: int, out_channels: int, width: int, bottom: int, blocks: int):
        super().__init__()
        # H             H/2          H/4        H/8
        w1, w2, w3, w4 = width, 2 * width, 4 * width, bottom
        self.inlet = GatedConv2d(in_channels, w1)
        self.downs = nn.ModuleList([GatedDown(w1, w2), GatedDown(w2, w3), GatedDown(w3, w4)])
        self.blocks = nn.Sequential(*(ResidualBlock(w4, dilation=(1, 2, 4)[i % 3]) for i in range(blocks)))
        self.ups = nn.ModuleList([GatedUp(w4 + w3, w3), GatedUp(w3 + w2, w2), GatedUp(w2 + w1, w1)])
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
            x = up(x, skips.pop())
        return self.outlet(x)[..., :height, :width]


class EdgeGenerator(nn.Module, PyTorchModelHubMixin):
    """Stage 1: masked gray photo, known edges and mask (N, 3, H, W) -> logits of the whole edge map (N, 1, H, W).

    The probability of an edge is the sigmoid of the logit. About 2 million parameters.
    """

    def __init__(self, width: int = 16, bottom: int = 128, blocks: int = 3):
        super().__init__()
        self.unet = UNet(3, 1, width, bottom, blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.unet(x)


class ImageGenerator(nn.Module, PyTorchModelHubMixin):
    """Stage 2: masked photo, edge map and mask (N, 5, H, W) -> the painted photo (N, 3, H, W) in (0, 1).

    About 4 million parameters, the larger of the two.
    """

    def __init__(self, width: int = 20, bottom: int = 176, blocks: int = 3):
        super().__init__()
        self.unet = UNet(5, 3, width, bottom, blocks)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.unet(x))
