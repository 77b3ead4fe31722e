"""masks.py: a drawn mask is seeded, never empty, never full and in its ratio; a mask from outside is checked."""

import warnings

import cv2
import numpy as np
import pytest
from helpers import few, save
from hypothesis import given
from hypothesis import strategies as st

from edgeconnect_lite.masks import (
    BINS,
    KINDS,
    BadMask,
    BrokenMaskWarning,
    MaskFolder,
    MaskPolarityWarning,
    RandomMasks,
    as_mask,
    box_mask,
    brush_mask,
    read_mask,
    stroke_mask,
)

seeds = st.integers(0, 2**32 - 1)


def box_around(mask):
    """The smallest box that holds the hole."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


# drawn masks


def test_the_bins_are_the_six_tens_up_to_sixty_percent():
    assert np.allclose(BINS, [(k / 10, (k + 1) / 10) for k in range(6)])
    assert set(KINDS) == {"strokes", "brush", "boxes"}


@pytest.mark.parametrize("ratio", BINS)
@pytest.mark.parametrize("kind", ["strokes", "brush", "boxes"])
def test_every_kind_reaches_every_bin(kind, ratio):
    shares = []
    for seed in range(4):
        for size in (64, 128):
            mask = RandomMasks(kind, size, ratio).draw(np.random.default_rng(seed))
            assert mask.shape == (size, size) and mask.dtype == np.bool_
            assert ratio[0] <= mask.mean() <= ratio[1]
            assert 0 < mask.sum() < mask.size
            shares.append(mask.mean())
    assert max(shares) - min(shares) > 0.01  # the whole bin, not one end of it


@few(25)
@given(seeds, st.sampled_from(["strokes", "brush", "boxes"]), st.sampled_from([32, 64, 100, 128, 256]))
def test_without_a_ratio_a_mask_is_never_empty_never_full_and_seeded(seed, kind, size):
    source = RandomMasks(kind, size)
    mask = source.draw(np.random.default_rng(seed))
    assert mask.shape == (size, size) and mask.dtype == np.bool_
    assert 0 < mask.sum() < mask.size
    assert np.array_equal(mask, source.draw(np.random.default_rng(seed)))


@few(15)
@given(seeds, st.sampled_from(["strokes", "brush", "boxes"]), st.floats(0, 0.6), st.floats(0.05, 0.3))
def test_any_ratio_is_reached(seed, kind, low, width):
    high = min(low + width, 1.0)
    mask = KINDS[kind](np.random.default_rng(seed), 64, (low, high))
    assert low <= mask.mean() <= high
    assert np.array_equal(mask, KINDS[kind](np.random.default_rng(seed), 64, (low, high)))


@pytest.mark.parametrize("draw", [stroke_mask, brush_mask, box_mask])
def test_masks_of_one_stream_differ(draw):
    rng = np.random.default_rng(0)
    assert len({draw(rng, 64).tobytes() for _ in range(20)}) == 20


def test_strokes_are_thin_and_few():
    """Four strokes of about 10 px x 1.25 at 512 px, none longer than a few widths of the canvas: some percent each."""
    masks = [stroke_mask(np.random.default_rng(seed)) for seed in range(150)]
    shares = np.array([mask.mean() for mask in masks])
    assert 0.04 < shares.mean() < 0.2
    assert shares.max() < 0.5
    thickest = [cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5).max() for mask in masks]
    assert (
        np.median(thickest) < 6
    )  # 15 x 1.5 px at 512 is 5.6 px at 128: half of it from a stroke's middle, crossings more


def test_a_brush_is_wider_than_a_stroke():
    """12 px at 256 px are 6 px at 128 px: about 3 px from a line's middle to its border, and more where lines overlap."""
    widest = {}
    for kind in ("strokes", "brush"):
        masks = [RandomMasks(kind).draw(np.random.default_rng(seed)).astype(np.uint8) for seed in range(60)]
        widest[kind] = np.array([cv2.distanceTransform(mask, cv2.DIST_L2, 5).max() for mask in masks])
    assert widest["brush"].min() > 2.5
    assert np.median(widest["brush"]) > 2 * np.median(widest["strokes"])


@few(20)
@given(seeds)
def test_a_box_is_one_full_box(seed):
    mask = box_mask(np.random.default_rng(seed), 64)
    assert mask[box_around(mask)].all()
    assert 0.1 <= mask.mean() <= 0.3


def test_boxes_lie_anywhere():
    masks = np.array([box_mask(np.random.default_rng(seed), 64) for seed in range(300)])
    often = masks.mean(0)
    assert all(line.max() > 0 for line in (often[0], often[-1], often[:, 0], often[:, -1]))
    assert often[24:40, 24:40].min() > often[0].max()
    assert abs(often[:32].mean() - often[32:].mean()) < 0.05
    assert abs(often[:, :32].mean() - often[:, 32:].mean()) < 0.05


def test_a_mixture_draws_each_of_its_kinds():
    rng = np.random.default_rng(0)
    masks = [RandomMasks(("boxes", "strokes"), 64).draw(rng) for _ in range(80)]
    boxes = sum(bool(mask[box_around(mask)].all()) for mask in masks)
    assert 24 <= boxes <= 56


@pytest.mark.parametrize("ratio", [(0.3, 0.2), (0.3, 0.3), (0.3, 0.31), (-0.1, 0.2), (0.5, 1.1), (0.8, 0.9)])
def test_an_impossible_ratio_is_refused(ratio):
    with pytest.raises(ValueError, match=r"ratio is \(.*wanted 0 <= low < high <= 1"):
        RandomMasks("strokes", 64, ratio)
    for draw in KINDS.values():
        with pytest.raises(ValueError, match="ratio is"):
            draw(np.random.default_rng(0), 64, ratio)


@pytest.mark.parametrize("kind", ["lines", "", (), ("strokes", "lines")])
def test_an_unknown_kind_is_refused(kind):
    with pytest.raises(ValueError, match="wanted strokes, brush, boxes"):
        RandomMasks(kind)


@pytest.mark.parametrize("draw", [stroke_mask, brush_mask])
def test_a_size_too_small_to_draw_on_is_refused(draw):
    with pytest.raises(ValueError, match="size is 8; wanted at least 16 px"):
        draw(np.random.default_rng(0), 8)


# as_mask


@few(20)
@given(st.integers(1, 20), st.integers(2, 20), seeds)
def test_as_mask_takes_bool_and_bytes(height, width, seed):
    values = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    values[0, :2] = 0, 255  # neither all hole nor only 0 and 1
    wanted = values > 127
    for given_mask in (values, values[..., None], wanted, wanted[..., None]):
        result = as_mask(given_mask, (height, width))
        assert result.dtype == np.bool_ and np.array_equal(result, wanted)


def test_as_mask_s_threshold_is_128():
    assert as_mask(np.array([[0, 1, 127, 128, 255]], np.uint8)).tolist() == [[False, False, False, True, True]]


def test_as_mask_takes_a_mask_without_a_hole():
    assert not as_mask(np.zeros((3, 3), bool)).any()
    assert not as_mask(np.zeros((3, 3), np.uint8)).any()


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (
            np.zeros((4, 4, 3), np.uint8),
            r"mask is uint8 \(4, 4, 3\); wanted \(H, W\) bool, or uint8 with >= 128 = hole",
        ),
        (np.zeros(4, bool), r"mask is bool \(4,\); wanted"),
        (np.zeros((4, 4), np.float32), r"mask is float32 \(4, 4\); wanted"),
        (np.zeros((4, 4), np.int64), "mask is int64"),
        (np.eye(4, dtype=np.uint8), "holds only 0 and 1; wanted bool, or uint8 with >= 128 = hole"),
        (np.ones((4, 4), np.uint8), "holds only 0 and 1"),
        (np.ones((4, 4), bool), "all hole.*at least one known pixel"),
        (np.full((4, 4), 200, np.uint8), "all hole"),
    ],
)
def test_as_mask_says_what_came_and_what_was_wanted(mask, said):
    with pytest.raises(BadMask, match=said):
        as_mask(mask)


def test_as_mask_names_both_sizes():
    with pytest.raises(BadMask, match="mask is 6 x 4 and the photo 5 x 4; wanted the same size"):
        as_mask(np.zeros((4, 6), bool), (4, 5))


# files


def half_hole(share=0.25, size=64):
    mask = np.zeros((size, size), np.uint8)
    mask[: round(size * share)] = 255
    return mask


def test_white_is_the_hole_and_black_with_invert(tmp_path):
    gray = np.array([[0, 127, 128, 255]], np.uint8)
    path = save(tmp_path / "mask.png", gray)
    assert read_mask(path).tolist() == [[False, False, True, True]]
    assert read_mask(path, invert=True).tolist() == [[True, True, False, False]]


def test_a_mask_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(BadMask, match=r"gone\.png: there is no such file"):
        read_mask(tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(BadMask, match=r"text\.png: not a picture"):
        read_mask(tmp_path / "text.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadMask, match="empty: no picture in it"):
        MaskFolder(tmp_path / "empty")
    with pytest.raises(BadMask, match="nowhere: there is no such folder"):
        MaskFolder(tmp_path / "nowhere")


def test_a_folder_of_masks_is_read_shrunk_and_in_order(tmp_path):
    for i in range(1, 5):
        save(tmp_path / f"{i}.png", half_hole(i / 8, 512))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masks = MaskFolder(tmp_path, 64)
    assert len(masks) == 4
    assert [mask.mean() for mask in masks] == [1 / 8, 2 / 8, 3 / 8, 4 / 8]
    assert all(mask.shape == (64, 64) and mask.dtype == np.bool_ for mask in masks)
    drawn = [masks.draw(np.random.default_rng(seed)).mean() for seed in range(40)]
    assert set(drawn) == {1 / 8, 2 / 8, 3 / 8, 4 / 8}
    assert drawn == [masks.draw(np.random.default_rng(seed)).mean() for seed in range(40)]


def test_the_other_polarity_is_noticed_and_inverted(tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}.png", 255 - half_hole(0.25))  # white = known, as the Quick Draw masks have it
    with pytest.warns(MaskPolarityWarning, match="75% of a typical mask is hole with invert=False.*pass invert=True"):
        wrong = MaskFolder(tmp_path, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        right = MaskFolder(tmp_path, 64, invert=True)
    assert np.array_equal(right[0], half_hole(0.25) > 0)
    assert np.array_equal(right[0], ~wrong[0])
    for i in range(3):
        save(tmp_path / f"{i}.png", half_hole(0.25))
    with pytest.warns(MaskPolarityWarning, match="with invert=True; .*white part, pass invert=False"):
        MaskFolder(tmp_path, 64, invert=True)


def test_empty_and_full_masks_are_not_drawn(tmp_path):
    save(tmp_path / "empty.png", half_hole(0))
    save(tmp_path / "full.png", half_hole(1))
    save(tmp_path / "good.png", half_hole(0.25))
    masks = MaskFolder(tmp_path, 64)
    assert {masks.draw(np.random.default_rng(seed)).mean() for seed in range(20)} == {0.25}
    (tmp_path / "good.png").unlink()
    (tmp_path / "full.png").unlink()
    with pytest.raises(BadMask, match="100 masks in a row were broken, empty or all hole"):
        MaskFolder(tmp_path, 64).draw(np.random.default_rng(0))


def test_a_broken_mask_is_named_and_skipped(tmp_path):
    hole = np.zeros((64, 96), np.uint8)
    hole[10:30, 30:60] = 255
    save(tmp_path / "a.png", hole)
    (tmp_path / "b.png").write_text("not a mask")
    with pytest.warns(BrokenMaskWarning, match=r"b\.png: not a picture"):
        masks = MaskFolder(tmp_path, 64)
    with pytest.warns(BrokenMaskWarning):
        assert len(list(masks)) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawn = [masks.draw(np.random.default_rng(seed)) for seed in range(6)]
    assert all(np.array_equal(mask, hole[:, 16:80] > 0) for mask in drawn)  # its centred square
