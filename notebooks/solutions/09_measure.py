"""Solutions to the exercises of lesson 09. Try them yourself first: the checkers tell you where you stand."""

import numpy as np

from edgeconnect_lite import metrics


def share_above_chance(stroke, near, mask, near_true):
    away = mask & ~near_true
    hit, chance = near[stroke & away].mean(), near[away].mean()
    return (hit - chance) / (1 - chance)


def pooled_f1(predicted, true, masks):
    hits = found = there = 0
    for p, t, mask in zip(predicted, true, masks):
        hits += (p & t & mask).sum()
        found += (p & mask).sum()
        there += (t & mask).sum()
    return 2 * hits / (found + there)


def paired_interval(ours, theirs, rng):
    drawn = rng.integers(len(ours), size=(2000, len(ours)))
    f1 = [metrics.precision_recall_f1(counts[drawn].sum(axis=1))[:, 2] for counts in (ours, theirs)]
    return tuple(np.percentile(f1[0] - f1[1], (2.5, 97.5)))
