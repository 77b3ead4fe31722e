"""trees.py: every picture of a tree, in the order of before, and a stored list that is never an old one."""

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import few
from hypothesis import given
from hypothesis import strategies as st

from edgeconnect_lite import trees
from edgeconnect_lite.listing import BrokenPhotoWarning, PictureFiles, list_pictures
from edgeconnect_lite.trees import EXTENSIONS, Names, cached_walk, walk

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")


def grow(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"some")
    return root


@few(50)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8)), st.data())
def test_names_are_kept_and_taken(names, data):
    packed = Names(names)
    assert list(packed) == names
    if names:
        chosen = data.draw(st.lists(st.integers(0, len(names) - 1)))
        assert PictureFiles(packed.take(np.array(chosen, int))) == [Path(names[i]) for i in chosen]
        assert PictureFiles(packed)[1:-1] == [Path(name) for name in names[1:-1]]


def test_a_name_that_is_no_text_is_kept(tmp_path):
    odd = os.fsdecode(b"odd-\xff.png")
    assert Names([odd])[0] == odd


parts = st.text("ab-.Z1", min_size=1, max_size=4).filter(lambda part: part.strip("."))


@few(40)
@given(st.sets(st.tuples(st.lists(parts, max_size=3), st.sampled_from([*EXTENSIONS, ".JPG", ".txt", ""])).map(
    lambda made: "/".join([*made[0], f"x{made[1]}"])), max_size=12))  # fmt: skip
def test_a_walk_finds_what_pathlib_finds_in_its_order(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("tree")
    for name in names:
        if not any(other.startswith(f"{name}/") for other in names):  # else it is a folder
            grow(root, name)
    wanted = sorted(path for path in root.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    found = walk(root)
    assert PictureFiles(found.names, root) == wanted and found.notes == []
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    assert set(map(root.joinpath, found.folders)) == set(folders)
    times = [[folder.stat().st_mtime_ns, folder.stat().st_ctime_ns] for folder in map(root.joinpath, found.folders)]
    assert found.changed.tolist() == times


@needs_links
def test_links_to_folders_are_named_and_not_followed(tmp_path):
    outside = grow(tmp_path / "outside", "private.jpg")
    root = grow(tmp_path / "data", "a.jpg", "in/b.jpg")
    (root / "in/back").symlink_to(root)  # a cycle
    (root / "in/itself").symlink_to("itself")
    (root / "elsewhere").symlink_to(outside)
    (root / "linked.jpg").symlink_to(outside / "private.jpg")
    (root / "dead.jpg").symlink_to("nowhere.jpg")
    with pytest.warns(BrokenPhotoWarning, match=r"data: 2 linked folders are not followed, beginning with elsewhere"):
        paths = list_pictures(root)
    assert paths == [root / "a.jpg", root / "in/b.jpg", root / "linked.jpg"]
    (tmp_path / "link").symlink_to(outside)
    assert list_pictures(tmp_path / "link") == [tmp_path / "link/private.jpg"]  # what the user names himself


@pytest.mark.skipif(sys.platform == "win32", reason="other rights there")
def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    root = grow(tmp_path, "a.jpg", "shut/b.jpg", "tree.jpg")

    def scandir(path, scan=os.scandir):  # root may read everything: so not by its mode
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr("os.scandir", scandir)
    with pytest.warns(BrokenPhotoWarning, match=r"1 folders cannot be read, beginning with shut \(Permission denied\)"):
        assert list_pictures(root) == [root / "a.jpg", root / "tree.jpg"]


def test_a_deep_tree_is_walked(tmp_path):
    deep = tmp_path
    for _ in range(150):
        deep = deep / "d"
    grow(tmp_path, (deep / "x.png").relative_to(tmp_path).as_posix())
    assert len(walk(tmp_path).names) == 1


# the cache


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECONNECT_LISTS", str(tmp_path / "cache"))
    monkeypatch.setattr(trees, "CACHED_FROM", 2)
    monkeypatch.setattr(trees, "SETTLED", -(10**9))  # as if seconds had passed since the last change
    return tmp_path / "cache"


@pytest.fixture
def tree(tmp_path):
    return grow(tmp_path / "data", "a.png", "in/b.png", "in/deep/c.png")


def listed(root):
    names, notes = cached_walk(root)
    return [name.replace(os.sep, "/") for name in names], notes


ALL = ["a.png", "in/b.png", "in/deep/c.png"]


def test_a_list_is_stored_and_taken_from_the_cache(cache, tree, monkeypatch):
    assert listed(tree) == (ALL, [])
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(trees, "walk", None)  # a second walk would fail
    assert listed(tree) == (ALL, [])
    monkeypatch.chdir(tree.parent)
    assert listed(Path("data")) == (ALL, [])
    monkeypatch.setenv("EDGECONNECT_LISTS", "off")
    with pytest.raises(TypeError):
        listed(tree)


@pytest.mark.parametrize("change", ["added", "deep", "removed", "renamed", "folder", "mtime set back"])
def test_a_changed_tree_is_listed_anew(cache, tree, change):
    listed(tree)
    before = {folder: folder.stat() for folder in (tree, tree / "in", tree / "in/deep")}
    if change in ("added", "mtime set back"):
        grow(tree, "new.png")
    if change == "mtime set back":  # as rsync and tar do
        os.utime(tree, ns=(before[tree].st_atime_ns, before[tree].st_mtime_ns))
    if change == "deep":
        grow(tree, "in/deep/new.png")
    if change == "removed":
        (tree / "in/b.png").unlink()
    if change == "renamed":
        (tree / "in/deep/c.png").rename(tree / "in/deep/d.png")
    if change == "folder":
        grow(tree, "new/new.png")
    wanted = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*.png"))
    assert listed(tree)[0] == sorted(wanted, key=lambda name: name.split("/")) != ALL
    assert listed(tree)[0] == sorted(wanted, key=lambda name: name.split("/"))


def test_a_list_of_a_tree_that_changed_just_now_is_not_kept(cache, tree, monkeypatch):
    monkeypatch.setattr(trees, "SETTLED", 2 * 10**9)
    listed(tree)
    assert not cache.exists()


def test_short_lists_are_not_kept(cache, tree, monkeypatch):
    monkeypatch.setattr(trees, "CACHED_FROM", 4)
    listed(tree)
    assert not cache.exists()


def test_whatever_is_wrong_with_the_cache_the_tree_is_listed(cache, tree):
    listed(tree)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for damage in (b"", b"junk", whole[:-30], whole[: len(whole) // 2], pickle.dumps({"names": 1})):
        file.write_bytes(damage)
        assert listed(tree) == (ALL, [])
    for _ in range(100):
        bent = bytearray(whole)
        bent[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        file.write_bytes(bent)
        assert listed(tree) == (ALL, [])
    for end in (3, 5):  # no folder whose change would show; a name longer than the text
        parts = {"names_text": np.zeros(3), "names_ends": [end], "folders_text": [], "folders_ends": [], "changed": []}
        np.savez(file, notes="[]", **parts)
        assert listed(tree) == (ALL, [])


def test_without_a_place_to_write_there_is_no_cache(tree, monkeypatch, tmp_path, cache):
    cache.write_text("a file where the folder should be")
    assert listed(tree) == (ALL, []) == listed(tree)
    assert cache.read_text() == "a file where the folder should be"


def test_notes_are_kept_with_the_list(cache, tree):
    (tree / "in/back").symlink_to(tree)
    assert listed(tree)[1] == listed(tree)[1] != []


def test_only_the_newest_lists_are_kept(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(trees, "KEPT_LISTS", 3)
    for i in range(5):
        listed(grow(tmp_path / f"data{i}", "a.png", "b.png"))
    assert len(list(cache.iterdir())) == 3
