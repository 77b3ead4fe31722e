"""Checkers of lesson 08: mirrored strokes, a history with undo and redo, how much each stroke moved the hole."""

import copy
import json
from collections.abc import Callable

import numpy as np

from edgeconnect_lite.editor.strokes import History
from edgeconnect_lite.exercises.checking import WrongAnswer, require, say

DRAWN = [
    {"tool": "mask", "points": [[3, 4], [20, 4]], "radius": 3},
    {"tool": "clear"},
    {"tool": "pen", "points": [[0, 9], [15, 2], [31, 30]], "radius": 0},
    {"tool": "eraser", "points": [[7, 7]], "radius": [2]},
    {"tool": "reset"},
]


def check_mirrored(mirrored: Callable) -> None:
    """Lesson 08, easy. mirrored(strokes, width) -> the strokes for the photo turned left to right, as a new list."""
    given = copy.deepcopy(DRAWN)
    answer = mirrored(given, 32)
    if answer is None:
        return say(False)
    require(
        given == DRAWN, "the list that was given is another now; wanted: a copy that is changed, the given left alone"
    )
    require(isinstance(answer, list), f"came: {type(answer).__name__}; wanted: a list of strokes")

    answer = json.loads(json.dumps(answer, default=lambda value: np.asarray(value).tolist()))  # arrays count as lists

    def turned(number: int, y: bool = False) -> list[dict]:
        at = [[[a, number - b] if y else [number - a, b] for a, b in stroke.get("points", [])] for stroke in DRAWN]
        return [stroke | ({"points": p} if p else {}) for stroke, p in zip(DRAWN, at, strict=True)]

    usual = {
        "the columns count from 0 to width - 1: column 0 goes to width - 1, not to width": turned(32),
        "that mirrors up and down; x, the column, comes first in a point": turned(31, y=True),
        "nothing is mirrored": DRAWN,
        "a stroke without points (clear, reset) is lost": [stroke for stroke in turned(31) if "points" in stroke],
        "the order of the strokes must stay": turned(31)[::-1],
    }
    for message, other in usual.items():
        if answer == other:
            raise WrongAnswer(message)
    for i, (came, wanted) in enumerate(zip(answer, turned(31), strict=False)):
        require(came == wanted, f"stroke {i}: came: {str(came)[:80]}; wanted: {wanted}")
    require(len(answer) == len(DRAWN), f"came: {len(answer)} strokes; wanted {len(DRAWN)}")
    say(True)


def _held(acts: list) -> list:
    """The strokes that hold after the acts, as the editor's history has it."""
    history = History(np.zeros((4, 4), bool))
    for act in acts:
        getattr(history, act)() if isinstance(act, str) else history.do(act)
    return history.done


def check_strokes_held(strokes_held: Callable) -> None:
    """Lesson 08, medium. strokes_held(acts) -> the strokes that hold at the end. An act is a stroke, "undo" or "redo"."""
    a, b, c, d = ({"tool": "pen", "points": [[i, i]], "radius": 0} for i in range(4))
    cases = {
        "without undo and redo all strokes hold": [a, b, c],
        "undo takes the last stroke back": [a, b, "undo"],
        "redo does what was undone": [a, b, c, "undo", "undo", "redo"],
        "undo with nothing left changes nothing": ["undo", a, "undo", "undo", b],
        "redo with nothing undone changes nothing": [a, "redo", b, "redo"],
        "a new stroke ends what could be redone": [a, b, "undo", c, "redo"],
        "a new stroke ends all that could be redone": [a, b, c, "undo", "undo", d, "redo", "redo", "undo"],
        "the same stroke may be drawn twice": [a, b, a, "undo", "redo", a, "undo"],
    }
    for rule, acts in cases.items():
        given = copy.deepcopy(acts)
        try:
            answer = strokes_held(given)
        except (IndexError, ValueError) as error:
            raise WrongAnswer(f"{rule}: it raised {type(error).__name__}: {error}") from error
        if answer is None:
            return say(False)
        require(given == acts, f"{rule}: the list that was given is another now; wanted: left alone")
        require(isinstance(answer, list | tuple), f"{rule}: came: {type(answer).__name__}; wanted: a list of strokes")
        wanted, named = _held(acts), {str(stroke): name for stroke, name in zip((a, b, c, d), "abcd", strict=True)}
        came = [named.get(str(stroke), str(stroke)) for stroke in answer]
        told = [named.get(str(act), str(act)) for act in acts]
        require(
            list(answer) == wanted,
            f"{rule}: of {', '.join(told)} came: {came}; wanted: {[named[str(s)] for s in wanted]}",
        )
    rng = np.random.default_rng(0)
    for _ in range(200):
        acts = [[a, b, c, d, "undo", "redo"][i] for i in rng.choice(6, 12, p=(0.1, 0.1, 0.1, 0.1, 0.35, 0.25))]
        require(list(strokes_held(list(acts))) == _held(acts), f"one of 200 random lists of acts: {acts}")
    say(True)


def check_stroke_effects(stroke_effects: Callable) -> None:
    """Lesson 08, hard. stroke_effects(paint, strokes, mask) -> for each stroke, how far the hole moves without it.

    paint: a list of strokes -> uint8 (H, W, 3). mask: bool (H, W). Returns gray levels, mean absolute difference of the hole's
    pixels and colours, between the picture from all strokes and the one from all but this one; one number a stroke.
    """
    rng = np.random.default_rng(0)
    shares = rng.integers(-60, 60, (5, 20, 24, 3))
    mask = np.zeros((20, 24), bool)
    mask[5:15, 6:20] = True
    strokes = [{"tool": "pen", "points": [[i, 0]], "radius": 0} for i in range(5)]

    def paint(kept: list) -> np.ndarray:
        numbers = [stroke["points"][0][0] for stroke in kept]
        picture = 128 + sum((shares[i] for i in numbers), np.zeros((20, 24, 3), int))
        if 1 in numbers and 3 in numbers:  # strokes work together, so their effects do not add up
            picture = picture + 25
        if numbers != sorted(numbers):
            picture = picture - 40  # and their order counts
        return picture.clip(0, 255).astype(np.uint8)

    def moved(one: list, other: list, where: np.ndarray = mask, wrap: bool = False) -> float:
        a, b = (paint(kept) for kept in (one, other))
        return float((a - b if wrap else np.abs(a.astype(float) - b))[where].mean())

    given = copy.deepcopy(strokes)
    answer = stroke_effects(paint, given, mask)
    if answer is None:
        return say(False)
    require(given == strokes, "the list that was given is another now; wanted: left alone")
    try:
        came = np.asarray(answer, float)
    except (TypeError, ValueError):
        came = np.empty(0)
    require(came.shape == (5,), f"came: {str(answer)[:80]}; wanted: one number a stroke, 5 in all")
    without = [strokes[:i] + strokes[i + 1 :] for i in range(5)]
    every = np.ones_like(mask)
    wanted = [moved(strokes, rest) for rest in without]
    usual = {
        "that is what each stroke does alone, on an empty hole; leave one out of all instead": [
            moved([s], []) for s in strokes
        ],
        "that is what each stroke adds to those before it; the later ones belong to both pictures": [
            moved(strokes[: i + 1], strokes[:i]) for i in range(5)
        ],
        "the mean is over the whole picture; wanted over the hole": [moved(strokes, rest, every) for rest in without],
        "the mean is over the known pixels; wanted over the hole": [moved(strokes, rest, ~mask) for rest in without],
        "uint8 wraps around below 0: convert to float before the difference": [
            moved(strokes, rest, wrap=True) for rest in without
        ],
        "the numbers are in the order of the effects; wanted in that of the strokes": sorted(wanted, reverse=True),
        "the numbers are shares of 255; wanted gray levels": list(np.divide(wanted, 255)),
    }
    for message, other in usual.items():
        if np.allclose(came, other, atol=1e-6):
            raise WrongAnswer(message)
    require(bool(np.allclose(came, wanted, atol=1e-6)), f"came: {came.round(2)}; wanted: {np.round(wanted, 2)}")
    say(True)
