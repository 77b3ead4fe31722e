"""Solutions to the exercises of lesson 06. Try them yourself first: the checkers tell you where you stand."""

import torch
import torch.nn.functional as F


def pooled_recall(predicted, true, mask):
    hits, wanted = (predicted & true & mask).sum(), (true & mask).sum()
    return hits / max(wanted, 1)


def best_weight(q):
    hits = q.sort(descending=True).values.cumsum(dim=0)
    drawn = torch.arange(1, len(q) + 1)
    best_f1 = (2 * hits / (drawn + q.sum())).max()
    return 2 / best_f1 - 1  # 1 / (1 + w) = F1 / 2


def thin_lines(p):
    padded = F.pad(p, (1, 1, 1, 1))
    left, right = padded[..., 1:-1, :-2], padded[..., 1:-1, 2:]
    above, below = padded[..., :-2, 1:-1], padded[..., 2:, 1:-1]
    horizontal = 2 * p - left - right >= 2 * p - above - below
    neighbour = torch.where(horizontal, torch.maximum(left, right), torch.maximum(above, below))
    return torch.where(p > neighbour, p, 0.8 * p)
