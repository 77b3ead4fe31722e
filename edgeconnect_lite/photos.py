"""Photos: from files to arrays. The shipped rendered faces, and any folder, file list or zip archive of pictures.

Every data set here is a sequence of uint8 (size, size, 3) RGB arrays. The rendered faces: assets/faces-128.md. The layouts of
CelebA and other well-known sets: data_sets.py.
"""

import contextlib
import csv
import io
import os
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from edgeconnect_lite.listing import BadPhoto, BrokenPhotoWarning, list_pictures, read_bytes
from edgeconnect_lite.trees import EXTENSIONS

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")  # decoded; no other parser sees a file
MOST_PIXELS, LONGEST_SIDE = 80_000_000, 65_535  # of one picture: a small file may claim any number
MOST_SCANS = 100  # of a JPEG: a progressive one has about ten, and each runs over the whole picture
TRANSPARENT = (".png", ".webp")


def as_photo(photo: np.ndarray, background: int = 255) -> np.ndarray:
    """Check an array that claims to be a photo and bring it to uint8 RGB.

    photo: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); uint8, or floating point in [0, 1]. Alpha is laid
    over `background`, by default white.
    Returns uint8 (H, W, 3). Raises BadPhoto on any other shape, dtype or range, NaN included.
    """
    wanted = "wanted (H, W), (H, W, 3) or (H, W, 4), uint8 or floating point in [0, 1]"
    photo = np.asarray(photo)
    if photo.ndim == 2:
        photo = photo[..., None]
    if photo.ndim != 3 or photo.shape[2] not in (1, 3, 4) or 0 in photo.shape:
        raise BadPhoto(f"photo has shape {photo.shape}; {wanted}")
    if np.issubdtype(photo.dtype, np.floating):
        if np.isnan(photo).any():
            raise BadPhoto(f"photo holds {int(np.isnan(photo).sum())} NaN values; {wanted}")
        if photo.min() < 0 or photo.max() > 1:
            raise BadPhoto(f"photo holds values from {photo.min():g} to {photo.max():g}; {wanted}")
        photo = np.round(photo * 255).astype(np.uint8)
    if photo.dtype != np.uint8:
        raise BadPhoto(f"photo has dtype {photo.dtype}; {wanted}")
    if photo.shape[2] == 4:
        rgb, alpha = photo[..., :3].astype(np.uint16), photo[..., 3:].astype(np.uint16)
        photo = ((rgb * alpha + background * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(photo, (*photo.shape[:2], 3)))


def decode_photo(data: bytes, name: str, background: int = 255) -> np.ndarray:
    """Decode the bytes of one picture file, alpha laid over background. uint8 (H, W, 3)."""
    return as_photo(decode_picture(data, name), background)


def decode_picture(data: bytes, name: str) -> np.ndarray:
    """The first frame, upright by its EXIF tag, in sRGB, 8 bit: uint8 (H, W, 3), or (H, W, 4) with its transparency."""
    if not data:
        raise BadPhoto(f"{name}: the file is empty (0 bytes); wanted a picture")
    if data.startswith(b"\xff\xd8") and (scans := data.count(b"\xff\xda")) > MOST_SCANS:
        raise BadPhoto(f"{name}: a JPEG of {scans} scans; wanted at most {MOST_SCANS}")
    most = f"{MOST_PIXELS // 10**6} megapixels, no side longer than {LONGEST_SIDE} px"
    too_large = f"{name}: too large a picture; wanted at most {most}"
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > MOST_PIXELS or max(picture.size) > LONGEST_SIDE:
                raise BadPhoto(too_large)
            return _as_srgb(ImageOps.exif_transpose(picture), name)
    except UnidentifiedImageError:
        raise BadPhoto(f"{name}: {_what_else(data)}") from None
    except Image.DecompressionBombError:
        raise BadPhoto(too_large) from None
    except BadPhoto:
        raise
    except Exception as error:  # decoders stumble over broken bytes in many ways: IndexError, MemoryError, ...
        raise BadPhoto(f"{name}: broken picture ({str(error)[:200] or type(error).__name__})") from None


def _as_srgb(picture: Image.Image, name: str) -> np.ndarray:
    """uint8 (H, W, 3) or (H, W, 4) of any of Pillow's modes."""
    if picture.mode in ("F", "I"):
        return _from_numbers(np.asarray(picture), name)
    if picture.mode.startswith("I;16"):  # 16-bit gray: keep the high byte
        return as_photo((np.asarray(picture).astype(np.uint32) >> 8).astype(np.uint8))
    profile = picture.info.get("icc_profile")
    mode = "RGBA" if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info else "RGB"
    if picture.mode not in ("L", "CMYK", "RGB"):
        picture = picture.convert(mode)
    if profile:
        with contextlib.suppress(
            ImageCms.PyCMSError, OSError
        ):  # a profile that is broken or of another kind of colours
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "srgb" not in ImageCms.getProfileDescription(source).lower():
                return np.asarray(
                    ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode=mode)
                )
    return np.asarray(picture.convert(mode))


def _from_numbers(values: np.ndarray, name: str) -> np.ndarray:
    """A gray picture of floating point values in [0, 1], or of whole numbers of 16 bit."""
    largest = 1 if values.dtype == np.float32 else 0xFFFF
    if not (values.min() >= 0 and values.max() <= largest):  # NaN fails too
        raise BadPhoto(
            f"{name}: holds values from {values.min():g} to {values.max():g}; wanted 0 to {largest}, or 8 bit"
        )
    return as_photo(values if largest == 1 else (values >> 8).astype(np.uint8))


def _what_else(data: bytes) -> str:
    """What to say of a file that none of FORMATS opens."""
    brand = data[8:12].lower() if data[4:8] == b"ftyp" else b""
    if brand in (b"avif", b"avis"):
        return "an AVIF picture, which this Pillow cannot read; wanted it exported as .png or .jpg"
    if brand in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"):
        return (
            "a HEIC picture, which cannot be read; wanted it exported as .png or .jpg (on an iPhone: Most Compatible)"
        )
    return f"not a picture that can be read; wanted {', '.join(EXTENSIONS)}, .gif, .tif or .avif"


def read_photo(path: str | Path) -> np.ndarray:
    """Read one picture file of any size as uint8 (H, W, 3) RGB. Raises BadPhoto, naming the file."""
    return decode_photo(read_bytes(path), str(path))


def read_picture(path: str | Path) -> np.ndarray:
    """As read_photo, but with its transparency where it has one: uint8 (H, W, 4). Raises BadPhoto, naming the file."""
    return decode_picture(read_bytes(path), str(path))


def write_picture(path: str | Path, picture: np.ndarray) -> None:
    """Write uint8 (H, W), (H, W, 3) RGB or (H, W, 4) RGBA whole or not at all: a temporary file beside it, then one rename.

    The ending decides the format (.png, .jpg, .webp, .bmp); in .jpg and .bmp transparency is laid over white. Raises
    ValueError or OSError with the path in the message.
    """
    path = Path(path)
    if path.suffix.lower() not in EXTENSIONS:
        raise ValueError(f"{path}: cannot write this kind of file; wanted an ending of {', '.join(EXTENSIONS)}")
    if picture.ndim == 3 and picture.shape[2] == 4 and path.suffix.lower() not in TRANSPARENT:
        picture = as_photo(picture)
    ok, data = cv2.imencode(
        path.suffix.lower(), picture if picture.ndim == 2 else picture[..., [2, 1, 0, 3][: picture.shape[2]]]
    )
    if not ok:
        raise ValueError(f"{path}: the picture of shape {picture.shape} could not be encoded")
    write_bytes(path, data.tobytes())


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises OSError with the path in the message."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the new name on empty blocks
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def centre_square(photo: np.ndarray, size: int) -> np.ndarray:
    """Cut the largest centred square out of (H, W, 3) and resize it to (size, size, 3)."""
    height, width = photo.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = photo[top : top + side, left : left + side]
    if side == size:
        return np.ascontiguousarray(square)
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)


class FacePhotos:
    """The 5,000 + 500 rendered faces that come with the package, at 128 or 64 px.

    `faces[i]` is uint8 (size, size, 3); `faces.records[i]` is the row of the table for that picture, a dict of str
    (yaw, glasses, skin_luminance, ...: assets/faces-128.md). Worker processes may share one object.
    """

    def __init__(self, split: Literal["train", "test"] = "train", size: int = 128):
        if split not in ("train", "test"):
            raise ValueError(f"split is {split!r}; wanted 'train' or 'test'")
        if size not in (64, 128):
            raise ValueError(f"size is {size}; the shipped faces come at 64 or 128 px")
        self.split, self.size = split, size
        self._zip: tuple[int, zipfile.ZipFile] | None = None

    def _archive(self) -> zipfile.ZipFile:
        if self._zip is None or self._zip[0] != os.getpid():  # a forked worker must not share the file position
            self._zip = os.getpid(), zipfile.ZipFile(str(files("edgeconnect_lite") / "assets/faces-128.zip"))
        return self._zip[1]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_zip": None}

    @cached_property
    def records(self) -> list[dict[str, str]]:
        rows = csv.DictReader(io.TextIOWrapper(self._archive().open("faces.csv"), "utf-8"))
        return [row for row in rows if row["split"] == self.split]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> np.ndarray:
        data = np.frombuffer(self._archive().read(self.records[index]["file"]), np.uint8)
        photo = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
        if photo is None:
            raise BadPhoto(f"{self.records[index]['file']} of the shipped faces is broken; install the package again")
        return photo if self.size == 128 else centre_square(photo, self.size)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))


class PhotoFolder:
    """Any folder tree, file list or zip archive of pictures (.jpg .png .webp .bmp), cut to their centred squares and resized.

    source: a folder, a text file with one path a line (listing.read_list), a zip archive (as `edgeconnect-lite prepare`
    writes both), or paths. A broken file is named in a BrokenPhotoWarning and skipped: iteration leaves it out, and
    `photos[i]` gives the next readable one. Raises BadPhoto if there is no picture at all.
    """

    def __init__(self, source: str | Path | Iterable[str | Path], size: int = 128):
        self.size = size
        self.paths = list_pictures(source)
        self._warned: set[Path] = set()

    def __len__(self) -> int:
        return len(self.paths)

    def _square(self, index: int) -> np.ndarray | None:
        path = self.paths[index]
        try:
            return centre_square(decode_photo(self.paths.read(index), str(path)), self.size)
        except BadPhoto as error:
            if path not in self._warned:
                self._warned.add(path)
                warnings.warn(f"skipped a broken photo: {error}", BrokenPhotoWarning, stacklevel=3)
            return None

    def __getitem__(self, index: int) -> np.ndarray:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} photos")
        for step in range(len(self)):
            photo = self._square((index + step) % len(self))
            if photo is not None:
                return photo
        raise BadPhoto(f"none of the {len(self)} photos can be read, beginning with {self.paths[0]}")

    def __iter__(self) -> Iterator[np.ndarray]:
        return (photo for i in range(len(self)) if (photo := self._square(i)) is not None)
