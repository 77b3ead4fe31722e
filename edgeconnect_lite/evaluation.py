"""Evaluation: a pair of weights on fixed sets of photos and masks, against Telea, with predicted, true and no edges.

results[mask_set][bin][method][metric]; the methods are telea, predicted, true, none. "None" means known edges and a blank
hole. Mask i of a set depends on (seed, i) alone, so two pairs of weights are measured on the same holes.
"""

from collections.abc import Iterable

import numpy as np
from tqdm.auto import tqdm

from edgeconnect_lite.edges import known_edges, true_edges
from edgeconnect_lite.inpainting import THRESHOLD, Inpainter
from edgeconnect_lite.masks import BINS, RandomMasks
from edgeconnect_lite.metrics import EdgeCounts, edge_effect, hole_l1, hole_psnr, hole_ssim, telea
from edgeconnect_lite.samples import MaskSource

METHODS = ("telea", "predicted", "true", "none")
Results = dict[str, dict[str, dict[str, dict[str, float]]]]


def stroke_sets(size: int = 128) -> dict[str, MaskSource]:
    """Bin -> masks: strokes as they are drawn ("any"), and for each hole-ratio bin strokes until it is reached."""
    bins = {f"{low:.0%}-{high:.0%}".replace("%-", "-"): RandomMasks("strokes", size, (low, high)) for low, high in BINS}
    return {"any": RandomMasks("strokes", size), **bins}


def hole_scores(result: np.ndarray, photo: np.ndarray, mask: np.ndarray) -> tuple[float, float, float]:
    """PSNR (100 dB at most, so that one perfect tiny hole does not decide a mean), SSIM and L1 of one picture's hole."""
    return min(hole_psnr(result, photo, mask), 100.0), hole_ssim(result, photo, mask), hole_l1(result, photo, mask)


def evaluate(
    inpainter: Inpainter, photos: Iterable[np.ndarray], masks: MaskSource, seed: int = 0, name: str = ""
) -> dict[str, dict[str, float]]:
    """Measure one set: results[method][metric], everything on the hole.

    photos: uint8 (H, W, 3), all of the masks' size. Metrics: psnr (dB, a picture counts 100 at most), ssim and
    l1 (gray levels) for each method; for "predicted" also the pooled edge precision, recall and f1, exact and within
    1 px (precision_1px, ...); for "true" the edge_effect: mean absolute change of hole pixels between true edges and
    none, in gray levels.
    """
    scores: dict[str, list[tuple[float, float, float]]] = {method: [] for method in METHODS}
    exact, near = EdgeCounts(), EdgeCounts(tolerance=1)
    effects, ratios = [], []
    for index, photo in enumerate(tqdm(photos, desc=name or "evaluate", disable=None)):
        mask = masks.draw(np.random.default_rng([seed, index]))
        true, predicted = true_edges(photo), inpainter.predict_edges(photo, mask) > THRESHOLD
        results = {
            "telea": telea(photo, mask),
            "predicted": inpainter(photo, mask, predicted),
            "true": inpainter(photo, mask, true),
            "none": inpainter(photo, mask, known_edges(photo, mask)),
        }
        for method, result in results.items():
            scores[method].append(hole_scores(result, photo, mask))
        exact.add(predicted, true, mask)
        near.add(predicted, true, mask)
        effects.append(edge_effect(results["true"], results["none"], mask))
        ratios.append(mask.mean())
    if not ratios:
        raise ValueError("no photo to evaluate on")
    table: dict[str, dict[str, float]] = {}
    for method, rows in scores.items():
        psnr, ssim, l1 = np.mean(rows, axis=0).tolist()
        table[method] = {"psnr": psnr, "ssim": ssim, "l1": l1}
        table[method] |= {"photos": len(ratios), "hole_ratio": float(np.mean(ratios))}
    table["predicted"] |= {"precision": exact.precision, "recall": exact.recall, "f1": exact.f1}
    table["predicted"] |= {"precision_1px": near.precision, "recall_1px": near.recall, "f1_1px": near.f1}
    table["true"] |= {"edge_effect": float(np.mean(effects))}
    return table
