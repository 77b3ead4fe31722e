"""Large photos: the levels, the windows, lines at other sizes, bounded time and memory, and that coarse to fine is better."""

import os
import sys
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from helpers import BOTH_HOMES, few, run_python, save, shapes_photo, tiny_inpainter, with_noise_in_hole
from hypothesis import given
from hypothesis import strategies as st

from edgeconnect_lite import FacePhotos, Inpainter, box_mask, stroke_mask
from edgeconnect_lite.cli import main
from edgeconnect_lite.generators import EdgeGenerator, ImageGenerator
from edgeconnect_lite.large import (
    MOST,
    RIM,
    blend,
    cells,
    depth,
    enlarge_edges,
    octaves,
    pyramid,
    shrink,
    shrink_edges,
    windows,
)
from edgeconnect_lite.metrics import hole_psnr
from edgeconnect_lite.weights import BadWeights, save_network


@pytest.fixture(scope="module")
def tiny():
    return tiny_inpainter()


@pytest.fixture(scope="module")
def shipped():
    return Inpainter.from_pretrained(device="cpu")


def box(shape, top, left, height, width):
    mask = np.zeros(shape, bool)
    mask[top : top + height, left : left + width] = True
    return mask


# levels


@pytest.mark.parametrize("shape, wanted", [
    ((128, 128), [(128, 128)]), ((40, 90), [(40, 90)]), ((150, 200), [(150, 200)]), ((160, 160), [(128, 128), (160, 160)]),
    ((256, 256), [(128, 128), (256, 256)]), ((300, 600), [(128, 256), (300, 600)]),
    ((512, 640), [(128, 160), (256, 320), (512, 640)]),
    ((3000, 4000), [(128, 171), (256, 341), (512, 683), (1024, 1365), (2048, 2731), (3000, 4000)]),
])  # fmt: skip
def test_octaves_go_from_the_networks_size_to_the_photos(shape, wanted):
    assert octaves(shape, 128) == wanted


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([32, 64, 128, 256, 512]))
@few(100)
def test_no_step_between_octaves_is_larger_than_enlarge_edges_takes(height, width, size):
    shapes = octaves((height, width), size)
    assert shapes[-1] == (height, width)
    for small, large in pairwise(shapes):
        assert 1.2 < min(large) / min(small) < 2.5
    assert len(shapes) == 1 or min(shapes[0]) == size


def test_a_shallow_hole_is_painted_at_full_size_and_a_deep_one_begins_small():
    photo = shapes_photo(512, 640)
    shallow = pyramid(photo, box((512, 640), 100, 100, 12, 300), 128)
    assert [level.mask.shape for level in shallow] == [(512, 640)] and (shallow[0].wanted == shallow[0].mask).all()
    deep = pyramid(photo, box((512, 640), 100, 100, 300, 300), 128)
    assert [level.mask.shape for level in deep] == [(128, 160), (256, 320), (512, 640)]
    middle = pyramid(photo, box((512, 640), 100, 100, 30, 300), 128)
    assert [level.mask.shape for level in middle] == [(256, 320), (512, 640)]
    for first, *finer in (deep, middle):
        assert (first.wanted == first.mask).all()
        for level in finer:
            assert (
                level.wanted == (level.mask & (depth(level.mask) <= RIM))
            ).all() and level.wanted.sum() < level.mask.sum()


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1))
@few(25)
def test_shrinking_takes_the_mean_of_known_pixels(height, width, seed):
    rng = np.random.default_rng(seed)
    photo = rng.integers(0, 256, (2 * height, 2 * width, 3), dtype=np.uint8)
    mask = rng.random((2 * height, 2 * width)) < 0.4
    small, hole = shrink(photo, mask, (height, width))
    blocks = lambda x: x.reshape(height, 2, width, 2, -1).astype(float).sum((1, 3))  # noqa: E731
    known = blocks(~mask)[..., 0]
    assert np.array_equal(hole, known < 2)
    mean = blocks(photo * ~mask[..., None]) / np.maximum(known, 1)[..., None]
    assert np.abs(small - mean)[~hole].max(initial=0) < 0.51 and (small[hole] == 0).all()


# windows


@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from([32, 128]), st.integers(0, 2**32 - 1))
@few(60)
def test_windows_hold_all_that_is_wanted_with_known_pixels_around_it(height, width, size, seed):
    rng = np.random.default_rng(seed)
    wanted = np.zeros((height, width), bool)
    for _ in range(rng.integers(1, 6)):
        y, x = rng.integers(height), rng.integers(width)
        wanted[y : y + rng.integers(1, 60), x : x + rng.integers(1, 60)] = True
    covered, middle = np.zeros((height, width), bool), np.zeros((height, width), bool)
    for rows, columns in windows(wanted, size):
        covered[rows, columns] = True
        inner = [slice(part.start + size // 8 * (part.start > 0), part.stop - size // 8 * (part.stop < side))
                 for part, side in zip((rows, columns), (height, width))]  # fmt: skip
        middle[tuple(inner)] = True
    assert covered[wanted].all() and middle[wanted].all()


def test_a_small_part_has_one_window_around_it_and_parts_far_apart_have_their_own():
    assert windows(box((1000, 1000), 500, 300, 20, 40), 128) == [(slice(446, 574), slice(256, 384))]
    corners = box((1000, 1000), 0, 0, 9, 9) | box((1000, 1000), 991, 991, 9, 9)
    assert windows(corners, 128) == [(slice(0, 128), slice(0, 128)), (slice(872, 1000), slice(872, 1000))]
    assert windows(box((128, 1024), 60, 0, 9, 9), 128) == [
        (slice(0, 128), slice(0, 1024))
    ]  # the networks' scale: whole
    assert len(windows(box((1000, 1000), 0, 0, 1000, 1000), 128)) == 121
    assert len(windows(np.zeros((1000, 1000), bool), 128)) == 1


def test_blending_what_all_windows_agree_on_changes_nothing():
    mask = box((300, 400), 40, 60, 200, 300)
    mask[0, 0] = True
    level = pyramid(np.zeros((300, 400, 3), np.uint8), mask, 64)[-1]
    picture = np.random.default_rng(0).random((2, 300, 400)).astype(np.float32)
    blended = blend(level, lambda window: picture[:, *window])
    np.testing.assert_allclose(blended[:, level.wanted], picture[:, level.wanted], atol=1e-6)
    assert len(level.windows) > 10


def test_too_many_windows_leave_the_finest_levels_out():
    scattered = np.zeros((2000, 2000), bool)
    scattered[::50, ::50] = True  # dust: 1600 parts, each would have a window of its own
    levels = pyramid(np.zeros((2000, 2000, 3), np.uint8), scattered, 32)
    assert all(len(level.windows) <= MOST for level in levels) and levels[-1].mask.shape[0] < 2000
    tall = pyramid(np.zeros((2000, 2000, 3), np.uint8), box((2000, 2000), 0, 500, 2000, 1000), 32)
    assert len(tall) > 3 and len(tall[-1].windows) <= MOST and tall[-1].mask.shape[0] < 2000


# edges at other sizes


@pytest.mark.parametrize("factor", [1, 1.5, 2, 3.7, 8, 20])
@pytest.mark.parametrize("width", [1, 3])
def test_a_drawn_line_is_neither_lost_nor_broken_when_it_shrinks(factor, width):
    side = round(64 * factor)
    for angle in np.linspace(0, np.pi, 23):
        lines = np.zeros((side, side), np.uint8)
        arm = 0.45 * side * np.array([np.cos(angle), np.sin(angle)])
        ends = np.round(side / 2 + np.outer((-1, 1), arm)).astype(np.int32)
        cv2.polylines(lines, [ends], False, 1, width)
        small = shrink_edges(lines > 0, (64, 64))
        assert (
            small.sum() >= 54 * max(abs(np.cos(angle)), abs(np.sin(angle)))
            and cv2.connectedComponents(small.view(np.uint8))[0] == 2
        )
        assert small.sum() <= (1.5 * width / factor + 2) * 64  # and stays thin


@pytest.mark.parametrize("shape", [(128, 128), (64, 64), (150, 100), (129, 257), (500, 311)])
def test_lines_stay_thin_connected_and_in_their_places_when_they_grow(shape):
    small = np.zeros((64, 64), np.float32)
    cv2.line(small, (3, 5), (60, 30), 0.9, 1)
    cv2.line(small, (50, 2), (10, 61), 0.7, 1)
    small[small == 0] = 0.4
    large = enlarge_edges(small, shape, 0.5)
    lines = large > 0.5
    assert large.shape == shape and large.max() == np.float32(0.9) and 0.3 < np.median(large) < 0.41
    assert (
        cv2.connectedComponents(lines.view(np.uint8))[0]
        == cv2.connectedComponents((small > 0.5).view(np.uint8))[0]
        == 2
    )
    assert lines.sum() <= 1.5 * max(np.divide(shape, 64)) * (small > 0.5).sum()
    back = shrink_edges(lines, (64, 64))
    assert not (back & ~(cv2.dilate((small > 0.5).view(np.uint8), np.ones((3, 3), np.uint8)) > 0)).any()
    assert (back & (small > 0.5)).sum() > 0.9 * (small > 0.5).sum()


def test_specks_smaller_than_half_a_cell_are_no_lines():
    specks = np.zeros((640, 640), bool)
    specks[::10, 5], specks[300, 300:304] = True, True
    specks[100:140, 400] = True
    assert np.argwhere(shrink_edges(specks, (64, 64))).tolist() == [[y, 40] for y in range(10, 14)]


def test_an_area_grows_to_an_area_and_cells_are_even():
    small = np.zeros((20, 20), np.float32)
    small[5:10, 5:10] = 1
    assert (enlarge_edges(small, (40, 40), 0.5) > 0.5)[11:19, 11:19].all()
    rows, columns = cells((10, 6), (5, 3))
    assert rows[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4] and columns[0].tolist() == [0, 0, 1, 1, 2, 2]


# the whole line


@pytest.mark.parametrize("height, width", [(200, 260), (65, 400), (257, 90)])
def test_large_photos_keep_known_pixels_and_their_edges_make_the_same_picture(tiny, height, width):
    photo = shapes_photo(height, width)
    mask = box((height, width), 10, 20, height // 2, width // 3) | box((height, width), height - 9, 0, 9, width // 2)
    result, edges = tiny(photo, mask), tiny.predict_edges(photo, mask)
    assert np.array_equal(result[~mask], photo[~mask]) and not np.array_equal(result[mask], photo[mask])
    assert edges.shape == mask.shape and edges.dtype == np.float32 and edges.min() >= 0 and edges.max() <= 1
    assert np.array_equal(tiny(photo, mask, edges), result)
    noisy = with_noise_in_hole(photo, mask)
    assert np.array_equal(tiny.predict_edges(noisy, mask), edges) and np.array_equal(tiny(noisy, mask), result)


def test_arrays_in_any_order_of_memory(tiny):
    photo, mask = shapes_photo(90, 120), box((90, 120), 20, 30, 40, 50)
    turned = tiny(photo[::-1, ::-1].transpose(1, 0, 2), mask[::-1, ::-1].T)
    again = tiny(np.ascontiguousarray(photo[::-1, ::-1].transpose(1, 0, 2)), np.ascontiguousarray(mask[::-1, ::-1].T))
    assert turned.shape == (120, 90, 3) and np.array_equal(turned, again)


def test_proposals_of_a_large_photo_differ_and_are_seeded(tiny):
    photo, mask = shapes_photo(200, 260), box((200, 260), 40, 40, 90, 120)
    proposals = tiny.propose_edges(photo, mask, n=3, seed=5)
    assert proposals.shape == (3, 200, 260) and np.array_equal(proposals, tiny.propose_edges(photo, mask, n=3, seed=5))
    assert not np.array_equal(proposals[0][mask], proposals[1][mask])
    whole = np.zeros((200, 260), bool)
    assert np.array_equal(tiny.propose_edges(photo, whole, n=2), np.stack(2 * [tiny.predict_edges(photo, whole)]))


def test_a_line_drawn_in_a_large_hole_is_obeyed(shipped):
    photo, mask = np.full((300, 300, 3), 128, np.uint8), box((300, 300), 60, 60, 180, 180)
    edges = np.zeros((300, 300), bool)
    without = shipped(photo, mask, edges)
    edges[150, 80:220] = True
    moved = np.abs(shipped(photo, mask, edges).astype(int) - without).sum(2)
    assert moved[135:166, 90:210].mean() > 3 * moved[65:110, 70:230].mean() and moved[150, 90:210].min() > 0


def test_the_shipped_networks_paint_a_larger_face_better_from_coarse_to_fine(shipped):
    """Against the same networks at 128 px with what they paint enlarged, on the hole."""
    gains = []
    for seed, draw in enumerate((stroke_mask, box_mask)):
        face = cv2.resize(FacePhotos("test")[40 + seed], (256, 256), interpolation=cv2.INTER_CUBIC)
        mask = draw(np.random.default_rng(seed), 256, (0.1, 0.2))
        small = shipped(*shrink(face, mask, (128, 128)))
        coarse = np.where(mask[..., None], cv2.resize(small, (256, 256)), face)
        gains.append(hole_psnr(shipped(face, mask), face, mask) - hole_psnr(coarse, face, mask))
    assert min(gains) > 0.1


MEMORY = """
import resource, sys
import numpy as np, torch
from edgeconnect_lite import Inpainter
from edgeconnect_lite.generators import EdgeGenerator, ImageGenerator
inpainter = Inpainter(EdgeGenerator(4, 8, 1, decision=4), ImageGenerator(4, 8, 1), device="cpu")
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "linux" else 2**20)
photo, mask = np.zeros((1500, 2000, 3), np.uint8), np.zeros((1500, 2000), bool)
small = np.s_[:128, :160]
mask[10:60, 10:60] = True
inpainter(photo[small], mask[small])
before = peak()
mask[:, 400:1100] = True
photo[~mask] = 99
result = inpainter(photo, mask)
assert np.array_equal(result[~mask], photo[~mask])
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no CUDA GPU or resource module there")
def test_memory_is_bounded(tmp_path):
    """3 megapixels, a third of them a hole of full height: a quarter of 12, which may take 1.2 GB beside Python and torch."""
    done = run_python(MEMORY, tmp_path, BOTH_HOMES, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300  # MB


# the size that networks were trained at


@pytest.mark.parametrize("size", [64, 96, 128, 256, 512])
def test_train_at_a_size_and_inpaint_at_it(size, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(3):
        save(tmp_path / f"photos/{i}.png", shapes_photo(140, 150, seed=i))
    words = ["--out", "run", "--photos", "photos", "--size", str(size), "--steps", "1", "--batch-size", "1",
             "--validation", "1", "--width", "4", "--bottom", "8", "--blocks", "1", "--threads", "1"]  # fmt: skip
    main(["train", "edge", *words, "--decision", "4"])
    main(["train", "image", *words, "--adversarial-weight", "0", "--feature-matching-weight", "0", "--perceptual-weight", "0",
          "--style-weight", "0"])  # fmt: skip
    inpainter = Inpainter.from_pretrained("run", device="cpu")
    assert inpainter.size == size
    seen = []
    inpainter.image_generator.register_forward_hook(lambda module, given, output: seen.append(tuple(output.shape[-2:])))
    photo, mask = (
        shapes_photo(2 * size, 2 * size),
        box((2 * size, 2 * size), size // 2, size // 2, size // 2, size // 4),
    )
    result = inpainter(photo, mask)
    assert np.array_equal(result[~mask], photo[~mask]) and set(seen) == {(size, size)}


@pytest.mark.parametrize("stage", ["edge", "image"])
@pytest.mark.parametrize("size, wanted", [
    (100, "size is 100; wanted at least 32 px and a multiple of 8"), (24, "size is 24; wanted at least 32 px"),
    (-64, "size is -64; wanted at least 32"), (256, "size is 256; the shipped faces come at 64 or 128 px"),
])  # fmt: skip
def test_other_sizes_are_an_error_before_any_work(stage, size, wanted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=wanted):
        main(["train", stage, "--out", "run", "--size", str(size), "--steps", "1"])
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "said",
    [{"edge_generator": 64, "image_generator": 96}, {"edge_generator": "64 px"}, {"image_generator": "9" * 5000}],
)
def test_two_stages_of_different_sizes_are_an_error(said, tmp_path):
    torch.manual_seed(0)
    for name, network in (
        ("edge_generator", EdgeGenerator(4, 8, 1, decision=4)),
        ("image_generator", ImageGenerator(4, 8, 1)),
    ):
        save_network(network, tmp_path / name, said.get(name))
    wanted = "at 64 px and image_generator at 96 px; wanted two stages" if len(said) == 2 else "wanted 10 to 9999"
    with pytest.raises(BadWeights, match=wanted):
        Inpainter.from_pretrained(tmp_path)
    assert Inpainter.from_pretrained(tmp_path, size=64).size == 64
