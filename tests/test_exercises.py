"""The exercises: solutions pass, stubs pass unattempted, and the usual wrong answers each get their own message."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from edgeconnect_lite import exercises, known_edges, to_gray, true_edges

SOLUTIONS = Path(__file__).parents[1] / "notebooks" / "solutions"
LESSONS = {
    "00_start_here": {"mask_photo": "mask_photo", "edge_effect": "edge_effect", "redraw": "redraw"},
    "01_photos_masks_edges": {
        "read_quick_draw": "read_quick_draw", "noised": "noised_edges", "edge_input": "edge_input",
    },
}  # fmt: skip
PAIRS = [(lesson, name, check) for lesson, names in LESSONS.items() for name, check in names.items()]


def checker(name):
    return getattr(exercises, f"check_{name}")


def test_every_checker_and_every_solution_is_listed():
    assert {check for _, _, check in PAIRS} == {n[6:] for n in vars(exercises) if n.startswith("check_")}
    assert sorted(LESSONS) == sorted(path.stem for path in SOLUTIONS.glob("*.py"))


@pytest.mark.parametrize("lesson, name, check", PAIRS)
def test_the_solution_is_correct(lesson, name, check, capsys):
    checker(check)(runpy.run_path(str(SOLUTIONS / f"{lesson}.py"))[name])
    assert capsys.readouterr().out == "correct\n"


@pytest.mark.parametrize("check", [check for _, _, check in PAIRS])
def test_the_stub_is_not_attempted_yet(check, capsys):
    checker(check)(lambda *arguments: None)
    assert capsys.readouterr().out == "not attempted yet\n"


def _gray_of(photo):
    return to_gray(photo) / 255


def _changes_its_argument(photo, mask):
    photo[mask] = 0
    return photo


def _with_channels(gray, known, mask):
    return np.stack([gray, known, mask]).astype(np.float32)


WRONG = {
    "mask_photo": [
        (lambda p, m: np.where(m[..., None], p, np.uint8(0)), "wrong way round"),
        (_changes_its_argument, "changed the photo"),
        (lambda p, m: p * (1 - m[..., None]), "wanted: an array uint8"),
        (lambda p, m: p, "the hole holds values up to"),
        (lambda p, m: np.where(m[..., None], 0, p // 2).astype(np.uint8), "known pixels differ"),
    ],
    "edge_effect": [
        (lambda a, b, m: np.abs(a.astype(float) - b).mean(), "over the hole alone"),
        (lambda a, b, m: (a - b)[m].mean(), "uint8 wraps around"),
        (lambda a, b, m: np.abs(a[m].astype(float) - b[m]), "wanted: one number"),
        (lambda a, b, m: "9.9", "wanted: one number"),
        (lambda a, b, m: 2 * np.abs(a[m].astype(float) - b[m]).mean(), "wanted"),
    ],
    "redraw": [
        (lambda e, s, m: e | s, "outside the hole changed"),
        (lambda e, s, m: e | (s & m), "old edge pixels are left"),
        (lambda e, s, m: e & ~m, "not whole inside the hole"),
        (lambda e, s, m: np.where(m, s, e).astype(float), "wanted: an array bool"),
    ],
    "read_quick_draw": [
        (lambda p: p >= 128, "wrong way round"),
        (lambda p: p == 0, "1 pixels differ"),
        (lambda p: (p < 128).astype(np.uint8), "wanted: an array bool"),
    ],
    "noised_edges": [
        (lambda e, rng: e + rng.normal(0, 0.1, e.shape), "wanted [0, 0.2]"),
        (lambda e, rng: np.abs(e - np.abs(rng.normal(0, 0.1, e.shape)).clip(0, 0.2)), "clipped"),
        (lambda e, rng: np.abs(e - rng.uniform(0, 0.2, e.shape)), "uniform?"),
        (lambda e, rng: e, "spread"),
        (lambda e, rng: np.abs(e - np.abs(np.random.default_rng().normal(0, 0.04, e.shape)).clip(0, 0.19)), None),
    ],
    "edge_input": [
        (lambda p, m: _with_channels(_gray_of(p), known_edges(p, m), m), r"channel 0 \(masked gray\) changes"),
        (lambda p, m: _with_channels(_gray_of(p) * ~m, true_edges(p) & ~m, m), r"channel 1 \(known edges\) changes"),
        (lambda p, m: _with_channels(_gray_of(p) * ~m, known_edges(p, m), ~m), "channel 2: .* differ from the mask"),
        (lambda p, m: _with_channels(to_gray(p) * ~m, known_edges(p, m), m), "differ from the masked gray"),
        (lambda p, m: np.stack([_gray_of(p) * ~m, known_edges(p, m), m]), "wanted: an array float32"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("check, number", [(check, i) for check, answers in WRONG.items() for i in range(len(answers))])
def test_a_wrong_answer_gets_its_own_message(check, number):
    answer, message = WRONG[check][number]
    with pytest.raises(exercises.WrongAnswer) as error:
        checker(check)(answer)
    if message:
        import re

        assert re.search(
            re.escape(message) if "(" not in message and ".*" not in message else message, str(error.value)
        )
