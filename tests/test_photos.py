"""photos.py: what is read is what lies in the files, and what cannot be read is named."""

import csv
import io
import multiprocessing
import os
import pickle
import warnings
import zipfile
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import few, noise_photo, save
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgeconnect_lite.photos import (
    BadPhoto,
    BrokenPhotoWarning,
    FacePhotos,
    PhotoFolder,
    as_photo,
    centre_square,
    list_pictures,
    read_photo,
    write_bytes,
    write_picture,
)

# the card's table, in the file's order
HEADER = (
    "file,split,seed,sex,age,african,asian,caucasian,yaw,pitch,roll,hair,hair_colour,glasses,glasses_kind,beard,"
    "beard_kind,expression,smile,light_azimuth,skin_luminance,background,face_luma,covered"
)

seeds = st.integers(0, 2**16)
sides = st.integers(1, 40)


# as_photo


@few(20)
@given(sides, sides, seeds)
def test_as_photo_keeps_uint8_rgb(height, width, seed):
    photo = noise_photo(height, width, seed)
    assert np.array_equal(as_photo(photo), photo)


@few(20)
@given(sides, sides, seeds, st.sampled_from([np.float32, np.float64]))
def test_as_photo_of_floats_gives_back_the_bytes_they_came_from(height, width, seed, dtype):
    photo = noise_photo(height, width, seed)
    result = as_photo(photo.astype(dtype) / 255)
    assert result.dtype == np.uint8
    assert np.array_equal(result, photo)


@few(10)
@given(sides, sides, seeds, st.booleans())
def test_as_photo_repeats_gray(height, width, seed, with_axis):
    gray = noise_photo(height, width, seed)[..., 0]
    result = as_photo(gray[..., None] if with_axis else gray)
    assert result.shape == (height, width, 3)
    assert all(np.array_equal(result[..., channel], gray) for channel in range(3))


@few(10)
@given(sides, sides, seeds)
def test_as_photo_lays_alpha_over_white(height, width, seed):
    rgb, alpha = noise_photo(height, width, seed), noise_photo(height, width, seed + 1)[..., :1]
    share = alpha / 255
    wanted = rgb * share + 255 * (1 - share)
    result = as_photo(np.concatenate([rgb, alpha], axis=2))
    assert np.abs(result - wanted).max() <= 0.5 + 1e-9
    assert np.array_equal(as_photo(np.dstack([rgb, np.full_like(alpha, 255)])), rgb)
    assert (as_photo(np.dstack([rgb, np.zeros_like(alpha)])) == 255).all()


@pytest.mark.parametrize(
    ("photo", "came"),
    [
        (np.zeros(5, np.uint8), r"\(5,\)"),
        (np.zeros((4, 4, 2), np.uint8), r"\(4, 4, 2\)"),
        (np.zeros((4, 4, 5), np.uint8), r"\(4, 4, 5\)"),
        (np.zeros((3, 16, 16), np.uint8), r"\(3, 16, 16\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"\(1, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.zeros((4, 4, 3), np.uint16), "uint16"),
        (np.zeros((4, 4, 3), bool), "bool"),
        (np.full((4, 4, 3), 1.5), "1.5"),
        (np.full((4, 4, 3), -0.25), "-0.25"),
        (np.full((4, 4, 3), np.inf), "inf"),
        (np.full((2, 2, 3), np.nan), "12 NaN"),
    ],
)
def test_as_photo_says_what_came_and_what_was_wanted(photo, came):
    with pytest.raises(BadPhoto, match=came) as error:
        as_photo(photo)
    assert "wanted (H, W), (H, W, 3) or (H, W, 4), uint8 or floating point in [0, 1]" in str(error.value)


# FacePhotos


@pytest.fixture(scope="module")
def archive():
    with zipfile.ZipFile(str(files("edgeconnect_lite") / "assets/faces-128.zip")) as opened:
        yield opened


@pytest.mark.parametrize(("split", "count"), [("train", 5000), ("test", 500)])
def test_faces_match_their_table(archive, split, count):
    faces = FacePhotos(split)
    rows = [row for row in csv.DictReader(io.StringIO(archive.read("faces.csv").decode())) if row["split"] == split]
    assert len(faces) == len(faces.records) == len(rows) == count
    assert faces.records == rows
    assert [row["file"] for row in faces.records] == [f"{split}/{i:05d}.webp" for i in range(count)]
    assert ",".join(faces.records[0]) == HEADER
    assert len({row["seed"] for row in rows}) == count


@pytest.mark.parametrize(("split", "index"), [("train", 0), ("train", 4999), ("test", 0), ("test", 499), ("test", -1)])
def test_faces_at_128_are_the_archive_s_own_pixels(archive, split, index):
    faces = FacePhotos(split)
    with Image.open(io.BytesIO(archive.read(f"{split}/{index % len(faces):05d}.webp"))) as picture:
        assert np.array_equal(faces[index], np.asarray(picture.convert("RGB")))
    assert faces[index].dtype == np.uint8 and faces[index].shape == (128, 128, 3)


def test_faces_at_64_are_the_means_of_2_by_2_pixels():
    large, small = FacePhotos("test", 128)[7], FacePhotos("test", 64)[7]
    means = large.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert small.shape == (64, 64, 3)
    assert np.abs(small - means).max() <= 0.5


def test_train_and_test_faces_differ():
    assert not {row["seed"] for row in FacePhotos("train").records} & {
        row["seed"] for row in FacePhotos("test").records
    }
    with pytest.raises(IndexError):
        FacePhotos("test")[500]


def test_faces_refuse_other_splits_and_sizes():
    with pytest.raises(ValueError, match=r"split is 'valid'; wanted 'train' or 'test'"):
        FacePhotos("valid")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"size is 256; .*64 or 128"):
        FacePhotos("test", 256)


def test_faces_survive_pickling():
    faces = FacePhotos("test", 64)
    first = faces[3]  # the archive is open now
    copy = pickle.loads(pickle.dumps(faces))
    assert (copy.split, copy.size, len(copy)) == ("test", 64, 500)
    assert np.array_equal(copy[3], first)


def read_many(task):
    faces, indices = task
    return [faces[i].tobytes() for i in indices]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
def test_forked_processes_read_from_one_object_at_once():
    faces = FacePhotos("test", 128)
    indices = list(range(40))
    wanted = [faces[i].tobytes() for i in indices]
    readers, pids = [], []
    for _ in range(2):
        receiving, sending = os.pipe()
        pid = os.fork()
        if pid == 0:  # the child shares the parent's file position, unless it opens the archive for itself
            cv2.setNumThreads(0)
            good = all(faces[i].tobytes() == content for i, content in zip(indices * 3, wanted * 3))
            os.write(sending, b"good" if good else b"bad")
            os._exit(0)
        os.close(sending)
        readers.append(receiving)
        pids.append(pid)
    assert read_many((faces, indices)) == wanted
    answers = [os.read(reader, 10) for reader in readers]
    for pid, reader in zip(pids, readers):
        os.waitpid(pid, 0)
        os.close(reader)
    assert answers == [b"good", b"good"]


# read_photo


@pytest.mark.parametrize("ending", [".png", ".bmp", ".webp", ".jpg", ".jpeg", ".PNG"])
def test_every_format_is_read(tmp_path, ending):
    photo = np.repeat(np.repeat(noise_photo(4, 5), 8, 0), 8, 1)
    options = {
        ".webp": {"lossless": True},
        ".jpg": {"quality": 98, "subsampling": 0},
        ".jpeg": {"quality": 98, "subsampling": 0},
    }
    read = read_photo(save(tmp_path / f"photo{ending}", photo, **options.get(ending, {})))
    assert read.shape == photo.shape and read.dtype == np.uint8
    assert np.abs(read.astype(int) - photo).max() <= (16 if "jp" in ending else 0)


def test_gray_and_palette_files_become_rgb(tmp_path):
    gray = noise_photo(6, 7)[..., 0]
    assert np.array_equal(read_photo(save(tmp_path / "gray.png", gray)), np.repeat(gray[..., None], 3, 2))
    palette = Image.fromarray(gray).convert("P")
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(read_photo(tmp_path / "palette.png"), np.asarray(palette.convert("RGB")))


def test_alpha_in_a_file_is_laid_over_white(tmp_path):
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [100, 0, 200, 51]]], np.uint8)
    wanted = [[[10, 20, 30], [255, 255, 255], [224, 204, 244]]]  # 51 = a fifth: 100 / 5 + 255 * 4 / 5 = 224
    assert read_photo(save(tmp_path / "alpha.png", rgba)).tolist() == wanted
    gray = np.array([[[10, 255], [10, 0], [100, 51]]], np.uint8)
    assert read_photo(save(tmp_path / "la.png", gray))[..., 0].tolist() == [[10, 255, 224]]
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "transparent.png", transparency=0)
    assert read_photo(tmp_path / "transparent.png").tolist() == [[[255, 255, 255], [0, 255, 0]]]


def test_16_bit_gray_keeps_its_high_byte(tmp_path):
    values = np.array([[0, 255, 256, 511, 0x1234, 0x8000, 0xFFFF]], np.uint16)
    assert cv2.imwrite(str(tmp_path / "deep.png"), values)
    assert read_photo(tmp_path / "deep.png")[0, :, 1].tolist() == [0, 0, 1, 1, 0x12, 0x80, 0xFF]


UPRIGHT = {  # EXIF 2.3, tag 0x0112: what must be done to the stored rows to show them upright
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(tmp_path, orientation):
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 0], [0, 0, 0], [255, 255, 255]]], np.uint8)
    stored = np.repeat(np.repeat(colours, 16, 0), 16, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    read = read_photo(save(tmp_path / "turned.jpg", stored, exif=exif, quality=98, subsampling=0))
    wanted = UPRIGHT[orientation](stored)
    assert read.shape == wanted.shape
    assert np.abs(read.astype(int) - wanted).max() < 40


# broken files


@pytest.fixture
def broken(tmp_path):
    """A folder in which every second file is broken, each in its own way."""
    folder = tmp_path / "photos"
    for i, name in enumerate("acegi"):
        save(folder / f"{name}.png", noise_photo(64, 64, seed=i))
    whole = save(tmp_path / "whole.jpg", noise_photo(64, 64)).read_bytes()
    (folder / "b.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "d.jpg").write_bytes(b"")
    (folder / "f.jpg").write_text("this is no picture")
    (folder / "h.png").write_bytes((folder / "a.png").read_bytes()[:200])
    return folder


@pytest.mark.parametrize(
    ("name", "said"),
    [("b.jpg", "broken picture"), ("d.jpg", "empty"), ("f.jpg", "not a picture"), ("h.png", "broken picture")],
)
def test_a_broken_file_is_named(broken, name, said):
    with pytest.raises(BadPhoto, match=said) as error:
        read_photo(broken / name)
    assert str(broken / name) in str(error.value)


def test_broken_files_are_skipped_with_one_warning_each(broken):
    photos = PhotoFolder(broken, 64)
    assert len(photos) == 9
    with pytest.warns(BrokenPhotoWarning) as caught:
        found = list(photos)
    assert [np.array_equal(photo, noise_photo(64, 64, seed=i)) for i, photo in enumerate(found)] == [True] * 5
    said = [str(warning.message) for warning in caught]
    assert [sum(str(broken / name) in line for line in said) for name in ("b.jpg", "d.jpg", "f.jpg", "h.png")] == [
        1
    ] * 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(photos)) == 5  # said once, not in every epoch


def test_an_index_of_a_broken_file_gives_the_next_readable_one(broken):
    photos = PhotoFolder(broken, 64)
    with pytest.warns(BrokenPhotoWarning, match=r"b\.jpg"):
        assert np.array_equal(photos[1], noise_photo(64, 64, seed=1))
    assert np.array_equal(photos[-1], noise_photo(64, 64, seed=4))
    for index in (9, -10):
        with pytest.raises(IndexError, match=f"index {index} of 9"):
            photos[index]


def test_a_folder_of_broken_files_alone_is_an_error(tmp_path):
    (tmp_path / "one.jpg").write_bytes(b"")
    (tmp_path / "two.png").write_bytes(b"no")
    photos = PhotoFolder(tmp_path)
    with pytest.warns(BrokenPhotoWarning), pytest.raises(BadPhoto, match=r"none of the 2 photos can be read.*one\.jpg"):
        photos[0]


# folders and lists


def test_a_folder_tree_is_read_in_order(tmp_path):
    names = ["a.png", "b/c.bmp", "b/d/e.webp", "f.PNG"]
    for i, name in enumerate(names):
        save(tmp_path / name, noise_photo(32, 32, seed=i), **({"lossless": True} if "webp" in name else {}))
    (tmp_path / "notes.md").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    photos = PhotoFolder(tmp_path, 32)
    assert [path.relative_to(tmp_path).as_posix() for path in photos.paths] == names
    assert all(np.array_equal(photo, noise_photo(32, 32, seed=i)) for i, photo in enumerate(photos))
    assert all(np.array_equal(photos[i], noise_photo(32, 32, seed=i)) for i in range(4))
    assert np.array_equal(PhotoFolder(str(tmp_path), 32)[2], photos[2])


def test_photos_are_cut_to_their_centred_square(tmp_path):
    wide, tall = noise_photo(32, 52), noise_photo(51, 32)
    save(tmp_path / "1.png", wide)
    save(tmp_path / "2.png", tall)
    photos = PhotoFolder(tmp_path, 32)
    assert np.array_equal(photos[0], wide[:, 10:42])
    assert np.array_equal(photos[1], tall[9:41])


def test_centre_square_shrinks_by_means_and_enlarges():
    photo = noise_photo(96, 60)
    small = centre_square(photo, 20)
    assert np.abs(small - photo[18:78].reshape(20, 3, 20, 3, 3).mean((1, 3))).max() <= 0.5
    assert centre_square(photo, 77).shape == (77, 77, 3)
    assert (centre_square(np.full((5, 9, 3), 77, np.uint8), 64) == 77).all()


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_list_s_relative_paths_count_from_the_list(tmp_path, monkeypatch, newline):
    save(tmp_path / "set/one.png", noise_photo(16, 16, 1))
    save(tmp_path / "set/in/two.png", noise_photo(16, 16, 2))
    far = save(tmp_path / "far/three.png", noise_photo(16, 16, 3))
    lines = ["in/two.png", "", " one.png ", str(far)]
    (tmp_path / "set/list.txt").write_bytes(newline.join(lines).encode())
    monkeypatch.chdir(tmp_path)
    found = list(PhotoFolder(Path("set/list.txt"), 16))
    assert [np.array_equal(photo, noise_photo(16, 16, seed)) for photo, seed in zip(found, (2, 1, 3))] == [True] * 3
    assert np.array_equal(PhotoFolder([far], 16)[0], found[2])


def test_nothing_to_read_is_an_error_that_names_the_place(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/readme.md").write_text("no picture")
    with pytest.raises(BadPhoto, match=r"empty: no picture in it; wanted files ending in \.jpg"):
        PhotoFolder(tmp_path / "empty")
    with pytest.raises(BadPhoto, match=r"nowhere: there is no such folder; wanted a folder of pictures, a \.txt list"):
        PhotoFolder(tmp_path / "nowhere")
    (tmp_path / "list.txt").write_text("\n\n")
    with pytest.raises(BadPhoto, match=r"list\.txt: no picture in it"):
        list_pictures(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("gone.png\n")
    with (
        pytest.warns(BrokenPhotoWarning, match=r"gone\.png.*no such file"),
        pytest.raises(BadPhoto, match="none of the 1"),
    ):
        PhotoFolder(tmp_path / "list.txt")[0]


# writing


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.PNG", "a.jpg", "a.webp"])
def test_what_is_written_is_read_again(tmp_path, name):
    photo = np.repeat(np.repeat(noise_photo(3, 4), 16, 0), 16, 1)
    write_picture(tmp_path / name, photo)
    close = 64 if name.endswith(("jpg", "webp")) else 0  # jpg halves the colours' size
    assert np.abs(read_photo(tmp_path / name).astype(int) - photo).mean() <= close / 8
    assert [path.name for path in tmp_path.iterdir()] == [name]
    write_picture(tmp_path / name, photo[..., 0])
    assert read_photo(tmp_path / name).shape == photo.shape


def test_a_bad_ending_is_refused_before_anything_is_written(tmp_path):
    for name in ("a.gif", "a", "a.png.txt"):
        with pytest.raises(ValueError, match=r"cannot write this kind of file; wanted an ending of \.jpg"):
            write_picture(tmp_path / name, noise_photo(4, 4))
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_nothing_and_names_the_path(tmp_path):
    (tmp_path / "a.png").mkdir()  # a folder stands where the file should go
    with pytest.raises(OSError, match=r"a\.png: cannot be written \("):
        write_picture(tmp_path / "a.png", noise_photo(4, 4))
    with pytest.raises(OSError, match=r"b\.png: cannot be written \("):
        write_picture(tmp_path / "nowhere/b.png", noise_photo(4, 4))
    assert [path.name for path in tmp_path.rglob("*")] == ["a.png"]


def test_a_file_in_place_of_the_folder_is_named_too(tmp_path):
    (tmp_path / "file").write_bytes(b"kept")
    with pytest.raises(OSError, match=r"file/b\.png: cannot be written \("):
        write_picture(tmp_path / "file/b.png", noise_photo(4, 4))
    assert (tmp_path / "file").read_bytes() == b"kept"


def test_an_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "a.png"
    write_bytes(target, b"old")

    def full_disk(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match=r"a\.png: cannot be written \(No space left on device\)"):
        write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
