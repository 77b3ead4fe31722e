"""samples.py: the stream depends on its seed alone, and a stage's input never on what lies in the hole."""

import cv2
import numpy as np
import pytest
import torch
from helpers import BOTH_HOMES, blob_mask, few, noise_photo, run_python, same, shapes_photo, with_noise_in_hole
from hypothesis import given
from hypothesis import strategies as st

from edgeconnect_lite.edges import known_edges, to_gray, true_edges
from edgeconnect_lite.masks import RandomMasks
from edgeconnect_lite.photos import FacePhotos
from edgeconnect_lite.samples import (
    MixedPhotos,
    Sample,
    Samples,
    batches,
    edge_stage_input,
    image_stage_input,
    iterate_samples,
    jitter_colours,
    make_sample,
    noised_edges,
    roughen_photo,
    shares,
)

seeds = st.integers(0, 2**16)


class Numbered:
    """Photos that carry their number in every pixel of the upper half; the lower half has a dark left side."""

    def __init__(self, count: int, size: int = 16):
        self.photos = np.zeros((count, size, size, 3), np.uint8)
        for i, photo in enumerate(self.photos):
            photo[: size // 2] = i
            photo[size // 2 :, size // 2 :] = 255

    def __len__(self):
        return len(self.photos)

    def __getitem__(self, index):
        return self.photos[index]


class LeftHole:
    """Always the same hole, at the left."""

    def draw(self, rng):
        mask = np.zeros((16, 16), bool)
        mask[2:6, 1:5] = True
        return mask


def number_of(sample):
    return round(float(sample.photo[0, 0, 0]) * 255)


def mirrored(sample):
    return bool(sample.photo[0, -1, 0] > 0.5)


def equal_samples(a, b):
    return all(same(x, y) for x, y in zip(a, b))


# one sample


@few(20)
@given(st.integers(8, 70), st.integers(8, 70), seeds)
def test_a_sample_holds_the_photo_its_gray_and_its_edges(height, width, seed):
    photo, mask = shapes_photo(height, width, seed), blob_mask(height, width, seed)
    sample = make_sample(photo, mask)
    assert [tuple(part.shape) for part in sample] == [(3, height, width)] + 4 * [(1, height, width)]
    assert all(part.dtype == torch.float32 and part.is_contiguous() for part in sample)
    assert np.array_equal(sample.photo.numpy(), photo.transpose(2, 0, 1).astype(np.float32) / 255)
    assert np.array_equal(sample.gray[0].numpy(), to_gray(photo).astype(np.float32) / 255)
    assert np.array_equal(sample.mask[0].numpy(), mask)
    assert np.array_equal(sample.edges[0].numpy(), true_edges(photo))
    assert np.array_equal(sample.known_edges[0].numpy(), known_edges(photo, mask))


def test_a_sample_s_canny_thresholds_are_parameters():
    photo, mask = FacePhotos("test")[0], blob_mask(128, 128)
    sample = make_sample(photo, mask, 60, 140)
    assert np.array_equal(sample.edges[0].numpy(), true_edges(photo, 60, 140))
    assert np.array_equal(sample.known_edges[0].numpy(), known_edges(photo, mask, 60, 140))


@few(20)
@given(st.integers(8, 70), st.integers(8, 70), seeds)
def test_the_stages_inputs_do_not_depend_on_the_hole(height, width, seed):
    photo, mask = shapes_photo(height, width, seed), blob_mask(height, width, seed)
    clean, noisy = make_sample(photo, mask), make_sample(with_noise_in_hole(photo, mask), mask)
    assert same(edge_stage_input(clean), edge_stage_input(noisy))
    assert same(image_stage_input(clean, clean.known_edges), image_stage_input(noisy, noisy.known_edges))


def test_the_stages_inputs_are_in_the_documented_order():
    sample = next(iter(batches(Samples(FacePhotos("test", 64), RandomMasks("brush", 64)), 3, 1)))
    hole = sample.mask.bool()
    first = edge_stage_input(sample)
    assert first.shape == (3, 3, 64, 64)
    assert (first[:, :1][hole] == 0).all() and same(first[:, :1][~hole], sample.gray[~hole])
    assert same(first[:, 1:2], sample.known_edges) and same(first[:, 2:], sample.mask)
    edges = torch.rand(3, 1, 64, 64)
    second = image_stage_input(sample, edges)
    assert second.shape == (3, 5, 64, 64)
    wide = hole.expand(-1, 3, -1, -1)
    assert (second[:, :3][wide] == 0).all() and same(second[:, :3][~wide], sample.photo[~wide])
    assert same(second[:, 3:4], edges) and same(second[:, 4:], sample.mask)
    single = Sample(*(part[0] for part in sample))  # without a batch axis, as the loops' inspection uses them
    assert same(edge_stage_input(single), first[0]) and same(image_stage_input(single, edges[0]), second[0])


# noised edges


def test_noised_edges_lie_within_two_deviations_of_the_real_ones():
    edges = (torch.rand(4, 1, 100, 100, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    noised = noised_edges(edges, torch.Generator().manual_seed(1))
    off, on = noised[edges == 0], noised[edges == 1]
    assert noised.shape == edges.shape and noised.dtype == edges.dtype
    assert off.min() >= 0 and 0.19 < off.max() <= 0.2 + 1e-6
    assert 0.8 - 1e-6 <= on.min() < 0.81 and on.max() <= 1
    wanted = 0.1 * 2 * (0.398942 - 0.053991) / 0.954500  # E|z| of a normal cut at 2: 2 (phi(0) - phi(2)) / P(|z| < 2)
    assert off.mean().item() == pytest.approx(wanted, rel=0.03)
    assert 1 - on.mean().item() == pytest.approx(wanted, rel=0.03)


def test_noised_edges_are_seeded_and_scale_with_std():
    edges = torch.eye(32)[None, None]
    first, again, other = (noised_edges(edges, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert same(first, again) and not same(first, other)
    small = noised_edges(edges, torch.Generator().manual_seed(0), std=0.01)
    assert (small - edges).abs().max() <= 0.02 + 1e-6
    assert same(edges, torch.eye(32)[None, None])  # the caller's map is left alone


# jitter


@few(20)
@given(seeds, st.floats(0.01, 0.4))
def test_jitter_maps_every_level_of_a_channel_to_one_level_and_is_seeded(seed, strength):
    photo = noise_photo(40, 40, seed)
    result = jitter_colours(photo, np.random.default_rng(seed), strength)
    assert result.shape == photo.shape and result.dtype == np.uint8
    assert np.array_equal(result, jitter_colours(photo, np.random.default_rng(seed), strength))
    for channel in range(3):
        order = np.argsort(photo[..., channel], axis=None, kind="stable")
        before, after = photo[..., channel].ravel()[order].astype(int), result[..., channel].ravel()[order].astype(int)
        assert (np.diff(after)[np.diff(before) == 0] == 0).all()
        assert (np.diff(after) >= 0).all()


def test_jitter_stays_within_its_strength():
    gray = np.full((1, 1, 3), 128, np.uint8)
    levels = np.array([jitter_colours(gray, np.random.default_rng(seed), 0.2)[0, 0] for seed in range(300)], float)
    # contrast leaves mid-gray alone; brightness moves it by at most 25.5, and a channel's gain by at most 10 %
    assert levels.max() <= (128.5 + 25.5) * 1.1 + 1 and levels.min() >= (127.5 - 25.6) * 0.9 - 1
    assert abs(levels.mean() - 128) < 5 and levels.std() > 5
    assert np.array_equal(jitter_colours(noise_photo(8, 8), np.random.default_rng(0), 0.0), noise_photo(8, 8))


# roughness


@few(25)
@given(seeds, st.integers(8, 70), st.integers(8, 70))
def test_a_roughened_photo_is_seeded_and_a_photo_still(seed, height, width):
    photo = shapes_photo(height, width, seed)
    before = photo.copy()
    result = roughen_photo(photo, np.random.default_rng(seed))
    assert result.shape == photo.shape and result.dtype == np.uint8
    assert np.array_equal(result, roughen_photo(photo, np.random.default_rng(seed)))
    assert np.array_equal(photo, before) and not np.shares_memory(photo, result)


def test_the_jpeg_round_trip_keeps_red_and_blue_apart():
    flat = np.zeros((32, 32, 3), np.uint8)
    flat[:] = (200, 60, 30)
    for seed in range(40):
        red, green, blue = roughen_photo(flat, np.random.default_rng(seed)).reshape(-1, 3).mean(axis=0)
        assert red > green > blue - 3


def test_roughness_varies_and_a_face_stays_that_face():
    face = FacePhotos("test")[3]
    results = [roughen_photo(face, np.random.default_rng(seed)) for seed in range(40)]
    assert len({result.tobytes() for result in results}) == 40
    correlations = [np.corrcoef(to_gray(result).ravel(), to_gray(face).ravel())[0, 1] for result in results]
    assert min(correlations) > 0.8
    assert sum(correlation < 0.99 for correlation in correlations) >= 5


def test_some_roughened_photos_have_more_edges_and_some_have_fewer():
    """Texture, noise and sharpness add edges; blur takes some away."""
    face = FacePhotos("test")[3]
    count = true_edges(face).sum()
    ratios = [true_edges(roughen_photo(face, np.random.default_rng(seed))).sum() / count for seed in range(40)]
    assert min(ratios) < 0.8 and max(ratios) > 1.3


class Steps:
    """Stands for a random generator: every chance comes true or none does, every size is the middle one."""

    def __init__(self, chance):
        self.random = lambda: 0.0 if chance else 1.0
        self.uniform = lambda low, high: (low + high) / 2
        self.integers = lambda low, high: (low + high) // 2

    def normal(self, mean, deviation, shape=None):
        return mean if shape is None else np.random.default_rng(0).normal(mean, deviation, shape)


def test_without_luck_only_the_contrast_changes():
    photo = noise_photo(20, 20)
    wanted = np.clip(np.round((photo.astype(np.float32) - 127.5) * 1.15 + 127.5), 0, 255)
    assert np.abs(roughen_photo(photo, Steps(False)) - wanted).max() <= 1
    flat = np.full((20, 20, 3), 128, np.uint8)
    assert roughen_photo(flat, Steps(False)).std() == 0 and roughen_photo(flat, Steps(True)).std() > 2


def test_the_share_of_roughened_photos_is_as_asked_and_the_others_stay_as_they_are():
    faces, masks = FacePhotos("test", 64), RandomMasks("boxes", 64)
    plain, some = (Samples(faces, masks, seed=2, jitter=0, roughen=share) for share in (0.0, 0.25))
    stream = [(plain[k], some[k]) for k in range(200)]
    changed = [not same(a.photo, b.photo) for a, b in stream]
    assert 30 <= sum(changed) <= 70
    for (_, sample), is_changed in zip(stream[:60], changed):
        if is_changed:  # all of its parts are made from the roughened photo
            photo = (sample.photo * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
            assert equal_samples(make_sample(photo, sample.mask[0].bool().numpy()), sample)
    assert equal_samples(some[17], Samples(faces, masks, seed=2, jitter=0, roughen=0.25)[17])
    assert not any(
        same(Samples(faces, masks, seed=2, jitter=0, roughen=1.0)[k].photo, plain[k].photo) for k in range(20)
    )


# the stream


def test_every_photo_comes_once_an_epoch_in_a_new_order():
    samples = Samples(Numbered(20), LeftHole(), seed=3, flip=False, jitter=0)
    epochs = [[number_of(samples[20 * epoch + k]) for k in range(20)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert list(range(20)) not in epochs


def test_half_of_the_photos_are_mirrored_and_their_masks_are_not():
    samples = Samples(Numbered(10), LeftHole(), flip=True, jitter=0)
    stream = [samples[k] for k in range(200)]
    assert 70 < sum(mirrored(sample) for sample in stream) < 130
    for sample in stream[:30]:
        photo = Numbered(10)[number_of(sample)]
        photo = photo[:, ::-1] if mirrored(sample) else photo
        assert np.array_equal(sample.mask[0].numpy(), LeftHole().draw(None))
        assert np.array_equal(sample.photo.numpy(), photo.transpose(2, 0, 1).astype(np.float32) / 255)
        assert np.array_equal(sample.edges[0].numpy(), true_edges(np.ascontiguousarray(photo)))
    straight = Samples(Numbered(10), LeftHole(), flip=False, jitter=0)
    assert not any(mirrored(straight[k]) for k in range(50))


def test_photos_and_masks_are_paired_at_random():
    """One photo meets another mask in every epoch, and one epoch's masks all differ."""
    samples = Samples(Numbered(6), RandomMasks("boxes", 16), flip=False, jitter=0)
    seen = {}
    for k in range(30):
        seen.setdefault(number_of(samples[k]), []).append(samples[k].mask.numpy().tobytes())
    assert sorted(seen) == list(range(6))
    assert all(len(set(masks)) >= 4 for masks in seen.values())


def test_the_seed_decides_everything():
    faces = FacePhotos("test", 64)

    def stream(seed):
        samples = Samples(faces, RandomMasks("strokes", 64), seed=seed)
        return [samples[k] for k in (0, 1, 499, 500, 1700)]

    assert all(equal_samples(a, b) for a, b in zip(stream(0), stream(0)))
    assert not any(same(a.mask, b.mask) for a, b in zip(stream(0), stream(1)))
    assert sum(same(a.photo, b.photo) for a, b in zip(stream(0), stream(1))) == 0


def test_jitter_changes_the_photo_that_all_parts_are_made_from():
    faces, masks = FacePhotos("test", 64), RandomMasks("boxes", 64)
    sample, plain = Samples(faces, masks, jitter=0.15)[5], Samples(faces, masks, jitter=0)[5]
    assert not same(sample.photo, plain.photo)
    photo = (sample.photo * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    assert equal_samples(make_sample(photo, sample.mask[0].bool().numpy()), sample)


WORKERS = """
import cv2, numpy as np, torch
from edgeconnect_lite.masks import RandomMasks
from edgeconnect_lite.photos import FacePhotos
from edgeconnect_lite.samples import Sample, Samples, batches

cv2.setNumThreads(4)
cv2.GaussianBlur(np.zeros((2000, 2000), np.uint8), (0, 0), 2)  # OpenCV's threads exist now; a fork does not copy them
samples = Samples(FacePhotos("test", 64), RandomMasks(("strokes", "brush", "boxes"), 64), seed=7)
loose = [samples[k] for k in range(20)]
for workers in (0, 1, 2):
    stream = list(batches(samples, 4, 5, workers=workers))
    for i, batch in enumerate(stream):
        wanted = [torch.stack(parts) for parts in zip(*loose[4 * i : 4 * i + 4])]
        assert isinstance(batch, Sample) and all(map(torch.equal, batch, wanted)), (workers, i)
    print(workers, len(stream), *stream[0].photo.shape)
"""


def test_workers_change_no_bit(tmp_path):
    """In a process of its own: workers that hang must not take the other tests with them."""
    result = run_python(WORKERS, tmp_path, BOTH_HOMES, timeout=60)
    assert result.stdout.splitlines() == [f"{workers} 5 4 3 64 64" for workers in (0, 1, 2)], result.stderr
    assert result.returncode == 0


@pytest.mark.parametrize("start", [0, 1, 4, 6])
def test_a_resumed_stream_is_the_tail_of_the_whole(start):
    samples = Samples(Numbered(7), RandomMasks("boxes", 16), seed=1)
    whole, tail = (list(batches(samples, 3, 6, start=first)) for first in (0, start))
    assert len(tail) == 6 - start
    assert all(equal_samples(a, b) for a, b in zip(tail, whole[start:]))


def test_the_measuring_set_is_fixed():
    photos, masks = Numbered(9), RandomMasks("boxes", 16)
    first, again, other = (list(iterate_samples(photos, masks, seed)) for seed in (0, 0, 1))
    assert [number_of(sample) for sample in first] == list(range(9)) == [number_of(sample) for sample in other]
    assert not any(mirrored(sample) for sample in first)
    assert all(equal_samples(a, b) for a, b in zip(first, again))
    assert len({sample.mask.numpy().tobytes() for sample in first}) > 6
    shorter = list(iterate_samples(Numbered(4), masks, 0))
    assert all(equal_samples(a, b) for a, b in zip(shorter, first))  # a larger set keeps the pairs of a smaller one
    assert not all(same(a.mask, b.mask) for a, b in zip(first, other))


def test_opencv_s_threads_change_no_edge():
    photo, before = FacePhotos("test")[1], cv2.getNumThreads()
    try:
        maps = []
        for threads in (1, 2, 4):
            cv2.setNumThreads(threads)
            maps.append(make_sample(photo, blob_mask(128, 128)).known_edges)
    finally:
        cv2.setNumThreads(before)
    assert same(maps[0], maps[1]) and same(maps[0], maps[2])


# mixtures


class Marked:
    """Photos that show their number and whose they are."""

    def __init__(self, count, mark):
        self.count, self.mark = count, mark

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return np.full((16, 16, 3), (index // 256, index % 256, self.mark), np.uint8)


def drawn(mixed, start, count, seed=0):
    """(source, number) of samples start, start + 1, ..."""
    photos = [mixed[mixed.index_at(seed, k)][0, 0].tolist() for k in range(start, start + count)]
    return [(mark, 256 * high + low) for high, low, mark in photos]


def test_a_mixture_keeps_its_shares_and_shows_each_photo_once_an_epoch():
    mixed = MixedPhotos([Marked(300, 0), Marked(7, 1), Marked(2000, 2)], [1, 0.5, 2.5])
    shown = drawn(mixed, 0, 4000)
    for block in range(4):
        marks = [mark for mark, _ in shown[1000 * block : 1000 * block + 1000]]
        assert [marks.count(mark) for mark in range(3)] == [250, 125, 625]
    assert len({tuple(mark for mark, _ in shown[start : start + 10]) for start in range(0, 4000, 1000)}) == 4
    for mark, count in ((0, 300), (2, 2000)):  # epoch by epoch, but for the order within a block
        numbers = [number for source, number in shown if source == mark]
        repeats = np.bincount(numbers, minlength=count)
        assert repeats.min() >= len(numbers) // count and repeats.max() <= -(-len(numbers) // count)


def test_sample_k_of_a_mixture_is_a_function_of_seed_and_k():
    mixed = MixedPhotos([Marked(300, 0), Marked(50, 1)], [3, 1])
    shown = drawn(mixed, 0, 2500)
    fresh = MixedPhotos([Marked(300, 0), Marked(50, 1)], [3, 1])
    for k in (2400, 3, 1999, 2000, 0, 999, 1000):
        assert drawn(fresh, k, 1) == shown[k : k + 1]
    assert drawn(mixed, 0, 100, seed=1) != shown[:100]
    samples = Samples(mixed, RandomMasks("boxes", 16), seed=3)
    one, two = (next(iter(batches(samples, 4, 200, 150, workers))) for workers in (0, 2))
    assert all(map(torch.equal, one, two))


def test_a_mixture_is_one_source_after_the_other():
    mixed = MixedPhotos([Marked(3, 0), Marked(2, 1)], [1, 1])
    assert [mixed[i][0, 0, 1:].tolist() for i in range(5)] == [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1]]
    assert np.array_equal(mixed[-1], mixed[4]) and len(list(mixed)) == len(mixed) == 5
    with pytest.raises(IndexError):
        mixed[5]


@pytest.mark.parametrize("weights", [[1], [1, 0], [1, -1], [1, float("nan")], [1, float("inf")], [1, 1e-9]])
def test_a_mixture_needs_a_weight_for_each_source(weights):
    with pytest.raises(ValueError, match="weights are"):
        MixedPhotos([Marked(3, 0), Marked(2, 1)], weights)


@few(50)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=6), st.integers(0, 2000))
def test_shares_sum_up_and_are_near(weights, count):
    found = shares(weights, count)
    assert sum(found) == count
    assert all(abs(share - count * weight / sum(weights)) < 1 + 1e-6 for share, weight in zip(found, weights))
