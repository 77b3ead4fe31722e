"""The peer of the benchmarks and of experiment a: the dilated residual generator of the two-stage literature.

Nazeri et al., "EdgeConnect", ICCV Workshops 2019, section 3 and appendix A, written from the text: plain convolutions, instance
normalisation, two halvings, eight residual blocks of dilation 2, two doublings. 10.8 million parameters. Nothing of ours is in
it: no gate, no fill, no skip.
"""

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class DilatedBlock(nn.Module):
    """x + norm(conv(relu(norm(dilated conv(x))))). (N, C, H, W) -> the same shape."""

    def __init__(self, channels: int, normed):
        super().__init__()
        self.layers = nn.Sequential(
            normed(nn.Conv2d(channels, channels, 3, padding=2, dilation=2, padding_mode="reflect")),
            nn.InstanceNorm2d(channels),
            nn.ReLU(),
            normed(nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect")),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class DilatedGenerator(nn.Module, PyTorchModelHubMixin):
    """(N, in_channels, H, W) -> (N, out_channels, H, W) in (0, 1): sides that are multiples of 4, at least 16.

    Stage 1: 3 channels to 1, spectral=True (normalisation of its convolutions). Stage 2: 5 channels to 3.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int = 64, blocks: int = 8, spectral: bool = False):
        super().__init__()
        normed = spectral_norm if spectral else lambda layer: layer
        w1, w2, w3 = width, 2 * width, 4 * width
        layers: list[nn.Module] = [normed(nn.Conv2d(in_channels, w1, 7, padding=3, padding_mode="reflect"))]
        layers += [nn.InstanceNorm2d(w1), nn.ReLU()]
        for a, b in ((w1, w2), (w2, w3)):
            layers += [normed(nn.Conv2d(a, b, 4, stride=2, padding=1)), nn.InstanceNorm2d(b), nn.ReLU()]
        layers += [DilatedBlock(w3, normed) for _ in range(blocks)]
        for a, b in ((w3, w2), (w2, w1)):
            layers += [normed(nn.ConvTranspose2d(a, b, 4, stride=2, padding=1)), nn.InstanceNorm2d(b), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(w1, out_channels, 7, padding=3, padding_mode="reflect"))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.layers(x))
