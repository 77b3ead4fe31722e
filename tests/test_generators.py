"""generators.py: any size in, the same size out; about 2 and 4 million parameters; weights that come back."""

import json

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import blob_mask, few, same, seeded
from hypothesis import example, given
from hypothesis import strategies as st

from edgeconnect_lite.generators import (
    EdgeGenerator,
    ImageGenerator,
    UNet,
    blurred_gradient,
    push_pull,
)

TINY = {"width": 4, "bottom": 8, "blocks": 1}


def awake(network):
    """Give every convolution weights: the residual blocks begin as the identity, which hides them from a test."""
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight, std=(2 / module.weight[0].numel()) ** 0.5)
            torch.nn.init.normal_(module.bias, std=0.1)
    return network


def stage_input(channels: int, batch: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Masked picture, edges and mask of random content, as the stages are given them."""
    picture = torch.sigmoid(seeded(batch, channels - 2, height, width, seed=seed, dtype=torch.float32))
    edges = (seeded(batch, 1, height, width, seed=seed + 1) > 1).float()
    mask = torch.stack([torch.from_numpy(blob_mask(height, width, seed + i)) for i in range(batch)])[:, None].float()
    return torch.cat([picture * (1 - mask), edges, mask], dim=1)


def parameters(network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture(scope="module", params=[(EdgeGenerator, 3, 1), (ImageGenerator, 5, 3)], ids=["edge", "image"])
def stage(request):
    make, inputs, outputs = request.param
    torch.manual_seed(0)
    return awake(make(**TINY)).eval(), inputs, outputs


def test_parameter_counts_are_as_documented():
    edge, image = parameters(EdgeGenerator()), parameters(ImageGenerator())
    assert 1.6e6 < edge < 2.4e6
    assert 3.2e6 < image < 4.8e6
    assert image > 1.5 * edge


@few(12)
@given(st.integers(1, 70), st.integers(1, 70))
@example(1, 1)
@example(1, 70)
@example(8, 8)
@example(9, 7)
def test_any_size_gives_the_same_size(stage, height, width):
    generator, inputs, outputs = stage
    with torch.inference_mode():
        y = generator(stage_input(inputs, 2, height, width))
    assert y.shape == (2, outputs, height, width)
    assert torch.isfinite(y).all()


@few(8)
@given(st.integers(1, 40), st.integers(1, 40))
def test_an_odd_size_is_the_crop_of_its_replicated_border(height, width):
    torch.manual_seed(0)
    network = awake(UNet(3, 1, **TINY)).eval()
    x = seeded(1, 3, height, width, dtype=torch.float32)
    tall, wide = 8 * -(-height // 8), 8 * -(-width // 8)
    rows, columns = np.minimum(np.arange(tall), height - 1), np.minimum(np.arange(wide), width - 1)
    whole = x[:, :, rows][:, :, :, columns]
    with torch.inference_mode():
        torch.testing.assert_close(network(x), network(whole)[..., :height, :width])


def test_pictures_of_a_batch_do_not_touch(stage):
    generator, inputs, _ = stage
    x = stage_input(inputs, 3, 24, 32)
    with torch.inference_mode():
        torch.testing.assert_close(generator(x), torch.cat([generator(picture[None]) for picture in x]))


def test_edges_are_logits_and_photos_lie_between_0_and_1():
    torch.manual_seed(1)
    edge, image = awake(EdgeGenerator(**TINY)), awake(ImageGenerator(**TINY))
    with torch.no_grad():
        for generator in (edge, image):
            generator.unet.outlet.weight.mul_(100)
        logits, painted = edge(stage_input(3, 1, 32, 32)), image(stage_input(5, 1, 32, 32))
    assert logits.min() < 0 and logits.max() > 1
    assert painted.min() >= 0 and painted.max() <= 1


def test_every_parameter_learns(stage):
    generator, inputs, _ = stage
    generator(stage_input(inputs, 2, 32, 32)).square().sum().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    generator.zero_grad()


def test_the_bottom_sees_the_whole_picture():
    torch.manual_seed(0)
    generator = awake(UNet(3, 1, 4, 8, 3)).double()
    x = seeded(1, 3, 64, 64).requires_grad_()
    generator(x)[0, 0, 32, 32].backward()
    seen = x.grad[0].abs().sum(0) > 0
    assert seen[0, 0] and seen[-1, -1] and seen[0, -1] and seen[-1, 0]


def test_residual_blocks_are_dilated_1_2_4_in_turn():
    blocks = UNet(3, 1, 4, 8, 5).blocks
    assert [block.first.conv.dilation for block in blocks] == [(d, d) for d in (1, 2, 4, 1, 2)]
    assert all(block.second.conv.dilation == (1, 1) for block in blocks)


def test_channels_last_changes_nothing(stage):
    generator, inputs, _ = stage
    x = stage_input(inputs, 1, 32, 40)
    with torch.inference_mode():
        torch.testing.assert_close(generator(x.contiguous(memory_format=torch.channels_last)), generator(x))


@pytest.mark.parametrize(("make", "inputs"), [(EdgeGenerator, 3), (ImageGenerator, 5)])
def test_saved_weights_come_back(tmp_path, make, inputs):
    torch.manual_seed(0)
    generator = awake(make(width=4, bottom=16, blocks=2))
    generator.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "width": 4, "bottom": 16, "blocks": 2, "skips": True
    }  # fmt: skip
    assert (tmp_path / "model.safetensors").is_file()
    loaded = make.from_pretrained(tmp_path)
    assert generator.state_dict().keys() == loaded.state_dict().keys()
    assert all(same(value, loaded.state_dict()[name]) for name, value in generator.state_dict().items())
    x = stage_input(inputs, 1, 17, 30)
    with torch.inference_mode():
        assert same(generator.eval()(x), loaded(x))


def test_positional_sizes_are_stored_too(tmp_path):
    EdgeGenerator(4, 16, 2).save_pretrained(tmp_path)
    assert parameters(EdgeGenerator.from_pretrained(tmp_path)) == parameters(
        EdgeGenerator(width=4, bottom=16, blocks=2)
    )


def test_padding_replicates_the_border():
    """A photo that is even along its border must not see a dark frame: an even input gives an even middle."""
    torch.manual_seed(0)
    network = awake(UNet(3, 1, 4, 8, 1)).eval()
    with torch.inference_mode():
        torch.testing.assert_close(network(torch.ones(1, 3, 60, 60)), network(torch.ones(1, 3, 64, 64))[..., :60, :60])
    assert same(F.pad(torch.ones(1, 1, 1, 1), (0, 7, 0, 7), mode="replicate"), torch.ones(1, 1, 8, 8))


@few(15)
@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 1000))
def test_push_pull_keeps_the_known_part_and_fills_between_its_values(height, width, seed):
    picture = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    mask = torch.from_numpy(blob_mask(height, width, seed))[None, None].float().expand(2, -1, -1, -1)
    filled, known = push_pull(picture, mask), (mask == 0).expand_as(picture)
    assert same(filled[known], picture[known])
    for i in range(2):
        for channel in range(3):
            values = picture[i, channel][known[i, channel]]
            assert values.min() - 1e-5 <= filled[i, channel].min() and filled[i, channel].max() <= values.max() + 1e-5
    noisy = torch.where(known, picture, torch.rand_like(picture))
    assert same(push_pull(noisy, mask), filled)
    torch.testing.assert_close(push_pull(torch.full_like(picture, 0.3), mask), torch.full_like(picture, 0.3))


def test_push_pull_follows_a_slope_into_the_hole():
    ramp = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 24:40, 24:40] = 1
    assert (push_pull(ramp, mask) - ramp).abs().max() < 0.15


def test_the_blurred_gradient_is_opencv_s_sobel_of_a_gaussian_blur():
    gray = np.random.default_rng(0).random((40, 50))
    blurred = cv2.GaussianBlur(gray * 255, (0, 0), 1.0)
    wanted = np.stack([cv2.Sobel(blurred, -1, 1, 0), cv2.Sobel(blurred, -1, 0, 1)]) / 64
    found = blurred_gradient(torch.from_numpy(gray)[None, None])[0].numpy()
    inner = np.s_[..., 6:-6, 6:-6]
    assert np.abs(found[:2] - wanted)[inner].max() < 0.02 * np.abs(wanted).max()
    np.testing.assert_allclose(found[2], np.hypot(found[0], found[1]), atol=1e-3)


@few(8)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
def test_what_lies_in_the_hole_changes_no_bit(stage, height, width, seed):
    """Even a caller who forgets to blank the picture's hole gets the same result."""
    generator, inputs, _ = stage
    x = stage_input(inputs, 1, height, width, seed)
    noisy = x.clone()
    noisy[:, : inputs - 2] += torch.rand_like(x[:, : inputs - 2]) * x[:, -1:]
    with torch.inference_mode():
        assert same(generator(x), generator(noisy))
