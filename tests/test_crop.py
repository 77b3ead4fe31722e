"""editor/crop.py: eyes to the faces' place, and results back into the photo."""

import base64

import cv2
import numpy as np
import pytest
from helpers import few, shapes_photo
from hypothesis import given
from hypothesis import strategies as st
from skimage.data import astronaut

from edgeconnect_lite.editor import CropTool
from edgeconnect_lite.editor.crop import EYES_AT, similarity, warp
from edgeconnect_lite.photos import FacePhotos


def placed(matrix, points):
    return np.c_[np.asarray(points, float), np.ones(len(points))] @ matrix.T


coordinate = st.floats(-500, 5000)


@given(st.tuples(coordinate, coordinate), st.floats(3, 900), st.floats(-3.1, 3.1), st.sampled_from([64, 128, 200]))
@few(100)
def test_the_eyes_come_to_their_place_and_shapes_stay(left, apart, angle, size):
    right = left[0] + apart * np.cos(angle), left[1] + apart * np.sin(angle)
    matrix = similarity((right, left), size)  # in either order
    left, right = sorted((left, right))
    np.testing.assert_allclose(placed(matrix, (left, right)), np.array(EYES_AT) * size / 128, atol=1e-6)
    a, b = matrix[:, 0], matrix[:, 1]
    assert abs(a @ b) < 1e-9 and np.linalg.det(matrix[:, :2]) == pytest.approx(a @ a)  # turned and scaled, not mirrored


@pytest.mark.parametrize(
    "eyes", [None, "ab", (1, 2), ((1, 2), (1, 2)), ((1, 2), (2, 2)), ((0, 0), (np.inf, 0)), ((0, 0, 0),) * 2]
)
def test_eyes_that_cannot_be_are_refused(eyes):
    with pytest.raises(ValueError, match=r"wanted two \(x, y\), in px, at least 2 px apart"):
        similarity(eyes)


def test_a_face_that_is_in_place_stays_as_it_is():
    face, mask = FacePhotos("test")[0], np.zeros((128, 128), bool)
    mask[40:70, 30:90] = True
    tool = CropTool(face, EYES_AT)
    assert np.array_equal(tool.crop, face)
    assert np.array_equal(tool.paste(255 - face, mask), np.where(mask[..., None], 255 - face, face))


def test_a_large_photo_goes_there_and_back():
    photo, mask = astronaut(), np.zeros((128, 128), bool)
    mask[50:90, 40:90] = True
    tool = CropTool(photo, ((206, 115), (250, 115)))
    back = tool.paste(tool.crop, mask)
    changed = (back != photo).any(axis=2)
    assert 0.01 < changed.mean() < 0.05
    y, x = np.argwhere(changed).T
    inside = placed(tool.matrix, np.c_[x, y])
    assert inside.min(axis=0)[0] >= 39 and inside.max(axis=0)[0] <= 91 and inside.min(axis=0)[1] >= 49
    assert np.abs(back.astype(int) - photo)[changed].mean() < 12  # it was shrunk and enlarged
    solid = tool.paste(np.zeros_like(tool.crop), mask)
    assert (solid[115, 228] == photo[115, 228]).all() == (not mask[61, 64]) and (solid[130, 228] < 3).all()


def test_shrinking_does_not_alias():
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    small = warp(stripes, np.array([[0.25, 0, 0], [0, 0.25, 0]]), (100, 100))
    assert np.abs(small[10:90, 10:90].astype(int) - 127).max() < 20


def test_the_first_guess_is_a_face_in_the_middle():
    tool = CropTool(shapes_photo(300, 200, 0))
    (ax, ay), (bx, by) = tool.eyes
    assert ay == by and (ax + bx) / 2 == pytest.approx(100) and bx - ax == pytest.approx(200 * 29 / 128)
    assert tool.crop.shape == (128, 128, 3) and CropTool(shapes_photo(300, 200, 0), size=64).crop.shape == (64, 64, 3)


def test_the_front_end_moves_the_eyes_and_nothing_else():
    tool = CropTool(shapes_photo(100, 100, 1))
    tool.set_state({"_eyes": [[20, 40], [60, 44]], "_thumbnail": b"", "_shape": [1, 1]})
    assert tool.eyes == ((20, 40), (60, 44)) and tool._shape == [100, 100] and len(tool._thumbnail) == 30_000
    for bad in ([[0, 0], [0, 0]], "x", None, [[1, 2]], [[1, float("nan")], [5, 5]]):
        tool.set_state({"_eyes": bad})
        assert tool.eyes == ((20, 40), (60, 44)) and "wanted two (x, y)" in tool.message
    tool.set_state({"_eyes": [[20, 40], [61, 44]]})
    assert tool.message == "" and tool.eyes[1] == (61, 44)


def test_bad_results_are_named():
    tool = CropTool(shapes_photo(100, 100, 1))
    with pytest.raises(ValueError, match=r"result has shape \(64, 64, 3\); wanted \(128, 128, 3\)"):
        tool.paste(np.zeros((64, 64, 3), np.uint8), np.zeros((128, 128), bool))


def test_its_picture_shows_where_no_widget_can():
    tool = CropTool(shapes_photo(700, 900, 1))
    data, _ = tool._repr_mimebundle_()
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(data["image/jpeg"]), np.uint8), 1)[..., ::-1]
    assert np.abs(picture - tool.crop.astype(float)).mean() < 4
    assert data["text/plain"].startswith("CropTool(900 x 700, eyes at (")
    assert tool._thumbnail_shape == [398, 512]
