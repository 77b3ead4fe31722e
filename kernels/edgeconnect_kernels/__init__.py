"""Fused gated activations for gated convolutions: y = sigmoid(gate) * ELU(feature), on a GPU in one pass by Triton.

gated_elu is the op. Modules besides it: traffic (what an op moves and keeps), interpreter (runs a Triton kernel on a CPU),
and, in the order of a compiled kernel's life, report (compiles for any GPU, without one, and counts), roofline (the least
time that takes), stored (the compiled kernels as text), ptx (runs them on a CPU).
Works without Triton (macOS, Windows) and without a GPU.
"""

from edgeconnect_kernels.gated_elu import (
    gated_elu,
    gated_elu_reference,
    gated_elu_reference_backward,
    gated_elu_reference_backward_from_yg,
)

__all__ = [
    "gated_elu",
    "gated_elu_reference",
    "gated_elu_reference_backward",
    "gated_elu_reference_backward_from_yg",
]
