"""edgeconnect_kernels.gated_elu: the op against its formulas in float64, its place in PyTorch, the interpreted kernels."""

import copy
import pickle
import shutil
import sys
import sysconfig
import types
from pathlib import Path

import edgeconnect_kernels
import numpy as np
import pytest
import torch
from edgeconnect_kernels import (
    gated_elu,
    gated_elu_reference,
    gated_elu_reference_backward,
    gated_elu_reference_backward_from_yg,
)
from functorch.compile import make_boxed_func
from helpers import few, needs_triton, run_python, same, seeded
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.backends.common import aot_autograd

from edgeconnect_lite.generators import ImageGenerator
from edgeconnect_lite.layers import GatedConv2d

ops = sys.modules["edgeconnect_kernels.gated_elu"]  # the module: the package's attribute of that name is the function

seeds = st.integers(0, 2**16)
SAVES = ("x", "yg")


def formulas(x, dy, alpha=1.0, bias=0.0) -> tuple[np.ndarray, np.ndarray]:
    """y and dx of the module's docstring, in float64. x: (N, 2C, H, W). bias: (2C,)."""
    x, dy, bias = (np.asarray(torch.as_tensor(a).double()) for a in (x, dy, bias))
    g, f = np.split(x + bias.reshape(-1, 1, 1), 2, axis=1)
    s, rest = 1 / (1 + np.exp(-g)), 1 / (1 + np.exp(g))
    elu = np.where(f > 0, f, alpha * np.expm1(np.minimum(f, 0)))
    slope = np.where(f > 0, 1, alpha * np.exp(np.minimum(f, 0)))
    return s * elu, np.concatenate([dy * elu * s * rest, dy * s * slope], axis=1)


def forward_backward(x, dy, alpha=1.0, bias=None, save="x"):
    """y, dx, and the bias's gradient (None without one)."""
    x = x.detach().requires_grad_()
    bias = None if bias is None else bias.detach().requires_grad_()
    y = gated_elu(x, bias, alpha, save)
    y.backward(dy)
    return y.detach(), x.grad, None if bias is None else bias.grad


@few(40)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(1, 6),
    st.floats(0.1, 3),
    st.sampled_from(SAVES),
    st.booleans(),
    st.booleans(),
    seeds,
)
def test_both_passes_follow_the_formulas(n, c, height, width, alpha, save, with_bias, last, seed):
    x, dy = 3 * seeded(n, 2 * c, height, width, seed=seed), seeded(n, c, height, width, seed=seed + 1)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    bias = seeded(2 * c, seed=seed + 2) if with_bias else None
    y, dx, dbias = forward_backward(x, dy, alpha, bias, save)
    wanted_y, wanted_dx = formulas(x, dy, alpha, bias if with_bias else 0.0)
    np.testing.assert_allclose(y.numpy(), wanted_y, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(dx.numpy(), wanted_dx, rtol=1e-12, atol=1e-14)
    if with_bias:
        np.testing.assert_allclose(dbias.numpy(), wanted_dx.sum((0, 2, 3)), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_the_reference_and_its_backward_formulas_agree_with_autograd(alpha):
    x, bias, dy = 2 * seeded(2, 6, 4, 5), seeded(6, seed=3), seeded(2, 3, 4, 5, seed=1)
    leaf = x.clone().requires_grad_()
    y = gated_elu_reference(leaf, bias, alpha)
    y.backward(dy)
    torch.testing.assert_close(gated_elu_reference_backward(dy, x, bias, alpha), leaf.grad)
    gate = (x + bias.view(1, -1, 1, 1))[:, :3]
    torch.testing.assert_close(gated_elu_reference_backward_from_yg(dy, y.detach(), gate, alpha), leaf.grad)
    assert same(gated_elu(x, bias, alpha, impl="torch"), gated_elu_reference(x, bias, alpha))


@pytest.mark.parametrize("size", [700, 3000, 150_000])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("save", SAVES)
def test_pieces_of_every_kind_cover_the_whole(monkeypatch, size, last, save):
    """Several pictures a piece, then some channels (or rows) of one, then all at once."""
    monkeypatch.setattr(edgeconnect_kernels.cpu_gated_elu, "PIECE", size)
    x, dy, bias = seeded(5, 14, 12, 17), seeded(5, 7, 12, 17, seed=1), seeded(14, seed=2)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    y, dx, _ = forward_backward(x, dy, 0.8, bias, save)
    for found, wanted in zip((y, dx), formulas(x, dy, 0.8, bias)):
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12, atol=1e-14)


def test_the_gate_comes_first():
    x = torch.tensor([100.0, -100.0, 2.0, 2.0]).view(1, 4, 1, 1)
    assert gated_elu(x).flatten().tolist() == [2.0, pytest.approx(0, abs=1e-30)]
    x = torch.tensor([0.0, -3.0]).view(1, 2, 1, 1)
    assert gated_elu(x).item() == pytest.approx(0.5 * (np.exp(-3) - 1))
    assert gated_elu(x, alpha=2.0).item() == pytest.approx(np.exp(-3) - 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("wide_bias", [False, True])
def test_every_dtype_is_kept_and_computed_in_float32(dtype, save, wide_bias):
    """One rounding at the end, so half a unit in the last place, and the 1e-7 that ELU may be off by on a CPU."""
    x, dy = seeded(2, 8, 9, 7, dtype=dtype), seeded(2, 4, 9, 7, seed=1, dtype=dtype)
    bias = seeded(8, seed=2, dtype=torch.float32 if wide_bias else dtype)
    y, dx, dbias = forward_backward(x, dy, bias=bias, save=save)
    assert y.dtype == dx.dtype == dtype and dbias.dtype == bias.dtype
    wanted_y, wanted_dx = formulas(x, dy, bias=bias)
    half = 0.51 * torch.finfo(dtype).eps if dtype != torch.float32 else 3e-6
    np.testing.assert_allclose(y.double().numpy(), wanted_y, rtol=half, atol=1e-6)
    if save == "x":
        np.testing.assert_allclose(dx.double().numpy(), wanted_dx, rtol=half, atol=1e-6)
    else:  # y and the gate were rounded before
        np.testing.assert_allclose(dx.double().numpy(), wanted_dx, rtol=4 * half, atol=3 * half * abs(dy).max().item())


def layouts():
    whole = seeded(3, 8, 10, 12)
    yield "channels last", whole.contiguous(memory_format=torch.channels_last)
    yield "every second pixel", seeded(3, 8, 20, 24)[..., ::2, 1::2]
    yield "turned", whole.transpose(2, 3)
    yield "a slice of channels", seeded(3, 16, 10, 12)[:, 4:12]
    yield "one picture for all", seeded(1, 8, 10, 12).expand(3, -1, -1, -1)
    yield "one number for all", seeded(1, 8, 1, 1).expand(3, -1, 5, 5)


@pytest.mark.parametrize(("name", "x"), list(layouts()), ids=[name for name, _ in layouts()])
@pytest.mark.parametrize("save", SAVES)
def test_any_layout_gives_the_same(name, x, save):
    assert name == "channels last" or not x.is_contiguous()
    dy = seeded(*x[:, :4].shape, seed=1)
    plain = forward_backward(x.contiguous(), dy, save=save)[:2]
    spread = torch.ones(()).double().expand(dy.shape)  # as y.sum().backward() gives it
    for other in (dy, dy.transpose(2, 3).contiguous().transpose(2, 3), dy.to(memory_format=torch.channels_last)):
        for a, b in zip(plain, forward_backward(x, other, save=save)):
            torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-15)  # vectors' exp and a single number's: the last bit
    ones = forward_backward(x, torch.ones_like(dy), save=save)[1]
    torch.testing.assert_close(forward_backward(x, spread, save=save)[1], ones, rtol=1e-13, atol=1e-15)
    wanted = torch.channels_last if name == "channels last" else torch.contiguous_format
    x = x.detach().requires_grad_()
    y = gated_elu(x, save=save)
    (dx,) = torch.autograd.grad(y, x, dy)
    assert y.is_contiguous(memory_format=wanted) and dx.is_contiguous(memory_format=wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("save", SAVES)
def test_extremes_stay_finite(dtype, save):
    values = torch.tensor([-100.0, -20.0, -1e-4, 0.0, 1e-4, 20.0, 100.0], dtype=dtype)
    x = torch.stack(torch.meshgrid(values, values, indexing="ij"))[None]
    y, dx, _ = forward_backward(x, torch.ones_like(x[:, :1]), save=save)
    assert torch.isfinite(y).all() and torch.isfinite(dx).all()
    wanted_y, wanted_dx = formulas(x, np.ones((1, 1, 7, 7)))
    eps = torch.finfo(dtype).eps
    np.testing.assert_allclose(y.double().numpy(), wanted_y, rtol=6 * eps, atol=2e-7)
    np.testing.assert_allclose(
        dx.double().numpy(), wanted_dx, rtol=6 * eps, atol=1e-5 if save == "x" else 4 * eps + 1e-5
    )


def test_the_input_is_left_alone_and_nothing_is_empty_handed():
    x, bias = seeded(2, 4, 3, 3), seeded(4, seed=1)
    before = x.clone(), bias.clone()
    for save in SAVES:
        forward_backward(x, seeded(2, 2, 3, 3), bias=bias, save=save)
    assert same(x, before[0]) and same(bias, before[1])
    for shape in ((0, 4, 3, 3), (2, 4, 0, 3), (2, 0, 3, 3)):
        for save in SAVES:
            empty = torch.zeros(shape, requires_grad=True)
            y = gated_elu(empty, save=save)
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


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"alpha": 0.0}, ValueError, "alpha is 0.0; wanted alpha > 0"),
        ({"alpha": -1.0}, ValueError, "alpha is -1.0; wanted alpha > 0"),
        ({"alpha": float("nan")}, ValueError, "alpha is nan; wanted alpha > 0"),
        ({"save": "y"}, ValueError, "save is 'y'; wanted 'x' or 'yg'"),
        ({"impl": "cuda"}, ValueError, "impl is 'cuda'; wanted None, 'triton' or 'torch'"),
        ({"bias": torch.zeros(2)}, ValueError, r"bias has shape \(2,\); wanted \(4,\)"),
        ({"bias": torch.zeros(4, 1)}, ValueError, r"bias has shape \(4, 1\); wanted \(4,\)"),
        (
            {"bias": torch.zeros(4).double()},
            TypeError,
            "bias is torch.float64 on cpu; wanted torch.float32 or a smaller",
        ),
        ({"bias": torch.zeros(4).long()}, TypeError, "bias is torch.int64 on cpu; wanted torch.float32 or a smaller"),
        ({"bias": torch.zeros(4, device="meta")}, TypeError, "bias is torch.float32 on meta; wanted .* on cpu"),
    ],
)
def test_a_wrong_option_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        gated_elu(torch.zeros(1, 4, 2, 2), **options)


def test_a_second_derivative_is_refused_rather_than_wrong():
    x = seeded(1, 2, 2, 2).requires_grad_()
    for save in SAVES:
        (gradient,) = torch.autograd.grad(gated_elu(x, save=save).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError):
            gradient.sum().backward()
    (gradient,) = torch.autograd.grad(gated_elu(x, impl="torch").sum(), x, create_graph=True)
    gradient.sum().backward()
    assert x.grad is not None


# PyTorch


@pytest.mark.parametrize("name", ["contiguous", "channels last", "every second pixel", "bfloat16", "float64"])
@pytest.mark.parametrize("bias", [None, seeded(8, seed=5)], ids=["no bias", "bias"])
def test_the_registered_ops_pass_opcheck(name, bias):
    dtype = {"bfloat16": torch.bfloat16, "float64": torch.float64}.get(name, torch.float32)
    x, dy = seeded(2, 8, 5, 6, dtype=dtype), seeded(2, 4, 5, 6, seed=1, dtype=dtype)
    if name == "channels last":
        x = x.contiguous(memory_format=torch.channels_last)
    if name == "every second pixel":
        x = seeded(2, 8, 10, 12, dtype=dtype)[..., ::2, ::2]
    bias = None if bias is None else bias.to(dtype)
    for save_gate in (False, True):
        leaves = [None if t is None else t.detach().requires_grad_() for t in (x, bias)]
        torch.library.opcheck(ops._forward_op, (*leaves, 0.7, save_gate))
    torch.library.opcheck(ops._backward_from_x_op, (dy, x, bias, 0.7))
    y, gate = ops._forward_op(x, bias, 0.7, True)
    torch.library.opcheck(ops._backward_from_yg_op, (dy, y, gate, 0.7))


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_the_registered_op_passes_gradcheck(save, alpha):
    leaves = (2 * seeded(2, 6, 3, 4)).requires_grad_(), seeded(6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, bias: gated_elu(x, bias, alpha, save), leaves)


def both_passes(function, x, bias):
    x, bias = x.detach().requires_grad_(), bias.detach().requires_grad_()
    y = function(x, bias)
    return y.detach(), *torch.autograd.grad(y.square().sum(), (x, bias))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_it_compiles_without_a_graph_break(backend):
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if backend == "inductor" and not (shutil.which("g++") and headers.exists()):
        pytest.skip("g++ or Python's headers (python3-dev) are missing, which Inductor needs on a CPU")
    torch.compiler.reset()
    compiled = torch.compile(lambda x, bias: gated_elu(x, bias), fullgraph=True, backend=backend)
    x, bias = seeded(2, 8, 5, 6), seeded(8, seed=1)
    for found, wanted in zip(both_passes(compiled, x, bias), both_passes(gated_elu, x, bias)):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("save", SAVES)
def test_where_triton_runs_the_compiled_graph_holds_the_op_itself(monkeypatch, save):
    """As on a GPU: the op is one node of the graph. Here its CPU kernel answers for it."""
    monkeypatch.setattr(ops, "why_not_triton", lambda x: None)
    torch.compiler.reset()
    seen = []

    def look(graph, inputs):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return make_boxed_func(graph.forward)

    x, bias = seeded(2, 8, 5, 6), seeded(8, seed=1)
    wanted = both_passes(lambda x, bias: gated_elu(x, bias, save=save), x, bias)
    backend = aot_autograd(fw_compiler=look, bw_compiler=look)
    found = both_passes(
        torch.compile(lambda x, b: gated_elu(x, b, save=save), fullgraph=True, backend=backend), x, bias
    )
    for a, b in zip(found, wanted):
        torch.testing.assert_close(a, b)
    assert "edgeconnect_kernels.gated_elu.default" in seen
    assert f"edgeconnect_kernels.gated_elu_backward_from_{save}.default" in seen


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("op", ["plain operations", "the registered op"])
def test_an_exported_layer_comes_back_and_takes_any_batch(tmp_path, monkeypatch, save, op):
    """On a CPU plain operations are exported; where Triton runs, the op itself, for which its CPU kernel answers here."""
    if op == "the registered op":
        monkeypatch.setattr(ops, "why_not_triton", lambda x: None)
    layer = GatedConv2d(3, 4).eval()
    layer.save = save
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(layer, (torch.zeros(2, 3, 8, 9),), dynamic_shapes={"x": {0: batch}})
    names = [str(node.target) for node in program.graph.nodes]
    assert ("edgeconnect_kernels.gated_elu.default" in names) == (op == "the registered op")
    torch.export.save(program, tmp_path / "layer.pt2")
    loaded = torch.export.load(tmp_path / "layer.pt2").module()
    for count in (1, 2, 5):
        x = seeded(count, 3, 8, 9, dtype=torch.float32)
        torch.testing.assert_close(loaded(x), layer(x))


@pytest.mark.parametrize("save", SAVES)
def test_autocast_runs_the_op_in_the_convolution_s_dtype(save):
    layer = GatedConv2d(3, 4)
    layer.save = save
    x = seeded(2, 3, 8, 8, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), rtol=0.05, atol=0.05)
    y.float().sum().backward()
    assert layer.conv.weight.grad.dtype == layer.conv.bias.grad.dtype == torch.float32


def test_a_layer_can_be_copied_and_pickled():
    layer = GatedConv2d(3, 4)
    layer.save = "yg"
    x = seeded(1, 3, 6, 6, dtype=torch.float32)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin.save == "yg" and same(twin(x), layer(x))


def test_channels_last_goes_through_a_layer():
    layer = GatedConv2d(3, 8).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = seeded(2, 3, 8, 8, dtype=torch.float32).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = layer(x)
    assert y.is_contiguous(memory_format=torch.channels_last) and not y.is_contiguous()
    torch.testing.assert_close(y, layer(x.contiguous()), rtol=1e-5, atol=1e-6)


class EagerGatedConv2d(GatedConv2d):
    """As plain autograd has it."""

    def forward(self, x):
        gate, feature = self.conv(x).chunk(2, dim=1)
        return torch.sigmoid(gate) * torch.nn.functional.elu(feature)


def saved_elements(network: torch.nn.Module, x: torch.Tensor) -> int:
    """What a forward pass keeps for the backward pass besides the parameters: elements of distinct storages."""
    owned = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            kept[storage.data_ptr()] = storage.nbytes() // tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = network(x)
    assert y.requires_grad
    return sum(kept.values())


def chain(layer, length: int, save: str = "x"):
    layers = [layer(8, 8) for _ in range(length)]
    for one in layers:
        one.save = save
    return torch.nn.Sequential(*layers)


@pytest.mark.parametrize(("save", "share"), [("x", 0.60), ("yg", 0.40)])
def test_each_added_layer_keeps_less_than_eager_does(save, share):
    """5 units of C * H * W in eager mode; 3 from x, 2 from (y, g)."""
    x = seeded(2, 8, 16, 16, dtype=torch.float32)
    eager = saved_elements(chain(EagerGatedConv2d, 5), x) - saved_elements(chain(EagerGatedConv2d, 4), x)
    ours = saved_elements(chain(GatedConv2d, 5, save), x) - saved_elements(chain(GatedConv2d, 4, save), x)
    assert eager == 5 * x.numel()
    assert ours == round(share * eager)


def test_the_generator_keeps_less_with_yg():
    network, x = ImageGenerator(8, 16, 1), seeded(1, 5, 32, 32, dtype=torch.float32)
    from_x = saved_elements(network, x)
    for layer in network.modules():
        if isinstance(layer, GatedConv2d):
            layer.save = "yg"
    assert saved_elements(network, x) < 0.85 * from_x  # the first layers and the skips keep what others do not


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (torch.zeros(1, 2, 2, 2), "x lies on cpu; wanted an NVIDIA GPU"),
        (
            torch.zeros(1, 2, 2, 2, dtype=torch.float64),
            "x has dtype torch.float64; wanted float32, float16 or bfloat16",
        ),
    ],
)
@needs_triton
def test_triton_where_it_cannot_run_says_why(x, reason):
    with pytest.raises(RuntimeError, match=f"impl='triton' cannot run: {reason}"):
        gated_elu(x, impl="triton")


def test_other_reasons_against_triton(monkeypatch):
    on_gpu = types.SimpleNamespace(dtype=torch.float32, is_cuda=True, device="cuda:0", shape=(1, 4, 2, 2))
    monkeypatch.setattr(ops, "HAS_TRITON", True)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "another maker's GPU" in ops.why_not_triton(on_gpu)
    monkeypatch.setattr(torch.version, "cuda", "12.9")
    properties = types.SimpleNamespace(name="old", major=6, minor=1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert "old is of compute capability 6.1; wanted 7.5 or more" in ops.why_not_triton(on_gpu)
    properties.major = 9
    assert ops.why_not_triton(on_gpu) is None
    on_gpu.shape = (1, 200_000, 1, 1)
    assert "x has 200000 channels; wanted at most 131070" in ops.why_not_triton(on_gpu)
    on_gpu.shape = (1, 4, 2, 2)
    monkeypatch.setattr(ops, "HAS_TRITON", False)
    assert "triton is not installed" in ops.why_not_triton(on_gpu)


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

def formulas(x, dy, alpha, bias):
    x = x.double() + (0 if bias is None else bias.double().view(1, -1, 1, 1))
    g, f = np.split(x.numpy(), 2, axis=1)
    s = 1 / (1 + np.exp(-g))
    elu = np.where(f > 0, f, alpha * np.expm1(np.minimum(f, 0)))
    slope = np.where(f > 0, 1, alpha * np.exp(np.minimum(f, 0)))
    dy = dy.double().numpy()
    return s * elu, np.concatenate([dy * elu * s * (1 - s), dy * s * slope], axis=1), g

BLOCK = 64

def compare(module, x, dy, alpha, rtol, atol, bias=None, block=BLOCK):
    before, last = x.clone(), not x.is_contiguous()
    layout = torch.channels_last if last else torch.contiguous_format
    dy = dy.contiguous(memory_format=layout)
    y, gate, from_yg = torch.empty_like(dy), torch.empty_like(dy), torch.empty_like(x)
    dx = torch.full_like(x, torch.nan)
    module.forward(x, bias, alpha, y, gate, block)
    only_y = torch.empty_like(y)
    module.forward(x, bias, alpha, only_y, None, block)
    assert torch.equal(only_y, y) and torch.equal(x, before)
    module.backward_from_x(dy, x, bias, alpha, dx, block)
    module.backward_from_yg(dy, y, gate, alpha, from_yg, block)
    wanted_y, wanted_dx, wanted_gate = formulas(x, dy, alpha, bias)
    for found, wanted in ((y, wanted_y), (dx, wanted_dx), (gate, wanted_gate), (from_yg, wanted_dx)):
        assert torch.isfinite(found).all()
        np.testing.assert_allclose(found.double().numpy(), wanted, rtol=rtol, atol=atol)

def check(module):
    random = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=random)
    for pixels in (1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5):
        for batch, alpha, bias in ((1, 1.0, None), (3, 0.7, normal(2))):
            compare(module, 2 * normal(batch, 2, 1, pixels), normal(batch, 1, 1, pixels), alpha, 1e-5, 1e-6, bias)
    for c in (1, 3, 6):
        for bias in (None, normal(2 * c), normal(2 * c).half()):
            x, dy = normal(2, 2 * c, 3, 7), normal(2, c, 3, 7)
            compare(module, x, dy, 0.7, 1e-5, 1e-6, bias)
            compare(module, x.contiguous(memory_format=torch.channels_last), dy, 0.7, 1e-5, 1e-6, bias)
    compare(module, x.half(), dy.half(), 1.0, 4e-3, 2e-3)
    small = torch.cat([normal(1, 1, 8, 8), -1e-4 * normal(1, 1, 8, 8).abs()], 1)
    compare(module, small, normal(1, 1, 8, 8), 1.0, 2e-5, 0)
    values = torch.tensor([-100.0, -20.0, 0.0, 20.0, 100.0])
    extreme = torch.stack(torch.meshgrid(values, values, indexing="ij"))[None]
    compare(module, extreme, torch.ones(1, 1, 5, 5), 1.0, 1e-5, 1e-5)

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
    "gate and feature swapped in every kernel": (
        "g = _load(x_ptr, gate_i, ",
        "g = _load(x_ptr, gate_i + to_feature, ",
        2,
    ),
    "the feature's gradient in both halves": ("tl.store(dx_ptr + gate_i, dg", "tl.store(dx_ptr + gate_i, df", 2),
    "one channel taken for contiguous": ("last = not packed", "last = packed.shape[1] > 2 and not packed", 1),
    "1 - s dropped": ("dy * s * elu * one_minus_s", "dy * s * elu", 1),
    "1 - s dropped from (y, g)": ("dy * y * one_minus_s", "dy * y", 1),
    "alpha dropped from the slope": ("tl.where(f > 0, 1.0, alpha * exp_f)", "tl.where(f > 0, 1.0, exp_f)", 1),
    "alpha dropped from (y, g)": ("y + alpha * s", "y + s", 1),
    "ELU's -1 dropped": ("near, exp_f - 1)", "near, exp_f)", 1),
    "one picture's features for all": ("gate_i = y_i + plane // C * to_feature", "gate_i = y_i", 1),
    "bias of the gate for both halves": ("bias_ptr, C + channel)", "bias_ptr, channel)", 2),
    "only the first plane's bias": ("y_i + lane, plane % C, lane", "y_i + lane, plane * 0, lane", 1),
    "the last element dropped": ("lane < run - start)", "lane < run - start - 1)", 1),
    "the last element of a plane dropped": ("plane % C, lane < run - start", "plane % C, lane < run - start - 1", 1),
    "e^-g let go to infinity": ("tl.minimum(g * -LOG2E, 126, propagate_nan=tl.PropagateNan.ALL)", "g * -LOG2E", 1),
    "no Taylor polynomial": ("f > -0.35, near, exp_f - 1", "f > 0.0, near, exp_f - 1", 1),
}


@needs_triton
def test_the_kernels_follow_the_formulas_and_every_mutant_fails(tmp_path):
    """One process for all: what passes for the kernels as they are must fail for each changed line."""
    result = run_python(f"MUTANTS = {MUTANTS!r}\n{CHECK}", tmp_path, TRITON_INTERPRET="1", timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["unchanged: right", *(f"{name}: wrong" for name in MUTANTS)], result.stderr


@needs_triton
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_batches_beyond_the_grid_s_limit_go_in_parts(last, with_bias):
    """The launches of a kernel that only notes them: every picture once, no grid beyond CUDA's limits."""
    from edgeconnect_kernels import triton_gated_elu

    n, c, side = 70_000, 2, 2
    x = torch.arange(n * 2 * c * side**2).view(n, 2 * c, side, side).to(torch.float32)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    bias = torch.zeros(2 * c) if with_bias else None
    grids, pictures = [], []

    class Kernel:
        def __getitem__(self, grid):
            def launched(piece, given_bias, nothing, run, alpha, C, BLOCK, **options):
                assert given_bias is bias and nothing is None and alpha == 0.5 and options["CHANNELS_LAST"] == last
                grids.append((*grid, 1, 1)[:3])
                pictures.append(piece)
                assert (BLOCK // C * C if last else BLOCK) * grids[-1][0] >= run
                assert run * grids[-1][1] == piece.numel() // 2

            return launched

    triton_gated_elu._launch(Kernel(), x, [x, bias, None], bias, 0.5, None)
    assert torch.equal(torch.cat(pictures), x)
    assert all(x < 2**31 and y <= 65_535 and z <= 65_535 for x, y, z in grids)
    assert len(grids) == (1 if last else 3 if with_bias else 2)


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")


@GPU
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bias_dtype", [None, "as x", torch.float32])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("save", SAVES)
def test_on_a_gpu_the_kernels_follow_the_formulas(dtype, bias_dtype, last, save):
    layout = torch.channels_last if last else torch.contiguous_format
    for channels in (1, 3, 20, 64):
        for height, width in ((1, 1), (16, 16), (31, 33)):
            x = 2 * seeded(3, 2 * channels, height, width, dtype=dtype)
            dy = seeded(3, channels, height, width, seed=1, dtype=dtype)
            bias = None
            if bias_dtype:
                bias = seeded(2 * channels, seed=2, dtype=dtype if bias_dtype == "as x" else bias_dtype)
            x_gpu = x.cuda().contiguous(memory_format=layout)
            y, dx, dbias = forward_backward(x_gpu, dy.cuda(), 0.8, None if bias is None else bias.cuda(), save)
            wanted = formulas(x, dy, 0.8, 0.0 if bias is None else bias)
            limit = 4 * torch.finfo(dtype).eps
            for found, right in zip((y, dx), wanted):
                np.testing.assert_allclose(found.cpu().double().numpy(), right, rtol=limit, atol=4 * limit)
            if bias is not None:
                sums = np.abs(wanted[1]).sum((0, 2, 3)).max()
                right = wanted[1].sum((0, 2, 3))
                np.testing.assert_allclose(dbias.cpu().double().numpy(), right, rtol=limit, atol=limit * sums)


@GPU
@pytest.mark.parametrize("save", SAVES)
def test_on_a_gpu_it_compiles_and_takes_more_planes_than_a_grid(save):
    x, bias = seeded(70_000, 4, 2, 2, dtype=torch.float32).cuda(), seeded(4, seed=1, dtype=torch.float32).cuda()
    torch.compiler.reset()
    compiled = torch.compile(lambda x, bias: gated_elu(x, bias, save=save), fullgraph=True)
    wanted = both_passes(lambda x, bias: gated_elu(x, bias, impl="torch"), x, bias)
    for function in (compiled, lambda x, bias: gated_elu(x, bias, save=save)):
        for found, right in zip(both_passes(function, x, bias), wanted):
            torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-3)


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
