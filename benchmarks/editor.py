"""How fast the editor answers: 128 px, shipped weights, one thread of torch, a real browser, strokes of a real mouse.

    python benchmarks/editor.py [--strokes 50] [--seconds 10] [--machine TEXT] [--json FILE]

In a JupyterLab of its own: from the moment that the button goes up until Python holds the new edges, and until the frame after
the new result was painted; each stroke is drawn when the last one's result has been seen. Strokes on the hole, which need both
stages, stand apart. Then the frames while a person draws without a pause, with all four brushes: with the front end alone (a
stand-in for the model, no kernel), and in JupyterLab with the networks at work all the while. Page and kernel share a
machine, and so a clock, which is checked. A headless Chromium without a GPU draws 60 frames a second: 16.7 ms is the least.
Needs Chromium; JupyterLab and Chromium are started as the tests of tests/browser/ start them.
"""

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import command
import numpy as np
from editor_timed import HOLE, SIZE, open_editor
from experiments import rounded

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent / "tests"
WARMUP = 3  # strokes that do not count
PACKAGES = ("jupyterlab", "ipykernel", "anywidget", "torch")
BARS = {  # ms
    ("edges", "median"): 15, ("result", "median"): 150, ("result", "p95"): 300,
    ("frames_alone", "p95"): 20, ("frames_painting", "p95"): 20,
}  # fmt: skip
NAMES = {
    "edges": "button up to new edges in Python", "result": "button up to a new result on screen",
    "hole_result": "the same after a stroke on the hole, both stages",
    "frames_alone": "frames while drawing, the front end alone",
    "frames_painting": "frames while drawing, JupyterLab and the networks at work",
}  # fmt: skip
PARTS = ("to the kernel", "until stage 2 begins", "stage 2", "back, and painted", "until the next frame")

# ----- in the page -----

PROBE = """() => {
    const now = () => performance.timeOrigin + performance.now(), known = new WeakSet();
    const draw = CanvasRenderingContext2D.prototype.drawImage;
    const probe = window.probe = {recording: false};
    probe.forget = () => Object.assign(probe, {ups: [], painted: [], frames: []});
    probe.forget();
    probe.record = on => {
        probe.recording = on;
        let last = 0;
        const frame = at => {
            if (last) probe.frames.push(at - last);
            last = at;
            if (probe.recording) requestAnimationFrame(frame);
        };
        if (on) requestAnimationFrame(frame);
    };
    addEventListener('pointerup', event => probe.ups.push(performance.timeOrigin + event.timeStamp), true);
    CanvasRenderingContext2D.prototype.drawImage = function (source, ...place) {
        draw.call(this, source, ...place);
        if (!this.canvas.matches('.ee-pane[role=slider]') || known.has(source)) return;
        known.add(source);  // each result is a canvas of its own
        const at = now();
        requestAnimationFrame(() => probe.painted.push([at, now()]));
    };
}"""
NOW = "performance.timeOrigin + performance.now()"
RUN_CELL = """async () => {
    await jupyterapp.commands.execute('notebook:run-cell');
    return JSON.stringify(jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.toJSON().outputs);
}"""
EXECUTE = """async code => {
    const future = jupyterapp.shell.currentWidget.context.sessionContext.session.kernel.requestExecute({code});
    let text = '';
    future.onIOPub = ({content}) => { text += content.text ?? content.traceback?.join('\\n') ?? ''; };
    await future.done;
    return text;
}"""
Place = Callable[[float, float], tuple[float, float]]
LAB = [sys.executable, "-m", "edgeconnect_lite.cli", "lab", "--"]


def place_on(page: Any) -> Place:
    """From pixels of the picture to places on the page. The keys go to the editor from now on, and to no cell."""
    pane = page.locator(".edge-editor canvas").first
    pane.scroll_into_view_if_needed()
    pane.focus()
    box = pane.bounding_box()
    side = box["width"] / SIZE
    return lambda x, y: (box["x"] + (x + 0.5) * side, box["y"] + (y + 0.5) * side)


def curve(rng: np.random.Generator, moves: int) -> np.ndarray:
    """A bent line in the hole: (moves + 1, 2), x and y."""
    first, middle, last = rng.uniform(HOLE[0] + 2, HOLE[1] - 2, (3, 2))
    t = np.linspace(0, 1, moves + 1)[:, None]
    return (1 - t) ** 2 * first + 2 * t * (1 - t) * middle + t**2 * last


def drag(page: Any, place: Place, points: np.ndarray) -> None:
    """One stroke of the mouse; the browser takes one move a frame."""
    page.mouse.move(*place(*points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*place(*point))
    page.mouse.up()


def draw_and_wait(page: Any, count: int, keys: str, seed: int) -> None:
    """Strokes with the brushes of the keys in turn, each drawn when the last one's result has been seen.

    b and n (draw, shrink the hole) go new ways; e and m (erase, grow the hole) go the last one again: all change something.
    """
    rng, place = np.random.default_rng(seed), place_on(page)
    page.evaluate("probe.forget()")
    for number in range(count):
        key = keys[number % len(keys)]
        if key in "bn":
            points = curve(rng, moves=12)
        page.keyboard.press(key)
        drag(page, place, points)
        page.wait_for_function("count => probe.painted.length === count", arg=number + 1)


def draw_on(page: Any, seconds: float) -> list[float]:
    """Strokes without a pause, with all four brushes; the frames meanwhile, in ms."""
    rng, place, end, number = np.random.default_rng(0), place_on(page), time.monotonic() + seconds, 0
    page.evaluate("probe.forget(); probe.record(true)")
    while time.monotonic() < end:
        page.keyboard.press("bemn"[number % 4])
        drag(page, place, curve(rng, moves=24))
        number += 1
    page.evaluate("probe.record(false)")
    return page.evaluate("probe.frames")


def clock_difference(page: Any, tries: int = 50) -> tuple[float, float]:
    """The page's clock less Python's in ms, and how far the truth may be from that."""
    bounds = []
    for _ in range(tries):
        before, there, after = 1e3 * time.time(), page.evaluate(NOW), 1e3 * time.time()
        bounds.append((there - after, there - before))
    low, high = max(low for low, _ in bounds), min(high for _, high in bounds)
    return (low + high) / 2, abs(high - low) / 2


# ----- figures -----


def spread(values: Any) -> dict[str, float]:
    """Median and 95th percentile."""
    return {"median": float(np.median(values)), "p95": float(np.percentile(values, 95))}


def latencies(page: dict, kernel: dict) -> dict:
    """Of strokes in order: ms to new edges, ms to a new result, and the median ms of the latter's parts.

    page: "ups", (n,) ms; "painted", (n, 2) ms, the repaint and the frame after it. kernel: "strokes", (n, 2) s, each come and
    applied; "paintings", (n, 2) s, stage 2's begin and end; "message". Raises RuntimeError where they do not belong together.
    """
    ups, painted = np.asarray(page["ups"]), np.asarray(page["painted"])
    strokes, paintings = (1e3 * np.asarray(kernel[name]) for name in ("strokes", "paintings"))
    counts = [len(times) for times in (ups, strokes, paintings, painted)]
    if len(set(counts)) > 1 or kernel["message"]:
        raise RuntimeError(
            f"strokes in the page and in Python, paintings and results on screen number {counts}; wanted as many of each; "
            f"the editor says {kernel['message']!r}"
        )
    marks = [ups, strokes[:, 0], *paintings.T, *painted.T]
    parts = {name: float(np.median(end - start)) for name, start, end in zip(PARTS, marks, marks[1:])}
    return {"edges": spread(strokes[:, 1] - ups), "result": spread(painted[:, 1] - ups), "parts": parts}


def share_of(spans: list, start: float, end: float) -> float:
    """Which part of the time from start to end lies in the spans, (n, 2), which do not overlap."""
    return sum(max(0.0, min(b, end) - max(a, start)) for a, b in spans) / (end - start)


def report(results: dict) -> str:
    """The figures as a page."""
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    lines = [
        f"{results['size']} px, torch on one thread, {results['strokes']} strokes; load {results['load']:.1f}; {versions}"
    ]
    for name, said in NAMES.items():
        figures = []
        for key, label in (("median", "median"), ("p95", "95th percentile")):
            bar = BARS.get((name, key))
            figures.append(f"{label} {results[name][key]:.1f} ms" + (f" (bar {bar})" if bar else ""))
        lines.append(f"{said}: {', '.join(figures)}")
        if name == "result":
            lines += [f"  {part:<20} {ms:6.1f} ms" for part, ms in results["parts"].items()]
    lines.append(
        f"  the networks at work for {results['networks_share']:.0%} of it, {results['strokes_painting']} strokes"
    )
    lines.append(f"clocks {results['clocks_apart']:.2f} ms apart, +- {results['clocks_within']:.2f}")
    return "\n".join(lines)


# ----- the whole -----


def load(path: Path) -> ModuleType:
    """A module of the tests, by its path."""
    sys.path.insert(0, str(TESTS))
    spec = importlib.util.spec_from_file_location(f"editor_benchmark_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def need(name: str, found: Any) -> None:
    if not found:
        raise SystemExit(f"{name} is missing")


def write_notebook(path: Path) -> None:
    """One cell, which shows the editor."""
    source = f"import sys\nsys.path.insert(0, {str(HERE)!r})\nimport editor_timed\neditor = editor_timed.open_editor()\neditor"
    cell = {
        "cell_type": "code",
        "id": "editor",
        "metadata": {},
        "execution_count": None,
        "outputs": [],
        "source": source,
    }
    about = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": about, "cells": [cell]}), "utf-8")


def time_alone(page: Any, seconds: float) -> list[float]:
    """The frames with no server and no kernel."""
    front = load(TESTS / "browser" / "test_editor_front.py")
    errors = front.mount(page, open_editor(), front.SCRIPT)
    page.evaluate(PROBE)
    frames = draw_on(page, seconds)
    if errors:
        raise RuntimeError(errors[0])
    return frames


def time_in_lab(page: Any, options: argparse.Namespace) -> dict:
    """Latencies, then frames, with a kernel. The notebook is open."""

    def kernel(code: str) -> Any:
        said = page.evaluate(EXECUTE, code)
        return json.loads(said) if said else None

    def draw(count: int, keys: str, seed: int) -> tuple[dict, dict]:
        kernel("editor.forget()")
        draw_and_wait(page, count, keys, seed)
        return page.evaluate("probe"), kernel("print(editor.noted())")

    page.evaluate(PROBE)
    if '"output_type":"error"' in (outputs := page.evaluate(RUN_CELL)):
        raise RuntimeError(outputs)
    page.wait_for_function("probe.painted.length > 0")
    difference, within = clock_difference(page)
    if abs(difference) > 1 + within:
        raise RuntimeError(f"the page's clock and Python's are {difference:.1f} ms apart; wanted less than 1 ms")
    draw(WARMUP, "b", seed=1)
    found = latencies(*draw(options.strokes, "bbbbe", seed=2)) | {"clocks_apart": difference, "clocks_within": within}
    painted, _ = draw(max(2, options.strokes // 5), "nm", seed=3)
    found["hole_result"] = spread(np.asarray(painted["painted"])[:, 1] - painted["ups"])

    kernel(f"editor.forget(); editor.paint_on({options.seconds + 1})")
    start = time.time()
    frames = draw_on(page, options.seconds)
    end = time.time()
    noted = kernel("print(editor.noted())")
    share = share_of(noted["predictions"] + noted["paintings"], start, end)
    return found | {"frames": frames, "strokes_painting": len(noted["strokes"]), "networks_share": share}


def measure(options: argparse.Namespace) -> dict:
    """All figures, in ms, rounded."""
    results: dict = {"size": SIZE, "threads": 1, "strokes": options.strokes, "machine": options.machine}
    results["load"] = os.getloadavg()[0]  # by others, of the last minute
    start = load(TESTS / "browser" / "conftest.py")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        folders = SimpleNamespace(mktemp=lambda name: Path(tempfile.mkdtemp(prefix=name, dir=folder)))
        browser = stack.enter_context(contextmanager(start.browser.__wrapped__)(folders, need))  # a fixture's function
        page = browser.new_page()
        product = browser.new_cdp_session(page).send("Browser.getVersion")["product"]
        results["versions"] = {"chromium": product.split("/")[-1]} | {name: version(name) for name in PACKAGES}
        alone = time_alone(page, options.seconds)
        page.close()

        root = folders.mktemp("notebooks")
        write_notebook(root / "editor.ipynb")
        lab = stack.enter_context(start.jupyter(LAB, root, folders.mktemp("lab")))
        page = browser.new_page()
        lab.open(page, "editor.ipynb")
        found = time_in_lab(page, options)
    frames = {"frames_alone": alone, "frames_painting": found.pop("frames")}
    return rounded(results | found | {name: spread(each) | {"count": len(each)} for name, each in frames.items()})


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--strokes", type=int, default=50, help="whose latency is measured; a fifth as many on the hole"
    )
    parser.add_argument("--seconds", type=float, default=10, help="of drawing without a pause, on each side")
    command.add_output(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    command.run("editor.py", arguments, parse(arguments), measure, report)


if __name__ == "__main__":
    main()
