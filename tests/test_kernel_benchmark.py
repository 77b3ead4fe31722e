"""kernels/benchmark.py: its tables and its plot, at a tiny size. The times are not judged."""

import csv
from pathlib import Path

import edgeconnect_kernels
import pytest
import torch
from helpers import load_module, seeded

HERE = Path(edgeconnect_kernels.__file__).parents[1]


@pytest.fixture(scope="module")
def benchmark():
    if not (HERE / "benchmark.py").exists():
        pytest.skip("kernels/benchmark.py is in the checkout alone")
    return load_module(HERE / "benchmark.py")


def test_a_layer_gives_a_row_for_each_pass_and_implementation(benchmark, tmp_path, capsys):
    rows = benchmark.time_layer((1, 2, 4, 4), torch.float32, "channels_last", False, "cpu", compiled=False)
    names = ["copy", *benchmark.implementations(compiled=False)]
    assert [(row["pass"], row["implementation"]) for row in rows] == [(p, n) for p in benchmark.MOVED for n in names]
    for row in rows:
        moved = 4 if row["implementation"] == "copy" else benchmark.MOVED[row["pass"]]
        rate = moved * 32 * 4 / (row["milliseconds"] / 1e3) / 1e9
        assert row["milliseconds"] > 0 and rate == pytest.approx(row["gigabytes_per_second"], abs=0.2)
    benchmark.write(tmp_path / "times.csv", rows)
    with (tmp_path / "times.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    for device in ("cpu", "cuda"):
        benchmark.plot([row | {"dtype": "bfloat16", "format": "contiguous"} for row in rows], device).savefig(
            tmp_path / "a.png"
        )


def test_every_implementation_computes_the_same(benchmark):
    x, bias = seeded(2, 6, 4, 5), seeded(6, seed=1)
    for name, work in benchmark.implementations(compiled=False).items():
        torch.testing.assert_close(work(x, None), benchmark.eager(x), msg=name)
        torch.testing.assert_close(work(x, bias), benchmark.eager(x, bias), msg=name)


def test_what_a_generator_keeps(benchmark):
    eager, x, yg = benchmark.memory("cpu")
    assert (eager["save"], x["save"], yg["save"]) == ("eager", "x", "yg") and eager["kept_of_eager"] == 1
    assert yg["kept_mb"] < 0.85 * x["kept_mb"] < 0.6 * eager["kept_mb"]
    assert x["kept_of_eager"] == pytest.approx(x["kept_mb"] / eager["kept_mb"], abs=1e-3)


def test_the_sizes_are_those_of_the_u_net(benchmark):
    sizes = benchmark.layer_sizes(64, 3)
    assert sizes[0] == (3, 40, 32, 32) and (3, 192, 8, 8) in sizes and len(sizes) == len(set(sizes))
