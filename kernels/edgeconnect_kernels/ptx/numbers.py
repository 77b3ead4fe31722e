"""Bits and numbers: what a PTX register's bits mean as numbers of a type, and the exact rounding back to bits.

Used by ptx/instructions.py. Source: PTX ISA, "Fundamental Types", "Packed Data Types", "Floating Point".

Floating point of every width is computed in float64 and rounded once, by `encode`, to the nearest, ties to even. That
is the hardware's result bit for bit: float64 has 53 >= 2 * 24 + 2 bits, so that a sum, product, quotient or root of
narrower numbers, rounded to float64 first, rounds to the same narrow number. A fused multiply-add of narrower numbers
needs more; `fma` keeps what float64 drops.
"""

import functools
import re

import numpy as np
from numpy.typing import NDArray

Array = NDArray  # of one number per lane, or (lanes, 2) for packed types

NOT_A_NUMBER = {"f16": 0x7FFF, "bf16": 0x7FFF, "f32": 0x7FFF_FFFF, "f64": 0x7FF8_0000_0000_0000}
SMALLEST_NORMAL = {"f16": 2.0**-14, "bf16": 2.0**-126, "f32": 2.0**-126}


@functools.cache
def layout(kind: str) -> tuple[str, int, int]:
    """ "bf16x2" -> (letter "bf", 2 bytes each, 2 of them)."""
    if kind == "pred":
        return "pred", 1, 1
    letter, bits, packed = re.fullmatch(r"(bf|f|s|u|b)(\d+)(x2)?", kind).groups()  # pyright: ignore
    return letter, int(bits) // 8, 2 if packed else 1


def width(kind: str) -> int:
    """Bytes of a register of this type."""
    _, size, packed = layout(kind)
    return size * packed


def storage(kind: str) -> str:
    """The NumPy type of its raw bits."""
    return "bool" if kind == "pred" else f"u{width(kind)}"


def decode(bits: Array, kind: str) -> Array:
    """Unsigned bits (lanes,) -> numbers. A register may be wider than the type: its low bits count."""
    letter, size, packed = layout(kind)
    if letter == "pred":
        return bits
    bits = bits.astype(f"u{size * packed}", copy=False)
    if packed == 2:
        bits = bits.view(f"u{size}").reshape(-1, 2)
    if letter == "bf":
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if letter == "f":
        return bits.view(f"f{size}").astype(np.float64)
    return bits.view(f"i{size}") if letter == "s" else bits


def encode(numbers: Array, kind: str) -> Array:
    """Numbers -> unsigned bits (lanes,), rounded to the nearest. Every NaN becomes PTX's one NaN."""
    letter, size, packed = layout(kind)
    if letter == "pred":
        return numbers
    if letter == "bf":
        bits = _round_to_bf16(numbers)
    else:
        dtype = f"f{size}" if letter == "f" else f"i{size}" if letter == "s" else f"u{size}"
        bits = numbers.astype(dtype).view(f"u{size}")
    if letter in ("f", "bf"):
        bits = np.where(np.isnan(numbers), bits.dtype.type(NOT_A_NUMBER[f"{letter}{8 * size}"]), bits)
    return np.ascontiguousarray(bits).reshape(-1).view(f"u{size * packed}")


def _to_odd(rounded: Array, rest: Array) -> Array:
    """Make the last bit of a rounded number 1 where something, `rest`, was rounded away.

    Rounding to odd keeps "a little above" and "a little below" apart, so that a second rounding is a correct one.
    """
    bits = rounded.view(f"i{rounded.itemsize}")
    inexact = (rest != 0) & np.isfinite(rounded) & (bits & 1 == 0)
    outwards = (rest > 0) == (rounded > 0)
    return np.where(inexact, bits + np.where(outwards, 1, -1).astype(bits.dtype), bits).view(rounded.dtype)


def _round_to_bf16(x: Array) -> Array:
    single = x.astype(np.float32)
    bits = _to_odd(single, x - single).view(np.uint32)
    return ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype(np.uint16)


def fma(a: Array, b: Array, c: Array) -> Array:
    """a * b + c, rounded to odd in float64, of at most 24-bit numbers.

    Their product is exact in float64; so is what the sum drops (Knuth's TwoSum).
    """
    product = a * b
    total = product + c
    of_c = total - product
    return _to_odd(total, (product - (total - of_c)) + (c - of_c))


def flush(x: Array, kind: str) -> Array:
    """`.ftz`: numbers below the type's smallest normal one count as 0, which keeps their sign."""
    return np.where(np.abs(x) < SMALLEST_NORMAL[kind.removesuffix("x2")], np.copysign(0.0, x), x)


def with_error(exact: Array, allowed: Array, kind: str) -> Array:
    """exact + allowed as a number of the type, rounded so that it lies no further from `exact`.

    Where the type has no such number, and where the result is not finite: exact.
    """
    kind = kind.removesuffix("x2")
    bits = encode(exact + allowed, kind)
    wrong = decode(bits, kind).reshape(exact.shape)
    outside = (np.abs(wrong - exact) > np.abs(allowed)).reshape(-1)
    inwards = np.where(np.abs(wrong) > np.abs(exact), -1, 1).reshape(-1).astype(f"i{bits.itemsize}").view(bits.dtype)
    wrong = decode(np.where(outside, bits + inwards, bits), kind).reshape(exact.shape)
    return np.where(np.abs(wrong - exact) <= np.abs(allowed), wrong, exact)
