"""benchmarks/experiments.py: the table, the budget, runs that are skipped or go on, and what becomes of their figures."""

import importlib
import json
from argparse import Namespace
from collections import Counter
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import save, shapes_photo

import edgeconnect_lite
from edgeconnect_lite.features import choose_features, open_features
from edgeconnect_lite.photos import FacePhotos
from edgeconnect_lite.samples import to_tensor

FOLDER = Path(edgeconnect_lite.__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def threads_as_before():
    torch_threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(torch_threads)
    cv2.setNumThreads(cv2_threads)


@pytest.fixture(scope="module")
def modules():
    if not FOLDER.exists():
        pytest.skip("benchmarks/ is in the checkout alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield {
            name: importlib.import_module(name) for name in ("experiments", "experiment_table", "experiment_measures")
        }


@pytest.fixture
def experiments(modules):
    return modules["experiments"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, faces = tmp_path_factory.mktemp("photos"), FacePhotos("test", 64)
    for i in range(8):
        save(folder / f"{i}.png", faces[i])
    return str(folder)


@pytest.fixture
def tiny(experiments, photos, tmp_path, monkeypatch):
    """All configurations with tiny networks and few photos, and 3 steps a run."""
    for name, config in experiments.CONFIGURATIONS.items():
        small = replace(config, photos=photos, width=4, bottom=8, blocks=1, batch_size=2, validation=4)
        monkeypatch.setitem(experiments.CONFIGURATIONS, name, small)
    monkeypatch.setattr(experiments, "seconds_a_step", lambda config: 0.01)
    return {"minutes": 0.0005, "results": tmp_path}


def differences(a, b):
    return {name for name in asdict(a) if asdict(a)[name] != asdict(b)[name]}


# the table


def test_at_most_45_runs_and_shared_ones_once(modules):
    table = modules["experiment_table"]
    runs = table.plan(list(table.EXPERIMENTS), 3)
    assert len(runs) == len(set(runs)) <= 45
    assert {name for name, _ in runs} == set(table.CONFIGURATIONS) - {table.CONSTANT}
    assert [seed for _, seed in runs] == sorted(seed for _, seed in runs)
    shared = Counter(name for names in table.EXPERIMENTS.values() for name in names)
    assert shared.pop("stage2-unet") == 3 and set(shared.values()) == {1}


def test_no_two_configurations_are_the_same(modules):
    every = [(type(config), asdict(config)) for config in modules["experiment_table"].CONFIGURATIONS.values()]
    assert all(a != b for i, a in enumerate(every) for b in every[:i])


def test_stage_1_goes_from_the_report_to_ours_one_part_at_a_time(modules):
    table = modules["experiment_table"]
    chain = [table.CONFIGURATIONS[f"stage1-{name}"] for name in ("report", "mask", "losses", "muon", "plain", "ours")]
    assert [differences(a, b) for a, b in pairwise(chain)] == [
        {"condition"},
        {"cross_entropy_weight", "adversarial_weight", "feature_matching_weight", "condition"},
        {"optimizer", "learning_rate", "betas", "discriminator_betas", "discriminator_rate"},
        {"adversarial_weight", "feature_matching_weight"},
        {"decision", "gray_weight"},
    ]


def test_all_share_data_and_budget_and_ours_are_the_defaults(modules):
    table = modules["experiment_table"]
    for config in table.CONFIGURATIONS.values():
        assert {name: getattr(config, name) for name in table.SHARED} == table.SHARED
    assert table.changes("stage1-ours") == table.changes("stage2-unet") == {}
    assert table.changes("stage2-residual") == {"skips": False}


def test_stage_1_comes_first_where_stage_2_needs_its_edges(modules):
    table = modules["experiment_table"]
    assert table.plan(["edges"], 2)[0] == (table.PREDICTOR, 0)
    assert table.plan(["features"], 1)[0] == (table.PREDICTOR, 0)  # it shares a run that is measured with them
    assert len(table.plan(["stage1"], 3)) == 21


# one run


def test_the_budget_becomes_steps_and_stays(experiments, tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "seconds_a_step", lambda config: 0.25)
    config = experiments.CONFIGURATIONS["stage1-ours"]
    assert experiments.budgeted(config, tmp_path, 5.0) == replace(config, steps=1200)
    monkeypatch.setattr(experiments, "seconds_a_step", lambda config: 99.0)  # not asked again
    assert experiments.budgeted(config, tmp_path, 5.0).steps == 1200
    with pytest.raises(SystemExit, match="--minutes 5"):
        experiments.budgeted(config, tmp_path, 4.0)


def test_the_clock_counts_steps_and_not_checkpoints(experiments, tmp_path, monkeypatch):
    time = iter([0.0, 1.0, 1.0, 2.0, 5.0, 7.5, 7.5])  # begin; a step; its end; a step; its end after a checkpoint; ...
    monkeypatch.setattr(experiments.StepClock, "now", staticmethod(lambda: next(time)))
    config = replace(experiments.CONFIGURATIONS["stage1-ours"], steps=9)
    clock = experiments.StepClock(tmp_path, config)
    clock.begin(0)
    for step in range(3):
        clock(step, {"loss": torch.tensor(1.0)})
    assert clock.each == [1.0, 1.0, 2.5] and clock.seconds == 4.5
    monkeypatch.setattr(experiments.StepClock, "now", staticmethod(lambda: 10.0))
    resumed = experiments.StepClock(tmp_path, config)
    resumed.load_state_dict(clock.state_dict())
    resumed.begin(3)
    assert resumed.seconds == 4.5 and experiments.StepClock.last is resumed


def test_calibration_takes_the_median_step(experiments):
    small = replace(experiments.CONFIGURATIONS["stage1-report"], width=4, bottom=8, blocks=1, batch_size=2)
    assert 0 < experiments.seconds_a_step(small, steps=3) < 60


def test_a_run_goes_on_where_it_was_killed_and_is_then_left_alone(experiments, tiny, tmp_path, monkeypatch):
    def weighted_sum(terms, config, step):
        if step == 2:
            raise KeyboardInterrupt
        return whole(terms, config, step)

    whole = experiments.training.weighted_sum
    every_step = replace(experiments.CONFIGURATIONS["stage1-ours"], checkpoint_minutes=0.0)
    monkeypatch.setitem(experiments.CONFIGURATIONS, "stage1-ours", every_step)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(experiments.training, "weighted_sum", weighted_sum)
        experiments.run("stage1-ours", 1, tmp_path, **tiny)
    folder = experiments.run_folder(tmp_path, "stage1-ours", 1)
    measured = experiments.measured_file(tmp_path, "stage1-ours", 1)
    assert not measured.exists()
    experiments.run("stage1-ours", 1, tmp_path, **tiny)
    row = json.loads(measured.read_text())
    assert len(experiments.StepClock.last.each) == 1 and experiments.StepClock.last.seconds == row["seconds"]
    assert row["steps"] == 3 and row["seconds"] > sum(experiments.StepClock.last.each)
    assert json.loads((folder / "edge_generator/training.json").read_text())["seed"] == 1
    (folder / "calibration.json").unlink()  # a finished run looks at nothing
    experiments.run("stage1-ours", 1, tmp_path, **tiny)
    assert not (folder / "calibration.json").exists()


def test_from_runs_to_results(experiments, tiny, tmp_path, monkeypatch):
    """End to end, but for the processes: stage 1, stage 2 with its edges, and the JSON."""
    monkeypatch.setattr(experiments, "start", lambda name, seed, options: experiments.run(name, seed, tmp_path, **tiny))
    monkeypatch.setattr(experiments, "telea_figures", lambda experiment, out: {})
    options = Namespace(out=tmp_path, results=tmp_path, seeds=1, minutes=0.0005, jobs=1, machine="a core")
    runs = [("stage1-ours", 0), ("stage2-mixed", 0), ("stage2-dilated", 0)]
    assert experiments.campaign(runs, list(experiments.EXPERIMENTS), options) == []
    found = {path.stem: json.loads(path.read_text()) for path in options.results.glob("*.json")}
    assert set(found) == {f"experiment-{name}" for name in experiments.EXPERIMENTS}
    edges = found["experiment-edges"]["configurations"]["stage2-mixed"]
    assert len(edges["figures"]) == 8 and (edges["seeds"], edges["steps"]) == (1, 3)
    assert set(edges["figures"]["strokes 0-10%"]) == {"psnr_none", "psnr_predicted", "psnr_true", "edge_effect"}
    stage1 = found["experiment-stage1"]["configurations"]["stage1-ours"]["figures"]
    assert set(stage1["brush 20-40%"]) == set(experiments.METRICS["stage1"])
    networks = found["experiment-networks"]["configurations"]["stage2-dilated"]
    assert 10.7e6 < networks["parameters"] < 10.9e6 and set(networks["figures"]) == {"strokes any", "brush 20-40%"}
    assert str(tmp_path) not in json.dumps(found)


def test_the_budgets_keep_one_run_each_and_what_blind_edges_would_score(experiments, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "BUDGETS", (0.0005, 0.001))
    monkeypatch.setitem(experiments.SHARED, "validation", 4)
    experiments.main(["budgets", "--out", str(tmp_path / "out"), "--results", str(tmp_path)])
    found = json.loads((tmp_path / "experiment-budgets.json").read_text())
    assert {minutes: row["steps"] for minutes, row in found["minutes"].items()} == {"0.0005": 3, "0.001": 6}
    assert set(found["edge_share"]) == {"strokes any", "brush 20-40%"}
    assert all(0 < share < 0.6 for share in found["edge_share"].values())


# all of them


def test_a_campaign_skips_what_is_done_and_names_what_failed(experiments, tmp_path, monkeypatch):
    started = []

    def start(name, seed, options):
        started.append((name, seed))
        if (name, seed) == ("stage1-ours", 1):
            raise RuntimeError("broken")
        finish(name, seed)

    def finish(name, seed):
        measured = experiments.measured_file(tmp_path / "results", name, seed)
        measured.parent.mkdir(parents=True, exist_ok=True)
        figures = {"strokes any": {"f1": 0.5 + seed}, "brush 20-40%": {"f1": 0.25}}
        row = {"settings": experiments.told(name), "minutes": 5.0, "machine": "a core", "steps": 10, "seconds": 2.0}
        row |= {"parameters": 3, "figures": figures}
        measured.write_text(json.dumps(row))

    finish("stage1-report", 0)
    monkeypatch.setattr(experiments, "start", start)
    monkeypatch.setattr(experiments, "telea_figures", lambda experiment, out: {})
    options = Namespace(out=tmp_path, results=tmp_path / "results", seeds=2, minutes=5.0, jobs=2, machine="a core")
    runs = [(n, s) for s in (0, 1) for n in ("stage1-ours", "stage1-report", "stage2-mixed")]
    failed = experiments.campaign(runs, ["stage1"], options)
    assert sorted(line.split(":")[0] for line in failed) == ["('stage1-ours', 1)", "('stage2-mixed', 1)"]
    assert ("stage1-report", 0) not in started and ("stage2-mixed", 1) not in started and len(started) == 4
    written = json.loads((options.results / "experiment-stage1.json").read_text())
    assert written["command"] == "python benchmarks/experiments.py stage1 --seeds 2 --minutes 5"
    assert written["configurations"]["stage1-report"]["machines"] == ["a core"] and set(written["configurations"]) == {
        "stage1-report",
        "stage1-ours",
    }
    f1 = written["configurations"]["stage1-report"]["figures"]["strokes any"]["f1"]
    assert f1 == {"mean": 1.0, "min": 0.5, "max": 1.5, "std": 0.7071}


def test_a_run_that_was_made_otherwise_stops_the_table_and_is_named(experiments, tmp_path):
    options = Namespace(results=tmp_path, seeds=1, minutes=5.0)
    measured = experiments.measured_file(tmp_path, "stage1-mask", 0)
    measured.parent.mkdir(parents=True)
    row = {"settings": experiments.told("stage1-mask"), "minutes": 5.0}
    for wrong in ({"minutes": 0.1}, {"settings": experiments.told("stage1-report")}):
        measured.write_text(json.dumps(row | wrong))
        with pytest.raises(SystemExit, match=r"stage1-mask-0\.json: made with .* wanted .* Remove it"):
            experiments.measured_rows("stage1-mask", options)
    measured.write_text(json.dumps(row))
    experiments.measured_file(tmp_path, "stage1-mask", 1).write_text("of a seed that is not asked for")
    assert experiments.measured_rows("stage1-mask", options) == [row]


def test_the_spread_of_one_seed_is_0(experiments):
    assert experiments.spread([2.0]) == {"mean": 2.0, "min": 2.0, "max": 2.0, "std": 0.0}


def test_list_prints_every_run_and_starts_none(experiments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiments, "start", lambda *_: pytest.fail("started a run"))
    experiments.main(["all", "--list", "--out", str(tmp_path), "--results", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 16 and lines[-1] == "45 runs of 5 minutes" and "0 of 3" in lines[0]


# what is measured


def test_perfect_results_have_perfect_figures(modules):
    measures = modules["experiment_measures"]
    photos = [shapes_photo(64, 64, seed) for seed in range(4)]
    sets = measures.held_out_sets(photos, 3, bins=True)
    assert set(sets) >= {"strokes any", "brush 20-40%", "strokes 0-10%", "strokes 50-60%"} and len(sets) == 8
    pairs = sets["brush 20-40%"]
    assert len(pairs) == 3 and np.array_equal(pairs[0][0], photos[1])
    figures = measures.edge_figures([measures.true_edges(photo) for photo, _ in pairs], pairs)
    assert figures == dict.fromkeys(figures, 1.0)
    assert measures.detail([photo for photo, _ in pairs], pairs) == 1.0
    assert measures.detail([np.full_like(photo, 9) for photo, _ in pairs], pairs) == 0.0


def test_a_stage_1_that_knows_nothing_is_as_sure_everywhere(modules):
    measures = modules["experiment_measures"]

    class Undecided:
        def __call__(self, x):
            return Namespace(logits=torch.zeros(len(x), 1, *x.shape[-2:]))

    pairs = measures.held_out_sets([shapes_photo(64, 64, seed) for seed in range(2)], 2, bins=False)["strokes any"]
    found = measures.mean_probabilities(Undecided(), pairs)
    assert found == {"probability_on_edges": 0.5, "probability_elsewhere": 0.5}


# the features that nothing was learned with


def test_random_vgg19_is_the_same_each_time_and_keeps_unit_size():
    assert choose_features("random") == "random"
    network, again = open_features("random"), open_features("random")
    assert not any(parameter.requires_grad for parameter in network.parameters())
    face = to_tensor(FacePhotos("test", 64)[0])[None]
    taps = network(face)
    assert [tap.shape[1] for tap in taps] == [64, 128, 256, 512, 512]
    assert all(torch.equal(tap, other) for tap, other in zip(taps, again(face)))
    assert all(0.3 < tap.square().mean().sqrt() < 3 for tap in taps)
