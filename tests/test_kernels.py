"""edgeconnect_kernels: the gated ELU against its formulas in float64, the Triton kernels by the interpreter."""

import sys

import numpy as np
import pytest
import torch
from edgeconnect_kernels import gated_elu, gated_elu_reference
from helpers import few, run_python, same, seeded
from hypothesis import given
from hypothesis import strategies as st

if sys.platform != "linux":
    needs_triton = pytest.mark.skip(reason="Triton is for Linux alone")
else:
    import triton  # noqa: F401  (a package that Linux must have: its absence is a failure)

    needs_triton = pytest.mark.skipif(False, reason="")

seeds = st.integers(0, 2**16)


def formulas(x: np.ndarray, dy: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """y and dx of the module's docstring, in float64. x: (N, 2C, H, W)."""
    g, f = np.split(x.astype(np.float64), 2, axis=1)
    s = 1 / (1 + np.exp(-g))
    elu = np.where(f > 0, f, alpha * np.expm1(np.minimum(f, 0)))
    slope = np.where(f > 0, 1, alpha * np.exp(np.minimum(f, 0)))
    return s * elu, np.concatenate([dy * elu * s * (1 - s), dy * s * slope], axis=1)


def forward_backward(x: torch.Tensor, dy: torch.Tensor, alpha: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.detach().requires_grad_()
    y = gated_elu(x, alpha)
    y.backward(dy)
    return y.detach(), x.grad


@few(25)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.floats(0.1, 3), seeds)
def test_both_passes_follow_the_formulas(n, c, height, width, alpha, seed):
    x, dy = 3 * seeded(n, 2 * c, height, width, seed=seed), seeded(n, c, height, width, seed=seed + 1)
    y, dx = forward_backward(x, dy, alpha)
    wanted_y, wanted_dx = formulas(x.numpy(), dy.numpy(), alpha)
    np.testing.assert_allclose(y.numpy(), wanted_y, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(dx.numpy(), wanted_dx, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_autograd_agrees(alpha):
    x = 2 * seeded(2, 6, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: gated_elu(x, alpha), (x,))
    dy = seeded(2, 3, 4, 5, seed=1)
    reference = x.detach().requires_grad_()
    gated_elu_reference(reference, alpha).backward(dy)
    y, dx = forward_backward(x, dy, alpha)
    torch.testing.assert_close(y, gated_elu_reference(x.detach(), alpha))
    torch.testing.assert_close(dx, reference.grad)


def test_the_gate_comes_first():
    x = torch.tensor([100.0, -100.0, 2.0, 2.0]).view(1, 4, 1, 1)
    assert gated_elu(x).flatten().tolist() == [2.0, pytest.approx(0, abs=1e-30)]
    x = torch.tensor([0.0, -3.0]).view(1, 2, 1, 1)
    assert gated_elu(x).item() == pytest.approx(0.5 * (np.exp(-3) - 1))
    assert gated_elu(x, 2.0).item() == pytest.approx(np.exp(-3) - 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_dtype_is_kept_and_close_to_its_last_bits(dtype):
    x, dy = seeded(2, 8, 9, 7, dtype=dtype), seeded(2, 4, 9, 7, seed=1, dtype=dtype)
    y, dx = forward_backward(x, dy)
    wanted_y, wanted_dx = formulas(x.double().numpy(), dy.double().numpy(), 1.0)
    assert y.dtype == dx.dtype == dtype
    limit = 6 * torch.finfo(dtype).eps  # a handful of roundings of numbers of about 1
    assert np.abs(y.double().numpy() - wanted_y).max() < limit * max(1, np.abs(wanted_y).max())
    assert np.abs(dx.double().numpy() - wanted_dx).max() < limit * max(1, np.abs(wanted_dx).max())


def layouts():
    whole = seeded(3, 8, 10, 12)
    yield "channels last", whole.contiguous(memory_format=torch.channels_last)
    yield "every second pixel", seeded(3, 8, 20, 24)[..., ::2, 1::2]
    yield "turned", whole.transpose(2, 3)
    yield "a slice of channels", seeded(3, 16, 10, 12)[:, 4:12]
    yield "one picture for all", seeded(1, 8, 10, 12).expand(3, -1, -1, -1)
    yield "one number for all", seeded(1, 8, 1, 1).expand(3, -1, 5, 5)


@pytest.mark.parametrize(("name", "x"), list(layouts()), ids=[name for name, _ in layouts()])
def test_any_layout_gives_the_same(name, x):
    assert name == "channels last" or not x.is_contiguous()
    dy = seeded(*x[:, :4].shape, seed=1)
    plain, other = forward_backward(x.contiguous(), dy), forward_backward(x, dy)
    for a, b in zip(plain, other):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-15)  # exp of vectors and of single numbers: the last bit
    turned = forward_backward(x, dy.transpose(2, 3).contiguous().transpose(2, 3))
    for a, b in zip(plain, turned):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-15)
    spread, ones = torch.ones(()).double().expand(dy.shape), torch.ones_like(dy)  # as y.sum().backward() gives it
    torch.testing.assert_close(forward_backward(x, spread)[1], forward_backward(x, ones)[1], rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_extremes_stay_finite(dtype):
    values = torch.tensor([-100.0, -20.0, -1e-4, 0.0, 1e-4, 20.0, 100.0], dtype=dtype)
    x = torch.stack(torch.meshgrid(values, values, indexing="ij"))[None]
    y, dx = forward_backward(x, torch.ones_like(x[:, :1]))
    assert torch.isfinite(y).all() and torch.isfinite(dx).all()
    wanted_y, wanted_dx = formulas(x.double().numpy(), np.ones((1, 1, 7, 7)), 1.0)
    tolerance = {"rtol": 6 * torch.finfo(dtype).eps, "atol": 4 * torch.finfo(dtype).eps}
    np.testing.assert_allclose(y.double().numpy(), wanted_y, **tolerance)
    tolerance["atol"] *= 20 if dtype != torch.float64 else 1  # 1 - s of a large gate, times a feature of 20
    np.testing.assert_allclose(dx.double().numpy(), wanted_dx, **tolerance)


def test_the_input_is_left_alone_and_nothing_is_empty_handed():
    x = seeded(2, 4, 3, 3)
    before = x.clone()
    forward_backward(x, seeded(2, 2, 3, 3))
    assert same(x, before)
    for shape in ((0, 4, 3, 3), (2, 4, 0, 3), (2, 0, 3, 3)):
        empty = torch.zeros(shape, requires_grad=True)
        y = gated_elu(empty)
        assert y.shape == (shape[0], shape[1] // 2, *shape[2:])
        y.sum().backward()
        assert empty.grad.shape == shape


@pytest.mark.parametrize("shape", [(4, 3, 3), (1, 3, 4, 4), (2, 4), (1, 1, 4, 4, 4)])
def test_a_wrong_shape_says_what_came_and_what_was_wanted(shape):
    with pytest.raises(ValueError) as error:
        gated_elu(torch.zeros(shape))
    assert f"x has shape {shape}; wanted (N, 2C, H, W)" in str(error.value)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_a_wrong_dtype_is_refused(dtype):
    with pytest.raises(TypeError, match=f"x has dtype {dtype}; wanted a floating point dtype"):
        gated_elu(torch.zeros(1, 2, 2, 2, dtype=dtype))


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_a_wrong_alpha_is_refused(alpha):
    with pytest.raises(ValueError, match=f"alpha is {alpha}; wanted alpha > 0"):
        gated_elu(torch.zeros(1, 2, 2, 2), alpha)


def test_a_second_derivative_is_refused_rather_than_wrong():
    x = seeded(1, 2, 2, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(gated_elu(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        gradient.sum().backward()


# the Triton kernels, by the interpreter

CHECK = """
import importlib.util, pathlib, sys
import numpy as np, torch
import edgeconnect_kernels

SOURCE = (pathlib.Path(edgeconnect_kernels.__file__).parent / "triton_gated_elu.py").read_text()

def load(number, old, new, count):
    assert not old or SOURCE.count(old) == count, (old, SOURCE.count(old))
    path = pathlib.Path(f"changed_{number}.py").resolve()  # Triton reads a kernel's text from its file
    path.write_text(SOURCE.replace(old, new) if old else SOURCE)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

def formulas(x, dy, alpha):
    g, f = np.split(x.double().numpy(), 2, axis=1)
    s = 1 / (1 + np.exp(-g))
    elu = np.where(f > 0, f, alpha * np.expm1(np.minimum(f, 0)))
    slope = np.where(f > 0, 1, alpha * np.exp(np.minimum(f, 0)))
    dy = dy.double().numpy()
    return s * elu, np.concatenate([dy * elu * s * (1 - s), dy * s * slope], axis=1)

BLOCK = 16

def compare(module, x, dy, alpha, rtol, atol):
    before = x.clone()
    y, dx = module.forward(x, alpha, block=BLOCK), module.backward(x, dy, alpha, block=BLOCK)
    assert y.dtype == dx.dtype == x.dtype and y.shape == dy.shape and dx.shape == x.shape
    assert torch.equal(x, before)
    assert torch.isfinite(y).all() and torch.isfinite(dx).all()
    for found, wanted in zip((y, dx), formulas(x, dy, alpha)):
        np.testing.assert_allclose(found.double().numpy(), wanted, rtol=rtol, atol=atol)

def check(module):
    random = torch.Generator().manual_seed(0)
    for pixels in (1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5):
        for batch, alpha in ((1, 1.0), (3, 0.7)):
            x, dy = torch.randn(batch, 2, 1, pixels, generator=random), torch.randn(batch, 1, 1, pixels, generator=random)
            compare(module, 2 * x, dy, alpha, 1e-5, 1e-6)
    x, dy = torch.randn(2, 6, 3, 5, generator=random), torch.randn(2, 3, 3, 5, generator=random)
    compare(module, x, dy, 1.0, 1e-5, 1e-6)
    turned = dy.transpose(2, 3).contiguous().transpose(2, 3)
    compare(module, x.contiguous(memory_format=torch.channels_last), turned, 1.0, 1e-5, 1e-6)
    compare(module, x.half(), dy.half(), 1.0, 2e-3, 1e-4)
    values = torch.tensor([-100.0, -20.0, 0.0, 20.0, 100.0])
    extreme = torch.stack(torch.meshgrid(values, values, indexing="ij"))[None]
    compare(module, extreme, torch.ones(1, 1, 5, 5), 1.0, 1e-5, 1e-5)
    empty = torch.zeros(0, 2, 3, 3)
    assert module.forward(empty, 1.0).shape == (0, 1, 3, 3)
    assert module.backward(empty, empty[:, :1], 1.0).shape == (0, 2, 3, 3)

check(load("none", "", "", 0))
print("unchanged: right")
for name, change in MUTANTS.items():
    module = load(list(MUTANTS).index(name), *change)
    try:
        check(module)
    except AssertionError:
        print(name + ": wrong")
    else:
        print(name + ": right")
"""

MUTANTS = {
    "halves swapped in the forward and backward pass": ("tl.load(x_ptr + i, ", "tl.load(x_ptr + chw + i, ", 2),
    "halves of the gradient swapped": ("tl.store(dx_ptr + i, dg", "tl.store(dx_ptr + i, df", 1),
    "1 - s dropped": ("dy * elu * s * (1.0 - s)", "dy * elu * s", 1),
    "alpha dropped": ("tl.where(f > 0, 1.0, alpha * exp_f)", "tl.where(f > 0, 1.0, exp_f)", 1),
    "the picture's base dropped": ("    x_ptr += n * 2 * chw\n", "", 2),
    "ELU's -1 dropped": ("alpha * (exp_f - 1.0)", "alpha * exp_f", 1),
    "only the first picture": ("n = tl.program_id(1).to(tl.int64)", "n = tl.program_id(1).to(tl.int64) * 0", 2),
    "the last element dropped": ("inside = i < chw", "inside = i < chw - 1", 2),
}


@needs_triton
def test_the_kernels_follow_the_formulas_and_every_mutant_fails(tmp_path):
    """One process for all: what passes for the kernels as they are must fail for each changed line."""
    result = run_python(f"MUTANTS = {MUTANTS!r}\n{CHECK}", tmp_path, TRITON_INTERPRET="1")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["unchanged: right", *(f"{name}: wrong" for name in MUTANTS)], result.stderr


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")


@GPU
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_on_a_gpu_the_kernels_follow_the_formulas(dtype):
    for pixels in (1, 1023, 1024, 1025):
        x, dy = 3 * seeded(2, 2, 1, pixels, dtype=dtype), seeded(2, 1, 1, pixels, seed=1, dtype=dtype)
        y, dx = forward_backward(x.cuda(), dy.cuda())
        for found, wanted in zip((y, dx), formulas(x.double().numpy(), dy.double().numpy(), 1.0)):
            limit = 4 * torch.finfo(dtype).eps
            np.testing.assert_allclose(found.cpu().double().numpy(), wanted, rtol=limit, atol=limit)


@GPU
def test_more_than_2_to_the_31_elements_on_a_gpu():
    if torch.cuda.mem_get_info()[0] < 40 * 2**30:
        pytest.skip("no CUDA GPU with 40 GB free here")
    x = torch.zeros(3, 2, 2**15, 2**15, dtype=torch.float16, device="cuda")  # 3 * 2^31 elements
    x[2] = 2.0
    y = gated_elu(x)
    wanted = 2 / (1 + np.exp(-2))
    assert not y[:2].any() and (y[2] - wanted).abs().max() < 1e-2


# the package's place


def test_the_shelf_itself_cannot_be_imported(tmp_path):
    """A package named `kernels` exists on PyPI: the folder must not stand before it."""
    result = run_python("import kernels", tmp_path)
    assert result.returncode != 0 and "ModuleNotFoundError: No module named 'kernels'" in result.stderr


def test_the_package_works_without_triton_and_does_nothing_at_import(tmp_path):
    code = """
import sys
sys.modules["triton"] = None  # as on macOS and Windows: `import triton` raises ImportError
import torch, edgeconnect_kernels
assert not torch.cuda.is_initialized()
x = torch.randn(1, 4, 3, 3, requires_grad=True)
y = edgeconnect_kernels.gated_elu(x)
y.sum().backward()
assert torch.allclose(y, edgeconnect_kernels.gated_elu_reference(x)) and x.grad is not None
assert "edgeconnect_lite" not in sys.modules
print("works")
"""
    result = run_python(code, tmp_path)
    assert result.stdout == "works\n", result.stderr


def test_the_cpu_path_never_loads_triton_s_kernels(tmp_path):
    code = """
import sys, torch, edgeconnect_kernels
edgeconnect_kernels.gated_elu(torch.randn(1, 4, 3, 3, requires_grad=True)).sum().backward()
print("edgeconnect_kernels.triton_gated_elu" in sys.modules)
"""
    result = run_python(code, tmp_path)
    assert result.stdout == "False\n", result.stderr
