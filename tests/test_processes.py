"""Several processes: two end where one does, each sample is seen once, and what ends one of them ends the run in order."""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest
import torch
from helpers import BOTH_HOMES, EQUAL, run_python, save

from edgeconnect_lite.checkpoints import CHECKPOINT
from edgeconnect_lite.photos import FacePhotos
from edgeconnect_lite.weights import SHIPPED

# One process that never trains itself: it forks the others, as a launcher would start them, so that none costs an import.
RUNS = """
import json, os, signal, socket, sys, time, traceback
from dataclasses import replace
from pathlib import Path
import torch, torch._dynamo
from edgeconnect_lite import losses, steps, training
from edgeconnect_lite.checkpoints import CHECKPOINT
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
    gradients, seen = [], []
    take_step, load, get = steps.take_step, training.load_checkpoint, Samples.__getitem__

    def watched(network, optimizer, step):
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None})
        take_step(network, optimizer, step)
        if change is not None:
            change(rank, step)

    def loading(out, parts, config):
        step = load(out, parts, config)
        kept = torch.load(out / CHECKPOINT, weights_only=True)
        exact = all(equal(part.state_dict(), kept[name]) for name, part in parts.items())
        (folder / f"loads-{rank}-of-{processes}").write_text(f"{step} {exact}")
        return step

    steps.take_step = training.take_step = watched
    training.load_checkpoint = loading
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
        codes = run(f"{name}-{processes}", config, processes)
        assert codes == [0] * processes, (out / f"{name}-{processes}/said-0").read_text()
"""

RESUME = """
def stop_after(count):
    return lambda rank, step: os._exit(9) if step + 1 == count else None

config = replace(edge, steps=6)
assert run("whole", config, 2) == [0, 0]
for name, counts in {"2 2": (2, 2), "1 2 1": (1, 2, 1)}.items():
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

def explode():
    true_loss = losses.reconstruction_loss
    losses.reconstruction_loss = lambda *given: true_loss(*given) * float("nan")

config = replace(edge, steps=50)
run("killed", config, 2, change=at(3, lambda: os.kill(os.getpid(), signal.SIGKILL)))
run("asked", config, 2, change=at(3, lambda: os.kill(os.getpid(), signal.SIGINT)))
run("not finite", config, 2, change=at(2, explode))
run("uneven", replace(config, batch_size=3), 2)
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
        arguments = [str(tmp_path), str(photos), str(SHIPPED)]
        code = f"import sys\nsys.argv[1:] = {arguments!r}\n{EQUAL}{RUNS}\n{scenario}"
        done = run_python(code, tmp_path, BOTH_HOMES, timeout=300, OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr[-3000:]
        return tmp_path

    return run


def state_of(folder):
    return torch.load(next(folder.glob(f"*_generator/{CHECKPOINT}")), weights_only=True)


def distance(some, others):
    """How far two sets of tensors are apart, as a share of the second's length."""
    assert some.keys() == others.keys()
    first, second = (torch.cat([tensors[name].double().flatten() for name in others]) for tensors in (some, others))
    return ((first - second).norm() / second.norm().clamp(min=1e-12)).item()  # a gradient may be 0


def logged(folder):
    return [json.loads(line) for line in next(folder.glob("*/log.jsonl")).read_text().splitlines()]


def test_two_processes_end_where_one_does(run_all):
    """Adam's steps carry the rounding of float32 on; Muon's, which are taken in bfloat16, a hundred times as much."""
    out = run_all(EQUIVALENCE)
    for name, limit in {"plain": 3e-4, "gray alone": 3e-4, "judge": 5e-6, "image": 3e-4}.items():
        one, two, other = (
            torch.load(out / f"{name}-{n}", weights_only=True) for n in ("1/watched-0", "2/watched-0", "2/watched-1")
        )
        has_judge = name in ("judge", "image")
        assert len(one["gradients"]) == 4 * (1 + has_judge)
        for a, b in zip(one["gradients"][: 1 + has_judge], two["gradients"]):  # of the first step
            assert a.keys() == b.keys() and all(distance({0: b[key]}, {0: a[key]}) < 1e-5 for key in a)
        for a, b in zip(two["gradients"], other["gradients"], strict=True):
            assert all(torch.equal(a[key], b[key]) for key in a)
        first, second = (state_of(out / f"{name}-{n}") for n in (1, 2))
        for part in ("generator", "discriminator"):  # power iteration included
            assert distance(second[part], first[part]) < limit, (name, part)
        assert logged(out / f"{name}-2") == [
            pytest.approx(line, rel=1e-3, abs=2e-5) for line in logged(out / f"{name}-1")
        ]
        assert one["seen"] == list(range(16))  # and each sample is seen once, by one of the two
        assert [two["seen"], other["seen"]] == [[4 * s + 2 * p + i for s in range(4) for i in (0, 1)] for p in (0, 1)]


def test_a_run_goes_on_with_another_number_of_processes(run_all):
    out = run_all(RESUME)
    whole, again, mixed = (state_of(out / name) for name in ("whole", "2 2", "1 2 1"))
    assert all(torch.equal(whole["generator"][name], value) for name, value in again["generator"].items())
    assert distance(mixed["generator"], whole["generator"]) < 1e-3
    assert [path.read_text() for path in sorted((out / "1 2 1").glob("loads-*"))] == ["4 True", "2 True", "2 True"]
    assert "processes was 2 and is 1. The run goes on, but not to the same bits" in (out / "1 2 1/said-0").read_text()


def test_what_ends_one_process_ends_the_run_in_order(run_all):
    out = run_all(ENDS)
    said = {path.name: [(path / f"said-{i}").read_text() for i in (0, 1)] for path in out.iterdir() if path.is_dir()}
    codes = {name: json.loads((out / name / "codes").read_text()) for name in said}
    assert codes == {"killed": [1, -9], "asked": [1, 1], "not finite": [1, 1], "uneven": [1, 1]}
    assert "another process of this run has ended" in said["killed"][0]
    assert "holds the last checkpoint, from which --resume goes on" in said["killed"][0]
    assert state_of(out / "killed")["step"] in (3, 4)
    assert "stopped by a signal to another process after step 5; " in said["asked"][0]
    assert "stopped by SIGINT after step 5; " in said["asked"][1] and state_of(out / "asked")["step"] == 5
    assert all("step 3: the loss term gray is nan" in text for text in said["not finite"])
    assert state_of(out / "not finite")["step"] == 3
    assert "batch_size is 3; wanted a multiple of 2, the number of processes" in said["uneven"][0]


def test_a_launched_run_whose_worker_is_killed_ends_with_a_message_and_a_checkpoint(photos, tmp_path):
    """The command of lesson 10."""
    options = "--size 64 --width 4 --bottom 8 --blocks 1 --decision 4 --batch-size 2 --steps 100000 --validation 2 --threads 1"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["-m", "edgeconnect_lite.cli", "train", "edge", "--photos", str(photos), "--out", str(tmp_path / "out")]
    command += [*options.split(), "--checkpoint-minutes", "0"]
    with (tmp_path / "said").open("w") as said:
        environment = {**os.environ, "PYTHONPATH": BOTH_HOMES, "OMP_NUM_THREADS": "1"}
        run = subprocess.Popen(command, env=environment, stdout=said, stderr=said, cwd=tmp_path)
        try:
            checkpoint = tmp_path / "out/edge_generator" / CHECKPOINT
            while run.poll() is None and not checkpoint.exists():
                time.sleep(0.1)
            processes = psutil.Process(run.pid).children(recursive=True)
            workers = [p for p in processes if "train" in p.cmdline() and "100000" in p.cmdline()]
            assert len(workers) == 2
            workers[1].kill()
            assert run.wait(100) != 0
        finally:
            for process in psutil.Process(run.pid).children(recursive=True) if run.poll() is None else ():
                process.kill()
            run.kill()
    text = (tmp_path / "said").read_text()
    assert "another process of this run has ended" in text and "from which --resume goes on" in text
    assert torch.load(checkpoint, weights_only=True)["environment"]["processes"] == 2
