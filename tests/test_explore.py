"""explore.py: sliders that redraw, errors that are seen, and a picture for those who have no kernel."""

import base64
import io

import numpy as np
import pytest
from ipywidgets import Dropdown, IntSlider
from PIL import Image

from edgeconnect_lite.explore import explore
from edgeconnect_lite.figures import show


def draw(level, kind="plain"):
    if level == 13:
        raise ValueError("level is <13>; wanted another")
    return show({f"{kind} {level}": np.full((16, 16, 3), level, np.uint8)})


def middle(data):
    picture = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    return int(picture[picture.shape[0] // 2, picture.shape[1] // 2])


@pytest.fixture
def widget():
    return explore(draw, level=IntSlider(100, 0, 255), kind=Dropdown(options=["plain", "odd"]))


def test_it_begins_with_the_given_values(widget):
    assert middle(widget.picture.value) == pytest.approx(100, abs=6)
    assert [child.description for child in widget.children[:2]] == ["level", "kind"]


def test_a_moved_slider_redraws(widget):
    widget.controls["level"].value = 220
    assert middle(widget.picture.value) == pytest.approx(220, abs=6)


def test_an_error_is_shown_and_goes_away(widget):
    before = widget.picture.value
    widget.controls["level"].value = 13
    assert 'role="alert"' in widget.alert.value and "level is &lt;13&gt;; wanted another" in widget.alert.value
    assert widget.picture.value == before
    widget.controls["level"].value = 14
    assert widget.alert.value == "" and middle(widget.picture.value) == pytest.approx(14, abs=6)


def test_an_error_in_the_first_figure_is_raised():
    with pytest.raises(ValueError, match="wanted another"):
        explore(draw, level=IntSlider(13, 0, 255))


def test_a_stored_notebook_has_the_picture(widget):
    bundle = widget._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert middle(base64.b64decode(bundle["image/jpeg"])) == pytest.approx(100, abs=6)
    assert bundle["text/plain"] == "sliders: level, kind (they move where a kernel runs)"
