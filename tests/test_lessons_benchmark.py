"""benchmarks/lessons.py: what it measures of a command, and the bars that the stored figures of all lessons are held to."""

import importlib
import json
import sys
from pathlib import Path

import pytest

import edgeconnect_lite

ROOT = Path(edgeconnect_lite.__file__).parents[1]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
CHILD = "import time; held = bytearray(120_000_000); time.sleep(1)"  # after a larger moment
PARENT = f"""
import subprocess, sys
held = bytearray(400_000_000)
code = "first = bytearray(200_000_000); del first; " + {CHILD!r}
both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
sys.exit(sum(process.wait() for process in both))
"""


@pytest.fixture(scope="module")
def benchmark():
    if not (ROOT / "benchmarks").exists():
        pytest.skip("benchmarks/ is in the checkout alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("lessons")


def test_memory_is_the_childrens_together(benchmark, tmp_path):
    found = benchmark.cost([sys.executable, "-c", PARENT], tmp_path)
    assert 240 < found["peak_mb"] < 400  # twice 120, not once 200, and not the parent's 400
    assert found["cpu_seconds"] > 0 and found["seconds"] > 1


def test_a_command_has_an_empty_home(benchmark, tmp_path):
    code = "import os, pathlib, tempfile; assert not [*pathlib.Path.home().iterdir()] and not os.listdir(tempfile.gettempdir())"
    benchmark.cost([sys.executable, "-c", code], tmp_path)


def test_a_lesson_that_fails_has_no_cost(benchmark, tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)ended with 1:.*no such lesson"):
        benchmark.cost([sys.executable, "-c", "import sys; sys.exit('no such lesson')"], tmp_path)


def test_the_report_names_what_is_above_a_bar(benchmark):
    fine = {"seconds": 50.0, "cpu_seconds": 80.0, "peak_mb": 500.0}
    lines = benchmark.report({"lessons": {"00": fine, "01": fine | {"seconds": 500.0, "peak_mb": 4000.0}}}).splitlines()
    assert [line.split()[0] for line in lines] == ["lesson", "00", "01", "all"]
    assert "above" not in lines[1] and "seconds above 90" in lines[2] and "peak_mb above 3000" in lines[2]
    assert lines[3].split() == ["all", "550.0", "160.0", "above", "480"]


def test_every_lesson_was_measured_and_is_within_the_bars(benchmark):
    costs, total = json.loads((ROOT / "results/lessons.json").read_text())["lessons"], 0
    assert list(costs) == [path.name[:2] for path in sorted(benchmark.NOTEBOOKS.glob("*.ipynb"))]
    for number, cost in costs.items():
        seconds = min(cost["seconds"], cost["cpu_seconds"])  # where others worked too, its own seconds say more
        assert seconds <= benchmark.BARS["seconds"] and cost["peak_mb"] <= benchmark.BARS["peak_mb"], (number, cost)
        total += seconds
    assert total <= benchmark.ALL_SECONDS
