"""Metrics: what one picture is worth is measured on the hole, since a figure over the whole picture hides it.

PSNR, SSIM and L1 are per picture, then averaged. Edge counts are pooled over all hole pixels of a set before precision and
recall are formed. SSIM: Wang et al., "Image Quality Assessment", IEEE TIP 2004, eq. 13, from scikit-image. Two sets of
pictures are compared by face-feature distances, which are not FID and not KID: those are defined on another network.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from edgeconnect_lite.features import FaceFeatures, load_face_features
from edgeconnect_lite.samples import to_tensor


def hole_l1(result: np.ndarray, photo: np.ndarray, mask: np.ndarray) -> float:
    """Mean absolute error over the hole, in gray levels of 255. result, photo: uint8 (H, W, 3). mask: bool (H, W)."""
    return float(np.abs(result[mask].astype(np.float64) - photo[mask]).mean())


def hole_psnr(result: np.ndarray, photo: np.ndarray, mask: np.ndarray) -> float:
    """Peak signal-to-noise ratio over the hole in dB: 10 log10(255^2 / mean squared error). Infinite if equal."""
    error = float(np.square(result[mask].astype(np.float64) - photo[mask]).mean())
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def hole_ssim(result: np.ndarray, photo: np.ndarray, mask: np.ndarray) -> float:
    """Structural similarity, averaged over the hole's pixels of its map. At least 7 x 7 px. In [-1, 1], 1 = equal."""
    _, local = structural_similarity(result, photo, channel_axis=2, full=True)  # type: ignore[misc]
    return float(local[mask].mean())


def telea(photo: np.ndarray, mask: np.ndarray, radius: int = 3) -> np.ndarray:
    """The classical baseline: Telea, "An Image Inpainting Technique Based on the Fast Marching Method", 2004 (OpenCV).

    The hole is blanked first: it plays no part. photo: uint8 (H, W, 3). mask: bool (H, W). Returns uint8 (H, W, 3).
    """
    blanked = np.where(mask[..., None], np.uint8(0), photo)
    filled = cv2.inpaint(blanked, mask.astype(np.uint8), radius, cv2.INPAINT_TELEA)
    return np.where(mask[..., None], filled, photo)


def _grow(edges: np.ndarray, tolerance: int) -> np.ndarray:
    side = 2 * tolerance + 1
    return cv2.dilate(edges.astype(np.uint8), np.ones((side, side), np.uint8)) > 0


@dataclass
class EdgeCounts:
    """Precision, recall and F1 of edges in the hole, pooled over the pictures that were added.

    tolerance: 0 = the exact pixel; 1 = a predicted hole pixel counts if a true edge lies within 1 px (in either axis) of
    it inside the hole, and likewise the other way.
    """

    tolerance: int = 0
    predicted: int = 0
    true: int = 0
    predicted_hits: int = 0
    true_hits: int = 0

    def add(self, predicted: np.ndarray, true: np.ndarray, mask: np.ndarray) -> None:
        """predicted, true: bool (H, W) edges; only those inside mask, bool (H, W), count."""
        predicted, true = predicted & mask, true & mask
        self.predicted += int(predicted.sum())
        self.true += int(true.sum())
        self.predicted_hits += int((predicted & _grow(true, self.tolerance)).sum())
        self.true_hits += int((true & _grow(predicted, self.tolerance)).sum())

    @property
    def precision(self) -> float:
        """Share of predicted edge pixels that are right; 0 where nothing was predicted."""
        return self.predicted_hits / max(self.predicted, 1)

    @property
    def recall(self) -> float:
        """Share of true edge pixels that were found; 0 where there is none."""
        return self.true_hits / max(self.true, 1)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def edge_effect(with_edges: np.ndarray, without_edges: np.ndarray, mask: np.ndarray) -> float:
    """How far the hole moves when edges are given: mean absolute change, gray levels of 255 (the report's: 1.3 to 1.6)."""
    return hole_l1(with_edges, without_edges, mask)


@torch.inference_mode()
def embed_faces(pictures: Iterable[np.ndarray], network: FaceFeatures | None = None) -> Tensor:
    """Each picture, uint8 (H, W, 3), as the face features see it. Returns (N, 192). network: None = the shipped one."""
    network = network or load_face_features()
    rows = [network.embed(to_tensor(p)[None]) for p in pictures]
    if not rows:
        raise ValueError("no picture to embed")
    return torch.cat(rows)


def face_feature_distance(embedded: Tensor, others: Tensor) -> dict[str, float]:
    """How far two sets of pictures lie apart, each embedded by embed_faces, (N, 192). Of the larger set the first N count.

    "frechet": between normal distributions fitted to the sets (Heusel et al., NeurIPS 2017, eq. 6); it grows as sets
    shrink, so compare sets of one size. "kernel": squared maximum mean discrepancy with the cubic kernel
    (Binkowski et al., ICLR 2018, section 4), unbiased, so near 0, a little below it at times, for two halves of one set.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance  # loads slowly
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(len(embedded), len(others))
    if size < 2:
        raise ValueError(f"sets of {len(embedded)} and {len(others)} pictures; wanted at least two each")
    as_is = _AsIs(embedded.shape[1])
    with warnings.catch_warnings():  # of memory, for sets much larger than these
        warnings.simplefilter("ignore", UserWarning)
        metrics = {
            "frechet": FrechetInceptionDistance(as_is),
            "kernel": KernelInceptionDistance(as_is, subsets=1, subset_size=size),
        }
    found = {}
    for name, metric in metrics.items():
        metric.update(embedded[:size], real=True)
        metric.update(others[:size], real=False)
        with torch.random.fork_rng(devices=[]):  # it shuffles all of the rows, to no effect
            value = metric.compute()
        found[name] = float(value if name == "frechet" else value[0])
    return found


class _AsIs(nn.Module):
    """What torchmetrics takes for a network: the pictures are embedded already."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def forward(self, embedded: Tensor) -> Tensor:
        return embedded
