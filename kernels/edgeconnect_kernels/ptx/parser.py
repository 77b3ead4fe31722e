"""Reads the PTX of one kernel: text in, a list of instructions out. Used by __init__.py; source: PTX ISA, "Syntax".

What the executor cannot run is refused here, by name, so that nothing has run by then.
"""

import functools
import re
from dataclasses import dataclass
from typing import NamedTuple

from edgeconnect_kernels.ptx.instructions import Operation, find_operation

COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*(?:\(([^)]*)\))?([^{;]*)\{")
PARAMETER = re.compile(r"\.param\s+\.(\w+)[^,]*?\s([\w$]+)\s*(?:,|$)")
THREADS = re.compile(r"\.(?:reqntid|maxntid)\s+(\d+)(?:\s*,\s*(\d+))?(?:\s*,\s*(\d+))?")
STATEMENT = re.compile(r"\s*(?:([{}])|[\w$]+:|\.(?:loc|file)\b[^\n]*|([^;{}\s][^;{}]*(?:\{[^}]*\}[^;{}]*)*);)")
INSTRUCTION = re.compile(r"(?:@(!?[\w%$]+) )?([a-z][\w.:]*) ?(.*)")
OPERAND = re.compile(r"\{([^}]*)\}|\[([^\]]*)\]|([^,\s|{}\[\]]+)(?:\s*\|\s*([^,\s]+))?")
ADDRESS = re.compile(r"\s*([\w%$]+)\s*(?:\+?\s*(-?)\s*(\d+))?\s*")
CACHES = r"(?:\.(?:nc|ca|cg|cs|cv|wb|wt|L1::\w+|L2::\w+))*"  # how long the caches keep it: no effect on values
ACCESS = re.compile(rf"(ld|st)(?:\.volatile)?\.global{CACHES}(?:\.v[248])?\.([bsuf]\d+)")
MOVE = re.compile(r"(ld\.param|mov)\.([bsuf]\d+)")
SPECIAL = [f"%{name}.{axis}" for name in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz"] + ["%laneid"]
REASONS = {
    "bra brx ret exit": "branches, loops and early returns",
    "call": "calls",
    "ld st": "shared and local memory",
    "bar barrier mbarrier fence membar": "barriers",
    "shfl vote match redux activemask elect": "exchange between lanes",
    "atom red": "atomics",
    "mma wmma wgmma ldmatrix stmatrix tcgen05": "tensor cores",
    "cp": "asynchronous copies",
    "trap": "assertions",
}


class Unsupported(NotImplementedError):
    """The program is perhaps right, but the executor cannot run it."""


@dataclass(frozen=True)
class Address:
    """In brackets."""

    base: str | int  # a register, a parameter or a number
    offset: int


Operand = str | int | tuple[str | int, ...] | Address  # a register ("!": its opposite), raw bits, several, [address]


def parts(operand: Operand) -> tuple[str | int | Address, ...]:
    """Several in braces, or the one."""
    return operand if isinstance(operand, tuple) else (operand,)


class Instruction(NamedTuple):
    """One instruction. action: "compute" (by `operation`), or to move bits of the type `kind`: "load", "store" (global
    memory), "ld.param" (a parameter), "pack" or "unpack" (registers into one and back)."""

    line: int
    text: str
    guard: str | None  # it runs on the lanes where this predicate register ("!": its opposite) is true
    opcode: str
    operands: tuple[Operand, ...]
    action: str
    kind: str = ""
    operation: Operation | None = None


@dataclass(frozen=True)
class Kernel:
    """A parsed kernel. parameters: name -> type. threads: of one program, in x, y, z. registers: name -> type."""

    name: str
    parameters: dict[str, str]
    threads: tuple[int, int, int]
    registers: dict[str, str]
    instructions: tuple[Instruction, ...]


@functools.lru_cache(maxsize=64)
def parse(ptx: str) -> Kernel:
    """The PTX text of one kernel as a list of instructions, up to its `ret`.

    Raises ValueError if it is not that, and Unsupported (see __init__.py).
    """
    text = COMMENT.sub(lambda match: "\n" * match[0].count("\n"), ptx)
    entries = list(ENTRY.finditer(text))
    if len(entries) != 1:
        raise ValueError(f"PTX text with {len(entries)} kernels (.entry); wanted one")
    name, parameters, directives = entries[0].groups()
    if not (threads := THREADS.search(directives)):
        raise ValueError(f"kernel {name} has neither .reqntid nor .maxntid; wanted its number of threads")
    sizes = tuple(int(size or 1) for size in threads.groups())
    reader = _Reader({p: kind for kind, p in PARAMETER.findall(parameters or "")})
    reader.read(text, entries[0].end())
    return Kernel(name, reader.parameters, sizes, reader.registers, tuple(reader.instructions))  # pyright: ignore


class _Reader:
    """Reads a kernel's body. A register declared in an inner block is a new one, whatever its name."""

    def __init__(self, parameters: dict[str, str]) -> None:
        self.parameters = parameters
        self.registers = dict.fromkeys(SPECIAL, "b32")
        self.instructions: list[Instruction] = []
        self.blocks: list[dict[str, str]] = [{name: name for name in SPECIAL}, {}]  # name in the text -> register

    def read(self, text: str, position: int) -> None:
        while len(self.blocks) > 1:
            if not (match := STATEMENT.match(text, position)):
                raise ValueError(f"cannot read the PTX after line {text.count(chr(10), 0, position) + 1}")
            position = match.end()
            brace, statement = match.groups()
            if brace == "{":
                self.blocks.append({})
            elif brace == "}":
                self.blocks.pop()
            elif statement == "ret":
                return
            elif statement:
                self._statement(" ".join(statement.split()), text.count("\n", 0, match.start(2)) + 1)

    def _statement(self, statement: str, line: int) -> None:
        if statement.startswith(".reg"):
            self._declare(statement)
        elif statement[0] == ".":
            if not statement.startswith(".pragma"):
                raise Unsupported(f"line {line}: `{statement}`: shared and local memory not supported, registers alone")
        elif not statement.startswith("createpolicy"):  # makes a hint for the caches
            try:
                self.instructions.append(self._instruction(statement, line))
            except KeyError as unknown:
                why = "shared memory and constants not supported"
                raise Unsupported(f"line {line}: `{statement}`: its operand {unknown} is no register; {why}") from None

    def _declare(self, statement: str) -> None:
        _, kind, names = statement.split(maxsplit=2)
        for name in names.split(","):
            stem, _, count = name.strip().rstrip(">").partition("<")
            for each in [f"{stem}{i}" for i in range(int(count))] if count else [stem]:
                register = each if each not in self.registers else f"{each} (inner {len(self.registers)})"
                self.registers[register] = kind[1:]
                self.blocks[-1][each] = register

    def _instruction(self, text: str, line: int) -> Instruction:
        match = INSTRUCTION.fullmatch(text)
        if not match:
            raise ValueError(f"line {line}: cannot read `{text}`")
        guard, opcode, rest = match.groups()
        action, kind, operation = self._action(opcode, rest)
        if not action:
            family = opcode.split(".")[0]
            reason = next((why for families, why in REASONS.items() if family in families.split()), f"`{opcode}`")
            raise Unsupported(
                f"line {line}: `{text}`: {reason} not supported; this runs straight-line code of lanes on their own"
            )
        operands = tuple(self._operand(match) for match in OPERAND.finditer(rest))
        if operation and len(operands) != 1 + len(operation.operands):
            raise Unsupported(f"line {line}: `{text}`: supported with {1 + len(operation.operands)} operands alone")
        return Instruction(line, text, guard and str(self._atom(guard)), opcode, operands, action, kind, operation)

    def _action(self, opcode: str, rest: str) -> tuple[str, str, Operation | None]:
        if match := ACCESS.fullmatch(opcode):
            return {"ld": "load", "st": "store"}[match[1]], match[2], None
        match = MOVE.fullmatch(opcode)
        if match and (match[1] == "ld.param" or "{" in rest):
            action = match[1] if match[1] == "ld.param" else "unpack" if rest.startswith("{") else "pack"
            return action, match[2], None
        operation = find_operation(opcode)
        return "compute" if operation else "", "", operation

    def _operand(self, match: re.Match) -> Operand:
        several, address, one, other = match.groups()
        if several is not None:
            return tuple(self._atom(each.strip()) for each in several.split(","))
        if address is not None:
            if not (parts := ADDRESS.fullmatch(address)):
                raise KeyError(address)
            base, sign, offset = parts.groups()
            return Address(base if base in self.parameters else self._atom(base), int(f"{sign or ''}{offset or 0}"))
        return (self._atom(one), self._atom(other)) if other else self._atom(one)

    def _atom(self, token: str) -> str | int:
        """A register or a literal's raw bits. KeyError: neither."""
        if re.fullmatch(r"0[fFdD][0-9a-fA-F]+", token):
            return int(token[2:], 16)
        if re.fullmatch(r"-?(0x[0-9a-fA-F]+|\d+)U?", token):
            return int(token.rstrip("U"), 0) % 2**64
        if token == "_":
            return token
        name = token.removeprefix("!")
        for block in reversed(self.blocks):
            if name in block:
                return token.replace(name, block[name])
        raise KeyError(token)
