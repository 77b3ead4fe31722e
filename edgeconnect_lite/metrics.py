"""Metrics: what one picture is worth is measured on the hole, since a figure over the whole picture hides it.

PSNR, SSIM and L1 are per picture, then averaged. Edge counts are pooled over all hole pixels of a set before a share is
formed of them. SSIM: Wang et al., "Image Quality Assessment", IEEE TIP 2004, eq. 13, from scikit-image. Two sets of
pictures are compared by face-feature distances, which are not FID and not KID: those are defined on another network.
Intervals: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3 (percentiles).
"""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from skimage.metrics import structural_similarity
from skimage.morphology import skeletonize
from torch import Tensor, nn

from edgeconnect_lite.features import FaceFeatures, load_face_features
from edgeconnect_lite.masks import as_mask
from edgeconnect_lite.samples import to_tensor


def hole_of(mask: np.ndarray, *pictures: np.ndarray) -> np.ndarray:
    """The checked hole of pictures that are to be compared there. mask: as for masks.as_mask. Returns bool (H, W).

    Raises ValueError where the pictures are not uint8 of one shape, or edges not bool, and masks.BadMask.
    """
    first = pictures[0]
    for picture in pictures:
        if picture.shape != first.shape or picture.dtype not in ((np.uint8,) if first.ndim == 3 else (np.bool_,)):
            came = " and ".join(f"{p.dtype} {p.shape}" for p in pictures)
            raise ValueError(f"{came} are to be compared; wanted uint8 (H, W, 3), or bool (H, W) edges, of one shape")
    if getattr(mask, "dtype", None) == np.bool_ and mask.shape == first.shape[:2]:
        return mask  # one that is all hole, which nothing could fill, can be compared in
    return as_mask(mask, first.shape[:2])


def _filled(mask: np.ndarray, *pictures: np.ndarray) -> np.ndarray:
    hole = hole_of(mask, *pictures)
    if not hole.any():
        raise ValueError("the mask has no hole; wanted at least one pixel to compare")
    return hole


def hole_l1(result: np.ndarray, photo: np.ndarray, mask: np.ndarray) -> float:
    """Mean absolute error over the hole, in gray levels of 255. result, photo: uint8 (H, W, 3). mask: as for hole_of.

    This and the next two raise ValueError where the mask has no hole, and what hole_of raises.
    """
    mask = _filled(mask, result, photo)
    return float(np.abs(result[mask].astype(np.float64) - photo[mask]).mean())


def hole_psnr(result: np.ndarray, photo: np.ndarray, mask: np.ndarray) -> float:
    """Peak signal-to-noise ratio over the hole in dB: 10 log10(255^2 / mean squared error). Infinite if equal."""
    mask = _filled(mask, result, photo)
    error = float(np.square(result[mask].astype(np.float64) - photo[mask]).mean())
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def hole_ssim(result: np.ndarray, photo: np.ndarray, mask: np.ndarray) -> float:
    """Structural similarity, averaged over the hole's pixels of its map. At least 7 x 7 px. In [-1, 1], 1 = equal."""
    mask = _filled(mask, result, photo)
    _, local = structural_similarity(result, photo, channel_axis=2, full=True)  # type: ignore[misc]
    return float(local[mask].mean())


def telea(photo: np.ndarray, mask: np.ndarray, radius: int = 3) -> np.ndarray:
    """The classical baseline: Telea, "An Image Inpainting Technique Based on the Fast Marching Method", 2004 (OpenCV).

    The hole is blanked first: it plays no part. photo: uint8 (H, W, 3). mask: bool (H, W). Returns uint8 (H, W, 3).
    """
    return _classical(photo, mask, radius, cv2.INPAINT_TELEA)


def navier_stokes(photo: np.ndarray, mask: np.ndarray, radius: int = 3) -> np.ndarray:
    """The other one: Bertalmio et al., "Navier-Stokes, Fluid Dynamics, and Image and Video Inpainting", CVPR 2001 (OpenCV).

    Arguments and result as for telea.
    """
    return _classical(photo, mask, radius, cv2.INPAINT_NS)


def _classical(photo: np.ndarray, mask: np.ndarray, radius: int, method: int) -> np.ndarray:
    mask = hole_of(mask, photo)
    blanked = np.where(mask[..., None], np.uint8(0), photo)
    filled = cv2.inpaint(blanked, mask.astype(np.uint8), radius, method)
    return np.where(mask[..., None], filled, photo)


def grow(edges: np.ndarray, tolerance: int) -> np.ndarray:
    """The pixels that lie within `tolerance` px (in either axis) of an edge. bool (H, W) -> bool (H, W)."""
    side = 2 * tolerance + 1
    return cv2.dilate(edges.astype(np.uint8), np.ones((side, side), np.uint8)) > 0


def edge_counts(predicted: np.ndarray, true: np.ndarray, mask: np.ndarray, tolerance: int = 0) -> np.ndarray:
    """What one picture adds to EdgeCounts: predicted and true edge pixels of the hole, and how many of each are hits.

    predicted, true: bool (H, W) edges; only those inside mask, as for hole_of, count. Returns int (4,).
    """
    mask = hole_of(mask, predicted, true)
    predicted, true = predicted & mask, true & mask
    hits = (predicted & grow(true, tolerance)).sum(), (true & grow(predicted, tolerance)).sum()
    return np.array([predicted.sum(), true.sum(), *hits], np.int64)


def precision_recall_f1(counts: np.ndarray) -> np.ndarray:
    """Of pooled edge_counts, (..., 4): precision, recall and their harmonic mean, (..., 3); 0 where nothing was hit."""
    shares = counts[..., 2:] / np.maximum(counts[..., :2], 1)
    total = shares.sum(-1, keepdims=True)
    f1 = 2 * shares.prod(-1, keepdims=True) / np.where(total > 0, total, 1)
    return np.concatenate([shares, f1], -1)


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
        new = self.counts + edge_counts(predicted, true, mask, self.tolerance)
        self.predicted, self.true, self.predicted_hits, self.true_hits = new.tolist()

    @property
    def counts(self) -> np.ndarray:
        """As edge_counts gives them, int (4,)."""
        return np.array([self.predicted, self.true, self.predicted_hits, self.true_hits], np.int64)

    @property
    def precision(self) -> float:
        """Share of predicted edge pixels that are right; 0 where nothing was predicted."""
        return float(precision_recall_f1(self.counts)[0])

    @property
    def recall(self) -> float:
        """Share of true edge pixels that were found; 0 where there is none."""
        return float(precision_recall_f1(self.counts)[1])

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return float(precision_recall_f1(self.counts)[2])


def width_counts(edges: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Edge pixels of the hole before and after thinning, int (2,); pooled, their ratio is the line width.

    The whole map is thinned, so that a line does not end at the hole's border, and counted in the hole. Canny's own lines
    come out at about 1.2: thinning cuts their corners. Lee, Kashyap & Chu, CVGIP 1994, and not scikit-image's default
    (Zhang & Suen), which erases a diagonal that is two pixels wide altogether. edges, mask: bool (H, W).
    """
    mask = hole_of(mask, edges)
    thin = skeletonize(edges, method="lee") > 0
    return np.array([(edges & mask).sum(), (thin & mask).sum()], np.int64)


def line_width(counts: np.ndarray) -> np.ndarray:
    """Of pooled width_counts, (..., 2): px that a line is wide, at least 1; 0 where there is no line."""
    return counts[..., 0] / np.maximum(counts[..., 1], 1)


def adherence_counts(given: np.ndarray, result_edges: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Does a result follow the edges that it was given? Hits, given pixels, near pixels, hole pixels: int (4,), to pool.

    given: bool (H, W) edges, those in the hole count; a hit has an edge of the result within 1 px. near: hole pixels
    within 1 px of any edge of the result. result_edges: bool (H, W), Canny of the composite. mask: bool (H, W).
    """
    mask = hole_of(mask, given, result_edges)
    near, given = grow(result_edges, 1) & mask, given & mask
    return np.array([(given & near).sum(), given.sum(), near.sum(), mask.sum()], np.int64)


def adherence(counts: np.ndarray) -> np.ndarray:
    """Of pooled adherence_counts, (..., 4): (hit - chance) / (1 - chance), the share above chance; 1 = followed, 0 = ignored.

    hit: share of given edge pixels that reappear; chance: share of the hole that lies near an edge of the result, which
    is what a stroke drawn blindly would hit (0.4 to 0.6 for faces: hit alone flatters). 0 where the hole is all near.
    """
    hit, chance = np.moveaxis(counts[..., ::2] / np.maximum(counts[..., 1::2], 1), -1, 0)
    return np.where(chance < 1, (hit - chance) / np.where(chance < 1, 1 - chance, 1), 0.0)


def bootstrap_interval(
    rows: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0, resamples: int = 1000
) -> tuple[float, float]:
    """The 95 % interval of a figure: the set's pictures are drawn again with replacement, 1,000 times, and it is recomputed.

    rows: (N, K), what each picture adds. statistic: sums over the pictures, (..., K) -> (...). The same seed draws the
    same pictures for every figure of a set.
    """
    count = len(rows)
    drawn = np.random.default_rng(seed).multinomial(
        count, np.full(count, 1 / count), resamples
    )  # how often each picture
    low, high = np.percentile(statistic(drawn @ rows), (2.5, 97.5))
    return float(low), float(high)


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
