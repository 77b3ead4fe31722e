"""What several test files share: seeded pictures, tiny folders of photos, and Python in a process of its own."""

import importlib.util
import inspect
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import edgeconnect_kernels
import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

import edgeconnect_lite
from edgeconnect_lite.generators import EdgeGenerator, ImageGenerator
from edgeconnect_lite.inpainting import Inpainter

KERNELS_HOME = str(Path(edgeconnect_kernels.__file__).parents[1])  # what stands on the path of an installed package
BOTH_HOMES = os.pathsep.join([KERNELS_HOME, str(Path(edgeconnect_lite.__file__).parents[1])])

needs_triton = pytest.mark.skipif(
    sys.platform != "linux", reason="Triton is for Linux alone"
)  # there its absence fails


def load_module(file: Path) -> ModuleType:
    """Import a file that is on no path, under its own name."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def few(examples: int) -> settings:
    """Hypothesis settings: the same few examples on every machine, no clock, nothing stored."""
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None)


def noise_photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Independent uniform bytes. uint8 (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def shapes_photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Coloured boxes on a coloured ground: a photo with strong edges. uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    photo = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(8):
        top, left = int(rng.integers(height)), int(rng.integers(width))
        tall, wide = (int(rng.integers(1, max(2, side // 2))) for side in (height, width))
        photo[top : top + tall, left : left + wide] = rng.integers(0, 256, 3)
    return photo


def blob_mask(height: int, width: int, seed: int = 0) -> np.ndarray:
    """One to three boxes as a hole, never empty and never full. bool (height, width)."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool)
    for _ in range(rng.integers(1, 4)):
        top, left = int(rng.integers(height)), int(rng.integers(width))
        mask[top : top + max(1, height // 3), left : left + max(1, width // 3)] = True
    if mask.all():
        mask[0, 0] = False
    return mask


def with_noise_in_hole(photo: np.ndarray, mask: np.ndarray, seed: int = 1) -> np.ndarray:
    """The same photo with other content in its hole."""
    return np.where(mask[..., None], noise_photo(*mask.shape, seed), photo)


def save(path: Path, array: np.ndarray, **options) -> Path:
    """Write an array with Pillow, in folders made as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def seeded(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal in shape, dtype and every bit."""
    return a.dtype == b.dtype and torch.equal(a, b)


def equal(a: Any, b: Any) -> bool:
    """Equal in every bit: tensors, and what holds them."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


EQUAL = f"import torch\n{inspect.getsource(equal).replace(': Any', '').replace(' -> bool', '')}"  # for run_python's code


def tiny_inpainter() -> Inpainter:
    """Two very small networks with seeded weights, for photos of 32 px."""
    torch.manual_seed(0)
    return Inpainter(EdgeGenerator(4, 8, 1, decision=4), ImageGenerator(4, 8, 1), size=32, device="cpu")


def run_python(
    code: str, cwd: Path, path: str = KERNELS_HOME, timeout: float = 120, **variables: str
) -> subprocess.CompletedProcess:
    """Run code in a fresh interpreter in the folder cwd, with `path` as PYTHONPATH.

    A process that hangs is ended, with all that it started, and gives the return code -9.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        output, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)
