"""What a function of tensors costs in memory, counted while PyTorch runs it: what it moves, what it keeps for backward.

Comes before any kernel: it says what fusing can save. The counts are of elements, each input read and each result
written once, as if nothing stayed in a cache: they are the algorithm's, not one machine's.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Traffic(TorchDispatchMode):
    """PyTorch shows it every operation: what goes in and what comes out."""

    def __init__(self):
        super().__init__()
        self.moved: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if not func.is_view:  # a view moves nothing
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.moved[func.overloadpacket.__name__] += sum(tensor.numel() for tensor in tensors)
        return result


def traffic(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[dict[str, int], dict[str, int]]:
    """Elements that each operation reads and writes: ({operation: elements} forward, the same backward).

    inputs: what function is called with; backward gives the gradient of each that requires one.
    """
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    if not wanted:
        raise ValueError("no input requires a gradient; wanted at least one, to count the backward pass")
    forward, backward = _Traffic(), _Traffic()
    with torch.enable_grad(), forward:
        result = function(*inputs)
    gradient = torch.ones_like(result)
    with backward:
        torch.autograd.grad(result, wanted, gradient)
    return dict(forward.moved), dict(backward.moved)


def kept(function: Callable[..., Tensor], *inputs: Tensor) -> int:
    """Elements that autograd keeps for the backward pass. The result is among them: the next layer keeps it."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()  # several views of one storage count once
        sizes[storage.data_ptr()] = storage.nbytes() // tensor.element_size()
        return tensor

    unchanged: Any = lambda tensor: tensor  # noqa: E731
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, unchanged):
        function(*inputs).square()  # as a next layer would, it keeps the result
    return sum(sizes.values())
