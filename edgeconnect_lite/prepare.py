"""Prepare: a data set made ready once. Every picture is read, cut and resized by all cores, and kept in one zip archive.

What is in the archive is what would be read from the folder, bit for bit: photos as lossless WebP (smaller than PNG, quicker to
write and to read; JPEG would take a third of the room, but its blocks move the edges that stage 1 learns), masks as PNG of
one bit a pixel, white = hole. Nothing is packed twice: the zip only stores, so that one read fetches one picture.

While it is made it is OUT.part, entry after entry without a directory: no zip file yet. Started again, `prepare_archive` checks
what is there, cuts off what a kill left half written, and goes on; the directory comes last, then the name.
"""

import csv
import hashlib
import io
import json
import os
import re
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from edgeconnect_lite.listing import BadPhoto, PictureFiles
from edgeconnect_lite.masks import centre_mask, decode_mask
from edgeconnect_lite.parallel import in_order
from edgeconnect_lite.photos import centre_square, decode_photo, write_bytes
from edgeconnect_lite.zips import LOCAL, ZipWriter, entry_bytes

POSIX = os.name == "posix"  # elsewhere an open file cannot be renamed
HEAD, MANIFEST, SKIPPED = "prepared.json", "manifest.csv", "skipped.csv"


@dataclass(frozen=True)
class Recipe:
    """What becomes of each picture. invert: of masks, black = hole in the source; in the archive white always is."""

    size: int = 128
    masks: bool = False
    invert: bool = False

    @property
    def ending(self) -> str:
        return ".png" if self.masks else ".webp"


@dataclass
class Report:
    """What was prepared, and why what was not."""

    path: Path
    stored: int = 0
    skipped: list[list[str]] = field(default_factory=list)  # (its name in the source, the reason)
    found: int = 0  # of the stored ones: what an earlier run had done


def pack(data: bytes, name: str, recipe: Recipe) -> bytes:
    """The bytes of one picture file, prepared. Raises BadPhoto, naming it."""
    target = io.BytesIO()
    if recipe.masks:
        mask = centre_mask(decode_mask(data, name, recipe.invert), recipe.size)
        Image.fromarray(mask).save(target, "PNG", bits=1)
    else:
        photo = centre_square(decode_photo(data, name), recipe.size)
        Image.fromarray(photo).save(target, "WEBP", lossless=True, method=0, quality=0)
    return target.getvalue()


@dataclass
class Work:
    """What a worker does with picture i: prepare it, or with recipe = None try to read it. Gives bytes, or why not."""

    paths: PictureFiles
    recipe: Recipe | None

    def __call__(self, index: int) -> bytes | str:
        name = str(self.paths[index])
        try:
            data = self.paths.read(index)
            if self.recipe:
                return pack(data, name, self.recipe)
            decode_photo(data, name)
            return b""
        except BadPhoto as error:
            return str(error)
        except MemoryError:
            return f"{name}: too large for the memory"


def _silent(given: Iterable, **_: Any) -> Iterable:
    return given


def head_of(paths: PictureFiles, recipe: Recipe) -> bytes:
    """An archive's first entry: what it is made of, with a digest of all names, sizes and times of change."""
    digest = hashlib.sha256()
    for i in range(len(paths)):
        digest.update(f"{paths.names[i]}\0{paths.state_of(i)}\0".encode(errors="surrogateescape"))
    about = {"made by": "edgeconnect-lite prepare", "kind": "masks" if recipe.masks else "photos", "size": recipe.size}
    about |= {"inverted": recipe.invert, "pictures": len(paths), "source": digest.hexdigest()}
    return json.dumps(about, indent=1).encode() + b"\n"


def prepare_archive(
    paths: PictureFiles, out: Path, recipe: Recipe, workers: int = 1, progress: Callable[..., Iterable] = _silent
) -> Report:
    """Prepare every picture into the zip archive out; what an earlier run has done, finished or killed, is kept.

    Beside the pictures, 00000000.webp ..., it holds manifest.csv (file, SHA-256, name in the source) and skipped.csv.
    Raises BadPhoto if no picture can be read, ValueError if out or OUT.part is something else, OSError if it cannot be written.
    """
    head, part, report = head_of(paths, recipe), out.with_name(f"{out.name}.part"), Report(out)
    if _is_begun(out, head, whole=True):
        with suppress(zipfile.BadZipFile, KeyError), zipfile.ZipFile(out) as finished:  # a damaged one is made again
            report.skipped = list(csv.reader(io.StringIO(finished.read(SKIPPED).decode())))[1:]
            report.stored = report.found = len(finished.namelist()) - len((HEAD, MANIFEST, SKIPPED))
            return report
    try:
        with _alone_in(part) as file:
            _is_begun(part, head, whole=False)
            _fill(file, paths, recipe, head, report, workers, progress)
            if POSIX:  # under the lock: who waits for it must not hold a finished archive
                os.replace(part, out)
        if not POSIX:
            os.replace(part, out)
    except OSError as error:
        raise OSError(
            f"{part}: cannot be written ({error.strerror}); what is done stays, the same command goes on"
        ) from None
    except BadPhoto:
        part.unlink(missing_ok=True)
        raise
    return report


def _is_begun(path: Path, head: bytes, whole: bool) -> bool:
    """Whether `prepare_archive` wrote this of the same pictures.

    Nothing that it did not make is written over, no finished archive of another kind, size or polarity, and no unfinished one
    of other pictures: ValueError.
    """
    if not path.exists():
        return False
    first = entry_bytes(HEAD, head)
    with path.open("rb") as file:
        found = file.read(2 * len(first))
    if found.startswith(first) or (not whole and first.startswith(found)):  # killed at its first bytes
        return True
    if not whole and found[LOCAL.size :].startswith(HEAD.encode()):
        raise ValueError(
            f"{path}: begun from other pictures, or for another size or kind; delete it to begin anew, or give another --out"
        )
    if not (holds := _made_of(found)):
        raise ValueError(f"{path}: holds something that `prepare` did not make; wanted another --out")
    if holds != (wanted := _made_of(first)):
        raise ValueError(f"{path}: holds {holds}, not {wanted}; delete it, or give another --out")
    return False


def _made_of(found: bytes) -> str:
    """What the archive that begins so holds, in words; "" if `prepare` did not make it."""
    if not found[LOCAL.size :].startswith(HEAD.encode()):
        return ""
    *_, size, _, _ = LOCAL.unpack_from(found)
    try:
        about = json.loads(found[LOCAL.size + len(HEAD) :][:size])
        return f"{about['kind']} of {about['size']} px{' (inverted)' if about['inverted'] else ''}"
    except (ValueError, KeyError, TypeError):
        return ""


def _fill(
    file: BinaryIO, paths: PictureFiles, recipe: Recipe, head: bytes, report: Report, workers: int, progress: Callable
) -> None:
    writer, manifest, skipped = ZipWriter(file), Table("file", "sha256", "source"), Table("source", "reason")
    missing = np.ones(len(paths), bool)

    def note(index: int, data: bytes) -> None:
        missing[index] = False
        manifest.add(f"{index:08d}{recipe.ending}", hashlib.sha256(data).hexdigest(), paths.names[index])
        report.stored += 1

    for name, data in writer.entries(re.compile(rf"{HEAD}|\d{{8}}{recipe.ending}")):
        if name != HEAD:
            index = int(name[:8])
            if index >= len(paths) or not missing[index]:
                raise ValueError(f"{file.name}: damaged at {name}; delete it to begin anew")
            note(index, data)
    report.found = report.stored
    if not writer.count:
        writer.add(HEAD, head)
    results = in_order(Work(paths, recipe), np.flatnonzero(missing), workers)
    for index, result in progress(results, total=len(paths), initial=report.found):
        if isinstance(result, bytes):
            writer.add(f"{index:08d}{recipe.ending}", result)
            note(index, result)
        else:
            report.skipped.append([paths.names[index], result])
            skipped.add(paths.names[index], result)
    if not report.stored:
        raise BadPhoto(f"none of the {len(paths)} pictures can be read, beginning with {report.skipped[0][1]}")
    writer.add(MANIFEST, manifest.content())
    writer.add(SKIPPED, skipped.content())
    writer.finish()


class Table:
    """A CSV table as the bytes that it will be: a fifth of the memory of its rows."""

    def __init__(self, *columns: str):
        self.bytes = io.BytesIO()
        self.text = io.TextIOWrapper(self.bytes, "utf-8", errors="backslashreplace", newline="")
        self.rows = csv.writer(self.text, lineterminator="\n")
        self.add(*columns)

    def add(self, *cells: str) -> None:
        self.rows.writerow(cells)

    def content(self) -> bytes:
        self.text.flush()
        return self.bytes.getvalue()


@contextmanager
def _alone_in(path: Path) -> Iterator[BinaryIO]:
    """The file, open for reading and writing, for one process at a time: two would write into each other."""
    path.touch()
    with path.open("r+b") as file:
        for patience in range(50, -1, -1):  # the workers of a killed run hold it for a moment
            try:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not patience:
                    raise RuntimeError(f"{path}: another process is preparing it now") from None
                time.sleep(0.1)
                continue
            except (ImportError, OSError):  # Windows, or a file system without locks
                pass
            break
        if POSIX and not (path.exists() and os.path.samefile(file.fileno(), path)):
            raise RuntimeError(f"{path}: another process has just finished it; give the same command again")
        yield file


def prepare_list(
    paths: PictureFiles, out: Path, workers: int = 1, progress: Callable[..., Iterable] = _silent
) -> Report:
    """Write the readable pictures as a text list for --photos, one path a line, relative to the list. Raises as above."""
    if type(paths) is not PictureFiles:
        raise ValueError(f"{paths.root}: a list names files; wanted a folder or list of pictures, or --out with .zip")
    report, lines = Report(out), []
    results = in_order(Work(paths, None), np.arange(len(paths)), workers)
    for index, result in progress(results, total=len(paths)):
        line = _seen_from(out.parent, paths[index])
        line = f"./{line}" if line.startswith("#") else line
        if isinstance(result, bytes) and (line != line.strip() or set(line) & set("\r\n") or not _is_utf8(line)):
            result = f"{paths[index]!r}: a name that no text list can hold"
        if isinstance(result, bytes):
            lines.append(line)
        else:
            report.skipped.append([paths.names[index], result])
    if not lines:
        raise BadPhoto(f"none of the {len(paths)} pictures can be read, beginning with {report.skipped[0][1]}")
    report.stored = len(lines)
    write_bytes(out, ("\n".join(lines) + "\n").encode())
    return report


def _seen_from(folder: Path, path: Path) -> str:
    """The relative name that leads from a list's folder to the file; where a link would lead it astray, by the real folders."""
    line = os.path.relpath(path, folder)
    with suppress(OSError, ValueError):
        if os.path.samefile(path, os.path.join(folder, line)):
            return line
    return os.path.relpath(os.path.join(os.path.realpath(path.parent), path.name), os.path.realpath(folder))


def _is_utf8(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False
