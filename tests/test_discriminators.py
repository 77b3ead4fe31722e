"""discriminators.py: patches of 70 x 70 px, spectral norms of 1, and the condition beside the picture."""

import pytest
import torch
from helpers import same, seeded

from edgeconnect_lite.discriminators import GAIN, PatchDiscriminator, condition_channels, discriminator_input


def make(in_channels: int = 3, width: int = 4) -> PatchDiscriminator:
    torch.manual_seed(0)
    return PatchDiscriminator(in_channels, width)


def test_it_judges_30_by_30_patches_of_a_256_px_picture():
    """The figure of Isola et al. for their 70 x 70 discriminator, appendix 6.1."""
    logits, features = make()(seeded(2, 3, 256, 256, dtype=torch.float32))
    assert logits.shape == (2, 1, 30, 30)
    assert [tuple(layer.shape[1:]) for layer in features] == [(4, 128, 128), (8, 64, 64), (16, 32, 32), (32, 31, 31)]


def test_one_judgement_sees_70_by_70_px():
    discriminator = make().double()
    torch.nn.init.ones_(discriminator.outlet.weight)
    x = seeded(1, 3, 256, 256).requires_grad_()
    discriminator(x)[0][0, 0, 15, 15].backward()
    seen = x.grad[0].abs().sum(0) > 0
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    assert int(rows.max() - rows.min()) + 1 == int(columns.max() - columns.min()) + 1 == 70
    assert int(seen.sum()) == 70 * 70


def test_the_judge_begins_undecided_and_learns_at_once():
    discriminator = make()
    logits, features = discriminator(seeded(1, 3, 64, 64, dtype=torch.float32))
    assert not logits.any() and all(feature.std() > 0.05 for feature in features)
    logits.sum().backward()
    assert discriminator.outlet.weight.grad.abs().sum() > 0


def test_every_layer_but_the_outlet_has_spectral_norm_1():
    discriminator = make()
    x = seeded(1, 3, 32, 32, dtype=torch.float32)
    for _ in range(60):
        discriminator(x)  # each pass in training mode is one step of the power iteration
    discriminator.eval()
    assert len(discriminator.layers) == 4
    for layer in discriminator.layers:
        largest = torch.linalg.svdvals(layer.weight.detach().double().flatten(1))[0].item()
        assert largest == pytest.approx(1, abs=0.02)


def test_features_are_leaky_and_belong_to_the_picture():
    discriminator = make().eval()
    x = seeded(1, 3, 64, 64, dtype=torch.float32)
    first = GAIN * discriminator.layers[0](x - 0.5)
    _, features = discriminator(x)
    torch.testing.assert_close(features[0], torch.where(first > 0, first, 0.2 * first))
    assert all(feature.requires_grad for feature in features)


def test_the_default_width_is_32():
    assert [tuple(layer.weight.shape[:2]) for layer in PatchDiscriminator(5).layers] == [
        (32, 5),
        (64, 32),
        (128, 64),
        (256, 128),
    ]


@pytest.mark.parametrize(("condition", "stage_1", "stage_2"), [("nothing", 0, 0), ("mask", 1, 1), ("mask+photo", 2, 4)])
def test_the_condition_adds_its_channels_behind_the_picture(condition, stage_1, stage_2):
    mask = seeded(2, 1, 8, 8)
    for channels, added in ((1, stage_1), (3, stage_2)):
        picture, masked = seeded(2, channels, 8, 8, seed=1), seeded(2, channels, 8, 8, seed=2)
        seen = discriminator_input(picture, mask, masked, condition)
        assert condition_channels(condition, channels) == added == seen.shape[1] - channels
        wanted = {0: [picture], 1: [picture, mask], 1 + channels: [picture, mask, masked]}[added]
        assert same(seen, torch.cat(wanted, dim=1))


def test_an_unknown_condition_is_refused():
    with pytest.raises(ValueError, match=r"condition is 'edges'; wanted one of nothing, mask, mask\+photo"):
        condition_channels("edges", 1)  # type: ignore[arg-type]
