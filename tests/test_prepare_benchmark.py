"""benchmarks/prepare.py: its figures, at a tiny size. The times are not judged."""

import importlib
import json
from pathlib import Path

import pytest

import edgeconnect_lite

FOLDER = Path(edgeconnect_lite.__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    if not FOLDER.exists():
        pytest.skip("benchmarks/ is in the checkout alone")
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("prepare")


def test_every_part_is_measured(benchmark, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        benchmark, "probe", lambda name, *given, lists="off": benchmark.run_probe(name, list(map(str, given)))
    )
    monkeypatch.setitem(benchmark.PROBES, "first_step", lambda root, out: benchmark.list_pictures(root))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    file = tmp_path / "prepare.json"
    given = ["--pictures", "100", "--listed", "60", "--reads", "9", "--workers", "1"]
    benchmark.main([*given, "--folder", str(tmp_path), "--json", str(file)])
    results = json.loads(file.read_text())
    assert set(results["prepare"]) == {"10", "100"}
    assert set(results["read"]) == {"folder_10", "folder_100", "archive_10", "archive_100"}
    assert all(row["pictures_per_cpu_second"] > 0 for row in results["prepare"].values())
    assert 1000 < results["bytes_per_picture"]["source"] < results["bytes_per_picture"]["archive"] < 3 * 128 * 128
    assert str(tmp_path) not in file.read_text() and [path.name for path in tmp_path.iterdir()] == ["prepare.json"]
    assert "100 pictures prepared" in capsys.readouterr().out
