"""benchmarks/editor.py: how its figures come from what page and kernel noted. The browser and the times are not judged."""

import importlib
import inspect
import json
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

import edgeconnect_lite

FOLDER = Path(edgeconnect_lite.__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    if not FOLDER.exists():
        pytest.skip("benchmarks/ is in the checkout alone")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("editor")
    torch.set_num_threads(threads)


def noted(count=20):
    """A stroke a second: 5 ms to the kernel, 2 to stage 2, which takes 30 and once 90, 8 to the repaint, 16 to the frame."""
    ups = 1e12 + 1e3 * np.arange(count)
    slow = np.where(np.arange(count) == count - 1, 60, 0)
    page = {"ups": ups.tolist(), "painted": np.stack([ups + 45 + slow, ups + 61 + slow], axis=1).tolist()}
    strokes = np.stack([ups + 5, ups + 6], axis=1) / 1e3
    paintings = np.stack([ups + 7, ups + 37 + slow], axis=1) / 1e3
    return page, {"strokes": strokes.tolist(), "paintings": paintings.tolist(), "message": ""}


def test_latencies_and_their_parts(benchmark):
    found = benchmark.latencies(*noted())
    assert found["edges"]["median"] == pytest.approx(6, abs=0.01)
    assert found["result"]["median"] == pytest.approx(61, abs=0.01)
    assert found["result"]["p95"] == pytest.approx(61 + 0.05 * 60, abs=0.01)  # 19 of 20 are fast
    assert list(found["parts"].values()) == pytest.approx([5, 2, 30, 8, 16], abs=0.01)


@pytest.mark.parametrize("name", ["strokes", "paintings"])
def test_strokes_that_do_not_belong_together_are_no_figure(benchmark, name):
    page, kernel = noted()
    kernel[name].pop()
    with pytest.raises(RuntimeError, match=r"number \[20, (19, 20|20, 19), 20\]"):
        benchmark.latencies(page, kernel)


def test_an_editor_that_complained_gives_no_figure(benchmark):
    page, kernel = noted()
    with pytest.raises(RuntimeError, match="a bad stroke"):
        benchmark.latencies(page, kernel | {"message": "a bad stroke"})


def test_the_share_of_the_networks(benchmark):
    assert benchmark.share_of([(0, 3), (4, 5), (9, 20)], 1, 11) == pytest.approx(0.5)


def test_a_clock_that_is_wrong_is_found(benchmark):
    class Page:
        def evaluate(self, asked):
            return 1e3 * time.time() + 40

    difference, within = benchmark.clock_difference(Page())
    assert abs(difference - 40) <= within + 1e-3 and within < 5


def test_curves_stay_in_the_hole(benchmark):
    rng, (low, high) = np.random.default_rng(0), benchmark.HOLE
    curves = np.stack([benchmark.curve(rng, moves=9) for _ in range(50)])
    assert curves.shape == (50, 10, 2) and curves.min() > low and curves.max() < high


def test_bars_stand_beside_the_figures_and_no_path_in_the_file(benchmark, monkeypatch, tmp_path, capsys):
    results = benchmark.latencies(*noted()) | {name: {"median": 16.7, "p95": 33.4} for name in benchmark.NAMES}
    results |= {"size": 128, "strokes": 20, "load": 0.0, "versions": {"chromium": "1.2"}, "networks_share": 0.93}
    results |= {"strokes_painting": 21, "clocks_apart": 0.1, "clocks_within": 0.2}
    monkeypatch.setattr(benchmark, "measure", lambda options: results | {"machine": options.machine})
    file = tmp_path / "editor.json"
    benchmark.main(["--machine", "two cores", "--json", str(file)])
    out, written = capsys.readouterr().out, file.read_text()
    for bar in benchmark.BARS.values():
        assert f"(bar {bar})" in out
    assert (
        "stage 2                30.0 ms" in out and "95th percentile 33.4 ms (bar 20)" in out and "chromium 1.2" in out
    )
    assert json.loads(written)["command"] == "python benchmarks/editor.py --machine 'two cores' --json editor.json"
    assert json.loads(written)["machine"] == "two cores" and str(tmp_path) not in written


def test_what_it_takes_from_the_tests_is_there(benchmark, tmp_path):
    start = benchmark.load(benchmark.TESTS / "browser" / "conftest.py")
    assert list(inspect.signature(start.browser.__wrapped__).parameters) == ["tmp_path_factory", "needs_tool"]
    assert list(inspect.signature(start.jupyter).parameters) == ["command", "root", "folder"]
    front = benchmark.load(benchmark.TESTS / "browser" / "test_editor_front.py")
    assert list(inspect.signature(front.mount).parameters) == ["page", "widget", "script"] and front.SCRIPT
    benchmark.write_notebook(tmp_path / "editor.ipynb")
    nbformat.validate(nbformat.read(tmp_path / "editor.ipynb", as_version=4))


def test_the_editor_notes_its_strokes_and_its_networks(benchmark):
    editor = benchmark.open_editor()
    for at, tool in enumerate(("pen", "unmask")):
        stroke = {"tool": tool, "points": [[40, 40 + 20 * at], [60, 60]], "radius": 2}
        before = time.time()
        editor._receive(None, {"type": "do", "stroke": stroke, "at": at}, [])
        found = json.loads(editor.noted())
        came, applied = found["strokes"][at]
        assert before <= came <= applied <= time.time() and len(found["paintings"]) == at + 1 and found["message"] == ""
    assert len(found["predictions"]) == 1  # the hole has changed
    editor.forget()
    editor.paint_on(0.5)
    time.sleep(0.5)
    found = json.loads(editor.noted())
    assert not found["strokes"] and len(found["paintings"]) > 1
    assert benchmark.share_of(found["paintings"], found["paintings"][0][0], found["paintings"][-1][1]) > 0.5
