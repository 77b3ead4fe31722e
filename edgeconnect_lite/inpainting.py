"""Inpainting: the whole line for one photo. Known edges, predicted edges, a person's edits, the painted hole, the composite.

The networks see a photo at the scale that they were trained at: one whose shorter side is longer than `size` is shrunk
for them, and what they paint is enlarged into the hole. Known pixels of the result are the photo's own, bit for bit.
"""

from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgeconnect_lite.canny import thin
from edgeconnect_lite.edges import merge_edges
from edgeconnect_lite.generators import EdgeGenerator, ImageGenerator
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
        photo, mask = self._check(photo, mask)
        small = self._predict(self._sample(photo, mask))[0]
        return small[cells(mask.shape, small.shape)]

    def propose_edges(self, photo: np.ndarray, mask: np.ndarray, n: int = 4, seed: int = 0) -> np.ndarray:
        """Stage 1, n different completions of one hole: smooth seeded noise raises and lowers what it holds possible.

        Arguments as for predict_edges, the same seed gives the same proposals. Returns float32 (n, H, W) in [0, 1].
        """
        if n < 1:
            raise ValueError(f"n is {n}; wanted at least 1 proposal")
        photo, mask = self._check(photo, mask)
        sample = self._sample(photo, mask)
        noise = smooth_noise(n, sample.mask.shape[-2:], torch.Generator().manual_seed(seed), DOUBT_SCALE)
        small = self._predict(sample, DOUBT * noise)
        rows, columns = cells(mask.shape, small.shape[1:])
        return small[:, rows, columns]

    def __call__(self, photo: np.ndarray, mask: np.ndarray, edges: np.ndarray | None = None) -> np.ndarray:
        """Both stages, or with edges given only the second. Returns uint8 (H, W, 3); a photo without a hole comes back as is.

        edges: the whole edge map (H, W), bool or probability; taken as it is, nothing drawn is removed. None = predict.
        """
        photo, mask = self._check(photo, mask)
        edges = None if edges is None else as_edges(edges, mask.shape)
        return composite(photo, self._paint(photo, mask, edges), mask) if mask.any() else photo.copy()

    def paint(self, photo: np.ndarray, mask: np.ndarray, edges: np.ndarray) -> np.ndarray:
        """Stage 2's whole picture before the composite, known pixels painted too. Arguments and result as for a call."""
        photo, mask = self._check(photo, mask)
        return self._paint(photo, mask, as_edges(edges, mask.shape))

    def _check(self, photo: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        photo = as_photo(photo)
        return photo, as_mask(mask, photo.shape[:2])

    def _sample(self, photo: np.ndarray, mask: np.ndarray) -> Sample:
        """The stages' inputs at the networks' scale. The hole is blanked first: what lies in it never matters."""
        blanked = np.where(mask[..., None], np.uint8(0), photo)
        scale = self.size / min(mask.shape)
        if scale < 1:
            width, height = (max(1, round(side * scale)) for side in mask.shape[::-1])
            known = cv2.resize((~mask).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
            total = cv2.resize(blanked.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
            mask = known < 0.5
            mean = total / np.maximum(known, 0.5)[..., None]  # the mean over the known pixels of each cell
            blanked = np.where(mask[..., None], 0, np.round(mean).clip(0, 255)).astype(np.uint8)
        return make_sample(blanked, mask)

    @torch.inference_mode()
    def _predict(self, sample: Sample, doubt: Tensor | None = None) -> np.ndarray:
        """One whole map, or one for each of doubt's. float32 (1 or M, H, W)."""
        batch = Sample(*(part[None].to(self.device) for part in sample))
        doubt = None if doubt is None else doubt.to(self.device)
        inside = predict_probability(self.edge_generator, batch, doubt)[:, 0].cpu().numpy()
        known, mask = sample.known_edges[0].numpy(), sample.mask[0].numpy() > 0
        return np.stack([merge_edges(known, each, mask) for each in inside])

    @torch.inference_mode()
    def _paint(self, photo: np.ndarray, mask: np.ndarray, edges: np.ndarray | None) -> np.ndarray:
        sample = self._sample(photo, mask)
        height, width = sample.mask.shape[-2:]
        if edges is None:
            edges = self._predict(sample)[0] > THRESHOLD
        else:  # a cell holds an edge where any of its pixels does, so that a thin line survives
            small, (rows, columns) = np.zeros((height, width), bool), cells(mask.shape, (height, width))
            y, x = edges.nonzero()
            small[rows[y, 0], columns[0, x]] = True
            edges = small
        given = torch.from_numpy(edges)[None].float()
        painted = to_rgb(self.image_generator(image_stage_input(sample, given)[None].to(self.device))[0].cpu())
        return cv2.resize(painted, photo.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def cells(shape: tuple[int, ...], small_shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Row and column, at the networks' scale, of every pixel of the photo: small[cells(...)] enlarges small to shape."""
    rows, columns = (np.arange(side) * small // side for side, small in zip(shape, small_shape))
    return np.ix_(rows, columns)  # type: ignore[return-value]


def to_rgb(photo: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] -> uint8 (H, W, 3)."""
    return (photo.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
