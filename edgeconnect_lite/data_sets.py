"""Data sets: well-known sets of pictures in the folders in which they are handed out, each with its official parts.

CelebA: Liu et al., "Deep Learning Face Attributes in the Wild", ICCV 2015. CelebA-HQ: Karras et al., "Progressive Growing of
GANs", ICLR 2018; Lee et al., "MaskGAN" (CelebAMask-HQ), CVPR 2020. FFHQ: Karras et al., "A Style-Based Generator Architecture
for GANs", CVPR 2019. Places365: Zhou et al., "Places", TPAMI 2017. Masks: Iskakov, arXiv:1807.02855. Get them from their
makers, on their terms; nothing here downloads.
"""

import os
import warnings
from pathlib import Path

import numpy as np

from edgeconnect_lite.listing import BadPhoto, PictureFiles, list_pictures, read_lines
from edgeconnect_lite.photos import PhotoFolder

PLACES_FOLDERS = {
    "train": ("data_256", "data_256_standard", "data_large", "data_large_standard"),
    "valid": ("val_256", "val_large"),
}
SIDES = (64, 128, 256, 512, 1024)  # px
FFHQ_TRAIN = 60_000  # its authors' parts: the first 60,000 to train with, the last 10,000 to validate


class DataSet(PhotoFolder):
    """A well-known set: `is_at(root)` knows its layout, SPLITS names its parts, the one to train with first."""

    SPLITS: tuple[str, ...] = ("train", "valid", "test")

    def __init__(self, root: str | Path, split: str = "train", size: int = 128):
        if split not in self.SPLITS:
            raise ValueError(f"split is {split!r}; wanted one of {', '.join(self.SPLITS)}")
        super().__init__(self.list_part(Path(root), split, size), size)

    @staticmethod
    def is_at(root: Path) -> bool:
        raise NotImplementedError

    def list_part(self, root: Path, split: str, size: int) -> PictureFiles:
        """The files of one part."""
        raise NotImplementedError


class CelebA(DataSet):
    """CelebA's aligned faces (178 x 218) in the official layout, cut to the centred 178 x 178 and resized.

    root holds img_align_celeba/000001.jpg ... and list_eval_partition.txt (here, or in Eval/).
    Get them from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (non-commercial research use).
    """

    @staticmethod
    def is_at(root: Path) -> bool:
        return os.path.isdir(root / "img_align_celeba")

    def list_part(self, root: Path, split: str, size: int) -> PictureFiles:
        tables = [
            path for path in (root / "list_eval_partition.txt", root / "Eval/list_eval_partition.txt") if path.is_file()
        ]
        if not tables or not self.is_at(root):
            raise BadPhoto(f"{root}: not CelebA's layout; wanted img_align_celeba/ and list_eval_partition.txt in it")
        rows = [line.split() for line in read_lines(tables[0])]
        if any(len(row) != 2 or row[1] not in ("0", "1", "2") for row in rows):
            raise BadPhoto(f"{tables[0]}: wanted lines of the form '000001.jpg 0' with a split of 0, 1 or 2")
        part = str(self.SPLITS.index(split))
        names = [name for name, number in rows if number == part]
        if not names:
            raise BadPhoto(f"{tables[0]}: no picture of the split {split!r} ({part}) in it")
        return PictureFiles(names, root / "img_align_celeba")


class FFHQ(DataSet):
    """Flickr-Faces-HQ: root holds images1024x1024/00000/00000.png ... or thumbnails128x128/00000/00000.png ... or both.

    Of both it takes the smaller one that is large enough.
    """

    SPLITS = ("train", "valid")

    @staticmethod
    def is_at(root: Path) -> bool:
        return bool(_resolutions(root, "thumbnails", "images"))

    def list_part(self, root: Path, split: str, size: int) -> PictureFiles:
        paths = list_pictures(_large_enough(_resolutions(root, "thumbnails", "images"), root, size))
        stems = (path.stem for path in paths)
        training = np.array([stem.isdecimal() and int(stem) < FFHQ_TRAIN for stem in stems])
        part = np.flatnonzero(training == (split == "train"))
        if not len(part):
            raise BadPhoto(f"{root}: no picture of FFHQ's split {split!r} in it (train: below {FFHQ_TRAIN})")
        return paths.take(part)


class CelebAHQ(DataSet):
    """CelebA-HQ's 30,000 faces: root holds data256x256/ (or another size), or CelebAMask-HQ's CelebA-HQ-img/."""

    SPLITS = ("all",)  # its makers made no parts

    @staticmethod
    def is_at(root: Path) -> bool:
        return os.path.isdir(root / "CelebA-HQ-img") or bool(_resolutions(root, "data"))

    def list_part(self, root: Path, split: str, size: int) -> PictureFiles:
        masked = root / "CelebA-HQ-img"  # beside it lie its annotations, which are pictures too
        return list_pictures(masked if masked.is_dir() else _large_enough(_resolutions(root, "data"), root, size))


class Places365(DataSet):
    """Places365: root holds data_256/a/airfield/00000001.jpg ..., and val_256/ for the part valid; or data_large/, val_large/.

    The order is drawn once and for all: in the official one the last photos, which a run keeps back, are of one class.
    """

    SPLITS = ("train", "valid")

    @staticmethod
    def is_at(root: Path) -> bool:
        return any(os.path.isdir(root / name) for name in PLACES_FOLDERS["train"])

    def list_part(self, root: Path, split: str, size: int) -> PictureFiles:
        there = [root / name for name in PLACES_FOLDERS[split] if (root / name).is_dir()]
        if not there:
            raise BadPhoto(f"{root}: not Places365's part {split!r}; wanted {' or '.join(PLACES_FOLDERS[split])} in it")
        paths = list_pictures(there[0] if size <= 256 else there[-1])
        return paths.take(np.random.default_rng(0).permutation(len(paths)))


def _resolutions(root: Path, *kinds: str) -> dict[int, Path]:
    """Folders named as data256x256 is: {256: path}. Asked for one by one: to list root could mean 200,000 files."""
    return {side: path for side in SIDES for kind in kinds if os.path.isdir(path := root / f"{kind}{side}x{side}")}


def _large_enough(folders: dict[int, Path], root: Path, size: int) -> Path:
    if not folders:
        raise BadPhoto(f"{root}: not this data set's layout")
    return folders[min((side for side in folders if side >= size), default=max(folders))]


LAYOUTS: tuple[type[DataSet], ...] = (CelebA, FFHQ, CelebAHQ, Places365)


def open_data_set(source: str | Path, size: int, split: str | None = None, held_out: bool = False) -> PhotoFolder:
    """A well-known set if the folder has its layout, else any folder, .txt list or .zip archive.

    split: which part of a well-known set; by default the one to train with, or, with held_out, the one to measure on.
    """
    for layout in LAYOUTS:
        if layout.is_at(Path(source)):
            if held_out and not split and len(layout.SPLITS) == 1:
                warnings.warn(
                    f"{source}: {layout.__name__} has no parts; these photos may be those that were trained on",
                    stacklevel=2,
                )
            return layout(source, split or layout.SPLITS[-1 if held_out else 0], size)
    if split:
        raise ValueError(
            f"split is {split!r}, and {source} is no data set with parts ({', '.join(k.__name__ for k in LAYOUTS)})"
        )
    return PhotoFolder(source, size)


def masks_at(source: str | Path, held_out: bool = False) -> Path:
    """The Quick, Draw! masks' root holds train/00000_train.png ... and test/00000_test.png ...: one of the two. Else source."""
    parts = [Path(source, name) for name in ("train", "test")]
    return parts[held_out] if all(map(os.path.isdir, parts)) else Path(source)
