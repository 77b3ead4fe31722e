"""Runs: what a training run keeps in out/edge_generator/, out/image_generator/ or out/face_features/.

The network's weights (config.json, model.safetensors), training.json (the run's config), panel.png, log.jsonl, and two
checkpoints (checkpoints.py), from which --resume goes on exactly: the networks, the optimizers, the log's sums, the random
state, the config, the step and with it the place in the stream of samples. Each file but the growing log is written whole or
not at all, the checkpoint last. So a run may be killed at any moment, and what it ends with is the same to the last bit on one
machine with the same number of threads and processes, and up to rounding everywhere else.
"""

import json
import math
import os
import signal
import threading
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm.auto import tqdm

from edgeconnect_lite.checkpoints import (
    TrainingStopped,
    holds_checkpoint,
    lock_folder,
    unlock_folder,
    write_checkpoint,
)
from edgeconnect_lite.photos import write_bytes, write_picture
from edgeconnect_lite.weights import one_line, save_network

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl+C; what a cluster sends before it kills


def begin_run(config: Any, out: str | Path, resume: bool) -> Path:
    """Refuse to overwrite a run, check the numbers, set threads and seed. Returns the run's own folder, out/<config.stage>.

    What it sets holds for the process and stays: the number of threads, that tiny numbers count as 0, and where it was asked
    for that only deterministic algorithms are used.

    Raises TrainingStopped where a checkpoint lies there already, ValueError for a number below 1.
    """
    folder = Path(out) / config.stage
    if not resume and holds_checkpoint(folder):
        raise TrainingStopped(f"{folder} holds a checkpoint already; pass --resume to go on, or another --out")
    for name in ("steps", "batch_size", "validation", "log_every"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}; wanted at least 1")
    if config.threads:
        torch.set_num_threads(config.threads)
        cv2.setNumThreads(config.threads)
    if getattr(config, "deterministic", False):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the GPU is first used
        torch.use_deterministic_algorithms(True)
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


def check_finite_weights(network: nn.Module, step: int) -> None:
    """Stop on a weight that is not finite, naming it."""
    for name, weight in network.named_parameters():
        if not torch.isfinite(weight).all():
            raise TrainingStopped(f"step {step}: the weight {name} is not finite; the checkpoint before stays")


def progress(*given: Any, hidden: bool = False, **options: Any) -> tqdm:
    """A tqdm bar where a terminal or a notebook shows it, and the environment variable TQDM_DISABLE does not hide it."""
    return tqdm(*given, disable=True if hidden or os.environ.get("TQDM_DISABLE") else None, **options)


class Log:
    """The progress bar and out/log.jsonl: the mean of each term over log_every steps, and whether to save now.

    `with log.begin(start):` around the steps keeps other runs out of the folder, and lets Ctrl+C and SIGTERM end the run after
    a step, saved. accelerator: where several processes train, the first of them writes, and all know the same.
    """

    def __init__(self, out: Path, config: Any, accelerator: Accelerator | None = None):
        self.path, self.config, self.accelerator = out / "log.jsonl", config, accelerator
        self.is_main_process = accelerator is None or accelerator.is_main_process
        self.processes = 1 if accelerator is None else accelerator.num_processes
        self.sums: dict[str, float] = {}
        self.count = 0
        self.asked: tuple[str, float] | None = None  # the signal that came to this process, and when
        self.stops = False  # what all processes know of it
        self.lock, self.handlers = None, {}

    def begin(self, start: int) -> "Log":
        """Make the folder and the bar, clear what a killed run left, take back what it logged after its checkpoint."""
        folder = self.path.parent
        if start >= self.config.steps and self.is_main_process:
            print(f"{folder} has its {start} steps behind it already")
        self.saved = time.monotonic()
        if self.is_main_process:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self.lock = lock_folder(folder)
                for half_written in folder.glob(".*.part"):
                    half_written.unlink()
                lines = self.path.read_text("utf-8", "replace").splitlines() if start and self.path.exists() else []
                kept = [line for line in lines if _is_logged_until(line, start)]
                write_bytes(self.path, "".join(f"{line}\n" for line in kept).encode())
            except OSError as error:
                unlock_folder(folder, self.lock)
                raise TrainingStopped(f"{folder}: cannot be written ({error.strerror or one_line(error)})") from None
        self.bar = progress(total=self.config.steps, initial=start, unit="step", hidden=not self.is_main_process)
        return self

    def __enter__(self) -> "Log":
        if threading.current_thread() is threading.main_thread():  # no other may
            self.handlers = {number: signal.signal(number, self.ask_to_stop) for number in STOP_SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.bar.close()
        unlock_folder(self.path.parent, self.lock)
        after = f"{self.path.parent} {self._goes_on()}"
        if isinstance(error, OSError):
            raise TrainingStopped(f"{one_line(error)}; {after}") from error
        if self.processes > 1 and isinstance(error, RuntimeError) and not isinstance(error, TrainingStopped):
            said = f"this process failed, or another process of this run has ended ({one_line(error)})"
            raise TrainingStopped(f"{said}; {after}") from error

    def ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        """The signals' handler. Whoever asks again, a second later, does not wait for the step."""
        if self.asked and time.monotonic() - self.asked[1] > 1:  # launchers pass on what the terminal has sent already
            raise KeyboardInterrupt
        self.asked = self.asked or (signal.Signals(number).name, time.monotonic())

    def share(self, step: int, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """The terms' means over the processes, which are those of the whole batch. Stops on one that is not finite, naming it.

        So no process goes on where another has stopped: all of them see the same numbers, and whether a signal came to one.
        """
        self.stops = self.asked is not None
        if self.accelerator is not None and self.processes > 1:
            mine = torch.stack([value.detach().double() for value in terms.values()])
            mean = self.accelerator.reduce(torch.cat([mine, mine.new_tensor([float(self.stops)])]), "mean")
            self.stops = mean[-1].item() > 0
            terms = dict(zip(terms, mean))  # type: ignore[arg-type]
        check_finite(terms, step)
        return terms

    def __call__(self, step: int, terms: dict[str, Tensor]) -> bool:
        """Take one step's terms. Returns True when a checkpoint is due: every few minutes, before a stop, and at the end."""
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
        if last or self.stops or time.monotonic() - self.saved > 60 * self.config.checkpoint_minutes:
            self.saved = time.monotonic()
            return True
        return False

    def write(self, step: int, values: dict[str, float]) -> None:
        """Append one line: the number of steps done, and the values."""
        if self.is_main_process:
            rounded = {name: round(value, 5) for name, value in values.items()}
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": step + 1, **rounded}) + "\n")
            except OSError as error:
                raise OSError(f"{self.path}: cannot be written ({error.strerror})") from None

    def stop_if_asked(self, step: int) -> None:
        """After a checkpoint: end the run here if a signal asked for it."""
        if self.stops and step + 1 < self.config.steps:
            if self.accelerator is not None:
                self.accelerator.wait_for_everyone()  # else a launcher would end who still saves
            signal_name = self.asked[0] if self.asked else "a signal to another process"
            raise TrainingStopped(
                f"stopped by {signal_name} after step {step + 1}; {self.path.parent} {self._goes_on()}"
            )

    def _goes_on(self) -> str:
        if holds_checkpoint(self.path.parent):
            return "holds the last checkpoint, from which --resume goes on"
        return "holds no checkpoint yet"

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
    for part in parts.values():
        if isinstance(part, nn.Module):
            check_finite_weights(part, step)
    if panel is not None:
        write_picture(out / "panel.png", panel)
    save_network(next(iter(parts.values())), out, config.size)
    write_bytes(out / "training.json", (json.dumps(asdict(config), indent=2) + "\n").encode())
    write_checkpoint(out, parts, step, config)
