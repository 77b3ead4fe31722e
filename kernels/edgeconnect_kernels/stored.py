"""The compiled kernels as text, for machines without Triton: the PTX that the executor (ptx) runs, stored in stored.zip.

`python -m edgeconnect_kernels.stored` writes it anew (Linux, a minute); a test compares it with a fresh compilation.
"""

import io
import re
import zipfile
from pathlib import Path

from edgeconnect_kernels.report import POINTERS, TENSORS, Variant, compile_variant

FILE = Path(__file__).with_name("stored.zip")
VARIANTS = [Variant(kernel, dtype, target) for kernel in TENSORS for dtype in POINTERS for target in (75, 80, 90, 100)]


def stored_ptx(variant: Variant) -> str:
    """The PTX of one of VARIANTS: contiguous, no bias, aligned sizes. Raises ValueError for another."""
    if variant not in VARIANTS:
        raise ValueError(f"{variant} is not stored; wanted one of edgeconnect_kernels.stored.VARIANTS")
    with zipfile.ZipFile(FILE) as archive:
        return archive.read(_name(variant)).decode()


def bare(ptx: str) -> str:
    """PTX without what debuggers need (places in source files, with their paths): the same instructions."""
    code = ptx[: ptx.rindex("}", 0, (ptx + "\t.section").index("\t.section")) + 1]
    return re.sub(r"(?m)^(\s*\.(loc|file)\s.*|\s*\$L__tmp\d+:|\s*//.*|\s*)\n", "", code) + "\n"


def write(file: Path = FILE) -> None:
    """Compile and store all. The archive holds no times, so that the same PTX gives the same bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as archive:
        for variant in VARIANTS:
            archive.writestr(zipfile.ZipInfo(_name(variant)), bare(compile_variant(variant).ptx), zipfile.ZIP_LZMA)
    file.write_bytes(packed.getvalue())


def _name(variant: Variant) -> str:
    return f"{variant.kernel}-{variant.dtype}-sm_{variant.target}.ptx"


if __name__ == "__main__":
    write()
