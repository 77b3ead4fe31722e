"""optimizers.py: Muon's steps by their definition, Adam's against torch's own, and a state that goes on bit for bit."""

import io

import pytest
import torch
from helpers import same, seeded
from torch import nn

from edgeconnect_lite.generators import EdgeGenerator
from edgeconnect_lite.layers import GatedConv2d
from edgeconnect_lite.optimizers import Muon, orthogonalize

SHAPES = [(24, 200), (200, 24), (40, 90), (288, 80), (1, 50), (50, 1)]


def parameter(*shape: int, seed: int = 0, dtype=torch.float32) -> nn.Parameter:
    return nn.Parameter(seeded(*shape, seed=seed, dtype=dtype))


def step_with(optimizer, *gradients) -> None:
    """One step; gradients: pairs of a parameter and its gradient."""
    for p, gradient in gradients:
        p.grad = gradient
    optimizer.step()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_orthogonalized_singular_values_are_about_1(shape, scale):
    found = orthogonalize(scale * seeded(*shape, dtype=torch.float32))
    assert found.shape == shape and found.dtype == torch.bfloat16
    values = torch.linalg.svdvals(found.float())
    assert values.min() > 0.6 and values.max() < 1.3


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonalizing_keeps_the_singular_vectors(shape):
    matrix = seeded(*shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    found, nearest = orthogonalize(matrix).double(), u @ v
    assert (found * nearest).sum() > 0.97 * found.norm() * nearest.norm()


def test_a_tall_matrix_is_a_wide_one_turned_and_nothing_stays_nothing():
    wide = seeded(12, 70, dtype=torch.float32)
    assert same(orthogonalize(wide.T), orthogonalize(wide).T)
    assert not orthogonalize(torch.zeros(3, 5)).any()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
@pytest.mark.parametrize("shape", [(24, 20, 3, 3), (64, 3, 3, 3), (8, 40, 1, 1)])
def test_a_muon_step_is_a_fifth_of_the_learning_rate_whatever_the_gradient(shape, scale):
    """Root mean square: Adam's is about as much (Liu et al., section 2.2)."""
    p = parameter(*shape)
    before = p.detach().clone()
    step_with(Muon([p], lr=1e-2, decay=0.0), (p, scale * seeded(*shape, seed=1, dtype=torch.float32)))
    step = (p.detach() - before).square().mean().sqrt().item()
    assert 0.2 * 0.6 < step / 1e-2 < 0.2 * 1.3


def test_muon_s_steps_are_those_of_its_definition():
    """Nesterov's momentum, orthogonalized as (out, in * k * k); the weight decay before it."""
    p = parameter(6, 4, 3, 3)
    optimizer = Muon([p], lr=0.02, momentum=0.9, decay=0.5)
    wanted, momentum = p.detach().clone(), torch.zeros(6, 4, 3, 3)
    for k in range(4):
        gradient = seeded(6, 4, 3, 3, seed=k + 1, dtype=torch.float32)
        momentum = 0.9 * momentum + 0.1 * gradient
        ahead = 0.1 * gradient + 0.9 * momentum
        change = orthogonalize(ahead.reshape(6, 36)).float().reshape(6, 4, 3, 3)
        wanted = (1 - 0.02 * 0.5) * wanted - 0.02 * 0.2 * 36**0.5 * change
        step_with(optimizer, (p, gradient))
        # a momentum that differs in its last bit may be rounded otherwise to bfloat16
        torch.testing.assert_close(p.detach(), wanted, rtol=0, atol=2e-4)


def test_the_direction_goes_against_the_gradient():
    p = parameter(8, 4, 3, 3)
    before, gradient = p.detach().clone(), seeded(8, 4, 3, 3, seed=1, dtype=torch.float32)
    step_with(Muon([p], lr=1e-2, decay=0.0), (p, gradient))
    assert ((p.detach() - before) * gradient).sum() < 0


def test_what_has_fewer_than_four_dimensions_is_adam_s():
    shapes = [(1,), (7,), (5, 6), (2, 3, 4)]
    ours, theirs = (
        [parameter(*shape, seed=i, dtype=torch.float64) for i, shape in enumerate(shapes)] for _ in range(2)
    )
    settings = {"lr": 3e-2, "betas": (0.8, 0.97), "eps": 1e-6}
    muon, adam = Muon(ours, decay=0.3, **settings), torch.optim.Adam(theirs, **settings)
    for k in range(25):
        gradients = [seeded(*shape, seed=100 * k + i) for i, shape in enumerate(shapes)]
        step_with(muon, *zip(ours, gradients))
        step_with(adam, *zip(theirs, gradients))
        for a, b in zip(ours, theirs):
            torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-10, atol=1e-12)


def test_the_defaults_of_adam_are_those_of_the_documentation():
    ours, theirs = parameter(9), parameter(9)
    muon, adam = Muon([ours]), torch.optim.Adam([theirs], lr=2e-3, betas=(0.9, 0.99), eps=1e-8)
    for k in range(5):
        gradient = seeded(9, seed=k, dtype=torch.float32)
        step_with(muon, (ours, gradient))
        step_with(adam, (theirs, gradient))
    torch.testing.assert_close(ours.detach(), theirs.detach())


def test_only_muon_s_parameters_decay_and_only_those_with_a_gradient_move():
    kernel, bias, frozen = parameter(4, 3, 3, 3), parameter(4, seed=1), parameter(4, 3, 1, 1, seed=2)
    before = [p.detach().clone() for p in (kernel, bias, frozen)]
    step_with(
        Muon([kernel, bias, frozen], lr=0.1, decay=0.5),
        (kernel, torch.zeros_like(kernel)),
        (bias, torch.zeros_like(bias)),
    )
    assert same(kernel.detach(), before[0] * (1 - 0.1 * 0.5))
    assert same(bias.detach(), before[1]) and same(frozen.detach(), before[2])


def test_each_group_may_be_missing_and_the_schedule_reaches_both():
    kernel, bias = parameter(4, 3, 3, 3), parameter(4)
    assert [group["muon"] for group in Muon([kernel]).param_groups] == [True]
    assert [group["muon"] for group in Muon([bias]).param_groups] == [False]
    optimizer = Muon(iter([kernel, bias]), lr=1.0)
    assert [(group["muon"], len(group["params"])) for group in optimizer.param_groups] == [(True, 1), (False, 1)]
    before = kernel.detach().clone(), bias.detach().clone()
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    step_with(optimizer, (kernel, torch.ones_like(kernel)), (bias, torch.ones_like(bias)))
    assert same(kernel.detach(), before[0]) and same(bias.detach(), before[1])


def test_a_closure_is_run_with_gradients_and_its_loss_returned():
    p = parameter(3)
    optimizer = Muon([p])

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    before = p.detach().clone()
    assert optimizer.step(closure).item() == pytest.approx(before.square().sum().item())
    assert not same(p.detach(), before)


def test_the_memory_format_changes_no_bit():
    contiguous, last = parameter(12, 8, 3, 3), parameter(12, 8, 3, 3)
    last.data = last.data.contiguous(memory_format=torch.channels_last)
    first, second = Muon([contiguous]), Muon([last])
    for k in range(3):
        gradient = seeded(12, 8, 3, 3, seed=k + 1, dtype=torch.float32)
        step_with(first, (contiguous, gradient))
        step_with(second, (last, gradient.contiguous(memory_format=torch.channels_last)))
    assert same(contiguous.detach(), last.detach())
    assert last.is_contiguous(memory_format=torch.channels_last)


def test_a_stored_state_goes_on_bit_for_bit():
    """Through a file, as a checkpoint keeps it; with other settings in the new optimizer, which the state's replace."""

    def train(network, optimizer, steps):
        for k in steps:
            optimizer.zero_grad()
            x = torch.cat([seeded(1, 2, 16, 16, seed=k, dtype=torch.float32).sigmoid(), torch.zeros(1, 1, 16, 16)], 1)
            network(x).logits.square().mean().backward()
            optimizer.step()

    torch.manual_seed(0)
    network = EdgeGenerator(4, 8, 1, decision=4).to(memory_format=torch.channels_last)
    optimizer = Muon(network.parameters(), lr=3e-3, betas=(0.8, 0.95))
    train(network, optimizer, range(3))
    file = io.BytesIO()
    torch.save({"network": network.state_dict(), "optimizer": optimizer.state_dict()}, file)
    train(network, optimizer, range(3, 6))

    stored = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    again = EdgeGenerator(4, 8, 1, decision=4).to(memory_format=torch.channels_last)
    other = Muon(again.parameters())
    again.load_state_dict(stored["network"])
    other.load_state_dict(stored["optimizer"])
    train(again, other, range(3, 6))
    assert all(same(value, again.state_dict()[name]) for name, value in network.state_dict().items())
    assert len(optimizer.state) == len(other.state) == len(list(network.parameters()))
    for p, q in zip(network.parameters(), again.parameters()):
        assert optimizer.state[p].keys() == other.state[q].keys()
        assert all(same(value, other.state[q][name]) for name, value in optimizer.state[p].items())


def test_it_learns_what_a_gated_layer_computes():
    torch.manual_seed(0)
    teacher, learner = GatedConv2d(3, 8), GatedConv2d(3, 8)
    optimizer, losses = Muon(learner.parameters(), lr=0.1), []
    for k in range(60):
        x = seeded(4, 3, 12, 12, seed=k, dtype=torch.float32)
        loss = (learner(x) - teacher(x).detach()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.2 * sum(losses[:5])
