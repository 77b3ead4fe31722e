"""Attributes: what the face features learn to say of the rendered faces, from clean and damaged crops.

Pose, hair, glasses, beard, smile and light are in the faces' table; sex, age and ancestry are there too and play no part.
The trained network is features.FaceFeatures; its card: assets/weights/face_features/README.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from edgeconnect_lite.checkpoints import load_checkpoint
from edgeconnect_lite.features import CHOICES, NUMBERS, ODDS, FaceFeatures
from edgeconnect_lite.masks import stroke_mask
from edgeconnect_lite.metrics import telea
from edgeconnect_lite.photos import FacePhotos
from edgeconnect_lite.runs import Log, begin_run, save_checkpoint, set_learning_rate
from edgeconnect_lite.samples import batches, epoch_order, jitter_colours, to_tensor
from edgeconnect_lite.steps import take_step

MIRRORED = ("yaw", "roll", "light_azimuth")  # these change sign in a mirrored picture


@dataclass(frozen=True)
class FeatureTraining:
    """How the shipped face features were trained."""

    stage: ClassVar[str] = "face_features"
    schedule: ClassVar[str] = "cosine"
    size: int = 112  # px, the crop out of a face of 128 that was scaled by 0.9 to 1.15
    damaged: float = 0.5  # share of damaged crops
    validation: int = 250  # faces kept back from training, from the end of the set
    steps: int = 3500
    batch_size: int = 16
    learning_rate: float = 2e-3  # the peak: a linear warm-up, then a cosine down to a hundredth
    weight_decay: float = 0.05
    warmup: int = 200  # steps
    seed: int = 0
    workers: int = 1
    threads: int = 0  # CPU threads of torch, 0 = all
    log_every: int = 50  # steps
    checkpoint_minutes: float = 5.0


def damage(photo: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Blur, noise, JPEG blocks and a badly filled hole, each by a random amount up to `strength` in [0, 1].

    photo: uint8 (H, W, 3). At strength 1: blur of up to sigma 4 px, noise of up to 50 gray levels, JPEG quality down
    to 5, a hole in half of the pictures, filled with its mean colour, by Telea, or with noise. 0 changes nothing.
    """
    if not strength:
        return photo
    amounts = strength * rng.uniform(0.3, 1, 3)
    parts = rng.random(4) < 0.6
    if not parts[:3].any():
        parts[rng.integers(3)] = True
    if parts[3] and rng.random() < strength:
        photo = fill_badly(photo, stroke_mask(rng, photo.shape[0]), rng)
    if parts[0]:
        photo = cv2.GaussianBlur(photo, (0, 0), max(4 * amounts[0], 0.1))
    if parts[1]:
        noisy = photo + rng.normal(0, 50 * amounts[1], photo.shape)
        photo = np.clip(np.round(noisy), 0, 255).astype(np.uint8)
    if parts[2]:
        quality = round(95 - 90 * amounts[2])
        _, data = cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, quality])
        photo = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return photo


def fill_badly(photo: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A hole as poor inpainting leaves it. photo: uint8 (H, W, 3). mask: bool (H, W), never full."""
    kind = rng.integers(3)
    if kind == 0:
        return telea(photo, mask)
    fill = photo[~mask].mean(0) if kind == 1 else rng.integers(0, 256, photo.shape)
    return np.where(mask[..., None], fill, photo).astype(np.uint8)


class FaceCrops(Dataset):
    """An endless stream of (crop (3, S, S) in [0, 1], what is true of it), decided by (seed, k)."""

    def __init__(self, config: FeatureTraining):
        self.config, self.faces = config, FacePhotos("train")
        self.targets = attribute_targets(self.faces.records)

    def __getitem__(self, k: int) -> tuple[Tensor, dict[str, Tensor]]:
        config, rng = self.config, np.random.default_rng([self.config.seed, k, 3])
        epoch, place = divmod(k, len(self.faces) - config.validation)
        index = int(epoch_order(config.seed, epoch, len(self.faces) - config.validation)[place])
        target = {name: values[index] for name, values in self.targets.items()}
        photo = random_crop(self.faces[index], config.size, rng)
        if rng.random() < 0.5:
            photo = np.ascontiguousarray(photo[:, ::-1])
            target |= {name: -target[name] for name in MIRRORED}
        photo = jitter_colours(photo, rng, 0.2)
        if rng.random() < config.damaged:
            photo = damage(photo, rng, rng.uniform(0, 0.8))
        return to_tensor(photo), target


def random_crop(photo: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """Scale by 0.9 to 1.15, then cut side x side px somewhere. photo: uint8 (H, H, 3). Returns uint8 (side, side, 3)."""
    size = round(photo.shape[0] * rng.uniform(0.9, 1.15))
    scaled = cv2.resize(photo, (size, size), interpolation=cv2.INTER_LINEAR)
    top, left = rng.integers(0, size - side + 1, 2)
    return scaled[top : top + side, left : left + side]


def attribute_targets(records: list[dict[str, str]]) -> dict[str, Tensor]:
    """The table's columns as tensors of length N: numbers as they are, glasses and beard 0 or 1, hair as class numbers."""
    targets = {name: torch.tensor([float(row[name]) for row in records]) for name in (*NUMBERS, *ODDS)}
    return targets | {
        name: torch.tensor([names.index(row[name]) for row in records]) for name, names in CHOICES.items()
    }


def attribute_losses(said: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, Tensor]:
    """One term an attribute: smooth L1 in units of the spread, cross-entropy for the rest (a yes weighs thrice).

    said: FaceFeatures.describe's answer for N faces. target: as attribute_targets gives it. Returns name -> ().
    """
    terms = {
        name: F.smooth_l1_loss(said[name] / spread, target[name] / spread, beta=0.3) for name, spread in NUMBERS.items()
    }
    for name in ODDS:
        yes = said[name].new_tensor(3.0)
        terms[name] = F.binary_cross_entropy_with_logits(said[name], target[name], pos_weight=yes)
    return terms | {name: 0.5 * F.cross_entropy(said[name], target[name]) for name in CHOICES}


def train_features(config: FeatureTraining, out: str | Path, resume: bool = False) -> FaceFeatures:
    """Train the face features. All that it keeps lies in out/face_features/ (runs.py)."""
    if not 16 <= config.size <= 115:
        raise ValueError(f"size is {config.size}; wanted 16 to 115 px (a face of 128 px, scaled by 0.9)")
    crops = FaceCrops(config)
    count = len(crops.faces)
    if config.validation >= count:
        raise ValueError(f"validation is {config.validation}; wanted less than the {count} faces")
    out = begin_run(config, out, resume)
    network = FaceFeatures().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    log = Log(out, config)
    parts = {"network": network, "optimizer": optimizer, "log": log}
    start = load_checkpoint(out, parts, config) if resume else 0
    held_out = range(count - config.validation, count)
    stream = batches(crops, config.batch_size, config.steps, start, config.workers)
    with log.begin(start):
        for step, (crop, target) in enumerate(stream, start):
            set_learning_rate(config, step, optimizer)
            terms = log.share(step, attribute_losses(network.train().describe(crop), target))
            torch.stack(list(terms.values())).sum().backward()
            take_step(network, optimizer, step)
            if log(step, terms):
                log.write(step, measure_attributes(network, "train", held_out))
                save_checkpoint(out, parts, step + 1, config)
                log.stop_if_asked(step)
    return network.eval()


@torch.inference_mode()
def measure_attributes(
    network: FaceFeatures, split: Literal["train", "test"] = "test", numbers: Iterable[int] | None = None
) -> dict[str, float]:
    """How well the network describes undamaged faces: mean absolute error of the numbers in their units (degrees;
    smile 0 to 1), balanced accuracy of glasses and beard, accuracy of hair and hair_colour."""
    faces = FacePhotos(split)
    chosen = list(range(len(faces)) if numbers is None else numbers)
    said = [network.eval().describe(to_tensor(faces[i])[None]) for i in chosen]
    truth = {name: values[chosen] for name, values in attribute_targets(faces.records).items()}
    found = {name: torch.cat([each[name] for each in said]) for name in truth}
    scores = {name: (found[name] - truth[name]).abs().mean() for name in NUMBERS}
    for name in ODDS:
        right = (found[name] > 0) == (truth[name] > 0.5)
        scores[name] = torch.stack([right[truth[name] == answer].float().mean() for answer in (0, 1)]).mean()
    scores |= {name: (found[name].argmax(1) == truth[name]).float().mean() for name in CHOICES}
    return {name: value.item() for name, value in scores.items()}
