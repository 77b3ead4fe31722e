"""The package as a whole: a light import, the names it promises, and nothing that reaches outside."""

import subprocess
import sys

import edgeconnect_lite


def run(code: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **options)


def test_every_promised_name_is_there():
    for name in edgeconnect_lite.__all__:
        assert getattr(edgeconnect_lite, name) is not None
    assert set(edgeconnect_lite.__all__) <= set(dir(edgeconnect_lite))


def test_import_touches_no_device_no_network_and_no_seed():
    code = """
import random, socket, sys
import numpy as np, torch
def refuse(*a, **k): raise AssertionError('reached out at import')
socket.socket.connect = socket.getaddrinfo = refuse
torch.cuda._lazy_init = torch.cuda.is_available = torch.cuda.device_count = torch.backends.mps.is_available = refuse
torch.manual_seed = np.random.seed = random.seed = refuse
before = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
import edgeconnect_lite
for name in edgeconnect_lite.__all__: getattr(edgeconnect_lite, name)
import edgeconnect_lite.training, edgeconnect_lite.features, edgeconnect_lite.evaluation, edgeconnect_lite.cli
import edgeconnect_lite.exercises, edgeconnect_lite.figures, edgeconnect_lite.metrics, edgeconnect_lite.losses
after = torch.random.get_rng_state(), np.random.get_state()[1], random.getstate()
assert torch.equal(before[0], after[0]) and (before[1] == after[1]).all() and before[2] == after[2]
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_the_import_alone_loads_no_torch():
    done = run("import sys, edgeconnect_lite; print('torch' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


def test_from_another_folder_kernels_is_not_importable(tmp_path):
    done = run("import edgeconnect_kernels; import kernels", cwd=tmp_path)
    assert done.returncode == 1 and "No module named 'kernels'" in done.stderr
