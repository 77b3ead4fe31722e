"""Canny's own comparisons as differentiable channels: what stage 1 looks at before it decides.

Canny, "A Computational Approach to Edge Detection", PAMI 1986, with what OpenCV's version compares: the blur (sigma 1 at
128 px) in whole gray levels, 3 x 3 Sobel steps, |g_x| + |g_y|, and two neighbours along one of four directions. A pixel is
a ridge where its strength is above the one before it and not below the one after it (on a diagonal: above both). On a true
photo the linked ridges are the true edges but for about one in a thousand: the links reach 32 px.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeconnect_lite.edges import HIGH, LOW, blur_sigma

CANNY_VIEW_CHANNELS = 6
BESIDE = 0.75  # what a probability beside the crest of its line counts for


def bell_in_256ths(sigma: float) -> list[int]:
    """The blur's weights as whole numbers whose sum is 256. From the outside in, each hands its rounding to the next."""
    radius = (round(6 * sigma + 1) | 1) // 2
    bell = [math.exp(-((i / sigma) ** 2) / 2) for i in range(-radius, radius + 1)]
    outer, carried = [], 0.0
    for weight in bell[:radius]:
        wanted = 256 * weight / sum(bell) + carried
        outer.append(round(wanted))
        carried = wanted - outer[-1]
    return [*outer, 256 - 2 * sum(outer), *outer[::-1]]


def blurred_gradient(gray: Tensor) -> Tensor:
    """The gradient of the blurred photo, in gray levels of 255 per Sobel step. gray: (N, 1, H, W). Returns (N, 2, H, W).

    The blur is OpenCV's for 8-bit pictures: weights in 256ths, three sigma to either side, rounded to whole gray levels;
    gradients pass the rounding as if it were not there.
    """
    bell = gray.new_tensor(bell_in_256ths(blur_sigma(gray.shape[-2:]))) / 256
    radius = len(bell) // 2
    mode = "replicate" if min(gray.shape[-2:]) <= radius else "reflect"
    x = F.pad(255 * gray, (radius, radius, radius, radius), mode=mode)
    blurred = F.conv2d(F.conv2d(x, bell.view(1, 1, 1, -1)), bell.view(1, 1, -1, 1))
    blurred = blurred + ((blurred + 0.5).floor() - blurred).detach()
    smooth, slope = gray.new_tensor([1.0, 2.0, 1.0]), gray.new_tensor([-1.0, 0.0, 1.0])
    along_x = torch.outer(smooth, slope)
    return F.conv2d(F.pad(blurred, (1, 1, 1, 1), mode="replicate"), torch.stack([along_x, along_x.T])[:, None])


def is_along(this: Tensor, other: Tensor) -> Tensor:
    """Whether a gradient lies within 22.5 degrees of the axis of its component `this`. Two of (N, 1, H, W) -> bool."""
    return other.abs() < 0.41421356 * this.abs()  # tan(22.5 degrees)


def neighbours(strength: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The strengths before and after each pixel, along the one of four directions that its gradient lies next to.

    strength: (N, 1, H, W). gradient: (N, 2, H, W). Returns two of (N, 1, H, W); beyond the border lies 0.
    """
    x, y = gradient.split(1, dim=1)
    padded = F.pad(strength, (1, 1, 1, 1))
    height, width = strength.shape[-2:]
    at = lambda down, right: padded[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]  # noqa: E731
    horizontal, vertical = is_along(x, y), is_along(y, x)
    falling = x * y >= 0  # the gradient points down and right, or up and left
    pick = lambda h, v, f, r: torch.where(horizontal, h, torch.where(vertical, v, torch.where(falling, f, r)))  # noqa: E731
    return pick(at(0, -1), at(-1, 0), at(-1, -1), at(-1, 1)), pick(at(0, 1), at(1, 0), at(1, 1), at(1, -1))


def canny_view(gray: Tensor) -> Tensor:
    """gray: (N, 1, H, W) in [0, 1] -> (N, 6, H, W), each in about [-1, 1], in float32.

    g_x and g_y; the strength |g_x| + |g_y|; how far it stands above its two neighbours (soft); and two hard maps: ridges
    above Canny's lower threshold, and those of them that are linked to one above the higher. Gradients flow through the
    first four.
    """
    with torch.autocast(gray.device.type, enabled=False):
        gradient = blurred_gradient(gray.float())
        strength = gradient.abs().sum(1, keepdim=True)
        before, after = neighbours(strength, gradient)
        ridge = torch.minimum(strength - before, strength - after)
        x, y = gradient.split(1, dim=1)
        on_axis = is_along(x, y) | is_along(y, x)
        is_ridge = (strength > before) & ((strength > after) | (on_axis & (strength >= after)))
        soft = [torch.tanh(gradient / HIGH), torch.tanh(strength / HIGH), torch.tanh(ridge / 8)]
        weak, strong = ((is_ridge & (strength > threshold)).float() for threshold in (LOW, HIGH))
    return torch.cat([*soft, weak, link(weak, strong)], dim=1)


def link(weak: Tensor, strong: Tensor, reach: int = 32) -> Tensor:
    """Hysteresis: the weak ridges that hang together with a strong one over at most `reach` px. All (N, 1, H, W), 0 or 1."""
    linked = strong
    for _ in range(reach):
        linked = F.max_pool2d(linked, 3, stride=1, padding=1) * weak
    return linked


def crest(probability: Tensor) -> Tensor:
    """How far a map of edge probabilities stands above its two neighbours across the line; above 0 = on its crest.

    Across: the one of four directions in which the map, very slightly blurred, bends down most. (N, 1, H, W) -> the same.
    """
    bell = probability.new_tensor([1.0, 6.0, 1.0]) / 8
    soft = F.conv2d(F.pad(probability, (1, 1, 1, 1), mode="replicate"), torch.outer(bell, bell)[None, None])
    mirror = "reflect" if min(soft.shape[-2:]) > 1 else "replicate"  # zeros would bend every line that meets the border
    padded = F.pad(soft, (1, 1, 1, 1), mode=mirror)
    height, width = soft.shape[-2:]
    at = lambda down, right: padded[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]  # noqa: E731
    pairs = [(at(-r, -c), at(r, c)) for r, c in ((0, 1), (1, 0), (1, 1), (1, -1))]
    before, after = (torch.cat(side, dim=1) for side in zip(*pairs, strict=True))
    squared_distance = soft.new_tensor([1.0, 1.0, 2.0, 2.0]).view(1, 4, 1, 1)
    across = ((2 * soft - before - after) / squared_distance).argmax(dim=1, keepdim=True)
    return soft - torch.maximum(before, after).gather(1, across)


def thin(probability: Tensor, beside: float = BESIDE) -> Tensor:
    """Thin a map of edge probabilities to lines: beside a line's crest it counts for three quarters. (N, 1, H, W), in [0, 1].

    So at a threshold of 0.5 a pixel beside the crest has to be surer, above 2/3, than one on it. beside: that share.
    """
    return probability * torch.where(crest(probability) > 0, 1.0, beside)
