"""Fused gated activations for gated convolutions: y = sigmoid(gate) * ELU(feature), on a GPU in one pass by Triton.

Works without Triton (macOS, Windows) and without a GPU: then the same formulas run as plain torch operations.
"""

from edgeconnect_kernels.gated_elu import gated_elu, gated_elu_reference

__all__ = ["gated_elu", "gated_elu_reference"]
