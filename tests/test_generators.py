"""generators.py: any size in, the same size out; as many parameters as documented; weights that come back."""

import json
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import blob_mask, few, same, seeded
from hypothesis import example, given
from hypothesis import strategies as st

from edgeconnect_lite.canny import canny_view
from edgeconnect_lite.generators import EdgeGenerator, ImageGenerator, UNet, place, push_pull, repaint

TINY = {"width": 4, "bottom": 8, "blocks": 1}
STAGES = {  # how to make it, channels in and out
    "edge": (lambda: EdgeGenerator(**TINY, decision=4), 3, 1),
    "edge without a decision": (lambda: EdgeGenerator(**TINY, decision=0), 3, 1),
    "image": (lambda: ImageGenerator(**TINY), 5, 3),
}


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


def main_output(output) -> torch.Tensor:
    """What a stage is asked for: the logits, or the photo."""
    return output if isinstance(output, torch.Tensor) else output.logits


def parameters(network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture(scope="module", params=STAGES)
def stage(request):
    make, inputs, outputs = STAGES[request.param]
    torch.manual_seed(0)
    return awake(make()).eval(), inputs, outputs


@pytest.mark.parametrize("make", [EdgeGenerator, ImageGenerator])
def test_parameter_counts_are_as_documented(make):
    (documented,) = re.findall(r"About\s+(\d+)\s+million\s+parameters", make.__doc__)
    assert round(parameters(make()) / 1e6) == int(documented)


def test_the_second_stage_is_the_larger():
    assert parameters(ImageGenerator()) > 1.3 * parameters(EdgeGenerator())


@few(12)
@given(st.integers(1, 70), st.integers(1, 70))
@example(1, 1)
@example(1, 70)
@example(8, 8)
@example(9, 7)
def test_any_size_gives_the_same_size(stage, height, width):
    generator, inputs, outputs = stage
    with torch.inference_mode():
        output = generator(stage_input(inputs, 2, height, width))
    assert main_output(output).shape == (2, outputs, height, width)
    assert torch.isfinite(main_output(output)).all()
    if inputs == 3:
        assert output.gray.shape == output.logits.shape and output.gray.min() >= 0 and output.gray.max() <= 1


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


@pytest.fixture
def precise(stage):
    """In float64, where rounding flips none of the view's comparisons."""
    generator, inputs, _ = stage
    yield generator.double(), inputs
    generator.float()


def test_pictures_of_a_batch_do_not_touch(precise):
    generator, inputs = precise
    x = stage_input(inputs, 3, 24, 32).double()
    with torch.inference_mode():
        whole, parts = generator(x), [generator(picture[None]) for picture in x]
    torch.testing.assert_close(main_output(whole), torch.cat([main_output(part) for part in parts]))
    if inputs == 3:
        torch.testing.assert_close(whole.gray, torch.cat([part.gray for part in parts]))


def test_edges_are_logits_and_photos_lie_between_0_and_1():
    torch.manual_seed(1)
    edge, image = awake(EdgeGenerator(**TINY)), awake(ImageGenerator(**TINY))
    with torch.no_grad():
        for generator in (edge, image):
            generator.unet.outlet.weight.mul_(100)
        edge.outlet.weight.mul_(100)
        (logits, gray), painted = edge(stage_input(3, 1, 32, 32)), image(stage_input(5, 1, 32, 32))
    assert logits.min() < 0 and logits.max() > 1
    for picture in (gray, painted):
        assert 0 <= picture.min() < 0.01 and 0.99 < picture.max() <= 1


def test_every_parameter_learns(stage):
    generator, inputs, _ = stage
    main_output(generator(stage_input(inputs, 2, 32, 32))).square().sum().backward()
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


def test_channels_last_changes_nothing(precise):
    generator, inputs = precise
    x = stage_input(inputs, 1, 32, 40).double()
    with torch.inference_mode():
        last = main_output(generator(x.contiguous(memory_format=torch.channels_last)))
        torch.testing.assert_close(last, main_output(generator(x)))


@pytest.mark.parametrize(
    ("make", "inputs", "more"),
    [(EdgeGenerator, 3, {"decision": 5}), (EdgeGenerator, 3, {"decision": 0}), (ImageGenerator, 5, {})],
)
def test_saved_weights_come_back(tmp_path, make, inputs, more):
    torch.manual_seed(0)
    generator = awake(make(width=4, bottom=16, blocks=2, **more))
    generator.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "width": 4, "bottom": 16, "blocks": 2, "skips": True, **more
    }  # fmt: skip
    assert (tmp_path / "model.safetensors").is_file()
    loaded = make.from_pretrained(tmp_path)
    assert generator.state_dict().keys() == loaded.state_dict().keys()
    assert all(same(value, loaded.state_dict()[name]) for name, value in generator.state_dict().items())
    x = stage_input(inputs, 1, 17, 30)
    with torch.inference_mode():
        assert same(main_output(generator.eval()(x)), main_output(loaded(x)))


def test_positional_sizes_are_stored_too(tmp_path):
    EdgeGenerator(4, 16, 2, True, 6).save_pretrained(tmp_path)
    assert parameters(EdgeGenerator.from_pretrained(tmp_path)) == parameters(
        EdgeGenerator(width=4, bottom=16, blocks=2, decision=6)
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


@few(12)
@given(st.integers(1, 30), st.integers(1, 30))
def test_place_counts_rows_and_columns_from_minus_1_to_1(height, width):
    rows, columns = place(torch.zeros(3, 2, height, width)).unbind(1)
    assert rows.shape == columns.shape == (3, height, width)
    wanted_rows, wanted_columns = (torch.from_numpy(np.linspace(-1, 1, side)).float() for side in (height, width))
    torch.testing.assert_close(rows, wanted_rows[:, None].expand(3, -1, width))
    torch.testing.assert_close(columns, wanted_columns.expand(3, height, -1))


@pytest.mark.parametrize("name", ["edge", "image"])
def test_both_stages_are_told_the_place_the_fill_the_edges_and_the_mask(name):
    make, inputs, _ = STAGES[name]
    generator, given = make(), []
    generator.unet.register_forward_pre_hook(lambda module, arguments: given.append(arguments[0]))
    x = stage_input(inputs, 2, 20, 28)
    with torch.inference_mode():
        generator(x)
    (seen,), filled = given, push_pull(x[:, : inputs - 2], x[:, -1:])
    wanted = [filled - 0.5, filled - filled.mean((2, 3), keepdim=True)] if name == "edge" else [filled - 0.5]
    assert same(seen, torch.cat([*wanted, x[:, -2:], place(x)], dim=1))


@few(10)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
def test_the_gray_of_the_known_part_is_the_input_s_own(height, width, seed):
    torch.manual_seed(seed)
    x = stage_input(3, 1, height, width, seed)
    gray, known = x[:, :1], x[:, 2:] == 0
    for decision in (3, 0):
        with torch.inference_mode():
            painted = awake(EdgeGenerator(**TINY, decision=decision))(x).gray
        assert same(painted[known], gray[known])
        fill = push_pull(gray, x[:, 2:])
        assert same(painted, fill) == (decision == 0 or bool(known.all()))


def test_a_fresh_stage_1_paints_the_fill():
    """Up to the bias that its last layer begins with. The fill lies within the range that the logit keeps."""
    torch.manual_seed(0)
    x = stage_input(3, 2, 32, 32)
    with torch.inference_mode():
        painted = EdgeGenerator(**TINY)(x).gray
    assert (painted - push_pull(x[:, :1], x[:, 2:])).abs().max() < 0.05


def test_repainting_nothing_keeps_the_fill_and_the_change_acts_in_the_hole_on_the_logit_scale():
    filled = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.98 + 0.01
    mask = torch.zeros(2, 1, 8, 8)
    mask[..., 4:] = 1
    torch.testing.assert_close(repaint(filled, torch.zeros_like(filled), mask), filled)
    change = seeded(2, 3, 8, 8, dtype=torch.float32)
    painted = repaint(filled, change, mask)
    assert same(painted[..., :4], filled[..., :4])
    torch.testing.assert_close(torch.logit(painted[..., 4:]), torch.logit(filled[..., 4:]) + change[..., 4:])
    extreme = repaint(torch.tensor([[[[0.0, 1.0]]]]), torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1, 2))
    torch.testing.assert_close(extreme, torch.tensor([[[[0.01, 0.99]]]]))


def test_stage_1_decides_with_canny_s_view_of_what_it_painted():
    torch.manual_seed(0)
    generator, given = awake(EdgeGenerator(**TINY, decision=4)), []
    generator.decision.register_forward_pre_hook(lambda module, arguments: given.append(arguments[0]))
    x = stage_input(3, 2, 24, 24)
    with torch.inference_mode():
        painted = generator(x).gray
        view = canny_view(painted)
    (seen,) = given
    assert same(seen[:, -8:], torch.cat([view, x[:, 1:]], dim=1))
    assert seen.shape[1] == EdgeGenerator.FEATURES + 8


def test_the_logits_teach_the_painted_gray_photo():
    """Through the view's first four channels: the outlet's first four, which are one pixel-unshuffled channel, paint it."""
    torch.manual_seed(0)
    generator = awake(EdgeGenerator(**TINY, decision=4))
    outlet, x = generator.unet.outlet.weight, stage_input(3, 1, 32, 32)
    (slope,) = torch.autograd.grad(generator(x).gray.sum(), outlet)
    assert slope[:4].abs().sum() > 0 and not slope[4:].any()
    (slope,) = torch.autograd.grad(generator(x).logits.sum(), outlet)
    assert (slope[:4].abs().flatten(1).sum(1) > 0).all()


def test_without_a_decision_the_u_net_gives_the_logits_straight_from_its_input():
    torch.manual_seed(0)
    generator = awake(EdgeGenerator(**TINY, decision=0))
    assert {name.split(".")[0] for name in generator.state_dict()} == {"unet"}
    x = stage_input(3, 2, 24, 24)
    with torch.inference_mode():
        assert same(generator(x).logits, generator.unet(x))


def test_the_first_halving_and_the_last_doubling_move_pixels_into_channels():
    """A stride-1 inlet on 4 x in_channels at half size, and 4 x out_channels back: shifting by whole 2 x 2 cells commutes."""
    network = UNet(3, 2, 4, 8, 0)
    assert network.inlet.conv.weight.shape[:2] == (2 * 4, 4 * 3) and network.outlet.weight.shape[:2] == (4 * 2, 4)
    with torch.no_grad():
        network.outlet.weight.zero_()
        network.outlet.bias.copy_(torch.arange(8.0))
        y = network(torch.zeros(1, 3, 16, 24))
    assert same(y[0, 0], torch.tensor([[0.0, 1.0], [2.0, 3.0]]).repeat(8, 12))
    assert same(y[0, 1], torch.tensor([[4.0, 5.0], [6.0, 7.0]]).repeat(8, 12))


@few(8)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
def test_what_lies_in_the_hole_changes_no_bit(stage, height, width, seed):
    """Even a caller who forgets to blank the picture's hole gets the same result."""
    generator, inputs, _ = stage
    x = stage_input(inputs, 1, height, width, seed)
    noisy = x.clone()
    noisy[:, : inputs - 2] += torch.rand_like(x[:, : inputs - 2]) * x[:, -1:]
    with torch.inference_mode():
        assert same(main_output(generator(x)), main_output(generator(noisy)))
        assert inputs == 5 or same(generator(x).gray, generator(noisy).gray)
