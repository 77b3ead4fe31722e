"""Exact resume: a run that is killed by SIGKILL at any moment and resumed ends with the same bits as one that was not."""

import json
import os

import pytest
from helpers import BOTH_HOMES, EQUAL, run_python, save

from edgeconnect_lite.photos import FacePhotos

RUNS_TO_KILL = {("edge", 0): 20, ("image", 2): 20, ("edge", 2): 5, ("image", 0): 5}  # stage and workers: moments

# One process that never trains itself: it forks, so that a run costs no import, and kills the children.
RUNS = """
import contextlib, json, os, random, shutil, signal, sys, time, traceback
from pathlib import Path
import torch
from edgeconnect_lite.checkpoints import CHECKPOINT
from edgeconnect_lite.training import EdgeTraining, ImageTraining, train_edge, train_image

out, photos, stage, workers, moments = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
kind, train = {"edge": (EdgeTraining, train_edge), "image": (ImageTraining, train_image)}[stage]
config = kind(photos=photos, size=64, width=4, bottom=8, blocks=1, batch_size=2, validation=2, steps=6, warmup=2,
              threads=1, workers=workers, log_every=4, checkpoint_minutes=0.0,
              adversarial_weight=0.01, feature_matching_weight=0.3)

def start(folder):
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        try:
            train(config, folder, resume=(folder / config.stage / CHECKPOINT).exists())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return child

def finish(folder):
    _, status = os.waitpid(start(folder), 0)
    assert status == 0, f"{folder}: exit {status}"

def result(folder):
    run = folder / config.stage
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {
        "weights": (run / "model.safetensors").read_bytes(),
        "state": torch.load(run / CHECKPOINT, weights_only=True),
        "log": [line for line in log if "discriminator" in line],
        "left over": sorted(path.name for path in run.glob(".*")),
    }

def wait_for_checkpoints(child, folder, number):
    '''Until so many were seen, or the run has ended.'''
    path, seen, ended = folder / config.stage / CHECKPOINT, set(), os.WEXITED | os.WNOHANG | os.WNOWAIT
    while len(seen) < number and os.waitid(os.P_PID, child, ended) is None:
        time.sleep(0.002)
        with contextlib.suppress(FileNotFoundError):
            seen.add(path.stat().st_mtime_ns)

def kill(folder, number, seconds):
    '''Begin a run, kill it so many seconds after that checkpoint. False if it had ended.'''
    child = start(folder)
    wait_for_checkpoints(child, folder, number)
    time.sleep(seconds)
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        assert status == 0, f"{folder}: exit {status}"
        return False
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True

began = time.monotonic()
child = start(out / "whole")
wait_for_checkpoints(child, out / "whole", 1)
first = time.monotonic() - began
assert os.waitpid(child, 0)[1] == 0
one_step = (time.monotonic() - began - first) / (config.steps - 1)
whole, killed_at = result(out / "whole"), []
draw = random.Random(0)
for moment in range(moments):
    folder = out / f"killed-{moment}"
    number = moment % config.steps  # of the checkpoint; 0 = from the beginning
    share = draw.random()
    while not kill(folder, number, share * (one_step if number else first)):
        shutil.rmtree(folder)  # the machine has more time for it now than it had for the whole run
        number, share = max(number - 1, 0), share / 2
    path = folder / config.stage / CHECKPOINT
    killed_at.append(torch.load(path, weights_only=True)["step"] if path.exists() else None)
    finish(folder)
    found = result(folder)
    different = [name for name in whole if not equal(found[name], whole[name])]
    assert not different, f"moment {moment}, killed at {killed_at[-1:]}: other {different}"
    shutil.rmtree(folder)
print(json.dumps(killed_at))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no SIGKILL and no fork on this system")
@pytest.mark.parametrize("stage, workers", RUNS_TO_KILL)
def test_a_killed_run_resumes_bit_for_bit(stage, workers, tmp_path):
    moments = RUNS_TO_KILL[stage, workers]
    faces = FacePhotos("test", 64)
    for i in range(8):
        save(tmp_path / f"photos/{i}.png", faces[i])
    arguments = [str(tmp_path / "out"), str(tmp_path / "photos"), stage, str(workers), str(moments)]
    done = run_python(f"import sys\nsys.argv[1:] = {arguments!r}\n{EQUAL}{RUNS}", tmp_path, BOTH_HOMES, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    killed_at = json.loads(done.stdout.splitlines()[-1])
    assert len(killed_at) == moments
    assert len(set(killed_at)) > moments // 8, f"killed at few steps: {killed_at}"
