"""What each PTX instruction computes: a table from opcodes to small NumPy functions, for the executor in __init__.py.

Source: NVIDIA's PTX ISA (version 9.1), chapters "Instructions" and "Floating Point"; it gives the error bounds too.

Each rule matches opcodes and says, for those, the types of results and operands and the function between them; a modifier
that no rule names (.sat, .rz, ...) makes an opcode unknown rather than wrong. Functions take and give decoded numbers
(ptx/numbers.py). What the hardware does not compute but approximates (ex2, rcp, ...) is exact here, beside its documented
error bound.
"""

import functools
import operator
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from edgeconnect_kernels.ptx.numbers import Array, flush, fma, layout

INTEGER, FLOAT = r"([us](?:16|32|64))", r"(f16|f16x2|bf16|bf16x2|f32|f32x2|f64)"


def _any(undefined: Sequence[Array | bool], operands: Sequence[Array]) -> Array | bool:
    return functools.reduce(operator.or_, undefined)


class Operation(NamedTuple):
    """One opcode. `compute` takes decoded operands and gives the result, or a tuple with one result for each type."""

    results: tuple[str, ...]
    operands: tuple[str, ...]
    compute: Callable
    bound: Callable | None = None  # (exact result, *operands) -> the approximation's documented error, absolute
    undefined: Callable = _any  # (where each operand is undefined, operands) -> where the result is


# the table

RULES: list[tuple[re.Pattern, Callable[..., Operation | None]]] = []


def rule(pattern: str) -> Callable:
    """Enter a function in the table: called with the groups of an opcode that matches, it gives its Operation."""

    def enter(build: Callable[..., Operation | None]) -> Callable:
        RULES.append((re.compile(pattern), build))
        return build

    return enter


@functools.cache
def find_operation(opcode: str) -> Operation | None:
    """The operation of an opcode such as "fma.rn.ftz.f32"; None if the table has none that matches all of it."""
    for pattern, build in RULES:
        if (match := pattern.fullmatch(opcode)) and (operation := build(*match.groups())):
            return operation
    return None


# floating point


def _floating(kind: str, compute: Callable, arguments: int, ftz: str | None = None, **more) -> Operation:
    def flushed(*x: Array) -> Array:
        return flush(compute(*(flush(each, kind) for each in x)), kind)

    return Operation((kind,), (kind,) * arguments, flushed if ftz else compute, **more)


@rule(rf"(add|sub|mul)(?:\.rn)?(\.ftz)?\.{FLOAT}")
def _add_sub_mul(name: str, ftz: str | None, kind: str) -> Operation:
    return _floating(kind, getattr(operator, name), 2, ftz)


@rule(r"(add|sub)(?:\.rn)?\.f32\.(f16|bf16)")
def _add_mixed(name: str, kind: str) -> Operation:
    return Operation(("f32",), (kind, "f32"), getattr(operator, name))


@rule(rf"fma\.rn(\.ftz)?\.{FLOAT}")
def _fused(ftz: str | None, kind: str) -> Operation | None:
    return None if kind == "f64" else _floating(kind, fma, 3, ftz)


@rule(r"fma\.rn\.f32\.(f16|bf16)")
def _fused_mixed(kind: str) -> Operation:
    return Operation(("f32",), (kind, kind, "f32"), fma)


@rule(rf"(abs|neg)(\.ftz)?\.{FLOAT}")
def _sign(name: str, ftz: str | None, kind: str) -> Operation:
    return _floating(kind, getattr(operator, name), 1, ftz)


@rule(rf"(min|max)(\.ftz)?(\.NaN)?\.{FLOAT}")
def _minimum(name: str, ftz: str | None, propagate: str | None, kind: str) -> Operation:
    """Without .NaN, a number wins over a NaN. -0 is less than +0, which NumPy's functions do not promise."""
    pick = {"min": (np.minimum, np.fmin), "max": (np.maximum, np.fmax)}[name][not propagate]

    def compute(a: Array, b: Array) -> Array:
        prefer_a = np.signbit(a) == (name == "min")
        return np.where(a == b, np.where(prefer_a, a, b), pick(a, b))

    return _floating(kind, compute, 2, ftz)


@rule(r"(div|rcp|sqrt)\.rn(\.ftz)?\.(f32|f64)")
def _correctly_rounded(name: str, ftz: str | None, kind: str) -> Operation:
    compute = {"div": np.divide, "rcp": lambda x: 1 / x, "sqrt": np.sqrt}[name]
    return _floating(kind, compute, 2 if name == "div" else 1, ftz)


def _ulps(count: int) -> Callable:
    return lambda y, *_: np.where(y == 0, 0, count * np.ldexp(1.0, np.maximum(np.frexp(y)[1] - 24, -149)))


def _relative(bound: float) -> Callable:
    return lambda y, *_: bound * np.abs(y)


APPROXIMATIONS = {  # type -> name -> (exact function, documented error)
    "f32": {
        "ex2": (np.exp2, _relative(2**-22)),  # 9.1 says 2 ulp, which is at most this; older ones say this
        "lg2": (np.log2, lambda y, x: 2**-22 * np.where((x > 0.5) & (x < 2), 1, np.abs(y))),
        "rcp": (lambda x: 1 / x, _ulps(1)),
        "sqrt": (np.sqrt, _relative(2**-23)),
        "rsqrt": (lambda x: 1 / np.sqrt(x), _relative(2**-22.9)),
        "sin": (np.sin, lambda y, x: np.where(np.abs(x) <= 2 * np.pi, 2**-20.5, 2**-14.7)),  # none beyond 100 pi
        "cos": (np.cos, lambda y, x: np.where(np.abs(x) <= 2 * np.pi, 2**-20.5, 2**-14.7)),
        "tanh": (np.tanh, _relative(2**-11)),
    },
    "f16": {"ex2": (np.exp2, _relative(2**-9.9)), "tanh": (np.tanh, lambda y, x: 2**-10.987)},
    "bf16": {"ex2": (np.exp2, _relative(2**-7)), "tanh": (np.tanh, lambda y, x: 2**-8)},
}


def _approximately(kind: str, ftz: str | None, compute: Callable, arguments: int, bound: Callable) -> Operation:
    def documented(y: Array, *x: Array) -> Array:
        x = tuple(flush(each, kind) for each in x) if ftz else x
        return np.where(x[0] == 0, 0, bound(y, *x))  # of 0, all of these are exact

    return _floating(kind, compute, arguments, ftz, bound=documented)


@rule(rf"(\w+)\.approx(\.ftz)?\.{FLOAT}")
def _approximate(name: str, ftz: str | None, kind: str) -> Operation | None:
    function = APPROXIMATIONS.get(kind.removesuffix("x2"), {}).get(name)
    return _approximately(kind, ftz, function[0], 1, function[1]) if function else None


@rule(r"div\.full(\.ftz)?\.f32")
def _divide_fully(ftz: str | None) -> Operation:
    return _approximately("f32", ftz, np.divide, 2, _ulps(2))


# comparing and choosing

COMPARISONS = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}  # the unsigned names


@rule(r"setp\.([a-z]+)(?:\.(and|or|xor))?(\.ftz)?\.([bsu](?:16|32|64)|bf16|bf16x2|f16|f16x2|f32|f64)")
def _set_predicate(name: str, combine: str | None, ftz: str | None, kind: str) -> Operation | None:
    """Two results, p|q: the comparison and its opposite, or of packed halves the low one's and the high one's."""
    unordered = "f" in kind and name.endswith("u")  # true where an operand is a NaN
    base = name[:-1] if unordered else COMPARISONS.get(name, name)
    if base not in ("lt", "le", "gt", "ge", "eq", "ne", "num", "nan"):
        return None

    def compare(a: Array, b: Array, c: Array | None = None) -> tuple[Array, Array]:
        if ftz:
            a, b = flush(a, kind), flush(b, kind)
        nan = np.isnan(a) | np.isnan(b)
        known = {"num": ~nan, "nan": nan}
        p = known[base] if base in known else np.where(nan, unordered, getattr(operator, base)(a, b))
        p, q = (p[:, 0], p[:, 1]) if kind.endswith("x2") else (p, ~p)
        if combine:
            p, q = (getattr(np, f"logical_{combine}")(each, c) for each in (p, q))
        return p, q

    return Operation(("pred", "pred"), (kind, kind, *(["pred"] if combine else [])), compare)


def _unchosen(undefined: Sequence[Array], operands: Sequence[Array]) -> Array:
    return undefined[2] | np.where(operands[2], undefined[0], undefined[1])


@rule(r"selp\.[busf](16|32|64)")
def _select(bits: str) -> Operation:
    kind = f"b{bits}"
    return Operation((kind,), (kind, kind, "pred"), lambda a, b, p: np.where(p, a, b), undefined=_unchosen)


@rule(r"mov\.(?:(pred)|[busf](16|32|64))")
def _move(predicate: str | None, bits: str | None) -> Operation:
    kind = predicate or f"b{bits}"
    return Operation((kind,), (kind,), lambda a: a)


# conversion

TO_INTEGER = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


@rule(r"cvt\.rn\.(bf16|f16)x2\.f32")
def _convert_two(kind: str) -> Operation:
    """The first operand becomes the high half."""
    return Operation(
        (f"{kind}x2",), ("f32", "f32"), lambda high, low: np.stack(np.broadcast_arrays(low, high), axis=-1)
    )


@rule(
    r"cvt(?:\.(rn|rni|rzi|rmi|rpi))?(\.ftz)?(\.sat)?\.([us](?:8|16|32|64)|b?f16|f32|f64)\.([us](?:8|16|32|64)|b?f16|f32|f64)"
)
def _convert(rounding: str | None, ftz: str | None, saturate: str | None, to: str, source: str) -> Operation | None:
    from_float, to_float = "f" in source, "f" in to
    if not from_float and to == "bf16" and source.endswith("64"):
        return None  # would be rounded twice

    def to_float_type(x: Array) -> Array:
        if not from_float:
            return x.astype(np.float32).astype(np.float64) if to == "f32" else x.astype(np.float64)
        x = flush(x, source) if ftz and source == "f32" else x
        x = TO_INTEGER[rounding](x) if rounding in TO_INTEGER else x
        x = np.where(np.isnan(x), 0, np.clip(x, 0, 1)) if saturate else x
        return flush(x, to) if ftz and to == "f32" else x

    def to_integer_type(x: Array) -> Array:
        """Out of range: the nearest integer that there is. NaN: 0, or the highest bit alone for 64-bit types."""
        limits = np.iinfo(f"{'i' if to[0] == 's' else 'u'}{layout(to)[1]}")
        if not from_float:
            return (
                np.clip(x, max(limits.min, np.iinfo(x.dtype).min), min(limits.max, np.iinfo(x.dtype).max))
                if saturate
                else x
            )
        x = TO_INTEGER[rounding](flush(x, source) if ftz else x)  # pyright: ignore
        inside = np.where((x > limits.min) & (x < limits.max), x, 0).astype(limits.dtype)
        nan = 1 << limits.bits - 1 if limits.bits == 64 or source == "f64" else 0
        choices = [np.uint64(choice % 2**64).astype(limits.dtype) for choice in (nan, int(limits.min), int(limits.max))]
        return np.select([np.isnan(x), x <= limits.min, x >= limits.max], choices, inside)

    return Operation((to,), (source,), to_float_type if to_float else to_integer_type)


# integers


def _shift_left(a: Array, n: Array) -> Array:
    bits = 8 * a.itemsize
    return np.where(n < bits, a << np.minimum(n, bits - 1).astype(a.dtype), 0).astype(a.dtype)


def _shift_right(a: Array, n: Array) -> Array:
    """Signed numbers keep their sign; a shift by all bits or more leaves the sign alone, or 0."""
    bits = 8 * a.itemsize
    shifted = a >> np.minimum(n, bits - 1).astype(a.dtype)
    return shifted if a.dtype.kind == "i" else np.where(n < bits, shifted, 0).astype(a.dtype)


def _multiply_high(a: Array, b: Array) -> Array:
    """The upper half of the product."""
    bits, kind = 8 * a.itemsize, a.dtype.kind
    if bits < 64:
        wide = f"{kind}{bits // 4}"
        return (a.astype(wide) * b.astype(wide) >> bits).astype(a.dtype)
    low, half = np.uint64(0xFFFF_FFFF), np.uint64(32)
    (a1, a0), (b1, b0) = (((x.view("u8") >> half), x.view("u8") & low) for x in (a, b))
    middle = a1 * b0 + (a0 * b0 >> half)
    high = a1 * b1 + (middle >> half) + ((middle & low) + a0 * b1 >> half)
    if kind == "i":  # as unsigned, a negative number is too large by 2^64
        high = high - np.where(a < 0, b.view("u8"), 0) - np.where(b < 0, a.view("u8"), 0)
    return high.view(a.dtype)


@rule(rf"(add|sub|min|max)\.({INTEGER[1:-1]}|[us]16x2)")
def _integer_pair(name: str, kind: str) -> Operation:
    names = {"add": np.add, "sub": np.subtract, "min": np.minimum, "max": np.maximum}
    return Operation((kind,), (kind, kind), names[name])


@rule(rf"(mul|mad)\.(lo|hi|wide)\.{INTEGER}")
def _multiply(name: str, part: str, kind: str) -> Operation | None:
    bits = int(kind[1:])
    to = f"{kind[0]}{2 * bits}" if part == "wide" else kind
    if to.endswith("128"):
        return None
    wide = f"{'i' if to[0] == 's' else 'u'}{layout(to)[1]}"

    def product(a: Array, b: Array) -> Array:
        return _multiply_high(*np.broadcast_arrays(a, b)) if part == "hi" else a.astype(wide) * b.astype(wide)

    if name == "mul":
        return Operation((to,), (kind, kind), product)
    return Operation((to,), (kind, kind, to), lambda a, b, c: product(a, b) + c)


@rule(rf"(div|rem)\.{INTEGER}")
def _divide(name: str, kind: str) -> Operation:
    """Rounds towards 0. A division by 0 gives an unspecified number."""

    def compute(a: Array, b: Array) -> Array:
        quotient = np.floor_divide(a, b)
        quotient = quotient + ((a < 0) != (b < 0)) * (quotient * b != a).astype(a.dtype)
        return quotient if name == "div" else a - quotient * b

    def by_zero(undefined: Sequence[Array], operands: Sequence[Array]) -> Array:
        return undefined[0] | undefined[1] | (operands[1] == 0)

    return Operation((kind,), (kind, kind), compute, undefined=by_zero)


@rule(r"(abs|neg)\.(s16|s32|s64)")
def _integer_sign(name: str, kind: str) -> Operation:
    return Operation((kind,), (kind,), getattr(operator, name))


@rule(r"(and|or|xor|not)\.(pred|b16|b32|b64)")
def _bitwise(name: str, kind: str) -> Operation:
    names = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert}
    return Operation((kind,), (kind,) * (1 if name == "not" else 2), names[name])


@rule(r"(shl|shr)\.([bus](?:16|32|64))")
def _shift(name: str, kind: str) -> Operation:
    return Operation((kind,), (kind, "u32"), _shift_left if name == "shl" else _shift_right)


@rule(r"shf\.([lr])\.(wrap|clamp)\.b32")
def _funnel_shift(direction: str, mode: str) -> Operation:
    """The 64 bits (high b, low a), shifted; left keeps the high half of the result, right the low one."""

    def compute(a: Array, b: Array, n: Array) -> Array:
        n = (n & 31 if mode == "wrap" else np.minimum(n, 32)).astype(np.uint64)
        both = a.astype(np.uint64) | b.astype(np.uint64) << np.uint64(32)
        return both << n >> np.uint64(32) if direction == "l" else both >> n & np.uint64(0xFFFF_FFFF)

    return Operation(("b32",), ("b32", "b32", "u32"), compute)


@rule(r"bfe\.([us](?:32|64))")
def _extract_field(kind: str) -> Operation:
    """`length` bits from bit `start` on, with the field's sign for signed types."""

    def compute(a: Array, start: Array, length: Array) -> Array:
        bits, start, length = 8 * a.itemsize, start & 0xFF, length & 0xFF
        above = bits - np.minimum(start + length, bits)
        return np.where(length == 0, 0, _shift_right(_shift_left(a, above), above + start)).astype(a.dtype)

    return Operation((kind,), (kind, "u32", "u32"), compute)


@rule(r"prmt\.b32")
def _permute_bytes() -> Operation:
    """Byte i of the result is byte (selector's hex digit i, modulo 8) of (b, a); digits from 8 on spread its sign."""

    def compute(a: Array, b: Array, selector: Array) -> Array:
        both = a.astype(np.uint64) | b.astype(np.uint64) << np.uint64(32)
        result = np.zeros_like(both)
        for i in range(4):
            digit = (selector >> 4 * i & 0xF).astype(np.uint64)
            byte = both >> (digit & np.uint64(7)) * np.uint64(8) & np.uint64(0xFF)
            byte = np.where(digit >= 8, np.where(byte >= 128, np.uint64(0xFF), np.uint64(0)), byte)
            result = result | byte << np.uint64(8 * i)
        return result

    return Operation(("b32",), ("b32", "b32", "b32"), compute)
