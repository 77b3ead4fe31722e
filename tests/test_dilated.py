"""dilated.py: the literature's generator has its size, its layers and its limits, and weights that come back."""

import pytest
import torch
from helpers import same, seeded
from torch import nn

from edgeconnect_lite import dilated
from edgeconnect_lite.dilated import DilatedGenerator
from edgeconnect_lite.weights import load_network, save_network

STAGES = {"edge": (3, 1, True), "image": (5, 3, False)}
each_stage = pytest.mark.parametrize("stage", STAGES)


def tiny(stage: str) -> DilatedGenerator:
    torch.manual_seed(0)
    inputs, outputs, spectral = STAGES[stage]
    return DilatedGenerator(inputs, outputs, width=4, blocks=2, spectral=spectral)


@each_stage
def test_it_has_the_literature_s_size_and_layers(stage):
    inputs, outputs, spectral = STAGES[stage]
    network = DilatedGenerator(inputs, outputs, spectral=spectral)
    count = sum(p.numel() for p in network.parameters())
    assert f"{count / 1e6:.1f} million parameters" in dilated.__doc__
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(convolutions) == 3 + 2 * 8 + 2 + 1
    assert [layer.dilation for layer in convolutions[3:19]] == 8 * [(2, 2), (1, 1)]
    assert sum("original" in name for name, _ in network.named_parameters()) == (21 if spectral else 0)


@each_stage
@pytest.mark.parametrize("height, width", [(16, 16), (16, 36), (48, 20)])
def test_sides_that_are_multiples_of_4_come_back_between_0_and_1(stage, height, width):
    inputs, outputs, _ = STAGES[stage]
    y = tiny(stage)(4 * seeded(2, inputs, height, width, dtype=torch.float32))
    assert y.shape == (2, outputs, height, width)
    assert y.min() >= 0 and y.max() <= 1 and y.std() > 0.01


@each_stage
def test_every_weight_learns(stage):
    network = tiny(stage)
    network(seeded(2, STAGES[stage][0], 24, 24, dtype=torch.float32)).square().sum().backward()
    weights = {name: p.grad for name, p in network.named_parameters() if "bias" not in name}
    assert all(gradient.abs().sum() > 0 for gradient in weights.values())
    assert network.layers[-1].bias.grad.abs().sum() > 0  # the others' are taken away again by the normalisation


def test_spectral_normalisation_holds_the_largest_singular_value_at_1():
    network = tiny("edge")
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(7)
        for _ in range(50):  # a step of the power method each
            network(torch.zeros(1, 3, 16, 16))
    network.eval()
    convolutions = [layer for layer in network.modules() if hasattr(layer, "parametrizations")]
    assert len(convolutions) == 1 + 2 + 4 + 2
    for layer in convolutions:
        matrix = layer.weight.detach().transpose(0, int(isinstance(layer, nn.ConvTranspose2d))).flatten(1)
        assert torch.linalg.matrix_norm(matrix, 2).item() == pytest.approx(1, abs=0.02)


@each_stage
def test_its_weights_come_back(stage, tmp_path):
    network = tiny(stage).eval()
    save_network(network, tmp_path)
    loaded = load_network(tmp_path, DilatedGenerator).eval()
    assert all(same(value.half().float(), loaded.state_dict()[name]) for name, value in network.state_dict().items())
    x = seeded(1, STAGES[stage][0], 16, 16, dtype=torch.float32)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(x), network(x), rtol=0, atol=0.02)
