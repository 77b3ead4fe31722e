"""The generators' optimizer: Muon for the convolutions' kernels, Adam for everything else.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the size of its steps and the weight decay as in
Liu et al., "Muon is Scalable for LLM Training", 2025, section 2.2: a step changes a weight about as much as Adam's would,
so both share one learning rate. Kingma and Ba, "Adam", ICLR 2015, algorithm 1.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that drives singular values towards 1 (Jordan et al.)


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest matrix whose singular values are all about 1 (0.7 to 1.2), by Newton-Schulz steps in bfloat16.

    matrix: (M, N). Returns (M, N) in bfloat16.
    """
    a, b, c = COEFFICIENTS
    x = matrix.bfloat16() if matrix.shape[0] <= matrix.shape[1] else matrix.bfloat16().T
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


class Muon(torch.optim.Optimizer):
    """Muon on every parameter of at least four dimensions, Adam on the rest.

    lr: for both. momentum: Muon's. decay: decoupled weight decay of Muon's parameters; without it their activations grow until
    the gates shut. betas, eps: Adam's.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float = 2e-3, momentum: float = 0.95, decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.99), eps: float = 1e-8,
    ):  # fmt: skip
        every = list(parameters)
        kernels, rest = [p for p in every if p.ndim >= 4], [p for p in every if p.ndim < 4]
        shared = {"lr": lr, "momentum": momentum, "decay": decay, "betas": betas, "eps": eps}
        groups = [{"params": kernels, "muon": True}, {"params": rest, "muon": False}]
        super().__init__([group for group in groups if group["params"]], shared)

    @torch.no_grad()
    def step(self, closure=None):  # type: ignore[override]
        """One step; parameters without a gradient stay as they are."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    (self._muon_step if group["muon"] else self._adam_step)(p, group)
        return loss

    def _muon_step(self, p: Tensor, group: dict) -> None:
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(p.grad, 1 - group["momentum"])  # type: ignore[arg-type]
        ahead = p.grad.lerp(state["momentum"], group["momentum"]).flatten(1)  # type: ignore[union-attr]
        size = 0.2 * max(ahead.shape) ** 0.5
        p.mul_(1 - group["lr"] * group["decay"])
        p.add_(orthogonalize(ahead).to(p.dtype).view(p.shape), alpha=-group["lr"] * size)

    def _adam_step(self, p: Tensor, group: dict) -> None:
        state, (beta1, beta2) = self.state[p], group["betas"]
        if not state:
            state.update(step=torch.zeros(()), mean=torch.zeros_like(p), square=torch.zeros_like(p))
        state["step"] += 1
        t = state["step"].item()
        state["mean"].lerp_(p.grad, 1 - beta1)  # type: ignore[arg-type]
        state["square"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)  # type: ignore[arg-type]
        scale = (state["square"] / (1 - beta2**t)).sqrt_().add_(group["eps"])
        p.addcdiv_(state["mean"], scale, value=-group["lr"] / (1 - beta1**t))
