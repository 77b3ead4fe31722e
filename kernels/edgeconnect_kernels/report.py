"""What the kernels cost on a GPU, read from their machine code: compiled for any target, with no GPU in the machine.

Triton brings NVIDIA's compiler, disassembler and resource reader. What they are: the PTX ISA and "CUDA Binary Utilities".

What is counted: every instruction of the machine code (SASS), predicated ones too, since they are issued, and packed ones
once; not NOP and not the jump to itself behind EXIT, which are never reached. That is what each thread issues if the code
is straight: without branches, which the figures tell. Per element: times the threads of a program, over its elements.

How long that must take at least on a known GPU: roofline.py.
"""

import json
import linecache
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch

from edgeconnect_kernels.roofline import ELEMENTS, FORMULA, GPUS, roofline

TARGETS = (75, 80, 86, 89, 90, 100, 120)  # compute capability, times 10
POINTERS = {"float32": "*fp32", "float16": "*fp16", "bfloat16": "*bf16"}
TENSORS = {
    "forward": 3,
    "forward_keeping_gate": 4,
    "backward_from_x": 5,
    "backward_from_yg": 5,
}  # of N C H W elements, moved
LAYOUTS = ("contiguous", "channels_last")
THREADS = 128


class Instruction(NamedTuple):
    """One SASS instruction: "LDG.E.128", the whole of it with its predicate, and the line of source it came from."""

    opcode: str
    text: str
    file: str
    line: int


@dataclass(frozen=True)
class Figures:
    """registers, stack (bytes): of a thread. spills: loads and stores of its local memory. accesses: of global memory,
    by width in bits. branches: jumps and calls; if there are any, the counts are of the code, not of what is issued."""

    registers: int
    stack: int
    spills: int
    branches: int
    instructions_per_element: float
    mufu_per_element: float
    accesses: dict[str, int]


@dataclass(frozen=True)
class Compiled:
    """A kernel for one target. elements: that one program makes; threads: that one program has; file: of its source."""

    name: str
    target: int
    threads: int
    elements: int
    file: str
    ptx: str
    cubin: bytes

    @cached_property
    def sass(self) -> str:
        """The machine code as text, each run of instructions under the line of source that it came from."""
        return _tool("nvdisasm", "-c", "-g", "-ndf", cubin=self.cubin)

    @cached_property
    def figures(self) -> Figures:
        return figures(self.sass, _tool("cuobjdump", "-res-usage", cubin=self.cubin), self.elements / self.threads)


@dataclass(frozen=True)
class Variant:
    """One of our kernels for one target. aligned: sizes that allow 128-bit accesses (`run` in triton_gated_elu.py a
    multiple of 16; with channels_last 64 channels, else 63). wide_bias: it is float32, as under autocast."""

    kernel: str
    dtype: str = "bfloat16"
    target: int = 90
    layout: str = "contiguous"
    bias: bool = False
    aligned: bool = True
    wide_bias: bool = False

    def __post_init__(self):
        for name, wanted in (("kernel", TENSORS), ("dtype", POINTERS), ("target", TARGETS), ("layout", LAYOUTS)):
            if getattr(self, name) not in wanted:
                raise ValueError(f"{name} is {getattr(self, name)!r}; wanted {', '.join(map(str, wanted))}")
        if self.bias and self.kernel == "backward_from_yg":
            raise ValueError("backward_from_yg takes no bias: the gate that it reads has it already")

    @property
    def bytes_per_element(self) -> int:
        """Of global memory, each tensor once; a bias stays in the cache."""
        return TENSORS[self.kernel] * (4 if self.dtype == "float32" else 2)


def compile_kernel(
    kernel: Any,
    signature: Mapping[str, str],
    constants: Mapping[str, Any],
    elements: int,
    target: int = 90,
    num_warps: int = 4,
    aligned: Iterable[str] | None = None,
) -> Compiled:
    """Compile a @triton.jit function for a target, as launching it on such a GPU would.

    signature: the type of each argument that is not a tl.constexpr: "*bf16", "i32", "fp32". constants: the others' values.
    elements: that one program makes. aligned: arguments that are multiples of 16, by default the pointers.
    Raises RuntimeError where there is no Triton, or where its interpreter took the function; ValueError for an argument
    that has neither type nor value.
    """
    triton = _triton()
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    if not isinstance(kernel, triton.JITFunction):
        raise RuntimeError(f"{kernel!r} cannot be compiled; wanted a @triton.jit function, with TRITON_INTERPRET unset")
    names = kernel.arg_names
    if set(names) != set(signature) | set(constants) or set(signature) & set(constants):
        raise ValueError(
            f"signature has {[*signature]}, constants {[*constants]}; wanted each of {names} in one of them"
        )
    aligned = [name for name, kind in signature.items() if kind.startswith("*")] if aligned is None else aligned
    source = ASTSource(
        kernel,
        signature={name: signature.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    options = {"num_warps": num_warps, "enable_fp_fusion": True}  # named, since Triton's default changes with 3.10
    with patch.dict(os.environ, TRITON_ALWAYS_COMPILE="1"):  # a cached kernel may name another copy's source file
        done = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)
    file = kernel.fn.__code__.co_filename
    return Compiled(kernel.__name__, target, 32 * num_warps, elements, file, done.asm["ptx"], done.asm["cubin"])


def compile_variant(variant: Variant, wide: bool = False) -> Compiled:
    """Compile one of our kernels, with the arguments that it is launched with for large tensors.

    wide: `run` is a 64-bit integer, as Triton passes what is not below 2^31.
    """
    _triton()
    from edgeconnect_kernels import triton_gated_elu

    kernel: Any = getattr(triton_gated_elu, f"_gated_elu_{variant.kernel.removesuffix('_keeping_gate')}_kernel")
    last = variant.layout == "channels_last"
    channels = (64 if variant.aligned else 63) if last else 64 if variant.bias else 1
    block = THREADS * (4 if variant.dtype == "float32" else 8)
    absent = ["bias_ptr"] * (not variant.bias) + ["gate_ptr"] * (variant.kernel == "forward")
    pointers = [name for name in kernel.arg_names if name.endswith("_ptr") and name not in absent]
    types = dict.fromkeys(pointers, POINTERS[variant.dtype])
    if variant.bias and variant.wide_bias:
        types["bias_ptr"] = POINTERS["float32"]
    signature = types | {"run": "i64" if wide else "i32", "alpha": "fp32"}
    constants = {"C": channels, "CHANNELS_LAST": last, "HARDWARE": True, "BLOCK": block}
    constants |= {name: None for name in absent if name in kernel.arg_names}
    aligned = [*pointers, "run"] if variant.aligned else pointers
    return compile_kernel(
        kernel, signature, constants, block // channels * channels, variant.target, THREADS // 32, aligned
    )


def parse_sass(sass: str) -> list[Instruction]:
    """The instructions that nvdisasm printed, without NOP and without the endless jump behind EXIT."""
    found, file, line, label = [], "", 0, None
    for text in sass.splitlines():
        if source := re.match(r'\s*//## File "(.*?)", line (\d+)', text):
            file, line = source[1], int(source[2])
        elif named := re.match(r"\s*(\.L\w+):", text):
            label = named[1]
        elif code := re.match(r"\s*/\*[0-9a-f]+\*/\s+((?:@!?U?P\w+\s+)?([A-Z][\w.]*).*?)\s*;", text):
            if code[2] != "NOP" and code[1] != f"BRA `({label})":
                found.append(Instruction(code[2], code[1], file, line))
            label = None
    return found


def figures(sass: str, resources: str, elements_per_thread: float) -> Figures:
    """Count, from what nvdisasm and `cuobjdump -res-usage` print."""
    used = re.search(r"REG:(\d+) STACK:(\d+)", resources)
    instructions = parse_sass(sass)
    if not used or not instructions:
        raise ValueError(f"no kernel in what the tools printed: {resources.strip()[:200]!r}, {sass.strip()[:200]!r}")
    kinds = Counter(instruction.opcode.split(".")[0] for instruction in instructions)
    return Figures(
        registers=int(used[1]),
        stack=int(used[2]),
        spills=kinds["LDL"] + kinds["STL"],
        branches=sum(kinds[kind] for kind in ("BRA", "BRX", "BRXU", "JMP", "JMX", "CALL")),
        instructions_per_element=len(instructions) / elements_per_thread,
        mufu_per_element=kinds["MUFU"] / elements_per_thread,
        accesses=dict(Counter(filter(None, map(_access, instructions)))),
    )


def _access(instruction: Instruction) -> str | None:
    """ "LDG.128" for LDG.E.128.CONSTANT; None for what is no access to global memory."""
    kind, *parts = instruction.opcode.split(".")
    if kind not in ("LDG", "STG", "LD", "ST", "LDGSTS", "ATOM", "ATOMG", "RED", "REDG"):
        return None
    widths = [part.lstrip("US") for part in parts if part in ("U8", "S8", "U16", "S16", "64", "128", "256")]
    return f"{kind}.{widths[0] if widths else 32}"


def source_lines(compiled: Compiled) -> dict[int, list[str]]:
    """Which instructions each line of the kernel's source file became, in order: {line: ["MUFU.EX2 R3, R3", ...]}.

    Line 0 has those of no line of that file, such as Triton's own library functions.
    """
    lines = defaultdict(list)
    for instruction in parse_sass(compiled.sass):
        lines[instruction.line if instruction.file == compiled.file else 0].append(instruction.text)
    return dict(sorted(lines.items()))


def print_source(compiled: Compiled) -> None:
    """Each line of the kernel's source behind the number of instructions that it became; those that access global memory
    (LDG, STG) or compute special functions (MUFU) by kind."""
    for line, instructions in source_lines(compiled).items():
        kinds = Counter(re.findall(r"(?:LDG|STG|MUFU)[.\w]+", " ".join(instructions)))
        notable = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        text = linecache.getline(compiled.file, line).strip() if line else "(in other files)"
        print(f"{len(instructions):3} {notable:22} {text[:72]}")


def variants(
    kernels: Iterable[str] = ("forward", "backward_from_x", "backward_from_yg"),
    dtypes: Iterable[str] = tuple(POINTERS),
    targets: Iterable[int] = (80, 90, 100),
    **options: Any,
) -> list[Variant]:
    """Every combination. options: layout, bias, aligned; with a bias, without backward_from_yg, which takes none."""
    kernels = [kernel for kernel in kernels if not (options.get("bias") and kernel == "backward_from_yg")]
    return [Variant(*three, **options) for three in product(kernels, dtypes, targets)]


def peer() -> dict[str, Any]:
    """What torch.compile's Inductor makes of the same formulas: the stored figures of kernels/peer.py."""
    return json.loads(Path(__file__).with_name("peer.json").read_text(encoding="utf-8"))


def peer_figures(variant: Variant) -> Figures | None:
    """The stored figures of Inductor's kernel for the same formulas; None where that is not stored."""
    wanted = asdict(variant) | {"kernel": variant.kernel.split("_")[0]}
    if not wanted.pop("aligned") or wanted.pop("wide_bias"):
        return None
    same = (row for row in peer()["kernels"] if wanted.items() <= row.items())
    return next((Figures(**{field.name: row[field.name] for field in fields(Figures)}) for row in same), None)


def report(chosen: Iterable[Variant]) -> dict[str, Any]:
    """Compile each variant (about a second each) and gather its figures.

    Returns {"triton", "formula", "elements", "gpus", "kernels": [{"name", the other fields of Variant and of Figures,
    "bytes_per_element", "of_peer", "modelled": {gpu: roofline(...)}}, ...], "peer"}.
    of_peer: instructions per element over those of Inductor's kernel, None where that is not stored.
    """
    kernels = []
    for variant in chosen:
        found, named, theirs = compile_variant(variant).figures, asdict(variant), peer_figures(variant)
        floors = (variant.bytes_per_element, found.instructions_per_element, found.mufu_per_element)
        kernels.append(
            {"name": named.pop("kernel"), **named, **asdict(found), "bytes_per_element": variant.bytes_per_element}
            | {"of_peer": theirs and found.instructions_per_element / theirs.instructions_per_element}
            | {"modelled": {name: roofline(*floors, gpu) for name, gpu in GPUS.items() if gpu.target == variant.target}}
        )
    gpus = {name: asdict(gpu) for name, gpu in GPUS.items()}
    about = {"triton": _triton().__version__, "formula": FORMULA, "elements": ELEMENTS, "gpus": gpus}
    return about | {"kernels": kernels, "peer": peer()}


def print_report(result: dict[str, Any]) -> None:
    """`report`'s result as two tables: the machine code, and the least time of each kernel on each GPU."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    def table(title: str, *columns: str) -> Table:
        made = Table(title=title, box=box.SIMPLE_HEAD)
        for column in columns:
            made.add_column(column, justify="left" if column in ("kernel", "dtype") else "right", no_wrap=True)
        return made

    gpus = [gpu for gpu in result["gpus"] if any(gpu in row["modelled"] for row in result["kernels"])]
    counts = ("sm", "registers", "stack", "spills", "instr.", "of peer", "MUFU", "bytes", "accesses")
    code = table("machine code: of a thread; instructions, MUFU and bytes per element of y", "kernel", "dtype", *counts)
    floors = table(f"least microseconds for {result['elements']:,} elements", "kernel", "dtype", *gpus)
    floor_rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in result["kernels"]:
        named = (row["name"], row["dtype"])
        share = "-" if row["of_peer"] is None else f"{row['of_peer']:.2f}"
        figures = (*(row[key] for key in ("target", "registers", "stack", "spills")), f"{row['instructions_per_element']:.1f}",
                   share, f"{row['mufu_per_element']:.3g}", row["bytes_per_element"])  # fmt: skip
        accesses = ", ".join(f"{count} {access}" for access, count in row["accesses"].items())
        code.add_row(*named, *map(str, figures), accesses)
        times = {gpu: f"{time['seconds'] * 1e6:.0f} {time['bound']}" for gpu, time in row["modelled"].items()}
        floor_rows.setdefault(named, {}).update(times)
    for named, times in floor_rows.items():
        floors.add_row(*named, *[times.get(gpu, "-") for gpu in gpus])
    console, peer = Console(width=128), result["peer"]
    console.print(code)
    print(f"Compiled by Triton {result['triton']}. of peer: share of the instructions of torch.compile's kernel for")
    print(f"the same formulas, which is stored (torch {peer['torch']}, Triton {peer['triton']}).\n")
    console.print(floors)
    print(result["formula"].replace(": seconds", ":\nseconds"))


def _triton() -> ModuleType:
    try:
        import triton
    except ImportError:
        raise RuntimeError(
            f"compiling a kernel needs Triton, which is not installed (it has no package for {sys.platform} but for Linux); "
            "the stored PTX of the kernels can be run without it: edgeconnect_kernels.stored and .ptx"
        ) from None
    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 3):
        raise RuntimeError(f"compiling a kernel without a GPU needs Triton 3.3 or newer; here is {triton.__version__}")
    return triton


def _tool(name: str, *arguments: str, cubin: bytes) -> str:
    """What one of the tools in Triton's package prints about a compiled kernel."""
    program = Path(str(_triton().__file__)).parent / "backends/nvidia/bin" / name
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        try:
            done = subprocess.run([program, *arguments, file], capture_output=True, text=True, check=False)
        except OSError as error:
            raise RuntimeError(
                f"{program} cannot be run: {error}; Triton's wheels have it, other builds may not"
            ) from None
    if done.returncode:
        raise RuntimeError(f"{name} failed on the compiled kernel: {done.stderr.strip()}")
    return done.stdout
