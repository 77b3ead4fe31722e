"""Run parts: what a training run is made of, opened as its config says. The data, the generators, the optimizers."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from accelerate import Accelerator, DataLoaderConfiguration, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch import nn
from torch.utils.data import ConcatDataset, Subset

from edgeconnect_lite.data_sets import masks_at, open_data_set
from edgeconnect_lite.dilated import DilatedGenerator
from edgeconnect_lite.generators import ImageGenerator, UNet
from edgeconnect_lite.masks import MaskFolder, RandomMasks
from edgeconnect_lite.optimizers import Muon
from edgeconnect_lite.photos import FacePhotos, PhotoFolder
from edgeconnect_lite.samples import MixedPhotos, Sample, Samples, iterate_samples, shares
from edgeconnect_lite.weights import load_network, weights_folder

if TYPE_CHECKING:
    from edgeconnect_lite.training import ImageTraining, Training

Precision = Literal["no", "bf16"]  # not fp16: its loss scaler would be one more state to keep
Optimizer = Literal["muon", "adam"]
Network = Literal["unet", "dilated"]
Schedule = Literal["cosine", "constant"]
Photos = FacePhotos | PhotoFolder | MixedPhotos
_WEIGHTED = re.compile(r"(.+):([0-9]*\.?[0-9]+)")


def open_data(config: Training) -> tuple[Accelerator, Samples, list[Sample]]:
    """What the networks will see: the stream of training samples, and the fixed held-out ones that watch the run."""
    if config.precision not in get_args(Precision):
        raise ValueError(f"precision is {config.precision!r}; wanted one of {', '.join(get_args(Precision))}")
    if config.size < 32 or config.size % UNet.STRIDE:
        raise ValueError(
            f"size is {config.size}; wanted at least 32 px and a multiple of {UNet.STRIDE}, as 64, 128 or 256"
        )
    photos = open_photos(config.photos, config.size)
    masks = open_masks(config)
    train, held_out = keep_back(photos, config.validation)
    if min(len(train), len(held_out)) < 1 or len(train) < config.batch_size:
        raise ValueError(
            f"{config.photos}: {len(photos)} photos are too few; wanted {config.validation} + {config.batch_size}"
        )
    accelerator = open_accelerator(config)
    if config.threads:  # accelerate sets them where several processes run on CPUs
        torch.set_num_threads(config.threads)
    fixed = list(iterate_samples(held_out, masks, config.seed)) if accelerator.is_main_process else []
    return accelerator, Samples(train, masks, config.seed, roughen=config.roughen), fixed


def open_accelerator(config: Training) -> Accelerator:
    """This process's place among those that train together: each takes an equal part of every batch."""
    AcceleratorState._reset_state(reset_partial_state=False)  # a notebook may train twice, with another precision
    gray_alone = not getattr(config, "cross_entropy_weight", 1.0)  # then the decision's layers get no gradient
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),  # MPS only when asked, and nobody can ask yet
        mixed_precision=config.precision,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=gray_alone)],
    )
    if config.batch_size % accelerator.num_processes:
        raise ValueError(
            f"batch_size is {config.batch_size}; wanted a multiple of {accelerator.num_processes}, the number of processes"
        )
    return accelerator


def keep_back(photos: Any, count: int) -> tuple[Any, Any]:
    """All but the last `count` photos, and these. Of a mixture each source gives some, by its weight."""
    if not isinstance(photos, MixedPhotos):
        kept = max(len(photos) - count, 0)
        return part_of(photos, 0, kept), part_of(photos, kept, len(photos))
    pairs = [keep_back(source, share) for source, share in zip(photos.sources, shares(photos.weights, count))]
    if not all(len(train) for train, _ in pairs):
        return [], []
    train, held_out = zip(*pairs)
    return MixedPhotos(train, photos.weights), ConcatDataset([part for part in held_out if len(part)])


def part_of(photos: FacePhotos | PhotoFolder, start: int, end: int) -> Any:
    """Photos start to end - 1. Of files it has those alone, so that what takes a broken one's place is of the same part."""
    if not isinstance(photos, PhotoFolder):
        return Subset(photos, range(start, end))  # type: ignore[arg-type]
    part = copy.copy(photos)
    part.paths = photos.paths[start:end]
    return part


def open_photos(name: str, size: int) -> Photos:
    """ "faces" = the shipped ones; else a well-known set's root, a folder, a .txt list, a .zip: the training part of each.

    "faces:1,celeba:3" mixes sources by weights: here three of four samples are CelebA's. A weight left out is 1.
    """
    if not os.path.exists(name) and ("," in name or _WEIGHTED.fullmatch(name)):
        parts = [_WEIGHTED.fullmatch(part) or (part, part, "1") for part in map(str.strip, name.split(","))]
        return MixedPhotos([open_photos(part[1], size) for part in parts], [float(part[2]) for part in parts])
    return FacePhotos("train", size) if name == "faces" else open_data_set(name, size)


def open_masks(config: Training) -> RandomMasks | MaskFolder:
    """Kinds of generated masks, parted by commas, or a folder, .txt list or .zip of mask files (of Quick Draw's: train/)."""
    path = Path(config.masks)
    if os.path.isdir(path) or path.suffix.lower() in (".txt", ".zip"):
        return MaskFolder(masks_at(path), config.size, config.invert_masks)
    return RandomMasks(tuple(map(str.strip, config.masks.split(","))), config.size, config.hole_ratio)


def begin_with(config: Training, generator: Any) -> Any:
    """The generator with config.start_from's weights, or as it is where that is None.

    Raises weights.BadWeights if they cannot be had, ValueError if they belong to a generator of another size.
    """
    if config.start_from is None:
        return generator
    folder = weights_folder(None if config.start_from == "shipped" else config.start_from) / config.stage
    found = load_network(folder, type(generator))
    if found._hub_mixin_config != generator._hub_mixin_config:
        raise ValueError(
            f"{folder} holds a generator of {found._hub_mixin_config}; wanted {generator._hub_mixin_config}, as configured"
        )
    return found


def with_optimizers(generator: nn.Module, discriminator: nn.Module, config: Training) -> dict[str, Any]:
    """The four parts of a checkpoint, in the order in which the loops unpack them."""
    for network in (generator, discriminator):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return {
        "generator": generator,
        "discriminator": discriminator,
        "g_optimizer": open_optimizer(generator, config),
        "d_optimizer": torch.optim.Adam(
            discriminator.parameters(), config.learning_rate, config.discriminator_betas, fused=True
        ),
    }


def open_image_generator(config: ImageTraining) -> Any:
    """Stage 2's generator, or its peer, freshly initialised."""
    if config.network not in get_args(Network):
        raise ValueError(f"network is {config.network!r}; wanted one of {', '.join(get_args(Network))}")
    if config.network == "dilated":
        return DilatedGenerator(5, 3)
    return ImageGenerator(config.width, config.bottom, config.blocks, config.skips)


def open_optimizer(generator: nn.Module, config: Training) -> torch.optim.Optimizer:
    """The generator's optimizer."""
    if config.optimizer not in get_args(Optimizer):
        raise ValueError(f"optimizer is {config.optimizer!r}; wanted one of {', '.join(get_args(Optimizer))}")
    if config.optimizer == "muon":
        return Muon(generator.parameters(), config.learning_rate, betas=config.betas)
    return torch.optim.Adam(generator.parameters(), config.learning_rate, config.betas, fused=True)
