"""Runs: what a training run keeps in out/edge_generator/, out/image_generator/ or out/face_features/.

The network's weights (config.json, model.safetensors), training.json (the run's config), panel.png, log.jsonl, and
checkpoint.pt, from which --resume goes on exactly: the networks, the optimizers, the log's sums, the random state, the
config, the step and with it the place in the stream of samples. Each file but the growing log is written whole or not at
all, the checkpoint last; the one before it stays until then. So a run may be killed at any moment, and what it ends with
is the same to the last bit on one machine with the same number of threads and processes, on another up to rounding; another
number of processes draws other noise and weights its parts otherwise (lesson 10).
"""

import io
import json
import math
import os
import pickle
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from edgeconnect_lite.edges import merge_edges
from edgeconnect_lite.figures import tile
from edgeconnect_lite.inpainting import THRESHOLD, composite, predict_probability, to_rgb
from edgeconnect_lite.metrics import EdgeCounts, hole_psnr
from edgeconnect_lite.photos import write_bytes, write_picture
from edgeconnect_lite.samples import Sample, image_stage_input
from edgeconnect_lite.weights import one_line, save_network

CHECKPOINT = "checkpoint.pt"
FREE_TO_CHANGE = ("workers", "log_every", "checkpoint_minutes")  # settings that change no weight


class TrainingStopped(RuntimeError):
    """Training cannot go on; the message says why. A checkpoint that was written before stays as it is."""


def begin_run(config: Any, out: str | Path, resume: bool) -> Path:
    """Refuse to overwrite a run, check the numbers, set threads and seed. Returns the run's own folder, out/<config.stage>.

    What it sets holds for the process and stays: the number of threads, and that tiny numbers count as 0.

    Raises TrainingStopped where a checkpoint lies there already, ValueError for a number below 1.
    """
    folder = Path(out) / config.stage
    if not resume and (folder / CHECKPOINT).exists():
        raise TrainingStopped(f"{folder} holds a checkpoint already; pass --resume to go on, or another --out")
    for name in ("steps", "batch_size", "validation", "log_every"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}; wanted at least 1")
    if config.threads:
        torch.set_num_threads(config.threads)
        cv2.setNumThreads(config.threads)
    torch.set_flush_denormal(True)  # tiny gradients behind shut gates would slow a CPU down
    torch.manual_seed(config.seed)
    return folder


def learning_rate(config: Any, step: int) -> float:
    """A linear warm-up, then the peak, or half a cosine from it down to a hundredth of it at the last step."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


def set_learning_rate(config: Any, step: int, optimizer: Any, factor: float = 1.0) -> None:
    """The schedule's value for this step, times factor, in every group of the optimizer."""
    for group in optimizer.param_groups:
        group["lr"] = factor * learning_rate(config, step)


def check_finite(terms: dict[str, Tensor], step: int) -> None:
    """Stop on a loss term that is not finite, naming it."""
    for name, value in terms.items():
        if not torch.isfinite(value):
            raise TrainingStopped(
                f"step {step}: the loss term {name} is {value.item()}; a checkpoint that was written before stays"
            )


def progress(*given: Any, hidden: bool = False, **options: Any) -> tqdm:
    """A tqdm bar where a terminal or a notebook shows it, and the environment variable TQDM_DISABLE does not hide it."""
    return tqdm(*given, disable=True if hidden or os.environ.get("TQDM_DISABLE") else None, **options)


class Log:
    """The progress bar and out/log.jsonl: the mean of each term over log_every steps, and whether to save now."""

    def __init__(self, out: Path, config: Any, is_main_process: bool = True):
        self.path, self.config, self.is_main_process = out / "log.jsonl", config, is_main_process
        self.sums: dict[str, float] = {}
        self.count = 0

    def begin(self, start: int) -> None:
        """Make the folder and the bar, clear what a killed run left, take back what it logged after its checkpoint."""
        if start >= self.config.steps and self.is_main_process:
            print(f"{self.path.parent} has its {start} steps behind it already")
        self.saved = time.monotonic()
        self.bar = progress(total=self.config.steps, initial=start, unit="step", hidden=not self.is_main_process)
        if self.is_main_process:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for half_written in self.path.parent.glob(".*.part"):
                half_written.unlink()
            lines = self.path.read_text("utf-8").splitlines() if start and self.path.exists() else []
            kept = [line for line in lines if _is_logged_until(line, start)]
            write_bytes(self.path, "".join(f"{line}\n" for line in kept).encode())

    def __call__(self, step: int, terms: dict[str, Tensor]) -> bool:
        """Take one step's terms. Returns True when a checkpoint is due: every few minutes, and at the end."""
        self.bar.update()
        self.count += 1
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.item()
        last = step + 1 == self.config.steps
        if last or (step + 1) % self.config.log_every == 0:
            means = {name: value / self.count for name, value in self.sums.items()}
            self.sums, self.count = {}, 0
            self.bar.set_postfix({name: f"{value:.3f}" for name, value in means.items()})
            self.write(step, means)
        if last or time.monotonic() - self.saved > 60 * self.config.checkpoint_minutes:
            self.saved = time.monotonic()
            return True
        return False

    def write(self, step: int, values: dict[str, float]) -> None:
        """Append one line: the number of steps done, and the values."""
        if self.is_main_process:
            rounded = {name: round(value, 5) for name, value in values.items()}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step + 1, **rounded}) + "\n")

    def state_dict(self) -> dict[str, Any]:
        """The sums since the last line, for the checkpoint."""
        return {"sums": self.sums, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The other way."""
        self.sums, self.count = dict(state["sums"]), state["count"]


def _is_logged_until(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except ValueError:  # a line that a killed run did not finish
        return False


def save_checkpoint(out: Path, parts: dict[str, Any], step: int, config: Any, panel: np.ndarray | None = None) -> None:
    """Write the weights of the first part, then the checkpoint of all; each file whole or not at all.

    parts: name -> anything with state_dict() and load_state_dict(). panel: uint8 (H, W, 3), kept as panel.png.
    """
    if panel is not None:
        write_picture(out / "panel.png", panel)
    save_network(next(iter(parts.values())), out)
    write_bytes(out / "training.json", (json.dumps(asdict(config), indent=2) + "\n").encode())
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"step": step, "random_state": torch.get_rng_state(), "config": asdict(config)}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(out / CHECKPOINT, buffer.getvalue())


def load_checkpoint(out: Path, parts: dict[str, Any], config: Any) -> int:
    """Bring all parts to the state of out/checkpoint.pt. Returns the step to go on with.

    Raises TrainingStopped if there is none, if it is broken, or if the run had another config: exactly that goes on.
    """
    path = out / CHECKPOINT
    if not path.is_file():
        raise TrainingStopped(f"{path}: there is no checkpoint to resume from")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (EOFError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise TrainingStopped(f"{path}: broken checkpoint ({one_line(error)})") from None
    missing = [name for name in (*parts, "step", "random_state", "config") if name not in state]
    if missing:
        raise TrainingStopped(f"{path}: holds no {missing[0]}; made by another version of this package?")
    given, stored = asdict(config), state["config"]
    differences = [
        f"{name} was {stored.get(name, 'unknown')!r} and is {given.get(name, 'unknown')!r}"
        for name in sorted(stored.keys() | given.keys())
        if name not in FREE_TO_CHANGE and stored.get(name, "unknown") != given.get(name, "unknown")
    ]
    if differences:
        raise TrainingStopped(
            f"{path}: made with other settings than these: {'; '.join(differences)}. Give the old ones to resume, or "
            f"begin another run from its weights (--start-from {out.parent} and another --out)"
        )
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except (KeyError, RuntimeError, ValueError) as error:
        raise TrainingStopped(f"{path}: made by another version of this package? ({one_line(error)})") from None
    torch.set_rng_state(state["random_state"])
    return int(state["step"])


@torch.inference_mode()
def inspect_edges(generator: nn.Module, held_out: list[Sample]) -> tuple[dict[str, float], np.ndarray]:
    """Precision, recall and F1 in the hole on the held-out samples, and a panel: photo, true edges, prediction."""
    counts, rows = EdgeCounts(), []
    device = next(generator.parameters()).device
    for sample in held_out:
        batch = Sample(*(part[None].to(device) for part in sample))
        predicted = predict_probability(generator, batch)[0, 0].cpu()  # type: ignore[arg-type]
        counts.add((predicted > THRESHOLD).numpy(), sample.edges[0].numpy() > 0, sample.mask[0].numpy() > 0)
        rows.append([to_rgb(sample.photo * (1 - sample.mask)), sample.edges[0].numpy(), predicted.numpy()])
    return {"precision": counts.precision, "recall": counts.recall, "f1": counts.f1}, tile(rows[:6])


@torch.inference_mode()
def inspect_painting(generator: nn.Module, held_out: list[Sample]) -> tuple[dict[str, float], np.ndarray]:
    """Mean hole PSNR with true edges on the held-out samples, and a panel: masked photo, true edges, result, photo."""
    scores, rows = [], []
    device = next(generator.parameters()).device
    for sample in held_out:
        mask = sample.mask[0].numpy() > 0
        edges = torch.from_numpy(merge_edges(sample.known_edges[0].numpy(), sample.edges[0].numpy(), mask))[None]
        painted = generator(image_stage_input(sample, edges)[None].to(device))[0].cpu()
        photo = to_rgb(sample.photo)
        result = composite(photo, to_rgb(painted), mask)
        scores.append(hole_psnr(result, photo, mask))
        rows.append([to_rgb(sample.photo * (1 - sample.mask)), edges[0].numpy(), result, photo])
    return {"hole_psnr": float(np.mean(scores))}, tile(rows[:6])
