"""Listing: from what the user named (a folder, a text list, a zip archive, paths) to a sequence of picture files.

`paths[i]` is a path and `paths.read(i)` its content, on disk or in an archive; photos.PhotoFolder and masks.MaskFolder read so.
Of an archive nothing is believed: every length is held against the file's, and each picture against its CRC when it is read.
Nothing is ever extracted to disk.
"""

import os
import re
import stat
import struct
import warnings
import weakref
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self, overload

import numpy as np

from edgeconnect_lite.trees import EXTENSIONS, Names, cached_walk, is_picture
from edgeconnect_lite.zips import DEFLATED, LOCAL, STORED, BadZip, Entry, entries_of

LARGEST_PICTURE = 256 << 20  # bytes of one file, packed or unpacked: far more than a photo has
LONGEST_NAME = 1024
_LABELLED = re.compile(rf"(.*(?:{'|'.join(map(re.escape, EXTENSIONS))}))\s+\S.*", re.IGNORECASE)


class BadPhoto(ValueError):
    """A photo that cannot be read or has the wrong form; the message names it and says what was wanted."""


class BrokenPhotoWarning(UserWarning):
    """A photo of a data set could not be read and was skipped; the message names it."""


def read_bytes(path: str | Path) -> bytes:
    """The content of a file. Raises BadPhoto, naming it: for a pipe or a device too, which might never end."""
    try:
        if stat.S_ISFIFO(mode := os.stat(path).st_mode) or stat.S_ISCHR(mode):
            raise OSError(0, "a pipe or a device; wanted a file")
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise BadPhoto(f"{path}: there is no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise BadPhoto(f"{path}: cannot be read ({getattr(error, 'strerror', error)})") from None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without what stands blank. Raises BadPhoto, naming it."""
    try:
        lines = read_bytes(path).decode("utf-8-sig").replace("\r", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise BadPhoto(f"{path}: no text ({error.reason} at byte {error.start}); wanted UTF-8") from None
    return [line.strip() for line in lines if line.strip()]


class PictureFiles(Sequence[Path]):
    """Files on disk: `paths[i]` is a path, `paths.read(i)` its content. root: where relative names count from."""

    def __init__(self, names: Names | Iterable[str], root: str | Path = ""):
        self.names = names if isinstance(names, Names) else Names(names)
        self.root = os.fspath(root)

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.take(index)
        return Path(self.root, self.names[index])

    def __iter__(self) -> Iterator[Path]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other))

    __hash__ = None  # type: ignore[assignment]

    def take(self, chosen: slice | np.ndarray) -> Self:
        """Some of the files, in another order if need be."""
        return type(self)(self.names.take(chosen), self.root)  # type: ignore[return-value]

    def read(self, index: int) -> bytes:
        """The content of one file. Raises BadPhoto, naming it: a list may name a pipe, which would never end."""
        path = self[index]
        try:
            state = os.stat(path)
        except (OSError, ValueError):
            return read_bytes(path)  # it says what is wrong
        if not stat.S_ISREG(state.st_mode) or state.st_size > LARGEST_PICTURE:
            raise BadPhoto(f"{path}: cannot be read (no file, or larger than {LARGEST_PICTURE >> 20} MiB)")
        return read_bytes(path)

    def state_of(self, index: int) -> tuple[int, ...]:
        """What changes when the file does."""
        try:
            state = os.stat(self[index])
        except (OSError, ValueError):
            return (0, 0)
        return state.st_size, state.st_mtime_ns


class LeftOut(dict[str, tuple[int, str]]):
    """Reason -> how many were left out for it, and the first of them."""

    def add(self, reason: str, name: str) -> None:
        count, first = self.get(reason, (0, name))
        self[reason] = count + 1, first

    def __str__(self) -> str:
        return "; ".join(f"{count} ({reason}), beginning with {first!r}" for reason, (count, first) in self.items())


class ZippedPictures(PictureFiles):
    """The pictures of a zip file, sorted by name; `paths[i]` is the zip's path with the entry's name after it.

    What is no picture is passed over; pictures that cannot be taken (encrypted, links, too large, of another's name, ...)
    are named in one BrokenPhotoWarning. Each process opens the file for itself. Raises BadPhoto if it is no whole zip file.
    """

    def __init__(self, path: str | Path):
        columns, left_out = array("q"), LeftOut()

        def taken() -> Iterator[str]:
            for entry in entries_of(path):
                if not is_picture(entry.name) or entry.name.startswith("__MACOSX/"):
                    continue
                if fault := _fault(entry):
                    left_out.add(fault, entry.name)
                else:
                    columns.extend((entry.offset, entry.packed, entry.size, entry.crc, entry.method))
                    yield entry.name

        try:
            super().__init__(Names(taken()), path)
        except BadZip as error:
            raise BadPhoto(str(error)) from None
        except OSError as error:
            raise BadPhoto(f"{path}: cannot be read ({error.strerror})") from None
        self.table = np.asarray(columns, np.int64).reshape(-1, 5)
        self._file: int | None = None
        self._sort(left_out)
        if left_out:
            warnings.warn(f"{path}: pictures left out: {left_out}", BrokenPhotoWarning, stacklevel=4)

    def _sort(self, left_out: LeftOut) -> None:
        """By name, folder by folder, as a tree is listed; of several entries of one name the first stays."""
        before: list[str] | None = None
        for i in range(len(self)):  # what prepare made is in order
            name = self.names[i].split("/")
            if before is not None and name <= before:
                break
            before = name
        else:
            return
        order = sorted(range(len(self)), key=lambda i: self.names[i].split("/"))
        kept = []
        for i in order:
            if kept and self.names[i] == self.names[kept[-1]]:
                left_out.add("the name of another entry", self.names[i])
            else:
                kept.append(i)
        self.names, self.table = self.names.take(np.array(kept)), self.table[kept]

    def take(self, chosen: slice | np.ndarray) -> Self:
        """Some of the pictures, in another order if need be."""
        some = object.__new__(type(self))
        some.__dict__ |= self.__getstate__() | {"names": self.names.take(chosen), "table": self.table[chosen]}
        return some

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_file": None}

    def state_of(self, index: int) -> tuple[int, ...]:
        """What changes when the picture does."""
        return tuple(self.table[index, 2:4].tolist())

    def read(self, index: int) -> bytes:
        """The content of one picture, held against its checksum. Raises BadPhoto, naming it."""
        offset, packed, size, crc, method = self.table[index].tolist()
        try:
            header = LOCAL.unpack(self._read_at(offset, LOCAL.size))
            data = self._read_at(offset + LOCAL.size + header[9] + header[10], packed)
            if method == DEFLATED:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
        except (struct.error, zlib.error):
            raise BadPhoto(f"{self[index]}: broken in the archive") from None
        except OSError as error:
            raise BadPhoto(f"{self[index]}: cannot be read ({error.strerror})") from None
        if header[0] != b"PK\3\4" or len(data) != size or zlib.crc32(data) != crc:
            raise BadPhoto(f"{self[index]}: broken in the archive: not what its checksum says")
        return data

    def _read_at(self, offset: int, size: int) -> bytes:
        if not hasattr(os, "pread"):  # Windows
            with open(self.root, "rb") as file:
                file.seek(offset)
                return file.read(size)
        if self._file is None:  # pread has no file position: threads and forked workers may share this
            self._file = os.open(self.root, os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)
        return os.pread(self._file, size, offset)


def _fault(entry: Entry) -> str | None:
    """Why a picture of an archive is not taken, or None."""
    parts = entry.name.replace("\\", "/").split("/")
    if "\0" in entry.name or len(entry.name) > LONGEST_NAME:
        return f"a name with a null byte or of more than {LONGEST_NAME} letters"
    if parts[0] == "" or ".." in parts or ":" in parts[0]:
        return "a name that leads elsewhere"
    if stat.S_ISLNK(entry.mode):
        return "links"
    if entry.flags & 0x41:  # bits 0 and 6
        return "encrypted"
    if entry.method not in (STORED, DEFLATED):
        return f"packed by method {entry.method}; wanted stored or deflated"
    if entry.offset < 0 or max(entry.packed, entry.size) > LARGEST_PICTURE:
        return f"larger than {LARGEST_PICTURE >> 20} MiB or than the file"
    return None


def list_pictures(source: str | Path | Iterable[str | Path]) -> PictureFiles:
    """The picture files of a folder tree (sorted), of a .txt list, of a .zip archive, or of an iterable of paths.

    They are not read yet. Raises BadPhoto if there is none.
    """
    if isinstance(source, PictureFiles):
        return source
    if not isinstance(source, str | Path):
        paths = PictureFiles(os.fspath(path) for path in source)
    elif os.path.isdir(source):  # unlike pathlib's, no error for a name that is too long
        names, notes = cached_walk(Path(source))
        paths = PictureFiles(names, source)
        for note in notes:
            warnings.warn(f"{source}: {note}", BrokenPhotoWarning, stacklevel=3)
    elif Path(source).suffix.lower() == ".txt" and os.path.isfile(source):
        paths = read_list(Path(source))
    elif Path(source).suffix.lower() == ".zip" and os.path.isfile(source):
        paths = ZippedPictures(source)
    else:
        raise BadPhoto(
            f"{source}: there is no such folder; wanted a folder of pictures, a .txt list of files, or a .zip of pictures"
        )
    if not paths:
        raise BadPhoto(f"{source}: no picture in it; wanted files ending in {', '.join(EXTENSIONS)}")
    return paths


def read_list(path: Path) -> PictureFiles:
    """A text file: one path a line, spaces allowed, labels after it ignored; lines that begin with # are comments.

    Relative paths count from the list's folder. Where none of the first ten is there, they are looked for in the folders
    beside the list, a leading / ignored: Places365's own lists say /a/airfield/00000001.jpg 0, and mean data_256/a/...
    """
    names = Names(_without_label(line) for line in read_lines(path) if not line.startswith("#"))
    first = [names[i] for i in range(min(10, len(names)))]
    if first and not any(os.path.isfile(path.parent / name) for name in first):
        beside = sorted(folder for folder in path.parent.iterdir() if folder.is_dir())
        for folder in [path.parent, *beside]:
            if any(os.path.isfile(folder / name.lstrip("/")) for name in first):
                return PictureFiles((names[i].lstrip("/") for i in range(len(names))), folder)
    return PictureFiles(names, path.parent)


def _without_label(line: str) -> str:
    if is_picture(line):
        return line
    labelled = _LABELLED.fullmatch(line)
    return labelled[1] if labelled else line
