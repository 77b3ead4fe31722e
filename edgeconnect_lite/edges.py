"""Edges: Canny on a photo (true edges), and on what is left of it around a hole (known edges).

Canny, "A Computational Approach to Edge Detection", PAMI 1986; the two-stage use of its map: Nazeri et al.,
"EdgeConnect", ICCV Workshops 2019, section 3.1. All functions here work on one picture, on the CPU, with OpenCV.
"""

import cv2
import numpy as np

LOW, HIGH = 25, 60  # Canny's two thresholds on a blurred gray photo
MARGIN = 2  # px around the hole in which a known edge could only be guessed


def to_gray(photo: np.ndarray) -> np.ndarray:
    """OpenCV's RGB to gray. photo: uint8 (H, W, 3). Returns uint8 (H, W)."""
    return cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)


def blur_sigma(shape: tuple[int, ...]) -> float:
    """The blur before Canny: 1.0 px where the shorter side of (H, W) is 128 px, and in proportion (at least 0.3)."""
    return max(min(shape[:2]) / 128, 0.3)


def _canny(gray: np.ndarray, low: float, high: float, sigma: float | None) -> np.ndarray:
    blurred = cv2.GaussianBlur(gray, (0, 0), blur_sigma(gray.shape) if sigma is None else sigma)
    return cv2.Canny(blurred, low, high) > 0


def true_edges(photo: np.ndarray, low: float = LOW, high: float = HIGH, sigma: float | None = None) -> np.ndarray:
    """Canny edges of the whole photo, the ground truth of stage 1.

    photo: uint8 (H, W, 3) or gray (H, W). low, high: hysteresis thresholds in gray levels per pixel x 4 (Sobel).
    sigma: blur in px, None = 1.0 at 128 px. Returns bool (H, W), True = edge.
    """
    return _canny(photo if photo.ndim == 2 else to_gray(photo), low, high, sigma)


def near_hole(mask: np.ndarray, margin: int = MARGIN) -> np.ndarray:
    """The hole and all pixels within `margin` px of it (in either axis). bool (H, W) -> bool (H, W)."""
    side = 2 * margin + 1
    return cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)) > 0


def fill_from_known(gray: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fill the hole smoothly from known pixels only: a normalised box blur, sum(gray * known) / sum(known).

    gray: uint8 (H, W). mask: bool (H, W). Known pixels stay as they are. Returns uint8 (H, W).
    """
    known = (~mask).view(np.uint8)
    level = float(gray[~mask].mean()) if known.any() else 0.0
    side = 2 * round(5 * blur_sigma(gray.shape)) + 1
    count, total = (cv2.boxFilter(x, cv2.CV_32F, (side, side), normalize=False) for x in (known, gray * known))
    fill = (total + 0.1 * level) / (count + 0.1)  # deep in the hole: the mean of the known part
    return np.where(mask, np.round(fill), gray).astype(np.uint8)


def known_edges(
    photo: np.ndarray, mask: np.ndarray, low: float = LOW, high: float = HIGH, sigma: float | None = None
) -> np.ndarray:
    """Canny edges of the known part alone, the same in training and in use: never a look into the hole.

    The hole is filled from known pixels, Canny runs, and every edge in the hole or within 2 px of it is erased.
    photo: uint8 (H, W, 3) or gray (H, W). mask: bool (H, W), True = hole. Returns bool (H, W).
    """
    gray = photo if photo.ndim == 2 else to_gray(photo)
    return _canny(fill_from_known(gray, mask), low, high, sigma) & ~near_hole(mask)


def merge_edges(known: np.ndarray, inside: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """One whole map: `inside` in and within 2 px of the hole, the known edges everywhere else. All (H, W)."""
    return np.where(near_hole(mask), inside, known)
