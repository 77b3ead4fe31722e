"""Trees: which pictures a folder tree holds, found quickly, held in little memory, and known again the next time.

The first thing that a folder of 200,000 pictures meets; listing.py makes paths of the names.
"""

import contextlib
import hashlib
import json
import os
import time
import uuid
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import platformdirs

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
CACHED_FROM = 2000  # pictures; shorter lists are walked again each time
KEPT_LISTS = 32
SETTLED = 2_000_000_000  # ns without a change before a list is kept: the coarsest clock of a file system


def is_picture(name: str) -> bool:
    """By its ending."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS


class Names:
    """Many file names in three flat buffers: a Python object for each would cost ten times the memory, in each worker."""

    def __init__(self, names: Iterable[str] = ()):
        text, ends = bytearray(), array("q")
        for name in names:
            text += os.fsencode(name)
            ends.append(len(text))
        self.text = bytes(text)
        self.ends = np.asarray(ends, np.int64)
        self.starts = np.concatenate([np.zeros(1, np.int64), self.ends])[:-1]

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        return os.fsdecode(self.text[self.starts[index] : self.ends[index]])

    def take(self, chosen: slice | np.ndarray) -> "Names":
        """Some of them, in another order if need be; the text is shared."""
        some = Names()
        some.text, some.starts, some.ends = self.text, self.starts[chosen], self.ends[chosen]
        return some


class Walk(NamedTuple):
    """What one walk of a tree found."""

    names: Names  # of the pictures, relative to the root, sorted folder by folder
    folders: Names  # relative too, the root first
    changed: np.ndarray  # int64 (folders, 2): when each was last changed, by its mtime and ctime, in ns
    notes: list[str]  # what was left out


def walk(root: Path) -> Walk:
    """Every picture of a folder tree. Links to files are followed; links to folders inside the tree are not, and are named.

    So a link that leads back cannot make it endless, and a data set cannot bring in what lies elsewhere on the machine.
    """
    folders, changed, linked, shut = [""], array("q"), [], []

    def entries(folder: str) -> Iterator[str]:
        """One folder's pictures and, where they stand among them, those of its folders."""
        place, found, inner = os.path.join(root, folder), [], set()
        try:
            state = os.stat(place)  # before the listing: a later change shows
            changed.extend((state.st_mtime_ns, state.st_ctime_ns))
            with os.scandir(place) as listed:
                for entry in listed:
                    if entry.is_dir(follow_symlinks=False):
                        inner.add(entry.name)
                        found.append(entry.name)
                    elif entry.is_symlink():
                        if os.path.isdir(entry.path):
                            linked.append(os.path.join(folder, entry.name))
                        elif is_picture(entry.name) and os.path.isfile(entry.path):
                            found.append(entry.name)
                    elif is_picture(entry.name) and entry.is_file():
                        found.append(entry.name)
        except OSError as error:
            changed.extend([0] * (2 * len(folders) - len(changed)))
            shut.append(f"{folder or '.'} ({error.strerror})")
        for name in sorted(found):
            yield os.path.join(folder, name) if name not in inner else os.path.join(folder, name, "")

    def pictures() -> Iterator[str]:
        open_folders = [entries("")]
        while open_folders:
            name = next(open_folders[-1], None)
            if name is None:
                open_folders.pop()
            elif name.endswith(os.sep):
                folders.append(name.rstrip(os.sep))
                open_folders.append(entries(folders[-1]))
            else:
                yield name

    names = Names(pictures())
    notes = [
        f"{len(found)} {what}, beginning with {min(found)}"
        for what, found in (("linked folders are not followed", linked), ("folders cannot be read", shut))
        if found
    ]
    return Walk(names, Names(folders), np.asarray(changed, np.int64).reshape(-1, 2), notes)


def cached_walk(root: Path) -> tuple[Names, list[str]]:
    """`walk`'s names and notes, for a large tree from the user's cache folder while no folder of the tree has changed.

    The cache is ~/.cache/edgeconnect-lite/lists (or where the system keeps such, XDG_CACHE_HOME); EDGECONNECT_LISTS
    names another folder, EDGECONNECT_LISTS=off switches it off. A file that is added, removed or renamed changes its folder.
    """
    place = os.environ.get("EDGECONNECT_LISTS") or platformdirs.user_cache_path("edgeconnect-lite") / "lists"
    file = Path(place, hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32] + ".npz")
    off = str(place).lower() == "off"
    if not off and (known := _load(file, root)) is not None:
        return known
    began = time.time_ns()
    found = walk(root)
    # a folder that changed just now may change once more within the same tick of its clock
    settled = found.changed.min() > 0 and found.changed.max() < began - SETTLED
    if not off and settled and len(found.names) >= CACHED_FROM:
        _store(file, found)
    return found.names, found.notes


def _load(file: Path, root: Path) -> tuple[Names, list[str]] | None:
    """The stored list, or None where there is none, or it is broken, or the tree has changed."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            names, folders = (_unpack(stored[f"{what}_text"], stored[f"{what}_ends"]) for what in ("names", "folders"))
            changed, notes = stored["changed"], json.loads(str(stored["notes"]))
        if len(changed) != len(folders) or not len(changed):
            return None
        for i, (mtime, ctime) in enumerate(changed):
            state = os.stat(os.path.join(root, folders[i]))
            if (state.st_mtime_ns, state.st_ctime_ns) != (mtime, ctime):
                return None
        return names, list(map(str, notes))
    except Exception:  # whatever is wrong with a cache: the tree is there
        return None


def _unpack(text: np.ndarray, ends: np.ndarray) -> Names:
    names = Names()
    names.text, names.ends = text.astype(np.uint8).tobytes(), ends.astype(np.int64)
    names.starts = np.concatenate([np.zeros(1, np.int64), names.ends])[:-1]
    if len(ends) and (ends[-1] != len(names.text) or (names.ends < names.starts).any()):
        raise ValueError("the ends do not fit the text")
    return names


def _store(file: Path, found: Walk) -> None:
    """Keep a list, whole or not at all, and only the newest few. A folder that cannot be written means no cache."""
    temporary = file.with_name(f"{uuid.uuid4().hex}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        parts = {"names": found.names, "folders": found.folders}
        arrays = {f"{what}_text": np.frombuffer(names.text, np.uint8) for what, names in parts.items()}
        arrays |= {f"{what}_ends": names.ends for what, names in parts.items()}
        arrays |= {"changed": found.changed, "notes": np.array(json.dumps(found.notes))}
        with temporary.open("wb") as target:
            np.savez(target, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, file)
        for old in sorted(file.parent.glob("*.npz"), key=os.path.getmtime)[:-KEPT_LISTS]:
            old.unlink()
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
