"""metrics.py: by the formulas, on the hole and nowhere else."""

import cv2
import numpy as np
import pytest
import torch
from helpers import blob_mask, few, noise_photo, seeded, shapes_photo, with_noise_in_hole
from hypothesis import given
from hypothesis import strategies as st

from edgeconnect_lite.edges import true_edges
from edgeconnect_lite.metrics import (
    EdgeCounts,
    adherence,
    adherence_counts,
    bootstrap_interval,
    edge_counts,
    edge_effect,
    embed_faces,
    face_feature_distance,
    hole_l1,
    hole_psnr,
    hole_ssim,
    line_width,
    navier_stokes,
    precision_recall_f1,
    telea,
    width_counts,
)

seeds = st.integers(0, 2**16)
sides = st.integers(8, 40)


def case(height, width, seed):
    return noise_photo(height, width, seed), noise_photo(height, width, seed + 1), blob_mask(height, width, seed)


@few(25)
@given(sides, sides, seeds)
def test_l1_and_psnr_by_their_formulas(height, width, seed):
    result, photo, mask = case(height, width, seed)
    gaps = [int(result[i, j, c]) - int(photo[i, j, c]) for i, j in zip(*np.nonzero(mask)) for c in range(3)]
    assert hole_l1(result, photo, mask) == pytest.approx(sum(abs(gap) for gap in gaps) / len(gaps))
    assert edge_effect(result, photo, mask) == hole_l1(result, photo, mask)
    mean_square = sum(gap * gap for gap in gaps) / len(gaps)
    assert hole_psnr(result, photo, mask) == pytest.approx(10 * np.log10(255 * 255 / mean_square))


def test_a_mask_of_bytes_is_the_same_hole():
    result, photo, mask = case(40, 40, 3)
    edges, true, white = true_edges(result), true_edges(photo), mask.astype(np.uint8) * 255
    for metric in (hole_l1, hole_psnr, hole_ssim):
        assert metric(result, photo, white) == metric(result, photo, mask)
    for counts in (edge_counts, adherence_counts):
        assert np.array_equal(counts(edges, true, white), counts(edges, true, mask))
    assert np.array_equal(width_counts(edges, white), width_counts(edges, mask))
    assert np.array_equal(telea(photo, white), telea(photo, mask))


@pytest.mark.parametrize("metric", [hole_l1, hole_psnr, hole_ssim, edge_effect])
def test_what_cannot_be_compared_is_named(metric):
    result, photo, mask = case(40, 40, 3)
    with pytest.raises(
        ValueError, match=r"float64 \(40, 40, 3\) and uint8 \(40, 40, 3\) are to be compared; wanted uint8"
    ):
        metric(result / 255, photo, mask)
    with pytest.raises(ValueError, match=r"uint8 \(39, 40, 3\) and uint8"):
        metric(result[1:], photo, mask)
    with pytest.raises(ValueError, match="mask"):
        metric(result, photo, mask.astype(np.uint8))
    with pytest.raises(ValueError, match="the mask has no hole"):
        metric(result, photo, np.zeros_like(mask))


def test_a_picture_that_is_all_hole_can_be_compared():
    everywhere, edges = np.ones((8, 8), bool), np.eye(8, dtype=bool)
    assert edge_counts(edges, edges, everywhere).tolist() == [8, 8, 8, 8]


def test_probabilities_are_no_edges():
    mask = np.ones((8, 8), bool)
    mask[0] = False
    with pytest.raises(ValueError, match=r"float64 \(8, 8\) and bool \(8, 8\)"):
        edge_counts(np.full((8, 8), 0.7), mask, mask)


def test_known_values():
    photo, mask = np.full((8, 8, 3), 100, np.uint8), np.zeros((8, 8), bool)
    mask[2:4, 2:4] = True
    result = photo.copy()
    result[mask] = 110
    assert hole_l1(result, photo, mask) == hole_l1(photo, result, mask) == 10
    assert hole_psnr(result, photo, mask) == pytest.approx(28.1308036)  # 20 log10(25.5)
    assert hole_psnr(photo, photo, mask) == float("inf")
    assert hole_psnr(255 * (photo * 0 + 1), photo * 0, mask) == 0
    assert hole_ssim(photo, photo, mask) == pytest.approx(1)


@few(15)
@given(sides, sides, seeds)
def test_a_change_outside_the_hole_changes_nothing(height, width, seed):
    result, photo, mask = case(height, width, seed)
    elsewhere = np.where(mask[..., None], result, noise_photo(height, width, seed + 2))
    assert hole_l1(elsewhere, photo, mask) == hole_l1(result, photo, mask)
    assert hole_psnr(elsewhere, photo, mask) == hole_psnr(result, photo, mask)


def test_ssim_by_its_equation_on_one_pixel():
    result, photo = noise_photo(15, 15, 1), noise_photo(15, 15, 2) // 2
    result = (result // 4 + photo).astype(np.uint8)
    mask = np.zeros((15, 15), bool)
    mask[7, 7] = True
    scores = []
    for channel in range(3):
        x, y = (
            picture[4:11, 4:11, channel].astype(np.float64).ravel() for picture in (result, photo)
        )  # 7 x 7 around it
        (var_x, cov), (_, var_y) = np.cov(x, y)
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        luminance = (2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1)
        scores.append(luminance * (2 * cov + c2) / (var_x + var_y + c2))
    assert hole_ssim(result, photo, mask) == pytest.approx(np.mean(scores), rel=1e-9)


def test_ssim_averages_the_hole_and_does_not_see_far_changes():
    photo, mask = shapes_photo(64, 64), np.zeros((64, 64), bool)
    mask[20:30, 20:30] = True
    result = with_noise_in_hole(photo, mask)
    far = result.copy()
    far[40:] = noise_photo(24, 64)
    assert hole_ssim(far, photo, mask) == pytest.approx(hole_ssim(result, photo, mask), abs=1e-12)
    singles = []
    for i, j in zip(*np.nonzero(mask)):
        one = np.zeros_like(mask)
        one[i, j] = True
        if (i + j) % 5 == 0:
            singles.append((one, hole_ssim(result, photo, one)))
    some = np.any([one for one, _ in singles], axis=0)
    assert hole_ssim(result, photo, some) == pytest.approx(np.mean([score for _, score in singles]))
    assert -1 <= hole_ssim(result, photo, mask) < 0.5


# Telea, Navier-Stokes

CLASSICAL = pytest.mark.parametrize("fill, method", [(telea, cv2.INPAINT_TELEA), (navier_stokes, cv2.INPAINT_NS)])


@CLASSICAL
@few(10)
@given(height=sides, width=sides, seed=seeds)
def test_the_classical_methods_do_not_look_into_the_hole(fill, method, height, width, seed):
    photo, mask = shapes_photo(height, width, seed), blob_mask(height, width, seed)
    before = photo.copy()
    filled = fill(photo, mask)
    assert np.array_equal(filled[~mask], photo[~mask]) and np.array_equal(photo, before)
    assert np.array_equal(filled, fill(with_noise_in_hole(photo, mask), mask))


@CLASSICAL
def test_they_are_opencv_s_with_radius_3(fill, method):
    photo, mask = shapes_photo(50, 60), blob_mask(50, 60)
    blank = photo * ~mask[..., None]
    wanted = cv2.inpaint(blank, mask.astype(np.uint8) * 255, 3, method)
    assert np.array_equal(fill(photo, mask)[mask], wanted[mask])
    even = np.full((20, 20, 3), 90, np.uint8)
    hole = np.zeros((20, 20), bool)
    hole[5:15, 5:15] = True
    assert np.abs(fill(even, hole).astype(int) - 90).max() <= 3


def test_the_two_are_not_the_same():
    photo, mask = shapes_photo(50, 60), blob_mask(50, 60)
    assert not np.array_equal(telea(photo, mask), navier_stokes(photo, mask))


# edges


def line(*columns, size=8):
    edges = np.zeros((size, size), bool)
    edges[:, columns] = True
    return edges


def whole(size=8):
    return np.ones((size, size), bool)


def test_exact_edges():
    counts = EdgeCounts()
    counts.add(line(1, 2), line(2, 3, 4), whole())
    assert (counts.predicted, counts.true, counts.predicted_hits, counts.true_hits) == (16, 24, 8, 8)
    assert (counts.precision, counts.recall) == (1 / 2, 1 / 3)
    assert counts.f1 == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))


def test_edges_within_one_px():
    counts = EdgeCounts(tolerance=1)
    counts.add(line(1, 6), line(2, 4), whole())
    assert (counts.precision, counts.recall) == (1 / 2, 1 / 2)
    diagonal = EdgeCounts(tolerance=1)
    one, other = np.zeros((2, 8, 8), bool)
    one[3, 3] = other[4, 4] = True  # 1 px in either axis
    diagonal.add(one, other, whole())
    assert (diagonal.precision, diagonal.recall, diagonal.f1) == (1, 1, 1)
    other[4, 4], other[3, 5] = False, True
    far = EdgeCounts(tolerance=1)
    far.add(one, other, whole())
    assert (far.precision, far.recall, far.f1) == (0, 0, 0)


def test_an_edge_outside_the_hole_helps_nobody():
    mask = np.zeros((8, 8), bool)
    mask[:, 4:] = True
    counts = EdgeCounts(tolerance=1)
    counts.add(line(4), line(3), mask)  # the true line is 1 px away, but known already
    assert (counts.predicted, counts.true, counts.predicted_hits) == (8, 0, 0)
    counts = EdgeCounts(tolerance=1)
    counts.add(line(3), line(4), mask)
    assert (counts.predicted, counts.true, counts.true_hits) == (0, 8, 0)


@few(40)
@given(seeds, st.sampled_from([0, 1]))
def test_counts_by_brute_force(seed, tolerance):
    rng = np.random.default_rng(seed)
    predicted, true = rng.random((2, 9, 7)) < 0.2
    mask = rng.random((9, 7)) < 0.6

    def hits(some, others):
        found = 0
        for i, j in zip(*np.nonzero(some & mask)):
            near = [max(abs(i - k), abs(j - m)) <= tolerance for k, m in zip(*np.nonzero(others & mask))]
            found += any(near)
        return found

    counts = EdgeCounts(tolerance)
    counts.add(predicted, true, mask)
    wanted = ((predicted & mask).sum(), (true & mask).sum(), hits(predicted, true), hits(true, predicted))
    assert (counts.predicted, counts.true, counts.predicted_hits, counts.true_hits) == wanted


def test_counts_are_pooled_over_pictures_not_averaged():
    counts = EdgeCounts()
    counts.add(line(1), line(1), whole())  # 8 of 8
    counts.add(line(0, 1, 2, 3, size=12), line(0, size=12), whole(12))  # 12 of 48
    assert counts.precision == 20 / 56
    assert counts.recall == 1


def test_nothing_predicted_and_nothing_true_are_zero_not_nan():
    counts = EdgeCounts()
    assert (counts.precision, counts.recall, counts.f1) == (0, 0, 0)
    counts.add(line(), line(3), whole())
    assert (counts.precision, counts.recall, counts.f1) == (0, 0, 0)


def test_shares_of_many_sums_at_once_are_those_of_each():
    rows = np.random.default_rng(0).integers(1, 9, (5, 3, 4))
    rows[0, 0] = 0
    for place in np.ndindex(5, 3):
        counts = EdgeCounts(0, *rows[place].tolist())
        assert precision_recall_f1(rows)[place].tolist() == [counts.precision, counts.recall, counts.f1]


# line width


def test_line_width_is_1_for_one_pixel_and_2_for_two():
    for wide in (1, 2, 3):
        across = line(*range(10, 10 + wide), size=60)
        assert line_width(width_counts(across, whole(60))) == pytest.approx(wide, rel=0.06)
        assert line_width(width_counts(across.T, whole(60))) == pytest.approx(wide, rel=0.06)
    diagonal = np.eye(60, dtype=bool)
    assert line_width(width_counts(diagonal, whole(60))) == 1
    for two in (diagonal | np.eye(60, k=1, dtype=bool), (diagonal | np.eye(60, k=1, dtype=bool))[:, ::-1]):
        assert line_width(width_counts(two, whole(60))) == pytest.approx(2, rel=0.06)


def test_line_width_is_of_the_hole_and_thinning_sees_past_its_border():
    edges, mask = line(10, 11, size=60), np.zeros((60, 60), bool)
    mask[20:40] = True
    assert width_counts(edges, mask).tolist() == [40, 20]  # cut out first, its ends would be thinned away too
    assert line_width(width_counts(edges, np.zeros_like(mask))) == 0
    assert 1 <= line_width(width_counts(true_edges(shapes_photo(128, 128)), whole(128))) < 1.3


# adherence


def test_adherence_by_its_formula():
    given, result, mask = line(2, size=20), line(3, 12, size=20), np.zeros((20, 20), bool)
    mask[:, :10] = True
    counts = adherence_counts(given, result, mask)
    assert counts.tolist() == [20, 20, 60, 200]  # near: columns 2, 3, 4
    assert adherence(counts) == (1 - 0.3) / (1 - 0.3) == 1
    counts = adherence_counts(line(2, 7, size=20), result, mask)
    assert adherence(counts) == pytest.approx((0.5 - 0.3) / (1 - 0.3))
    far = adherence_counts(line(8, size=20), result, mask)
    assert adherence(far) == pytest.approx((0 - 0.3) / (1 - 0.3))
    assert adherence(np.stack([counts, far])).tolist() == [adherence(counts), adherence(far)]


def test_an_edge_of_the_result_beside_the_hole_counts_as_near():
    mask = np.zeros((8, 8), bool)
    mask[:, 4:] = True
    assert adherence_counts(line(4), line(3), mask).tolist() == [8, 8, 8, 32]


@pytest.mark.parametrize("density", [0.02, 0.1])
def test_edges_that_have_nothing_to_do_with_the_given_ones_are_at_0(density):
    rng, rows = np.random.default_rng(0), []
    for _ in range(60):
        given, result = rng.random((64, 64)) < 0.03, rng.random((64, 64)) < density
        rows.append(adherence_counts(given, result, whole(64)))
    total = np.sum(rows, axis=0)
    assert total[0] / total[1] > 5 * density  # the raw share flatters
    assert adherence(total) == pytest.approx(0, abs=0.03)


def test_no_given_edge_and_a_hole_full_of_edges_are_numbers():
    assert adherence(adherence_counts(line(), line(), whole())) == 0
    assert adherence(adherence_counts(line(1), whole(), whole())) == 0  # everything is near: nothing can be said


# intervals


def mean(sums):
    return sums[..., 0] / sums[..., 1]


def test_the_interval_of_a_mean_is_that_of_the_normal_law():
    values = np.random.default_rng(1).normal(5, 2, 400)
    low, high = bootstrap_interval(np.stack([values, np.ones(400)], 1), mean)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_the_interval_covers_the_truth_about_95_times_of_100():
    rng, covered = np.random.default_rng(2), 0
    for _ in range(200):
        values = rng.normal(0, 1, 60)
        low, high = bootstrap_interval(np.stack([values, np.ones(60)], 1), mean, resamples=300)
        covered += low <= 0 <= high
    assert 175 <= covered <= 199


def test_the_interval_of_pooled_f1_resamples_pictures():
    rng = np.random.default_rng(3)
    pairs = rng.random((30, 2, 16, 16)) < 0.3
    rows = np.array([edge_counts(a, b, whole(16), 1) for a, b in pairs])
    f1 = lambda counts: precision_recall_f1(counts)[..., 2]  # noqa: E731
    low, high = bootstrap_interval(rows, f1)
    again = np.random.default_rng(9)
    drawn = [f1(rows[again.integers(30, size=30)].sum(0)) for _ in range(2000)]  # by hand
    assert [low, high] == pytest.approx(np.percentile(drawn, (2.5, 97.5)), abs=0.2 * (high - low))
    assert low < f1(rows.sum(0)) < high
    assert bootstrap_interval(rows, f1) == (low, high) != bootstrap_interval(rows, f1, seed=1)
    assert bootstrap_interval(rows[:1], f1) == (f1(rows[0]), f1(rows[0]))


# sets of pictures


def test_face_feature_distances_of_normal_samples_are_those_of_the_formulas():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(800, 3, generator=generator)
    b = torch.randn(800, 3, generator=generator) * torch.tensor([1.0, 2.0, 1.0]) + torch.tensor([1.0, 0.0, 0.0])
    found = face_feature_distance(a, b)
    assert found["frechet"] == pytest.approx(1 + (2 - 1) ** 2, rel=0.2)  # |mean|^2 + (sigma - sigma')^2, axis by axis
    kernel = lambda x, y: (x @ y.T / 3 + 1) ** 3  # noqa: E731
    n = len(a)
    inside = [((k := kernel(x, x)).sum() - k.trace()) / (n * (n - 1)) for x in (a, b)]
    assert found["kernel"] == pytest.approx((sum(inside) - 2 * kernel(a, b).mean()).item(), rel=1e-2)


def test_a_set_is_at_distance_0_from_itself_and_from_its_shuffle():
    a = seeded(50, 8)
    found = face_feature_distance(a, a.flip(0))
    assert found["frechet"] == pytest.approx(0, abs=1e-4) and found["kernel"] <= 0


@pytest.mark.parametrize("sizes", [(1, 5), (5, 1)])
def test_too_small_sets_are_refused(sizes):
    with pytest.raises(ValueError, match="wanted at least two each"):
        face_feature_distance(*(torch.zeros(n, 4) for n in sizes))
    with pytest.raises(ValueError, match="no picture"):
        embed_faces([])


def test_faces_of_any_size_are_embedded():
    rows = embed_faces([noise_photo(64, 64), noise_photo(128, 100)])
    assert rows.shape == (2, 192) and torch.isfinite(rows).all()
