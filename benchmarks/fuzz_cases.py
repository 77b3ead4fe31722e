"""The cases of the fuzz campaign: small valid files of each format, and the seeded ways to break them. See fuzz.py.

Case k of a format depends on (seed, format, k) alone. Half of the changes know the format: a chunk's length, a width, a code
is replaced and the checksums are made right again, so that they reach what lies behind the first check.
"""

import base64
import copy
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

INTERESTING = (0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 100, 127, 128, 255, 256, 1000, 4095, 8191, 16383, 16384, 32767,
               32768, 65535, 1 << 16, 1 << 20, (1 << 24) - 1, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)  # fmt: skip
WRONG = (None, True, False, 0, -1, 1, 2, 255, 256, 65536, 2**31, 2**63, 2**64, -(2**70), 10**30, 0.5, 1e308, float("nan"),
         float("inf"), "", "x", "1", "..", "\0", "é" * 50, [], {}, [[]], [[1, 2], [3]], {"tool": "pen"},
         "9" * 5000)  # fmt: skip


def picture(**options: Any) -> bytes:
    """One tiny picture, saved by Pillow."""
    mode, size = options.pop("mode", "RGB"), options.pop("size", (9, 7))
    channels = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4, "P": 1, "I;16": 1, "LA": 2}[mode]
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8).squeeze()
    if mode == "P":
        image = Image.fromarray(values).convert("RGB").quantize(16)
    elif mode == "I;16":
        image = Image.fromarray(values.astype(np.uint16) * 257)
    elif mode == "CMYK":
        image = Image.fromarray(values, mode="CMYK")
    else:
        image = Image.fromarray(values)
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def exif(orientation: int = 6) -> bytes:
    tags = Image.Exif()
    tags[0x0112], tags[0x010E] = orientation, "a description"
    return tags.tobytes()


@cache
def seeds(kind: str) -> list[bytes]:
    """Valid files of a format."""
    frames = [Image.fromarray(np.full((6, 8, 3), level, np.uint8)) for level in (0, 100, 200)]
    if kind == "png":
        plain = [picture(format="PNG", mode=mode) for mode in ("RGB", "RGBA", "L", "LA", "P", "I;16")]
        more = {"exif": exif(), "icc_profile": bytes(200), "dpi": (72, 72), "optimize": True}
        moving = io.BytesIO()
        frames[0].save(moving, "PNG", save_all=True, append_images=frames[1:])
        return [
            *plain,
            picture(format="PNG", **more),
            picture(format="PNG", mode="P", transparency=3),
            moving.getvalue(),
        ]
    if kind == "jpeg":
        plain = [picture(format="JPEG", mode=mode, size=(17, 20)) for mode in ("RGB", "L", "CMYK")]
        return [*plain, picture(format="JPEG", progressive=True, exif=exif(8)), picture(format="JPEG", icc_profile=bytes(99)),
                picture(format="JPEG", subsampling=2, restart_marker_blocks=1, size=(33, 17))]  # fmt: skip
    if kind == "webp":
        moving = io.BytesIO()
        frames[0].save(moving, "WEBP", save_all=True, append_images=frames[1:])
        return [picture(format="WEBP"), picture(format="WEBP", lossless=True), picture(format="WEBP", mode="RGBA", exif=exif()),
                moving.getvalue()]  # fmt: skip
    if kind == "bmp":
        rle = struct.pack("<2sIHHI", b"BM", 1100, 0, 0, 1078) + struct.pack(
            "<IiiHHIIiiII", 40, 4, 2, 1, 8, 1, 20, 0, 0, 256, 0
        )
        return [picture(format="BMP", mode=mode) for mode in ("RGB", "RGBA", "L", "P")] + [
            rle + bytes(1024) + b"\4\1\0\0\2\7\0\2\1\2\0\1"
        ]
    if kind == "gif":
        moving = io.BytesIO()
        frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:], transparency=0, loop=0)
        return [picture(format="GIF", mode="P"), picture(format="GIF", mode="L", interlace=1), moving.getvalue()]
    if kind == "tiff":
        packed = [picture(format="TIFF", compression=way) for way in (None, "tiff_lzw", "tiff_deflate", "jpeg")]
        return [*packed, picture(format="TIFF", mode="I;16"), picture(format="TIFF", mode="RGBA")]
    if kind == "mask":
        return [seeds("png")[2], seeds("png")[1], seeds("jpeg")[1], seeds("bmp")[2], seeds("gif")[0], seeds("webp")[2]]
    if kind == "strokes":
        bits = base64.b64encode(bytes(32 * 32 // 8)).decode()
        strokes = [{"tool": "pen", "points": [[1, 2], [9, 9], [20, 3]], "radius": [0, 1, 2]}, {"tool": "clear"},
                   {"tool": "eraser", "points": [[3, 3]], "radius": 4}, {"tool": "edges", "bits": bits},
                   {"tool": "mask", "points": [[-5, 2], [40, 9]], "radius": 3}, {"tool": "hole", "bits": bits}]  # fmt: skip
        return [json.dumps(strokes).encode()]
    if kind == "list":
        return ["a.png\nb/c.jpg\r\n# a comment\n../d.webp 3\n".encode("utf-8-sig"), b"000001.jpg 0\n000002.jpg 2\n"]
    if kind == "zip":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a/1.png", seeds("png")[0])
            archive.writestr("a/2.jpg", seeds("jpeg")[0], zipfile.ZIP_DEFLATED)
            archive.writestr("notes.txt", b"no picture")
        return [file.getvalue()]
    if kind == "trial":
        return [b"read", b"refused", b"other exception", b"memory", b"crash", b"hang", b"read"]
    raise KeyError(kind)


# ----- changes of bytes -----


def flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        data[rng.randrange(len(data))] = rng.choice(
            (rng.randrange(256), data[rng.randrange(len(data))] ^ (1 << rng.randrange(8)))
        )


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def remove(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.randrange(1, 40)]


def repeat(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    piece = bytes(data[start : start + rng.randrange(1, 60)])
    data[start:start] = piece * rng.choice((1, 1, 3, 50))


def insert(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data) + 1)
    data[start:start] = rng.randbytes(rng.randrange(1, 30))


def number(data: bytearray, rng: random.Random) -> None:
    """One field of 1, 2 or 4 bytes, in either order."""
    size = rng.choice((1, 2, 4))
    if len(data) > size:
        value = rng.choice(INTERESTING) % 256**size
        start = rng.randrange(min(len(data) - size, rng.choice((64, 1 << 30))))
        data[start : start + size] = value.to_bytes(size, rng.choice(("little", "big")))


BYTES: tuple[Callable[[bytearray, random.Random], None], ...] = (flip, cut, remove, repeat, insert, number)


def spliced(data: bytes, other: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


# ----- changes that know the format -----


def chunks_changed(data: bytes, rng: random.Random) -> bytes:
    """PNG: one chunk changed, doubled, moved or taken out, every CRC right again; or its pixels as another stream."""
    chunks, place = [], 8
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        chunks.append([name, bytearray(data[place + 8 : place + 8 + length])])
        place += 12 + length
    i = rng.randrange(len(chunks)) if rng.random() < 0.6 else 0
    way = rng.randrange(6)
    if way == 0:
        chunks.insert(rng.randrange(len(chunks)), [chunks[i][0], bytearray(chunks[i][1])])
    elif way == 1:
        del chunks[i]
    elif way == 2:
        chunks[i][0] = rng.choice(
            (b"IDAT", b"tRNS", b"PLTE", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"gAMA")
        )
    elif way == 3:
        chunks.insert(
            1, [rng.choice((b"zTXt", b"iCCP")), bytearray(b"name\0\0" + zlib.compress(bytes(rng.choice((9, 1 << 22)))))]
        )
    elif chunks[i][1]:
        for _ in range(rng.choice((1, 2))):
            number(chunks[i][1], rng) if way == 4 else flip(chunks[i][1], rng)
    made = b"".join(
        struct.pack(">I4s", len(body), name) + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    return data[:8] + made


def segments_changed(data: bytes, rng: random.Random) -> bytes:
    """JPEG: a field of the frame header (its sides, components, tables), or one segment's length or body."""
    out = bytearray(data)
    marks = [i for i in range(len(data) - 9) if data[i] == 0xFF and data[i + 1] in range(0xC0, 0xFF)]
    place = rng.choice(marks)
    if rng.random() < 0.5:
        place = next((i for i in marks if data[i + 1] in (0xC0, 0xC2)), place)
        start, size = place + rng.choice((2, 5, 7)), 2
    else:
        start, size = place + rng.randrange(2, 9), rng.choice((1, 2))
    out[start : start + size] = (rng.choice(INTERESTING) % 256**size).to_bytes(size, "big")
    return bytes(out)


def node_changed(value: Any, rng: random.Random) -> Any:
    """JSON: one value of the tree replaced, taken out, doubled, renamed or put too deep."""
    if isinstance(value, dict | list) and value and rng.random() < 0.8:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key, way = rng.choice(keys), rng.random()
        if way < 0.7:
            value[key] = node_changed(value[key], rng)
        elif way < 0.8:
            del value[key]
        elif isinstance(value, list):
            value[key:key] = [value[key]] * rng.choice((1, 8))
        else:
            value[rng.choice(("x", "", "width", "points", *map(str, keys)))] = value[key]
        return value
    if rng.random() < 0.1:
        for _ in range(rng.choice((3, 70, 900))):
            value = [value]
        return value
    return copy.deepcopy(rng.choice(WRONG))


def json_changed(data: bytes, rng: random.Random) -> bytes:
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        value = node_changed(value, rng)
    try:
        return b"[" * 100_000 if rng.random() < 0.02 else json.dumps(value).encode()
    except RecursionError:  # too deep to be written this way
        return b"[" * 2000 + b"]" * 2000


def header_changed(data: bytes, rng: random.Random) -> bytes:
    """safetensors: its JSON header, with the length before it made right or wrong."""
    (length,) = struct.unpack_from("<Q", data)
    header = json_changed(data[8 : 8 + length], rng) if rng.random() < 0.8 else data[8 : 8 + length]
    said = len(header) if rng.random() < 0.8 else rng.choice((*INTERESTING, 2**40, 2**63, 2**64 - 1))
    return struct.pack("<Q", said) + header + data[8 + length :]


AWARE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "png": chunks_changed, "jpeg": segments_changed, "strokes": json_changed, "config": json_changed, "state": json_changed,
    "eyes": json_changed, "post": json_changed, "safetensors": header_changed,
}  # fmt: skip


def case(kind: str, seed: int, k: int, valid: list[bytes]) -> bytes:
    """Case k of a format, of its valid files. k = 0, 1, ... begins with those as they are."""
    if k < len(valid):
        return valid[k]
    rng = random.Random(f"{seed} {kind} {k}")
    data = rng.choice(valid)
    aware = AWARE.get(kind)
    if aware and rng.random() < 0.6:
        data = aware(data, rng)
        if rng.random() < 0.7:
            return data
    if rng.random() < 0.1:
        return spliced(data, rng.choice(valid), rng)
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if changed:
            rng.choice(BYTES)(changed, rng)
    return bytes(changed)
