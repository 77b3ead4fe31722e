"""edges.py: true edges are Canny's, and known edges never depend on what lies in the hole."""

import cv2
import numpy as np
import pytest
from helpers import blob_mask, few, noise_photo, shapes_photo, with_noise_in_hole
from hypothesis import given
from hypothesis import strategies as st

from edgeconnect_lite.edges import fill_from_known, known_edges, merge_edges, near_hole, to_gray, true_edges
from edgeconnect_lite.photos import FacePhotos

seeds = st.integers(0, 2**16)
sides = st.integers(8, 70)


def within(mask, margin):
    """By the definition: pixels whose square of side 2 * margin + 1 touches the hole."""
    height, width = mask.shape
    padded = np.pad(mask, margin)
    shifts = [padded[i : i + height, j : j + width] for i in range(2 * margin + 1) for j in range(2 * margin + 1)]
    return np.any(shifts, axis=0)


def photo_of(kind, height, width, seed):
    return (noise_photo if kind == "noise" else shapes_photo)(height, width, seed)


kinds = st.sampled_from(["noise", "shapes"])


def test_gray_weighs_the_channels_as_opencv_does():
    photo = noise_photo(20, 30)
    wanted = photo @ [0.299, 0.587, 0.114]
    assert to_gray(photo).dtype == np.uint8
    assert np.abs(to_gray(photo) - wanted).max() <= 0.51


@pytest.mark.parametrize("index", range(4))
def test_true_edges_at_128_are_the_documented_expression(index):
    photo = FacePhotos("test")[index]
    gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    wanted = cv2.Canny(cv2.GaussianBlur(gray, (0, 0), 1.0), 25, 60)
    edges = true_edges(photo)
    assert edges.dtype == np.bool_ and set(np.unique(wanted)) == {0, 255}
    assert np.array_equal(edges, wanted == 255)
    assert np.array_equal(true_edges(gray), edges)
    assert 0.01 < edges.mean() < 0.4


def test_the_blur_scales_with_the_shorter_side_and_the_thresholds_are_parameters():
    photo = FacePhotos("test")[0]
    gray = to_gray(photo)
    large = cv2.resize(gray, (300, 256))  # the shorter side decides
    assert np.array_equal(true_edges(large), cv2.Canny(cv2.GaussianBlur(large, (0, 0), 2.0), 25, 60) > 0)
    small = cv2.resize(gray, (64, 64))
    assert np.array_equal(true_edges(small), cv2.Canny(cv2.GaussianBlur(small, (0, 0), 0.5), 25, 60) > 0)
    wanted = cv2.Canny(cv2.GaussianBlur(gray, (0, 0), 2.5), 40, 90) > 0
    assert np.array_equal(true_edges(photo, low=40, high=90, sigma=2.5), wanted)
    assert not np.array_equal(wanted, true_edges(photo))


@few(20)
@given(sides, sides, seeds, st.integers(0, 4))
def test_near_hole_is_a_square_around_every_hole_pixel(height, width, seed, margin):
    mask = blob_mask(height, width, seed)
    assert np.array_equal(near_hole(mask, margin), within(mask, margin))
    assert np.array_equal(near_hole(mask), within(mask, 2))


@few(40)
@given(kinds, sides, sides, seeds)
def test_known_edges_do_not_depend_on_the_hole(kind, height, width, seed):
    photo, mask = photo_of(kind, height, width, seed), blob_mask(height, width, seed)
    edges = known_edges(photo, mask)
    for other in (
        with_noise_in_hole(photo, mask),
        photo * ~mask[..., None],
        photo | (255 * mask[..., None]).astype(np.uint8),
    ):
        assert np.array_equal(edges, known_edges(other, mask))


@few(40)
@given(kinds, sides, sides, seeds)
def test_known_edges_keep_two_pixels_off_the_hole(kind, height, width, seed):
    photo, mask = photo_of(kind, height, width, seed), blob_mask(height, width, seed)
    edges = known_edges(photo, mask)
    assert edges.dtype == np.bool_ and edges.shape == mask.shape
    assert not (edges & within(mask, 2)).any()


def test_known_edges_of_real_faces_do_not_depend_on_the_hole():
    faces = FacePhotos("test")
    for index in range(5):
        mask = blob_mask(128, 128, index)
        edges = known_edges(faces[index], mask)
        assert edges.any()
        assert np.array_equal(edges, known_edges(with_noise_in_hole(faces[index], mask), mask))
        assert np.array_equal(edges, known_edges(to_gray(faces[index]), mask))


def test_without_a_hole_the_known_edges_are_the_true_ones():
    photo = FacePhotos("test")[3]
    nothing = np.zeros((128, 128), bool)
    assert np.array_equal(known_edges(photo, nothing), true_edges(photo))
    assert np.array_equal(known_edges(photo, nothing, 50, 120, 0.7), true_edges(photo, 50, 120, 0.7))


def test_far_from_the_hole_the_known_edges_are_the_true_ones():
    photo = np.full((128, 128, 3), 40, np.uint8)
    photo[20:60, 20:60] = 200
    mask = np.zeros((128, 128), bool)
    mask[90:120, 90:120] = True
    assert true_edges(photo).sum() > 100
    assert np.array_equal(known_edges(photo, mask), true_edges(photo))


def test_an_even_photo_has_no_known_edges_whatever_the_hole():
    photo = np.full((128, 128, 3), 140, np.uint8)
    for seed in range(10):
        mask = blob_mask(128, 128, seed)
        assert not known_edges(with_noise_in_hole(photo, mask), mask).any()


def test_a_photo_that_is_all_hole_has_no_known_edges():
    assert not known_edges(noise_photo(32, 32), np.ones((32, 32), bool)).any()


@few(25)
@given(kinds, sides, sides, seeds)
def test_the_fill_keeps_known_pixels_and_stays_between_them(kind, height, width, seed):
    gray, mask = to_gray(photo_of(kind, height, width, seed)), blob_mask(height, width, seed)
    filled = fill_from_known(gray, mask)
    assert filled.dtype == np.uint8
    assert np.array_equal(filled[~mask], gray[~mask])
    assert gray[~mask].min() <= filled.min() and filled.max() <= gray[~mask].max()
    assert np.array_equal(filled, fill_from_known(np.where(mask, 255 - gray, gray), mask))


def test_the_fill_follows_the_known_pixels_nearby():
    gray = np.full((128, 128), 50, np.uint8)
    gray[:, 64:] = 200
    mask = np.zeros((128, 128), bool)
    mask[60:64, 20:24] = mask[60:64, 100:104] = True
    filled = fill_from_known(gray, mask)
    assert set(np.unique(filled[60:64, 20:24])) == {50}
    assert set(np.unique(filled[60:64, 100:104])) == {200}


@few(20)
@given(sides, sides, seeds)
def test_a_merged_map_is_inside_near_the_hole_and_known_elsewhere(height, width, seed):
    rng = np.random.default_rng(seed)
    known, inside = rng.random((2, height, width)) < 0.3
    mask = blob_mask(height, width, seed)
    merged = merge_edges(known, inside, mask)
    near = within(mask, 2)
    assert merged.dtype == np.bool_
    assert np.array_equal(merged[near], inside[near])
    assert np.array_equal(merged[~near], known[~near])
    soft = merge_edges(known.astype(np.float32), rng.random((height, width)).astype(np.float32), mask)
    assert soft.dtype == np.float32
