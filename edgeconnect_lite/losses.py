"""Losses: one function per equation. Each takes batches and returns one number (a tensor of shape ()).

Adversarial: Goodfellow et al., "Generative Adversarial Networks", 2014, section 3, in its non-saturating form. Feature
matching: Wang et al., "pix2pixHD", CVPR 2018, section 3.2. Perceptual: Johnson et al., ECCV 2016, eq. 2. Style: Gatys et al.,
CVPR 2016, eqs. 3 to 5. The last two compare squares in their papers; here all distances are absolute, as in the two
stages of Nazeri et al., "EdgeConnect", 2019, eqs. 2 to 8.

Throughout: photos (N, 1 or 3, H, W) in [0, 1]; masks (N, 1, H, W), 1 = hole; logits any real number; features a list of
(N, C, h, w), each layer with its own C, h and w, which must agree between the two lists.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def hole_weighted_mean(values: Tensor, mask: Tensor, hole_weight: float) -> Tensor:
    """The mean of values (N, C, H, W) in which a hole pixel counts hole_weight times a known one. mask: (N, 1, H, W)."""
    weight = (1 + (hole_weight - 1) * mask).expand_as(values)
    return (values * weight).sum() / weight.sum()


def edge_cross_entropy(
    logits: Tensor, edges: Tensor, mask: Tensor, hole_weight: float = 10.0, edge_weight: float | Tensor = 1.0
) -> Tensor:
    """Binary cross-entropy of an edge map, -[w e log p + (1 - e) log(1 - p)] with p = sigmoid(logits), hole weighted.

    logits, edges, mask: (N, 1, H, W). hole_weight: a hole pixel against a known one. edge_weight: w, one number or a map
    (N, 1, H, W); a stage that must decide at p > 0.5 draws fewer edges than there are with w = 1, since edges are rare.
    """
    weight = torch.as_tensor(edge_weight, dtype=logits.dtype, device=logits.device)
    each = F.binary_cross_entropy_with_logits(logits, edges, reduction="none", pos_weight=weight)
    return hole_weighted_mean(each, mask, hole_weight)


def deepening_weight(mask: Tensor, shallow: float, deep: float, depth: int = 6) -> Tensor:
    """An edge weight that rises from `shallow` at the hole's border to `deep`, `depth` px inside, where edges are less sure.

    The best threshold for F1 is half of the F1 that can be reached (Lipton et al., ECML PKDD 2014, section 4), and that falls
    with the distance from what is known. mask: (N, 1, H, W). depth: at least 2. Returns (N, 1, H, W).
    """
    if depth < 2:
        raise ValueError(f"depth is {depth}; wanted at least 2 px")
    known, inside = 1 - mask, torch.zeros_like(mask)
    for _ in range(depth - 1):
        known = F.max_pool2d(known, 3, stride=1, padding=1)
        inside = inside + (1 - known)
    return shallow + (deep - shallow) * inside / (depth - 1)


def reconstruction_loss(painted: Tensor, photo: Tensor, mask: Tensor, hole_weight: float = 6.0) -> Tensor:
    """Mean absolute error |painted - photo|, hole weighted. painted, photo: (N, 1 or 3, H, W)."""
    return hole_weighted_mean((painted - photo).abs(), mask, hole_weight)


def squared_loss(painted: Tensor, photo: Tensor, mask: Tensor, hole_weight: float = 6.0) -> Tensor:
    """Mean squared error, hole weighted: what PSNR counts. Large errors weigh more than in reconstruction_loss.

    painted, photo: (N, 1 or 3, H, W).
    """
    return hole_weighted_mean((painted - photo).square(), mask, hole_weight)


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-[log D(real) + log(1 - D(fake))] / 2, with D = sigmoid(logits), averaged over patches. Logits: (N, 1, h, w)."""
    return (F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()) / 2


def adversarial_loss(fake_logits: Tensor) -> Tensor:
    """-log D(fake): what the generator minimises (non-saturating), averaged over patches. fake_logits: (N, 1, h, w)."""
    return F.softplus(-fake_logits).mean()


def feature_matching_loss(real_features: list[Tensor], fake_features: list[Tensor]) -> Tensor:
    """sum over layers i of mean |D_i(real) - D_i(fake)|; the real side is a constant."""
    pairs = zip(real_features, fake_features, strict=True)
    return torch.stack([F.l1_loss(fake, real.detach()) for real, fake in pairs]).sum()


def perceptual_loss(real_features: list[Tensor], fake_features: list[Tensor]) -> Tensor:
    """sum over layers i of mean |phi_i(real) - phi_i(fake)|, phi a fixed feature network (features.py)."""
    pairs = zip(real_features, fake_features, strict=True)
    return torch.stack([F.l1_loss(fake, real) for real, fake in pairs]).sum()


def gram_matrix(features: Tensor) -> Tensor:
    """How often two channels are active together: (N, C, H, W) -> (N, C, C), divided by C * H * W."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat[0].numel()


def style_loss(real_features: list[Tensor], fake_features: list[Tensor]) -> Tensor:
    """sum over layers i of mean |G(phi_i(real)) - G(phi_i(fake))|, G the Gram matrix."""
    pairs = zip(real_features, fake_features, strict=True)
    return torch.stack([F.l1_loss(gram_matrix(fake), gram_matrix(real)) for real, fake in pairs]).sum()
