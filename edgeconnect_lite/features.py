"""Perceptual features: the layers of VGG19, for the perceptual and the style loss.

Simonyan and Zisserman, "Very Deep Convolutional Networks", ICLR 2015, table 1, column E. The parameters have torchvision's
names (features.0.weight, ...), so its weight file loads; torchvision itself is not needed.
"""

import hashlib
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

VGG19_FILE = "vgg19-dcbb9e9d.pth"  # as torch.hub names it: the eight digits begin the file's SHA-256
VGG19_URL = f"https://download.pytorch.org/models/{VGG19_FILE}"
VGG19_WIDTHS = (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512)
CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28)  # their places in torchvision's `features`


class FeaturesNotFound(FileNotFoundError):
    """The weights of a feature network cannot be had; the message names the choices."""


class VGG19Features(nn.Module):
    """Photo (N, 3, H, W) in [0, 1] -> relu1_1, relu2_1, relu3_1, relu4_1, relu5_1, a list of five tensors.

    weights: a .pth or .safetensors file; None = torch.hub's cache. The parameters are frozen. Nothing is downloaded.
    """

    TAPS = (1, 6, 11, 20, 29)  # places of the five ReLUs in torchvision's `features`

    def __init__(self, weights: str | Path | None = None):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in VGG19_WIDTHS:
            if isinstance(width, int):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[: self.TAPS[-1] + 1])
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)
        state = load_vgg19(weights)
        self.load_state_dict({name: state[name] for name in self.state_dict()})
        self.requires_grad_(False).eval()

    def forward(self, photo: Tensor) -> list[Tensor]:
        x = (photo - self.get_buffer("mean")) / self.get_buffer("std")
        if min(x.shape[-2:]) < 32:  # smaller, and the four poolings leave nothing
            x = F.interpolate(x, size=[max(side, 32) for side in x.shape[-2:]], mode="bilinear")
        found = []
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in self.TAPS:
                found.append(x)
        return found


def load_vgg19(weights: str | Path | None = None) -> dict[str, Tensor]:
    """Read VGG19's state_dict and check it: the hash in a .pth file's name, and every name that we need."""
    path = Path(weights) if weights else Path(torch.hub.get_dir()) / "checkpoints" / VGG19_FILE
    if not path.is_file():
        raise FeaturesNotFound(
            f"VGG19's weights are not at {path}. Choices: download {VGG19_URL} (548 MB) to that place; pass the path of a "
            f"copy (.pth or .safetensors); or train without them (--perceptual-weight 0 --style-weight 0)"
        )
    if path.suffix == ".safetensors":
        state = load_file(path)
    else:
        wanted = re.search(r"-([0-9a-f]{8,})\.pth$", path.name)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if wanted is None or not digest.startswith(wanted[1]):
            raise ValueError(
                f"{path}: its SHA-256 begins with {digest[:8]}; wanted the digits in its name, as in {VGG19_FILE}"
            )
        state = torch.load(path, map_location="cpu", weights_only=True)
    missing = [
        name for i in CONVOLUTIONS for name in (f"features.{i}.weight", f"features.{i}.bias") if name not in state
    ]
    if missing:
        raise ValueError(f"{path}: holds no {missing[0]}; wanted VGG19 with torchvision's parameter names")
    return state
