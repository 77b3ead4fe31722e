"""traffic.py and interpreter.py, which lesson 03 counts and runs with: small functions counted by hand."""

import sys

import pytest
import torch
import torch.nn.functional as F
from edgeconnect_kernels import gated_elu, interpreter
from edgeconnect_kernels.traffic import kept, traffic
from helpers import needs_triton

if sys.platform == "linux":
    from edgeconnect_kernels.interpreter import tl, triton

    @triton.jit
    def double(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(y_ptr + i, 2 * tl.load(x_ptr + i, mask=i < n), mask=i < n)


@pytest.fixture
def x():
    return torch.randn(2, 6, 5, 7, requires_grad=True)


def test_each_operation_reads_its_inputs_and_writes_its_result(x):
    n = x.numel()
    forward, backward = traffic(lambda x: torch.sigmoid(x) * 2, x)
    assert forward == {"sigmoid": 2 * n, "mul": 2 * n}
    assert backward == {"mul": 2 * n, "sigmoid_backward": 3 * n}


def test_a_view_moves_nothing_and_a_second_input_counts(x):
    half, bias = x.numel() // 2, torch.randn(6, requires_grad=True)
    forward, backward = traffic(lambda x, bias: (x + bias.view(1, -1, 1, 1)).chunk(2, dim=1)[0].exp(), x, bias)
    assert forward == {"add": 4 * half + 6, "exp": 2 * half}
    assert backward["sum"] == 2 * half + 6


def test_the_fused_op_reads_and_writes_each_tensor_once(x):
    unit = x.numel() // 2
    forward, backward = traffic(gated_elu, x)
    assert (list(forward.values()), list(backward.values())) == ([3 * unit], [5 * unit])


def test_counting_needs_something_to_derive_by():
    with pytest.raises(ValueError, match="no input requires a gradient"):
        traffic(torch.sigmoid, torch.ones(2))


def test_what_is_kept_counts_each_memory_once_and_the_result_too(x):
    unit = x.numel() // 2
    assert kept(gated_elu, x) == 3 * unit  # x and y
    assert kept(lambda x: gated_elu(x, save="yg"), x) == 2 * unit
    assert kept(torch.sigmoid, x) == 2 * unit  # its result, which it shares with the next layer
    assert kept(lambda x: F.elu(x) + 1, x) == 4 * unit  # elu's input, and the sum


@needs_triton
def test_the_interpreter_runs_a_kernel_on_the_cpu(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    x, y = torch.randn(40), torch.full((48,), torch.nan)
    for kernel in (double, double.fn):
        interpreter.interpret(kernel)[(3,)](x, y, 40, BLOCK=16)
        assert torch.equal(y[:40], 2 * x) and y[40:].isnan().all()
        y.fill_(torch.nan)
    assert isinstance(double, triton.JITFunction), "the kernel itself stays one for a GPU"


def test_without_triton_the_interpreter_says_so(monkeypatch):
    monkeypatch.setattr(interpreter, "HAS_TRITON", False)
    with pytest.raises(RuntimeError, match="needs Triton"):
        interpreter.interpret(len)
