"""The report of an evaluation: all sets, splits by what the faces are, proposals, tables, and cases picked by rank.

It takes what evaluation.py measures: the pictures of a set, and results[mask_set][bin][method][metric].
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from edgeconnect_lite.edges import true_edges
from edgeconnect_lite.evaluation import METHODS, Figures, Picture, f1_figures, gain_figures, hole, measure, summarize
from edgeconnect_lite.figures import Panel, plot_results, sheet, steps_of
from edgeconnect_lite.inpainting import THRESHOLD, Inpainter
from edgeconnect_lite.metrics import edge_counts, precision_recall_f1
from edgeconnect_lite.photos import write_bytes
from edgeconnect_lite.samples import MaskSource

Results = Mapping[str, Mapping[str, Figures]]  # [mask_set][bin][method][metric]
SPLITS: dict[str, tuple[tuple[str, float], ...]] = {  # column of the faces' table -> (group, its upper end, exclusive)
    "yaw": (("<8", 8), ("8-16", 16), ("16+", np.inf)),  # degrees, to either side
    "glasses": (("no", 0.5), ("yes", np.inf)),
    "skin_luminance": (("<.09", 0.09), (".09-.18", 0.18), (".18-.30", 0.3), (".30-.42", 0.42), (".42+", np.inf)),
}
STEPS = {
    "masked photo": "masked photo", "predicted edges": "predicted edges", "true edges": "true edges", "Telea": "Telea",
    "composite, predicted edges": "predicted", "composite, true edges": "true", "photo": "photo",
}  # fmt: skip

SCORES = (
    ("psnr", 2, "PSNR (dB), everything on the hole"), ("ssim", 3, "SSIM"), ("l1", 2, "L1 (gray levels)"),
    ("frechet", 3, "Frechet distance of the face features, to the photos"),
    ("kernel", 4, "kernel distance of the face features, to the photos"),
)  # fmt: skip
STAGE_1 = {
    "P": "precision", "R": "recall", "F1 [95 %]": "f1", "F1 1 px": "f1_1px", "line width, px": "line_width",
    "Canny's": "true_line_width", "ratio": "line_width_ratio",
}  # fmt: skip
FOLLOWING = {
    "edge effect (gray levels)": ("true", "edge_effect"), "true edges": ("true", "adherence"),
    "predicted": ("predicted", "adherence"), "drawn": ("predicted", "drawn_adherence"),
    "drawn, chance off true edges": ("predicted", "drawn_away_adherence"),
}  # fmt: skip


def run_evaluation(
    inpainter: Inpainter, photos: Iterable[np.ndarray], sets: Mapping[str, Mapping[str, MaskSource]], seed: int = 0,
    also: Mapping[str, Inpainter] | None = None, records: Sequence[Mapping[str, str]] | None = None,
) -> tuple[dict[str, Any], dict[str, Callable[[], Panel]]]:  # fmt: skip
    """Measure every set. Returns the report, {"results", "splits", "proposals"}, and what draws a panel for each set.

    photos: iterated over again for each bin. sets: [mask_set][bin] -> masks, as evaluation.mask_sets gives them. records:
    FacePhotos.records, for the splits, taken in the first bin of each set. Panels: 20-30 % where there is such a bin, else
    the first. Proposals: the brush where it is among the sets, else the first set; left out where there are none.
    """
    report: dict[str, Any] = {"results": {}, **({"splits": {}} if records else {})}
    panels: dict[str, Callable[[], Panel]] = {}
    for name, bins in sets.items():
        report["results"][name] = {}
        for bin_name, masks in bins.items():
            label = f"{name} {bin_name}"
            pictures = measure(inpainter, photos, masks, seed, label, also)
            report["results"][name][bin_name] = summarize(pictures)
            if records and bin_name == next(iter(bins)):
                report["splits"][label] = split(pictures, records)
            if bin_name == ("20-30%" if "20-30%" in bins else next(iter(bins))):
                panels[label] = partial(rank_panel, inpainter, photos, masks, pictures, seed=seed)
    name = "brush" if "brush" in sets else next(iter(sets))
    bin_name, masks = next(iter(sets[name].items()))
    proposals = measure_proposals(inpainter, photos, masks, seed)
    return _rounded(report | ({"proposals": {f"{name} {bin_name}": proposals}} if proposals else {})), panels


def _rounded(value: Any) -> Any:
    """Six digits of every figure are enough, and keep the file small."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def split(pictures: Sequence[Picture], records: Sequence[Mapping[str, str]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Does it work for everybody alike? [column][group] -> photos, over_telea (dB), f1, the last two with intervals.

    records: FacePhotos.records; row i describes the picture of index i. Groups that hold no picture are left out.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for column, groups in SPLITS.items():
        values = [abs(float(records[picture.index][column])) for picture in pictures]
        places = np.searchsorted([end for _, end in groups], values, side="right")
        found[column] = {
            name: {"photos": len(some), **gain_figures(some, "predicted", "telea"), **f1_figures(some, "predicted")}
            for place, (name, _) in enumerate(groups)
            if (some := [picture for picture, at in zip(pictures, places) if at == place])
        }
    return found


def measure_proposals(
    inpainter: Inpainter, photos: Iterable[np.ndarray], masks: MaskSource, seed: int = 0, n: int = 4, limit: int = 100
) -> dict[str, float] | None:
    """How good and how different are several completions of one hole? None where the inpainter cannot propose any.

    On the first `limit` photos; edge counts are pooled. f1: all proposals; best_f1: each photo's best one of n, as a
    person would pick it; predicted_f1: the single prediction, same photos; diversity: 1 - F1 between proposals of a photo.
    """
    propose = getattr(inpainter, "propose_edges", None)
    if propose is None:
        return None
    if n < 2 or limit < 1:
        raise ValueError(f"n is {n} and limit {limit}; wanted at least two proposals, which can differ, and one photo")
    counts: dict[str, list[np.ndarray]] = {"f1": [], "best_f1": [], "predicted_f1": [], "diversity": []}
    for index, photo in enumerate(islice(photos, limit)):
        mask, true = hole(masks, seed, index), true_edges(photo)
        proposals = np.asarray(propose(photo, mask, n=n, seed=seed + index)) > THRESHOLD
        if proposals.shape != (n, *mask.shape):
            raise ValueError(f"propose_edges gave {proposals.shape}; wanted {(n, *mask.shape)}")
        rows = np.array([edge_counts(edges, true, mask) for edges in proposals])
        counts["f1"].append(rows.sum(0))
        counts["best_f1"].append(rows[precision_recall_f1(rows)[:, 2].argmax()])
        counts["predicted_f1"].append(edge_counts(inpainter.predict_edges(photo, mask) > THRESHOLD, true, mask))
        counts["diversity"] += [edge_counts(a, b, mask) for a, b in combinations(proposals, 2)]
    f1 = {name: float(precision_recall_f1(np.sum(rows, axis=0))[2]) for name, rows in counts.items()}
    return {"photos": len(counts["f1"]), "n": n, **f1, "diversity": 1 - f1["diversity"]}


# tables


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(width=128).print(table)


def _cell(figures: Mapping[str, Any], metric: str, digits: int = 2) -> str:
    """A figure and, where it has one, its interval; "-" where it was not measured."""
    if figures.get(metric) is None:
        return "-"
    low_high = figures.get(f"{metric}_interval")
    ends = f" [{low_high[0]:.{digits}f}, {low_high[1]:.{digits}f}]".replace("[", r"\[") if low_high else ""
    return f"{figures[metric]:.{digits}f}{ends}"


def _flat(results: Results) -> list[tuple[str, Figures]]:
    return [(f"{name} {bin_name}", methods) for name, bins in results.items() for bin_name, methods in bins.items()]


def _print_scores(sets: Sequence[tuple[str, Figures]], methods: Sequence[str]) -> None:
    for metric, digits, title in SCORES:
        shown = [
            (name, [_cell({metric: figures[x].get(metric)}, metric, digits) for x in methods]) for name, figures in sets
        ]
        _table(title, ["hole", *methods], ([name, *cells] for name, cells in shown))


def _print_gains(sets: Sequence[tuple[str, Figures]], ours: bool) -> None:
    gains = [(method, metric) for method, figures in sets[0][1].items() if (method in METHODS) == ours
             for metric in figures if metric.startswith("over_") and not metric.endswith("_interval")]  # fmt: skip
    if gains:
        columns = [f"{method} - {metric.removeprefix('over_')}" for method, metric in gains]
        rows = ([name, *(_cell(figures[x], metric) for x, metric in gains)] for name, figures in sets)
        _table("PSNR gained (dB) [95 %]", ["hole", *columns], rows)


def _print_results(results: Results) -> None:
    sets = _flat(results)
    methods = list(sets[0][1])
    _print_scores(sets, methods)
    for ours in (True, False):
        _print_gains(sets, ours)
    for source in [method for method in methods if "f1" in sets[0][1][method]]:
        rows = ([name, *(_cell(figures[source], metric) for metric in STAGE_1.values())] for name, figures in sets)
        title = "edges of Telea's fill" if source == "telea" else f"edges, {source}"
        _table(f"{title}, in the hole", ["hole", *STAGE_1], rows)
    rows = ([name, *(_cell(figures[x], metric) for x, metric in FOLLOWING.values())] for name, figures in sets)
    _table("does the picture follow its edges? adherence, share above chance [95 %]", ["hole", *FOLLOWING], rows)


def print_report(report: Mapping[str, Any]) -> None:
    """Print what `edgeconnect-lite evaluate` found. report: results, and where there are any splits and proposals."""
    _print_results(report["results"])
    for name, columns in report.get("splits", {}).items():
        rows = ([f"{column} {group}", str(figures["photos"]), _cell(figures, "over_telea"), _cell(figures, "f1")]
                for column, groups in columns.items() for group, figures in groups.items())  # fmt: skip
        _table(f"{name}, by what the face is", ["group", "photos", "predicted - telea (dB)", "F1"], rows)
    for name, found in report.get("proposals", {}).items():
        keys = ("f1", "best_f1", "predicted_f1", "diversity")
        title = f"{name}: {found['n']} proposals for each of {found['photos']} photos"
        _table(title, ["F1 of all", "best of each photo", "the one prediction", "diversity (1 - F1 between them)"],
               [[_cell(found, key) for key in keys]])  # fmt: skip


# cases picked by rank, not by hand


def by_rank(pictures: Sequence[Picture], k: int = 3) -> dict[str, list[Picture]]:
    """The k best, the k of median rank and the k worst pictures by PSNR with predicted edges over Telea's, best first.

    Of fewer than 3 k pictures some are named twice; never more than there are.
    """
    if k < 1:
        raise ValueError(f"k is {k}; wanted at least 1")
    ranked = sorted(pictures, key=lambda picture: -picture.gain)
    middle = max(0, (len(ranked) - k) // 2)
    return {"best": ranked[:k], "median": ranked[middle : middle + k], "worst": ranked[-k:]}


def cases(
    inpainter: Inpainter, photos: Iterable[np.ndarray], masks: MaskSource, wanted: Sequence[Picture], seed: int = 0
) -> list[dict[str, np.ndarray]]:
    """Every step of the wanted pictures, in their order: title -> picture, as figures.steps_of gives them.

    The k median results, for example: cases(inpainter, photos, masks, by_rank(pictures, k)["median"], seed).
    """
    indices = {picture.index for picture in wanted}
    steps = {
        index: steps_of(inpainter, photo, hole(masks, seed, index))
        for index, photo in enumerate(photos)
        if index in indices
    }
    return [steps[picture.index] for picture in wanted]


def median_results(
    inpainter: Inpainter, photos: Iterable[np.ndarray], masks: MaskSource, pictures: Sequence[Picture], k: int = 10,
    seed: int = 0,
) -> list[np.ndarray]:  # fmt: skip
    """The results with predicted edges of the k pictures of median rank, uint8 (H, W, 3) each: what one may expect."""
    steps = cases(inpainter, photos, masks, by_rank(pictures, k)["median"], seed)
    return [step["composite, predicted edges"] for step in steps]


def rank_panel(
    inpainter: Inpainter, photos: Iterable[np.ndarray], masks: MaskSource, pictures: Sequence[Picture], k: int = 3,
    seed: int = 0,
) -> Panel:  # fmt: skip
    """The k best, median and worst cases of a set, one a row, from masked photo to result and photo."""
    ranks = by_rank(pictures, k)
    chosen = [(f"{rank}, photo {p.index}\n{p.gain:+.1f} dB", p) for rank, some in ranks.items() for p in some]
    steps = cases(inpainter, photos, masks, [picture for _, picture in chosen], seed)
    rows = [(label, [step[title] for title in STEPS]) for (label, _), step in zip(chosen, steps)]
    return sheet(rows, list(STEPS.values()))


def write_figures(folder: Path, results: Results, panels: Mapping[str, Callable[[], Panel]]) -> list[Path]:
    """Write plot.png and one panel-<name>.jpg for each of the panels into a folder, made if need be. Returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    plot = folder / "plot.png"
    write_bytes(plot, plot_results(dict(_flat(results))).to_bytes("png", dpi=110, metadata={"Software": None}))
    written = [plot]
    for name, draw in panels.items():
        written.append(folder / f"panel-{name.replace('%', '').replace(' ', '-')}.jpg")
        write_bytes(written[-1], draw().to_bytes("jpg", dpi=110, pil_kwargs={"quality": 88}))
    return written
