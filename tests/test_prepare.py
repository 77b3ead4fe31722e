"""prepare.py: an archive is read as its source was, goes on after a kill, and is never finished before it is whole."""

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import signal
import sys
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import BOTH_HOMES, noise_photo, run_python, save, shapes_photo

from edgeconnect_lite import parallel, prepare
from edgeconnect_lite.cli import main
from edgeconnect_lite.listing import BadPhoto, ZippedPictures, list_pictures
from edgeconnect_lite.masks import MaskFolder
from edgeconnect_lite.photos import PhotoFolder, read_photo
from edgeconnect_lite.prepare import Recipe, prepare_archive


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Twelve pictures of all kinds and two that are none, in a tree; the tests work beside it."""
    monkeypatch.chdir(tmp_path)
    for i in range(12):
        name = f"{'ab'[i % 2]}/{i:02d}{['.png', '.jpg', '.webp'][i % 3]}"
        photo = shapes_photo(40 + 9 * i, 150 - 9 * i, i)
        save(Path("photos", name), photo[..., 0] if i == 4 else photo)
    Path("photos/a/broken.jpg").write_text("no picture")
    Path("photos/b/empty.png").touch()
    return Path("photos")


def quiet(photos):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(photos)


def same(found, wanted):
    return len(found) == len(wanted) and all(map(np.array_equal, found, wanted))


def rows(path, name):
    with zipfile.ZipFile(path) as archive:
        return list(csv.reader(io.StringIO(archive.read(name).decode())))[1:]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("size", [32, 128])
def test_an_archive_is_read_bit_for_bit_as_its_source(source, size, workers, monkeypatch, capsys):
    monkeypatch.setattr(parallel, "CHUNK", 3)  # enough pictures for two workers
    main(["prepare", "photos", "--out", "photos.zip", "--size", str(size), "--workers", str(workers)])
    said = capsys.readouterr()
    assert "wrote photos.zip: 12 of 14 pictures\n" in said.out
    assert (
        "skipped: photos/a/broken.jpg: not a picture" in said.err
        and "skipped: photos/b/empty.png: the file" in said.err
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(list(PhotoFolder("photos.zip", size)), quiet(PhotoFolder("photos", size)))
    assert sorted(os.listdir()) == ["photos", "photos.zip"]


def test_other_tools_read_the_archive_and_find_it_whole(source):
    main(["prepare", "photos", "--out", "photos.zip"])
    with zipfile.ZipFile("photos.zip") as archive:
        assert archive.testzip() is None and all(entry.compress_type == 0 for entry in archive.infolist())
        files = {name: archive.read(name) for name in archive.namelist()}
    about = json.loads(files["prepared.json"])
    assert (about["kind"], about["size"], about["pictures"]) == ("photos", 128, 14)
    manifest = rows("photos.zip", "manifest.csv")
    assert [source for _, _, source in manifest] == [
        path.relative_to("photos").as_posix()
        for path in list_pictures("photos")
        if path.stem not in ("broken", "empty")
    ]
    assert all(hashlib.sha256(files[name]).hexdigest() == digest for name, digest, _ in manifest)
    assert set(files) == {name for name, _, _ in manifest} | {"prepared.json", "manifest.csv", "skipped.csv"}
    (broken, why), (empty, _) = rows("photos.zip", "skipped.csv")
    assert (broken, empty) == ("a/broken.jpg", "b/empty.png") and "not a picture" in why


def test_masks_keep_one_bit_and_turn_white_for_hole(source, monkeypatch):
    for i in range(5):
        save(Path(f"qd_imd/train/{i:05d}_train.png"), np.random.default_rng(i).random((64, 64)) < 0.8)  # ties too
        save(Path(f"qd_imd/test/{i:05d}_test.png"), np.random.default_rng(-1 - i + 9).random((64, 64)) < 0.8)
    command = ["prepare", "qd_imd", "--masks", "--invert-masks", "--size", "32", "--out"]
    main([*command, "train.zip"])
    main([*command, "test.zip", "--split", "test"])
    for part in ("train", "test"):
        masks = MaskFolder(f"{part}.zip", 32)
        assert same(list(masks), list(MaskFolder(f"qd_imd/{part}", 32, invert=True)))
        assert 0.05 < np.mean(list(masks)) < 0.4
        assert masks.draw(np.random.default_rng(0)).shape == (32, 32)
        assert all(data[24:26] == b"\1\0" for data in map(masks.paths.read, range(5)))  # PNG's header: 1 bit, gray


# going on


def part_of(path, length):
    Path(f"{path}.part").write_bytes(Path(path).read_bytes()[:length])
    Path(path).unlink()


def test_from_whatever_was_written_the_same_archive_comes(source, capsys):
    main(["prepare", "photos", "--out", "photos.zip"])
    whole = Path("photos.zip").read_bytes()
    at = [entry.header_offset for entry in zipfile.ZipFile("photos.zip").infolist()]
    lengths = [
        0,
        10,
        60,
        at[1],
        at[1] + 29,
        at[5] - 1,
        at[5],
        at[5] + 200,
        at[-2] + 40,
        at[-1],
        len(whole) - 30,
        len(whole),
    ]
    for length in lengths:
        part_of("photos.zip", length)
        capsys.readouterr()
        main(["prepare", "photos", "--out", "photos.zip"])
        assert Path("photos.zip").read_bytes() == whole and not Path("photos.zip.part").exists()
        found = sum(offset <= length for offset in at[2:-1])
        assert (f"{found} of them in an earlier run" if found else "12 of 14 pictures\n") in capsys.readouterr().out


def test_what_a_crash_left_damaged_is_made_again(source):
    main(["prepare", "photos", "--out", "photos.zip"])
    whole = Path("photos.zip").read_bytes()
    at = [entry.header_offset for entry in zipfile.ZipFile("photos.zip").infolist()]
    for damage in (bytes(100), b"PK\3\4" + bytes(96)):  # blocks that never reached the disk
        Path("photos.zip").unlink()
        Path("photos.zip.part").write_bytes(whole[: at[6] + 50] + damage + whole[at[6] + 150 :])
        main(["prepare", "photos", "--out", "photos.zip"])
        assert Path("photos.zip").read_bytes() == whole


def test_a_finished_archive_that_was_damaged_is_made_again(source):
    main(["prepare", "photos", "--out", "photos.zip"])
    whole = Path("photos.zip").read_bytes()
    for damaged in (whole[:-100], whole.replace(b"skipped.csv", b"skipper.csv")):
        Path("photos.zip").write_bytes(damaged)
        main(["prepare", "photos", "--out", "photos.zip"])
        assert Path("photos.zip").read_bytes() == whole


def test_a_picture_twice_in_an_unfinished_archive_is_refused(source):
    main(["prepare", "photos", "--out", "photos.zip"])
    at = [entry.header_offset for entry in zipfile.ZipFile("photos.zip").infolist()]
    whole = Path("photos.zip").read_bytes()
    again = whole[: at[2]] + whole[at[1] : at[2]]
    beyond = whole[: at[1]] + whole[at[1] : at[2]].replace(b"00000000", b"00000014")
    for begun in (again, beyond):
        Path("photos.zip").unlink(missing_ok=True)
        Path("photos.zip.part").write_bytes(begun)
        with pytest.raises(SystemExit, match=r"photos\.zip\.part: damaged at .*; delete it to begin anew"):
            main(["prepare", "photos", "--out", "photos.zip"])
        assert Path("photos.zip.part").read_bytes() == begun


def test_interrupted_it_says_that_it_goes_on(source, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "in_order", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(
            SystemExit, match=r"interrupted; photos\.zip\.part keeps what is done, the same command goes on"
        ):
            main(["prepare", "photos", "--out", "photos.zip"])
    main(["prepare", "photos", "--out", "photos.zip"])
    assert len(ZippedPictures("photos.zip")) == 12


def test_an_unfinished_archive_is_none(source):
    main(["prepare", "photos", "--out", "photos.zip"])
    part_of("photos.zip", 3000)
    with pytest.raises(BadPhoto, match="there is no such folder"):
        PhotoFolder("photos.zip.part")
    Path("photos.zip.part").rename("renamed.zip")
    with pytest.raises(BadPhoto, match="not a whole zip file"):
        PhotoFolder("renamed.zip")


def test_a_finished_archive_is_made_again_only_if_its_source_changed(source, capsys, monkeypatch):
    main(["prepare", "photos", "--out", "photos.zip"])
    before = Path("photos.zip").stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "pack", None)
        main(["prepare", "photos", "--out", "photos.zip"])
    said = capsys.readouterr()
    assert Path("photos.zip").stat().st_mtime_ns == before and "12 of them in an earlier run" in said.out
    assert said.err.count("skipped: photos/a/broken.jpg") == 2
    save(source / "a/broken.jpg", noise_photo(40, 40))
    main(["prepare", "photos", "--out", "photos.zip"])
    assert "13 of 14 pictures\n" in capsys.readouterr().out and len(ZippedPictures("photos.zip")) == 13


@pytest.mark.parametrize("change", [["--size", "64"], ["--masks"], "source"])
def test_an_archive_begun_otherwise_is_not_gone_on_with_and_not_lost(source, change):
    main(["prepare", "photos", "--out", "photos.zip"])
    part_of("photos.zip", 3000)
    before = Path("photos.zip.part").read_bytes()
    options = [] if change == "source" else change
    if change == "source":
        save(source / "new.png", noise_photo(20, 20))
    with pytest.raises(SystemExit, match=r"photos\.zip\.part: begun from other pictures, .*delete it to begin anew"):
        main(["prepare", "photos", "--out", "photos.zip", *options])
    assert Path("photos.zip.part").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        (["--size", "64"], "masks of 32 px, not masks of 64 px"),
        ([], "masks of 32 px, not masks of 32 px (inverted)"),
        ("photos", "masks of 32 px, not photos of 32 px"),
    ],
)
def test_a_finished_archive_of_another_kind_is_not_written_over(source, change, holds):
    command = ["prepare", "photos", "--size", "32", "--out", "a.zip"]
    main([*command, "--masks"])
    before = Path("a.zip").read_bytes()
    options = [] if change == "photos" else ["--masks", *(change or ["--invert-masks"])]
    with pytest.raises(SystemExit, match=re.escape(f"a.zip: holds {holds}; delete it, or give another --out")):
        main([*command, *options])
    assert Path("a.zip").read_bytes() == before and sorted(os.listdir()) == ["a.zip", "photos"]


@pytest.mark.parametrize("name", ["mine.zip", "mine.zip.part"])
def test_what_prepare_did_not_make_is_not_written_over(source, name):
    with zipfile.ZipFile(name, "w") as mine:
        mine.writestr("holiday.png", bytes(5000))
    before = Path(name).read_bytes()
    with pytest.raises(SystemExit, match=f"{name}: holds something that `prepare` did not make; wanted another --out"):
        main(["prepare", "photos", "--out", "mine.zip"])
    assert Path(name).read_bytes() == before


KILLED = """
import os, pathlib, signal
from edgeconnect_lite import listing, parallel, prepare
from edgeconnect_lite.zips import ZipWriter

def add(self, name, data, add=ZipWriter.add):
    add(self, name, data)
    if len(self.directory) > 300:  # a few pictures
        self.file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

ZipWriter.add, parallel.CHUNK = add, 2
prepare.prepare_archive(listing.list_pictures("photos"), pathlib.Path("photos.zip"), prepare.Recipe(), 2)
"""


def children_of(mark):
    """The processes whose environment holds the mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes():
                found.append(folder.name)
        except OSError:
            pass
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="no CUDA GPU: /proc and SIGKILL are Linux's")
def test_killed_with_its_workers_at_work_it_leaves_none_and_goes_on(source, tmp_path):
    main(["prepare", "photos", "--out", "wanted.zip"])
    mark = f"PREPARE_TEST={tmp_path}"
    done = run_python(KILLED, tmp_path, BOTH_HOMES, PREPARE_TEST=str(tmp_path))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not Path("photos.zip").exists() and Path("photos.zip.part").stat().st_size
    main(["prepare", "photos", "--out", "photos.zip"])
    assert Path("photos.zip").read_bytes() == Path("wanted.zip").read_bytes()
    for _ in range(100):
        if not children_of(mark.encode()):
            break
        time.sleep(0.1)
    assert not children_of(mark.encode())


def test_a_full_disk_keeps_what_is_done(source, monkeypatch):
    main(["prepare", "photos", "--out", "wanted.zip"])
    with monkeypatch.context() as patch:
        room = iter(range(6))

        def add(self, name, data, add=prepare.ZipWriter.add):
            if next(room, None) is None:
                raise OSError(28, "No space left on device")
            add(self, name, data)

        patch.setattr(prepare.ZipWriter, "add", add)
        with pytest.raises(
            SystemExit, match=r"photos\.zip\.part: cannot be written \(No space left on device\); what is done"
        ):
            main(["prepare", "photos", "--out", "photos.zip"])
    assert not Path("photos.zip").exists()
    report = prepare_archive(list_pictures("photos"), Path("photos.zip"), Recipe())
    assert (report.found, report.stored) == (5, 12)
    assert Path("photos.zip").read_bytes() == Path("wanted.zip").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="no CUDA GPU: no locks there")
def test_two_at_once_do_not_mix(source, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with (
        prepare._alone_in(Path("photos.zip.part")),
        pytest.raises(SystemExit, match="another process is preparing it now"),
    ):
        main(["prepare", "photos", "--out", "photos.zip"])
    main(["prepare", "photos", "--out", "photos.zip"])


@pytest.mark.skipif(os.name != "posix", reason="no CUDA GPU: no locks there")
def test_one_that_waited_until_another_was_done_leaves_its_archive_alone(source, monkeypatch):
    main(["prepare", "photos", "--out", "photos.zip"])
    whole = Path("photos.zip").read_bytes()
    part_of("photos.zip", len(whole))
    other = contextlib.ExitStack()
    other.enter_context(prepare._alone_in(Path("photos.zip.part")))

    def finish(seconds):
        os.replace("photos.zip.part", "photos.zip")
        other.close()

    monkeypatch.setattr("time.sleep", finish)
    with pytest.raises(
        SystemExit, match=r"zip\.part: another process has just finished it; give the same command again"
    ):
        main(["prepare", "photos", "--out", "photos.zip"])
    assert Path("photos.zip").read_bytes() == whole


@pytest.mark.skipif(os.name != "posix", reason="no CUDA GPU: no locks there")
def test_the_archive_gets_its_name_while_nobody_else_can_hold_it(source, monkeypatch):
    seen = []

    def rename(old, new, replace=os.replace):
        if Path(new).name == "photos.zip":
            with pytest.raises(RuntimeError, match="preparing it now"), prepare._alone_in(Path(old)):
                pass
            seen.append(new)
        replace(old, new)

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(os, "replace", rename)
    main(["prepare", "photos", "--out", "photos.zip"])
    assert len(seen) == 1 and len(ZippedPictures("photos.zip")) == 12


def end_the_process(index):
    os._exit(1) if index == 40 else None


def test_a_worker_that_is_ended_is_said():
    with pytest.raises(RuntimeError, match="a worker process was ended"):
        list(parallel.in_order(end_the_process, range(100), 2))


def test_results_come_in_order_from_several_processes():
    assert list(parallel.in_order(abs, np.arange(-300, 0), 2)) == [(i, -i) for i in range(-300, 0)]


# the command


def test_an_archive_can_be_the_source(source):
    main(["prepare", "photos", "--out", "photos.zip", "--size", "128"])
    main(["prepare", "photos.zip", "--out", "small.zip", "--size", "32"])
    assert same(list(PhotoFolder("small.zip", 32)), list(PhotoFolder("photos.zip", 32)))
    with pytest.raises(SystemExit, match=r"photos\.zip is the source; wanted another --out"):
        main(["prepare", "photos.zip", "--out", "photos.zip"])
    with pytest.raises(SystemExit, match=r"photos\.zip: a list names files; wanted a folder"):
        main(["prepare", "photos.zip", "--out", "list.txt"])


def test_a_list_holds_only_what_it_can_give_back(source):
    save(source / "#1 odd.jpg.png", noise_photo(8, 8))
    Path("photos/two\nlines.png").write_bytes(Path("photos/#1 odd.jpg.png").read_bytes())
    main(["prepare", "photos", "--out", "photos/list.txt", "--workers", "2"])
    paths = list_pictures("photos/list.txt")
    assert len(paths) == 13 and [path for path in paths if "odd" in path.name] == [Path("photos/#1 odd.jpg.png")]
    assert all(read_photo(path).ndim == 3 for path in paths)


@pytest.mark.skipif(sys.platform == "win32", reason="no CUDA GPU: links need rights there")
def test_a_list_in_a_linked_folder_names_files_that_are_there(source):
    os.makedirs("deep/inner")
    os.symlink("deep/inner", "link")
    os.symlink(source, "faces")
    main(["prepare", "photos", "--out", "link/list.txt"])
    paths = list_pictures("link/list.txt")
    assert len(paths) == 12 and all(path.is_file() for path in paths)
    main(["prepare", "faces", "--out", "faces/list.txt"])  # can be moved with its folder
    assert "a/00.png" in Path("photos/list.txt").read_text().splitlines()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["none", "--out", "a.zip"], "none: there is no such folder"),
        (["photos", "--out", "a.tar"], r"a\.tar: cannot write this kind of file; wanted an ending of \.txt, \.zip"),
        (["photos", "--out", "a.zip", "--size", "8"], "--size is 8 .*wanted 16 to 4096"),
        (["photos", "--out", "a.zip", "--split", "test"], "split is 'test', and photos is no data set with parts"),
        (
            ["photos", "--out", "a.zip", "--split", "test", "--masks"],
            "--split is test; wanted, of masks, train or test",
        ),
        (["bad", "--out", "a.zip"], r"none of the 1 pictures can be read, beginning with bad/a\.png"),
    ],
)
def test_prepare_says_what_was_wanted_and_leaves_nothing(source, words, wanted):
    Path("bad").mkdir()
    Path("bad/a.png").touch()
    with pytest.raises(SystemExit, match=wanted):
        main(["prepare", *words])
    assert sorted(os.listdir()) == ["bad", "photos"]
