"""Checkers of lesson 09: a stroke's share above chance, an F1 of several pictures, the interval of a paired difference."""

from collections.abc import Callable, Mapping

import numpy as np

from edgeconnect_lite import metrics
from edgeconnect_lite.exercises.checking import WrongAnswer, require, say


def _number(answer: object) -> float:
    """One number that is not NaN, as a float."""
    one = isinstance(answer, int | float | np.number) or (isinstance(answer, np.ndarray) and answer.ndim == 0)
    require(one, f"came: {type(answer).__name__}; wanted: one number")
    value = float(answer)  # type: ignore[arg-type]
    require(not np.isnan(value), "came: NaN; a share of nothing is no number")
    return value


def _refuse(answer: float, wanted: float, usual: Mapping[str, float]) -> None:
    """Raise what is wrong: one of the usual mistakes, message -> its value, or something else."""
    came = f"came: {answer:.4f}; wanted {wanted:.4f}"
    for message, other in usual.items():
        if np.isclose(answer, other, atol=1e-6):
            raise WrongAnswer(f"{came}: {message}")
    require(bool(np.isclose(answer, wanted, atol=1e-6)), came)


def check_share_above_chance(share_above_chance: Callable) -> None:
    """Lesson 09, easy. share_above_chance(stroke, near, mask, near_true), bool (H, W) -> (hit - chance) / (1 - chance).

    stroke: what was drawn. near: within 1 px of an edge of the result; near_true: of the photo. Pixels outside the hole, and
    those of near_true, count neither for the hit, the share of the stroke that is near, nor for the chance.
    """
    rng = np.random.default_rng(0)
    near, mask = rng.random((24, 20)) < 0.4, np.zeros((24, 20), bool)
    mask[4:18, 3:15] = True
    near_true = rng.random(mask.shape) < np.where(near, 0.6, 0.2)  # the result's edges are often the photo's
    stroke = rng.random(mask.shape) < np.where(near == mask, 0.4, 0.15)  # follows in the hole, not around it
    answer = share_above_chance(stroke, near, mask, near_true)
    if answer is None:
        return say(False)

    def shares(counted: np.ndarray, area: np.ndarray) -> tuple[float, float]:
        return near[stroke & counted].mean(), near[area].mean()

    def above(counted: np.ndarray, area: np.ndarray) -> float:
        hit, chance = shares(counted, area)
        return (hit - chance) / (1 - chance)

    away, every = mask & ~near_true, np.ones_like(mask)
    hit, chance = shares(away, away)
    usual = {
        "that is the hit alone, which a blind stroke has too": hit,
        "divide by 1 - chance, so that a result that follows everything gets 1": hit - chance,
        "divide by 1 - chance, not by chance": (hit - chance) / chance,
        "leave out the pixels near true edges for the hit and for the chance": above(mask, mask),
        "the chance too leaves out the pixels near true edges": above(away, mask),
        "the hit too leaves out the pixels near true edges": above(mask, away),
        "chance is a share of the hole, not of the picture": above(away, ~near_true),
        "stroke pixels outside the hole do not count": above(~near_true, away),
        "only the hole counts": above(~near_true, ~near_true),
        "only the hole counts, and there what is not near a true edge": above(every, every),
    }
    _refuse(_number(answer), above(away, away), usual)
    avoided = stroke & ~near
    answer = _number(share_above_chance(avoided, near, mask, near_true))
    require(answer < 0, f"came: {answer:.4f} for a result that avoids the whole stroke; wanted a share below 0")
    _refuse(answer, chance / (chance - 1), {})
    say(True)


def check_pooled_f1(pooled_f1: Callable) -> None:
    """Lesson 09, medium. pooled_f1(predicted, true, masks), lists of bool (H, W) -> one exact F1 of all pictures' holes."""
    rng = np.random.default_rng(1)
    predicted, true, masks = [], [], []
    for share, rows, miss in ((0.3, 20, 0.3), (0.1, 12, 0.6), (0.2, 3, 0.02), (0.05, 6, 1.0)):
        edges, mask = rng.random((24, 20)) < share, np.zeros((24, 20), bool)
        mask[2 : 2 + rows, 3:18] = True
        true.append(edges)
        predicted.append((edges & (rng.random(edges.shape) >= miss)) | ((rng.random(edges.shape) < 0.05) & (miss < 1)))
        masks.append(mask)
    answer = pooled_f1(predicted, true, masks)
    if answer is None:
        return say(False)
    rows = np.array([metrics.edge_counts(*each) for each in zip(predicted, true, masks)])
    every = (
        2
        * sum((p & t).sum() for p, t in zip(predicted, true))
        / sum(p.sum() + t.sum() for p, t in zip(predicted, true))
    )
    each, (precision, recall, wanted) = metrics.precision_recall_f1(rows), metrics.precision_recall_f1(rows.sum(0))
    mean_precision, mean_recall, mean_f1 = each.mean(0)
    right = np.mean([(p == t)[m].mean() for p, t, m in zip(predicted, true, masks)])
    usual = {
        "the mean of each picture's F1: add up the counts of all pictures first": mean_f1,
        "the mean F1 of the pictures that have a prediction: add up the counts of all first": each[:3, 2].mean(),
        "formed of mean precision and mean recall: add up the counts of all pictures first": (
            2 * mean_precision * mean_recall / (mean_precision + mean_recall)
        ),
        "only pixels of the hole count": every,
        "F1 is the harmonic mean of precision and recall": (precision + recall) / 2,
        "that is the precision": precision,
        "that is the recall": recall,
        "the share of pixels that agree: most are no edge, and easy": right,
        "counted within 1 px; wanted the exact pixel": metrics.precision_recall_f1(
            np.sum([metrics.edge_counts(*each, 1) for each in zip(predicted, true, masks)], axis=0)
        )[2],
    }
    _refuse(_number(answer), float(wanted), usual)
    say(True)


def check_paired_interval(paired_interval: Callable) -> None:
    """Lesson 09, hard. paired_interval(ours, theirs, rng) -> (low, high), the 95 % interval of a difference in pooled F1.

    ours, theirs: metrics.edge_counts of the same N pictures, (N, 4). Bootstrap: pictures drawn again, at least 1,000 times.
    """
    ours, theirs = _two_stage_ones()
    answers = [
        paired_interval(ours.copy(), theirs.copy(), np.random.default_rng(seed)) for seed in (0, 0, *range(1, 8))
    ]
    if answers[0] is None:
        return say(False)
    require(
        all(np.shape(answer) == (2,) and np.isfinite(answer).all() for answer in answers),
        f"came: {answers[0]!r}; wanted two numbers, (low, high)",
    )
    first, again, other = np.array(answers[:3], float)
    require(first[0] <= first[1], f"came: ({first[0]:.3f}, {first[1]:.3f}); wanted the lower end first")
    require(np.array_equal(first, again), "the same rng gave another interval: take every draw from it")
    came = np.mean(answers[1:], axis=0)  # over eight draws: what chance adds is small
    wanted, of_means, unpaired = _intervals(ours, theirs)
    width, sure = np.ptp(came), np.ptp(wanted)
    text = f"came: ({came[0]:.3f}, {came[1]:.3f}); wanted about ({wanted[0]:.3f}, {wanted[1]:.3f})"
    require(width > 0, f"{text}: no width. Draw pictures with replacement: some twice, some not at all")
    require(abs(came.mean() + wanted.mean()) > sure / 4, f"{text}: that is theirs - ours")
    if np.abs(came - of_means).max() < 0.05 * np.ptp(of_means):
        raise WrongAnswer(f"{text}: add up the counts of the pictures drawn, then form one F1, not a mean of F1s")
    for message, size in {
        "as wide as if the pictures were not paired: draw the same pictures for both": np.ptp(unpaired),
        "that is a 90 % interval": 3.29 / 3.92 * sure,
        "that is a 99 % interval": 5.15 / 3.92 * sure,
    }.items():
        if abs(width / size - 1) < 0.06:
            raise WrongAnswer(f"{text}: {message}")
    require(width < np.ptp(unpaired), f"{text}: that is where single pictures lie; wanted where the pooled figure does")
    require(not np.array_equal(first, other), "two rngs gave one and the same interval: draw the pictures from rng")
    require(bool(np.abs(came - wanted).max() < 0.05 * sure), text)
    say(True)


def _two_stage_ones() -> np.ndarray:
    """Edge counts of one stage 1 and of another, int (2, 40, 4): the first leads clearly in small holes alone."""
    rng = np.random.default_rng(2)
    true = np.round(np.exp(rng.uniform(np.log(20), np.log(600), 40))).astype(int)
    ease, counts = rng.uniform(0.25, 0.75, 40), []
    for lead in (np.where(true < 120, 0.12, 0.02), 0.0):
        predicted = np.round(true * rng.uniform(0.8, 1.1, 40)).astype(int)
        hits = rng.binomial(np.minimum(true, predicted), np.clip(ease + lead, 0, 1))
        counts.append(np.stack([predicted, true, hits, hits], axis=1))
    return np.array(counts)


def _intervals(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """What the bootstrap tends to, (3, 2): of the difference of pooled F1s, of means of F1s, and of unpaired pooled F1s."""
    rng = np.random.default_rng(3)
    drawn, others = rng.integers(len(ours), size=(2, 20_000, len(ours)))

    def f1(counts: np.ndarray) -> np.ndarray:
        return metrics.precision_recall_f1(counts)[..., 2]

    pooled = f1(ours[drawn].sum(1))
    gaps = pooled - f1(theirs[drawn].sum(1)), (f1(ours) - f1(theirs))[drawn].mean(1), pooled - f1(theirs[others].sum(1))
    return np.percentile(gaps, (2.5, 97.5), axis=1).T
