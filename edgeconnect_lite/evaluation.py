"""Evaluation: a pair of weights on fixed sets of photos and masks, against the classical methods, with given and no edges.

results[mask_set][bin][method][metric]; the methods are telea, navier_stokes, predicted, true, none, and other weights by
their names. "None" means known edges and a blank hole. Mask i of a set depends on (seed, i) alone, so two pairs of weights
are measured on the same holes. One function measures one picture; every figure of a set is formed from what its pictures
add up to, which is what lets the bootstrap draw them again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from edgeconnect_lite import metrics
from edgeconnect_lite.edges import known_edges, true_edges
from edgeconnect_lite.features import FaceFeatures, load_face_features
from edgeconnect_lite.inpainting import THRESHOLD, Inpainter
from edgeconnect_lite.masks import BINS, RandomMasks, as_mask
from edgeconnect_lite.photos import centre_square
from edgeconnect_lite.runs import progress
from edgeconnect_lite.samples import MaskSource

METHODS = ("telea", "navier_stokes", "predicted", "true", "none")
# Of PSNR: (better, worse) becomes results[better]["over_" + worse].
GAINS = (("predicted", "telea"), ("true", "telea"), ("predicted", "none"), ("true", "predicted"))
SHORTEST_STROKE = 8  # px: below it a drawn stroke says nothing
Figures = dict[str, dict[str, float | list[float]]]  # [method][metric]


class CentreBox:
    """A source of one mask: the box of half the picture's side in its middle, a quarter of the pixels. bool (size, size)."""

    def __init__(self, size: int = 128):
        self.mask = np.zeros((size, size), bool)
        self.mask[size // 4 : size // 4 + size // 2, size // 4 : size // 4 + size // 2] = True

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        return self.mask.copy()


def mask_sets(size: int = 128) -> dict[str, dict[str, MaskSource]]:
    """[mask_set][bin] -> masks: strokes as they are drawn ("any") and by hole ratio, a free-form brush, the centre box."""
    bins = {f"{low:.0%}-{high:.0%}".replace("%-", "-"): RandomMasks("strokes", size, (low, high)) for low, high in BINS}
    return {
        "strokes": {"any": RandomMasks("strokes", size), **bins},
        "brush": {"20-40%": RandomMasks("brush", size, (0.2, 0.4))},
        "box": {"25%": CentreBox(size)},
    }


def hole(masks: MaskSource, seed: int, index: int) -> np.ndarray:
    """Mask number `index` of a set: it depends on (seed, index) alone. bool (H, W), True = hole."""
    return masks.draw(np.random.default_rng([seed, index]))


def random_stroke(mask: np.ndarray, rng: np.random.Generator, tries: int = 8) -> np.ndarray:
    """A line that knows nothing of the photo: 1 px wide, smooth, inside the hole. mask: bool (H, W). Returns bool (H, W).

    A quadratic Bezier curve whose three points are random pixels of the hole, cut to its longest piece within the hole: of
    `tries` such curves the longest, as a person uses the room that a narrow hole leaves.
    """
    pixels, best, length = np.argwhere(mask)[:, ::-1], np.zeros_like(mask), 0
    t = np.linspace(0, 1, 24)[:, None]
    for _ in range(tries):
        start, middle, end = pixels[rng.integers(len(pixels), size=3)]
        curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
        canvas = cv2.polylines(np.zeros(mask.shape, np.uint8), [np.round(curve).astype(np.int32)], False, 1)
        _, pieces, sizes, _ = cv2.connectedComponentsWithStats(canvas * mask, connectivity=8)
        areas = sizes[1:, cv2.CC_STAT_AREA]
        if areas.max(initial=0) > length:
            best, length = pieces == 1 + areas.argmax(), int(areas.max())
    return best


def draw_over(edges: np.ndarray, stroke: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What a person leaves who draws a stroke: edges of the hole within 3 px of it are erased, then it is added. (H, W)."""
    return (edges & ~(metrics.grow(stroke, 3) & mask)) | stroke


@dataclass(frozen=True)
class Picture:
    """What one photo with one hole adds to a set's figures. Edge sources: predicted, telea (Canny of its fill), others."""

    index: int
    hole_ratio: float
    scores: dict[str, tuple[float, float, float]]  # method -> hole_scores
    faces: dict[str, np.ndarray]  # method, or "photo" -> face features (192,)
    exact: dict[str, np.ndarray]  # edge source -> edge_counts (4,)
    near: dict[str, np.ndarray]  # edge source -> edge_counts within 1 px (4,)
    width: dict[str, np.ndarray]  # edge source, or "true" -> width_counts (2,)
    adherence: dict[str, np.ndarray]  # true, predicted; where a stroke fits drawn, drawn_away -> adherence_counts (4,)
    edge_effect: float  # gray levels between true edges and none

    @property
    def gain(self) -> float:
        """PSNR with predicted edges over Telea's, in dB."""
        return self.scores["predicted"][0] - self.scores["telea"][0]


def hole_scores(result: np.ndarray, photo: np.ndarray, mask: np.ndarray) -> tuple[float, float, float]:
    """PSNR (100 dB at most, so that one perfect tiny hole does not decide a mean), SSIM and L1 of one picture's hole."""
    return (
        min(metrics.hole_psnr(result, photo, mask), 100.0),
        metrics.hole_ssim(result, photo, mask),
        metrics.hole_l1(result, photo, mask),
    )


def drawn_adherence(
    inpainter: Inpainter, photo: np.ndarray, mask: np.ndarray, predicted: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Does the result follow a stroke that is drawn onto the predicted edges and contradicts the photo?

    Stroke pixels within 1 px of a true edge do not contradict it and are left out. Returns {"drawn", "drawn_away":
    adherence_counts}, or {} where fewer than 8 px of stroke are left. drawn: chance over the whole hole, which is strict: a
    result that ignores the stroke has its edges where the true ones are, so scores below 0. drawn_away: chance over the
    hole's pixels that are more than 1 px from a true edge, as those of the stroke are.
    """
    stroke = random_stroke(mask, rng)
    away = mask & ~metrics.grow(true_edges(photo), 1)
    against = stroke & away
    if against.sum() < SHORTEST_STROKE:
        return {}
    edges = true_edges(inpainter(photo, mask, draw_over(predicted, stroke, mask)))
    return {
        name: metrics.adherence_counts(against, edges, area) for name, area in (("drawn", mask), ("drawn_away", away))
    }


def measure_picture(
    inpainter: Inpainter, photo: np.ndarray, mask: np.ndarray, rng: np.random.Generator, features: FaceFeatures,
    also: Mapping[str, Inpainter] | None = None, index: int = 0,
) -> Picture:  # fmt: skip
    """Everything about one photo. photo: uint8 (H, W, 3). mask: bool (H, W), True = hole. rng: draws the stroke."""
    mask = as_mask(mask, photo.shape[:2])
    if not mask.any():
        raise ValueError(f"mask {index} has no hole; wanted at least one pixel to fill")
    pairs = {"predicted": inpainter, **(also or {})}
    given = {name: pair.predict_edges(photo, mask) > THRESHOLD for name, pair in pairs.items()}
    given |= {"true": true_edges(photo), "none": known_edges(photo, mask)}
    results = {"telea": metrics.telea(photo, mask), "navier_stokes": metrics.navier_stokes(photo, mask)}
    for name in ("predicted", "true", "none", *(also or {})):
        results[name] = pairs.get(name, inpainter)(photo, mask, given[name])
    faces = metrics.embed_faces([centre_square(face, 128) for face in (photo, *results.values())], features).numpy()
    true, guesses = given["true"], {name: given[name] for name in pairs} | {"telea": true_edges(results["telea"])}
    followed = {
        name: metrics.adherence_counts(given[name], true_edges(results[name]), mask) for name in ("true", "predicted")
    }
    return Picture(
        index=index,
        hole_ratio=float(mask.mean()),
        scores={method: hole_scores(result, photo, mask) for method, result in results.items()},
        faces=dict(zip(("photo", *results), faces)),
        exact={source: metrics.edge_counts(edges, true, mask) for source, edges in guesses.items()},
        near={source: metrics.edge_counts(edges, true, mask, 1) for source, edges in guesses.items()},
        width={source: metrics.width_counts(edges, mask) for source, edges in (*guesses.items(), ("true", true))},
        adherence=followed | drawn_adherence(inpainter, photo, mask, given["predicted"], rng),
        edge_effect=metrics.edge_effect(results["true"], results["none"], mask),
    )


def measure(
    inpainter: Inpainter, photos: Iterable[np.ndarray], masks: MaskSource, seed: int = 0, name: str = "",
    also: Mapping[str, Inpainter] | None = None,
) -> list[Picture]:  # fmt: skip
    """Measure one set. photos: uint8 (H, W, 3), all of the masks' size. also: other weights, name -> pair."""
    taken = {*METHODS, "photo"} & set(also or {})
    if taken:
        raise ValueError(f"other weights are named {', '.join(sorted(taken))}; wanted names that no method has")
    features = load_face_features()
    pictures = [
        measure_picture(
            inpainter, photo, hole(masks, seed, index), np.random.default_rng([seed, index, 1]), features, also, index
        )
        for index, photo in enumerate(progress(photos, desc=name or "evaluate"))
    ]
    if not pictures:
        raise ValueError("no photo to evaluate on")
    return pictures


def _figure(name: str, rows: Sequence, statistic: Callable[[np.ndarray], np.ndarray]) -> dict[str, float | list[float]]:
    """A pooled figure and its 95 % interval. rows: one (K,) for each picture. statistic: sums (..., K) -> (...)."""
    table = np.array(rows)
    return {name: float(statistic(table.sum(0))), f"{name}_interval": [*metrics.bootstrap_interval(table, statistic)]}


def _mean(name: str, values: Iterable[float]) -> dict[str, float | list[float]]:
    return _figure(name, [(value, 1) for value in values], lambda sums: sums[..., 0] / sums[..., 1])


def gain_figures(pictures: Sequence[Picture], better: str, worse: str) -> dict[str, float | list[float]]:
    """over_<worse>: how many dB of PSNR `better` lies above it, picture by picture, with its interval."""
    return _mean(f"over_{worse}", [p.scores[better][0] - p.scores[worse][0] for p in pictures])


def f1_figures(pictures: Sequence[Picture], source: str) -> dict[str, float | list[float]]:
    """Pooled exact F1 of an edge source and its interval."""
    return _figure(
        "f1", [p.exact[source] for p in pictures], lambda counts: metrics.precision_recall_f1(counts)[..., 2]
    )


def _edge_figures(pictures: Sequence[Picture], source: str) -> dict[str, float | list[float]]:
    figures = f1_figures(pictures, source)
    for ending, counts in (("", [p.exact[source] for p in pictures]), ("_1px", [p.near[source] for p in pictures])):
        shares = metrics.precision_recall_f1(np.sum(counts, axis=0)).tolist()
        figures |= dict(zip((f"precision{ending}", f"recall{ending}", f"f1{ending}"), shares))
    width, canny = (float(metrics.line_width(np.sum([p.width[x] for p in pictures], axis=0))) for x in (source, "true"))
    ratio = width / canny if canny else 0.0
    return figures | {"line_width": width, "true_line_width": canny, "line_width_ratio": ratio}


def _adherence_figures(pictures: Sequence[Picture], given: str, prefix: str = "") -> dict[str, float | list[float]]:
    rows = [p.adherence[given] for p in pictures if given in p.adherence]
    if not rows:
        return {}
    hits, pixels, near, area = np.sum(rows, axis=0).tolist()
    shares = {f"{prefix}adherence_hit": hits / max(pixels, 1), f"{prefix}adherence_chance": near / area}
    return _figure(f"{prefix}adherence", rows, metrics.adherence) | shares | {f"{prefix}adherence_photos": len(rows)}


def _method_figures(pictures: Sequence[Picture], method: str) -> dict[str, float | list[float]]:
    psnr, ssim, l1 = np.mean([p.scores[method] for p in pictures], axis=0).tolist()
    figures = {**_mean("psnr", [p.scores[method][0] for p in pictures]), "psnr": psnr, "ssim": ssim, "l1": l1}
    figures |= {"photos": len(pictures), "hole_ratio": float(np.mean([p.hole_ratio for p in pictures]))}
    if len(pictures) >= 2:
        results, photos = (torch.from_numpy(np.stack([p.faces[x] for p in pictures])) for x in (method, "photo"))
        figures |= metrics.face_feature_distance(results, photos)
    return figures


def summarize(pictures: Sequence[Picture]) -> Figures:
    """The figures of a set: [method][metric], everything on the hole but frechet and kernel, which see whole composites.

    Each method: psnr (dB, a picture counts 100 at most), ssim, l1 (gray levels), frechet and kernel (face-feature distances
    of the composites to the photos; two photos or more), photos, hole_ratio. Gains in dB: over_telea, over_none,
    over_predicted. Edge sources (predicted, telea, others): pooled precision, recall and f1, exact and within 1 px
    (precision_1px, ...), line_width in px, Canny's true_line_width, and their ratio. true and predicted: adherence (share
    above chance), its hit and chance; predicted: drawn_ and drawn_away_adherence too (function drawn_adherence). true:
    edge_effect, the mean absolute change of hole pixels between true edges and none, in gray levels.
    <metric>_interval: 95 %, [low, high].
    """
    table = {method: _method_figures(pictures, method) for method in pictures[0].scores}
    others = [method for method in table if method not in METHODS]
    for better, worse in (*GAINS, *((name, base) for name in others for base in ("telea", "predicted"))):
        table[better] |= gain_figures(pictures, better, worse)
    for source in pictures[0].exact:
        table[source] |= _edge_figures(pictures, source)
    table["true"] |= _adherence_figures(pictures, "true")
    table["predicted"] |= _adherence_figures(pictures, "predicted")
    for drawn in ("drawn", "drawn_away"):
        table["predicted"] |= _adherence_figures(pictures, drawn, f"{drawn}_")
    table["true"]["edge_effect"] = float(np.mean([p.edge_effect for p in pictures]))
    return table


def evaluate(
    inpainter: Inpainter, photos: Iterable[np.ndarray], masks: MaskSource, seed: int = 0, name: str = "",
    also: Mapping[str, Inpainter] | None = None,
) -> Figures:  # fmt: skip
    """Measure one set and sum it up: results[method][metric]. Arguments: measure. Metrics: summarize."""
    return summarize(measure(inpainter, photos, masks, seed, name, also))
