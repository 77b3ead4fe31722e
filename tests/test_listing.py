"""listing.py: text lists as people write them; pictures in zip archives, honest and hostile ones."""

import io
import multiprocessing
import os
import pickle
import struct
import sys
import threading
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import few, noise_photo, save
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgeconnect_lite import listing
from edgeconnect_lite.listing import BadPhoto, BrokenPhotoWarning, PictureFiles, ZippedPictures, list_pictures
from edgeconnect_lite.photos import PhotoFolder

# text lists


def test_a_list_s_labels_and_comments_are_ignored_and_spaces_belong_to_the_path(tmp_path):
    lines = [
        "# my photos",
        "a.jpg 0",
        "my photo.JPG",
        "my photo.png 17",
        "b.webp\t3 -1  1",
        "",
        "  c.bmp  ",
        "d 1.jpeg",
    ]
    lines += ["one.jpg two.jpg", "x.jpg/y.png 5", "no ending", "#.jpg"]
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    wanted = ["a.jpg", "my photo.JPG", "my photo.png", "b.webp", "c.bmp", "d 1.jpeg", "one.jpg two.jpg", "x.jpg/y.png"]
    assert list_pictures(tmp_path / "list.txt") == [tmp_path / name for name in [*wanted, "no ending"]]


@pytest.mark.parametrize("looks", [1, 2])
def test_a_picture_that_goes_while_it_is_read_is_named(tmp_path, monkeypatch, looks):
    gone = tmp_path / "a.png"
    save(gone, noise_photo(8, 8))
    seen = []

    def stat(path, *given, look=os.stat, **named):
        state = look(path, *given, **named)
        if os.fspath(path) == str(gone):
            seen.append(path)
            if len(seen) == looks:
                gone.unlink()
        return state

    paths = list_pictures([gone])
    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(BadPhoto, match=r"a\.png: there is no such file"):
        paths.read(0)


def test_places365_s_own_lists_are_found_in_the_folders_beside_them(tmp_path):
    for name in (
        "data_256/a/airfield/00000001.jpg",
        "data_256/b/bar/00000002.jpg",
        "val_256/Places365_val_00000001.jpg",
    ):
        save(tmp_path / name, noise_photo(8, 8))
    (tmp_path / "places365_train_standard.txt").write_text("/a/airfield/00000001.jpg 0\n/b/bar/00000002.jpg 1\n")
    (tmp_path / "places365_val.txt").write_text("Places365_val_00000001.jpg 165\n")
    train = [tmp_path / "data_256/a/airfield/00000001.jpg", tmp_path / "data_256/b/bar/00000002.jpg"]
    assert list_pictures(tmp_path / "places365_train_standard.txt") == train
    assert list_pictures(tmp_path / "places365_val.txt") == [tmp_path / "val_256/Places365_val_00000001.jpg"]
    (tmp_path / "absolute.txt").write_text(f"{train[0]} 4\n")
    assert list_pictures(tmp_path / "absolute.txt") == train[:1]


def test_a_list_that_is_no_text_is_named(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"a.jpg\n\xff\xfe.jpg\n")
    with pytest.raises(BadPhoto, match=r"list\.txt: no text \(invalid start byte at byte 6\); wanted UTF-8"):
        list_pictures(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_bytes(b"a\0.jpg\n")
    with pytest.warns(BrokenPhotoWarning, match="cannot be read"), pytest.raises(BadPhoto, match="none of the 1"):
        PhotoFolder(tmp_path / "list.txt")[0]


@pytest.mark.skipif(sys.platform == "win32", reason="no CUDA GPU: no pipes among files there")
def test_what_would_never_end_is_not_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")
    save(tmp_path / "good.png", noise_photo(16, 16))
    save(tmp_path / "large.png", noise_photo(64, 64))
    monkeypatch.setattr(listing, "LARGEST_PICTURE", 3000)
    assert len(list_pictures(tmp_path)) == 2  # a pipe is no file
    (tmp_path / "list.txt").write_text("pipe.png\nlarge.png\ngood.png\n/dev/zero\n")
    with pytest.warns(BrokenPhotoWarning) as caught:
        assert len(list(PhotoFolder(tmp_path / "list.txt", 16))) == 1
    said = [str(warning.message) for warning in caught]
    assert len(said) == 3 and all("cannot be read (no file, or larger than" in line for line in said)


# archives


def png(seed=0):
    target = io.BytesIO()
    Image.fromarray(noise_photo(16, 16, seed)).save(target, "PNG")
    return target.getvalue()


def pack(path, entries, **options):
    """A zip of (name or ZipInfo, bytes), by Python's own writer."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in entries:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a name that is there already
                archive.writestr(name, data)
    return path


def same_photos(photos, seeds):
    return [np.array_equal(photo, noise_photo(16, 16, seed)) for photo, seed in zip(photos, seeds, strict=True)]


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("before", [b"", b"#!/bin/sh put before the archive\n"])
def test_any_zip_of_pictures_is_a_folder_of_photos(tmp_path, packing, before):
    names = ["b/2.png", "a.png", "b.c/3.png", "b/10.png", "ü/x.png"]
    entries = [(name, png(i)) for i, name in enumerate(names)]
    others = [("b/", b""), ("notes.txt", b"no picture"), ("__MACOSX/b/._2.png", b"a fork")]
    path = pack(tmp_path / "photos.zip", entries + others, compression=packing)
    path.write_bytes(before + path.read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        photos = PhotoFolder(path, 16)
        assert same_photos(photos, [1, 3, 0, 2, 4]) == [True] * 5
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "tree")
    tree = PhotoFolder([path for path in list_pictures(tmp_path / "tree") if "__MACOSX" not in str(path)]).paths
    assert [path.relative_to(tmp_path / "tree") for path in tree] == [inner.relative_to(path) for inner in photos.paths]
    assert np.array_equal(photos[-1], noise_photo(16, 16, 4)) and str(photos.paths[0]) == str(path / "a.png")


def test_an_archive_survives_pickling_slicing_and_threads(tmp_path):
    photos = PhotoFolder(pack(tmp_path / "photos.zip", [(f"{i}.png", png(i)) for i in range(9)]), 16)
    assert same_photos(photos, range(9))  # it is open now
    assert same_photos(pickle.loads(pickle.dumps(photos)), range(9)) == [True] * 9
    photos.paths = photos.paths[3:6]
    assert same_photos(photos, [3, 4, 5]) == [True] * 3 == same_photos(photos, [3, 4, 5])
    paths, good = ZippedPictures(tmp_path / "photos.zip"), []
    threads = [
        threading.Thread(target=lambda: good.append(all(paths.read(i % 9) == png(i % 9) for i in range(300))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert good == [True] * 4


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
def test_forked_processes_read_one_archive_at_once(tmp_path):
    paths = ZippedPictures(pack(tmp_path / "photos.zip", [(f"{i}.png", png(i)) for i in range(9)]))
    wanted = [paths.read(i) for i in range(9)]  # the file is open when the process splits
    pids = []
    for _ in range(3):
        pids.append(os.fork())
        if not pids[-1]:
            os._exit(0 if all(paths.read(i) == wanted[i] for i in list(range(9)) * 50) else 1)
    assert all(paths.read(i) == wanted[i] for i in list(range(9)) * 50)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0, 0]


def test_more_entries_than_32_bits_count_are_read(tmp_path, monkeypatch):
    """zip64: made by Python's writer with its limits lowered, as a file over 4 GB would be."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    path = pack(tmp_path / "photos.zip", [(f"{i}.png", png(i)) for i in range(4)])
    assert path.read_bytes().count(b"PK\6\6") == 1
    assert same_photos(PhotoFolder(path, 16), range(4)) == [True] * 4


def info(name, mode=0, flags=0):
    made = zipfile.ZipInfo(name)
    made.external_attr, made.create_system = mode << 16, 3
    return made


def bend(path, name, field, value):
    """Overwrite one field of an entry's line in the central directory."""
    data = bytearray(path.read_bytes())
    at = data.rindex(name.encode()) - 46
    assert data[at : at + 4] == b"PK\1\2"
    offset, form = {
        "flags": (8, "<H"),
        "method": (10, "<H"),
        "packed": (20, "<I"),
        "size": (24, "<I"),
        "offset": (42, "<I"),
    }[field]
    struct.pack_into(form, data, at + offset, value)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../../out.png", "a name that leads elsewhere"),
        ("a/../../out.png", "a name that leads elsewhere"),
        ("/etc/out.png", "a name that leads elsewhere"),
        ("C:/out.png", "a name that leads elsewhere"),
        ("..\\out.png", "a name that leads elsewhere"),
        (f"{'x' * 2000}.png", "a name with a null byte or of more than 1024 letters"),
        ("link.png", "links"),
        ("flags.png", "encrypted"),
        ("method.png", "packed by method 12; wanted stored or deflated"),
        ("size.png", "larger than 256 MiB or than the file"),
        ("packed.png", "larger than 256 MiB or than the file"),
        ("offset.png", "larger than 256 MiB or than the file"),
        ("good1.png", "the name of another entry"),
    ],
)
def test_entries_that_cannot_be_taken_are_named_and_the_others_read(tmp_path, name, reason):
    entries = [("good0.png", png(0)), ("good1.png", png(1))]
    entries.append((info(name, 0o120777), b"/etc/passwd") if name == "link.png" else (name, png(2)))
    (tmp_path / "in").mkdir()
    path = pack(tmp_path / "in/photos.zip", entries)
    stem = name.removesuffix(".png")
    values = {"flags": 1, "method": 12, "size": 2**31, "packed": 2**20, "offset": 2**31 - 1}
    if stem in values:
        bend(path, name, stem, values[stem])
    with pytest.warns(BrokenPhotoWarning) as caught:
        photos = PhotoFolder(path, 16)
    assert f"photos.zip: pictures left out: 1 ({reason}), beginning with" in str(caught[0].message)
    assert repr(name)[1:-1] in str(caught[0].message)
    assert same_photos(photos, [0, 1]) == [True] * 2
    assert [file.name for file in tmp_path.rglob("*")] == ["in", "photos.zip"]  # nothing was extracted anywhere


def test_a_damaged_entry_is_named_and_skipped(tmp_path):
    path = pack(tmp_path / "photos.zip", [(f"{i}.png", png(i)) for i in range(4)])
    whole = bytearray(path.read_bytes())
    for i, place in ((1, 300), (2, 0)):  # a pixel; the mark of the local header
        whole[whole.index(f"{i}.png".encode()) - 30 + place] ^= 1
    path.write_bytes(whole)
    photos = PhotoFolder(path, 16)
    with pytest.warns(BrokenPhotoWarning) as caught:
        assert same_photos(photos, [0, 3]) == [True] * 2
    said = [str(warning.message) for warning in caught]
    assert len(said) == 2 and all(f"{path / f'{i}.png'}: broken in the archive" in said[i - 1] for i in (1, 2))


def test_a_bomb_is_not_blown_up(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "LARGEST_PICTURE", 1 << 20)
    entries = [("bomb.png", bytes(1 << 22)), ("liar.png", bytes(1 << 22)), ("good.png", png())]
    path = pack(tmp_path / "photos.zip", entries, compression=zipfile.ZIP_DEFLATED)
    bend(path, "liar.png", "size", 1000)
    with pytest.warns(
        BrokenPhotoWarning, match=r"1 \(larger than 1 MiB or than the file\), beginning with 'bomb\.png'"
    ):
        paths = ZippedPictures(path)
    assert [inner.name for inner in paths] == ["good.png", "liar.png"]
    with pytest.raises(BadPhoto, match=r"liar\.png: broken in the archive"):
        paths.read(1)


def test_what_is_no_whole_archive_is_refused(tmp_path):
    path = pack(tmp_path / "photos.zip", [(f"{i}.png", png(i)) for i in range(4)])
    whole = path.read_bytes()
    for damaged in (b"", b"PK", b"no zip", whole[:-1], whole[: len(whole) // 2], whole + b"x", whole[:-22] + bytes(22)):
        path.write_bytes(damaged)
        with pytest.raises(BadPhoto, match=r"photos\.zip: not a whole zip file; wanted one as"):
            list_pictures(path)
    path.write_bytes(b"PK\5\6" + bytes(18))  # an empty one
    with pytest.raises(BadPhoto, match=r"photos\.zip: no picture in it"):
        list_pictures(path)
    with pytest.raises(BadPhoto, match=r"gone\.zip: there is no such folder; wanted .* or a \.zip of pictures"):
        list_pictures(tmp_path / "gone.zip")


WHOLE = pack(io.BytesIO(), [("a.png", png(0)), ("b/c.png", png(1))], compression=zipfile.ZIP_DEFLATED).getvalue()


@few(150)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=6), st.booleans())
def test_bent_bytes_give_the_same_photo_or_a_clear_error(tmp_path_factory, changes, at_the_end):
    bent = bytearray(WHOLE)
    for place, value in changes:
        bent[-1 - place % 200 if at_the_end else place] = value
    path = tmp_path_factory.getbasetemp() / "bent.zip"
    path.write_bytes(bent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            paths = ZippedPictures(path)
        except BadPhoto as error:
            assert str(path) in str(error)
            return
        for i in range(len(paths)):
            try:
                assert paths.read(i) in (png(0), png(1))
            except BadPhoto as error:
                assert "bent.zip" in str(error)


def test_files_and_archives_are_the_same_kind_of_sequence(tmp_path):
    save(tmp_path / "a.png", noise_photo(16, 16))
    files = list_pictures(tmp_path)
    zipped = list_pictures(pack(tmp_path / "photos.zip", [("a.png", (tmp_path / "a.png").read_bytes())]))
    assert isinstance(zipped, PictureFiles) and zipped.read(0) == files.read(0)
    assert zipped == [Path(tmp_path, "photos.zip", "a.png")] != files and zipped.state_of(0) != files.state_of(0)
    assert (tmp_path / "a.png").stat().st_size == files.state_of(0)[0] == zipped.state_of(0)[0]
