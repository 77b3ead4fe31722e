"""Inpainter: the whole line, its promises about known pixels and the hole, and its errors."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from helpers import few, tiny_inpainter, with_noise_in_hole
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from edgeconnect_lite import FacePhotos, Inpainter, composite, known_edges, stroke_mask, true_edges
from edgeconnect_lite.canny import thin
from edgeconnect_lite.edges import merge_edges, near_hole
from edgeconnect_lite.inpainting import BESIDE_IN_PROPOSALS, as_edges, predict_probability, smooth_noise, to_rgb
from edgeconnect_lite.masks import BadMask
from edgeconnect_lite.photos import BadPhoto
from edgeconnect_lite.samples import Sample, edge_stage_input, image_stage_input, make_sample
from edgeconnect_lite.weights import STAGE_NAMES, BadWeights, weights_folder


@pytest.fixture(scope="module")
def inpainter():
    return Inpainter.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def tiny():
    return tiny_inpainter()


@pytest.fixture(scope="module")
def face():
    return FacePhotos("test")[16]


@pytest.fixture(scope="module")
def hole():
    return stroke_mask(np.random.default_rng(0), ratio=(0.2, 0.3))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
@few(25)
def test_composite_keeps_known_pixels_and_fills_the_hole(height, width, seed):
    rng = np.random.default_rng(seed)
    photo, painted = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    mask = rng.random((height, width)) < 0.5
    result = composite(photo, painted, mask)
    assert result.dtype == np.uint8 and np.array_equal(result[~mask], photo[~mask])
    assert np.array_equal(result[mask], painted[mask])


@given(st.integers(2, 90), st.integers(2, 90), st.integers(0, 2**32 - 1))
@few(15)
def test_any_size_keeps_known_pixels_bit_for_bit(tiny, height, width, seed):
    rng = np.random.default_rng(seed)
    photo = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = rng.random((height, width)) < 0.3
    mask[0, 0] = False
    result = tiny(photo, mask)
    assert result.shape == photo.shape and result.dtype == np.uint8
    assert np.array_equal(result[~mask], photo[~mask])
    edges = tiny.predict_edges(photo, mask)
    assert edges.shape == mask.shape and edges.dtype == np.float32 and edges.min() >= 0 and edges.max() <= 1


def test_noise_in_the_hole_changes_no_bit(inpainter, face, hole):
    noisy = with_noise_in_hole(face, hole)
    assert not np.array_equal(face, noisy)
    assert np.array_equal(inpainter.predict_edges(face, hole), inpainter.predict_edges(noisy, hole))
    assert np.array_equal(inpainter(face, hole), inpainter(noisy, hole))


@pytest.mark.parametrize("height, width", [(128, 128), (128, 188), (100, 70)])
def test_a_photo_of_the_networks_size_goes_through_them_as_it_is(inpainter, hole, height, width):
    """Bit for bit the two stages and the composite, as DESIGN draws them: no window, no other scale."""
    photo, mask = np.tile(FacePhotos("test")[16], (1, 2, 1))[:height, :width], np.tile(hole, (1, 2))[:height, :width]
    sample = make_sample(np.where(mask[..., None], np.uint8(0), photo), mask)
    inside = predict_probability(inpainter.edge_generator, Sample(*(part[None] for part in sample)))[0, 0].numpy()
    edges = merge_edges(sample.known_edges[0].numpy(), inside, mask)
    assert np.array_equal(inpainter.predict_edges(photo, mask), edges)
    with torch.no_grad():
        given = image_stage_input(sample, torch.from_numpy(edges > 0.5)[None].float())
        painted = to_rgb(inpainter.image_generator(given[None])[0])
    assert np.array_equal(inpainter.paint(photo, mask, edges), painted)
    assert np.array_equal(inpainter(photo, mask), composite(photo, painted, mask))


def test_predicted_edges_are_the_known_ones_away_from_the_hole(inpainter, face, hole):
    edges = inpainter.predict_edges(face, hole)
    known = known_edges(face, hole)
    assert known.sum() > 100 and np.array_equal(edges[known], np.ones(known.sum(), np.float32))
    assert set(np.unique(edges[~hole & (edges > 0)])) != {1.0}  # within 2 px of the hole they are predicted


def test_the_predicted_edges_given_back_make_the_same_picture(inpainter, face, hole):
    edges = inpainter.predict_edges(face, hole)
    assert np.array_equal(inpainter(face, hole), inpainter(face, hole, edges))
    assert np.array_equal(inpainter(face, hole), inpainter(face, hole, edges > 0.5))


def test_proposals_agree_on_the_known_part_and_differ_in_the_hole(inpainter, face, hole):
    proposals = inpainter.propose_edges(face, hole, n=5, seed=3)
    assert proposals.shape == (5, 128, 128) and proposals.dtype == np.float32
    assert proposals.min() >= 0 and proposals.max() <= 1
    away = ~near_hole(hole)
    assert np.array_equal(proposals[:, away], np.stack(5 * [known_edges(face, hole)[away]]).astype(np.float32))
    drawn = proposals > 0.5
    for a in range(5):
        assert drawn[a][hole].any()
        for b in range(a):
            assert (drawn[a] != drawn[b])[hole].sum() > 20
    common = drawn.all(0)[hole].sum()
    assert common > 20  # what stage 1 is sure of is in all of them


def test_proposals_are_seeded(inpainter, face, hole):
    first = inpainter.propose_edges(face, hole, n=2, seed=7)
    torch.rand(5)  # the process's own random state has no part in it
    assert np.array_equal(first, inpainter.propose_edges(face, hole, n=2, seed=7))
    assert not np.array_equal(first, inpainter.propose_edges(face, hole, n=2, seed=8))
    assert np.array_equal(inpainter.propose_edges(face, hole), inpainter.propose_edges(face, hole, n=4, seed=0))


def test_a_proposal_is_a_probability_that_a_call_takes(inpainter, face, hole):
    proposals = inpainter.propose_edges(face, hole, n=2)
    results = [inpainter(face, hole, edges) for edges in proposals]
    assert all(np.array_equal(result[~hole], face[~hole]) for result in results)
    assert not np.array_equal(*results)


@given(st.integers(2, 90), st.integers(2, 90), st.integers(1, 5), st.integers(0, 2**32 - 1))
@few(10)
def test_any_size_has_proposals_and_noise_in_the_hole_changes_none(tiny, height, width, n, seed):
    rng = np.random.default_rng(seed)
    photo = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = rng.random((height, width)) < 0.3
    mask[0, 0] = False
    proposals = tiny.propose_edges(photo, mask, n, seed)
    assert proposals.shape == (n, height, width)
    assert np.array_equal(proposals, tiny.propose_edges(with_noise_in_hole(photo, mask), mask, n, seed))


def test_a_photo_without_a_hole_has_one_edge_map(inpainter, face):
    whole = np.zeros((128, 128), bool)
    assert np.array_equal(inpainter.propose_edges(face, whole, n=3), np.stack(3 * [true_edges(face)]))


@pytest.mark.parametrize("n", [0, -1])
def test_fewer_than_one_proposal_is_an_error(tiny, face, hole, n):
    with pytest.raises(ValueError, match=f"n is {n}; wanted at least 1 proposal"):
        tiny.propose_edges(face, hole, n)


def test_doubt_is_added_to_the_logits_of_one_sample(tiny, face, hole):
    sample = Sample(*(part[None] for part in make_sample(face, hole)))
    shift = torch.tensor([0.0, 30.0, -30.0]).view(3, 1, 1, 1)
    plain, all_edges, none = predict_probability(tiny.edge_generator, sample, shift)
    with torch.no_grad():
        logits = tiny.edge_generator(edge_stage_input(sample)).logits
    torch.testing.assert_close(plain, thin(torch.sigmoid(logits), beside=BESIDE_IN_PROPOSALS)[0])
    assert all_edges.min() == pytest.approx(BESIDE_IN_PROPOSALS, abs=0.01) and none.max() < 0.01


def test_smooth_noise_is_normal_smooth_and_seeded():
    noise = smooth_noise(60, (40, 50), torch.Generator().manual_seed(0), 4.0)
    assert noise.shape == (60, 1, 40, 50)
    assert noise.mean().abs() < 0.1 and noise.std().item() == pytest.approx(1, abs=0.05)
    assert noise.abs().max() > 2.5
    for axis in (2, 3):
        for distance, wanted in ((1, 0.98), (4, 0.78), (16, 0.02)):  # exp(-distance^2 / (4 scale^2))
            near, far = noise.narrow(axis, 0, 24), noise.narrow(axis, distance, 24)
            assert (near * far).mean().item() == pytest.approx(wanted, abs=0.08)
    assert torch.equal(noise, smooth_noise(60, (40, 50), torch.Generator().manual_seed(0), 4.0))


def test_the_shipped_stages_do_their_work(inpainter, face, hole):
    true = true_edges(face)
    predicted = inpainter.predict_edges(face, hole) > 0.5
    assert (predicted & true & hole).sum() > 0.3 * (true & hole).sum()
    with_edges, without = inpainter(face, hole, true), inpainter(face, hole, known_edges(face, hole))
    assert np.abs(with_edges[hole].astype(float) - without[hole]).mean() > 2


@pytest.mark.parametrize("height, width", [(200, 200), (129, 128), (171, 200)])
def test_at_any_size_predicted_edges_given_back_make_the_same_picture(inpainter, height, width):
    photo = cv2.resize(FacePhotos("test")[16], (width, height))
    mask = stroke_mask(np.random.default_rng(0), 512)[:height, :width]
    edges = inpainter.predict_edges(photo, mask)
    assert np.array_equal(inpainter(photo, mask), inpainter(photo, mask, edges))


def test_the_blur_follows_the_shorter_side(face):
    tiled = true_edges(np.tile(face, (1, 4, 1)))  # far from the seams Canny sees the one face
    local = np.s_[:, 20:108]
    differ = (tiled[:, 148:236] != true_edges(face)[local]).mean()
    assert differ < 0.02  # a line may be followed across a seam


def test_a_drawn_stroke_reaches_the_network_even_outside_the_hole(inpainter, face, hole):
    edges = known_edges(face, hole)
    drawn = edges.copy()
    drawn[60, 20:100] = True
    assert not np.array_equal(inpainter.paint(face, hole, edges), inpainter.paint(face, hole, drawn))


def test_no_hole_gives_the_photo_back(inpainter, face):
    result = inpainter(face, np.zeros((128, 128), bool))
    assert np.array_equal(result, face) and not np.shares_memory(result, face)


def test_one_pixel(inpainter):
    photo = np.full((1, 1, 3), 7, np.uint8)
    assert np.array_equal(inpainter(photo, np.zeros((1, 1), bool)), photo)
    with pytest.raises(BadMask, match="all hole"):
        inpainter(photo, np.ones((1, 1), bool))


@pytest.mark.parametrize("form", ["gray", "rgba", "float"])
def test_gray_rgba_and_float_photos(inpainter, face, hole, form):
    photo = {
        "gray": face[..., 0],
        "rgba": np.dstack([face, np.full((128, 128), 255, np.uint8)]),
        "float": face / np.float32(255),
    }[form]
    rgb = {"gray": np.repeat(face[..., :1], 3, 2), "rgba": face, "float": face}[form]
    result = inpainter(photo, hole)
    assert result.shape == (128, 128, 3) and np.array_equal(result[~hole], rgb[~hole])


def test_bad_arguments_say_what_came_and_what_was_wanted(inpainter, face, hole):
    broken = face / np.float32(255)
    broken[5, 5] = np.nan
    with pytest.raises(BadPhoto, match="3 NaN values; wanted"):
        inpainter(broken, hole)
    with pytest.raises(BadMask, match="mask is 64 x 64 and the photo 128 x 128"):
        inpainter(face, hole[:64, :64])
    with pytest.raises(BadMask, match="all hole"):
        inpainter(face, np.ones((128, 128), bool))
    with pytest.raises(ValueError, match=r"edges have shape \(64, 64\); wanted \(128, 128\)"):
        inpainter(face, hole, hole[:64, :64])
    with pytest.raises(ValueError, match="dtype uint8; wanted bool"):
        as_edges(hole.astype(np.uint8), (128, 128))
    with pytest.raises(ValueError, match="values from 0 to 2"):
        as_edges(hole * 2.0, (128, 128))


@pytest.fixture
def weights(tmp_path):
    shutil.copytree(weights_folder(), tmp_path / "weights")
    return tmp_path / "weights"


def test_shipped_weights_are_float16_and_loaded_as_float32(weights, inpainter):
    for stage in STAGE_NAMES:
        assert {v.dtype for v in load_file(weights / stage / "model.safetensors").values()} == {torch.float16}
    assert {p.dtype for p in inpainter.edge_generator.parameters()} == {torch.float32}


def test_a_folder_wins_and_missing_ones_are_errors(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Inpainter.from_pretrained("weights").size == 128
    for name in ("nowhere", "./owner/name", str(tmp_path / "nowhere")):  # never sent to a hub
        with pytest.raises(BadWeights, match="no such folder"):
            Inpainter.from_pretrained(name)


@pytest.mark.parametrize("stage", STAGE_NAMES)
@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_missing_weight_file_is_named(weights, stage, file):
    (weights / stage / file).unlink()
    with pytest.raises(BadWeights, match=f"{stage}/{file}: there is no such file"):
        Inpainter.from_pretrained(weights)


def test_wrong_weights_are_never_replaced_by_random_ones(weights):
    config, model = weights / "edge_generator/config.json", weights / "edge_generator/model.safetensors"
    good_config, state = config.read_text(), load_file(model)
    config.write_text(json.dumps(json.loads(good_config) | {"width": 12}))
    with pytest.raises(BadWeights, match="another architecture"):
        Inpainter.from_pretrained(weights)
    config.write_text('{"width": 0}')
    with pytest.raises(BadWeights, match="not a configuration of EdgeGenerator"):
        Inpainter.from_pretrained(weights)
    config.write_text('{"colour": "blue"}')
    with pytest.raises(BadWeights, match="not a configuration of EdgeGenerator"):
        Inpainter.from_pretrained(weights)
    config.write_text(good_config)
    save_file({name: value for name, value in state.items() if name != "unet.outlet.bias"}, model)
    with pytest.raises(BadWeights, match=r"unet\.outlet\.bias"):
        Inpainter.from_pretrained(weights)
    save_file(state | {"unet.outlet.bias": torch.full_like(state["unet.outlet.bias"], float("nan"))}, model)
    with pytest.raises(BadWeights, match="not finite"):
        Inpainter.from_pretrained(weights)
    model.write_bytes(b"not a safetensors file")
    with pytest.raises(BadWeights, match="not a safetensors file"):
        Inpainter.from_pretrained(weights)
    shutil.copy(weights / "image_generator/model.safetensors", model)
    with pytest.raises(BadWeights, match="another architecture"):
        Inpainter.from_pretrained(weights)
