"""Kill it at random moments, let it go on, and compare: is what it ends with the same, to the last bit?

Each trial begins in an empty folder, is killed with SIGKILL at a moment drawn over the length of a whole run, must leave a
state that can be read or none yet, and is then started again as a user would do it:

    python benchmarks/faults.py [--kills 50] [--only "train edge" "prepare, a list" ...] [--json results/faults.json]

What the JSON file holds of other campaigns stays.

Lost: a state that cannot be read. Other bits: the resumed run ends elsewhere than the uninterrupted one. Crashes: it cannot go
on, or says no clear line. Hangs: it does not end in two minutes. All are wanted to be 0.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch._dynamo  # this and training: forked processes find what they need imported already
from command import add_output, run

import edgeconnect_lite.attributes
import edgeconnect_lite.training  # noqa: F401
from edgeconnect_lite import FacePhotos, cli
from edgeconnect_lite.checkpoints import BEFORE, CHECKPOINT, holds_checkpoint, read_checkpoint
from edgeconnect_lite.editor.serve import EditorServer
from edgeconnect_lite.editor.widget import STATE
from edgeconnect_lite.metrics import telea
from edgeconnect_lite.photos import read_photo, write_picture
from edgeconnect_lite.runs import progress

PATIENCE = 120  # seconds until a run counts as hanging
GRACE = 10  # seconds in which the other processes of a run should end by themselves, if they had found each other
STROKES = 12
CLEAR, UNCLEAR = 1, 2  # exit codes: one line said what is wrong, or only a traceback did
COLUMNS: tuple[str, ...] = ("kills", "before a state", "ended before", "lost", "other bits", "crashes", "hangs")
TINY = "--size 64 --width 4 --bottom 8 --blocks 1 --batch-size 4 --validation 2 --steps 6 --warmup 2 --threads 1 "
TINY += "--log-every 4 --checkpoint-minutes 0 --adversarial-weight 0.1 --feature-matching-weight 0.3"


@dataclass(frozen=True)
class Subject:
    """What is killed. All functions take the trial's folder."""

    command: str  # what a user would type
    work: Callable[[Path], None]  # from nothing, or on from what lies there, to the end
    read: Callable[[Path], Any]  # the state after a kill: None = none yet. Raises where it cannot be read
    result: Callable[[Path], Any]  # what a whole run ends with
    processes: int = 1


def train(stage: str, source: Path, extra: str = "", processes: int = 1) -> Subject:
    """A small run of `edgeconnect-lite train`, which keeps a checkpoint after every step."""
    options = f"{TINY} {extra}".split()

    def work(folder: Path) -> None:
        resume = ["--resume"] if holds_checkpoint(folder / f"{stage}_generator") else []
        cli.main(["train", stage, "--photos", str(source), *options, "--out", str(folder), *resume])

    def read(folder: Path) -> Any:
        kept = folder / f"{stage}_generator"
        states = [read_checkpoint(kept / name) for name in (CHECKPOINT, BEFORE) if (kept / name).exists()]
        return states[0]["step"] if states else None

    def result(folder: Path) -> Any:
        kept = folder / f"{stage}_generator"
        state = read_checkpoint(kept / CHECKPOINT)
        lines = [json.loads(line) for line in (kept / "log.jsonl").read_text("utf-8").splitlines()]
        return {
            "weights": (kept / "model.safetensors").read_bytes(),
            "state": {name: value for name, value in state.items() if name != "environment"},  # it holds the command
            "log": [line for line in lines if "discriminator" in line],
            "left over": sorted(path.name for path in kept.glob(".*")),
        }

    launcher = f"torchrun --nproc_per_node {processes} -m edgeconnect_lite.cli" if processes > 1 else "edgeconnect-lite"
    return Subject(
        f"{launcher} train {stage} --photos PHOTOS {' '.join(options)} --out OUT", work, read, result, processes
    )


def prepare(source: Path, name: str) -> Subject:
    """`edgeconnect-lite prepare`, to a list or to an archive."""

    def read(folder: Path) -> Any:
        return (folder / name).read_bytes() if (folder / name).exists() else None

    def work(folder: Path) -> None:
        cli.main(["prepare", str(source), "--out", str(folder / name)])

    return Subject(f"edgeconnect-lite prepare PHOTOS --out {name}", work, read, read)


class Painter:
    """Stands for the networks, whose work is not what is tried here."""

    size = 64

    def predict_edges(self, photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.zeros(mask.shape, np.float32)

    def __call__(self, photo: np.ndarray, mask: np.ndarray, edges: Any = None) -> np.ndarray:
        return telea(photo, mask) if mask.any() else photo


def edit(photo: np.ndarray) -> Subject:
    """What the page of `edgeconnect-lite edit` asks for: a stroke, save, a stroke, save, ..."""
    draw = random.Random(1)
    strokes = [
        {"tool": "mask" if i % 3 == 0 else "pen", "points": [[draw.randrange(64), draw.randrange(64)] for _ in range(6)],
         "radius": 4 if i % 3 == 0 else 1}
        for i in range(STROKES)
    ]  # fmt: skip

    def work(folder: Path) -> None:
        with EditorServer(photo, None, Painter(), folder) as server:
            server.hear({"do": "edit"})
            while (done := len(server.widgets["editor"].strokes)) < STROKES:
                server.hear({"widget": "editor", "content": {"type": "do", "stroke": strokes[done], "at": done}})
                server.save()

    def read(folder: Path) -> Any:
        if not (folder / STATE).exists():
            return None
        with EditorServer(photo, None, Painter(), folder) as server:
            return len(server.widgets["editor"].strokes)

    def result(folder: Path) -> Any:
        state = json.loads((folder / STATE).read_text("utf-8"))
        state["history"].pop("acts")  # of one session
        pictures = {name: (folder / f"{name}.png").read_bytes() for name in ("photo", "result", "mask", "edges")}
        return {"state": state, "left over": list(folder.glob(".*")), **pictures}

    return Subject("edgeconnect-lite edit PHOTO --out OUT, and Save after each stroke", work, read, result)


def fork(work: Callable[[Path], Any], folder: Path, name: str, **variables: str) -> int:
    """Work in a process of its own, forked: Python and torch need not start anew each time. Says what it says into a file."""
    child = os.fork()
    if child:
        return child
    os.setpgid(0, 0)
    os.environ |= variables
    said = os.open(folder.with_suffix(f".{name}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    try:
        found = work(folder)
        os.write(said, f"{found}\n".encode())
        os._exit(0)
    except SystemExit as end:  # the command line's one clear line
        os.write(said, f"{end.code}\n".encode())
        os._exit(CLEAR if end.code else 0)
    except BaseException:
        os.write(said, traceback.format_exc().encode())
    finally:
        os._exit(UNCLEAR)


def said(folder: Path, name: str) -> str:
    """What a process of fork said last, on one line."""
    return (folder.with_suffix(f".{name}").read_text("utf-8", "replace").splitlines() or [""])[-1]


def start(subject: Subject, folder: Path) -> list[int]:
    """A run, begun or gone on with; all its processes as a launcher would start them."""
    if subject.processes == 1:
        return [fork(subject.work, folder, "said-0")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {
            "WORLD_SIZE": str(subject.processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free.getsockname()[1]),
        }
    return [
        fork(subject.work, folder, f"said-{rank}", RANK=str(rank), LOCAL_RANK=str(rank), **shared)
        for rank in range(subject.processes)
    ]


def wait(children: list[int]) -> list[int | None]:
    """The exit codes; None for one that had to be ended after PATIENCE seconds."""
    codes: list[int | None] = []
    deadline = time.monotonic() + PATIENCE
    for child in children:
        while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < deadline:
            time.sleep(0.005)
        if ended[0]:
            codes.append(os.waitstatus_to_exitcode(ended[1]))
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            codes.append(None)
    return codes


def play_launcher(children: list[int]) -> None:
    """Ask the others to end, as torchrun does where one process is gone; by then most have ended by themselves."""
    time.sleep(GRACE if len(children) > 1 else 0)
    for child in children:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            os.kill(child, signal.SIGTERM)


def one_trial(subject: Subject, folder: Path, whole: Any, moment: float, victim: int) -> tuple[str, list[str]]:
    """Kill a run (of several processes: one of them), read what it left, go on. Returns the state that was found, and what
    was wrong, by the names of COLUMNS."""
    children, problems = start(subject, folder), []
    time.sleep(moment)
    running = os.waitid(os.P_PID, children[victim], os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    if running:
        os.kill(children[victim], signal.SIGKILL)
        play_launcher(children)
    codes = wait(children)
    if not running:
        return "ended before", ["crashes"] if any(codes) else []
    problems += ["hangs"] * (None in codes) + ["crashes"] * (UNCLEAR in codes)
    if wait([fork(subject.read, folder, "state")]) != [0]:
        return "lost", [*problems, "lost"]
    codes = wait(start(subject, folder))
    if any(code != 0 for code in codes):
        return said(folder, "state"), [*problems, "hangs" if None in codes else "crashes"]
    return said(folder, "state"), problems + ["other bits"] * (not same(subject.result(folder), whole))


def same(a: Any, b: Any) -> bool:
    """Equal in every bit, through dicts and lists."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def campaign(subject: Subject, kills: int, seed: int = 0) -> dict[str, Any]:
    """Kill `kills` runs, each at its own moment, and count what came of them."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "whole"
        folder.mkdir()
        began = time.monotonic()
        codes = wait(start(subject, folder))
        seconds = time.monotonic() - began
        if any(code != 0 for code in codes):
            raise SystemExit(f"{subject.command}: exit {codes}: {said(folder, 'said-0')}")
        whole, draw = subject.result(folder), random.Random(seed)
        counts, states, told = dict.fromkeys(COLUMNS, 0), set(), []
        for trial in progress(range(kills)):
            outcome = "ended before"
            while outcome == "ended before":
                folder = Path(home) / f"{trial}-{counts['ended before']}"
                folder.mkdir()
                moment, victim = draw.random() * seconds, draw.randrange(subject.processes)
                outcome, problems = one_trial(subject, folder, whole, moment, victim)
                if outcome == "ended before":  # the machine has more time for it now than it had for the whole run
                    counts[outcome] += 1
                    seconds = min(seconds, moment)
            counts["kills"] += 1
            counts["before a state"] += outcome == "None"
            states.add(outcome)
            for problem in problems:
                counts[problem] += 1
                told.append(f"kill {trial} after {moment:.2f} s: {problem}: {outcome}: {said(folder, 'said-0')[:300]}")
            shutil.rmtree(folder)
    return {
        "command": subject.command,
        "seconds": round(seconds, 2),
        **counts,
        "different states": len(states),
        "told": told,
    }


SUBJECTS: dict[str, Callable[[Path], Subject]] = {  # all that is killed, by name; they take the folder of photos
    "train edge": lambda photos: train("edge", photos),
    "train image": lambda photos: train("image", photos, "--workers 1 --perceptual-weight 0 --style-weight 0"),
    "train edge, one of 2 processes": lambda photos: train("edge", photos, processes=2),
    "prepare, a list": lambda photos: prepare(photos, "photos.txt"),
    "prepare, an archive": lambda photos: prepare(photos, "photos.zip"),
    "edit": lambda photos: edit(read_photo(photos / "000.png")[8:120, 8:120].repeat(3, 0).repeat(3, 1)),
}


def write_photos(folder: Path) -> None:
    """120 faces, one of them broken."""
    faces = FacePhotos("test")
    for i in range(120):
        write_picture(folder / f"{i:03d}.png", faces[i])
    (folder / "060.png").write_bytes(b"broken")


def measure(options: argparse.Namespace) -> dict:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)  # forked processes would wait for its threads
    with tempfile.TemporaryDirectory() as home:
        write_photos(Path(home))
        chosen = {name: SUBJECTS[name](Path(home)) for name in options.only or SUBJECTS}
        found = {
            name: campaign(subject, max(1, options.kills // subject.processes**2))  # of several fewer: they take long
            for name, subject in chosen.items()
        }
    kept = options.json and options.json.exists() and json.loads(options.json.read_text("utf-8"))["campaigns"]
    return {"machine": options.machine, "campaigns": (kept or {}) | found}


def report(results: dict) -> str:
    """The table of docs/trust.md, and what went wrong."""
    rows = [f"| killed | {' | '.join(COLUMNS)} |", f"| --- |{' ---: |' * len(COLUMNS)}"]
    for name, found in results["campaigns"].items():
        rows.append(f"| {name} | {' | '.join(str(found[column]) for column in COLUMNS)} |")
    return "\n".join(rows + [line for found in results["campaigns"].values() for line in found["told"]])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="of each; of two processes a quarter")
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, help="what is killed; by default all")
    add_output(parser)
    run("faults.py", arguments, parser.parse_args(arguments), measure, report)


if __name__ == "__main__":
    main()
