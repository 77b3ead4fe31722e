"""Inpainting: the whole line for one photo. Known edges, predicted edges, a person's edits, the painted hole, the composite.

The networks see a photo at the scale that they were trained at: one whose shorter side is longer than `size` is shrunk
for them, and what they paint is enlarged into the hole. Known pixels of the result are the photo's own, bit for bit.
"""

import itertools
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgeconnect_lite.canny import thin
from edgeconnect_lite.edges import blur_sigma, known_edges, near_hole
from edgeconnect_lite.generators import EdgeGenerator, ImageGenerator
from edgeconnect_lite.large import Level, blend, enlarge_edges, octaves, pyramid, shrink_edges, cells
from edgeconnect_lite.masks import as_mask
from edgeconnect_lite.photos import as_photo
from edgeconnect_lite.samples import Sample, edge_stage_input, image_stage_input, make_sample
from edgeconnect_lite.weights import STAGE_NAMES, load_network, weights_folder

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

    size: the scale that the networks were trained at, in px of the photo's shorter side. device: None = CUDA if there
    is one, else the CPU.
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
        cls, path_or_hub_id: str | Path | None = None, device: str | torch.device | None = None, size: int = 128
    ) -> "Inpainter":
        """Load both stages. An existing folder wins; else a name like "owner/name" is looked up on the Hugging Face Hub.

        path_or_hub_id: a folder that holds edge_generator/ and image_generator/, each with config.json and
        model.safetensors; None = the weights that come with the package. Raises BadWeights, naming the file.
        """
        folder = weights_folder(path_or_hub_id)
        edge, image = (
            load_network(folder / name, kind) for name, kind in zip(STAGE_NAMES, (EdgeGenerator, ImageGenerator))
        )
        return cls(edge, image, device, size)

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
        generator = torch.Generator().manual_seed(seed)
        return self._predict(
            *self._check(photo, mask), lambda shape: DOUBT * smooth_noise(n, shape, generator, DOUBT_SCALE)
        )

    def __call__(self, photo: np.ndarray, mask: np.ndarray, edges: np.ndarray | None = None) -> np.ndarray:
        """Both stages, or with edges given only the second. Returns uint8 (H, W, 3); a photo without a hole comes back as is.

        edges: the whole edge map (H, W), bool or probability; taken as it is, nothing drawn is removed. None = predict.
        """
        photo, mask = self._check(photo, mask)
        if not mask.any():
            return photo.copy() if edges is None or as_edges(edges, mask.shape) is not None else photo
        edges = self._predict(photo, mask)[0] > THRESHOLD if edges is None else as_edges(edges, mask.shape)
        return composite(photo, self._paint(photo, mask, edges), mask)

    def paint(self, photo: np.ndarray, mask: np.ndarray, edges: np.ndarray) -> np.ndarray:
        """Stage 2's whole picture before the composite, known pixels painted too. Arguments and result as for a call."""
        photo, mask = self._check(photo, mask)
        return self._paint(photo, mask, as_edges(edges, mask.shape))

    def _check(self, photo: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        photo = as_photo(photo)
        return photo, as_mask(mask, photo.shape[:2])

    @torch.inference_mode()
    def _predict(
        self, photo: np.ndarray, mask: np.ndarray, doubt: Callable[[tuple[int, ...]], Tensor] | None = None
    ) -> np.ndarray:
        """One whole map, or one for each of doubt's. float32 (1 or M, H, W)."""
        found = None
        for level in pyramid(photo, mask, self.size):

            def run(window: tuple[slice, slice], level: Level = level) -> np.ndarray:
                sample = make_sample(level.photo[window], level.mask[window])
                batch = Sample(*(part[None].to(self.device) for part in sample))
                noise = None if doubt is None else doubt(sample.mask.shape[-2:]).to(self.device)
                return predict_probability(self.edge_generator, batch, noise)[:, 0].cpu().numpy()

            inside = blend(level.mask.shape, level.windows, run)
            if found is None:
                sigma = blur_sigma((min(self.size, *level.mask.shape),))
                outside = known_edges(level.photo, level.mask, sigma=sigma).astype(np.float32)[None]
            else:
                outside = [enlarge_edges(each, level.mask.shape, THRESHOLD) for each in found]
            here = near_hole(level.wanted)
            found = np.stack([np.where(here, new, old) for new, old in itertools.zip_longest(inside, outside, fillvalue=outside[0])])
        return np.stack([self._to_full(each, mask.shape) for each in found])

    def _to_full(self, edges, shape):
        for octave in octaves(shape, self.size):
            if octave[0] > edges.shape[0]:
                edges = enlarge_edges(edges, octave, THRESHOLD)
        return edges

    @torch.inference_mode()
    def _paint(self, photo: np.ndarray, mask: np.ndarray, edges: np.ndarray) -> np.ndarray:
        picture = None
        for level in pyramid(photo, mask, self.size):
            given, source = shrink_edges(edges, level.mask.shape), level.photo
            if picture is not None:
                coarse = cv2.resize(picture, source.shape[1::-1], interpolation=cv2.INTER_LINEAR)
                source = composite(source, coarse, level.mask & ~level.wanted)
            is_whole = level.wanted.shape == mask.shape  # placeholder

            def run(window: tuple[slice, slice], level: Level = level, source: np.ndarray = source) -> np.ndarray:
                sample = make_sample(source[window], level.wanted[window])
                lines = given[window]
                if lines.shape != given.shape:
                    lines = np.where(near_hole(level.mask)[window], lines, sample.known_edges[0].numpy() > 0)
                stage_input = image_stage_input(sample, torch.from_numpy(lines)[None].float())
                return to_rgb(self.image_generator(stage_input[None].to(self.device))[0].cpu()).transpose(2, 0, 1)

            painted = blend(level.mask.shape, level.windows, run).transpose(1, 2, 0)
            if painted.dtype != np.uint8:
                painted = np.round(np.nan_to_num(painted)).astype(np.uint8)
            whole = len(level.windows) == 1 and level.windows[0][0].stop - level.windows[0][0].start == len(level.mask) and level.windows[0][1].stop - level.windows[0][1].start == level.mask.shape[1]
            picture = painted if whole else composite(source, painted, level.wanted)
        return cv2.resize(picture, photo.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def to_rgb(photo: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] -> uint8 (H, W, 3)."""
    return (photo.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
