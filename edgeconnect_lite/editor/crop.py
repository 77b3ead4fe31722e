"""CropTool: a photo of one's own, brought to the place and scale at which the faces of the data set lie, and back.

Two handles on the eyes decide a similarity transform (turn, scale, move); the widget shows what the networks will see.
"""

from pathlib import Path
from typing import Any

import anywidget
import cv2
import numpy as np
import traitlets as t

from edgeconnect_lite.editor.widget import shown_as
from edgeconnect_lite.inpainting import composite
from edgeconnect_lite.masks import as_mask
from edgeconnect_lite.photos import as_photo

HERE = Path(__file__).parent
EYES_AT = (
    (49.5, 61.0),
    (78.5, 61.0),
)  # in the shipped faces, 128 px: the left one in the picture first (assets/faces-128.md)
SHOWN = 512  # px of the longer side that the front end gets
CLOSEST, FARTHEST = 2.0, 1e6  # px between two eyes; from the photo's corner


def similarity(eyes: Any, size: int = 128) -> np.ndarray:
    """The transform, float64 (2, 3), that takes photo coordinates to a crop of `size` px whose eyes lie where the faces' do.

    eyes: ((x, y), (x, y)) in px of the photo; the one farther left in the picture is the left one. Raises ValueError.
    """
    given: Any
    try:
        given = np.asarray(eyes, np.float64)
    except (OverflowError, TypeError, ValueError):
        given = np.empty(0)
    if given.shape != (2, 2) or not np.abs(given).max() <= FARTHEST or np.linalg.norm(given[1] - given[0]) < CLOSEST:
        raise ValueError(f"eyes are {str(eyes)[:80]}; wanted two (x, y), in px, at least {CLOSEST:g} px apart")
    a, b = (complex(x, y) for x, y in sorted(given.tolist()))
    wanted_a, wanted_b = (complex(x, y) * size / 128 for x, y in EYES_AT)
    turn = (wanted_b - wanted_a) / (b - a)  # a complex number turns and scales
    move = wanted_a - turn * a
    return np.array([[turn.real, -turn.imag, move.real], [turn.imag, turn.real, move.imag]])


def warp(picture: np.ndarray, matrix: np.ndarray, shape: tuple[int, int], mode: int = cv2.INTER_LINEAR) -> np.ndarray:
    """picture after the transform, on a canvas of shape (H, W). Where it shrinks it is averaged first, against aliasing.

    Coordinates count from pixel centres. Beyond the picture's border it is mirrored.
    """
    scale = float(np.hypot(*matrix[:, 0]))
    if scale < 1:
        height, width = picture.shape[:2]
        smaller = tuple(max(1, round(side * scale)) for side in (width, height))
        shrunk = np.array([[smaller[0] / width, 0, 0], [0, smaller[1] / height, 0], [0, 0, 1]])
        shrunk[:2, 2] = (shrunk[[0, 1], [0, 1]] - 1) / 2  # centres go to centres
        matrix = (np.vstack([matrix, [0, 0, 1]]) @ np.linalg.inv(shrunk))[:2]
        picture = cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA)
    return cv2.warpAffine(picture, matrix, shape[::-1], flags=mode, borderMode=cv2.BORDER_REFLECT_101)


class CropTool(anywidget.AnyWidget):
    """Place two handles on the eyes; `crop` is what the networks should be given, `paste` brings a result back.

    photo: as for photos.as_photo, of any size. size: px of the crop.
    eyes: ((x, y), (x, y)) in px of the photo, in either order; may be set.
    """

    _esm = HERE / "crop.js"
    _css = HERE / "editor.css"
    _shape = t.List(t.Int()).tag(sync=True)  # of the photo
    _thumbnail = t.Bytes().tag(sync=True)  # RGB
    _thumbnail_shape = t.List(t.Int()).tag(sync=True)
    _eyes_at = t.List(t.List(t.Float())).tag(sync=True)  # of the crop, as shares of its side
    _eyes = t.List(t.List(t.Float())).tag(sync=True)
    message = t.Unicode("").tag(sync=True)

    def __init__(self, photo: np.ndarray, eyes: Any = None, size: int = 128):
        self._picture, self.size = as_photo(photo), size
        height, width = self._picture.shape[:2]
        shown = self._picture
        if max(height, width) > SHOWN:
            smaller = tuple(max(1, round(side * SHOWN / max(height, width))) for side in (width, height))
            shown = cv2.resize(shown, smaller, interpolation=cv2.INTER_AREA)
        if eyes is None:  # a face that fills the middle of the photo
            side = min(height, width)
            eyes = (np.array(EYES_AT) / 128 - 0.5) * side + (width / 2, height / 2)
        similarity(eyes, size)
        super().__init__(
            _shape=[height, width], _thumbnail=shown.tobytes(), _thumbnail_shape=list(shown.shape[:2]),
            _eyes_at=(np.array(EYES_AT) / 128).tolist(), _eyes=np.asarray(eyes, np.float64).tolist(),
        )  # fmt: skip

    @property
    def eyes(self) -> tuple[tuple[float, float], tuple[float, float]]:
        (a, b), (c, d) = self._eyes
        return (a, b), (c, d)

    @eyes.setter
    def eyes(self, eyes: Any) -> None:
        similarity(eyes, self.size)
        self._eyes = np.asarray(eyes, np.float64).tolist()

    @property
    def matrix(self) -> np.ndarray:
        """float64 (2, 3), from the photo to the crop."""
        return similarity(self.eyes, self.size)

    @property
    def crop(self) -> np.ndarray:
        """uint8 (size, size, 3)."""
        return warp(self._picture, self.matrix, (self.size, self.size))

    def paste(self, result: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The photo at its own size with the hole of a crop's result in it; all other pixels are its own, bit for bit.

        result: uint8 (size, size, 3), what an Inpainter or an editor gave for the crop. mask: its hole, as for masks.as_mask.
        """
        shape = (self.size, self.size)
        result, mask = as_photo(result), as_mask(mask, shape)
        if result.shape != (*shape, 3):
            raise ValueError(f"result has shape {result.shape}; wanted {(*shape, 3)}, as the crop")
        back = cv2.invertAffineTransform(self.matrix)
        painted = warp(result, back, self._picture.shape[:2], cv2.INTER_CUBIC)
        scale = float(np.hypot(*back[:, 0]))
        covered = cv2.warpAffine(  # beyond the crop there is no hole
            mask.astype(np.float32), back, self._picture.shape[1::-1],
            flags=cv2.INTER_LINEAR if scale >= 1 else cv2.INTER_AREA,
        )  # fmt: skip
        return composite(self._picture, painted, covered > 0.5)

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """The front end moves the eyes; anything else, and eyes that cannot be, are left alone."""
        try:
            if "_eyes" in sync_data:
                self.eyes, self.message = sync_data["_eyes"], ""
        except (ValueError, t.TraitError) as error:
            self.message = str(error)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return shown_as(super()._repr_mimebundle_(**options), self.crop, repr(self))

    def __repr__(self) -> str:
        height, width = self._picture.shape[:2]
        (a, b), (c, d) = self.eyes
        return f"CropTool({width} x {height}, eyes at ({a:.0f}, {b:.0f}) and ({c:.0f}, {d:.0f}))"
