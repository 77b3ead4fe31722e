"""layers.py: the gated convolution by hand, and the shapes of the blocks."""

import numpy as np
import pytest
import torch
from helpers import few, same, seeded
from hypothesis import given
from hypothesis import strategies as st

from edgeconnect_lite.layers import GatedConv2d, GatedDown, GatedUp, ResidualBlock


def by_hand(layer: GatedConv2d, x: np.ndarray, stride: int = 1, dilation: int = 1) -> np.ndarray:
    """sigmoid(gate) * ELU(feature) of a convolution with zero padding, in float64 loops. x: (C, H, W)."""
    weight, bias = (parameter.detach().double().numpy() for parameter in (layer.conv.weight, layer.conv.bias))
    packed, _, side, _ = weight.shape
    pad = dilation * (side - 1) // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    reach = dilation * (side - 1) + 1
    rows, columns = range(0, x.shape[1] - reach + 1, stride), range(0, x.shape[2] - reach + 1, stride)
    conv = np.empty((packed, len(rows), len(columns)))
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            patch = x[:, top : top + reach : dilation, left : left + reach : dilation]
            conv[:, i, j] = (weight * patch).sum((1, 2, 3)) + bias
    gate, feature = conv[: packed // 2], conv[packed // 2 :]
    return np.where(feature > 0, feature, np.expm1(np.minimum(feature, 0))) / (1 + np.exp(-gate))


@pytest.mark.parametrize(
    ("side", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (3, 1, 2), (5, 1, 1), (1, 1, 1), (5, 2, 1)]
)
def test_a_gated_convolution_is_what_a_loop_gives(side, stride, dilation):
    layer = GatedConv2d(3, 4, side, stride, dilation).double()
    x = seeded(2, 3, 11, 14)
    wanted = np.stack([by_hand(layer, picture, stride, dilation) for picture in x.numpy()])
    assert layer(x).shape == (2, 4, -(-11 // stride), -(-14 // stride))
    np.testing.assert_allclose(layer(x).detach().numpy(), wanted, rtol=0, atol=1e-12)


def test_the_state_dict_is_conv_weight_and_conv_bias():
    state = GatedConv2d(5, 7, 3).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "conv.weight": (14, 5, 3, 3),
        "conv.bias": (14,),
    }


def test_the_gate_is_the_first_half():
    layer = GatedConv2d(1, 2, 3)
    with torch.no_grad():
        layer.conv.weight.zero_()
        layer.conv.bias.copy_(torch.tensor([100.0, -100.0, 3.0, 3.0]))  # gates open and shut, then two features
        y = layer(torch.zeros(1, 1, 4, 4))
        assert torch.allclose(y[:, 0], torch.tensor(3.0)) and (y[:, 1].abs() < 1e-30).all()
        layer.conv.bias.copy_(torch.tensor([0.0, 100.0, -1.0, -1.0]))
        y = layer(torch.zeros(1, 1, 4, 4))
    assert torch.allclose(y[:, 0], torch.tensor(0.5 * (np.exp(-1) - 1), dtype=torch.float32))
    assert torch.allclose(y[:, 1], torch.tensor(np.exp(-1) - 1, dtype=torch.float32))


@few(15)
@given(st.integers(1, 30), st.integers(1, 30), st.sampled_from([1, 2, 4]))
def test_shapes(height, width, dilation):
    x = seeded(2, 4, height, width, dtype=torch.float32)
    assert GatedConv2d(4, 6, dilation=dilation)(x).shape == (2, 6, height, width)
    assert GatedDown(4, 6)(x).shape == (2, 6, -(-height // 2), -(-width // 2))
    assert ResidualBlock(4, dilation)(x).shape == x.shape
    skip = seeded(2, 3, 2 * height, 2 * width, dtype=torch.float32)
    assert GatedUp(7, 5)(x, skip).shape == (2, 5, 2 * height, 2 * width)


def test_up_doubles_every_pixel_and_puts_the_skip_behind():
    layer = GatedUp(5, 2).double()
    x, skip = seeded(1, 3, 4, 5), seeded(1, 2, 8, 10, seed=1)
    doubled = np.repeat(np.repeat(x[0].numpy(), 2, 1), 2, 2)
    wanted = by_hand(layer, np.concatenate([doubled, skip[0].numpy()]))
    np.testing.assert_allclose(layer(x, skip)[0].detach().numpy(), wanted, rtol=0, atol=1e-12)


def test_up_goes_without_a_skip_too():
    layer, x = GatedUp(3, 2).double(), seeded(1, 3, 4, 5)
    wanted = by_hand(layer, np.repeat(np.repeat(x[0].numpy(), 2, 1), 2, 2))
    np.testing.assert_allclose(layer(x)[0].detach().numpy(), wanted, rtol=0, atol=1e-12)


def test_a_residual_block_adds_to_its_input():
    block = ResidualBlock(3, dilation=2).double()
    x = seeded(1, 3, 9, 9)
    assert same(block(x).detach(), x)  # at first it is the identity
    with torch.no_grad():
        block.second.conv.weight.copy_(seeded(6, 3, 3, 3, seed=1))
        block.second.conv.bias.copy_(seeded(6, seed=2))
    wanted = x[0].numpy() + by_hand(block.second, by_hand(block.first, x[0].numpy(), dilation=2))
    np.testing.assert_allclose(block(x)[0].detach().numpy(), wanted, rtol=0, atol=1e-12)


def test_signals_keep_their_size_through_many_layers():
    torch.manual_seed(0)
    x = seeded(1, 64, 32, 32, dtype=torch.float32)
    with torch.inference_mode():
        for _ in range(12):
            x = GatedConv2d(64, 64)(x)
    assert 0.1 < x.square().mean().sqrt() < 10


def test_gradients_pass_a_second_opinion():
    layer = GatedConv2d(2, 2).double()
    x = seeded(1, 2, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,))
