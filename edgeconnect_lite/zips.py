"""Zips: the zip format, read without belief and written so that it can be gone on with (PKWARE's APPNOTE.TXT, section 4.3).

Python's zipfile keeps an object for each entry (115 MB and two seconds for 200,000), and cannot continue what was killed. Here
a reader of the central directory gives one entry at a time, and the writer keeps the directory as the bytes that it will be.
listing.py makes a sequence of pictures of the one, prepare.py an archive with the other.
"""

import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

LARGEST_DIRECTORY = 1 << 30  # bytes: of about ten million entries
STORED, DEFLATED = 0, 8

LOCAL, _CENTRAL, _END = struct.Struct("<4s5H3I2H"), struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s4H2IH")
_END_64, _LOCATOR = struct.Struct("<4sQ2H2I4Q"), struct.Struct("<4sIQI")
_FULL = 0xFFFFFFFF  # of a 32-bit field: the value stands in a zip64 field


class Entry(NamedTuple):
    """One line of a central directory."""

    name: str
    flags: int
    method: int
    crc: int
    packed: int  # bytes in the file
    size: int  # bytes unpacked
    mode: int  # Unix file mode, 0 = unknown
    offset: int  # where its local header begins


class BadZip(ValueError):
    """This is no whole zip file."""


def entries_of(path: str | Path) -> Iterator[Entry]:
    """The central directory of a zip file, entry by entry. What reaches beyond the file has the offset -1.

    Raises BadZip if this is no whole zip file, OSError if it cannot be read.
    """
    broken = BadZip(f"{path}: not a whole zip file; wanted one as `edgeconnect-lite prepare` writes it")
    with open(path, "rb") as file:
        length = file.seek(0, os.SEEK_END)
        end, size, offset = _find_directory(file, length) or (0, -1, 0)
        if not 0 <= size <= min(end, LARGEST_DIRECTORY):
            raise broken
        file.seek(end - size)
        directory = file.read(size)
    place, moved = 0, end - size - offset  # more than 0 where something was put before the archive
    while place < len(directory):
        try:
            (mark, _, _, flags, method, _, _, crc, packed, whole, *lengths, _, _, attributes, at) = (
                _CENTRAL.unpack_from(directory, place)
            )
            rest = directory[place + _CENTRAL.size : place + _CENTRAL.size + sum(lengths)]
            if mark != b"PK\1\2" or len(rest) < sum(lengths):
                raise broken
            if _FULL in (packed, whole, at):
                whole, packed, at = _wide(rest[lengths[0] : lengths[0] + lengths[1]], whole, packed, at)
        except struct.error:
            raise broken from None
        name = rest[: lengths[0]].decode("utf-8" if flags & 0x800 else "cp437", "replace")
        within = at + moved >= 0 and at + moved + LOCAL.size + packed <= end - size
        yield Entry(name, flags, method, crc, packed, whole, attributes >> 16, at + moved if within else -1)
        place += _CENTRAL.size + len(rest)


def _find_directory(file, length: int) -> tuple[int, int, int] | None:
    """Where the central directory ends, its size, and where it says that it begins. None if there is none."""
    file.seek(max(0, length - _END.size - 0xFFFF))
    tail = file.read()
    start = length - len(tail)
    place = tail.rfind(b"PK\5\6")
    while place >= 0:
        if place + _END.size <= len(tail):
            *_, size, offset, comment = _END.unpack_from(tail, place)
            if start + place + _END.size + comment == length:
                break
        place = tail.rfind(b"PK\5\6", 0, place)
    else:
        return None
    end = start + place
    if end >= _LOCATOR.size + _END_64.size:
        file.seek(end - _LOCATOR.size)
        mark, _, at, _ = _LOCATOR.unpack(file.read(_LOCATOR.size))
        if mark == b"PK\6\7":
            file.seek(min(at, end - _LOCATOR.size - _END_64.size))
            mark, *_, size, offset = _END_64.unpack(file.read(_END_64.size))
            return (file.tell() - _END_64.size, size, offset) if mark == b"PK\6\6" else None
    return end, size, offset


def _wide(extra: bytes, *values: int) -> list[int]:
    """The zip64 field: those of the values that are full, 64 bits each, in this order."""
    place = 0
    while place + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, place)
        if kind == 1:
            wide = iter(struct.unpack_from(f"<{values.count(_FULL)}Q", extra[: place + 4 + size], place + 4))
            return [next(wide) if value == _FULL else value for value in values]
        place += 4 + size
    return list(values)


def entry_bytes(name: str, data: bytes) -> bytes:
    """A stored entry, of 1 January 1980 (0x21): the same picture always gives the same bytes."""
    header = (b"PK\3\4", 20, 0x800, 0, 0, 0x21, zlib.crc32(data), len(data), len(data), len(name.encode()), 0)
    return LOCAL.pack(*header) + name.encode() + data


class ZipWriter:
    """Stored entries one after the other, each in one write, the directory last. If some are there, take `entries` first."""

    def __init__(self, file: BinaryIO):
        self.file, self.directory, self.count = file, bytearray(), 0

    def entries(self, names: re.Pattern) -> Iterator[tuple[str, bytes]]:
        """The whole entries of such names that the file begins with; what comes after them is cut off."""
        while True:
            start = self.file.tell()
            header = self.file.read(LOCAL.size)
            if len(header) < LOCAL.size or not header.startswith(b"PK\3\4"):
                break
            *_, crc, size, _, name_length, extra = LOCAL.unpack(header)
            name, data = self.file.read(name_length), self.file.read(size)
            whole = len(data) == size > 0 and zlib.crc32(data) == crc and not extra
            if not whole or not names.fullmatch(name.decode(errors="replace")):
                break
            self._note(name, crc, size, start)
            yield name.decode(), data
        self.file.seek(start)
        self.file.truncate()

    def add(self, name: str, data: bytes) -> None:
        start = self.file.tell()
        self.file.write(entry_bytes(name, data))
        self._note(name.encode(), zlib.crc32(data), len(data), start)

    def _note(self, name: bytes, crc: int, size: int, start: int) -> None:
        wide = b"" if start < _FULL else b"\1\0\10\0" + start.to_bytes(8, "little")
        self.directory += _CENTRAL.pack(
            b"PK\1\2", 45, 45, 0x800, 0, 0, 0x21, crc, size, size, len(name), len(wide), 0, 0, 0, 0, min(start, _FULL)
        )
        self.directory += name + wide
        self.count += 1

    def finish(self) -> None:
        """Write the directory, with zip64's records before its end."""
        start, size, count = self.file.tell(), len(self.directory), self.count
        self.file.write(self.directory)
        self.file.write(_END_64.pack(b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start))
        self.file.write(_LOCATOR.pack(b"PK\6\7", 0, start + size, 1))
        few, short = min(count, 0xFFFF), min(start, _FULL)
        self.file.write(_END.pack(b"PK\5\6", 0, 0, few, few, min(size, _FULL), short, 0))
        self.file.flush()
        os.fsync(self.file.fileno())
