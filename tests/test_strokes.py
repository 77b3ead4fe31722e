"""editor/strokes.py: which pixels a stroke covers, the two layers, undo and redo, and strokes that are refused."""

import json
from itertools import pairwise

import numpy as np
import pytest
from helpers import few
from hypothesis import given
from hypothesis import strategies as st

from edgeconnect_lite.edges import near_hole
from edgeconnect_lite.editor.strokes import (
    DRAWN,
    ERASED,
    MAX_POINTS,
    BadStroke,
    History,
    Layers,
    apply_stroke,
    check_stroke,
    edited_edges,
    pack_bits,
    path,
    raster,
    unpack_bits,
)

SHAPE = (24, 32)
points = st.lists(st.tuples(st.integers(-10, 42), st.integers(-10, 34)).map(list), min_size=1, max_size=5)
maps = st.integers(0, 2**32 - 1).map(lambda seed: pack_bits(np.random.default_rng(seed).random(SHAPE) < 0.4))
strokes = st.one_of(
    st.fixed_dictionaries(
        {"tool": st.sampled_from(["pen", "eraser", "mask", "unmask"]), "points": points, "radius": st.integers(0, 5)}
    ),
    st.fixed_dictionaries({"tool": st.sampled_from(["clear", "reset"])}),
    st.fixed_dictionaries({"tool": st.sampled_from(["edges", "hole"]), "bits": maps}),
)


def covered(*points, radius=0, shape=SHAPE):
    return raster(points, radius, shape)


def hole(*corners):
    mask = np.zeros(SHAPE, bool)
    top, left, bottom, right = corners or (4, 4, 20, 28)
    mask[top:bottom, left:right] = True
    return mask


# which pixels


def test_a_thin_line_has_no_gaps_and_ends_where_it_was_drawn():
    line = covered((2, 3), (29, 20))
    assert line.sum() == 28 and line[3, 2] and line[20, 29]
    rows = [np.flatnonzero(column)[0] for column in line[:, 2:30].T]
    assert max(np.abs(np.diff(rows))) == 1


def test_a_point_is_a_disc_that_may_hang_over_the_border():
    assert np.array_equal(np.argwhere(covered((5, 6))), [[6, 5]])
    wide = covered((16, 12), radius=3)
    y, x = np.indices(SHAPE)
    assert np.array_equal(wide, 16 * ((x - 16) ** 2 + (y - 12) ** 2) <= 13**2)
    assert covered((-2, 12), radius=3).any() and not covered((-4, 12), radius=3).any()
    assert covered((-10, -10), (-5, -5), radius=2).sum() == 0
    assert covered((5, 6), radius=1).sum() == 5


@given(points, st.integers(0, 5))
@few(100)
def test_a_path_covers_what_its_lines_cover(path, radius):
    whole = raster(path, radius, SHAPE)
    parts = [raster([a, b], radius, SHAPE) for a, b in pairwise(path)] or [raster(path, radius, SHAPE)]
    assert np.array_equal(whole, np.any(parts, axis=0))


def test_each_point_may_have_its_own_radius():
    path = [(4, 12), (16, 12), (28, 12)]
    pressed = raster(path, [0, 0, 3], SHAPE)
    assert pressed[:, :13].sum(axis=0).max() == 1 and pressed[:, 20].sum() > 3
    assert np.array_equal(raster(path, [2, 2, 2], SHAPE), raster(path, 2, SHAPE))


@given(points, st.data())
@few(60)
def test_pen_pressure_covers_the_discs_about_its_pixels(line, data):
    radii = data.draw(st.lists(st.integers(0, 9), min_size=len(line), max_size=len(line)))
    pixels, ends = path(np.array(line))
    y, x = np.indices(SHAPE)
    discs = [16 * ((x - px) ** 2 + (y - py) ** 2) <= (4 * radii[k] + 1) ** 2 for (px, py), k in zip(pixels, ends)]
    assert np.array_equal(raster(line, radii, SHAPE), np.any(discs, axis=0))


# the layers


def test_edges_are_drawn_and_erased_near_the_hole_alone():
    layers = Layers(hole(), np.zeros(SHAPE, np.uint8))
    drawn = apply_stroke(layers, {"tool": "pen", "points": [[0, 10], [31, 10]], "radius": 0})
    assert (drawn.touched == DRAWN).sum() == 24 + 2 * 2 and drawn.mask is layers.mask
    erased = apply_stroke(drawn, {"tool": "eraser", "points": [[10, 10]], "radius": 1})
    assert (erased.touched == ERASED).sum() == 5 and (erased.touched == DRAWN).sum() == 25
    assert not layers.touched.any() and (drawn.touched == ERASED).sum() == 0  # neither was changed


def test_the_hole_grows_and_shrinks_and_a_stroke_under_it_waits():
    layers = apply_stroke(Layers(hole(), np.zeros(SHAPE, np.uint8)), {"tool": "pen", "points": [[10, 10]], "radius": 0})
    base = np.zeros(SHAPE, bool)
    shrunk = apply_stroke(layers, {"tool": "unmask", "points": [[10, 10]], "radius": 5})
    assert not shrunk.mask[10, 10] and shrunk.mask.sum() < layers.mask.sum()
    assert edited_edges(base, layers)[10, 10] and not edited_edges(base, shrunk)[10, 10]
    grown = apply_stroke(shrunk, {"tool": "mask", "points": [[10, 10]], "radius": 4})
    assert edited_edges(base, grown)[10, 10] and grown.mask[10, 10]


def test_clear_reset_and_whole_maps():
    base, layers = np.ones(SHAPE, bool), Layers(hole(), np.zeros(SHAPE, np.uint8))
    clear = apply_stroke(layers, {"tool": "clear"})
    assert np.array_equal(edited_edges(base, clear), ~near_hole(hole()))
    assert np.array_equal(edited_edges(base, apply_stroke(clear, {"tool": "reset"})), base)
    some = np.random.default_rng(0).random(SHAPE) < 0.5
    given_edges = apply_stroke(layers, {"tool": "edges", "bits": pack_bits(some)})
    assert np.array_equal(edited_edges(base, given_edges), np.where(near_hole(hole()), some, base))
    assert np.array_equal(apply_stroke(layers, {"tool": "hole", "bits": pack_bits(some)}).mask, some)


def test_bits_come_back():
    for shape in ((1, 1), (3, 5), SHAPE):
        plane = np.random.default_rng(1).random(shape) < 0.5
        assert np.array_equal(unpack_bits(pack_bits(plane), shape), plane)


# undo and redo

acts = st.one_of(strokes, st.just("undo"), st.just("redo"))


@given(st.lists(acts, max_size=25))
@few(500)
def test_any_sequence_ends_where_replaying_the_strokes_in_force_does(sequence):
    history, in_force, undone = History(hole()), [], []  # the reference: two plain stacks
    for act in sequence:
        if act == "undo":
            assert history.undo() == bool(in_force)
            undone += [in_force.pop()] if in_force else []
        elif act == "redo":
            assert history.redo() == bool(undone)
            in_force += [undone.pop()] if undone else []
        else:
            history.do(act)
            in_force, undone = [*in_force, act], []
    layers = Layers(hole(), np.zeros(SHAPE, np.uint8))
    for stroke in in_force:
        layers = apply_stroke(layers, check_stroke(stroke, SHAPE))
    assert all(np.array_equal(a, b) for a, b in zip(history.layers, layers))
    assert json.loads(json.dumps(history.done)) == [check_stroke(stroke, SHAPE) for stroke in in_force]


def test_far_back_the_layers_are_drawn_again():
    history, seen = History(hole()), []
    rng = np.random.default_rng(0)
    for _ in range(180):
        seen.append(history.layers)
        history.do({"tool": str(rng.choice(["pen", "eraser", "mask"])), "points": rng.integers(0, 24, (3, 2)).tolist()})
    assert len(history._kept) < 80
    for expected in reversed(seen):
        assert history.undo() and all(np.array_equal(a, b) for a, b in zip(history.layers, expected))
    assert not history.undo()


def test_what_is_handed_out_is_a_copy():
    history = History(hole())
    history.do({"tool": "pen", "points": [[5, 5]], "radius": 0})
    history.done[0]["points"].append([9, 9])
    assert history.done == [{"tool": "pen", "points": [[5, 5]], "radius": 0}]


# refused


@pytest.mark.parametrize(
    ("stroke", "message"),
    [
        (None, "tool is 'NoneType'; wanted one of pen"),
        ([], "tool is 'list'"),
        ({}, "tool is 'None'"),
        ({"tool": "laser"}, "tool is 'laser'"),
        ({"tool": ["pen"]}, "tool is"),
        ({"tool": "pen"}, "points are None; wanted whole numbers"),
        ({"tool": "pen", "points": []}, "points are \\[\\]"),
        ({"tool": "pen", "points": "5,5"}, "points are 5,5; wanted whole numbers"),
        ({"tool": "pen", "points": [[1.5, 2]]}, "points are .*wanted whole numbers"),
        ({"tool": "pen", "points": [[True, False]]}, "wanted whole numbers"),
        ({"tool": "pen", "points": [[1, 2], [3]]}, "wanted whole numbers"),
        ({"tool": "pen", "points": [1, 2]}, r"shape \(2,\); wanted \(N, 2\)"),
        ({"tool": "pen", "points": [[1, 2]] * (MAX_POINTS + 1)}, "N of 1 to 20000"),
        ({"tool": "pen", "points": [[10**9, 0]]}, "from 0 to 1000000000; wanted -32 to 64 for a picture of 24 x 32"),
        ({"tool": "pen", "points": [[10**30, 0]]}, "wanted whole numbers"),
        ({"tool": "pen", "points": [[1, 2]], "radius": -1}, "radius is -1; wanted a whole number of 0 to 64"),
        ({"tool": "pen", "points": [[1, 2]], "radius": 10**6}, "radius is 1000000"),
        ({"tool": "pen", "points": [[1, 2]], "radius": [1, 2]}, "or one a point"),
        ({"tool": "pen", "points": [[1, 2]], "radius": None}, "radius are None"),
        ({"tool": "edges"}, "0 bytes; wanted 96 for 24 x 32"),
        ({"tool": "hole", "bits": "AAAA"}, "3 bytes; wanted 96"),
        ({"tool": "hole", "bits": "?"}, "0 bytes"),
    ],
)
def test_a_bad_stroke_says_what_came_and_leaves_the_state_alone(stroke, message):
    history = History(hole())
    history.do({"tool": "pen", "points": [[5, 5]], "radius": 0})
    before = history.layers
    with pytest.raises(BadStroke, match=message):
        history.do(stroke)
    assert history.position == 1 and history.layers is before


def test_unknown_keys_are_dropped():
    assert check_stroke({"tool": "clear", "x": 1}, SHAPE) == {"tool": "clear"}
