"""edgeconnect_kernels.ptx: instructions against exact arithmetic, checks against programs that go wrong, Triton's kernels."""

import operator
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from edgeconnect_kernels.ptx import Memory, PTXError, Unsupported, launch, parse
from helpers import needs_triton, seeded

if sys.platform != "linux":
    triton = None
else:
    import triton
    import triton.language as tl
    from edgeconnect_kernels import triton_gated_elu
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

# one instruction, from hand-written PTX

REGISTERS = {1: "h", 2: "h", 4: "r", 8: "d"}
PROGRAM = """
.version 8.7
.target sm_90a
.address_size 64
.visible .entry snippet({parameters})
.reqntid {threads}
{{
    .reg .pred %p<4>;
    .reg .b16 %h<9>;
    .reg .b32 %r<9>;
    .reg .b64 %d<9>, %a<9>;
    mov.u32 %r0, %tid.x;
{body}
    ret;
}}
"""


def program(body: str, pointers: int, threads: int | str = 32) -> str:
    """A kernel around the body: %a0, %a1, ... are its pointers, %r0 the thread."""
    parameters = ", ".join(f".param .u64 p{i}" for i in range(pointers))
    loads = "".join(f"    ld.param.u64 %a{i}, [p{i}];\n" for i in range(pointers))
    return PROGRAM.format(parameters=parameters, threads=threads, body=loads + body)


def execute(code: str, *operands: np.ndarray, to: type = np.uint32, **options) -> np.ndarray:
    """Run code, in which {d} is the result's register and {a}, {b}, {c} are the operands', one element a thread."""
    result = np.zeros(len(operands[0]), to)
    lines, names = [], {}
    for i, array in enumerate([*operands, result]):
        name = "abc"[i] if i < len(operands) else "d"
        names[name] = f"%{REGISTERS[array.itemsize]}{i + 1}"
        lines.append(f"mad.wide.u32 %a{i}, %r0, {array.itemsize}, %a{i};")
        if name != "d":
            lines.append(f"ld.global.b{8 * array.itemsize} {names[name]}, [%a{i}];")
    lines.append(code.format(**names))
    lines.append(f"st.global.b{8 * result.itemsize} [%a{len(operands)}], {names['d']};")
    launch(program("\n".join(lines), len(operands) + 1, len(result)), (1,), [*operands, result], **options)
    return result


FORMATS = {"f16": (11, -24, np.uint16), "bf16": (8, -133, np.uint16), "f32": (24, -149, np.uint32)}


def value(bits: int, kind: str) -> Fraction:
    """The number that the bits of a finite float mean, straight from the format's definition."""
    precision, smallest, dtype = FORMATS[kind]
    sign, rest = divmod(bits, 1 << (8 * dtype().itemsize - 1))
    exponent, fraction = divmod(rest, 1 << (precision - 1))
    magnitude = Fraction(fraction + (exponent > 0) * (1 << (precision - 1))) * Fraction(2) ** (
        smallest + max(exponent - 1, 0)
    )
    return -magnitude if sign else magnitude


def rounded(number: Fraction, kind: str) -> int:
    """The bits of the nearest float, ties to even, infinity where it is too large. `number` is not 0."""
    precision, smallest, dtype = FORMATS[kind]
    top = 8 * dtype().itemsize - 1
    size = abs(number)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= size < Fraction(2) ** exponent
    quantum = max(exponent - precision + 1, smallest)
    steps = round(size / Fraction(2) ** quantum)  # Python rounds ties to even
    bits = steps + (quantum - smallest) * (1 << (precision - 1))  # a carry passes into the exponent by itself
    infinity = ((1 << (top - precision + 1)) - 1) << (precision - 1)
    return min(bits, infinity) | (number < 0) << top


def finite(kind: str, count: int, seed: int) -> np.ndarray:
    """Bits of random finite numbers: half of any exponent, half of like ones, so that sums cancel; and corner values."""
    precision, _, dtype = FORMATS[kind]
    width = 8 * dtype().itemsize
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 1 << width, count, dtype=np.uint64)
    like = (1 << (width - 2)) - (3 << (precision - 1))
    low = rng.integers(0, 8 << (precision - 1), count, dtype=np.uint64)
    bits = np.where(rng.random(count) < 0.5, bits, (bits & np.uint64(1 << (width - 1))) | (np.uint64(like) + low))
    one = ((1 << (width - precision - 1)) - 1) << (precision - 1)
    bits[:4] = [1, (1 << (precision - 1)) - 1, one, one + 1]
    largest_exponent = np.uint64((1 << (width - precision)) - 1)
    return bits[(bits >> np.uint64(precision - 1) & largest_exponent) != largest_exponent].astype(dtype)


ARITHMETIC = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "fma.rn": lambda a, b, c: a * b + c,
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic_is_rounded_once(name, kind):
    count = 3 if name == "fma.rn" else 2
    operands = [finite(kind, 900, seed) for seed in range(count)]
    operands = [each[: min(map(len, operands))] for each in operands]
    found = execute(f"{name}.{kind} {{d}}, {', '.join(['{a}', '{b}', '{c}'][:count])};", *operands, to=FORMATS[kind][2])
    checked = 0
    for bits, numbers in zip(found.tolist(), zip(*(each.tolist() for each in operands))):
        exact = ARITHMETIC[name](*(value(number, kind) for number in numbers))
        if exact:
            assert bits == rounded(exact, kind), [hex(number) for number in numbers]
            checked += 1
    assert checked > 800


def bits32(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32).view(np.uint32)


def test_an_fma_keeps_what_float64_would_drop():
    """The product lies half-way between two floats; the addend, too small for float64's sum, decides."""
    a = 1 + 2.0**-12
    for addend in (2.0**-60, -(2.0**-60), 2.0**-140, -(2.0**-140)):
        exact = Fraction(a) * Fraction(a) + Fraction(addend)
        found = execute("fma.rn.f32 {d}, {a}, {b}, {c};", bits32(a), bits32(a), bits32(addend))
        assert found.tolist() == [rounded(exact, "f32")]


def test_mixed_arithmetic_widens_first():
    a, c = finite("bf16", 600, 0), finite("f32", 600, 1)
    size = min(len(a), len(c))
    found = execute("add.rn.f32.bf16 {d}, {a}, {b};", a[:size], c[:size])
    wanted = [value(x, "bf16") + value(y, "f32") for x, y in zip(a.tolist(), c.tolist())]
    assert all(bits == rounded(exact, "f32") for bits, exact in zip(found.tolist(), wanted) if exact)


def test_packed_halves_do_not_mix():
    a, b = bits32(1.5, -2.0), bits32(0.25, 8.0)
    pair = execute("mul.f32x2 {d}, {a}, {b};", a.view(np.uint64), b.view(np.uint64), to=np.uint64)
    assert pair.view(np.float32).tolist() == [0.375, -16.0]
    halves = torch.tensor([1.0, 3.0]).bfloat16().view(torch.int16).numpy().view(np.uint32)
    total = execute("fma.rn.bf16x2 {d}, {a}, {a}, {a};", halves)
    assert torch.from_numpy(total.view(np.int16)).view(torch.bfloat16).tolist() == [2.0, 12.0]


SPECIAL = [0.0, -0.0, 1.0, -2.5, float("inf"), float("-inf"), float("nan"), 1e-40, -1e-40, 3e38]


@pytest.mark.parametrize("name", ["add", "mul", "div.rn", "fma.rn"])
def test_infinities_nans_and_signed_zeros_are_ieee_s_and_nan_is_ptx_s_one(name):
    a, b = (bits32(*each) for each in zip(*[(x, y) for x in SPECIAL for y in SPECIAL]))
    found = execute(f"{name}.f32 {{d}}, {{a}}, {{b}}{', {a}' * (name == 'fma.rn')};", a, b)
    functions = {"add": torch.add, "mul": torch.mul, "div.rn": torch.div, "fma.rn": lambda x, y: x * y + x}
    pair = (torch.from_numpy(each.view(np.float32)).double() for each in (a, b))
    wanted = functions[name](*pair).float().numpy()
    assert np.array_equal(found, np.where(np.isnan(wanted), np.uint32(0x7FFFFFFF), wanted.view(np.uint32)))


def test_ftz_flushes_operands_and_results_and_keeps_their_sign():
    tiny, small = 1e-40, 2.0**-126
    assert execute("add.ftz.f32 {d}, {a}, {b};", bits32(tiny, -tiny), bits32(0.0, -0.0)).tolist() == [0, 1 << 31]
    assert execute("mul.ftz.f32 {d}, {a}, {b};", bits32(small, -small), bits32(0.5, 0.5)).tolist() == [0, 1 << 31]
    assert execute("mul.f32 {d}, {a}, {b};", bits32(small), bits32(0.5)).tolist() == [1 << 22]
    assert execute("setp.gt.ftz.f32 %p1, {a}, {b};\nselp.b32 {d}, 1, 0, %p1;", bits32(tiny), bits32(0)).tolist() == [0]


def test_minimum_and_maximum_know_nan_and_the_sign_of_zero():
    nan, a, b = (
        float("nan"),
        bits32(0.0, -0.0, float("nan"), 1.0, float("nan")),
        bits32(-0.0, 0.0, 2.0, 3.0, float("nan")),
    )
    run = {name: execute(f"{name}.f32 {{d}}, {{a}}, {{b}};", a, b) for name in ("min", "max", "min.NaN", "max.NaN")}
    assert run["min"].tolist() == [*bits32(-0.0, -0.0, 2.0, 1.0), 0x7FFFFFFF]
    assert run["max"].tolist() == [*bits32(0.0, 0.0, 2.0, 3.0), 0x7FFFFFFF]
    assert run["min.NaN"].tolist() == [*bits32(-0.0, -0.0), 0x7FFFFFFF, *bits32(1.0), 0x7FFFFFFF]
    assert np.isnan(run["max.NaN"].view(np.float32)).tolist() == np.isnan([0, 0, nan, 0, nan]).tolist()


COMPARISONS = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_of_numbers_and_of_what_is_none(name, kind):
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[kind]
    pairs = torch.tensor([(x, y) for x in SPECIAL for y in SPECIAL]).to(dtype).t().contiguous()
    a, b = pairs.view(torch.int32 if kind == "f32" else torch.int16).numpy()
    ordered, unordered = (
        execute(
            f"setp.{name}{u}.{kind} %p1|%p2, {{a}}, {{b}};\nselp.b32 {{d}}, 1, 0, %p1;\n@%p2 add.s32 {{d}}, {{d}}, 2;",
            a,
            b,
        )
        for u in ("", "u")
    )
    nan, wanted = torch.isnan(pairs).any(0).numpy(), COMPARISONS[name](*pairs.double().numpy())
    assert np.array_equal(ordered, np.where(wanted & ~nan, 1, 2))
    assert np.array_equal(unordered, np.where(wanted | nan, 1, 2))


def test_comparisons_of_packed_halves_and_of_integers_and_their_combination():
    pair = np.array([1.0, -1.0], np.float16).view(np.uint32)
    code = "setp.gt.f16x2 %p1|%p2, {a}, 0;\nselp.b32 {d}, 1, 0, %p1;\n@%p2 add.s32 {d}, {d}, 2;"
    assert execute(code, pair).tolist() == [1]
    a, b = np.array([-1, 1, 5], np.int32), np.array([1, -1, 5], np.int32)
    choose = "\nselp.b32 {d}, 1, 0, %p1;"
    assert execute("setp.lt.s32 %p1, {a}, {b};" + choose, a, b).tolist() == [1, 0, 0]
    assert execute("setp.lt.u32 %p1, {a}, {b};" + choose, a, b).tolist() == [0, 1, 0]
    assert execute("setp.hs.u32 %p1, {a}, {b};" + choose, a, b).tolist() == [1, 0, 1]
    both = "setp.eq.s32 %p2, {b}, 5;\nsetp.lt.or.s32 %p1, {a}, {b}, "
    assert execute(both + "%p2;" + choose, a, b).tolist() == [1, 0, 1]
    assert execute(both + "!%p2;" + choose, a, b).tolist() == [1, 1, 0]


@pytest.mark.parametrize(("kind", "dtype"), [("bf16", torch.bfloat16), ("f16", torch.float16)])
def test_conversions_to_16_bits_round_to_nearest_even(kind, dtype):
    numbers = torch.from_numpy(np.concatenate([finite("f32", 2000, 0), bits32(*SPECIAL, 65504, 65519.9, 65520, 6e-8)]))
    values = torch.arange(0, 0x7F80, 7, dtype=torch.int16).view(dtype).float()
    steps = torch.cat([values, (values[:-1] + values[1:]) / 2]).view(torch.int32)  # and the ties between them
    numbers = torch.cat([numbers.view(torch.int32), steps])
    found = execute(f"cvt.rn.{kind}.f32 {{d}}, {{a}};", numbers.numpy(), to=np.uint16)
    wanted = numbers.view(torch.float32).to(dtype)
    bits = wanted.view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(found, np.where(wanted.isnan().numpy(), 0x7FFF, bits))
    high = execute(f"cvt.rn.{kind}x2.f32 {{d}}, {{a}}, 0f3F800000;", numbers.numpy())
    one = int(torch.tensor(1.0, dtype=dtype).view(torch.int16))
    assert np.array_equal(high >> 16, found) and (high & 0xFFFF == one).all()
    back = execute(f"cvt.f32.{kind} {{d}}, {{a}};", bits)
    assert np.array_equal(back.view(np.float32), wanted.float().numpy(), equal_nan=True)


def test_conversions_between_floats_and_integers():
    x = bits32(1.5, 2.5, -1.5, 3e9, -3e9, float("nan"), float("inf"), 300.7)
    i32, i16 = np.iinfo(np.int32), np.iinfo(np.int16)
    assert execute("cvt.rni.s32.f32 {d}, {a};", x, to=np.int32).tolist() == [
        2,
        2,
        -2,
        i32.max,
        i32.min,
        0,
        i32.max,
        301,
    ]
    assert execute("cvt.rzi.s16.f32 {d}, {a};", x, to=np.int16).tolist() == [
        1,
        2,
        -1,
        i16.max,
        i16.min,
        0,
        i16.max,
        300,
    ]
    assert execute("cvt.rmi.u32.f32 {d}, {a};", x).tolist() == [1, 2, 0, 3 * 10**9, 0, 0, 2**32 - 1, 300]
    assert execute("cvt.rpi.s64.f32 {d}, {a};", x[5:], to=np.int64).tolist() == [-(2**63), 2**63 - 1, 301]
    assert execute("cvt.rmi.f32.f32 {d}, {a};", x[:3]).view(np.float32).tolist() == [1, 2, -2]
    large = np.array(
        [2**24 + 1, 2**24 + 3, -(2**31), 2**60 + 2**36 + 1], np.int64
    )  # the last: a tie but for its last bit
    assert execute("cvt.rn.f32.s64 {d}, {a};", large).view(np.float32).tolist() == [
        2**24,
        2**24 + 4,
        -(2.0**31),
        2**60 + 2**37,
    ]
    narrow = np.array([0x1FF, 0x80], np.uint32)
    assert execute("cvt.s32.s8 {d}, {a};", narrow, to=np.int32).tolist() == [-1, -128]
    assert execute("cvt.u32.u8 {d}, {a};", narrow).tolist() == [255, 128]
    assert execute("cvt.sat.u8.s32 {d}, {a};", np.array([-5, 300, 7], np.int32), to=np.uint16).tolist() == [0, 255, 7]
    assert execute("cvt.s64.s32 {d}, {a};", np.array([-2], np.int32), to=np.int64).tolist() == [-2]
    assert execute("cvt.s8.s32 {d}, {a};", np.array([0x1FE], np.int32), to=np.int16).tolist() == [-2]


def signed(number: int, bits: int) -> int:
    return (number + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))


def truncated(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


INTEGERS = {
    "add": lambda a, b, bits: a + b,
    "sub": lambda a, b, bits: a - b,
    "mul.lo": lambda a, b, bits: a * b,
    "mul.hi": lambda a, b, bits: a * b >> bits,
    "div": lambda a, b, bits: truncated(a, b),
    "rem": lambda a, b, bits: a - b * truncated(a, b),
    "min": lambda a, b, bits: min(a, b),
    "max": lambda a, b, bits: max(a, b),
}


@pytest.mark.parametrize("kind", ["s16", "u16", "s32", "u32", "s64", "u64"])
@pytest.mark.parametrize("name", INTEGERS)
def test_integer_arithmetic_is_python_s_modulo_the_width(name, kind):
    bits = int(kind[1:])
    dtype = np.dtype(f"{'i' if kind[0] == 's' else 'u'}{bits // 8}")
    info = np.iinfo(dtype)
    corners = [info.min, info.max, 1, 2, info.max // 3, info.min // 2 + 5 if info.min else 7, 10]
    a, b = (
        np.array(each, dtype)
        for each in zip(*[(x, y) for x in [*corners, 0] for y in corners if y or name not in ("div", "rem")])
    )
    found = execute(f"{name}.{kind} {{d}}, {{a}}, {{b}};", a, b, to=dtype.type)
    for result, x, y in zip(found.tolist(), a.tolist(), b.tolist()):
        wanted = INTEGERS[name](x, y, bits)
        assert result == (signed(wanted, bits) if kind[0] == "s" else wanted % (1 << bits)), (x, y)


def test_wide_products_shifts_and_fields():
    a, b = np.array([-3, 2**31 - 1, -(2**31)], np.int32), np.array([5, 2**31 - 1, -1], np.int32)
    assert execute("mul.wide.s32 {d}, {a}, {b};", a, b, to=np.int64).tolist() == (a.astype(np.int64) * b).tolist()
    assert execute("mad.wide.u32 {d}, {a}, 4, {b};", a[:1], np.array([7], np.int64), to=np.int64).tolist() == [
        2**34 - 12 + 7
    ]
    assert execute("mad.lo.s32 {d}, {a}, {b}, {b};", a[:1], b[:1], to=np.int32).tolist() == [-10]
    x, n = np.array([0x80000001] * 4, np.uint32), np.array([0, 1, 32, 40], np.uint32)
    assert execute("shl.b32 {d}, {a}, {b};", x, n).tolist() == [0x80000001, 2, 0, 0]
    assert execute("shr.u32 {d}, {a}, {b};", x, n).tolist() == [0x80000001, 0x40000000, 0, 0]
    assert execute("shr.s32 {d}, {a}, {b};", x, n).tolist() == [0x80000001, 0xC0000000, 0xFFFFFFFF, 0xFFFFFFFF]
    assert execute("bfe.u32 {d}, {a}, 4, 8;", np.array([0xABCD1234], np.uint32)).tolist() == [0x23]
    assert execute("bfe.u32 {d}, {a}, 260, 264;", np.array([0xABCD1234], np.uint32)).tolist() == [0x23]
    assert execute("bfe.s32 {d}, {a}, 28, 8;", np.array([0xABCD1234], np.uint32), to=np.int32).tolist() == [-6]
    assert execute("bfe.s32 {d}, {a}, 24, 3;", np.array([0x04000000], np.uint32), to=np.int32).tolist() == [-4]
    assert execute("prmt.b32 {d}, {a}, {b}, 0x7632U;", *np.array([[0x33221100], [0x77665544]], np.uint32)).tolist() == [
        0x77663322
    ]
    assert execute("prmt.b32 {d}, {a}, 0, 0x0008U;", np.array([0x80], np.uint32)).tolist() == [0x808080FF]
    assert execute("shf.l.wrap.b32 {d}, {a}, {b}, 36;", *np.array([[0xF0000000], [1]], np.uint32)).tolist() == [0x1F]
    assert execute("not.b32 {d}, {a};", np.array([5], np.int32), to=np.int32).tolist() == [-6]
    assert execute("add.s16x2 {d}, {a}, {a};", np.array([0x8000_8001], np.uint32)).tolist() == [2]


def test_registers_are_packed_low_first_and_a_sink_takes_nothing():
    code = "mov.b32 {{%h7, _}}, {a};\nmov.b32 {{_, %h8}}, {a};\nmov.b32 {d}, {{%h8, %h7}};"
    assert execute(code, np.array([0x11112222], np.uint32)).tolist() == [0x22221111]
    assert execute("mov.b64 {d}, {{{a}, 7}};", np.array([5], np.uint32), to=np.uint64).tolist() == [7 * 2**32 + 5]


APPROXIMATE = {  # instruction -> (exact in float64, points, documented error at the result y)
    "ex2.approx.ftz.f32": (np.exp2, np.linspace(-20, 20, 999), lambda y, x: 2**-22 * y),
    "rcp.approx.ftz.f32": (np.reciprocal, np.linspace(0.1, 9, 999), lambda y, x: np.spacing(y.astype(np.float32))),
    "lg2.approx.f32": (
        np.log2,
        np.linspace(0.01, 9, 999),
        lambda y, x: 2**-22 * np.where((x > 0.5) & (x < 2), 1, abs(y)),
    ),
    "sqrt.approx.ftz.f32": (np.sqrt, np.linspace(0.1, 9, 999), lambda y, x: 2**-23 * y),
    "rsqrt.approx.f32": (lambda x: 1 / np.sqrt(x), np.linspace(0.1, 9, 999), lambda y, x: 2**-22.9 * y),
    "sin.approx.f32": (np.sin, np.linspace(0.1, 6, 999), lambda y, x: 2**-20.5),
    "cos.approx.f32": (np.cos, np.linspace(0.1, 6, 999), lambda y, x: 2**-20.5),
    "tanh.approx.f32": (np.tanh, np.linspace(-9, 9, 998), lambda y, x: 2**-11 * abs(y)),
}


@pytest.mark.parametrize("name", APPROXIMATE)
def test_approximations_are_exact_or_as_wrong_as_asked_and_no_more(name):
    exact, points, bound = APPROXIMATE[name]
    x = points.astype(np.float32)
    y = exact(x.astype(np.float64))
    limit = bound(y, x)

    def run(**options) -> np.ndarray:
        return execute(f"{name} {{d}}, {{a}};", x.view(np.uint32), **options).view(np.float32)

    assert np.array_equal(run(), y.astype(np.float32))
    above, below, mixed = run(error=1) - y, run(error=-1) - y, run(error=1, seed=0) - y
    for each in (above, below, mixed):
        assert (np.abs(each) <= limit).all()
    assert (above > 0).mean() > 0.99 and (below < 0).mean() > 0.99  # and no half-hearted ones:
    assert np.median(above / limit) > 0.4 and np.median(below / limit) < -0.4
    assert 0.3 < (mixed > 0).mean() < 0.7 and np.isin(mixed, np.concatenate([above, below])).all()


def test_an_injected_error_spares_what_is_documented_as_exact():
    def run(name: str, *numbers: float) -> list[float]:
        return execute(f"{name} {{d}}, {{a}};", bits32(*numbers), error=1).view(np.float32).tolist()

    assert run("ex2.approx.ftz.f32", 0.0, -0.0, 1e-40, float("inf"), float("-inf"), 200, -200) == [
        1,
        1,
        1,
        float("inf"),
        0,
        float("inf"),
        0,
    ]
    assert run("rcp.approx.ftz.f32", 0.0, -1e-40, float("inf"), 1e38) == [float("inf"), float("-inf"), 0, 0]
    assert np.isnan(run("rcp.approx.ftz.f32", float("nan"))).all()
    exact = execute("div.full.f32 {d}, {a}, {b};", bits32(1, 0), bits32(3, 7)).view(np.float32)
    wrong = execute("div.full.f32 {d}, {a}, {b};", bits32(1, 0), bits32(3, 7), error=1).view(np.float32)
    assert (
        exact.tolist() == [np.float32(1 / 3), 0]
        and 1 <= (wrong[0] - 1 / 3) / np.spacing(np.float32(1 / 3)) <= 2
        and wrong[1] == 0
    )


# what a program may not do

COPY = """
    mad.wide.u32 %a0, %r0, 4, %a0;
    mad.wide.u32 %a1, %r0, 4, %a1;
    setp.lt.u32 %p1, %r0, {count};
    {guard} ld.global.b32 {{ %r1 }}, [ %a0 + {offset} ];
    {guard_store} st.global.b32 [ %a1 + 0 ], {{ %r1 }};
"""


def copy(count: int = 8, offset: int = 0, guard: str = "@%p1", guard_store: str = "@%p1", threads: int = 16) -> str:
    return program(COPY.format(count=count, offset=offset, guard=guard, guard_store=guard_store), 2, threads)


def test_a_guarded_copy_runs_and_its_trace_adds_up():
    x, y = np.arange(8, dtype=np.float32), np.zeros(8, np.float32)
    trace = launch(copy(), (1,), [x, y])
    assert np.array_equal(x, y)
    assert [tuple(access) for access in trace.accesses] == [("load", 4, 8), ("store", 4, 8)]
    assert trace.bytes("load") == trace.bytes("store") == 32
    assert trace.instructions["ld.global.b32"] == 8 and trace.instructions["mad.wide.u32"] == 32


def test_an_access_out_of_bounds_names_the_lane_the_instruction_and_how_far():
    x, y = np.zeros(8, np.float32), np.zeros(16, np.float32)
    with pytest.raises(PTXError) as error:
        launch(copy(guard="", guard_store=""), (1,), [x, y])
    message = str(error.value)
    assert "load of 4 bytes out of bounds" in message and "4 bytes past the end of argument 0 (float32 (8,))" in message
    assert "program (0, 0, 0), thread 8" in message and "`ld.global.b32 { %r1 }, [ %a0 + 0 ]`" in message
    with pytest.raises(PTXError, match=r"load of 16 bytes out of bounds.* 8 bytes past the end of argument 0"):
        launch(program("ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%a0+16];", 1), (1,), [np.zeros(6, np.float32)])
    with pytest.raises(PTXError, match="4 bytes before argument 0"):
        launch(copy(offset=-4), (1,), [x, y])
    with pytest.raises(PTXError, match=r"store of 4 bytes out of bounds.* past the end of argument 1.*thread 8"):
        launch(copy(count=16), (1,), [y, x])


def test_a_fault_under_a_guard_names_the_lane_that_ran():
    code = "mad.wide.u32 %a0, %r0, 4, %a0;\nsetp.ge.u32 %p1, %r0, 5;\n@%p1 ld.global.b32 %r1, [%a0];"
    with pytest.raises(PTXError, match="thread 8, "):
        launch(program(code, 1), (1,), [np.zeros(8, np.float32)])


def test_a_misaligned_access_is_an_error():
    with pytest.raises(PTXError, match=r"misaligned load of 4 bytes at 0x\w+2, not a multiple of 4"):
        launch(copy(offset=2), (1,), [np.zeros(9, np.float32), np.zeros(9, np.float32)])
    vector = "ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%a0+8];"
    with pytest.raises(PTXError, match="misaligned load of 16 bytes"):
        launch(program(vector, 1), (1,), [np.zeros(9, np.float32)])


def test_read_only_memory_is_not_written():
    x, y = np.arange(8, dtype=np.float32), np.zeros(8, np.float32)
    y.flags.writeable = False
    with pytest.raises(PTXError, match="store to read-only argument 1"):
        launch(copy(), (1,), [x, y])
    memory = Memory()
    address = memory.map(None, x, writable=False)
    with pytest.raises(PTXError, match="store to read-only"):
        launch(copy(), (1,), [address, address], memory=memory)
    assert not y.any()


def test_undefined_values_may_be_computed_but_not_stored_nor_decide_anything():
    def run(code: str) -> None:
        launch(program(code, 1), (1,), [np.zeros(8, np.uint64)])

    run("add.s32 %r1, %r2, 1;\nmul.f32 %r3, %r1, %r1;\nst.global.b32 [%a0], %r0;")
    with pytest.raises(PTXError, match="the stored value is undefined: %r2 was never written"):
        run("add.s32 %r1, %r2, 1;\nst.global.b32 [%a0], %r1;")
    with pytest.raises(PTXError, match="the address is undefined: %d1 was never written"):
        run("add.s64 %a1, %a0, %d1;\nld.global.b32 %r1, [%a1];")
    with pytest.raises(PTXError, match="the guard is undefined: %r1 was never written"):
        run("setp.eq.s32 %p1, %r1, 0;\n@%p1 st.global.b32 [%a0], 1;")
    with pytest.raises(PTXError, match="the stored value is undefined: %r1 was never written"):
        run("setp.eq.s32 %p1, %r1, 0;\nselp.b32 %r2, 1, 2, %p1;\nst.global.b32 [%a0], %r2;")
    with pytest.raises(PTXError, match="the stored value is undefined: a division by 0"):
        run("div.s32 %r1, %r0, 0;\nst.global.b32 [%a0], %r1;")


def test_a_load_under_a_false_guard_leaves_what_was_there():
    x, y = np.arange(8, dtype=np.float32), np.zeros(16, np.float32)
    with pytest.raises(
        PTXError, match=r"the stored value is undefined: %r1 was never written where a guard was false.*thread 8,"
    ):
        launch(copy(guard_store=""), (1,), [x, y])
    launch(copy(guard="mov.b32 %r1, 0f3F800000;\n@%p1", guard_store=""), (1,), [x, y])
    assert np.array_equal(y, [*x, *np.ones(8)])


def test_a_choice_is_defined_where_the_chosen_one_is():
    code = "setp.lt.u32 %p1, %r0, {n};\nselp.b32 %r2, %r0, %r1, %p1;\nst.global.b32 [%a0], %r2;"
    launch(program(code.format(n=32), 1), (1,), [np.zeros(1, np.uint32)])
    with pytest.raises(PTXError, match=r"%r1 was never written \(program \(0, 0, 0\), thread 7,"):
        launch(program(code.format(n=7), 1), (1,), [np.zeros(1, np.uint32)])


def test_memory_that_was_never_written_has_no_value_until_it_is():
    memory, y = Memory(), np.zeros(8, np.float32)
    out = memory.map(None, np.zeros(8, np.float32), initialised=False)
    with pytest.raises(PTXError, match="undefined: it was loaded from memory never written"):
        launch(copy(), (1,), [out, y], memory=memory)
    launch(copy(), (1,), [np.ones(8, np.float32), out], memory=memory)
    launch(copy(), (1,), [out, y], memory=memory)
    assert y.tolist() == [1] * 8


def test_windows_lie_anywhere_and_do_not_overlap():
    memory, low, high = Memory(), np.arange(4, dtype=np.uint32), np.zeros(4, np.uint32)
    assert memory.map(2**64 - 16, high) == 2**64 - 16
    memory.map(4096, low)
    launch(copy(count=4), (1,), [4096, 2**64 - 16], memory=memory)
    assert np.array_equal(high, low)
    with pytest.raises(ValueError, match="overlaps"):
        memory.map(4100, np.zeros(1, np.uint8))
    memory.map(4112, np.zeros(1, np.uint8))
    with pytest.raises(ValueError, match="within 64 bits"):
        memory.map(2**64 - 15, np.zeros(4, np.uint32))
    with pytest.raises(PTXError, match=r"out of bounds.* nothing is mapped"):
        launch(copy(), (1,), [0, 0])


def test_tensors_are_written_in_place_whatever_their_layout_and_dtype():
    x = seeded(1, 2, 2, 2, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    y = torch.zeros_like(x)
    launch(copy(count=4), (1,), [x, y])
    assert torch.equal(x, y) and y.stride() == x.stride()
    a = np.arange(8, dtype=np.float32).reshape(2, 4).T
    b = np.zeros_like(a)
    launch(copy(), (1,), [a, b])
    assert np.array_equal(a, b)
    for gaps in (torch.zeros(4, 4)[:, :2], np.zeros((4, 4))[:, ::2]):
        with pytest.raises(ValueError, match="without gaps"):
            Memory().map(None, gaps)


# programs, grids and arguments

IDS = """
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ctaid.y;
    mov.u32 %r3, %nctaid.x;
    mad.lo.u32 %r4, %r2, %r3, %r1;
    mov.u32 %r5, %ntid.x;
    mad.lo.u32 %r4, %r4, %r5, %r0;
    mad.wide.u32 %a0, %r4, 4, %a0;
    st.global.b32 [%a0], %r4;
"""


def test_every_program_of_a_grid_runs_and_chosen_ones_alone():
    y = np.zeros(3 * 2 * 32, np.uint32)
    launch(program(IDS, 1), (3, 2), [y])
    assert np.array_equal(y, np.arange(192))
    y[:] = 0
    launch(program(IDS, 1), (3, 2), [y], programs=[2, (1, 1)])
    assert np.flatnonzero(y).tolist() == [*range(64, 96), *range(128, 160)]
    with pytest.raises(ValueError, match=r"program \(3, 0, 0\) is outside of the grid \(3, 2, 1\)"):
        launch(program(IDS, 1), (3, 2), [y], programs=[3])
    for grid in ((), (0,), (1, 65_536), (1, 1, 1, 1)):
        with pytest.raises(ValueError, match="wanted 1 to 3 sizes"):
            launch(program(IDS, 1), grid, [y])


def test_threads_of_three_dimensions_count_x_first():
    code = """
    mov.u32 %r1, %tid.y;
    mov.u32 %r2, %tid.z;
    mad.lo.u32 %r3, %r1, 10, %r0;
    mad.lo.u32 %r3, %r2, 100, %r3;
    mad.lo.u32 %r4, %r2, 3, %r1;
    mad.lo.u32 %r4, %r4, 4, %r0;
    mad.wide.u32 %a0, %r4, 4, %a0;
    st.global.b32 [%a0], %r3;"""
    y = np.zeros(24, np.uint32)
    launch(program(code, 1, "4, 3, 2"), (1,), [y])
    assert y.tolist() == [x + 10 * y + 100 * z for z in range(2) for y in range(3) for x in range(4)]


def test_more_lanes_than_run_at_once_give_the_same():
    y = np.zeros(3000 * 32, np.uint32)
    trace = launch(program(IDS, 1), (3000,), [y])
    assert np.array_equal(y, np.arange(y.size)) and trace.instructions["st.global.b32"] == y.size
    assert [access.lanes for access in trace.accesses] == [y.size]


def test_arguments_must_fit_the_parameters():
    text = program("ld.param.b32 %r1, [n];\nst.global.b32 [%a0], %r1;", 1).replace(
        "p0)", "p0, .param .u32 n, .param .f32 f)"
    )
    y = np.zeros(1, np.int32)
    launch(text, (1,), [y, -3, 0.5])
    assert y.tolist() == [-3]
    for wrong in ([y, 0.5, 0.5], [y, 2**32, 0.5], [y, -(2**31) - 1, 0.5], [y, y, 0.5], [y, 1, "x"], [1.5, 1, 0.5]):
        with pytest.raises(TypeError, match=r"argument . of snippet is .*; wanted one for a"):
            launch(text, (1,), wrong)
    for wrong in ([y, 1], [y, 1, 0.5, 1]):
        with pytest.raises(TypeError, match=r"snippet got . arguments for its parameters \(u64, u32, f32\)"):
            launch(text, (1,), wrong)


def test_parameters_are_loaded_as_wide_as_the_register_and_hidden_ones_are_0():
    code = "ld.param.s32 %d1, [n];\nst.global.b64 [%a0], %d1;\nld.param.u64 %d2, [s];\nst.global.b64 [%a0+8], %d2;"
    text = program(code, 1).replace("p0)", "p0, .param .u32 n, .param .u64 .ptr .global .align 1 s)")
    y = np.ones(2, np.int64)
    launch(text, (1,), [y, -7])
    assert y.tolist() == [-7, 0]


# reading


def test_an_inner_block_has_registers_of_its_own():
    code = """
    mov.u32 %r5, 5;  // a comment; with a semicolon
    /* {{ and
       another }} */
    // begin inline asm
    {{ .reg .b16 t, %r5;
       mov.b16 t, 9; mov.b16 %r5, t; }}
    {{ .reg .b32 t; .reg .pred q; .loc 1 2 3
    $L__tmp0: setp.eq.u32 q, %r0, 0; selp.b32 t, {a}, 0, q; add.u32 %r6, t, 0; }}
    // end inline asm
    add.u32 {d}, %r5, %r6;"""
    assert execute(code, np.array([7, 7], np.uint32)).tolist() == [12, 5]
    with pytest.raises(PTXError, match=r"t \(inner \d+\) was never written"):
        execute("{{ .reg .b32 t; mov.b32 t, 1; }} {{ .reg .b32 t; mov.b32 {d}, t; }}", np.zeros(1, np.uint32))


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("@%p1 bra $L__1;\n$L__1:", "branches, loops"),
        ("@%p1 ret;", "branches, loops and early returns"),
        ("bar.sync 0;", "barriers"),
        ("shfl.sync.bfly.b32 %r1, %r1, 16, 31, -1;", "exchange between lanes"),
        ("ld.shared.b32 %r1, [%r1];", "shared and local memory"),
        (".local .align 4 .b8 depot[28];", "shared and local memory"),
        ("mov.b32 %r1, global_smem;", "'global_smem' is no register"),
        ("atom.global.add.u32 %r1, [%a0], 1;", "atomics"),
        ("add.sat.f32 %r1, %r1, %r1;", "`add.sat.f32`"),
        ("add.rz.f32 %r1, %r1, %r1;", "`add.rz.f32`"),
        ("fma.rn.f64 %d1, %d1, %d1, %d1;", "`fma.rn.f64`"),
        ("ld.acquire.gpu.global.b32 %r1, [%a0];", "not supported"),
        ("max.f32 %r1, %r1, %r1, %r1;", "with 3 operands alone"),
        ("frobnicate.b32 %r1;", "`frobnicate.b32`"),
    ],
)
def test_what_is_not_supported_is_named_before_anything_runs(code, why):
    y = np.zeros(1, np.uint32)
    with pytest.raises(Unsupported) as error:
        launch(program(f"st.global.b32 [%a0], 1;\n{code}", 1), (1,), [y])
    assert why in str(error.value) and code.split(";")[0] in str(error.value) and str(error.value).startswith("line ")
    assert y[0] == 0


def test_a_text_that_is_not_one_kernel_is_refused():
    with pytest.raises(ValueError, match="with 0 kernels"):
        parse("hello")
    with pytest.raises(ValueError, match="with 2 kernels"):
        parse(copy() + copy())
    with pytest.raises(ValueError, match=r"neither .reqntid nor .maxntid"):
        parse(copy().replace(".reqntid 16", ""))
    with pytest.raises(ValueError, match="cannot read"):
        parse(copy().replace("ret;", "").rstrip().rstrip("}"))
    with pytest.raises(ValueError, match="register %h1, which is b16, as f32"):
        execute("add.f32 {d}, %h1, {a};", np.zeros(1, np.uint32))


# Triton's kernels

if triton:

    @triton.jit
    def add_kernel(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        inside = i < n
        tl.store(out_ptr + i, tl.load(x_ptr + i, mask=inside) + tl.load(y_ptr + i, mask=inside), mask=inside)

    @triton.jit
    def add_without_mask_kernel(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(out_ptr + i, tl.load(x_ptr + i) + tl.load(y_ptr + i), mask=i < n)

    @triton.jit
    def silu_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + i, mask=i < n)
        s = (1 / (1 + tl.exp(-x.to(tl.float32)))).to(x.dtype)
        tl.store(out_ptr + i, tl.where(x > 0, x * s, tl.minimum(x * s, 0.0)), mask=i < n)

    @triton.jit
    def integer_kernel(x_ptr, out_ptr, n, d, BLOCK: tl.constexpr):
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + i, mask=i < n)
        tl.store(out_ptr + i, (x // d) * 1000 + x % d + (x >> 3) - tl.maximum(x, 5) + x // 7, mask=i < n)

    @triton.jit
    def tile_kernel(
        x_ptr, out_ptr, height, width, stride, TURNED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
    ):
        row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
        column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
        inside = (row < height) & (column < width)
        x = tl.load(x_ptr + row * stride + column, mask=inside)
        tl.store(out_ptr + (column * height + row if TURNED else row * width + column), x * 2, mask=inside)

    @triton.jit
    def quantise_kernel(x_ptr, out_ptr, n, scale, BLOCK: tl.constexpr):
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + i, mask=i < n, eviction_policy="evict_first").to(tl.float32)
        tl.store(out_ptr + i, tl.clamp(tl.floor(x * scale + 0.5), -128, 127).to(tl.int8), mask=i < n)

    @triton.jit
    def accumulate_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(out_ptr + i, tl.load(out_ptr + i, mask=i < n) + tl.load(x_ptr + i, mask=i < n), mask=i < n)

    @triton.jit
    def loop_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
        i, total = tl.arange(0, BLOCK), tl.zeros([BLOCK], tl.float32)
        for first in range(0, n, BLOCK):
            total += tl.load(x_ptr + first + i)
        tl.store(out_ptr + i, total)

    @triton.jit
    def sum_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
        i = tl.arange(0, BLOCK)
        tl.store(out_ptr, tl.sum(tl.load(x_ptr + i, mask=i < n, other=0.0)))


def compiled(kernel, types: dict[str, str], target: int, aligned: tuple[str, ...] = (), **constants) -> str:
    """The PTX of a kernel for a GPU's compute capability. types: each argument's, as "*fp32" or "i32".

    aligned: arguments promised to be multiples of 16, which lets a thread move several elements at a time.
    """
    names = kernel.arg_names
    source = ASTSource(
        fn=kernel,
        signature={name: types.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): constant for name, constant in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options={"num_warps": 4}).asm["ptx"]


def pointers(kernel, dtype: str, **more: str) -> dict[str, str]:
    return {name: dtype for name in kernel.arg_names if name.endswith("_ptr")} | {"n": "i32"} | more


@needs_triton
@pytest.mark.parametrize("target", [75, 80, 90, 100, 120])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_vector_add_with_a_tail(target, dtype):
    x, y = seeded(1027, dtype=dtype), seeded(1027, seed=1, dtype=dtype)
    out = torch.full_like(x, 77)
    kernel_type = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}[dtype]
    ptx = compiled(add_kernel, pointers(add_kernel, kernel_type), target, BLOCK=512)
    trace = launch(ptx, (3,), [x, y, out, 1027])
    assert torch.equal(out, x + y)
    assert trace.bytes("load") == 2 * trace.bytes("store") == 2 * x.nbytes


@needs_triton
def test_a_forgotten_mask_is_found():
    x = np.zeros(1027, np.float32)
    ptx = compiled(add_without_mask_kernel, pointers(add_without_mask_kernel, "*fp32"), 90, BLOCK=512)
    launch(ptx, (2,), [x[:1024], x[:1024], x, 1024])
    with pytest.raises(
        PTXError, match=r"load of .* bytes out of bounds.*past the end of argument 0.*program \(2, 0, 0\)"
    ):
        launch(ptx, (3,), [x, x, x, 1027])


@needs_triton
def test_a_promise_of_alignment_that_is_not_kept_is_found():
    x, out, memory = np.ones(520, np.float32), np.zeros(512, np.float32), Memory()
    address, types = memory.map(None, x), pointers(accumulate_kernel, "*fp32")
    trace = launch(compiled(accumulate_kernel, types, 90, BLOCK=512), (1,), [address + 4, out, 512], memory=memory)
    assert out.all() and {access.bytes for access in trace.accesses} == {4}
    ptx = compiled(accumulate_kernel, types, 90, ("x_ptr", "out_ptr", "n"), BLOCK=512)
    trace = launch(ptx, (1,), [address + 16, out, 512], memory=memory)
    assert {access.bytes for access in trace.accesses} == {16}
    with pytest.raises(PTXError, match="misaligned load of 16 bytes"):
        launch(ptx, (1,), [address + 4, out, 512], memory=memory)


@needs_triton
@pytest.mark.parametrize("target", [75, 80, 90, 100])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_silu_in_16_bits_rounds_where_the_kernel_says(target, dtype):
    x = torch.cat([3 * seeded(1000, dtype=dtype), torch.tensor([0.0, -0.0, 1e-7, 100, -100], dtype=dtype)])
    out = torch.empty_like(x)
    types = pointers(silu_kernel, {torch.bfloat16: "*bf16", torch.float16: "*fp16"}[dtype])
    launch(compiled(silu_kernel, types, target, BLOCK=512), (2,), [x, out, x.numel()])
    wanted = x * torch.sigmoid(x.float()).to(dtype)
    if target >= 80:
        assert torch.equal(out, wanted)
    else:  # no bfloat16 there: Triton may compute both steps in float32
        assert torch.allclose(out, wanted, rtol=2**-7, atol=1e-6)


@needs_triton
@pytest.mark.parametrize("target", [75, 100])
def test_integers_divide_as_triton_s_do(target):
    x = np.random.default_rng(0).integers(-(2**31), 2**31, 700, dtype=np.int64).astype(np.int32)
    out = np.zeros_like(x)
    launch(
        compiled(integer_kernel, pointers(integer_kernel, "*i32", d="i32"), target, BLOCK=512), (2,), [x, out, 700, -13]
    )
    wide = x.astype(np.int64)
    quotient, by_7 = np.trunc(wide / -13).astype(np.int64), np.trunc(wide / 7).astype(np.int64)
    wanted = quotient * 1000 + (wide - quotient * -13) + (wide >> 3) - np.maximum(wide, 5) + by_7
    assert np.array_equal(out, wanted.astype(np.int32))


TILE = {"height": "i32", "width": "i32", "stride": "i32"}


@needs_triton
@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.float64])
def test_a_tile_of_odd_width_in_a_wider_picture(dtype):
    x = np.random.default_rng(0).integers(-60, 60, (13, 41)).astype(dtype)
    out = np.zeros((13, 37), dtype)
    kind = {np.float32: "*fp32", np.int8: "*i8", np.float64: "*fp64"}[dtype]
    ptx = compiled(tile_kernel, {"x_ptr": kind, "out_ptr": kind, **TILE}, 90, TURNED=False, ROWS=8, COLUMNS=16)
    launch(ptx, (3, 2), [x, out, 13, 37, 41])
    assert np.array_equal(out, 2 * x[:, :37])


@needs_triton
def test_float16_to_int8_with_a_hint_for_the_caches():
    x = (40 * seeded(1003)).half()
    out = torch.zeros(1003, dtype=torch.int8)
    types = {"x_ptr": "*fp16", "out_ptr": "*i8", "n": "i32", "scale": "fp32"}
    launch(compiled(quantise_kernel, types, 90, BLOCK=512), (2,), [x, out, 1003, 1.5])
    assert torch.equal(out, torch.floor(x.float() * 1.5 + 0.5).clamp(-128, 127).to(torch.int8))


@needs_triton
def test_a_kernel_that_reads_what_nobody_wrote_is_found():
    memory, x = Memory(), np.ones(512, np.float32)
    out = memory.map(None, np.zeros(512, np.float32), initialised=False)
    ptx = compiled(accumulate_kernel, pointers(accumulate_kernel, "*fp32"), 90, BLOCK=512)
    with pytest.raises(PTXError, match="the stored value is undefined: it was loaded from memory never written"):
        launch(ptx, (1,), [x, out, 512], memory=memory)


@needs_triton
def test_loops_reductions_and_shared_memory_are_refused_by_name():
    loop = compiled(loop_kernel, pointers(loop_kernel, "*fp32"), 90, BLOCK=512)
    with pytest.raises(Unsupported, match=r"bra.*branches, loops and early returns not supported"):
        parse(loop)
    reduction = compiled(sum_kernel, pointers(sum_kernel, "*fp32"), 90, BLOCK=512)
    with pytest.raises(Unsupported, match=r"shfl.*exchange between lanes not supported|global_smem.*shared memory"):
        parse(reduction)
    types = {"x_ptr": "*fp32", "out_ptr": "*fp32", **TILE}
    turned = compiled(tile_kernel, types, 90, TURNED=True, ROWS=8, COLUMNS=16)
    with pytest.raises(Unsupported, match=r"global_smem.*shared memory and constants not supported"):
        parse(turned)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("target", [80, 100])
def test_the_gated_elu_kernel_runs_forward(target, dtype):
    """A smoke test: the figures are for test_kernels.py."""
    x = 2 * seeded(2, 6, 5, 21, dtype=dtype)
    y, plane = torch.empty_like(x[:, :3]), 3 * 5 * 21
    kind = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}[dtype]
    kernel = triton_gated_elu._gated_elu_forward_kernel
    constants = {"bias_ptr": None, "gate_ptr": None, "C": 1, "CHANNELS_LAST": False, "HARDWARE": True, "BLOCK": 128}
    types = {"x_ptr": kind, "y_ptr": kind, "run": "i32", "alpha": "fp32"}
    launch(compiled(kernel, types, target, **constants), (-(-plane // 128), 2), [x, y, plane, 1.0], error=1)
    g, f = x.double().chunk(2, 1)
    wanted = torch.sigmoid(g) * torch.nn.functional.elu(f)
    assert torch.allclose(y.double(), wanted, rtol=torch.finfo(dtype).eps * 4, atol=1e-6)
