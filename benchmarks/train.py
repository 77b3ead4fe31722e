"""How fast training is: images a second of both stages at 128 px, batch 8, against the dilated residual pair (10.8 M each).

    python benchmarks/train.py [--rounds 3] [--threads 2] [--compile] [--json FILE]

The package's own loops train on the shipped faces with the default configs, so a step is all of a step: data, losses,
optimizers, and in stage 2 the discriminator and the features (stage 1's default has neither).
Only the generators differ between the sides. (The peer's stage 1 paints no gray photo: the gray
term is computed of its input, and is a constant.) The sides take turns, a few steps at a time, in one run; medians of the
steps after each warm-up. The gain of bf16 stands apart. Then both stages on one photo at 256 px, float32, median of 30.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from unittest.mock import patch

import command
import torch
from experiments import StepClock, rounded, train
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgeconnect_lite import training
from edgeconnect_lite.dilated import DilatedGenerator
from edgeconnect_lite.generators import EdgeGenerator, EdgePrediction, ImageGenerator
from edgeconnect_lite.training import EdgeTraining, ImageTraining

WARMUP = 2  # steps of every turn that do not count
SIDES = ("ours", "dilated")
PHOTO = ("ours_seconds", "dilated_seconds", "ratio")


class WallClock(StepClock):
    """Seconds on the wall, with all threads that work."""

    now = staticmethod(time.perf_counter)


class DilatedEdges(DilatedGenerator):
    """The peer's stage 1, with the outlets that the loop wants: logits, and in place of a painted gray photo its input."""

    def forward(self, x: Tensor) -> EdgePrediction:  # type: ignore[override]
        return EdgePrediction(self.layers(x), x[:, :1])


def peer_edges(*sizes: int) -> DilatedEdges:
    """Stands in for EdgeGenerator in the loop."""
    return DilatedEdges(3, 1, spectral=True)


def configured(stage: str, side: str, precision: str, options: argparse.Namespace) -> EdgeTraining | ImageTraining:
    """The default config of a stage, and what the sides must share."""
    image = ImageTraining(network="unet" if side == "ours" else "dilated", features="faces")
    base = EdgeTraining() if stage == "edge" else image
    return replace(
        base, photos=options.photos, size=options.size, precision=precision, batch_size=options.batch_size, validation=1,
        steps=WARMUP + options.steps, optimizer=options.optimizer, threads=options.threads,
        compile=options.compile and side == "ours",
    )  # type: ignore[return-value]  # fmt: skip


def time_turn(stage: str, side: str, precision: str, options: argparse.Namespace) -> list[float]:
    """Seconds of the steps of one turn."""
    of_peer = patch.object(training, "EdgeGenerator", peer_edges if side == "dilated" else EdgeGenerator)
    with tempfile.TemporaryDirectory() as folder, of_peer:
        return train(configured(stage, side, precision, options), Path(folder), clock=WallClock).each[WARMUP:]


def time_steps(stage: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """[precision]: seconds a step and images a second of both sides, and how many times faster ours is."""
    seconds = {(precision, side): [] for precision in options.precisions for side in SIDES}
    for _ in range(options.rounds):
        for turn, found in seconds.items():
            found += time_turn(stage, turn[1], turn[0], options)
    table = {}
    for precision in options.precisions:
        ours, peer = (median(seconds[precision, side]) for side in SIDES)
        rates = {f"{side}_images_per_second": options.batch_size / x for side, x in zip(SIDES, (ours, peer))}
        table[precision] = {"ours_seconds": ours, "dilated_seconds": peer, **rates, "ratio": peer / ours}
    return table


def ready(*generators: nn.Module) -> list[nn.Module]:
    """For use, as by anyone in a hurry: channels last, and the peer's spectral normalisation worked into its weights."""
    for module in [m for generator in generators for m in generator.eval().modules()]:
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight")
    return [generator.to(memory_format=torch.channels_last) for generator in generators]  # type: ignore[call-overload]


@torch.inference_mode()
def time_photo(size: int, repeats: int) -> dict[str, float]:
    """Both stages on one photo: the median seconds of both sides, taking turns, and how many times faster ours is."""
    inputs = torch.rand(1, 3, size, size), torch.rand(1, 5, size, size)
    mask = torch.zeros(1, 1, size, size)
    mask[..., size // 4 : size // 2, size // 4 : size // 2] = 1
    inputs = [torch.cat([x[:, :-1] * (1 - mask), mask], dim=1) for x in inputs]
    pairs = {
        "ours": ready(EdgeGenerator(), ImageGenerator()),
        "dilated": ready(DilatedEdges(3, 1, spectral=True), DilatedGenerator(5, 3)),
    }
    seconds: dict[str, list[float]] = {side: [] for side in pairs}
    for _ in range(WARMUP + repeats):
        for side, pair in pairs.items():
            start = time.perf_counter()
            for generator, x in zip(pair, inputs):
                generator(x)
            seconds[side].append(time.perf_counter() - start)
    ours, peer = (median(seconds[side][WARMUP:]) for side in SIDES)
    return dict(zip(PHOTO, (ours, peer, peer / ours)))


def measure(options: argparse.Namespace) -> dict:
    """All figures, rounded."""
    if options.threads:
        torch.set_num_threads(options.threads)
    results: dict = {name: getattr(options, name) for name in ("size", "batch_size", "optimizer", "compile", "machine")}
    results["threads"] = torch.get_num_threads()
    for stage in ("edge", "image"):
        table = time_steps(stage, options)
        results[f"{stage}_step"] = table
        if len(table) == 2:
            results[f"{stage}_bf16_gain"] = {
                s: table["no"][f"{s}_seconds"] / table["bf16"][f"{s}_seconds"] for s in SIDES
            }
    results["photo"] = {"size": options.photo_size} | time_photo(options.photo_size, options.repeats)
    return rounded(results)


def report(results: dict) -> str:
    """The figures as a page."""
    lines = [f"{results['size']} px, batch {results['batch_size']}, {results['threads']} threads"]
    for stage in ("edge", "image"):
        for precision, row in results[f"{stage}_step"].items():
            lines.append(
                f"{stage} stage, {'float32' if precision == 'no' else precision}: {row['ours_images_per_second']:.1f} images/s "
                f"({row['ours_seconds']:.3f} s a step), dilated {row['dilated_images_per_second']:.1f} "
                f"({row['dilated_seconds']:.3f} s): {row['ratio']:.2f}x"
            )
        if gain := results.get(f"{stage}_bf16_gain"):
            lines.append(f"  bf16 against float32: ours {gain['ours']:.2f}x, dilated {gain['dilated']:.2f}x")
    photo = results["photo"]
    lines.append(
        f"both stages, one photo at {photo['size']} px: {photo['ours_seconds']:.3f} s, dilated "
        f"{photo['dilated_seconds']:.3f} s: {photo['ratio']:.2f}x"
    )
    return "\n".join(lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--steps", type=int, default=6, help="of each turn, after its warm-up")
    parser.add_argument("--repeats", type=int, default=30, help="of the photo")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--photo-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--photos", default="faces")
    parser.add_argument("--precisions", nargs="+", default=["bf16", "no"], choices=["bf16", "no"])
    parser.add_argument("--optimizer", default="muon", choices=["muon", "adam"], help="of both sides")
    parser.add_argument("--threads", type=int, default=0, help="0 = all")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile ours, not the peer: say so beside the figures"
    )
    command.add_output(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    command.run("train.py", arguments, parse(arguments), measure, report)


if __name__ == "__main__":
    main()
