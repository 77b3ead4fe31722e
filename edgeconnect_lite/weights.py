"""Weights: a network as a folder of config.json and model.safetensors, stored as float16, loaded as float32.

safetensors: nothing that a reader opens can run code. A missing or wrong file is an error that names it, never random weights.
What a configuration claims costs nothing: names and shapes are held against the file's before any memory is taken for them.
"""

import contextlib
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any, get_type_hints

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from edgeconnect_lite.photos import write_bytes

SHIPPED = Path(str(files("edgeconnect_lite"))) / "assets" / "weights"
WEIGHT_FILES = ("config.json", "model.safetensors")
STAGE_NAMES = ("edge_generator", "image_generator")  # the folders that make a pair

HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
LONGEST_CONFIG, WIDEST = 1 << 16, 4096  # bytes; channels of a layer
BOUNDS = {"blocks": (0, 256), "decision": (0, WIDEST)}  # setting -> the least and the most, of others 1 and WIDEST
NUMBERS = ("F16", "BF16", "F32", "F64", "I64")  # safetensors' names of the dtypes that a network may be stored as


class BadWeights(ValueError):
    """A weights folder that is missing, incomplete or of another architecture; the message names the file."""


def one_line(error: Exception) -> str:
    """What an error says, on one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def weights_folder(path_or_hub_id: str | Path | None = None) -> Path:
    """Where a pair of weights lies on this disk: an existing folder, the shipped one for None, or a snapshot from the Hub."""
    if path_or_hub_id is None:
        return SHIPPED
    with contextlib.suppress(OSError):  # a name that is too long for one
        if Path(path_or_hub_id).is_dir():
            return Path(path_or_hub_id)
    name = str(path_or_hub_id)
    if isinstance(path_or_hub_id, Path) or not HUB_ID.fullmatch(name) or name.startswith(".") or ".." in name:
        raise BadWeights(f"{name}: there is no such folder; wanted one with {' and '.join(STAGE_NAMES)} in it")
    try:
        wanted = [f"{stage}/{file}" for stage in STAGE_NAMES for file in WEIGHT_FILES]
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        said = one_line(error)
        raise BadWeights(f"{name}: neither a folder here nor to be had from the Hugging Face Hub ({said})") from None


def trained_size(folder: str | Path) -> int:
    """The size of the photos that a pair of weights was trained on, px: what save_network noted, 128 where it noted nothing.

    folder: holds the stages' folders. Raises BadWeights where the two differ, a note is no size, or a file is broken.
    """
    sizes = {}
    for path in (Path(folder) / stage / WEIGHT_FILES[1] for stage in STAGE_NAMES):
        try:
            with safe_open(path, "pt") as file:
                said = (file.metadata() or {}).get("size")
        except (SafetensorError, OSError) as error:
            raise BadWeights(f"{path}: not a safetensors file that can be read ({one_line(error)})") from None
        if said is None:
            continue
        if not re.fullmatch(r"[1-9][0-9]{1,3}", said, re.ASCII):
            raise BadWeights(f"{path}: says that it was trained at {said[:40]!r} px; wanted 10 to 9999, or no note")
        sizes[path] = int(said)
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
    settings = read_config(config, kind)
    try:
        with torch.device("meta"):  # shapes without memory
            wanted = kind(**settings).state_dict()
        with safe_open(weights, "pt") as file:
            claimed = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            given = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in claimed.items()}
        check_shapes({name: tuple(value.shape) for name, value in wanted.items()}, given)
        network = kind(**settings)
        network.load_state_dict(load_file(weights), strict=True)  # copies into float32
    except SafetensorError as error:
        raise BadWeights(f"{weights}: not a safetensors file that can be read ({one_line(error)})") from None
    except OSError as error:
        raise BadWeights(f"{weights}: cannot be read ({one_line(error)})") from None
    except BadWeights as error:
        raise BadWeights(f"{weights}: weights of another architecture than {config} says ({error})") from None
    except (
        ArithmeticError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:  # the network's own, or torch's
        raise BadWeights(f"{config}: not a configuration of {kind.__name__} ({one_line(error)})") from None
    broken = [name for name, value in network.named_parameters() if not torch.isfinite(value).all()]
    if broken:
        raise BadWeights(f"{weights}: {broken[0]} holds values that are not finite")
    return network


def read_config(path: Path, kind: type[nn.Module]) -> dict[str, Any]:
    """The settings of a network: those that it has, each a whole number within bounds, or true or false. Raises BadWeights."""
    said = f"{path}: not a configuration of {kind.__name__}"
    if path.stat().st_size > LONGEST_CONFIG:
        raise BadWeights(f"{said} ({path.stat().st_size} bytes; wanted at most {LONGEST_CONFIG})")
    try:
        settings = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadWeights(f"{said} ({one_line(error)})") from None
    except OSError as error:
        raise BadWeights(f"{path}: cannot be read ({error.strerror})") from None
    if not isinstance(settings, dict):
        raise BadWeights(f"{said} ({type(settings).__name__}; wanted an object)")
    kinds = {name: of for name, of in get_type_hints(kind.__init__).items() if of in (int, bool)}
    for name, value in settings.items():
        if name not in kinds:
            raise BadWeights(f"{said} (holds {name[:40]!r}; wanted {', '.join(kinds) or 'nothing'})")
        least, most = BOUNDS.get(name, (1, WIDEST))
        if type(value) is not kinds[name] or (type(value) is int and not least <= value <= most):
            wanted = "true or false" if kinds[name] is bool else f"a whole number of {least} to {most}"
            raise BadWeights(f"{said} ({name} is {str(value)[:40]}; wanted {wanted})")
    return settings


def check_shapes(wanted: dict[str, tuple], given: dict[str, tuple[tuple, str]]) -> None:
    """Raises BadWeights where names, shapes or kinds of numbers differ."""
    for names, what in ((wanted.keys() - given.keys(), "holds no"), (given.keys() - wanted.keys(), "holds an unknown")):
        if names:
            raise BadWeights(f"{what} {min(names)[:80]}")
    for name, shape in wanted.items():
        if given[name][0] != shape:
            raise BadWeights(f"{name} is {given[name][0]}; wanted {shape}")
        if given[name][1] not in NUMBERS:
            raise BadWeights(f"{name} is of {given[name][1]}; wanted {', '.join(NUMBERS)}")


def save_network(network: Any, folder: str | Path, size: int | None = None) -> None:
    """Store a network as folder/{config.json, model.safetensors}, rounded to float16; each file whole or not at all.

    size: px of the photos that it was trained on, noted in model.safetensors for trained_size.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    config = json.dumps(network._hub_mixin_config or {}, indent=2)
    half = {
        name: value.detach().half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    contiguous = {name: value.cpu().contiguous() for name, value in half.items()}
    notes = {"size": str(size)} if size else {"format": "pt"}  # one alone: safetensors writes several in any order
    contents = (config.encode() + b"\n", save(contiguous, metadata=notes))
    for file, data in zip(WEIGHT_FILES, contents, strict=True):
        write_bytes(Path(folder) / file, data)
