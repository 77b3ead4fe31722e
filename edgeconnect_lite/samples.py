"""Samples: a photo and a mask, randomly paired, become what the two stages are given and what they must give.

The four sets of the report: the ground truth (photo, gray, edges, mask), the input and target of stage 1, the input and
target of stage 2, and the noised real edges that stage 1's discriminator sees.

Sample k of a stream depends on (seed, k) alone, so the same seed gives the same batches for any number of workers,
and training resumes at step s by asking for samples from s * batch_size on.
"""

import signal
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from edgeconnect_lite.edges import HIGH, LOW, known_edges, to_gray, true_edges


class PhotoSource(Protocol):
    """FacePhotos, PhotoFolder, CelebA, MixedPhotos, or your own: uint8 (size, size, 3) by index."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> np.ndarray: ...


class MaskSource(Protocol):
    """RandomMasks, MaskFolder, or your own: bool (size, size) from a seeded generator."""

    def draw(self, rng: np.random.Generator, /) -> np.ndarray: ...


class Sample(NamedTuple):
    """One ground truth, or a batch of N. float32 in [0, 1]."""

    photo: Tensor  # (3, H, W) RGB
    gray: Tensor  # (1, H, W)
    mask: Tensor  # (1, H, W), 1 = hole
    edges: Tensor  # (1, H, W), 1 = edge: Canny of the whole photo
    known_edges: Tensor  # (1, H, W): Canny of the known part, nothing within 2 px of the hole


def to_tensor(photo: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) -> float32 (3, H, W) in [0, 1]; inpainting.to_rgb is the way back."""
    return torch.from_numpy(np.divide(photo.transpose(2, 0, 1), np.float32(255), order="C"))


def make_sample(photo: np.ndarray, mask: np.ndarray, low: float = LOW, high: float = HIGH) -> Sample:
    """The ground truth of one photo, uint8 (H, W, 3), and one mask, bool (H, W)."""
    gray = to_gray(photo)
    return Sample(
        photo=to_tensor(photo),
        gray=torch.from_numpy(gray / np.float32(255))[None],
        mask=torch.from_numpy(mask.astype(np.float32))[None],
        edges=torch.from_numpy(true_edges(gray, low, high).astype(np.float32))[None],
        known_edges=torch.from_numpy(known_edges(gray, mask, low, high).astype(np.float32))[None],
    )


def edge_stage_input(sample: Sample) -> Tensor:
    """Stage 1's input: masked gray photo, known edges, mask. (N, 3, H, W); its target is sample.edges."""
    return torch.cat([sample.gray * (1 - sample.mask), sample.known_edges, sample.mask], dim=-3)


def image_stage_input(sample: Sample, edges: Tensor) -> Tensor:
    """Stage 2's input: masked photo, an edge map (N, 1, H, W), mask. (N, 5, H, W); its target is sample.photo."""
    return torch.cat([sample.photo * (1 - sample.mask), edges, sample.mask], dim=-3)


def noised_edges(
    edges: Tensor, generator: torch.Generator | None = None, std: float = 0.1, part: tuple[int, int] = (0, 1)
) -> Tensor:
    """Real edges for stage 1's discriminator, with truncated normal noise: 0 -> [0, 2 std], 1 -> [1 - 2 std, 1].

    A discriminator could tell a real map by its exact zeros and ones; noise takes that away (report, stage 1).
    edges: (N, 1, H, W) of 0 and 1. part: (k, n) = they are part k of a batch of n N, whose noise is drawn as a whole.
    """
    number, parts = part
    noise = edges.new_empty(parts * len(edges), *edges.shape[1:])
    torch.nn.init.trunc_normal_(noise, std=std, a=-2 * std, b=2 * std, generator=generator)
    noise = noise.chunk(parts)[number].abs()
    return torch.where(edges > 0.5, 1 - noise, noise)


def jitter_colours(photo: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Random contrast about mid-gray, brightness, and a gain per channel, each within +-strength. uint8 (H, W, 3)."""
    contrast, brightness = 1 + rng.uniform(-strength, strength), 255 * rng.uniform(-strength, strength) / 2
    gains = 1 + rng.uniform(-strength, strength, 3) / 2
    levels = np.arange(256, dtype=np.float32)[:, None]
    table = ((levels - 127.5) * contrast + 127.5 + brightness) * gains
    return cv2.LUT(photo, np.clip(np.round(table), 0, 255).astype(np.uint8)[None])


def roughen_photo(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Some of what photographs have and rendered faces lack: contrast, texture, blur or sharpness, noise, JPEG, each by chance.

    photo: uint8 (H, W, 3). Returns uint8 (H, W, 3).
    """
    x = 255 * (photo.astype(np.float32) / 255) ** np.exp(rng.normal(0, 0.25))
    x = (x - 127.5) * rng.uniform(0.8, 1.5) + 127.5 + rng.normal(0, 12)
    if rng.random() < 0.5:  # pores, cloth, grain: noise of a random coarseness that light and dark share alike
        grain = cv2.GaussianBlur(rng.normal(0, 1, photo.shape[:2]).astype(np.float32), (0, 0), rng.uniform(0.5, 2))
        x *= 1 + rng.uniform(0.02, 0.12) * (grain / grain.std())[..., None]
    if rng.random() < 0.5:
        soft = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.4, 1.2))
        x = soft if rng.random() < 0.4 else x + rng.uniform(0.3, 1.2) * (x - soft)
    if rng.random() < 0.4:
        x += rng.normal(0, rng.uniform(1, 7), photo.shape).astype(np.float32)
    photo = np.clip(np.round(x), 0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        _, data = cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))])
        photo = np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1])
    return photo


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """In which order the photos come in one epoch."""
    return np.random.default_rng([seed, epoch, 1]).permutation(count)


def shares(weights: Sequence[float], count: int) -> list[int]:
    """Whole numbers that sum to count, as nearly as can be in the ratio of the weights."""
    exact = np.asarray(weights, np.float64) / np.sum(weights) * count
    whole = np.floor(exact).astype(int)
    whole[np.argsort(whole - exact, kind="stable")[: count - whole.sum()]] += 1
    return whole.tolist()


class MixedPhotos:
    """Several sources in one stream: of every 1,000 samples each source gives its share, by the weights, at random places.

    Each source's photos come once in its own epoch, in random order. As a sequence it is one source after the other.
    """

    BLOCK = 1000  # samples in which the shares are kept

    def __init__(self, sources: Sequence[PhotoSource], weights: Sequence[float]):
        if not sources or len(sources) != len(weights) or not all(0 < weight < np.inf for weight in weights):
            raise ValueError(f"weights are {list(weights)} for {len(sources)} sources; wanted one above 0 for each")
        self.sources, self.weights = list(sources), list(weights)
        self.first = np.cumsum([0] + [len(source) for source in self.sources])
        self.slots = np.cumsum([0] + shares(self.weights, self.BLOCK))
        if (np.diff(self.slots) < 1).any():
            raise ValueError(f"weights are {self.weights}; wanted none below a {self.BLOCK}th of their sum")
        self._orders: dict[tuple[int, int], tuple[tuple[int, int], np.ndarray]] = {}

    def __len__(self) -> int:
        return int(self.first[-1])

    def __getitem__(self, index: int) -> np.ndarray:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} photos")
        source = int(np.searchsorted(self.first, index % len(self), "right")) - 1
        return self.sources[source][index % len(self) - int(self.first[source])]

    def index_at(self, seed: int, k: int) -> int:
        """Which photo sample k of the stream shows: a function of (seed, k)."""
        block, place = divmod(k, self.BLOCK)
        slot = int(epoch_order(seed, block, self.BLOCK)[place])
        source = int(np.searchsorted(self.slots, slot, "right")) - 1
        start, end = self.slots[source : source + 2].tolist()
        epoch, place = divmod(block * (end - start) + slot - start, len(self.sources[source]))
        return int(self.first[source] + self._order(source, seed, epoch)[place])

    def _order(self, source: int, seed: int, epoch: int) -> np.ndarray:
        """Of two epochs of each source, the neighbours that one block may need, the order is kept."""
        if self._orders.get((source, epoch % 2), (None,))[0] != (seed, epoch):
            order = np.random.default_rng([seed, epoch, 3, source]).permutation(len(self.sources[source]))
            self._orders[source, epoch % 2] = (seed, epoch), order
        return self._orders[source, epoch % 2][1]


class Samples(Dataset):
    """An endless stream of ground truths: every photo once an epoch, in random order, each with a mask of its own.

    photos: any PhotoSource; MixedPhotos come by their weights. masks: any MaskSource of the same size. seed: decides
    everything. flip: mirror half of them. jitter: strength of jitter_colours, 0 = off. roughen: share of photos that
    roughen_photo works on. `samples[k]` is sample k of the stream, for any k >= 0.
    """

    def __init__(
        self, photos: PhotoSource, masks: MaskSource, seed: int = 0, flip: bool = True, jitter: float = 0.15,
        low: float = LOW, high: float = HIGH, roughen: float = 0.0,
    ):  # fmt: skip
        self.photos, self.masks, self.seed = photos, masks, seed
        self.flip, self.jitter, self.low, self.high, self.roughen = flip, jitter, low, high, roughen

    def __getitem__(self, k: int) -> Sample:
        photo = self.photos[self._index(k)]
        rng = np.random.default_rng([self.seed, k, 2])
        if self.flip and rng.random() < 0.5:
            photo = np.ascontiguousarray(photo[:, ::-1])
        if self.jitter:
            photo = jitter_colours(photo, rng, self.jitter)
        if self.roughen and rng.random() < self.roughen:
            photo = roughen_photo(photo, rng)
        return make_sample(photo, self.masks.draw(rng), self.low, self.high)

    def _index(self, k: int) -> int:
        if isinstance(self.photos, MixedPhotos):
            return self.photos.index_at(self.seed, k)
        epoch, place = divmod(k, len(self.photos))
        return int(epoch_order(self.seed, epoch, len(self.photos))[place])


def batches(samples: Dataset, batch_size: int, steps: int, start: int = 0, workers: int = 0) -> DataLoader:
    """Batches number `start` to `steps` - 1 of a stream, in order; those of Samples are Sample with a batch dimension."""
    return DataLoader(
        samples,
        batch_size=batch_size,
        sampler=range(start * batch_size, steps * batch_size),
        num_workers=workers,
        worker_init_fn=_begin_worker,
        generator=torch.Generator(),  # else starting to read would draw from torch's own random state
    )


def _begin_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # 0, not 1: that would wait for a thread pool which the fork left behind
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the workers too; the main process ends the run
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def iterate_samples(photos: PhotoSource, masks: MaskSource, seed: int) -> Iterator[Sample]:
    """Each photo once, in order, with a mask drawn from (seed, index): a fixed set for measuring."""
    for index in range(len(photos)):
        yield make_sample(photos[index], masks.draw(np.random.default_rng([seed, index])))
