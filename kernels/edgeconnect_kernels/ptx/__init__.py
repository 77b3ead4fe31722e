"""Runs a compiled Triton kernel's PTX on the CPU, thread by thread, and checks what it does: no GPU, driver or Triton needed.

Comes after compilation (report.py): what a GPU would run, run here. Source: NVIDIA's PTX ISA, version 9.1.

    y = np.empty_like(x)
    trace = launch(kernel.asm["ptx"], grid=(4,), arguments=[x, y, x.size])

`parse` (ptx/parser.py) makes a list of instructions. `launch` walks it once, each instruction for all threads ("lanes") at a
time, by a table from opcodes to NumPy functions (ptx/instructions.py), over a `Memory` (ptx/memory.py). So it runs
straight-line kernels whose lanes work on their own, which is what Triton makes of elementwise ones. Branches and loops,
shared and local memory, exchange between lanes (reductions), barriers, atomics, calls, tensor cores and asynchronous
copies raise `Unsupported`, before anything has run; so does any instruction or modifier that the table lacks.

Checked: every access lies within a mapped window and is aligned to its size; nothing is written to read-only memory; no
undefined value is stored or decides an address or a guard. Undefined is a register that was never written, a byte that
was never written in a window mapped with initialised=False, a quotient by 0, and what is computed from one of these.
Not modelled: races (of lanes that store to one address, the last one wins), and that ptxas may fuse a `mul` and an `add`
without rounding suffix into one fma, which it does unless it was told not to (Triton's enable_fp_fusion).
"""

import functools
import operator
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from edgeconnect_kernels.ptx.memory import Fault, Memory, PTXError
from edgeconnect_kernels.ptx.numbers import Array, decode, encode, storage, width, with_error
from edgeconnect_kernels.ptx.parser import Address, Instruction, Kernel, Operand, Unsupported, parse, parts

__all__ = ["Access", "Kernel", "Memory", "PTXError", "Trace", "Unsupported", "launch", "parse"]

LANES_AT_ONCE = 2**16
GRID_LIMITS = (2**31 - 1, 65_535, 65_535)


class Access(NamedTuple):
    """What one load or store instruction did: "load" or "store", bytes for each lane, how many lanes did it."""

    kind: str
    bytes: int
    lanes: int


@dataclass
class Trace:
    """What a launch did. instructions: opcode -> how often, summed over the lanes. accesses: in the program's order."""

    instructions: Counter[str] = field(default_factory=Counter)
    accesses: list[Access] = field(default_factory=list)

    def bytes(self, kind: str) -> int:
        """All bytes that the loads (or stores) moved."""
        return sum(access.bytes * access.lanes for access in self.accesses if access.kind == kind)


def launch(
    ptx: str,
    grid: Sequence[int],
    arguments: Sequence,
    programs: Iterable[int | tuple[int, ...]] | None = None,
    memory: Memory | None = None,
    error: float = 0.0,
    seed: int | None = None,
) -> Trace:
    """Run a kernel, given as the text of its PTX.

    grid: 1 to 3 sizes. programs: the program ids to run, as tuples or (x alone) ints; None: the whole grid.
    arguments: one for each parameter of the kernel. An array or tensor is mapped, as in Memory.map, and its address
    passed; an int in a pointer's place is an address in `memory`. The (at most two) pointers to scratch memory that
    Triton adds to a kernel's end are 0 by themselves.
    error: how wrong the approximate instructions (ex2, rcp, ...) are, in units of their documented bounds: 0 exact,
    1 or -1 the worst hardware that keeps to them. seed: draws error's sign for each lane and instruction.
    Raises ValueError or TypeError for wrong arguments, Unsupported, and PTXError for what the program does wrong.
    """
    kernel, memory, sizes = parse(ptx), memory or Memory(), (*map(operator.index, grid), 1, 1)[:3]
    if not 1 <= len(grid) <= 3 or not all(0 < size <= limit for size, limit in zip(sizes, GRID_LIMITS)):
        raise ValueError(f"grid is {tuple(grid)}; wanted 1 to 3 sizes from 1 to {GRID_LIMITS}")
    if programs is None:
        ids = np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes[::-1])[::-1], axis=1)
    else:
        ids = np.array([(*((p,) if isinstance(p, int) else p), 0, 0)[:3] for p in programs], np.int64).reshape(-1, 3)
    if (outside := ((ids < 0) | (ids >= sizes)).any(1)).any():
        raise ValueError(f"program {tuple(ids[outside][0].tolist())} is outside of the grid {sizes}")
    parameters = _parameters(kernel, arguments, memory)
    counts, random = (
        np.zeros(len(kernel.instructions), np.int64),
        np.random.default_rng(seed) if seed is not None else None,
    )
    step = max(1, LANES_AT_ONCE // int(np.prod(kernel.threads)))
    for first in range(0, len(ids), step):
        counts += _Lanes(kernel, sizes, ids[first : first + step], parameters, memory, error, random).run()
    return _trace(kernel, counts)


def _trace(kernel: Kernel, counts: Array) -> Trace:
    trace = Trace()
    for instruction, count in zip(kernel.instructions, counts.tolist()):
        trace.instructions[instruction.opcode] += count
        if instruction.action in ("load", "store"):
            size = width(instruction.kind) * len(parts(instruction.operands[instruction.action == "store"]))
            trace.accesses.append(Access(instruction.action, size, count))
    return trace


def _parameters(kernel: Kernel, arguments: Sequence, memory: Memory) -> dict[str, Array]:
    """Each parameter's raw bits."""
    kinds = list(kernel.parameters.values())
    hidden = kinds[len(arguments) :]
    if len(arguments) > len(kinds) or len(hidden) > 2 or any(kind not in ("u64", "b64") for kind in hidden):
        raise TypeError(f"{kernel.name} got {len(arguments)} arguments for its parameters ({', '.join(kinds)})")
    bits = {}
    for i, (name, argument) in enumerate(zip(kernel.parameters, [*arguments, 0, 0])):
        kind, size = kinds[i], width(kinds[i])
        if isinstance(argument, np.ndarray | torch.Tensor) and size == 8:
            argument = memory.map(None, argument, name=f"argument {i}")
        try:
            if kind[0] == "f":
                raw = struct.pack({2: "<e", 4: "<f", 8: "<d"}[size], argument)
            else:
                raw = operator.index(argument).to_bytes(size, "little", signed=operator.index(argument) < 0)
        except (TypeError, OverflowError, struct.error):
            raise TypeError(f"argument {i} of {kernel.name} is {argument!r}; wanted one for a {kind}") from None
        bits[name] = np.frombuffer(raw, f"<u{size}")
    return bits


class _Value(NamedTuple):
    """A register's bits on all lanes, or a literal's (one, for all). undefined: where they mean nothing; why: why so."""

    bits: Array
    undefined: Array | bool = False
    why: str = ""


class _Lanes:
    """All threads of some programs, in step."""

    def __init__(self, kernel: Kernel, grid, programs: Array, parameters, memory: Memory, error: float, random) -> None:
        self.kernel, self.parameters, self.memory = kernel, parameters, memory
        self.error, self.random = error, random
        threads = int(np.prod(kernel.threads))
        self.count = threads * len(programs)
        self.thread = np.tile(np.arange(threads), len(programs))
        self.program = np.repeat(programs, threads, axis=0)
        special = {"%laneid": self.thread % 32}
        for i, axis in enumerate("xyz"):
            special[f"%tid.{axis}"] = self.thread // int(np.prod(kernel.threads[:i])) % kernel.threads[i]
            special[f"%ctaid.{axis}"] = self.program[:, i]
            special[f"%ntid.{axis}"] = np.array(kernel.threads[i])
            special[f"%nctaid.{axis}"] = np.array(grid[i])
        self.values = {name: _Value(number.astype(np.uint32).reshape(-1)) for name, number in special.items()}

    def run(self) -> Array:
        """The one loop. Returns for each instruction how many lanes ran it."""
        counts = []
        actions = {
            "compute": self._compute,
            "load": self._load,
            "store": self._store,
            "ld.param": self._load_parameter,
            "pack": self._pack,
            "unpack": self._unpack,
        }
        with np.errstate(all="ignore"):
            for instruction in self.kernel.instructions:
                self.active = np.ones(self.count, bool)
                try:
                    if instruction.guard:
                        self.active = self._defined(instruction.guard, "pred", "the guard") & self.active
                    actions[instruction.action](instruction)
                except Fault as fault:
                    what, lane = fault.args
                    program, thread = tuple(self.program[lane].tolist()), self.thread[lane]
                    where = f"line {instruction.line}: `{instruction.text}`"
                    raise PTXError(f"{what} (program {program}, thread {thread}, {where})") from None
                counts.append(self.active.sum())
        return np.array(counts, np.int64)

    def _read(self, operand: Operand, kind: str) -> _Value:
        """A register or a literal that is to be read as the type; a register may be wider."""
        if isinstance(operand, int):
            return _Value(np.array([operand], np.uint64) if kind != "pred" else np.array([operand != 0]))
        name = str(operand).removeprefix("!")
        held = self.kernel.registers[name]
        if (held == "pred") != (kind == "pred") or width(held) < width(kind):
            raise ValueError(f"PTX reads register {name}, which is {held}, as {kind}")
        if name not in self.values:
            return _Value(np.zeros(self.count, storage(held)), True, f"{name} was never written")
        value = self.values[name]
        return value if name == operand else value._replace(bits=~value.bits)

    def _defined(self, operand: Operand, kind: str, what: str) -> Array:
        """The operand's bits; a Fault where it is undefined on an active lane."""
        value = self._read(operand, kind)
        if (undefined := self.active & value.undefined).any():
            raise Fault(f"{what} is undefined: {value.why}", np.flatnonzero(undefined)[0])
        return value.bits

    def _write(self, register: Operand, kind: str, value: _Value) -> None:
        """Into a register, on the active lanes. One wider than the type is filled up, with the sign or with 0."""
        if register == "_":
            return
        name, bits = str(register), value.bits
        if kind[0] == "s":
            bits = bits.view(f"i{bits.itemsize}").astype(f"i{width(self.kernel.registers[name])}")
        bits = np.broadcast_to(bits.astype(storage(self.kernel.registers[name])), self.count)
        undefined, why = self.active & value.undefined, value.why
        if not self.active.all():
            never = _Value(np.zeros_like(bits), True, f"{name} was never written where a guard was false")
            old = self.values.get(name, never)
            bits, kept = np.where(self.active, bits, old.bits), ~self.active & old.undefined
            why = " or ".join({reason: 0 for reason, where in ((why, undefined), (old.why, kept)) if where.any()})
            undefined = undefined | kept
        some = bool(undefined.any())
        self.values[name] = _Value(np.ascontiguousarray(bits), undefined if some else False, why if some else "")

    def _compute(self, instruction: Instruction) -> None:
        operation, (to, *operands) = instruction.operation, instruction.operands
        assert operation
        values = [self._read(operand, kind) for operand, kind in zip(operands, operation.operands)]
        numbers = [decode(value.bits, kind) for value, kind in zip(values, operation.operands)]
        result = operation.compute(*numbers)
        if operation.bound and self.error:
            signs = 1 if self.random is None else self.random.choice([-1.0, 1.0], result.shape)
            result = with_error(result, self.error * signs * operation.bound(result, *numbers), operation.results[0])
        undefined = operation.undefined([value.undefined for value in values], numbers)
        why = next((value.why for value in values if value.why), "a division by 0")
        results = result if isinstance(result, tuple) else (result,)
        for register, kind, each in zip(parts(to), operation.results, results):
            self._write(register, kind, _Value(encode(each, kind), undefined, why))

    def _load_parameter(self, instruction: Instruction) -> None:
        register, source = instruction.operands
        if not isinstance(source, Address) or source.base not in self.parameters or source.offset:
            raise Unsupported(f"`{instruction.text}`: of parameters, whole ones alone are supported")
        self._write(register, instruction.kind, _Value(self.parameters[source.base]))

    def _pack(self, instruction: Instruction) -> None:
        """The first register becomes the lowest bits."""
        to, sources = instruction.operands[0], parts(instruction.operands[1])
        kind = f"b{8 * width(instruction.kind) // len(sources)}"
        values = [self._read(source, kind) for source in sources]
        bits = np.stack(np.broadcast_arrays(*(value.bits.astype(storage(kind)) for value in values)), axis=-1)
        undefined = functools.reduce(operator.or_, [value.undefined for value in values])
        why = next((value.why for value in values if value.why), "")
        self._write(to, instruction.kind, _Value(bits.view(storage(instruction.kind)).reshape(-1), undefined, why))

    def _unpack(self, instruction: Instruction) -> None:
        registers, source = parts(instruction.operands[0]), instruction.operands[1]
        kind = f"b{8 * width(instruction.kind) // len(registers)}"
        value = self._read(source, instruction.kind)
        bits = value.bits.astype(storage(instruction.kind)).view(storage(kind)).reshape(-1, len(registers))
        for i, register in enumerate(registers):
            self._write(register, kind, value._replace(bits=np.ascontiguousarray(bits[:, i])))

    def _load(self, instruction: Instruction) -> None:
        to, address, *_ = instruction.operands
        registers, size = parts(to), width(instruction.kind)
        data, written = self._access(self.memory.load, address, size * len(registers))
        for i, register in enumerate(registers):
            part = slice(i * size, (i + 1) * size)
            bits, undefined = np.zeros((self.count, size), np.uint8), np.zeros(self.count, bool)
            bits[self.active], undefined[self.active] = data[:, part], ~written[:, part].all(1)
            bits = bits.view(storage(instruction.kind)).reshape(-1)
            why = f"it was loaded from memory never written, by `{instruction.text}`"
            self._write(register, instruction.kind, _Value(bits, undefined, why))

    def _store(self, instruction: Instruction) -> None:
        address, source, *_ = instruction.operands
        columns = []
        for register in parts(source):
            bits = self._defined(register, instruction.kind, "the stored value").astype(storage(instruction.kind))
            columns.append(np.broadcast_to(bits, self.count)[self.active])
        self._access(self.memory.store, address, np.stack(columns, axis=-1).view(np.uint8))

    def _access(self, how: Callable, address: Operand, what) -> tuple[Array, Array]:
        """Load or store for the active lanes."""
        assert isinstance(address, Address)
        base = np.broadcast_to(self._defined(address.base, "u64", "the address"), self.count)
        try:
            return how(base[self.active] + np.uint64(address.offset % 2**64), what)
        except Fault as fault:
            raise Fault(fault.args[0], np.flatnonzero(self.active)[fault.args[1]]) from None
