"""Perceptual features, for the perceptual and the style loss: the layers of VGG19, or our own face features offline.

VGG19: Simonyan and Zisserman, "Very Deep Convolutional Networks", ICLR 2015, table 1, column E. The parameters have
torchvision's names (features.0.weight, ...), so its weight file loads; torchvision itself is not needed. Its 548 MB cannot
be had everywhere, so a small network that attributes.py trained to describe the rendered faces comes with the package.
"""

import hashlib
import pickle
import re
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from edgeconnect_lite.weights import SHIPPED, load_network, one_line

VGG19_FILE = "vgg19-dcbb9e9d.pth"  # as torch.hub names it: the eight digits begin the file's SHA-256
VGG19_URL = f"https://download.pytorch.org/models/{VGG19_FILE}"
VGG19_WIDTHS = (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512)
CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28)  # their places in torchvision's `features`


class FeaturesNotFound(FileNotFoundError):
    """The weights of a feature network cannot be had; the message names the choices."""


Features = Literal["auto", "vgg19", "faces", "random"]


def choose_features(choice: Features, vgg19: str | Path | None = None) -> Features:
    """What "auto" means here: "vgg19" where its weights are at hand (vgg19: their file), else "faces".

    Raises ValueError for any other choice than those of Features.
    """
    if choice not in get_args(Features):
        raise ValueError(f"features are {choice!r}; wanted one of {', '.join(get_args(Features))}")
    if choice != "auto":
        return choice
    return "vgg19" if vgg19 or vgg19_path(vgg19).is_file() else "faces"


def open_features(choice: Features = "auto", vgg19: str | Path | None = None) -> nn.Module:
    """A frozen feature network: photo (N, 3, H, W) in [0, 1] -> a list of five tensors. Nothing is downloaded.

    "random": VGG19's layers with weights that nothing was learned with, to see what the learning is worth (experiment d).
    Raises FeaturesNotFound where VGG19 is asked for and its weights are not there.
    """
    choice = choose_features(choice, vgg19)
    if choice == "faces":
        return load_face_features()
    return VGG19Features(random_vgg19() if choice == "random" else vgg19)


class VGG19Features(nn.Module):
    """Photo (N, 3, H, W) in [0, 1] -> relu1_1, relu2_1, relu3_1, relu4_1, relu5_1, a list of five tensors.

    weights: a .pth or .safetensors file, or what load_vgg19 makes of one; None = torch.hub's cache. The parameters are
    frozen. Nothing is downloaded.
    """

    TAPS = (1, 6, 11, 20, 29)  # places of the five ReLUs in torchvision's `features`

    def __init__(self, weights: str | Path | dict[str, Tensor] | None = None):
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
        state = weights if isinstance(weights, dict) else load_vgg19(weights)
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


def vgg19_path(weights: str | Path | None = None) -> Path:
    """The given file, or where torch.hub would keep it."""
    return Path(weights) if weights else Path(torch.hub.get_dir()) / "checkpoints" / VGG19_FILE


def load_vgg19(weights: str | Path | None = None) -> dict[str, Tensor]:
    """Read VGG19's state_dict and check it: the hash in a .pth file's name, and every name that we need."""
    path = vgg19_path(weights)
    if not path.is_file():
        raise FeaturesNotFound(
            f"VGG19's weights are not at {path}. Choices: download {VGG19_URL} (548 MB) to that place; pass the path of a "
            f"copy (.pth or .safetensors); or take the face features that come with this package (--features faces)"
        )
    if path.suffix == ".safetensors":
        try:
            state = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: not a safetensors file that can be read ({one_line(error)})") from None
    else:
        wanted = re.search(r"-([0-9a-f]{8,})\.pth$", path.name)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if wanted is None or not digest.startswith(wanted[1]):
            raise ValueError(
                f"{path}: its SHA-256 begins with {digest[:8]}; wanted the digits in its name, as in {VGG19_FILE}"
            )
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)  # tensors alone: nothing in it can run
        except (EOFError, KeyError, OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path}: not a file of weights that can be read ({one_line(error)})") from None
    if not isinstance(state, dict):
        raise ValueError(f"{path}: holds {type(state).__name__}; wanted a dictionary of tensors")
    missing = [
        name for i in CONVOLUTIONS for name in (f"features.{i}.weight", f"features.{i}.bias") if name not in state
    ]
    if missing:
        raise ValueError(f"{path}: holds no {missing[0]}; wanted VGG19 with torchvision's parameter names")
    return state


def random_vgg19(seed: int = 0) -> dict[str, Tensor]:
    """A state_dict like load_vgg19's: normal weights, no biases, each layer scaled so that activations keep unit size.

    He et al., ICCV 2015, eq. 10, gives the weights' spread; the poolings, which that leaves out, are made up for on one
    smooth random picture, where the root mean square after each ReLU is then 1.
    """
    generator = torch.Generator().manual_seed(seed)
    x = F.interpolate(torch.randn(1, 3, 8, 8, generator=generator), scale_factor=8, mode="bilinear")
    state: dict[str, Tensor] = {}
    place = 0
    for width in VGG19_WIDTHS:
        if isinstance(width, int):
            weight = torch.randn(width, x.shape[1], 3, 3, generator=generator) * (2 / (9 * x.shape[1])) ** 0.5
            x = F.relu(F.conv2d(x, weight, padding=1))
            size = x.square().mean().sqrt()
            x = x / size
            state |= {f"features.{place}.weight": weight / size, f"features.{place}.bias": torch.zeros(width)}
        else:
            x = F.max_pool2d(x, 2)
        place += 2 if isinstance(width, int) else 1  # a ReLU follows each convolution
    return state


HAIR = (
    "bald", "bob01", "bob02", "braid01", "long01", "ponytail01", "shell_afro", "shell_buzz", "shell_short",
    "short01", "short02", "short03", "short04",
)  # fmt: skip
HAIR_COLOURS = (
    "auburn", "black", "blond", "brown", "darkbrown", "grey", "lightbrown", "platinum", "red", "white"
)  # fmt: skip
NUMBERS = {
    "yaw": 12.0,
    "pitch": 5.0,
    "roll": 3.0,
    "light_azimuth": 40.0,
    "smile": 0.3,
}  # name -> its spread in the faces
ODDS = ("glasses", "beard")  # yes or no
CHOICES = {"hair": HAIR, "hair_colour": HAIR_COLOURS}


class FaceFeatures(nn.Module, PyTorchModelHubMixin):
    """Photo (N, 3, H, W) in [0, 1] -> a list of five tensors, C x H x W of 24, 48, 96, 160, 224 at 1, 1/2 ... 1/16 size.

    1.3 million parameters, trained by attributes.py to say how a face is turned, lit and worn, from clean and damaged
    crops (never sex, age or ancestry). Any size of at least 16 px.
    """

    WIDTHS = (24, 48, 96, 160, 224)

    def __init__(self):
        super().__init__()
        stages, before = [], 3
        for i, width in enumerate(self.WIDTHS):
            layers = [ConvNormReLU(before, width, stride=2 if i else 1)]
            stages.append(nn.Sequential(*layers, *([ConvNormReLU(width, width)] if i else [])))
            before = width
        self.stages = nn.ModuleList(stages)
        self.head = nn.Linear(before, len(NUMBERS) + len(ODDS) + sum(len(names) for names in CHOICES.values()))

    def forward(self, photo: Tensor, levels: int = len(WIDTHS)) -> list[Tensor]:
        x = (photo - 0.5) / 0.25
        found = []
        for stage in self.stages[:levels]:  # type: ignore[index]
            x = stage(x)
            found.append(x)
        return found

    def embed(self, photo: Tensor) -> Tensor:
        """What face-feature distances compare: mean and standard deviation of each of the third features, (N, 192).

        The last features were trained to see a face through damage; these, lines and textures at 1/4 size, notice it.
        """
        x = self(photo, levels=3)[-1]
        return torch.cat([x.mean(dim=(2, 3)), x.std(dim=(2, 3))], dim=1)

    def describe(self, photo: Tensor) -> dict[str, Tensor]:
        """What the network says of each face; the columns are those of the faces' table (assets/faces-128.md).

        yaw, pitch, roll, light_azimuth: degrees, (N,). smile: 0 to about 1, (N,). glasses, beard: logits, (N,).
        hair, hair_colour: logits over HAIR (N, 13) and HAIR_COLOURS (N, 10).
        """
        sizes = [1] * (len(NUMBERS) + len(ODDS)) + [len(names) for names in CHOICES.values()]
        columns = self.head(self(photo)[-1].mean(dim=(2, 3))).split(sizes, dim=1)
        said = dict(zip((*NUMBERS, *ODDS, *CHOICES), columns, strict=True))
        said |= {name: said[name][:, 0] * spread for name, spread in NUMBERS.items()}
        return said | {name: said[name][:, 0] for name in ODDS}


class ConvNormReLU(nn.Sequential):
    """3 x 3 convolution, batch normalisation, ReLU. (N, in_channels, H, W) -> (N, channels, H / stride, W / stride)."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1):
        convolution = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def load_face_features(folder: str | Path = SHIPPED / "face_features") -> FaceFeatures:
    """The shipped face features (or those of another folder), frozen. Raises weights.BadWeights, naming the file."""
    return load_network(folder, FaceFeatures).requires_grad_(False).eval()
