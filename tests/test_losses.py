"""losses.py: each equation once more, in NumPy's float64."""

import cv2
import numpy as np
import pytest
import torch
from helpers import few, seeded
from hypothesis import given
from hypothesis import strategies as st

from edgeconnect_lite import losses

weights = st.floats(0.1, 20)
seeds = st.integers(0, 1000)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def pair(seed=0):
    """Predictions, targets in [0, 1] and a mask: (2, 3, 4, 5), (2, 3, 4, 5), (2, 1, 4, 5)."""
    target = torch.sigmoid(seeded(2, 3, 4, 5, seed=seed + 1))
    return seeded(2, 3, 4, 5, seed=seed), target, (seeded(2, 1, 4, 5, seed=seed + 2) > 0).double()


def layers(seed=0):
    return [seeded(2, 3, 8, 8, seed=seed), seeded(2, 5, 4, 4, seed=seed + 1), seeded(2, 7, 2, 3, seed=seed + 2)]


def close(value, wanted):
    assert value.shape == ()
    assert value.item() == pytest.approx(wanted, rel=1e-10)


@few(20)
@given(seeds, weights)
def test_hole_weighted_mean(seed, hole_weight):
    values, _, mask = pair(seed)
    weight = np.broadcast_to(np.where(mask.numpy() == 1, hole_weight, 1.0), values.shape)
    close(losses.hole_weighted_mean(values, mask, hole_weight), np.average(values.numpy(), weights=weight))


def test_a_hole_pixel_counts_hole_weight_times_a_known_one():
    values, mask = torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]]), torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]])
    close(losses.hole_weighted_mean(values, mask, 5.0), 5 / 8)
    close(losses.hole_weighted_mean(values, mask, 1.0), 1 / 4)
    close(losses.hole_weighted_mean(values, mask, 0.0), 0.0)


@few(20)
@given(seeds, weights, weights)
def test_edge_cross_entropy(seed, hole_weight, edge_weight):
    logits, _, mask = pair(seed)
    logits, edges = logits[:, :1], (seeded(2, 1, 4, 5, seed=seed + 9) > 0.5).double()
    p, e = sigmoid(logits.numpy()), edges.numpy()
    each = -(edge_weight * e * np.log(p) + (1 - e) * np.log(1 - p))
    wanted = np.average(each, weights=np.where(mask.numpy() == 1, hole_weight, 1.0))
    close(losses.edge_cross_entropy(logits, edges, mask, hole_weight, edge_weight), wanted)


def test_edge_cross_entropy_takes_a_map_of_edge_weights():
    logits, _, mask = pair()
    logits, edges = logits[:, :1], (seeded(2, 1, 4, 5, seed=9) > 0.5).double()
    weight = torch.rand(2, 1, 4, 5, generator=torch.Generator().manual_seed(0)).double() * 5
    p, e = sigmoid(logits.numpy()), edges.numpy()
    each = -(weight.numpy() * e * np.log(p) + (1 - e) * np.log(1 - p))
    wanted = np.average(each, weights=np.where(mask.numpy() == 1, 3.0, 1.0))
    close(losses.edge_cross_entropy(logits, edges, mask, 3.0, weight), wanted)
    flat = losses.edge_cross_entropy(logits, edges, mask, 3.0, torch.full_like(weight, 2.5))
    close(flat, losses.edge_cross_entropy(logits, edges, mask, 3.0, 2.5).item())


def test_the_edge_weight_rises_with_the_depth_in_the_hole():
    """By the distance to the nearest known pixel, in either axis: 1 = at the border, 6 and more = deep."""
    mask = np.zeros((2, 1, 24, 30), np.float32)
    mask[0, 0, 3:20, 4:25] = mask[1, 0, :9, :20] = 1
    distance = np.stack([cv2.distanceTransform(m[0].astype(np.uint8), cv2.DIST_C, 3)[None] for m in mask])
    wanted = 2.0 + (5.0 - 2.0) * (np.clip(distance, 1, 6) - 1) / 5
    found = losses.deepening_weight(torch.from_numpy(mask), 2.0, 5.0)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6)
    assert found.min() == 2 and found.max() == 5
    assert losses.deepening_weight(torch.from_numpy(mask), 3.0, 3.0).unique().tolist() == [3.0]


def test_edge_cross_entropy_s_defaults():
    logits, edges = torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]])
    mask = torch.tensor([[[[1.0, 0.0]]]])
    close(losses.edge_cross_entropy(logits.double(), edges.double(), mask.double()), np.log(2))
    logits = torch.tensor([[[[0.0, -50.0]]]]).double()  # only the hole pixel costs: log 2, with 10 of 11 parts
    close(losses.edge_cross_entropy(logits, edges.double(), mask.double()), 10 / 11 * np.log(2))


@few(20)
@given(seeds, weights)
def test_reconstruction_loss(seed, hole_weight):
    painted, photo, mask = pair(seed)
    weight = np.broadcast_to(np.where(mask.numpy() == 1, hole_weight, 1.0), painted.shape)
    wanted = np.average(np.abs(painted.numpy() - photo.numpy()), weights=weight)
    close(losses.reconstruction_loss(painted, photo, mask, hole_weight), wanted)


@few(20)
@given(seeds, weights)
def test_squared_loss(seed, hole_weight):
    painted, photo, mask = pair(seed)
    weight = np.broadcast_to(np.where(mask.numpy() == 1, hole_weight, 1.0), painted.shape)
    wanted = np.average((painted.numpy() - photo.numpy()) ** 2, weights=weight)
    close(losses.squared_loss(painted, photo, mask, hole_weight), wanted)


@few(10)
@given(seeds)
def test_adversarial_losses(seed):
    real, fake = seeded(2, 1, 6, 6, seed=seed), seeded(2, 1, 6, 6, seed=seed + 1)
    on_real, on_fake = sigmoid(real.numpy()), sigmoid(fake.numpy())
    wanted = -(np.log(on_real).mean() + np.log(1 - on_fake).mean()) / 2
    close(losses.discriminator_loss(real, fake), wanted)
    close(losses.adversarial_loss(fake), -np.log(on_fake).mean())


def test_an_undecided_discriminator_costs_log_2():
    undecided = torch.zeros(1, 1, 3, 3).double()
    close(losses.discriminator_loss(undecided, undecided), np.log(2))
    close(losses.adversarial_loss(undecided), np.log(2))
    assert losses.discriminator_loss(undecided + 20, undecided - 20) < 1e-8  # right on both
    assert losses.adversarial_loss(undecided + 20) < 1e-8 < 19 < losses.adversarial_loss(undecided - 20)


@few(10)
@given(seeds)
def test_feature_losses(seed):
    real, fake = layers(seed), layers(seed + 50)
    distance = sum(np.abs(a.numpy() - b.numpy()).mean() for a, b in zip(real, fake))
    close(losses.feature_matching_loss(real, fake), distance)
    close(losses.perceptual_loss(real, fake), distance)


@few(10)
@given(seeds)
def test_gram_matrix_and_style_loss(seed):
    real, fake = layers(seed), layers(seed + 50)

    def gram(features):
        n, c, h, w = features.shape
        result = np.zeros((n, c, c))
        for a in range(c):
            for b in range(c):
                result[:, a, b] = (features[:, a] * features[:, b]).sum((1, 2)) / (c * h * w)
        return result

    for features in real:
        np.testing.assert_allclose(losses.gram_matrix(features).numpy(), gram(features.numpy()), rtol=1e-10, atol=1e-14)
    close(
        losses.style_loss(real, fake), sum(np.abs(gram(a.numpy()) - gram(b.numpy())).mean() for a, b in zip(real, fake))
    )


def test_style_does_not_mind_where():
    features = layers()
    moved = [torch.roll(layer, (1, 2), (2, 3)) for layer in features]
    assert losses.style_loss(features, moved) < 1e-12 < losses.perceptual_loss(features, moved)


@pytest.mark.parametrize("loss", [losses.feature_matching_loss, losses.perceptual_loss, losses.style_loss])
def test_equal_pictures_cost_nothing_and_unequal_lists_are_refused(loss):
    assert loss(layers(), layers()).item() == 0
    with pytest.raises(ValueError):
        loss(layers(), layers()[:2])


def test_the_real_side_of_feature_matching_is_a_constant():
    real, fake = [[layer.requires_grad_() for layer in layers(seed)] for seed in (0, 1)]
    losses.feature_matching_loss(real, fake).backward()
    assert all(layer.grad is None for layer in real)
    for a, b in zip(real, fake):
        torch.testing.assert_close(b.grad, torch.sign(b - a).detach() / b.numel())


def test_gradients_are_right():
    painted, photo, mask = pair()
    edges = (photo[:, :1] > 0.5).double()
    x = painted.clone().requires_grad_()
    for function in (
        lambda x: losses.edge_cross_entropy(x[:, :1], edges, mask, 10.0, 1.5),
        lambda x: losses.reconstruction_loss(x, photo, mask),
        lambda x: losses.discriminator_loss(x[:1], x[1:]),
        lambda x: losses.adversarial_loss(x),
        lambda x: losses.style_loss([photo], [x]),
    ):
        assert torch.autograd.gradcheck(function, (x,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_stay_finite_and_so_do_their_gradients(dtype):
    for size in (100.0, 1e4):
        logits = torch.tensor([[[[-size, size, -size, size, 0.0]]]], dtype=dtype, requires_grad=True)
        edges, mask = torch.tensor([[[[0.0, 0.0, 1.0, 1.0, 1.0]]]], dtype=dtype), torch.ones(1, 1, 1, 5, dtype=dtype)
        terms = (
            losses.edge_cross_entropy(logits, edges, mask),
            losses.discriminator_loss(logits, logits),
            losses.adversarial_loss(logits),
        )
        for term in terms:
            (gradient,) = torch.autograd.grad(term, logits, retain_graph=True)
            assert torch.isfinite(term) and torch.isfinite(gradient).all()


def test_a_photo_without_a_hole_has_finite_losses():
    painted, photo, _ = pair()
    none = torch.zeros(2, 1, 4, 5).double()
    close(losses.reconstruction_loss(painted, photo, none), np.abs(painted.numpy() - photo.numpy()).mean())
    close(losses.hole_weighted_mean(painted, none + 1, 7.0), painted.numpy().mean())  # all hole: the plain mean
