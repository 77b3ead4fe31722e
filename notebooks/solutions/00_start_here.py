"""Solutions to the exercises of lesson 00. Try them yourself first: the checkers tell you where you stand."""

import numpy as np


def mask_photo(photo, mask):
    return np.where(mask[..., None], np.uint8(0), photo)


def edge_effect(result, other, mask):
    return np.abs(result[mask].astype(float) - other[mask]).mean()


def redraw(edges, stroke, mask):
    return np.where(mask, stroke, edges)
