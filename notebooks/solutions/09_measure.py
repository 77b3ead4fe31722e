"""Solutions to the exercises of lesson 09. Try them yourself first: the checkers tell you where you stand."""

import numpy as np


def share_above_chance(given, near, mask):
    hit, chance = near[given & mask].mean(), near[mask].mean()
    return (hit - chance) / (1 - chance)


def pooled_f1(predicted, true, masks):
    hits = found = there = 0
    for p, t, mask in zip(predicted, true, masks):
        hits += (p & t & mask).sum()
        found += (p & mask).sum()
        there += (t & mask).sum()
    return 2 * hits / (found + there)


def paired_interval(ours, theirs, rng):
    gap = ours - theirs
    drawn = rng.integers(len(gap), size=(2000, len(gap)))
    return tuple(np.percentile(gap[drawn].mean(axis=1), (2.5, 97.5)))
