"""Solutions to the exercises of lesson 10. Try them yourself first: the checkers tell you where you stand."""

import numpy as np


def black_is_hole(pictures):
    return np.median([(picture < 128).mean() for picture in pictures]) < 0.5


def split_by_person(people, count, rng):
    kept_back = set(rng.choice(sorted(set(people)), count, replace=False))
    parts = [], []
    for i, name in enumerate(people):
        parts[name in kept_back].append(i)
    return parts


def whole_step(network, optimizer, parts):
    optimizer.zero_grad()
    total = sum(weight.sum() for _, _, weight in parts)  # the one number that the processes must share first
    loss = 0
    for given, wanted, weight in parts:
        own = (weight * (network(given) - wanted).abs()).sum() / total
        own.backward()  # adds to the gradients that are there
        loss = loss + own.detach()
    optimizer.step()
    return loss
