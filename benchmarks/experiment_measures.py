"""What the experiments measure of a trained network: on held-out training faces with fixed holes, never on the test split.

Every figure is of the hole: PSNR per picture, then averaged; all counts pooled. figures[set][metric], the sets as in
evaluation.mask_sets: "strokes any" (as drawn), "brush 20-40%", and strokes by hole ratio, "strokes 0-10%" and so on.
"""

from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from edgeconnect_lite import metrics
from edgeconnect_lite.edges import known_edges, merge_edges, to_gray, true_edges
from edgeconnect_lite.evaluation import hole, mask_sets
from edgeconnect_lite.generators import EdgeGenerator
from edgeconnect_lite.inpainting import THRESHOLD, composite, predict_probability, to_rgb
from edgeconnect_lite.samples import PhotoSource, Sample, edge_stage_input, image_stage_input, make_sample

Figures = dict[str, dict[str, float]]
Pair = tuple[np.ndarray, np.ndarray]  # a photo, uint8 (H, W, 3), and its hole, bool (H, W)
WHOLE = ("strokes any", "brush 20-40%")
PICTURES_A_BIN = 64
MEASURING_SEED = 0  # the holes are the same for every run


def held_out_sets(photos: PhotoSource, count: int, bins: bool) -> dict[str, list[Pair]]:
    """The last `count` photos, each with its hole of every set; with bins fewer of them by hole ratio too."""
    first = len(photos) - count
    kept = [photos[first + i] for i in range(count)]
    every = mask_sets(len(kept[0]))
    sources = {f"{kind} {name}": masks for kind, of_kind in every.items() for name, masks in of_kind.items()}
    found = {name: [(p, hole(sources[name], MEASURING_SEED, i)) for i, p in enumerate(kept)] for name in WHOLE}
    if bins:
        for name in (name for name in sources if name.startswith("strokes") and name not in WHOLE):
            found[name] = [(p, hole(sources[name], MEASURING_SEED, i)) for i, p in enumerate(kept[:PICTURES_A_BIN])]
    return found


def batched(pairs: Sequence[Pair], size: int = 16) -> Iterator[Sample]:
    """The pairs as batches of samples, in order."""
    for start in range(0, len(pairs), size):
        samples = [make_sample(*pair) for pair in pairs[start : start + size]]
        yield Sample(*(torch.stack(part) for part in zip(*samples)))


def rows_of(batch: Tensor) -> list[np.ndarray]:
    """(N, 1, H, W) -> N of (H, W)."""
    return list(batch[:, 0].numpy())


@torch.inference_mode()
def predict_edges(generator: EdgeGenerator, pairs: Sequence[Pair]) -> list[np.ndarray]:
    """Stage 1's whole edge maps, bool (H, W) each: the known edges, and its own in and near the hole."""
    guesses = [p for batch in batched(pairs) for p in rows_of(predict_probability(generator, batch))]
    return [merge_edges(known_edges(p, m), guess, m) > THRESHOLD for (p, m), guess in zip(pairs, guesses)]


@torch.inference_mode()
def mean_probabilities(generator: EdgeGenerator, pairs: Sequence[Pair]) -> dict[str, float]:
    """How sure stage 1 is of the hole's true edge pixels, and of all others: equal where it knows nothing."""
    sums = np.zeros((2, 2))
    for batch in batched(pairs):
        probability = torch.sigmoid(generator(edge_stage_input(batch)).logits.float())
        for row, where in enumerate((batch.edges * batch.mask, (1 - batch.edges) * batch.mask)):
            sums[row] += (probability * where).sum().item(), where.sum().item()
    on, off = sums[:, 0] / np.maximum(sums[:, 1], 1)
    return {"probability_on_edges": float(on), "probability_elsewhere": float(off)}


def edge_figures(predicted: Sequence[np.ndarray], pairs: Sequence[Pair]) -> dict[str, float]:
    """precision, recall, f1, exact; f1_1px; predicted_share, predicted over true pixels; line_width_ratio to Canny's."""
    exact, near, width, true_width = 0, 0, 0, 0
    for edges, (photo, mask) in zip(predicted, pairs):
        true = true_edges(photo)
        exact, near = (n + metrics.edge_counts(edges, true, mask, t) for t, n in enumerate((exact, near)))
        width, true_width = (n + metrics.width_counts(e, mask) for e, n in ((edges, width), (true, true_width)))
    exact, near, width, true_width = (np.asarray(n) for n in (exact, near, width, true_width))
    figures = dict(zip(("precision", "recall", "f1"), metrics.precision_recall_f1(exact).tolist()))
    return figures | {
        "f1_1px": float(metrics.precision_recall_f1(near)[2]),
        "predicted_share": float(exact[0] / max(exact[1], 1)),
        "line_width_ratio": float(metrics.line_width(width) / max(float(metrics.line_width(true_width)), 1.0)),
    }


def measure_edges(generator: EdgeGenerator, sets: dict[str, list[Pair]]) -> Figures:
    """All that is measured of a stage 1."""
    return {
        name: edge_figures(predict_edges(generator, pairs), pairs) | mean_probabilities(generator, pairs)
        for name, pairs in sets.items()
    }


@torch.inference_mode()
def paint(generator: nn.Module, pairs: Sequence[Pair], edges: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Stage 2's composites, given whole edge maps, bool (H, W) each."""
    painted = []
    for sample in batched(pairs):
        given = np.stack(edges[len(painted) : len(painted) + len(sample.mask)])[:, None]
        painted += [to_rgb(p) for p in generator(image_stage_input(sample, torch.from_numpy(given).float()))]
    return [composite(photo, p, mask) for (photo, mask), p in zip(pairs, painted)]


def mean_over(pairs: Sequence[Pair], results: Sequence[np.ndarray], score: Callable[..., float]) -> float:
    """The mean of score(result, photo, mask)."""
    return float(np.mean([score(result, *pair) for result, pair in zip(results, pairs)]))


def psnr(result: np.ndarray, photo: np.ndarray, mask: np.ndarray) -> float:
    """hole_psnr, 100 dB at most."""
    return min(metrics.hole_psnr(result, photo, mask), 100.0)


def detail(results: Sequence[np.ndarray], pairs: Sequence[Pair]) -> float:
    """The mean absolute Laplacian of the gray hole, as a share of the photos' own: below 1 is smoother than a photo."""
    total = lambda pictures: sum(  # noqa: E731
        np.abs(cv2.Laplacian(to_gray(p), cv2.CV_32F))[mask].sum() for p, (_, mask) in zip(pictures, pairs)
    )
    return float(total(results) / total([photo for photo, _ in pairs]))


def look_figures(results: Sequence[np.ndarray], pairs: Sequence[Pair]) -> dict[str, float]:
    """frechet, the face-feature distance of the composites to the photos, and detail."""
    embedded = [metrics.embed_faces(pictures) for pictures in (results, [photo for photo, _ in pairs])]
    return {"frechet": metrics.face_feature_distance(*embedded)["frechet"], "detail": detail(results, pairs)}


def measure_painting(generator: nn.Module, sets: dict[str, list[Pair]], predictor: EdgeGenerator | None) -> Figures:
    """psnr_none, _predicted (with a predictor), _true; edge_effect, none to true, in gray levels.

    Of the whole sets also frechet, detail and adherence (share above chance) with true edges.
    """
    found: Figures = {}
    for name, pairs in sets.items():
        given = {"none": [known_edges(*pair) for pair in pairs], "true": [true_edges(p) for p, _ in pairs]}
        given["true"] = [merge_edges(k, t, m) for k, t, (_, m) in zip(given["none"], given["true"], pairs)]
        if predictor is not None:
            given["predicted"] = predict_edges(predictor, pairs)
        results = {kind: paint(generator, pairs, edges) for kind, edges in given.items()}
        found[name] = {f"psnr_{kind}": mean_over(pairs, of_kind, psnr) for kind, of_kind in results.items()}
        moved = zip(results["true"], results["none"], pairs)
        found[name]["edge_effect"] = float(np.mean([metrics.edge_effect(a, b, m) for a, b, (_, m) in moved]))
        if name in WHOLE:
            followed = zip(given["true"], results["true"], pairs)
            counts = sum(metrics.adherence_counts(e, true_edges(result), m) for e, result, (_, m) in followed)
            found[name] |= look_figures(results["true"], pairs)
            found[name]["adherence"] = float(metrics.adherence(np.asarray(counts)))
    return found


def measure_telea(sets: dict[str, list[Pair]]) -> Figures:
    """The classical baseline on the same holes: psnr, frechet, detail, and its fill's Canny edges as a stage 1."""
    found: Figures = {}
    for name, pairs in sets.items():
        fills = [metrics.telea(*pair) for pair in pairs]
        found[name] = {"psnr": mean_over(pairs, fills, psnr)} | edge_figures([true_edges(f) for f in fills], pairs)
        if name in WHOLE:
            found[name] |= look_figures(fills, pairs)
    return found
