"""data_sets.py: small trees of the official forms, and mixtures of sources."""

from pathlib import Path

import numpy as np
import pytest
from helpers import noise_photo, save

from edgeconnect_lite.data_sets import FFHQ, CelebA, CelebAHQ, Places365, masks_at, open_data_set
from edgeconnect_lite.masks import MaskFolder
from edgeconnect_lite.photos import BadPhoto, PhotoFolder
from edgeconnect_lite.run_parts import open_masks
from edgeconnect_lite.training import EdgeTraining


@pytest.fixture(params=["", "Eval"])
def celeba(tmp_path, request):
    """Eight pictures of 178 x 218; lossless content under CelebA's names, so that pixels can be compared."""
    lines = []
    for i in range(8):
        name = f"{i + 1:06d}.jpg"
        save(tmp_path / "img_align_celeba" / name, noise_photo(218, 178, seed=i), format="PNG")
        lines.append(f"{name} {[0, 0, 2, 1, 0, 2, 0, 1][i]}")
    (tmp_path / request.param).mkdir(exist_ok=True)
    (tmp_path / request.param / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_celeba_s_root_gives_its_training_part_or_the_one_asked_for(celeba):
    assert isinstance(open_data_set(celeba, 128), CelebA)
    assert [path.name for path in open_data_set(celeba, 128).paths] == [f"{i:06d}.jpg" for i in (1, 2, 5, 7)]
    assert [path.name for path in open_data_set(celeba, 128, held_out=True).paths] == ["000003.jpg", "000006.jpg"]
    assert [path.name for path in open_data_set(celeba, 128, "valid").paths] == ["000004.jpg", "000008.jpg"]


@pytest.mark.parametrize(("split", "members"), [("train", [0, 1, 4, 6]), ("valid", [3, 7]), ("test", [2, 5])])
def test_celeba_s_splits_are_the_official_ones_cut_at_the_centre(celeba, split, members):
    photos = CelebA(celeba, split, size=178)
    assert len(photos) == len(members)
    for photo, seed in zip(photos, members):
        assert np.array_equal(photo, noise_photo(218, 178, seed)[20:198])
    assert CelebA(celeba, split)[0].shape == (128, 128, 3)


def test_celeba_s_layout_is_checked(celeba, tmp_path):
    with pytest.raises(ValueError, match="split is 'val'; wanted one of train, valid, test"):
        CelebA(celeba, "val")  # type: ignore[arg-type]
    with pytest.raises(BadPhoto, match=r"not CelebA's layout; wanted img_align_celeba/ and list_eval_partition\.txt"):
        CelebA(tmp_path / "elsewhere")
    for table in celeba.rglob("list_eval_partition.txt"):
        table.write_text("000001.jpg 7\n")
    with pytest.raises(BadPhoto, match=r"wanted lines of the form '000001\.jpg 0'"):
        CelebA(celeba)


def names_of(photos, root):
    return [path.relative_to(root).as_posix() for path in photos.paths]


@pytest.fixture
def ffhq(tmp_path):
    """A folder for each thousand, as handed out; the last 10,000 of the 70,000 are for validation."""
    for i in (0, 1, 59_999, 60_000, 69_999):
        for kind, side in (("images1024x1024", 1024), ("thumbnails128x128", 128)):
            save(tmp_path / kind / f"{i // 1000 * 1000:05d}" / f"{i:05d}.png", np.zeros((side, side), np.uint8))
    (tmp_path / "ffhq-dataset-v2.json").write_text("{}")
    save(tmp_path / "in-the-wild-images/00000/00000.png", noise_photo(30, 40))
    return tmp_path


def test_ffhq_s_parts_are_its_authors_at_the_smallest_size_that_will_do(ffhq):
    train = open_data_set(ffhq, 128)
    assert isinstance(train, FFHQ)
    assert names_of(train, ffhq / "thumbnails128x128") == ["00000/00000.png", "00000/00001.png", "59000/59999.png"]
    valid = open_data_set(ffhq, 256, held_out=True)
    assert names_of(valid, ffhq / "images1024x1024") == ["60000/60000.png", "69000/69999.png"]
    assert valid[0].shape == (256, 256, 3)
    assert len(open_data_set(ffhq, 128, "valid")) == 2 and len(PhotoFolder(ffhq / "thumbnails128x128")) == 5
    with pytest.raises(ValueError, match="split is 'test'; wanted one of train, valid"):
        open_data_set(ffhq, 128, "test")
    with pytest.raises(BadPhoto, match="not this data set's layout"):
        FFHQ(ffhq / "thumbnails128x128")


def test_ffhq_s_missing_part_is_named(ffhq):
    for path in ffhq.rglob("6*/*.png"):
        path.unlink()
    with pytest.raises(BadPhoto, match="no picture of FFHQ's split 'valid'"):
        FFHQ(ffhq, "valid")


def test_celeba_hq_is_read_in_its_three_forms(tmp_path):
    for side in (64, 256, 512):
        for i in range(3):
            save(tmp_path / f"sizes/data{side}x{side}/{i + 1:05d}.jpg", noise_photo(side, side, i))
    for size, side in ((32, 64), (128, 256), (256, 256), (512, 512), (1024, 512)):
        photos = open_data_set(tmp_path / "sizes", size)
        assert isinstance(photos, CelebAHQ)
        assert names_of(photos, tmp_path / f"sizes/data{side}x{side}") == ["00001.jpg", "00002.jpg", "00003.jpg"]
    for i in (0, 1, 10):
        save(tmp_path / f"CelebAMask-HQ/CelebA-HQ-img/{i}.jpg", noise_photo(16, 16))
    save(tmp_path / "CelebAMask-HQ/CelebAMask-HQ-mask-anno/0/00000_hair.png", np.zeros((16, 16), np.uint8))
    faces = open_data_set(tmp_path / "CelebAMask-HQ", 128)
    assert names_of(faces, tmp_path / "CelebAMask-HQ") == [f"CelebA-HQ-img/{name}.jpg" for name in (0, 1, 10)]
    with pytest.warns(UserWarning, match=r"CelebAMask-HQ: CelebAHQ has no parts; these photos may be those that were"):
        assert len(open_data_set(tmp_path / "CelebAMask-HQ", 128, held_out=True)) == 3
    flat = open_data_set(tmp_path / "sizes/data64x64", 128)
    assert type(flat) is PhotoFolder and len(flat) == 3


@pytest.mark.parametrize(("small", "large"), [("data_256", "data_large"), ("data_256_standard", "data_large_standard")])
def test_places365_s_last_photos_are_of_all_classes(tmp_path, small, large):
    classes = ["a/abbey", "a/airfield", "b/bar", "b/bus_station/indoor"]
    for folder in (small, large):
        for name in classes:
            for i in range(20):
                save(tmp_path / folder / name / f"{i + 1:08d}.jpg", noise_photo(8, 8))
    for i in range(3):
        save(tmp_path / f"val_256/Places365_val_{i + 1:08d}.jpg", noise_photo(8, 8))
        save(tmp_path / f"test_256/Places365_test_{i + 1:08d}.jpg", noise_photo(8, 8))
    train = open_data_set(tmp_path, 128)
    assert isinstance(train, Places365)
    found = names_of(train, tmp_path)
    assert sorted(found) == names_of(PhotoFolder(tmp_path / small), tmp_path) and found[0].startswith(small)
    assert {path.parent.relative_to(tmp_path / small).as_posix() for path in train.paths[-16:]} == set(classes)
    assert names_of(Places365(tmp_path), tmp_path) == found  # drawn once and for all
    assert names_of(open_data_set(tmp_path, 512), tmp_path)[0].startswith(large)
    valid = names_of(open_data_set(tmp_path, 128, held_out=True), tmp_path)
    assert sorted(valid) == [f"val_256/Places365_val_{i + 1:08d}.jpg" for i in range(3)]
    for path in (tmp_path / "val_256").iterdir():
        path.unlink()
    (tmp_path / "val_256").rmdir()
    with pytest.raises(BadPhoto, match="not Places365's part 'valid'; wanted val_256 or val_large in it"):
        Places365(tmp_path, "valid")


def test_a_name_that_is_too_long_is_no_data_set(tmp_path):
    for name in (tmp_path / ("x" * 300), "y" * 300):
        with pytest.raises(BadPhoto, match="there is no such folder"):
            open_data_set(name, 16)
        assert masks_at(name) == Path(name)


def test_a_plain_folder_has_no_parts(tmp_path):
    save(tmp_path / "a.png", noise_photo(8, 8))
    assert type(open_data_set(tmp_path, 16)) is PhotoFolder
    with pytest.raises(ValueError, match=r"split is 'test', and .* is no data set with parts \(CelebA, FFHQ,"):
        open_data_set(tmp_path, 16, "test")


def test_of_the_quick_draw_masks_a_run_sees_the_training_part(tmp_path):
    """512 px, one bit a pixel, black = hole: train/00000_train.png, test/00000_test.png."""
    for part, rows in (("train", 128), ("test", 64)):
        for i in range(2):
            known = np.ones((512, 512), bool)
            known[:rows] = False
            save(tmp_path / part / f"{i:05d}_{part}.png", known)
    masks = open_masks(EdgeTraining(masks=str(tmp_path), size=64, invert_masks=True))
    assert isinstance(masks, MaskFolder) and [mask.mean() for mask in masks] == [0.25, 0.25]
    assert masks_at(tmp_path, held_out=True) == tmp_path / "test" and masks_at(tmp_path / "test") == tmp_path / "test"
    assert len(MaskFolder(tmp_path, 64, invert=True)) == 4
