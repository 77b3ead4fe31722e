"""Weights: a network as a folder of config.json and model.safetensors, stored as float16, loaded as float32.

safetensors: nothing that a reader opens can run code. A missing or wrong file is an error that names it, never random weights.
"""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from edgeconnect_lite.photos import write_bytes

SHIPPED = Path(str(files("edgeconnect_lite"))) / "assets" / "weights"
WEIGHT_FILES = ("config.json", "model.safetensors")
TRAINING = "training.json"  # beside them where the package trained the network: the run's config
STAGE_NAMES = ("edge_generator", "image_generator")  # the folders that make a pair


class BadWeights(ValueError):
    """A weights folder that is missing, incomplete or of another architecture; the message names the file."""


def one_line(error: Exception) -> str:
    """What an error says, on one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def weights_folder(path_or_hub_id: str | Path | None = None) -> Path:
    """Where a pair of weights lies on this disk: an existing folder, the shipped one for None, or a snapshot from the Hub."""
    if path_or_hub_id is None:
        return SHIPPED
    if Path(path_or_hub_id).is_dir():
        return Path(path_or_hub_id)
    name = str(path_or_hub_id)
    if isinstance(path_or_hub_id, Path) or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise BadWeights(f"{name}: there is no such folder; wanted one with {' and '.join(STAGE_NAMES)} in it")
    try:
        wanted = [f"{stage}/{file}" for stage in STAGE_NAMES for file in (*WEIGHT_FILES, TRAINING)]
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        said = one_line(error)
        raise BadWeights(f"{name}: neither a folder here nor to be had from the Hugging Face Hub ({said})") from None


def trained_size(folder: str | Path) -> int:
    """The size of the photos that a pair of weights was trained on, px: what its runs say, 128 where they say nothing.

    folder: holds the stages' folders. Raises BadWeights where the two differ or a file is broken.
    """
    sizes = {}
    for path in (Path(folder) / stage / TRAINING for stage in STAGE_NAMES):
        if path.is_file():
            try:
                sizes[path] = json.loads(path.read_text("utf-8"))["size"]
            except (ValueError, KeyError, TypeError, OSError):
                sizes[path] = None
            if type(sizes[path]) is not int or sizes[path] < 1:
                raise BadWeights(
                    f"{path}: says no size of photos; wanted the config of a training run, or no such file"
                )
    if len(set(sizes.values())) > 1:
        said = " and ".join(f"{path.parent.name} at {size} px" for path, size in sizes.items())
        raise BadWeights(f"{folder}: {said}; wanted two stages that were trained at one size")
    return next(iter(sizes.values()), 128)


def load_network(folder: str | Path, kind: type[nn.Module]) -> Any:
    """Load one network, checked: every parameter there, none left over, each of the right shape. float32.

    folder: holds config.json and model.safetensors. kind: EdgeGenerator, ImageGenerator, FaceFeatures. Raises BadWeights.
    """
    config, weights = (Path(folder) / file for file in WEIGHT_FILES)
    for path in (config, weights):
        if not path.is_file():
            raise BadWeights(f"{path}: there is no such file; wanted the weights of {kind.__name__}")
    try:
        network = kind(**json.loads(config.read_text("utf-8")))
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise BadWeights(f"{config}: not a configuration of {kind.__name__} ({error})") from None
    try:
        network.load_state_dict(load_file(weights), strict=True)  # copies into float32
    except SafetensorError as error:
        raise BadWeights(f"{weights}: not a safetensors file that can be read ({error})") from None
    except RuntimeError as error:
        raise BadWeights(f"{weights}: weights of another architecture than {config} says ({one_line(error)})") from None
    broken = [name for name, value in network.named_parameters() if not torch.isfinite(value).all()]
    if broken:
        raise BadWeights(f"{weights}: {broken[0]} holds values that are not finite")
    return network


def save_network(network: Any, folder: str | Path) -> None:
    """Store a network as folder/{config.json, model.safetensors}, rounded to float16; each file whole or not at all."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    config = json.dumps(network._hub_mixin_config or {}, indent=2)
    half = {
        name: value.detach().half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    contiguous = {name: value.cpu().contiguous() for name, value in half.items()}
    contents = (config.encode() + b"\n", save(contiguous, metadata={"format": "pt"}))
    for file, data in zip(WEIGHT_FILES, contents, strict=True):
        write_bytes(Path(folder) / file, data)
