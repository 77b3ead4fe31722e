"""The compiled Triton kernels, run by edgeconnect_kernels.ptx on a CPU: their values, their bounds, and mutants that must fail.

Values are judged on the kernel's own (rounded) inputs, against float64, for |f|, |g| <= 4: with 16 bits nearly all must be
the rounded reference and the others its neighbours; float32 must keep to 1e-6 of |reference| + |dy| s (alpha + |f|), the
scale of what is multiplied (|y| for |f| from (y, g); dy = 1 forward), even when every special function of the hardware
errs by all that its documentation allows.
"""

from functools import cache
from pathlib import Path

import edgeconnect_kernels
import numpy as np
import pytest
import torch
from edgeconnect_kernels.ptx import Memory, PTXError, launch
from edgeconnect_kernels.report import Variant, compile_variant
from edgeconnect_kernels.stored import VARIANTS, bare, stored_ptx
from helpers import load_module, needs_triton, seeded
from test_kernels import formulas

ALPHA = 0.7
LIMIT = {"bfloat16": 1e-4, "float16": 1e-3, "float32": 1e-6}  # share of elements that differ; error over scale
ERRORS = ({}, {"error": 1.0}, {"error": -1.0}, {"error": 1.0, "seed": 0})  # of the hardware's approximations
BLOCK = {"bfloat16": 1024, "float16": 1024, "float32": 512}
KERNELS = ("forward", "backward_from_x", "backward_from_yg")


def inputs(variant: Variant, n: int, c: int, pixels: int) -> dict[str, torch.Tensor]:
    """Tensors of a launch: x (N, 2C, 1, P) uniform in [-4, 4], dy normal, bias, and y and gate as forward makes them."""
    dtype = getattr(torch, variant.dtype)
    layout = torch.channels_last if variant.layout == "channels_last" else torch.contiguous_format
    uniform = torch.rand(n, 2 * c, 1, pixels, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = (8 * uniform - 4).to(dtype).contiguous(memory_format=layout)
    bias = seeded(2 * c, seed=2, dtype=torch.float32 if variant.wide_bias else dtype) if variant.bias else None
    y = torch.from_numpy(formulas(x, torch.zeros(()), ALPHA, 0.0 if bias is None else bias)[0])
    gate = x[:, :c].double() + (0.0 if bias is None else bias[:c].double().view(1, -1, 1, 1))
    dy = seeded(n, c, 1, pixels, seed=3, dtype=dtype)
    made = {"x": x, "dy": dy, "y": y.to(dtype), "gate": gate.to(dtype)}
    return {name: t.contiguous(memory_format=layout) for name, t in made.items()} | (
        {"bias": bias} if variant.bias else {}
    )


def reference(kernel: str, given: dict[str, torch.Tensor]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Each output in float64, and the scale that float32's error is judged by."""
    dy = given["dy"].double().numpy()
    if kernel == "backward_from_yg":
        y, g = given["y"].double().numpy(), given["gate"].double().numpy()
        s, rest = 1 / (1 + np.exp(-g)), 1 / (1 + np.exp(g))
        dx = np.concatenate([dy * y * rest, dy * np.where(y > 0, s, y + ALPHA * s)], axis=1)
        size = np.abs(y)
    else:
        bias = given.get("bias", 0.0)
        y, dx = formulas(given["x"], dy, ALPHA, bias)
        wide = given["x"].double().numpy() + np.asarray(torch.as_tensor(bias).double()).reshape(-1, 1, 1)
        g, f = np.split(wide, 2, axis=1)
        s, size = 1 / (1 + np.exp(-g)), np.abs(f)
        if kernel.startswith("forward"):
            return {"y": y, "gate": g}, {"y": np.abs(y) + s * (ALPHA + size), "gate": np.abs(g)}
    scale = np.tile(np.abs(dy) * s * (ALPHA + size), (1, 2, 1, 1))
    return {"dx": dx}, {"dx": np.abs(dx) + scale}


def run(variant: Variant, ptx: str, given: dict[str, torch.Tensor], **options) -> dict[str, torch.Tensor]:
    """Launch as triton_gated_elu._launch does. Returns the kernel's outputs, which it must have written whole."""
    n, c, _, pixels = given["dy"].shape
    last = variant.layout == "channels_last"
    out = {"y": torch.empty_like(given["y"]), "gate": torch.empty_like(given["y"]), "dx": torch.empty_like(given["x"])}
    wanted = {"forward": ["y"], "forward_keeping_gate": ["y", "gate"]}.get(variant.kernel, ["dx"])
    names = {"backward_from_x": ["dy", "x", "bias"], "backward_from_yg": ["dy", "y", "gate"]}.get(
        variant.kernel, ["x", "bias"]
    )
    memory = Memory()
    reads = [memory.map(None, given[name], writable=False) for name in names if name in given]
    writes = [memory.map(None, out[name], initialised=False) for name in wanted]
    block = BLOCK[variant.dtype]
    if last:
        length, grid = n * pixels * c, (-(-n * pixels * c // (block // c * c)),)
    else:
        length, planes = (pixels, n * c) if variant.bias else (c * pixels, n)
        grid = (-(-length // block), planes)
    launch(ptx, grid, [*reads, *writes, length, ALPHA], memory=memory, **options)
    return {name: out[name] for name in wanted}


def judge(variant: Variant, given: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> float:
    """Returns the largest error over the scale (float32), or the share of elements that are not the rounded reference."""
    wanted, scale = reference(variant.kernel, given)
    worst = 0.0
    for name, value in found.items():
        if variant.dtype == "float32":
            off = (np.abs(value.double().numpy() - wanted[name]) / scale[name]).max()
            assert off <= LIMIT["float32"], f"{name}: {off:.2g} of the scale"
        else:
            rounded = torch.from_numpy(wanted[name]).to(value.dtype)
            off = (value != rounded).double().mean().item()
            assert off <= LIMIT[variant.dtype], f"{name}: {off:.2g} of the elements are not the rounded reference"
            assert neighbours(value, rounded), f"{name} is more than 1 ulp away"
        worst = max(worst, off)
    return worst


def judge_all(variant: Variant, ptx: str, given: dict[str, torch.Tensor]) -> float:
    """The worst of runs of the kernel: of one, and for float32 of others on hardware that errs."""
    errors = ERRORS if variant.dtype == "float32" else ERRORS[:1]
    return max(judge(variant, given, run(variant, ptx, given, **options)) for options in errors)


def neighbours(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether all pairs of 16-bit floats are at most one step apart."""

    def steps(value):
        bits = value.contiguous().view(torch.int16).int()
        return torch.where(bits < 0, -(bits & 0x7FFF), bits)

    return (steps(a) - steps(b)).abs().max().item() <= 1


@cache
def fresh_ptx(variant: Variant) -> str:
    return compile_variant(variant).ptx


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: f"{v.kernel}-{v.dtype}-sm_{v.target}")
def test_the_stored_kernels_compute_what_they_should(variant):
    """Two pictures of 24 * 2,050 elements: multiples of 16, with a tail of 48."""
    judge_all(variant, stored_ptx(variant), inputs(variant, 2, 24, 2050))


def test_the_stored_kernels_are_these_kernels():
    """Other versions of Triton may write other PTX; with the pinned one it is the same, letter by letter."""
    triton = pytest.importorskip("triton")
    pinned = (Path(__file__).parents[1] / "constraints.txt").read_text()
    if f"triton=={triton.__version__}\n" not in pinned:
        pytest.skip(f"the stored PTX is of constraints.txt's triton; here is {triton.__version__}")
    for variant in VARIANTS:
        assert stored_ptx(variant) == bare(fresh_ptx(variant)), f"run python -m edgeconnect_kernels.stored: {variant}"


def test_a_kernel_that_is_not_stored_is_named():
    with pytest.raises(ValueError, match=r"channels_last.* is not stored"):
        stored_ptx(Variant("forward", layout="channels_last"))


ODD = [Variant(k, d, t, aligned=False) for k in KERNELS for d in BLOCK for t in (75, 80, 90, 100)]
OTHERS = [
    Variant(kernel, dtype, 90, layout, bias, aligned, wide)
    for kernel in KERNELS
    for dtype in BLOCK
    for layout, bias, aligned, wide in (
        ("contiguous", True, True, False),
        ("contiguous", True, True, True),
        ("channels_last", False, True, False),
        ("channels_last", True, True, False),
        ("channels_last", True, True, True),
        ("channels_last", False, False, False),
    )
    if not (bias and kernel == "backward_from_yg")
]


@needs_triton
@pytest.mark.parametrize("variant", ODD + OTHERS, ids=lambda v: "-".join(map(str, vars(v).values())))
def test_odd_sizes_both_memory_formats_and_a_bias(variant):
    """Odd: 61,593 elements a picture. Else a tail of some elements, and with a bias several planes or pixels a program."""
    judge_all(variant, fresh_ptx(variant), other_inputs(variant))


def other_inputs(variant: Variant) -> dict[str, torch.Tensor]:
    if variant.layout == "channels_last":
        return inputs(variant, 2, 64 if variant.aligned else 63, 1390)
    return inputs(variant, 3, 64, 1072) if variant.bias else inputs(variant, 3, 49, 1257)


def last_program(variant: Variant, ptx: str, pictures: int = 1025) -> None:
    """The last program of a launch on an x of 8.6e9 elements, of which only what it should touch exists."""
    block, last = BLOCK[variant.dtype], variant.layout == "channels_last"
    c, n, pixels = (64, 1025, 65_536) if last else (1, pictures, 2**32 // pictures // 1024 * 1024 + 4096)
    assert 2 * c * n * pixels > 2**33
    given = inputs(variant, 1, c, block // c)  # the last pixels, or the last piece of the last picture
    out = {"y": torch.empty_like(given["y"]), "dx": torch.empty_like(given["x"])}
    memory, size = Memory(), given["x"].element_size()

    def packed(address, tensor, **options):
        if last:
            memory.map(address + 2 * (n * pixels * c - block) * size, tensor, **options)
        else:
            end = address + 2 * n * pixels * size
            memory.map(end - (pixels + block) * size, tensor[:, :1], **options)
            memory.map(end - block * size, tensor[:, 1:], **options)

    def half(address, tensor, **options):
        memory.map(address + (n * pixels * c - block) * size, tensor, **options)

    bases = [2**40, 2**42, 2**44, 2**46]
    if variant.kernel == "forward":
        packed(bases[0], given["x"])
        half(bases[1], out["y"], initialised=False)
    else:
        half(bases[0], given["dy"])
        if variant.kernel == "backward_from_x":
            packed(bases[1], given["x"])
        else:
            half(bases[1], given["y"])
            half(bases[2], given["gate"])
        packed(bases[2 if variant.kernel == "backward_from_x" else 3], out["dx"], initialised=False)
    pointers = bases[: {"forward": 2, "backward_from_x": 3}.get(variant.kernel, 4)]
    run, grid = (n * pixels * c, (n * pixels * c // block,)) if last else (pixels, (pixels // block, n))
    launch(ptx, grid, [*pointers, run, ALPHA], [tuple(size - 1 for size in grid)], memory)
    name = "y" if variant.kernel == "forward" else "dx"
    assert torch.isfinite(out[name]).all()
    wanted = torch.from_numpy(reference(variant.kernel, given)[0][name]).to(out[name].dtype)
    torch.testing.assert_close(out[name], wanted, rtol=0.01, atol=0)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("target", [75, 80, 90, 100])
def test_offsets_do_not_wrap_in_a_tensor_of_8_600_000_000_elements(kernel, target):
    variant = Variant(kernel, "bfloat16", target)
    last_program(variant, stored_ptx(variant))


@needs_triton
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_nor_in_one_picture_of_that_size_nor_in_a_channels_last_tensor(kernel, layout):
    variant = Variant(kernel, layout=layout)
    last_program(variant, compile_variant(variant, wide=True).ptx, pictures=1)


MUTANTS = {
    "halves swapped": (
        ("g = _load(x_ptr, gate_i, ", "g = _load(x_ptr, gate_i + to_feature, "),
        ("f = _load(x_ptr, gate_i + to_feature, ", "f = _load(x_ptr, gate_i, "),
        ("tl.store(dx_ptr + gate_i, dg", "tl.store(dx_ptr + gate_i, DF"),
        ("tl.store(dx_ptr + gate_i + to_feature, df", "tl.store(dx_ptr + gate_i + to_feature, dg"),
        ("gate_i, DF", "gate_i, df"),
    ),
    "tail mask dropped": (
        ("plane % C, lane < run - start", "plane % C, lane < BLOCK"),
        ("(lane < PIECE) & (lane < run - start)", "lane < PIECE"),
    ),
    "32-bit offsets of planes": (("tl.cast(run, tl.int64)", "run"), ("2 * start + ", "(2 * start).to(tl.int32) + ")),
    "32-bit offsets in a plane": (("tl.program_id(0).to(tl.int64)", "tl.program_id(0)"),),
    "sigmoid without the minus": (("g * -LOG2E", "g * LOG2E"),),
}


@needs_triton
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_mutants_fail(monkeypatch, tmp_path, kernel, mutant, layout):
    source = Path(edgeconnect_kernels.__file__).with_name("triton_gated_elu.py").read_text()
    for old, new in MUTANTS[mutant]:
        assert old in source
        source = source.replace(old, new)
    file = tmp_path / "mutant.py"
    file.write_text(source)
    monkeypatch.setattr(edgeconnect_kernels, "triton_gated_elu", load_module(file), raising=False)
    variant = Variant(kernel, layout=layout)
    ptx = compile_variant(variant).ptx
    with pytest.raises((AssertionError, PTXError)):
        given = inputs(variant, 2, 64, 1043)
        judge(variant, given, run(variant, ptx, given))
        if layout == "contiguous":
            last_program(variant, ptx)
        last_program(variant, compile_variant(variant, wide=True).ptx, pictures=1)


def test_the_kernel_file_is_one_page():
    file = Path(edgeconnect_kernels.__file__).with_name("triton_gated_elu.py")
    assert len(file.read_text().splitlines()) <= 250


if __name__ == "__main__":  # the table of kernels/README.md
    worst: dict[tuple[str, str], float] = {}
    for variant in VARIANTS + ODD + OTHERS:
        stored = variant in VARIANTS
        given = inputs(variant, 2, 24, 2050) if stored else other_inputs(variant)
        ptx = stored_ptx(variant) if stored else fresh_ptx(variant)
        key = variant.kernel, variant.dtype
        worst[key] = max(worst.get(key, 0.0), judge_all(variant, ptx, given))
    for key, off in worst.items():
        print(*key, f"{off:.1e}")
