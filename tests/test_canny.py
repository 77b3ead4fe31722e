"""canny.py: its channels are OpenCV's Canny step by step; ridges and links by hand; thinned lines."""

import cv2
import numpy as np
import pytest
import torch
from helpers import few, same, seeded
from hypothesis import example, given
from hypothesis import strategies as st

from edgeconnect_lite.canny import (
    BESIDE,
    CANNY_VIEW_CHANNELS,
    blurred_gradient,
    canny_view,
    crest,
    link,
    neighbours,
    thin,
)
from edgeconnect_lite.edges import HIGH, LOW, blur_sigma, to_gray, true_edges
from edgeconnect_lite.photos import FacePhotos

seeds = st.integers(0, 2**16)


@pytest.fixture(scope="module")
def grays():
    """Twelve shipped faces, uint8 (12, 128, 128)."""
    faces = FacePhotos("test")
    return np.stack([to_gray(faces[i]) for i in range(12)])


def as_batch(grays: np.ndarray, dtype=torch.float32) -> torch.Tensor:
    return torch.from_numpy(grays).to(dtype)[:, None] / 255


def sobel(blurred: np.ndarray) -> np.ndarray:
    """The two gradients that OpenCV's Canny takes. (H, W) -> float64 (2, H, W)."""
    steps = ((1, 0), (0, 1))
    return np.stack([cv2.Sobel(blurred, cv2.CV_64F, *step, borderType=cv2.BORDER_REPLICATE) for step in steps])


def f1(found: np.ndarray, wanted: np.ndarray) -> float:
    return 2 * (found & wanted).sum() / (found.sum() + wanted.sum())


def strip(values: list[float], direction: str, size: int = 11) -> torch.Tensor:
    """A straight line through the middle whose cross-section has these values. (1, 1, size, size)."""
    step = np.arange(size)[None] - np.arange(size)[:, None]  # 0 on the diagonal
    row = np.broadcast_to(np.arange(size)[:, None] - size // 2, (size, size))
    distance = {"horizontal": row, "vertical": row.T, "falling": step, "rising": step[:, ::-1]}[direction]
    place = distance + len(values) // 2
    inside = (place >= 0) & (place < len(values))
    line = np.where(inside, np.asarray(values, np.float32)[np.clip(place, 0, len(values) - 1)], np.float32(0))
    return torch.from_numpy(line)[None, None]


directions = pytest.mark.parametrize("direction", ["horizontal", "vertical", "falling", "rising"])


# the view


def scaled(grays, size: int) -> np.ndarray:
    return np.stack([cv2.resize(gray, (size, size), interpolation=cv2.INTER_CUBIC) for gray in grays])


@pytest.mark.parametrize("size", [40, 64, 100, 128, 256])
def test_the_gradient_is_that_of_opencv_s_blur_of_bytes(grays, size):
    """In float64, so that no tie falls the other way; borders too."""
    grays = scaled(grays, size)
    found = blurred_gradient(as_batch(grays, torch.float64)).numpy()
    wanted = np.stack([sobel(cv2.GaussianBlur(gray, (0, 0), blur_sigma(gray.shape))) for gray in grays])
    assert (found != wanted).mean() < 1e-4 and np.abs(found).max() > 200


@pytest.mark.parametrize(("size", "at_least"), [(40, 1.0), (64, 0.999), (128, 0.998), (256, 0.99)])
def test_linked_ridges_are_opencv_s_canny_on_faces(grays, size, at_least):
    """But for links of more than 32 px."""
    grays = scaled(grays, size)
    linked = canny_view(as_batch(grays))[:, 5].numpy() > 0
    wanted = np.stack([true_edges(gray) for gray in grays])
    assert not (linked & ~wanted).any() and f1(linked, wanted) >= at_least


def test_weak_ridges_are_opencv_s_canny_with_one_threshold(grays):
    weak = canny_view(as_batch(grays))[:, 4].numpy() > 0
    wanted = np.stack([cv2.Canny(cv2.GaussianBlur(gray, (0, 0), 1.0), LOW, LOW) > 0 for gray in grays])
    assert (weak == wanted).mean() > 0.9999  # ties of the blur in float32


def test_the_channels_are_as_documented(grays):
    gray = as_batch(grays[:3])
    view, gradient = canny_view(gray), blurred_gradient(gray)
    strength = gradient.abs().sum(1, keepdim=True)
    assert view.shape == (3, CANNY_VIEW_CHANNELS, 128, 128) and view.dtype == torch.float32
    assert view.abs().max() <= 1
    assert same(view[:, :2], torch.tanh(gradient / HIGH)) and same(view[:, 2:3], torch.tanh(strength / HIGH))
    weak, linked = view[:, 4:5], view[:, 5:]
    assert set(view[:, 4:].unique().tolist()) == {0.0, 1.0}
    assert (linked <= weak).all() and 0 < linked.sum() < weak.sum()
    assert (strength[weak > 0] > LOW).all() and (view[:, 3:4][weak > 0] >= 0).all()
    strong = weak * (strength > HIGH)
    assert (strong <= linked).all() and same(linked, link(weak, strong))


def test_gradients_flow_to_the_gray_photo_through_the_first_four_channels(grays):
    gray = as_batch(grays[:1]).requires_grad_()
    view = canny_view(gray)
    for channel in range(4):
        (slope,) = torch.autograd.grad(
            (view[:, channel] * seeded(128, 128, dtype=torch.float32)).sum(), gray, retain_graph=True
        )
        assert torch.isfinite(slope).all() and (slope != 0).float().mean() > 0.99, channel
    (slope,) = torch.autograd.grad(view[:, 4:].sum(), gray, allow_unused=True)
    assert slope is None or not slope.any()


def test_gradients_pass_the_rounding_as_if_it_were_not_there(grays):
    """Without its rounding the gradient is linear in the photo: f(x) = <f', x>, with the same f' everywhere."""
    first, second = (as_batch(grays[i : i + 1], torch.float64).requires_grad_() for i in (0, 1))
    signs = blurred_gradient(first).detach().sign()
    lengths = [(blurred_gradient(x) * signs).sum() for x in (first, second)]
    slopes = [torch.autograd.grad(length, x)[0] for length, x in zip(lengths, (first, second))]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=0, atol=1e-9)
    assert (slopes[0] * first).sum().item() == pytest.approx(lengths[0].item(), rel=0.02)


def test_the_view_is_in_float32_whatever_surrounds_it(grays):
    gray = as_batch(grays[:2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = canny_view(gray)
        rounded = canny_view(gray.bfloat16())
    assert same(inside, canny_view(gray))
    assert same(rounded, canny_view(gray.bfloat16().float()))


@few(12)
@given(st.integers(1, 24), st.integers(1, 24))
@example(1, 1)
@example(4, 24)
@example(5, 5)
def test_any_size_has_a_view(height, width):
    gray = torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(0))
    view = canny_view(gray)
    assert view.shape == (2, CANNY_VIEW_CHANNELS, height, width) and torch.isfinite(view).all()
    flat = canny_view(torch.full_like(gray, 0.4))
    assert not flat.any()


STEEP = np.tan(np.radians(22.5))
COMPASS = [  # x and y of the gradient, and where the neighbour before the pixel lies: down, right
    (1, 0, 0, -1), (-1, 0, 0, -1), (1, 0.99 * STEEP, 0, -1), (1, -0.99 * STEEP, 0, -1),
    (0, 1, -1, 0), (0, -1, -1, 0), (0.99 * STEEP, 1, -1, 0), (-0.99 * STEEP, 1, -1, 0),
    (1, 1, -1, -1), (-1, -1, -1, -1), (1, 1.01 * STEEP, -1, -1), (1.01 * STEEP, 1, -1, -1),
    (1, -1, -1, 1), (-1, 1, -1, 1), (1, -1.01 * STEEP, -1, 1), (-1.01 * STEEP, 1, -1, 1),
]  # fmt: skip


@pytest.mark.parametrize("x, y, down, right", COMPASS)
def test_neighbours_lie_along_the_gradient(x, y, down, right):
    strength = torch.rand(2, 1, 7, 9, generator=torch.Generator().manual_seed(0))
    gradient = torch.tensor([x, y], dtype=torch.float32).view(1, 2, 1, 1).expand(2, 2, 7, 9)
    before, after = neighbours(strength, gradient)
    padded = np.pad(strength.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    assert np.array_equal(before, padded[:, :, 1 + down : 8 + down, 1 + right : 10 + right])
    assert np.array_equal(after, padded[:, :, 1 - down : 8 - down, 1 - right : 10 - right])


# link


@pytest.mark.parametrize("reach", [0, 1, 3, 8, 32])
@pytest.mark.parametrize("diagonal", [False, True])
def test_link_reaches_so_many_px_and_no_further(reach, diagonal):
    weak = torch.eye(60)[None, None] if diagonal else torch.zeros(1, 1, 60, 60)
    if not diagonal:
        weak[..., 10, :] = 1
    strong = torch.zeros_like(weak)
    strong[..., 10, 10] = 1
    found = link(weak, strong, reach)
    column = torch.arange(60)
    assert same(found, weak * ((column - 10).abs() <= reach))
    assert reach != 32 or same(found, link(weak, strong))


def test_link_crosses_no_gap_and_needs_a_strong_ridge():
    weak = torch.zeros(2, 1, 5, 12)
    weak[0, 0, 2, :5] = weak[0, 0, 2, 6:] = weak[1, 0, 2] = 1
    strong = torch.zeros_like(weak)
    strong[0, 0, 2, 0] = 1
    found = link(weak, strong)
    assert found[0].sum() == 5 and found[0, 0, 2, :5].all()
    assert not found[1].any()  # the other picture of the batch lends nothing


@few(20)
@given(seeds, st.integers(1, 6))
def test_link_is_what_a_search_finds(seed, reach):
    rng = np.random.default_rng(seed)
    weak = rng.random((14, 17)) < 0.35
    strong = weak & (rng.random(weak.shape) < 0.08)
    wanted = strong
    for _ in range(reach):
        wanted = (cv2.dilate(wanted.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & weak
    found = link(*(torch.from_numpy(x)[None, None].float() for x in (weak, strong)), reach)
    assert np.array_equal(found[0, 0].numpy() > 0, wanted)


# thin


@directions
def test_a_line_of_one_pixel_stays_to_its_ends(direction):
    line = strip([0.8], direction)
    assert same(thin(line), line)
    assert same(crest(line) > 0, line > 0)


@directions
@pytest.mark.parametrize("sixteenths", [[8, 14, 8], [9, 9, 9], [4, 9, 14, 9, 4]])
def test_a_ridge_of_several_pixels_becomes_its_crest(direction, sixteenths):
    profile = [value / 16 for value in sixteenths]  # so that no blur is rounded
    line, ridge = strip([max(profile)], direction), strip(profile, direction)
    assert same(thin(ridge), torch.where(line > 0, ridge, BESIDE * ridge))
    assert same(thin(ridge) > 0.5, line > 0)


@directions
@pytest.mark.parametrize("profile", [[0.6, 0.8, 0.55], [0.2, 0.55, 0.9, 0.6, 0.2]])
def test_an_uneven_ridge_becomes_its_crest_too(direction, profile):
    """If it is slanted a second line may stay beside: across it, each pixel's neighbours are two lines away."""
    line, thinned = strip([max(profile)], direction) > 0, thin(strip(profile, direction)) > 0.5
    assert thinned[line].all()
    assert thinned.sum() <= (1 if direction in ("horizontal", "vertical") else 2) * line.sum()


@pytest.mark.parametrize("turns", range(4))
def test_a_line_along_the_border_is_a_line(turns):
    ridge = torch.zeros(1, 1, 9, 9)
    ridge[..., 0, :], ridge[..., 1, :] = 0.9, 0.6
    ridge = ridge.rot90(turns, (2, 3))
    assert same(thin(ridge) > 0.5, ridge > 0.7)


@few(10)
@given(st.integers(0, 15), st.integers(1, 9), st.integers(1, 9))
def test_a_flat_map_holds_no_line(sixteenths, height, width):
    flat = torch.full((1, 1, height, width), sixteenths / 16)  # so that no blur is rounded
    assert same(thin(flat), BESIDE * flat)


@few(20)
@given(st.integers(1, 20), st.integers(1, 20), seeds)
def test_a_value_is_the_map_s_own_on_a_crest_and_four_fifths_beside_it(height, width, seed):
    probability = torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(seed))
    thinned = thin(probability)
    assert same(thinned, torch.where(crest(probability) > 0, probability, BESIDE * probability))
    assert height * width < 9 or (thinned == probability).any()


def test_thinning_brings_an_unsure_map_nearer_to_the_lines(grays):
    """A true edge map, blurred as an unsure network would draw it."""
    wanted = np.stack([true_edges(gray) for gray in grays])
    unsure = np.stack([2.4 * cv2.GaussianBlur(edges.astype(np.float32), (0, 0), 1.2) for edges in wanted]).clip(0, 1)
    thinned = thin(torch.from_numpy(unsure)[:, None])[:, 0].numpy()
    assert f1(thinned > 0.5, wanted) > f1(unsure > 0.5, wanted) + 0.05


def test_thinning_treats_each_picture_by_itself():
    probability = torch.rand(3, 1, 16, 20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(thin(probability), torch.cat([thin(picture[None]) for picture in probability]))
