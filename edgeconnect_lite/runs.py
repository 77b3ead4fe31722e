"""Runs: what a training run keeps in out/edge_generator/ or out/image_generator/.

The generator's weights (config.json, model.safetensors), checkpoint.pt, training.json (its config), log.jsonl and
panel.png. Each file but the growing log is written whole or not at all. A checkpoint holds the generator, the
discriminator, both optimizers and the step; data and noise are functions of (seed, step), so a resumed run goes on where
it stopped.
"""

import copy
import io
import json
import pickle
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm.auto import tqdm

from edgeconnect_lite.edges import merge_edges
from edgeconnect_lite.figures import tile
from edgeconnect_lite.inpainting import STAGES, THRESHOLD, WEIGHT_FILES, composite, one_line, to_rgb
from edgeconnect_lite.metrics import EdgeCounts, hole_psnr
from edgeconnect_lite.photos import write_bytes, write_picture
from edgeconnect_lite.samples import Sample, edge_stage_input, image_stage_input

CHECKPOINT = "checkpoint.pt"


class TrainingStopped(RuntimeError):
    """Training cannot go on; the message says why. A checkpoint that was written before stays as it is."""


class Log:
    """The progress bar and out/log.jsonl: the mean of each term over log_every steps, and whether to save now."""

    def __init__(self, out: Path, start: int, config: Any, is_main_process: bool = True):
        if start >= config.steps and is_main_process:
            print(f"{out} has {start} steps behind it already; steps = {config.steps} asks for no more")
        out.mkdir(parents=True, exist_ok=True)
        self.path, self.config, self.sums, self.count = out / "log.jsonl", config, {}, 0
        self.bar = tqdm(total=config.steps, initial=start, unit="step", disable=None if is_main_process else True)
        self.is_main_process, self.saved = is_main_process, time.monotonic()
        if is_main_process:  # a resumed run takes back what was logged after its checkpoint
            lines = self.path.read_text("utf-8").splitlines(keepends=True) if start and self.path.exists() else []
            write_bytes(self.path, "".join(line for line in lines if json.loads(line)["step"] <= start).encode())

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
        if self.is_main_process:
            rounded = {name: round(value, 5) for name, value in values.items()}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step + 1, **rounded}) + "\n")


def save_checkpoint(
    accelerator: Accelerator, out: Path, parts: dict[str, Any], step: int, config: Any, panel: np.ndarray
) -> None:
    """Write the checkpoint and the generator's weights, each file whole or not at all; only the main process writes."""
    if not accelerator.is_main_process:
        return
    buffer = io.BytesIO()
    torch.save({"step": step, **{name: part.state_dict() for name, part in parts.items()}}, buffer)
    write_bytes(out / CHECKPOINT, buffer.getvalue())
    write_bytes(out / "training.json", (json.dumps(asdict(config), indent=2) + "\n").encode())
    write_picture(out / "panel.png", panel)
    save_weights(parts["generator"], out.parent)


def load_checkpoint(out: Path, parts: dict[str, Any]) -> int:
    """Bring the four parts to the state of out/checkpoint.pt. Returns the step to go on with."""
    path = out / CHECKPOINT
    if not path.is_file():
        raise TrainingStopped(f"{path}: there is no checkpoint to resume from")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (EOFError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise TrainingStopped(f"{path}: broken checkpoint ({one_line(error)})") from None
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except (KeyError, RuntimeError, ValueError) as error:
        raise TrainingStopped(f"{path}: made with other settings than these ({one_line(error)})") from None
    return int(state["step"])


def save_weights(generator: nn.Module, folder: str | Path) -> None:
    """Store a generator as folder/{edge,image}_generator/{config.json, model.safetensors}, rounded to float16."""
    name = next(name for name, kind in STAGES.items() if isinstance(generator, kind))
    half = copy.deepcopy(generator).to(memory_format=torch.contiguous_format).half()  # type: ignore[call-overload]
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        half.save_pretrained(temporary)
        (Path(folder) / name).mkdir(exist_ok=True)
        for file in WEIGHT_FILES:
            write_bytes(Path(folder) / name / file, (Path(temporary) / file).read_bytes())


@torch.inference_mode()
def inspect_edges(generator: nn.Module, held_out: list[Sample]) -> tuple[dict[str, float], np.ndarray]:
    """Precision, recall and F1 in the hole on the held-out samples, and a panel: photo, true edges, prediction."""
    counts, rows = EdgeCounts(), []
    device = next(generator.parameters()).device
    for sample in held_out:
        predicted = torch.sigmoid(generator(edge_stage_input(sample)[None].to(device)))[0, 0].cpu()
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
