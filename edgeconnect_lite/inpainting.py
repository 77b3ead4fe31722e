"""Inpainting: the whole line for one photo. Known edges, predicted edges, a person's edits, the painted hole, the composite.

The networks see pictures of the size that they were trained at. A larger photo is painted from coarse to fine, around its
hole (large.py). Known pixels of the result are the photo's own, bit for bit.
"""

from collections.abc import Callable
from functools import partial
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgeconnect_lite.canny import thin
from edgeconnect_lite.edges import known_edges, merge_edges, to_gray
from edgeconnect_lite.generators import EdgeGenerator, ImageGenerator
from edgeconnect_lite.large import Level, blend, enlarge_edges, pyramid, shrink_edges
from edgeconnect_lite.masks import as_mask
from edgeconnect_lite.photos import as_photo
from edgeconnect_lite.samples import Sample, edge_stage_input, image_stage_input, make_sample
from edgeconnect_lite.weights import STAGE_NAMES, load_network, trained_size, weights_folder

THRESHOLD = 0.5  # a probability above it is an edge
DOUBT, DOUBT_SCALE = 1.0, 4.0  # of proposals: deviation of the noise on stage 1's logits, and its scale in px
BESIDE_IN_PROPOSALS = 0.6  # what a probability beside the crest counts for there (canny.BESIDE elsewhere)


def composite(photo: np.ndarray, painted: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Keep the known pixels bit for bit, fill the hole: photo * (1 - mask) + painted * mask.

    photo, painted: (H, W, 3) of one dtype. mask: bool (H, W), True = hole.
    """
    return np.where(mask[..., None], painted, photo)


def as_edges(edges: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Check a given edge map and make it binary. edges: (H, W), bool or probability in [0, 1]. Returns bool (H, W)."""
    edges = np.asarray(edges)
    if edges.shape != tuple(shape):
        raise ValueError(f"edges have shape {edges.shape}; wanted {tuple(shape)}, the photo's height and width")
    if edges.dtype == np.bool_:
        return edges
    if not np.issubdtype(edges.dtype, np.floating):
        raise ValueError(f"edges have dtype {edges.dtype}; wanted bool, or floating point probabilities in [0, 1]")
    if np.isnan(edges).any() or edges.min() < 0 or edges.max() > 1:
        raise ValueError(f"edges hold values from {edges.min():g} to {edges.max():g}; wanted probabilities in [0, 1]")
    return edges > THRESHOLD


@torch.no_grad()
def predict_probability(generator: EdgeGenerator, sample: Sample, doubt: Tensor | None = None) -> Tensor:
    """Stage 1 on a batch of N samples: the probability of an edge, thinned to lines. (N, 1, H, W) in [0, 1].

    doubt: (M, 1, H, W), added to the logits of one sample for M completions of it. They are thinned harder: where noise
    raises a whole region, it would be drawn as a blot.
    """
    logits = generator(edge_stage_input(sample)).logits.float()
    return (
        thin(torch.sigmoid(logits))
        if doubt is None
        else thin(torch.sigmoid(logits + doubt), beside=BESIDE_IN_PROPOSALS)
    )


def smooth_noise(count: int, shape: tuple[int, ...], generator: torch.Generator, scale: float) -> Tensor:
    """Normal noise of deviation 1 that changes over about `scale` px. Returns (count, 1, *shape)."""
    radius = round(2 * scale)
    bell = torch.exp(-torch.arange(-radius, radius + 1).square() / (2 * scale**2))
    bell = bell / bell.square().sum().sqrt()
    noise = torch.randn(count, 1, *(side + 2 * radius for side in shape), generator=generator)
    return F.conv2d(F.conv2d(noise, bell.view(1, 1, 1, -1)), bell.view(1, 1, -1, 1))


class Inpainter:
    """Both stages and everything around them: `inpainter(photo, mask)` gives the inpainted photo.

    size: px of the photos that the networks were trained on. device: None = CUDA if there is one, else the CPU.
    """

    def __init__(
        self, edge_generator: EdgeGenerator, image_generator: ImageGenerator,
        device: str | torch.device | None = None, size: int = 128,
    ):  # fmt: skip
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        fast = {"device": self.device, "memory_format": torch.channels_last}  # nearly twice as fast on a CPU
        self.edge_generator: EdgeGenerator = edge_generator.to(**fast).eval()
        self.image_generator: ImageGenerator = image_generator.to(**fast).eval()
        self.size = size

    @classmethod
    def from_pretrained(
        cls, path_or_hub_id: str | Path | None = None, device: str | torch.device | None = None, size: int | None = None
    ) -> "Inpainter":
        """Load both stages. An existing folder wins; else a name like "owner/name" is looked up on the Hugging Face Hub.

        path_or_hub_id: a folder that holds edge_generator/ and image_generator/, each with config.json and
        model.safetensors; None = the weights that come with the package. size: None = as they were trained (weights.py).
        Raises BadWeights, naming the file.
        """
        folder = weights_folder(path_or_hub_id)
        edge, image = (
            load_network(folder / name, kind) for name, kind in zip(STAGE_NAMES, (EdgeGenerator, ImageGenerator))
        )
        return cls(edge, image, device, trained_size(folder) if size is None else size)

    def predict_edges(self, photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Stage 1. The known edges, and in and within 2 px of the hole the predicted ones.

        photo: as for photos.as_photo. mask: as for masks.as_mask, of the same size. Returns float32 (H, W) in [0, 1].
        """
        return self._predict(*self._check(photo, mask))[0]

    def propose_edges(self, photo: np.ndarray, mask: np.ndarray, n: int = 4, seed: int = 0) -> np.ndarray:
        """Stage 1, n different completions of one hole: smooth seeded noise raises and lowers what it holds possible.

        Arguments as for predict_edges, the same seed gives the same proposals. Returns float32 (n, H, W) in [0, 1].
        """
        if n < 1:
            raise ValueError(f"n is {n}; wanted at least 1 proposal")
        random = torch.Generator().manual_seed(seed)
        return self._predict(
            *self._check(photo, mask), lambda shape: DOUBT * smooth_noise(n, shape, random, DOUBT_SCALE)
        )

    def __call__(self, photo: np.ndarray, mask: np.ndarray, edges: np.ndarray | None = None) -> np.ndarray:
        """Both stages, or with edges given only the second. Returns uint8 (H, W, 3); a photo without a hole comes back as is.

        edges: the whole edge map (H, W), bool or probability; nothing drawn is removed. None = predict. In a photo that is
        painted in windows, those in and beside the hole count.
        """
        photo, mask = self._check(photo, mask)
        lines = None if edges is None else as_edges(edges, mask.shape)
        if not mask.any():
            return photo.copy()
        lines = self._predict(photo, mask)[0] > THRESHOLD if lines is None else lines
        return composite(photo, self._paint(photo, mask, lines), mask)

    def paint(self, photo: np.ndarray, mask: np.ndarray, edges: np.ndarray) -> np.ndarray:
        """Stage 2's picture before the composite, known pixels painted too, where the photo is not painted in windows.

        Arguments and result as for a call.
        """
        photo, mask = self._check(photo, mask)
        return self._paint(photo, mask, as_edges(edges, mask.shape))

    def _check(self, photo: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        photo = as_photo(photo)
        return photo, as_mask(mask, photo.shape[:2])

    def _predict(
        self, photo: np.ndarray, mask: np.ndarray, doubt: Callable[[tuple[int, ...]], Tensor] | None = None
    ) -> np.ndarray:
        """One whole map, or one for each that doubt(shape) gives. float32 (1 or M, H, W)."""
        maps: list[np.ndarray] = []
        for level in pyramid(photo, mask, self.size):
            if maps:
                outside = [enlarge_edges(each, level.mask.shape, THRESHOLD) for each in maps]
            else:
                outside = repeat(known_edges(level.photo, level.mask, sigma=level.sigma).astype(np.float32))
            inside = blend(level, partial(self._edges_at, level, doubt))
            maps = [merge_edges(old, new, level.wanted) for old, new in zip(outside, inside)]
        return np.stack([enlarge_edges(each, mask.shape, THRESHOLD) for each in maps])

    def _paint(self, photo: np.ndarray, mask: np.ndarray, edges: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) from binary edges: the whole picture where the photo is one window, else the hole in the photo."""
        picture = None
        for level in pyramid(photo, mask, self.size):
            given, lines = level.photo, shrink_edges(edges, level.mask.shape)
            if picture is not None:  # what lies deeper than the rim is known by now
                coarser = cv2.resize(picture, given.shape[1::-1], interpolation=cv2.INTER_LINEAR)
                given = composite(given, coarser, level.mask & ~level.wanted)
            if not level.is_whole:
                lines = merge_edges(known_edges(given, level.wanted, sigma=level.sigma), lines, level.mask)
            painted = blend(level, partial(self._painted_at, given, level.wanted, lines)).transpose(1, 2, 0)
            picture = painted if level.is_whole else composite(given, np.round(painted).astype(np.uint8), level.wanted)
        return cv2.resize(picture, photo.shape[1::-1], interpolation=cv2.INTER_LINEAR)  # type: ignore[arg-type]

    @torch.inference_mode()
    def _edges_at(
        self, level: Level, doubt: Callable[[tuple[int, ...]], Tensor] | None, window: tuple[slice, slice]
    ) -> np.ndarray:
        """Stage 1 in one window, on the level's photo: float32 (1 or M, h, w)."""
        sample = make_sample(level.photo[window], level.mask[window])
        batch = Sample(*(part[None].to(self.device) for part in sample))
        noise = None if doubt is None else doubt(sample.mask.shape[-2:]).to(self.device)
        return predict_probability(self.edge_generator, batch, noise)[:, 0].cpu().numpy()

    @torch.inference_mode()
    def _painted_at(
        self, photo: np.ndarray, mask: np.ndarray, edges: np.ndarray, window: tuple[slice, slice]
    ) -> np.ndarray:
        """Stage 2 in one window of a picture, its hole and its edges: uint8 (3, h, w)."""
        sample, lines = make_sample(photo[window], mask[window]), torch.from_numpy(edges[window])[None].float()
        painted = self.image_generator(image_stage_input(sample, lines)[None].to(self.device))[0].cpu()
        return to_rgb(painted).transpose(2, 0, 1)


def like_known(result: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Without colour in the hole where no known pixel has one: a gray photo stays gray. uint8 (H, W, 3), bool (H, W)."""
    red, green, blue = np.moveaxis(result, -1, 0)
    is_gray = (((red == green) & (green == blue)) | mask).all()
    return composite(result, np.repeat(to_gray(result)[..., None], 3, axis=2), mask) if is_gray else result


def to_rgb(photo: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] -> uint8 (H, W, 3)."""
    return (photo.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
