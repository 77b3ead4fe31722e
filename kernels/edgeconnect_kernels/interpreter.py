"""Triton for lessons: `triton` and `tl` where there is Triton, names that let its kernels be read where there is none
(macOS, Windows), and `interpret`, which runs a kernel on a CPU.
"""

import os
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from edgeconnect_kernels.gated_elu import HAS_TRITON

triton: Any
tl: Any
if HAS_TRITON:
    import triton
    import triton.language as tl
else:
    triton = SimpleNamespace(jit=lambda kernel: kernel)
    tl = SimpleNamespace(constexpr=int)


def interpret(kernel: Any) -> Any:
    """The same kernel for Triton's interpreter, in which NumPy plays the GPU: launch it as interpret(kernel)[grid](...).

    kernel: a @triton.jit function, or the plain function under it.
    """
    if not HAS_TRITON:
        raise RuntimeError("running a kernel in the interpreter needs Triton, which exists for Linux alone")
    with patch.dict(os.environ, TRITON_INTERPRET="1"):  # for this moment: triton.jit looks at it
        return triton.jit(getattr(kernel, "fn", kernel))
