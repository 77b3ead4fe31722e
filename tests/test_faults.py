"""What may go wrong while a run trains: killed, stopped, a full disk, broken files, two runs at once. Nothing is lost."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import BOTH_HOMES, run_python, save
from test_training import equal_trees, read_log, tiny

from edgeconnect_lite import losses, runs, steps, training
from edgeconnect_lite.checkpoints import (
    BEFORE,
    BROKEN,
    CHECKPOINT,
    LOCK,
    CheckpointWarning,
    TrainingStopped,
    lock_folder,
    read_checkpoint,
)
from edgeconnect_lite.photos import BadPhoto, BrokenPhotoWarning, FacePhotos
from edgeconnect_lite.runs import check_finite_weights
from edgeconnect_lite.training import EdgeTraining, train_edge

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Four steps with a checkpoint after each."""
    photos, faces = tmp_path_factory.mktemp("photos"), FacePhotos("test", 64)
    for i in range(8):
        save(photos / f"{i}.png", faces[i])
    off = {"adversarial_weight": 0, "feature_matching_weight": 0}
    return tiny(EdgeTraining, str(photos), steps=4, validation=2, checkpoint_minutes=0.0, **off)


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    threads, out = torch.get_num_threads(), tmp_path_factory.mktemp("trained")
    train_edge(config, out)
    yield out
    torch.set_num_threads(threads)


@pytest.fixture
def whole(trained, tmp_path):
    """What the uninterrupted run ends with; a copy of its folder is tmp_path/whole."""
    shutil.copytree(trained, tmp_path / "whole")
    return state_of(trained)


def run_of(out):
    return out / "edge_generator"


def state_of(out):
    return {name: value for name, value in read_checkpoint(run_of(out) / CHECKPOINT).items() if name != "environment"}


def at_step(monkeypatch, number, action):
    """Do something when step `number` has its gradients, and is not yet taken."""
    true_step = steps.take_step

    def watched(network, optimizer, step):
        if step == number:
            action()
        true_step(network, optimizer, step)

    monkeypatch.setattr(training, "take_step", watched)


# the checkpoints


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 1
    path.write_bytes(
        {"truncated": data[: len(data) // 2], "flipped": data, "emptied": b"", "noise": os.urandom(5000)}[how]
    )


@pytest.mark.parametrize("how", ["truncated", "flipped", "emptied", "noise"])
def test_of_a_broken_checkpoint_the_one_before_takes_the_place(how, config, whole, tmp_path):
    out = run_of(tmp_path / "whole")
    assert [read_checkpoint(out / name)["step"] for name in (CHECKPOINT, BEFORE)] == [4, 3]
    damage(out / CHECKPOINT, how)
    broken = (out / CHECKPOINT).read_bytes()
    with pytest.warns(CheckpointWarning, match=r"checkpoint\.pt: broken checkpoint .*from the one before it, step 3"):
        train_edge(config, tmp_path / "whole", resume=True)
    assert equal_trees(state_of(tmp_path / "whole"), whole) and (out / BROKEN).read_bytes() == broken
    assert read_checkpoint(out / BEFORE)["step"] == 3

    for name in (CHECKPOINT, BEFORE):
        damage(out / name, how)
    with pytest.raises(TrainingStopped, match=r"checkpoint\.pt: broken .*; .*checkpoint-before\.pt: broken"):
        train_edge(config, tmp_path / "whole", resume=True)


def test_a_lost_checkpoint_is_not_missed_while_there_is_one_before(config, whole, tmp_path):
    (run_of(tmp_path / "whole") / CHECKPOINT).unlink()
    with pytest.raises(TrainingStopped, match="holds a checkpoint already"):
        train_edge(config, tmp_path / "whole")
    train_edge(config, tmp_path / "whole", resume=True)
    assert equal_trees(state_of(tmp_path / "whole"), whole)


def test_a_run_killed_between_the_names_of_a_checkpoint_leaves_nothing_over(config, trained, tmp_path, monkeypatch):
    out = run_of(tmp_path / "killed")
    at_step(monkeypatch, 2, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train_edge(config, tmp_path / "killed")
    monkeypatch.undo()
    (out / BEFORE).unlink()
    os.link(out / CHECKPOINT, out / BEFORE)
    train_edge(config, tmp_path / "killed", resume=True)
    assert equal_trees(state_of(tmp_path / "killed"), state_of(trained)) and not list(out.glob(".*"))
    assert [read_checkpoint(out / name)["step"] for name in (CHECKPOINT, BEFORE)] == [4, 3]


def test_no_flipped_bit_goes_unnoticed(config, whole, tmp_path):
    """It is found, or lies where nothing is read: between the records, or in a second copy of the sizes."""
    path = run_of(tmp_path / "whole") / CHECKPOINT
    data, rng, found = path.read_bytes(), np.random.default_rng(0), 0
    true = read_checkpoint(path)
    for place, bit in zip(rng.integers(0, len(data), 150), rng.integers(0, 8, 150)):
        other = bytearray(data)
        other[place] ^= 1 << bit
        path.write_bytes(other)
        try:
            state = read_checkpoint(path)
        except TrainingStopped:
            found += 1
        else:
            assert equal_trees(state, true), f"byte {place}, bit {bit}"
    assert found > 50


class Code:
    """What a pickle may hold."""

    def __reduce__(self):
        return os.mkdir, ("run by a checkpoint",)


def test_a_checkpoint_that_holds_code_is_refused_and_not_run(config, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"generator": Code()}, run_of(tmp_path / "whole") / CHECKPOINT)
    (run_of(tmp_path / "whole") / BEFORE).unlink()
    with pytest.raises(TrainingStopped, match=r"checkpoint\.pt: broken checkpoint"):
        train_edge(config, tmp_path / "whole", resume=True)
    assert not Path("run by a checkpoint").exists()


def test_a_checkpoint_knows_where_it_was_made_and_other_versions_are_said(config, whole, tmp_path):
    path = run_of(tmp_path / "whole") / CHECKPOINT
    state = torch.load(path, weights_only=True)
    made = state["environment"]
    assert made["torch"] == torch.__version__ and made["threads"] == 1 and made["processes"] == 1 and made["command"]
    assert {"edgeconnect-lite", "accelerate", "numpy", "opencv", "python", "machine", "device"} < made.keys()
    made |= {"torch": "1.0", "accelerate": "0.1", "python": "2.7"}  # the last of which changes no bit
    torch.save(state, path)
    with pytest.warns(CheckpointWarning) as said:
        train_edge(config, tmp_path / "whole", resume=True)
    (text,) = [str(warning.message) for warning in said if warning.category is CheckpointWarning]
    assert "accelerate was '0.1' and is" in text and "torch was '1.0' and is" in text and "python" not in text
    state["g_optimizer"] = {"param_groups": []}
    torch.save(state, path)
    with pytest.raises(TrainingStopped, match=r"another version of this package\? \(made with torch 1\.0, this is"):
        train_edge(config, tmp_path / "whole", resume=True)


def test_other_threads_are_said_and_the_run_goes_on(config, whole, tmp_path):
    threads, of_opencv = torch.get_num_threads(), cv2.getNumThreads()
    try:
        with pytest.warns(CheckpointWarning, match="threads was 1 and is 2. The run goes on, but not to the same bits"):
            train_edge(training.replace(config, threads=2), tmp_path / "whole", resume=True)
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(of_opencv)


@pytest.mark.parametrize("name, value", [
    ("config", ["steps"]), ("config", None), ("environment", ["torch"]), ("step", "four"), ("step", None),
])  # fmt: skip
def test_a_checkpoint_whose_parts_are_of_another_kind_is_named(name, value, config, whole, tmp_path):
    path = run_of(tmp_path / "whole") / CHECKPOINT
    torch.save(torch.load(path, weights_only=True) | {name: value}, path)
    said = rf"checkpoint\.pt: its {name} is a {type(value).__name__}; made by another version of this package\?"
    with pytest.raises(TrainingStopped, match=said):
        train_edge(config, tmp_path / "whole", resume=True)


# the disk


def no_space(*given, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_before_the_first_step_leaves_no_lock(config, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "take_step", lambda *given: pytest.fail("trained"))
    monkeypatch.setattr(runs, "write_bytes", no_space)
    with pytest.raises(TrainingStopped, match=r"edge_generator: cannot be written \(No space left on device\)"):
        train_edge(config, tmp_path)
    assert not list(run_of(tmp_path).iterdir())


def test_a_lock_that_cannot_be_written_is_removed(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        with pytest.raises(OSError):
            lock_folder(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / LOCK).exists()
    opened, true_open = [], Path.open
    monkeypatch.setattr(Path, "open", lambda *a, **k: opened.append(true_open(*a, **k)) or opened[-1])
    monkeypatch.setattr(fcntl, "lockf", no_space)  # as on a disk without locks
    assert lock_folder(tmp_path) is None and not (tmp_path / LOCK).exists() and opened[0].closed
    monkeypatch.setattr(fcntl, "lockf", lambda *given: (_ for _ in ()).throw(BlockingIOError))
    with pytest.raises(TrainingStopped, match="another run writes there now"):
        lock_folder(tmp_path)
    assert opened[1].closed


def test_a_full_disk_ends_the_run_with_what_was_kept(config, whole, tmp_path, monkeypatch):
    """The kernel refuses to write more, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    at_step(monkeypatch, 2, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1])))
    try:
        with pytest.raises(
            TrainingStopped, match=r"cannot be written .*holds the last checkpoint, from which --resume"
        ):
            train_edge(config, tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert state_of(tmp_path / "full")["step"] == 2 and not list(run_of(tmp_path / "full").glob(".*"))
    monkeypatch.undo()
    train_edge(config, tmp_path / "full", resume=True)
    assert equal_trees(state_of(tmp_path / "full"), whole) and read_log(tmp_path / "full") == read_log(
        tmp_path / "whole"
    )


def test_a_folder_that_cannot_be_written_is_an_error_before_the_first_step(config, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "take_step", lambda *given: pytest.fail("trained"))
    (tmp_path / "file").write_text("")
    (tmp_path / "closed").mkdir(mode=0o555)
    root = hasattr(os, "geteuid") and os.geteuid() == 0  # who may write nearly everywhere
    for out in (tmp_path / "file", Path("/sys") if root else tmp_path / "closed"):
        with pytest.raises(TrainingStopped, match="edge_generator: cannot be written"):
            train_edge(config, out)


def test_photos_that_vanish_are_said_and_the_run_goes_on_until_none_is_left(config, tmp_path, monkeypatch):
    photos = Path(shutil.copytree(config.photos, tmp_path / "photos"))
    config = training.replace(config, photos=str(photos))

    def remove(names):
        for path in photos.glob(names):
            path.unlink()

    at_step(monkeypatch, 0, lambda: remove("[0-3].png"))
    with pytest.warns(BrokenPhotoWarning, match="there is no such file"):
        train_edge(config, tmp_path / "some")
    assert state_of(tmp_path / "some")["step"] == 4
    at_step(monkeypatch, 1, lambda: remove("*"))
    with pytest.raises(BadPhoto, match="can be read"), warnings.catch_warnings():
        warnings.simplefilter("ignore", BrokenPhotoWarning)
        train_edge(training.replace(config, steps=40, validation=1), tmp_path / "none")
    assert state_of(tmp_path / "none")["step"] >= 2


# numbers


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_step(config, tmp_path, monkeypatch):
    true_loss = losses.reconstruction_loss
    monkeypatch.setattr(
        losses, "reconstruction_loss", lambda gray, *rest: true_loss(gray, *rest) + (gray - gray).sum().sqrt()
    )  # 0, whose gradient is none
    with pytest.raises(TrainingStopped, match=r"step 0: the gradient of unet\.\S+ is not finite"):
        train_edge(config, tmp_path)
    assert not (run_of(tmp_path) / CHECKPOINT).exists()


def test_weights_that_are_not_finite_are_never_kept(config, tmp_path, monkeypatch):
    at_step(monkeypatch, 2, lambda: generators[0].unet.outlet.bias.data.fill_(float("inf")))
    generators, opened = [], training.with_optimizers
    monkeypatch.setattr(training, "with_optimizers", lambda g, *rest: generators.append(g) or opened(g, *rest))
    with pytest.raises(TrainingStopped, match=r"step 3: the weight unet\.outlet\.bias is not finite"):
        train_edge(config, tmp_path)
    assert state_of(tmp_path)["step"] == 2
    check_finite_weights(torch.nn.Linear(2, 2), 0)


# who else is there


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_a_step_and_nothing_is_lost(number, config, whole, tmp_path, monkeypatch):
    config, before = training.replace(config, checkpoint_minutes=60.0), signal.getsignal(number)
    at_step(monkeypatch, 1, lambda: os.kill(os.getpid(), number))
    with pytest.raises(TrainingStopped, match=f"stopped by {number.name} after step 3; .*from which --resume goes on"):
        train_edge(config, tmp_path / "asked")
    assert signal.getsignal(number) is before and state_of(tmp_path / "asked")["step"] == 3
    monkeypatch.undo()
    train_edge(config, tmp_path / "asked", resume=True)
    assert equal_trees(state_of(tmp_path / "asked")["generator"], whole["generator"])


HOLD = """
import sys, time
from pathlib import Path
from edgeconnect_lite.checkpoints import lock_folder
Path(sys.argv[1]).mkdir(parents=True)
held = lock_folder(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(100)
"""


def test_two_runs_do_not_share_a_folder(config, tmp_path):
    pytest.importorskip("fcntl")
    out = run_of(tmp_path / "out")
    command = [sys.executable, "-c", HOLD, str(out)]
    other = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": BOTH_HOMES}, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(
            TrainingStopped, match=rf"another run writes there now \(process {other.pid} on .*another --out"
        ):
            train_edge(config, tmp_path / "out")
        assert [path.name for path in out.iterdir()] == [LOCK]
    finally:
        other.kill()
        other.wait()
    train_edge(config, tmp_path / "out")  # however it ended, the folder is free
    assert not (out / LOCK).exists()


def test_an_error_among_several_processes_is_not_blamed_on_the_others_alone(config, tmp_path):
    log = runs.Log(tmp_path, config)
    log.processes = 2
    said = r"^this process failed, or another process of this run has ended \(mine\); .*holds no checkpoint yet"
    with pytest.raises(TrainingStopped, match=said), log.begin(0):
        raise RuntimeError("mine")
    assert not (tmp_path / LOCK).exists()


def test_deterministic_mode_allows_no_other_algorithms(config, tmp_path):
    try:
        train_edge(training.replace(config, deterministic=True, steps=1), tmp_path)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_campaign_finds_nothing_lost_in_preparing_and_editing(tmp_path):
    """A small one; test_resume.py kills trainings."""
    names = ["prepare, a list", "prepare, an archive", "edit"]
    script = f"""
        import sys
        sys.path.insert(0, {str(ROOT / "benchmarks")!r})
        import faults
        faults.main(["--kills", "3", "--only", *{names}, "--json", "faults.json"])
    """
    done = run_python("\n".join(line.strip() for line in script.splitlines()), tmp_path, BOTH_HOMES, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "faults.json").read_text())["campaigns"]
    assert list(found) == names
    for name in names:
        assert {key: found[name][key] for key in ("kills", "lost", "other bits", "crashes", "hangs")} == {
            "kills": 3, "lost": 0, "other bits": 0, "crashes": 0, "hangs": 0
        }  # fmt: skip
