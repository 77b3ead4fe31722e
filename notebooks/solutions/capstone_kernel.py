"""Capstone 2, solved once: the gated SiLU as two Triton kernels, checked and counted without a GPU. docs/capstones.md.

With s = sigmoid(g), t = sigmoid(f), and dy the gradient that arrives at y:

    y = s f t        dg = dy s f t (1 - s)        df = dy s t (1 + f (1 - t))

x is packed as in lesson 03, (N, 2C, H, W), gates first. Needs Linux, for Triton: python notebooks/solutions/capstone_kernel.py
"""

import os
import tempfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import triton
import triton.language as tl
from edgeconnect_kernels.ptx import launch
from edgeconnect_kernels.report import compile_kernel
from edgeconnect_kernels.roofline import GPUS, roofline

POINTERS = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}
TENSORS = {"forward": 3, "backward": 5}  # of N C H W elements, moved
MARGIN = 4096  # elements on both sides of a result: what is stored there was not meant to be


@triton.jit
def forward_kernel(x_ptr, y_ptr, run, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    picture = tl.program_id(1).to(tl.int64)
    inside = i < run
    g_ptr = x_ptr + picture * 2 * run
    g = tl.load(g_ptr + i, mask=inside).to(tl.float32)
    f = tl.load(g_ptr + run + i, mask=inside).to(tl.float32)
    y = f / ((1 + tl.exp(-g)) * (1 + tl.exp(-f)))  # one division for two sigmoids
    tl.store(y_ptr + picture * run + i, y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def backward_kernel(dy_ptr, x_ptr, dx_ptr, run, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    picture = tl.program_id(1).to(tl.int64)
    inside = i < run
    dy = tl.load(dy_ptr + picture * run + i, mask=inside).to(tl.float32)
    gates = picture * 2 * run + i
    g = tl.load(x_ptr + gates, mask=inside).to(tl.float32)
    f = tl.load(x_ptr + gates + run, mask=inside).to(tl.float32)
    u, v = tl.exp(tl.minimum(-g, 87.0)), tl.exp(tl.minimum(-f, 87.0))  # finite: infinity times 0 would be NaN
    s, t = 1 / (1 + u), 1 / (1 + v)
    dg = dy * s * f * t * (u * s)  # u s is 1 - s, without the subtraction
    df = dy * s * t * (1 + f * (v * t))
    tl.store(dx_ptr + gates, dg.to(dx_ptr.dtype.element_ty), mask=inside)
    tl.store(dx_ptr + gates + run, df.to(dx_ptr.dtype.element_ty), mask=inside)


def reference(x):
    """The formula, in float64."""
    g, f = x.double().chunk(2, dim=1)
    return torch.sigmoid(g) * f * torch.sigmoid(f)


def reference_backward(dy, x):
    """The derivative by hand, in float64, packed as x is."""
    dy, (g, f) = dy.double(), x.double().chunk(2, dim=1)
    s, t = torch.sigmoid(g), torch.sigmoid(f)
    return torch.cat([dy * s * f * t * torch.sigmoid(-g), dy * s * t * (1 + f * torch.sigmoid(-f))], dim=1)


def scale(dy, x):
    """What an error of the backward pass is measured by: df is a sum that is 0 near f = -1.28, so by its parts."""
    dy, (g, f) = dy.double().abs(), x.double().chunk(2, dim=1)
    s, t = torch.sigmoid(g), torch.sigmoid(f)
    dg = dy * s * f.abs() * t * torch.sigmoid(-g)
    return torch.cat([dg, dy * s * t * (1 + f.abs() * torch.sigmoid(-f))], dim=1)


def problem(shape=(2, 6, 9, 13), dtype=torch.float32, seed=0):
    """dy and x, with every pair of large gates and features in it."""
    draw = torch.Generator().manual_seed(seed)
    x, (n, c, h, w) = 3 * torch.randn(shape, generator=draw), shape
    large, room = torch.tensor([-100.0, -30.0, 0.0, 30.0, 100.0]), min(25, h * w)
    x[0, 0].view(-1)[:room], x[0, c // 2].view(-1)[:room] = large.repeat(5)[:room], large.repeat_interleave(5)[:room]
    return torch.randn(n, c // 2, h, w, generator=draw).to(dtype), x.to(dtype)


def interpret(kernel, *tensors, block=64):
    """Run a kernel on the interpreter; the last tensor takes the result, the one before it is x. Nothing else is stored."""
    (n, channels, h, w), result = tensors[-2].shape, tensors[-1]
    run = channels // 2 * h * w
    whole = torch.full((result.numel() + 2 * MARGIN,), torch.nan, dtype=result.dtype)
    inner = whole[MARGIN:-MARGIN].view(result.shape)
    with patch.dict(os.environ, TRITON_INTERPRET="1"), np.errstate(all="ignore"):  # e^100 is infinite
        triton.jit(kernel.fn)[(triton.cdiv(run, block), n)](*tensors[:-1], inner, run, BLOCK=block)
    outside = int((~whole[:MARGIN].isnan()).sum() + (~whole[-MARGIN:].isnan()).sum())
    assert outside == 0, f"{outside} elements were stored outside of the result"
    result.copy_(inner)


def errors(dy, x, y, dx):
    """The largest ones, relative to y and to the backward pass's scale. Below 1e-25 nobody asks for digits."""
    exact = reference(x)
    forward = (y - exact).abs() / (exact.abs() + 1e-25)
    backward = (dx - reference_backward(dy, x)).abs() / (scale(dy, x) + 1e-25)
    return [float(error.nan_to_num(torch.inf).max()) for error in (forward, backward)]


def check_interpreted(shape=(2, 6, 9, 13)):
    """Step 1: the code, in float32, against float64."""
    dy, x = problem(shape)
    y, dx = torch.empty_like(dy), torch.empty_like(x)
    interpret(forward_kernel, x, y)
    interpret(backward_kernel, dy, x, dx)
    found = errors(dy, x, y, dx)
    assert max(found) < 1e-6, f"the errors are {found}; wanted less than 1e-6"
    return found


def compiled(name, dtype=torch.bfloat16, target=90):
    """Step 2: what a GPU would run. `run` is declared a multiple of 16, which 128-bit accesses need."""
    kernel, pointers = (
        (forward_kernel, ("x_ptr", "y_ptr")) if name == "forward" else (backward_kernel, ("dy_ptr", "x_ptr", "dx_ptr"))
    )
    signature = dict.fromkeys(pointers, POINTERS[dtype]) | {"run": "i32"}
    block = 128 * 16 // dtype.itemsize  # 128 threads of 16 bytes
    return compile_kernel(kernel, signature, {"BLOCK": block}, block, target, aligned=signature)


def check_compiled(dtype=torch.bfloat16, shape=(2, 6, 20, 36)):
    """Step 3: its PTX, on the CPU. Returns the share of bfloat16 results that are not float64's, or float32's errors."""
    dy, x = problem(shape, dtype)
    y, dx = torch.full_like(dy, torch.nan), torch.full_like(x, torch.nan)
    run = y[0].numel()
    for name, tensors in (("forward", (x, y)), ("backward", (dy, x, dx))):
        kernel = compiled(name, dtype)
        trace = launch(kernel.ptx, (triton.cdiv(run, kernel.elements), shape[0]), [*tensors, run])
        moved = trace.bytes("load") + trace.bytes("store")
        assert moved == TENSORS[name] * dtype.itemsize * y.numel(), f"{name} moves {moved} bytes"
    if dtype == torch.float32:
        found = errors(dy, x, y, dx)  # larger now: e^30 is computed as 2^(30 log2 e), whose rounding counts 30 times
        assert max(found) < 3e-6, f"the errors are {found}; wanted less than 3e-6"
        return found
    pairs = (y, reference(x)), (dx, reference_backward(dy, x))
    found = [float(((got != want.to(dtype)) & (want.abs() > 1e-25)).double().mean()) for got, want in pairs]
    assert max(found) < 1e-3, f"{found} of the elements are not the rounded reference; wanted less than 0.001"
    return found


def cost(name, gpu="H100 SXM"):
    """Step 4: counted in the machine code, and the least time on a GPU for 8 x 64 x 256 x 256 elements, modelled."""
    figures = compiled(name, target=GPUS[gpu].target).figures
    return figures, roofline(2 * TENSORS[name], figures.instructions_per_element, figures.mufu_per_element, GPUS[gpu])


MUTANTS = {  # (what is written, what a tired hand writes): check_interpreted must refuse each
    "the gate for the feature": ("tl.load(x_ptr + gates + run", "tl.load(x_ptr + gates"),
    "no mask at the store": (
        "tl.store(y_ptr + picture * run + i, y.to(y_ptr.dtype.element_ty), mask=inside)",
        "tl.store(y_ptr + picture * run + i, y.to(y_ptr.dtype.element_ty))",
    ),
    "one picture alone": ("g_ptr = x_ptr + picture * 2 * run", "g_ptr = x_ptr + picture * run"),
    "no dy": ("dg = dy * s", "dg = s"),
    "SiLU's slope without its second part": ("(1 + f * (v * t))", "1"),
    "1 - s by subtraction": ("t * (u * s)", "t * (1 - s)"),
    "an infinite e^-g": ("tl.exp(tl.minimum(-g, 87.0))", "tl.exp(-g)"),
}


def survivors(source=Path(__file__)):
    """The mutants that the check lets pass; wanted: none."""
    text, passed = source.read_text(encoding="utf-8"), []
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, (right, wrong)) in enumerate(MUTANTS.items()):
            assert text.count(right) > 1, f"{name}: nothing to damage"  # here, and in the table above
            file = Path(folder, f"mutant_{number}.py")  # a file of its own each: Triton reads it
            file.write_text(text.replace(right, wrong), encoding="utf-8")
            spec = spec_from_file_location(file.stem, file)
            mutant = module_from_spec(spec)
            spec.loader.exec_module(mutant)
            try:
                mutant.check_interpreted()
                passed.append(name)
            except AssertionError:
                pass
    return passed


def main():
    print("interpreter, float32, errors forward and backward:", *(f"{error:.1e}" for error in check_interpreted()))
    print("PTX, float32, errors:", *(f"{error:.1e}" for error in check_compiled(torch.float32)))
    print("PTX, bfloat16, not the rounded reference:", *(f"{share:.1e}" for share in check_compiled()))
    for name in TENSORS:
        figures, time = cost(name)
        print(f"{name}: {figures.instructions_per_element:.1f} instructions, {figures.mufu_per_element:.0f} MUFU, "
              f"{figures.registers} registers, {figures.spills} spills, {figures.accesses}; "
              f"at least {1e6 * time['seconds']:.0f} us, bound by {time['bound']}")  # fmt: skip
    print("mutants that pass:", survivors() or "none")


if __name__ == "__main__":
    main()
