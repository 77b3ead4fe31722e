"""Checkpoints: what a run can go on from, and that nobody else writes beside it.

checkpoint.pt is torch's own zip, which holds a checksum of every record; it is read without running any code of it. The one
before it stays as checkpoint-before.pt: where the newest is broken, the run goes on from there, and says so.
"""

import contextlib
import io
import os
import platform
import shlex
import socket
import sys
import warnings
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import accelerate
import cv2
import numpy as np
import torch

import edgeconnect_lite
from edgeconnect_lite.photos import write_bytes
from edgeconnect_lite.weights import one_line

CHECKPOINT, BEFORE, BROKEN, LOCK = "checkpoint.pt", "checkpoint-before.pt", "checkpoint-broken.pt", ".lock"
FREE_TO_CHANGE = ("workers", "log_every", "checkpoint_minutes", "threads")  # they change no weight but by rounding
BITS_DEPEND_ON = ("torch", "accelerate", "numpy", "opencv", "machine", "device", "threads", "processes")


class TrainingStopped(RuntimeError):
    """Training cannot go on; the message says why. A checkpoint that was written before stays as it is."""


class CheckpointWarning(UserWarning):
    """A run goes on, but not from the newest checkpoint, or not to the same bits."""


def holds_checkpoint(out: Path) -> bool:
    """Is there anything to resume from?"""
    return any((out / name).exists() for name in (CHECKPOINT, BEFORE))


def environment() -> dict[str, Any]:
    """What a run's bits depend on beside its config, and the command that began it."""
    packages = {
        "edgeconnect-lite": edgeconnect_lite,
        "torch": torch,
        "accelerate": accelerate,
        "numpy": np,
        "opencv": cv2,
    }
    return {name: str(package.__version__) for name, package in packages.items()} | {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "processes": torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def write_checkpoint(out: Path, parts: dict[str, Any], step: int, config: Any) -> None:
    """Write the newest checkpoint, whole or not at all; the one that was it until now stays beside it.

    parts: name -> anything with state_dict() and load_state_dict().
    """
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {
        "step": step,
        "random_state": torch.get_rng_state(),
        "config": asdict(config),
        "environment": environment(),
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    if (out / CHECKPOINT).exists():
        keep_before(out)
    write_bytes(out / CHECKPOINT, buffer.getvalue())


def keep_before(out: Path) -> None:
    """Give the newest checkpoint its second name, so that at no moment there is none."""
    link = out / f".{BEFORE}.{os.getpid()}.part"
    try:
        os.link(out / CHECKPOINT, link)
        os.replace(link, out / BEFORE)
    except OSError:  # a disk without hard links
        os.replace(out / CHECKPOINT, out / BEFORE)
    finally:
        link.unlink(missing_ok=True)  # after a kill both names may be one file already, and such a rename does nothing


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in one file, after its checksums were compared. Raises TrainingStopped, naming the file."""
    try:
        data = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as records:
            if broken := records.testzip():
                raise zipfile.BadZipFile(f"the checksum of {broken} is another")
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"it holds a {type(state).__name__}")
    except Exception as error:  # whatever is wrong with a file that anybody may have written
        raise TrainingStopped(f"{path}: broken checkpoint ({one_line(error)})") from None
    return state


def newest_checkpoint(out: Path) -> tuple[Path, dict[str, Any]]:
    """The newest that can be read, and where it lies. Raises TrainingStopped if there is none."""
    broken = []
    for path in (out / CHECKPOINT, out / BEFORE):
        if not path.is_file():
            continue
        try:
            state = read_checkpoint(path)
        except TrainingStopped as error:
            broken.append(str(error))
            continue
        if broken:
            with contextlib.suppress(OSError):  # another process of this run may have done it
                os.replace(out / CHECKPOINT, out / BROKEN)  # else it would become the one before the next
            warnings.warn(
                f"{broken[0]}, kept as {BROKEN}; going on from the one before it, step {state.get('step')}",
                CheckpointWarning,
                stacklevel=3,
            )
        return path, state
    raise TrainingStopped("; ".join(broken) or f"{out / CHECKPOINT}: there is no checkpoint to resume from")


def load_checkpoint(out: Path, parts: dict[str, Any], config: Any) -> int:
    """Bring all parts to the state of the newest checkpoint that can be read. Returns the step to go on with.

    Raises TrainingStopped if there is none, or if the run had another config: exactly that goes on.
    """
    path, state = newest_checkpoint(out)
    missing = [name for name in (*parts, "step", "random_state", "config") if name not in state]
    if missing:
        raise TrainingStopped(f"{path}: holds no {missing[0]}; made by another version of this package?")
    for name, kind in (("config", dict), ("environment", dict), ("step", int)):
        if not isinstance(found := state.get(name, {}), kind):
            raise TrainingStopped(
                f"{path}: its {name} is a {type(found).__name__}; made by another version of this package?"
            )
    if differences := _differences(state["config"], asdict(config), FREE_TO_CHANGE):
        raise TrainingStopped(
            f"{path}: made with other settings than these: {'; '.join(differences)}. Give the old ones to resume, or "
            f"begin another run from its weights (--start-from {out.parent} and another --out)"
        )
    made_with, now = state.get("environment", {}), environment()
    made_by = f"made with torch {made_with.get('torch', 'unknown')}, this is {now['torch']}"
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["random_state"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise TrainingStopped(
            f"{path}: made by another version of this package? ({made_by}: {one_line(error)})"
        ) from None
    if differences := _differences(made_with, now, set(now) - set(BITS_DEPEND_ON)):
        warnings.warn(
            f"{path}: {'; '.join(differences)}. The run goes on, but not to the same bits",
            CheckpointWarning,
            stacklevel=2,
        )
    return state["step"]


def _differences(stored: dict[str, Any], given: dict[str, Any], ignored: Any) -> list[str]:
    return [
        f"{name} was {stored.get(name, 'unknown')!r} and is {given.get(name, 'unknown')!r}"
        for name in sorted(stored.keys() | given.keys(), key=str)
        if name not in ignored and stored.get(name, "unknown") != given.get(name, "unknown")
    ]


def lock_folder(out: Path) -> IO[str] | None:
    """Keep other processes from training into this folder, until the file is closed or this process ends, however it ends.

    Returns None where the system or the disk has no such locks. Raises TrainingStopped where another run has it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    while True:
        file = (out / LOCK).open("a+", encoding="utf-8")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: worker processes would inherit that
        except (BlockingIOError, PermissionError):
            with file:
                file.seek(0)
                other = file.read()
            raise TrainingStopped(
                f"{out}: another run writes there now ({other}); wait for it, end it, or give another --out"
            ) from None
        except OSError:  # a disk without locks
            file.close()
            (out / LOCK).unlink(missing_ok=True)
            return None
        if (out / LOCK).exists() and os.path.samestat(os.fstat(file.fileno()), (out / LOCK).stat()):
            try:
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}")
                file.flush()
            except OSError:  # a full disk
                (out / LOCK).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # it would write once more
                    file.close()
                raise
            return file
        file.close()  # a run that ended in between had removed it


def unlock_folder(out: Path, file: IO[str] | None) -> None:
    """The other way; the file goes first, while it is ours."""
    if file is not None and not file.closed:
        (out / LOCK).unlink(missing_ok=True)
        file.close()
