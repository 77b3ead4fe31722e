"""benchmarks/train.py: its figures, at a tiny size. The times are not judged."""

import importlib
import json
from pathlib import Path

import cv2
import pytest
import torch
from helpers import save, shapes_photo
from torch.nn.utils import parametrize

import edgeconnect_lite

FOLDER = Path(edgeconnect_lite.__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    if not FOLDER.exists():
        pytest.skip("benchmarks/ is in the checkout alone")
    threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("train")
    torch.set_num_threads(threads)
    cv2.setNumThreads(cv2_threads)


def test_both_sides_train_and_are_compared(benchmark, tmp_path, capsys):
    for i in range(3):
        save(tmp_path / f"photos/{i}.png", shapes_photo(32, 32, i))
    given = "--rounds 1 --steps 1 --repeats 1 --size 32 --photo-size 32 --batch-size 1 --precisions no --threads 1"
    file = tmp_path / "train.json"
    benchmark.main([*given.split(), "--optimizer", "adam", "--photos", str(tmp_path / "photos"), "--json", str(file)])
    results = json.loads(file.read_text())
    for row in (results["edge_step"]["no"], results["image_step"]["no"], results["photo"]):
        assert row["ratio"] == pytest.approx(row["dilated_seconds"] / row["ours_seconds"], rel=2e-3)
    assert results["edge_step"]["no"]["ours_images_per_second"] > 0 and "edge_bf16_gain" not in results
    assert capsys.readouterr().out.count("dilated") == 3


def test_the_gain_of_bf16_stands_apart(benchmark, monkeypatch):
    seconds = {("ours", "bf16"): 1.0, ("ours", "no"): 2.0, ("dilated", "bf16"): 6.0, ("dilated", "no"): 9.0}
    monkeypatch.setattr(benchmark, "time_turn", lambda stage, side, precision, options: [seconds[side, precision]] * 3)
    monkeypatch.setattr(benchmark, "time_photo", lambda size, repeats: {s: 1.0 for s in benchmark.PHOTO})
    options = benchmark.parse([])
    results = benchmark.measure(options)
    assert results["edge_bf16_gain"] == {"ours": 2.0, "dilated": 1.5}
    assert results["image_step"]["bf16"]["ratio"] == 6.0 and results["image_step"]["no"]["ratio"] == 4.5
    assert results["image_step"]["bf16"]["ours_images_per_second"] == 8.0
    assert "bf16 against float32: ours 2.00x, dilated 1.50x" in benchmark.report(results)


def test_the_sides_differ_in_the_generator_alone(benchmark):
    options = benchmark.parse([])
    for stage, allowed in (("edge", set()), ("image", {"network"})):
        ours, peer = (vars(benchmark.configured(stage, side, "bf16", options)) for side in benchmark.SIDES)
        assert {name for name in ours if ours[name] != peer[name]} == allowed


def test_the_peer_gives_logits_and_is_the_same_without_its_parametrization(benchmark):
    peer = benchmark.peer_edges().eval()
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        before = peer(x).logits
        assert torch.equal(torch.sigmoid(before), benchmark.DilatedGenerator.forward(peer, x))
        benchmark.ready(peer)
        assert not any(parametrize.is_parametrized(module) for module in peer.modules())
        torch.testing.assert_close(peer(x).logits, before)
