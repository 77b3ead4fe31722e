"""The experiments of the course: what made the two stages work. 64 px, 5 minutes of one core a run, 3 seeds.

    python benchmarks/experiments.py networks|stage1|edges|features|all [--seeds 3] [--minutes 5] [--jobs 2] [--list]
    python benchmarks/experiments.py budgets    # the report's stage 1 at shorter budgets: when is it silent?

Equal time, not equal steps: a short calibration says what a step of a configuration costs, and the run gets as many steps
as its budget of CPU time pays for (one thread, so CPU time is one core's). A run that several experiments share is done
once. Killed, the same command goes on: finished runs are skipped, an unfinished one resumes from its checkpoint. After
each run results/experiment-<name>.json is written anew from all that is finished.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from experiment_measures import WHOLE, held_out_sets, measure_edges, measure_painting, measure_telea
from experiment_table import (
    BUDGETS,
    CONFIGURATIONS,
    CONSTANT,
    EXPERIMENTS,
    METRICS,
    PREDICTOR,
    SHARED,
    changes,
    needs_predictor,
    plan,
)

from edgeconnect_lite import training
from edgeconnect_lite.checkpoints import CHECKPOINT
from edgeconnect_lite.dilated import DilatedGenerator
from edgeconnect_lite.edges import true_edges
from edgeconnect_lite.generators import EdgeGenerator, ImageGenerator
from edgeconnect_lite.photos import write_bytes
from edgeconnect_lite.run_parts import open_photos
from edgeconnect_lite.runs import Log
from edgeconnect_lite.training import EdgeTraining, ImageTraining
from edgeconnect_lite.weights import load_network

CALIBRATION_STEPS = 30

# ----- one run, in a process of its own -----


class StepClock(Log):
    """The run's log, which also knows what the steps have cost; what measuring and the checkpoints cost does not count."""

    now = staticmethod(time.process_time)
    last: "StepClock"  # the newest, since the loops keep theirs to themselves

    def begin(self, start: int) -> "StepClock":
        super().begin(start)
        StepClock.last = self
        self.each: list[float] = []  # seconds of every step since
        self.before = 0.0 if not start else self.before
        self.mark = self.now()
        return self

    def __call__(self, step: int, terms: dict[str, torch.Tensor]) -> bool:
        self.each.append(self.now() - self.mark)
        due = super().__call__(step, terms)
        self.mark = self.now()
        return due

    @property
    def seconds(self) -> float:
        return self.before + sum(self.each)

    def state_dict(self) -> dict:
        return super().state_dict() | {"seconds": self.seconds}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.before = state["seconds"]


def train(config: EdgeTraining | ImageTraining, out: Path, resume: bool = False, clock: type = StepClock) -> StepClock:
    """Train with the package's own loop, timed."""

    def save_checkpoint(*given: Any) -> None:  # the last that a step does; it may have been measured before it
        saved(*given)
        StepClock.last.mark = StepClock.last.now()

    saved = training.save_checkpoint
    with patch.object(training, "Log", clock), patch.object(training, "save_checkpoint", save_checkpoint):
        (training.train_edge if isinstance(config, EdgeTraining) else training.train_image)(config, out, resume)  # type: ignore
    return StepClock.last


def seconds_a_step(config: EdgeTraining | ImageTraining, steps: int = CALIBRATION_STEPS) -> float:
    """The median over a few steps of a run that is then thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        return median(train(replace(config, steps=steps, validation=1), Path(folder)).each)


def budgeted(config: EdgeTraining | ImageTraining, folder: Path, minutes: float) -> EdgeTraining | ImageTraining:
    """The config with as many steps as `minutes` of CPU time pay for: calibrated once, kept in the run's folder."""
    kept = folder / "calibration.json"
    if not kept.exists():
        each = seconds_a_step(config)
        found = {"minutes": minutes, "seconds_a_step": round(each, 5), "steps": max(1, round(60 * minutes / each))}
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(kept, json.dumps(found).encode())
    found = json.loads(kept.read_text("utf-8"))
    if found["minutes"] != minutes:
        raise SystemExit(f"{folder}: begun with --minutes {found['minutes']:g}; give that, or another --out")
    return replace(config, steps=found["steps"])


def run(name: str, seed: int, out: Path, results: Path, minutes: float, machine: str = "") -> None:
    """Train and measure one configuration, or what is left of it to do; ends with its measured_file."""
    folder, measured = run_folder(out, name, seed), measured_file(results, name, seed)
    if is_done(name, seed, out, results):
        return
    config, predictor = replace(CONFIGURATIONS[name], seed=seed), None
    if needs_predictor(name):
        pair = run_folder(out, PREDICTOR, seed)
        config = replace(config, edge_weights=str(pair)) if config.predicted_edges else config  # type: ignore
        predictor = load_network(pair / EdgeTraining.stage, EdgeGenerator)
    config = budgeted(config, folder, minutes)
    clock = train(config, folder, resume=(folder / config.stage / CHECKPOINT).exists())
    sets = held_out_sets(open_photos(config.photos, config.size), config.validation, needs_predictor(name))
    if isinstance(config, EdgeTraining):
        generator = load_network(folder / config.stage, EdgeGenerator)
        figures = measure_edges(generator, sets)
    else:
        kind = DilatedGenerator if config.network == "dilated" else ImageGenerator
        generator = load_network(folder / config.stage, kind)
        figures = measure_painting(generator, sets, predictor)
    parameters = sum(p.numel() for p in generator.parameters())
    row = {
        "settings": told(name),
        "minutes": minutes,
        "machine": machine,
        "steps": config.steps,
        "seconds": clock.seconds,
    }
    row |= {"parameters": parameters, "figures": rounded(figures)}
    measured.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(measured, json.dumps(row).encode() + b"\n")


def told(name: str) -> dict[str, Any]:
    """The settings of a configuration as JSON gives them back."""
    return json.loads(json.dumps(changes(name)))


def run_folder(out: Path, name: str, seed: int) -> Path:
    return out / name / f"seed{seed}"


def measured_file(results: Path, name: str, seed: int) -> Path:
    """What a finished run measured. It is kept with the results, so that a campaign goes on in another checkout."""
    return results / "experiment-runs" / f"{name}-{seed}.json"


def is_done(name: str, seed: int, out: Path, results: Path) -> bool:
    """Measured, and where others need its weights, still there."""
    weights = run_folder(out, name, seed) / EdgeTraining.stage / "model.safetensors"
    return measured_file(results, name, seed).exists() and (name != PREDICTOR or weights.exists())


# ----- all of them -----


def rounded(value: Any) -> Any:
    """Every number of a tree to four significant digits."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def spread(values: list[float]) -> dict[str, float]:
    """Mean, smallest, largest and sample standard deviation over seeds."""
    found = {"mean": mean(values), "min": min(values), "max": max(values), "std": stdev(values) if values[1:] else 0.0}
    return rounded(found)


def measured_rows(name: str, options: argparse.Namespace) -> list[dict]:
    """What the finished runs of a configuration measured. Stops where one was made with other settings or minutes."""
    files = [measured_file(options.results, name, seed) for seed in range(options.seeds)]
    rows = {file: json.loads(file.read_text("utf-8")) for file in files if file.exists()}
    for file, row in rows.items():
        made, wanted = (row["settings"], row["minutes"]), (told(name), options.minutes)
        if made != wanted:
            raise SystemExit(f"{file}: made with {made}; wanted {wanted}. Remove it to have it run again")
    return list(rows.values())


def summarize(experiment: str, options: argparse.Namespace) -> dict:
    """[configuration]: seeds, steps, CPU seconds, parameters, and figures[set][metric] -> spread; of the finished runs."""
    table, kept = {}, METRICS[experiment]
    for name in EXPERIMENTS[experiment]:
        rows = measured_rows(name, options)
        if rows:
            first = rows[0]["figures"]
            table[name] = {
                "seeds": len(rows),
                "steps": round(mean(row["steps"] for row in rows)),
                "seconds": round(mean(row["seconds"] for row in rows), 1),
                "parameters": rows[0]["parameters"],
                "settings": rows[0]["settings"],
                "machines": sorted({row["machine"] for row in rows}),
                "figures": {
                    group: {m: spread([row["figures"][group][m] for row in rows]) for m in kept if m in first[group]}
                    for group in first
                    if experiment == "edges" or group in WHOLE
                },
            }
    return table


def telea_figures(experiment: str, out: Path) -> dict:
    """The classical baseline on the same holes, computed once."""
    kept = out / "telea.json"
    if not kept.exists():
        photos = open_photos(CONFIGURATIONS[PREDICTOR].photos, SHARED["size"])
        write_bytes(kept, json.dumps(measure_telea(held_out_sets(photos, SHARED["validation"], bins=True))).encode())
    figures = json.loads(kept.read_text("utf-8"))
    groups = figures if experiment == "edges" else WHOLE
    return {g: {m: rounded(figures[g][m]) for m in METRICS[experiment] if m in figures[g]} for g in groups}


def write_results(experiments: list[str], options: argparse.Namespace) -> None:
    """results/experiment-<name>.json of each experiment, from all that is finished."""
    options.results.mkdir(parents=True, exist_ok=True)
    for experiment in experiments:
        command = f"python benchmarks/experiments.py {experiment} --seeds {options.seeds} --minutes {options.minutes:g}"
        about = {"experiment": experiment, "command": command, "minutes": options.minutes}
        about |= {
            "shared": SHARED,
            "telea": telea_figures(experiment, options.out),
            "configurations": summarize(experiment, options),
        }
        write_bytes(options.results / f"experiment-{experiment}.json", (json.dumps(about, indent=1) + "\n").encode())


def start(name: str, seed: int, options: argparse.Namespace) -> None:
    """One run in a process of its own, with one thread. Raises CalledProcessError."""
    given = [
        "--run",
        name,
        str(seed),
        *(f"--{x}={getattr(options, x)}" for x in ("out", "results", "minutes", "machine")),
    ]
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    subprocess.run([sys.executable, __file__, *map(str, given)], check=True, env=os.environ | one_thread)


def campaign(runs: list[tuple[str, int]], experiments: list[str], options: argparse.Namespace) -> list[str]:
    """All runs, `jobs` at a time; one that needs stage 1's edges waits for them. Returns what failed."""
    options.out.mkdir(parents=True, exist_ok=True)
    futures: dict[tuple[str, int], Future] = {}

    def work(name: str, seed: int) -> None:
        if needs_predictor(name):
            futures[PREDICTOR, seed].result()  # begun before this one, since it stands first in the plan
        if not is_done(name, seed, options.out, options.results):
            start(name, seed, options)

    failed = []
    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            for one in runs:
                futures[one] = pool.submit(work, *one)
            which = {future: one for one, future in futures.items()}
            for future in as_completed(which):
                if error := future.exception():
                    failed.append(f"{which[future]}: {error}")
                write_results(experiments, options)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def budgets(options: argparse.Namespace) -> None:
    """The report's recipe at each of BUDGETS, in a folder of its own each; then results/experiment-budgets.json."""
    rows = {}
    for minutes in BUDGETS:
        folder = options.out / "budgets" / f"{minutes:g}"
        run(CONSTANT, 0, folder, folder, minutes, options.machine)
        rows[f"{minutes:g}"] = json.loads(measured_file(folder, CONSTANT, 0).read_text("utf-8"))
    about = {
        "command": "python benchmarks/experiments.py budgets",
        "machine": options.machine,
        "settings": changes(CONSTANT),
    }
    kept = {"minutes": rows, "edge_share": edge_share()}
    write_bytes(options.results / "experiment-budgets.json", (json.dumps(about | kept, indent=1) + "\n").encode())


def edge_share() -> dict[str, float]:
    """The share of true edges among the hole's pixels, per set: the precision of edges that are drawn blindly."""
    photos = open_photos(CONFIGURATIONS[PREDICTOR].photos, SHARED["size"])
    sets = held_out_sets(photos, SHARED["validation"], bins=False)
    return {
        name: rounded(float(np.concatenate([true_edges(photo)[mask] for photo, mask in pairs]).mean()))
        for name, pairs in sets.items()
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="?", choices=[*EXPERIMENTS, "budgets", "all"], default="all")
    parser.add_argument("--out", type=Path, default=Path("runs/experiments"), help="the runs' folders")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=5.0, help="CPU time a run")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, each on one core")
    parser.add_argument("--machine", default="one core of a CPU", help="what the results say of the machine")
    parser.add_argument("--list", action="store_true", help="print the runs and what is done of them")
    parser.add_argument("--run", nargs=2, metavar=("NAME", "SEED"), help="one run, in this process")
    options = parser.parse_args(arguments)
    if options.run:
        return run(options.run[0], int(options.run[1]), options.out, options.results, options.minutes, options.machine)
    if options.experiment == "budgets":
        return budgets(options)
    experiments = list(EXPERIMENTS) if options.experiment == "all" else [options.experiment]
    runs = plan(experiments, options.seeds)
    if not options.list:
        failed = campaign(runs, experiments, options)
        raise SystemExit("\n".join(failed) or None)
    for name in dict.fromkeys(name for name, _ in runs):
        done = sum(measured_file(options.results, name, seed).exists() for seed in range(options.seeds))
        told = ", ".join(e for e in EXPERIMENTS if name in EXPERIMENTS[e])
        print(f"{name:22} {done} of {options.seeds}  ({told})  {changes(name)}")
    print(f"{len(runs)} runs of {options.minutes:g} minutes")


if __name__ == "__main__":
    main()
