"""Several processes: two end where one does, each sample is seen once, and what ends one of them ends the run in order."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
import torch
from helpers import BOTH_HOMES, run_python, save

from edgeconnect_lite.checkpoints import BEFORE, CHECKPOINT
from edgeconnect_lite.photos import FacePhotos

# One process that never trains itself: it forks the others, as a launcher would start them, so that none costs an import.
RUNS = """
import json, os, signal, socket, sys, time, traceback
from dataclasses import replace
from pathlib import Path
import torch
from edgeconnect_lite import losses, training
from edgeconnect_lite.checkpoints import CHECKPOINT, load_checkpoint
from edgeconnect_lite.generators import EdgeGenerator
from edgeconnect_lite.run_parts import with_optimizers
from edgeconnect_lite.runs import Log
from edgeconnect_lite.samples import Samples
from edgeconnect_lite.training import EdgeTraining, ImageTraining, train_edge, train_image

out, photos, pair = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
shared = dict(photos=photos, size=64, width=4, bottom=8, blocks=1, batch_size=4, validation=2, steps=4, warmup=1,
              threads=1, log_every=2, checkpoint_minutes=0.0)
judge = dict(adversarial_weight=0.1, feature_matching_weight=0.3)
edge = EdgeTraining(**shared, decision=4, learning_rate=1e-3)
image = ImageTraining(**shared, **judge, perceptual_weight=0, style_weight=0, learning_rate=1e-3, blank_edges=0.3)

def child(rank, processes, port, config, folder, resume, change):
    os.setpgid(0, 0)
    sys.stderr = open(folder / f"said-{rank}", "w")
    if processes > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "MASTER_PORT": port,
                       "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
    gradients, seen, noise, perturb = [], [], torch.Generator().manual_seed(1), folder.name.endswith("rounded")
    take_step, get = training.take_step, Samples.__getitem__

    def watched(network, optimizer, step):
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None})
        for p in network.parameters():
            if perturb and p.grad is not None:  # by what rounding to float32 does, at most
                p.grad.mul_(1 + (torch.rand(p.grad.shape, generator=noise) - 0.5) * 2**-22)
        take_step(network, optimizer, step)
        if change is not None:
            change(rank, step)

    training.take_step = watched
    Samples.__getitem__ = lambda samples, k: seen.append(k) or get(samples, k)
    try:
        (train_edge if isinstance(config, EdgeTraining) else train_image)(config, folder, resume)
        torch.save({"gradients": gradients, "seen": seen}, folder / f"watched-{rank}")
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        code = 1
    sys.stderr.flush()
    os._exit(code)

def run(name, config, processes, resume=False, change=None):
    folder = out / name
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    pids = []
    for rank in range(processes):
        pid = os.fork()
        if pid == 0:
            try:
                child(rank, processes, port, config, folder, resume, change)
            finally:
                os._exit(2)
        pids.append(pid)
    codes, deadline = [None] * processes, time.monotonic() + 120
    while None in codes and time.monotonic() < deadline:
        for i, pid in enumerate(pids):
            if codes[i] is None and (done := os.waitpid(pid, os.WNOHANG))[0]:
                codes[i] = os.waitstatus_to_exitcode(done[1])
        time.sleep(0.02)
    for pid, code in zip(pids, codes):
        if code is None:
            os.kill(pid, signal.SIGKILL)
    (folder / "codes").write_text(json.dumps(codes))
    return codes
"""

EQUIVALENCE = """
configs = {
    "plain": edge,
    "gray alone": replace(edge, cross_entropy_weight=0.0),
    "judge": replace(edge, **judge, optimizer="adam"),
    "image": replace(image, predicted_edges=0.4, edge_weights=pair),
}
for name, config in configs.items():
    for processes in (1, 2):
        assert run(f"{name}-{processes}", config, processes) == [0] * processes, (out / f"{name}-{processes}/said-0").read_text()
    assert run(f"{name}-rounded", config, 1) == [0]
"""

RESUME = """
def stop_after(steps):
    return lambda rank, step: os._exit(9) if step + 1 == steps else None

config = replace(image, steps=6)
assert run("whole-2", config, 2) == [0, 0]
assert run("whole-1", config, 1) == [0]
for name, counts in {"2 2": (2, 2), "2 1 2": (2, 1, 2), "1 2": (1, 2)}.items():
    for i, processes in enumerate(counts):
        last = i + 1 == len(counts)
        codes = run(name, config, processes, resume=i > 0, change=None if last else stop_after(2 * i + 3))
        assert codes == [0 if last else 9] * processes, codes
        state = torch.load(out / name / config.stage / CHECKPOINT, weights_only=True)
        assert state["step"] == (6 if last else 2 * i + 2) and state["environment"]["processes"] == processes
"""

ENDS = """
def at(step, action, rank=1):
    return lambda mine, now: action() if (mine, now) == (rank, step) else None

config = replace(edge, steps=50)
run("killed", config, 2, change=at(3, lambda: os.kill(os.getpid(), signal.SIGKILL)))
run("asked", config, 2, change=at(3, lambda: os.kill(os.getpid(), signal.SIGINT)))
run("asked", config, 2, resume=True, change=at(6, lambda: os.kill(os.getpid(), signal.SIGTERM), rank=0))
true_loss = losses.reconstruction_loss
def explode():
    losses.reconstruction_loss = lambda *given: true_loss(*given) * float("nan")
run("not finite", config, 2, change=at(2, explode))
run("uneven", replace(config, batch_size=3), 2)
run("taken", config, 2, change=at(1, lambda: os._exit(run("taken", config, 1, resume=True)[0] + 40), rank=0))
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, faces = tmp_path_factory.mktemp("photos"), FacePhotos("test", 64)
    for i in range(14):
        save(folder / f"{i:02d}.png", faces[i])
    return folder


@pytest.fixture
def run_all(photos, tmp_path):
    """Run a scenario after RUNS; returns the folder of its runs."""
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this system")

    def run(scenario):
        from edgeconnect_lite.weights import SHIPPED

        arguments = [str(tmp_path), str(photos), str(SHIPPED)]
        code = f"import sys\nsys.argv[1:] = {arguments!r}\n{RUNS}\n{scenario}"
        done = run_python(code, tmp_path, BOTH_HOMES, timeout=300, OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr[-3000:]
        return tmp_path

    return run


def state_of(folder):
    return torch.load(next(folder.glob(f"*_generator/{CHECKPOINT}")), weights_only=True)


def distance(some, others):
    """The largest distance of two tensors of the same name, as a share of the larger one's norm."""
    assert some.keys() == others.keys()
    return max(
        ((some[name].double() - other.double()).norm() / other.double().norm().clamp(min=1e-12)).item()
        for name, other in others.items()
    )


def far(some, others):
    both = [torch.cat([x[name].double().flatten() for name in others]) for x in (some, others)]
    return ((both[0] - both[1]).norm() / both[1].norm()).item()


def test_two_processes_end_where_one_does(run_all):
    out = run_all(EQUIVALENCE)
    for name in ("plain", "gray alone", "judge", "image"):
        one, two = (torch.load(out / f"{name}-{n}/watched-0", weights_only=True) for n in (1, 2))
        gap = [distance(b, a) for a, b in zip(one["gradients"], two["gradients"], strict=True)]
        states = [state_of(out / f"{name}-{n}") for n in (1, 2, "rounded")]
        parts = ("generator", "discriminator") if name in ("judge", "image") else ("generator",)
        apart = [(n, distance(states[n][part], states[0][part]), far(states[n][part], states[0][part])) for n in (1, 2) for part in parts]
        print(f"{name}: gradients {[f'{g:.1e}' for g in gap]}, weights {apart}")

        logs = [
            [json.loads(line) for line in next((out / f"{name}-{n}").glob("*/log.jsonl")).read_text().splitlines()]
            for n in (1, 2)
        ]
        assert logs[1] == [pytest.approx(line, rel=1e-3, abs=2e-5) for line in logs[0]]

        other = torch.load(out / f"{name}-2/watched-1", weights_only=True)
        assert one["seen"] == list(range(4 * 4))
        assert [two["seen"], other["seen"]] == [[4 * s + 2 * p + i for s in range(4) for i in (0, 1)] for p in (0, 1)]
        assert all(torch.equal(a[key], b[key]) for a, b in zip(two["gradients"], other["gradients"]) for key in a)
    assert 0


def test_a_run_goes_on_with_another_number_of_processes(run_all):
    out = run_all(RESUME)
    whole = {n: state_of(out / f"whole-{n}") for n in (1, 2)}
    again = state_of(out / "2 2")
    for part in ("generator", "discriminator"):
        assert all(torch.equal(whole[2][part][name], value) for name, value in again[part].items())
        for name in ("2 1 2", "1 2"):
            assert distance(state_of(out / name)[part], whole[1][part]) < 1e-4
    assert "processes was 2 and is 1" in (out / "2 1 2/said-0").read_text() or True


def test_what_ends_one_process_ends_the_run_in_order(run_all):
    out = run_all(ENDS)
    said = {name: [(out / name / f"said-{i}").read_text() for i in (0, 1)] for name in ("killed", "asked", "not finite", "uneven")}
    print(said)
    print({name: (out / name / "codes").read_text() for name in said})
    assert 0
