"""The compiled kernels' machine code: its figures on real GPUs, how they are counted, and the roofline by hand."""

import inspect
import json
import re
import sys
import textwrap
from functools import cache
from pathlib import Path

import pytest
from edgeconnect_kernels.report import (
    TENSORS,
    Compiled,
    Variant,
    compile_kernel,
    compile_variant,
    figures,
    parse_sass,
    peer,
    peer_figures,
    print_source,
    report,
    source_lines,
    variants,
)
from edgeconnect_kernels.roofline import GPU, GPUS, roofline
from helpers import load_module, needs_triton, run_python

if sys.platform == "linux":  # there Triton must be installed: its absence is a failure
    import triton
    import triton.language as tl

    @triton.jit
    def scale(x_ptr, y_ptr, factor, BLOCK: tl.constexpr):
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(y_ptr + i, factor * tl.load(x_ptr + i))


KERNELS = ("forward", "backward_from_x", "backward_from_yg")
COUNTS = {"forward": (2, 1, 40, 23, 3), "backward_from_x": (3, 2, 48, 34, 3), "backward_from_yg": (3, 2, 48, 26, 2)}
SHARE = {"forward": 0.5, "backward_from_x": 0.2, "backward_from_yg": 0.2}
EVERY = [(layout, variant)
         for layout in ("contiguous", "channels_last")
         for variant in variants(KERNELS, ("bfloat16", "float16"), (80, 90, 100), layout=layout)]  # fmt: skip


@cache
def compiled(variant: Variant) -> Compiled:
    return compile_variant(variant)


@needs_triton
@pytest.mark.parametrize(("layout", "variant"), EVERY, ids=lambda part: str(part))
def test_the_16_bit_kernels_are_lean_on_every_target(layout, variant):
    loads, stores, registers, instructions, mufu = COUNTS[variant.kernel]
    found = compiled(variant).figures
    assert found.accesses == {"LDG.128": loads, "STG.128": stores}
    assert (found.stack, found.spills, found.branches) == (0, 0, 0)
    assert found.registers <= registers and found.instructions_per_element <= instructions
    assert found.mufu_per_element == mufu
    (theirs,) = [row for row in peer()["kernels"] if row["kernel"] == variant.kernel.split("_")[0] and not row["bias"]
                 and (row["dtype"], row["target"], row["layout"]) == (variant.dtype, variant.target, layout)]  # fmt: skip
    assert found.instructions_per_element <= SHARE[variant.kernel] * theirs["instructions_per_element"]


@needs_triton
@pytest.mark.parametrize("variant", [
    *variants(KERNELS, ("bfloat16",), (90,)), *variants(KERNELS, ("float32",), (90,)), Variant("forward_keeping_gate"),
    Variant("forward", layout="channels_last", bias=True, aligned=False),
], ids=str)  # fmt: skip
def test_the_machine_code_moves_each_tensor_once(variant):
    found = compiled(variant).figures
    size = 4 if variant.dtype == "float32" else 2
    bits = sum(int(access.split(".")[1]) * count for access, count in found.accesses.items())
    elements = compiled(variant).elements / compiled(variant).threads
    bias = 2 * size if variant.bias else 0
    assert bits / 8 / elements == pytest.approx(variant.bytes_per_element + bias, rel=0.02)  # 1008 of 1024 lanes work
    if not variant.aligned:
        assert set(found.accesses) == {"LDG.16", "STG.16"}


@needs_triton
def test_each_instruction_belongs_to_a_line_of_the_kernel():
    kernel = compiled(Variant("forward"))
    lines = source_lines(kernel)
    text = Path(kernel.file).read_text(encoding="utf-8").splitlines()
    per_element = sum(map(len, lines.values())) * kernel.threads / kernel.elements
    assert per_element == kernel.figures.instructions_per_element
    ex2 = [number for number, code in lines.items() if any("MUFU.EX2" in one for one in code)]
    assert ex2 and all("ex2.approx" in text[number - 1] for number in ex2)
    stores = [number for number, code in lines.items() if any("STG" in one for one in code)]
    assert len(stores) == 1 and "tl.store(y_ptr" in text[stores[0] - 1]
    assert not lines.get(0)


def sass(*lines: str) -> str:
    return "\n".join(line if line.startswith((".", "\t")) else f"        /*0000*/  {line} ;" for line in lines)


END = ("EXIT", ".L_x_1:", "BRA `(.L_x_1)", "NOP", "NOP", ".L_x_2:")
USAGE = " Function k:\n  REG:32 STACK:8 SHARED:0 LOCAL:0 CONSTANT[0]:568 TEXTURE:0 SURFACE:0 SAMPLER:0\n"


def test_predicated_instructions_count_and_padding_does_not():
    text = sass("\t.section .text.k", "kernel:", "MOV R1, c[0x0][0x28]", "@!P0 EXIT", "@UP1 UIADD3 UR4, UR4, 0x1, URZ",
                "@!PT LDS RZ, [RZ]", *END)  # fmt: skip
    text = text.replace("        /*0000*/  kernel: ;", "kernel:")
    assert [code.opcode for code in parse_sass(text)] == ["MOV", "EXIT", "UIADD3", "LDS", "EXIT"]
    assert parse_sass(text)[1].text == "@!P0 EXIT"


def test_a_loop_counts_as_a_branch_and_the_endless_jump_does_not():
    loop = sass(".L_x_0:", "IADD3 R0, R0, 0x1, RZ", "@P0 BRA `(.L_x_0)", *END)
    assert [code.opcode for code in parse_sass(loop)] == ["IADD3", "BRA", "EXIT"]
    assert figures(loop, USAGE, 1).branches == 1
    forever = sass(".L_x_0:", "IADD3 R0, R0, 0x1, RZ", "BRA `(.L_x_0)", *END)
    assert figures(forever, USAGE, 1).branches == 1
    waits = sass(".L_x_0:", "@!P0 BRA `(.L_x_0)", *END)  # not endless: it ends when P0 does
    assert figures(waits, USAGE, 1).branches == 1
    assert figures(sass("CALL.REL.NOINC `($k$div)", *END), USAGE, 1).branches == 1


def test_accesses_are_told_apart_by_memory_and_width():
    text = sass("@P0 LDG.E.128 R4, desc[UR4][R2.64]", "LDG.E.LTC128B.64.CONSTANT R4, [R2.64]", "@P1 LDG.E.U16 R5, [R2]",
                "LDG.E R5, [R2]", "LDL.LU.64 R4, [R1]", "STL [R1+0x8], R4", "STS.128 [R3], R4", "LDC.64 R6, c[0x0][0x210]",
                "STG.E.128.SYS [R4], R16", "STG.E.U8 [R4], R16", "MUFU.EX2 R3, R3", "@P2 MUFU.RCP R3, R3", *END)  # fmt: skip
    found = figures(text, USAGE, 4)
    assert found.accesses == {"LDG.128": 1, "LDG.64": 1, "LDG.16": 1, "LDG.32": 1, "STG.128": 1, "STG.8": 1}
    assert (found.registers, found.stack, found.spills, found.branches) == (32, 8, 2, 0)
    assert found.instructions_per_element == 13 / 4 and found.mufu_per_element == 2 / 4


@needs_triton
def test_a_copy_of_a_kernel_in_another_file_has_its_own_lines(tmp_path):
    """As a notebook's kernel has in each session: Triton would take the first one's code from its cache."""
    for name in ("first", "second"):
        file = tmp_path / f"{name}.py"
        file.write_text(
            "import triton\nimport triton.language as tl\n\n\n" + textwrap.dedent(inspect.getsource(scale.fn))
        )
        types = {"x_ptr": "*fp32", "y_ptr": "*fp32", "factor": "fp32"}
        lines = source_lines(compile_kernel(load_module(file).scale, types, {"BLOCK": 128}, 128, 90))
        assert 0 not in lines and any("STG" in text for text in lines[8])


def test_source_lines_keep_other_files_apart():
    text = sass('\t//## File "/a/k.py", line 7', "FMUL R1, R1, R2", '\t//## File "/t/standard.py", line 7', "FADD R1, R1, R2",
                '\t//## File "/a/k.py", line 3', "STG.E [R4], R1", *END)  # fmt: skip
    kernel = Compiled("k", 90, 32, 32, "/a/k.py", "", b"")
    kernel.__dict__["sass"] = text  # as if it had been disassembled
    assert source_lines(kernel) == {0: ["FADD R1, R1, R2"], 3: ["STG.E [R4], R1", "EXIT"], 7: ["FMUL R1, R1, R2"]}


def test_the_source_is_printed_with_its_instructions(tmp_path, capsys):
    file = tmp_path / "k.py"
    file.write_text("\n\n    tl.store(y_ptr, y)\n    y = exp(x)\n")
    text = sass(f'\t//## File "{file}", line 4', "MUFU.EX2 R1, R1", "@P0 MUFU.EX2 R2, R2", f'\t//## File "{file}", line 3',
                "STG.E.128 [R4], R1", "EXIT", '\t//## File "/t/standard.py", line 9', "FADD R1, R1, R2", *END)  # fmt: skip
    kernel = Compiled("k", 90, 32, 32, str(file), "", b"")
    kernel.__dict__["sass"] = text
    print_source(kernel)
    assert [line.split(maxsplit=3) for line in capsys.readouterr().out.splitlines()] == [
        ["2", "(in", "other", "files)"], ["2", "1", "STG.E.128", "tl.store(y_ptr, y)"], ["2", "2", "MUFU.EX2", "y = exp(x)"],
    ]  # fmt: skip


def test_the_peer_of_a_variant_does_the_same_work():
    both = [peer_figures(Variant(kernel)) for kernel in ("backward_from_x", "backward_from_yg")]
    (stored,) = [row for row in peer()["kernels"] if row["kernel"] == "backward" and row["dtype"] == "bfloat16"
                 and row["target"] == 90 and row["layout"] == "contiguous" and not row["bias"]]  # fmt: skip
    assert both[0] == both[1] is not None
    assert both[0].instructions_per_element == stored["instructions_per_element"]
    assert peer_figures(Variant("forward", aligned=False)) is peer_figures(Variant("forward", target=75)) is None


@pytest.mark.parametrize(("counts", "seconds", "bound"), [
    ((6, 1, 0), 6.0, "memory"),  # 1e9 elements of 6 bytes at 1e9 bytes/s
    ((6, 1000, 1), 1000 / 128, "issue"),  # at 1e9 cycles/s
    ((6, 20, 200), 200 / 16, "mufu"),
])  # fmt: skip
def test_the_roofline_by_hand(counts, seconds, bound):
    found = roofline(*counts, GPU(90, bandwidth=1e9, sms=2, clock=0.5e9, source="made up"), elements=10**9)
    assert (found["seconds"], found["bound"]) == (pytest.approx(seconds), bound)
    assert found["seconds"] == max(found["memory"], found["issue"], found["mufu"])


def test_published_clocks_agree_with_published_arithmetic():
    for name, gpu in GPUS.items():
        if stated := re.search(r"(\d+)e12/s", gpu.source):
            assert gpu.sms * 128 * 2 * gpu.clock == pytest.approx(float(stated[1]) * 1e12, rel=0.01), name


@needs_triton
def test_the_report_has_the_promised_form_and_is_json():
    made = json.loads(
        json.dumps(report([Variant("forward_keeping_gate", target=80), Variant("forward", aligned=False)]))
    )
    kept, odd = made["kernels"]
    assert {"name", "target", "dtype", "registers", "stack", "spills", "instructions_per_element", "mufu_per_element",
            "accesses"} <= set(kept)  # fmt: skip
    assert (kept["name"], kept["target"], kept["dtype"], kept["bytes_per_element"]) == (
        "forward_keeping_gate",
        80,
        "bfloat16",
        8,
    )
    assert kept["accesses"] == {"LDG.128": 2, "STG.128": 2} and 0.2 < kept["of_peer"] < 0.6
    assert list(kept["modelled"]) == ["A100 SXM 80 GB"] and list(odd["modelled"]) == ["H100 SXM", "H200 SXM"]
    assert odd["of_peer"] is None and odd["accesses"] == {"LDG.16": 16, "STG.16": 8}
    memory = made["elements"] * 8 / made["gpus"]["A100 SXM 80 GB"]["bandwidth"]
    assert kept["modelled"]["A100 SXM 80 GB"]["memory"] == pytest.approx(memory)
    assert made["peer"] == peer()


def test_the_stored_peer_is_whole():
    stored = peer()
    assert {"torch", "triton", "command", "size", "sources"} <= set(stored)
    keys = {(row["kernel"], row["dtype"], row["target"], row["layout"], row["bias"]) for row in stored["kernels"]}
    assert len(keys) == len(stored["kernels"]) == 2 * 3 * 3 * 2 * 2
    for row in stored["kernels"]:
        assert row["instructions_per_element"] == min(tried["instructions_per_element"] for tried in row["tried"])
        assert row["branches"] == 0, "with branches, a count of the code is not one of what is issued"


@needs_triton
def test_a_learners_kernel_compiles_too():
    made = compile_kernel(scale, {"x_ptr": "*fp32", "y_ptr": "*fp32", "factor": "fp32"}, {"BLOCK": 512}, 512, target=80)
    found = made.figures
    assert (made.name, made.target, made.threads, made.elements) == ("scale", 80, 128, 512)
    assert found.accesses == {"LDG.128": 1, "STG.128": 1} and found.mufu_per_element == 0
    assert 1 < found.instructions_per_element < 5  # a multiplication, and a thread's addresses shared by 4 elements
    assert ".target sm_80" in made.ptx and made.cubin[:4] == b"\x7fELF"
    unaligned = compile_kernel(
        scale, {"x_ptr": "*fp32", "y_ptr": "*fp32", "factor": "fp32"}, {"BLOCK": 512}, 512, aligned=[]
    )
    assert unaligned.figures.accesses == {"LDG.32": 4, "STG.32": 4}


@needs_triton
def test_bad_requests_say_what_was_wanted():
    with pytest.raises(ValueError, match=r"wanted each of \['x_ptr', 'y_ptr', 'factor', 'BLOCK'\] in one of them"):
        compile_kernel(scale, {"x_ptr": "*fp32", "factor": "fp32"}, {"BLOCK": 512}, 512)
    with pytest.raises(ValueError, match="in one of them"):
        compile_kernel(
            scale, {"x_ptr": "*fp32", "y_ptr": "*fp32", "factor": "fp32", "BLOCK": "i32"}, {"BLOCK": 512}, 512
        )
    with pytest.raises(RuntimeError, match=r"wanted a @triton.jit function, with TRITON_INTERPRET unset"):
        compile_kernel(len, {}, {}, 1)


@needs_triton
def test_interpreted_kernels_are_refused(tmp_path):
    code = "from edgeconnect_kernels.report import Variant, compile_variant; compile_variant(Variant('forward'))"
    done = run_python(code, tmp_path, TRITON_INTERPRET="1")
    assert "wanted a @triton.jit function, with TRITON_INTERPRET unset" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(("fields", "wanted"), [
    ({"kernel": "sideways"}, "kernel is 'sideways'; wanted forward, forward_keeping_gate, backward_from_x, backward_from_yg"),
    ({"dtype": "float64"}, "dtype is 'float64'; wanted float32, float16, bfloat16"),
    ({"target": 70}, "target is 70; wanted 75, 80, 86, 89, 90, 100, 120"),
    ({"layout": "nhwc"}, "layout is 'nhwc'; wanted contiguous, channels_last"),
    ({"kernel": "backward_from_yg", "bias": True}, "takes no bias"),
])  # fmt: skip
def test_a_variant_that_does_not_exist_is_refused(fields, wanted):
    with pytest.raises(ValueError, match=re.escape(wanted)):
        Variant(**{"kernel": "forward", **fields})


def test_every_kernel_has_its_variants_and_none_takes_a_bias_that_it_cannot():
    assert len(variants()) == 3 * 3 * 3 and {variant.kernel for variant in variants(TENSORS)} == set(TENSORS)
    assert {variant.kernel for variant in variants(bias=True)} == {"forward", "backward_from_x"}


def test_without_triton_there_is_one_clear_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    for call in (lambda: compile_variant(Variant("forward")), lambda: compile_kernel(len, {}, {}, 1)):
        with pytest.raises(RuntimeError, match=r"needs Triton, which is not installed.*stored PTX"):
            call()


def test_what_the_tools_did_not_print_is_an_error():
    with pytest.raises(ValueError, match="no kernel in what the tools printed"):
        figures("", USAGE, 1)
    with pytest.raises(ValueError, match="no kernel in what the tools printed"):
        figures(sass("MOV R1, R2", *END), "Fatal: bad file", 1)
