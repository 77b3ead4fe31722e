"""figures.py: what is shown is what was given."""

import io

import numpy as np
import pytest
from helpers import few, noise_photo
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgeconnect_lite.figures import BLUE, GREEN, RED, as_picture, colour_edges, difference, show, tile


def test_the_report_s_colours():
    for colour, place in ((RED, 0), (GREEN, 1), (BLUE, 2)):
        assert np.argmax(colour) == place and len(colour) == 3


def test_everything_becomes_a_picture():
    photo = noise_photo(5, 6)
    assert np.array_equal(as_picture(photo), photo)
    assert as_picture(np.array([[True, False]])).tolist() == [[[255] * 3, [0] * 3]]
    assert as_picture(np.array([[0.0, 0.2, 1.0, 1.5, -1.0]]))[0, :, 1].tolist() == [0, 51, 255, 255, 0]
    assert as_picture(np.array([[7, 200]], np.uint8)).tolist() == [[[7] * 3, [200] * 3]]
    assert np.array_equal(as_picture(photo.astype(np.float32) / 255), photo)


@few(12)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.integers(0, 4))
def test_tiles_keep_their_pixels_on_white(rows, columns, height, width, gap):
    pictures = [[noise_photo(height, width, 10 * i + j) for j in range(columns)] for i in range(rows)]
    sheet = tile(pictures, gap)
    assert sheet.shape == (rows * (height + gap) - gap, columns * (width + gap) - gap, 3) and sheet.dtype == np.uint8
    covered = np.zeros(sheet.shape[:2], bool)
    for i in range(rows):
        for j in range(columns):
            place = np.s_[
                i * (height + gap) : i * (height + gap) + height, j * (width + gap) : j * (width + gap) + width
            ]
            assert np.array_equal(sheet[place], pictures[i][j])
            covered[place] = True
    assert (sheet[~covered] == 255).all()


def test_tiles_mix_photos_and_maps():
    sheet = tile([[noise_photo(4, 4), np.eye(4, dtype=bool)]])
    assert sheet.shape == (4, 10, 3)
    assert np.array_equal(sheet[:, 6:, 0], 255 * np.eye(4))


def test_edges_are_drawn_in_their_colours():
    known, inside, mask = np.zeros((3, 4, 4), bool)
    known[0] = inside[0, 0] = inside[2] = True
    mask[2:] = True
    for colour in (RED, GREEN):
        picture = colour_edges(known, inside, mask, colour)
        assert (picture[0] == BLUE).all() and (picture[1] == 255).all() and (picture[2] == colour).all()
        assert (picture[3] == picture[3, 0, 0]).all() and 200 < picture[3, 0, 0] < 255
    assert np.array_equal(colour_edges(known, inside, mask), colour_edges(known, inside, mask, RED))


def test_difference_is_the_mean_over_the_channels_times_its_gain():
    photo = np.full((2, 2, 3), 100, np.uint8)
    other = photo.copy()
    other[0, 0] = 100, 103, 109  # 12 / 3 = 4
    other[1, 1] = 0
    assert difference(photo, other)[..., 0].tolist() == [[12, 0], [0, 255]]
    assert np.array_equal(difference(other, photo, 1.0)[..., 2], [[4, 0], [0, 100]])
    assert difference(photo, photo).shape == (2, 2, 3)


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (5, 1, 5), (7, 2, 5)])
def test_show_titles_every_picture(count, rows, columns):
    pictures = {f"picture {i}": noise_photo(8, 8, i) for i in range(count)}
    figure = show(pictures)
    assert len(figure.axes) == rows * columns
    assert [axis.get_title() for axis in figure.axes[:count]] == list(pictures)
    for axis, picture in zip(figure.axes, pictures.values()):
        assert np.array_equal(axis.images[0].get_array(), picture)
    assert not any(axis.axison for axis in figure.axes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    with Image.open(buffer) as picture:
        assert picture.format == "PNG" and picture.width / picture.height == pytest.approx(
            columns * 1.9 / (rows * 2.15), rel=0.05
        )
