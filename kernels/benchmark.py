"""How fast the gated ELU is, and how much memory it keeps: on a GPU where there is one, else on the CPU. All in one run.

    python kernels/benchmark.py --out runs/kernel [--compile] [--threads 2]

Times are medians of rounds in which all implementations take turns. Writes times.csv, memory.csv and times.png.
Gigabytes a second count what has to be moved at least (3 tensors of y's size forward, 8 for both passes), not what an
implementation does move, and are set against those of a copy, measured in the same run.

On a GPU: forward, and both passes, of each gated layer of ImageGenerator at 256 px, batch 16, three dtypes, both memory
formats, with and without a bias, torch.compile among them; peak memory. Small layers are bound by the time of a launch.
On a CPU: one layer of y (8, 128, 128, 128) in float32, and the bytes that a training step keeps.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from edgeconnect_kernels import gated_elu
from matplotlib.figure import Figure
from torch import Tensor, nn

from edgeconnect_lite.generators import ImageGenerator
from edgeconnect_lite.layers import GatedConv2d

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
MOVED = {"forward": 3, "both passes": 8}  # tensors of y's size: x is two, and so is its gradient
Row = dict[str, str | int | float]


def eager(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """As plain autograd has it."""
    x = x if bias is None else x + bias.view(1, -1, 1, 1)
    gate, feature = x.chunk(2, dim=1)
    return torch.sigmoid(gate) * F.elu(feature)


def eager_layer(self: GatedConv2d, x: Tensor) -> Tensor:
    return eager(self.conv(x))


def implementations(compiled: bool) -> dict[str, Callable[[Tensor, Tensor | None], Tensor]]:
    found: dict[str, Callable] = {
        "eager": eager,
        "composite": partial(gated_elu, impl="torch"),
        "gated_elu, save x": gated_elu,
        "gated_elu, save yg": partial(gated_elu, save="yg"),
    }
    if compiled:
        torch.compiler.reset()  # else the ninth shape, and all after it, would silently run uncompiled
        found["torch.compile"] = torch.compile(eager, dynamic=False, fullgraph=True)
    return found


def median_seconds(works: dict[str, Callable], device: str, rounds: int = 15, least: float = 0.02) -> dict[str, float]:
    """The median time of one call of each, in turns. Calls are repeated until a turn takes `least` seconds."""

    def turn(work, calls: int) -> float:
        wait(device)
        start = time.perf_counter()
        for _ in range(calls):
            work()
        wait(device)
        return time.perf_counter() - start

    calls = {}
    for name, work in works.items():
        turn(work, 2)  # compiles, and warms up
        calls[name] = max(1, round(least / turn(work, 1)))
    times = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(turn(work, calls[name]) / calls[name])
    return {name: statistics.median(each) for name, each in times.items()}


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def layer_sizes(side: int, batch: int) -> list[tuple[int, int, int, int]]:
    """The shape of y for each gated layer of ImageGenerator, without repeats."""
    sizes, network = [], ImageGenerator()
    for layer in network.modules():
        if isinstance(layer, GatedConv2d):
            layer.register_forward_hook(lambda layer, given, y: sizes.append((batch, *y.shape[1:])))
    with torch.inference_mode():
        network(torch.zeros(1, 5, side, side))
    return list(dict.fromkeys(sizes))


def time_layer(shape, dtype: torch.dtype, form: str, with_bias: bool, device: str, compiled: bool) -> list[Row]:
    """Rows of one layer: both kinds of pass by every implementation, and a copy of as many bytes."""
    n, c, h, w = shape
    layout = {"device": device, "memory_format": FORMATS[form]}
    x = torch.randn(n, 2 * c, h, w).to(dtype).to(**layout).requires_grad_()
    dy = torch.randn(shape).to(dtype).to(**layout)
    bias = torch.randn(2 * c, dtype=dtype, device=device, requires_grad=True) if with_bias else None
    leaves = [x] if bias is None else [x, bias]
    rows = []
    for passes, moved in MOVED.items():
        works: dict[str, Callable] = {"copy": lambda: x.detach().clone()}  # reads and writes x: 4 tensors of y's size
        for name, work in implementations(compiled).items():
            if passes == "forward":
                works[name] = partial(work, x, bias)
            else:
                works[name] = lambda work=work: torch.autograd.grad(work(x, bias), leaves, dy)
        times = median_seconds(works, device)
        rates = {name: (4 if name == "copy" else moved) * dy.nbytes / seconds / 1e9 for name, seconds in times.items()}
        rows += [
            {"pass": passes, "implementation": name, "dtype": str(dtype).removeprefix("torch."), "format": form}
            | {"shape": "x".join(map(str, shape)), "bias": "bias" if with_bias else "no bias", "elements": dy.numel()}
            | {"milliseconds": round(1e3 * times[name], 4), "gigabytes_per_second": round(rates[name], 1)}
            | {"share_of_copy": round(rates[name] / rates["copy"], 3)}
            | {"of_eager": round(times[name] / times["eager"], 3)}
            for name in works
        ]
    return rows


def kept_megabytes(network: nn.Module, x: Tensor) -> float:
    """What the forward pass keeps for the backward pass besides the parameters: distinct storages."""
    owned = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = network(x)
    del y
    return sum(size for storage, size in kept.items() if storage not in owned) / 2**20


def peak_megabytes(network: nn.Module, x: Tensor) -> float:
    """The GPU memory that a training step needs at its peak, beyond what is there before it: of the second step."""
    before = 0
    for _ in range(2):
        network.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        network(x).square().mean().backward()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def memory(device: str) -> list[Row]:
    """A training step of ImageGenerator: what is kept, at 128 px for one picture; on a GPU also the peak, 256 px, 16."""
    network = ImageGenerator().to(device)
    layers = [layer for layer in network.modules() if isinstance(layer, GatedConv2d)]
    rows = []
    for name in ("eager", "x", "yg"):
        for layer in layers:
            layer.save = "x" if name == "eager" else name
        with patch.object(GatedConv2d, "forward", eager_layer if name == "eager" else GatedConv2d.forward):
            row: Row = {
                "save": name,
                "kept_mb": round(kept_megabytes(network, torch.rand(1, 5, 128, 128).to(device)), 2),
            }
            if device == "cuda":
                row["peak_mb"] = round(peak_megabytes(network, torch.rand(16, 5, 256, 256).to(device)), 1)
        rows.append(row | {"kept_of_eager": round(float(row["kept_mb"]) / float((rows or [row])[0]["kept_mb"]), 3)})
    return rows


def plot(rows: list[Row], device: str) -> Figure:
    """On a GPU the share of a copy's bandwidth over the size, in bfloat16; on a CPU the times of the one layer."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, passes in zip(figure.subplots(1, 2), MOVED):
        chosen = [row for row in rows if row["pass"] == passes and row["bias"] == "no bias"]
        names = dict.fromkeys(str(row["implementation"]) for row in chosen)
        if device == "cuda":
            for name in names:
                points = sorted(
                    (row["elements"], row["share_of_copy"])
                    for row in chosen
                    if (row["implementation"], row["dtype"], row["format"]) == (name, "bfloat16", "contiguous")
                )
                axes.plot(*zip(*points), marker="o", label=name)
            axes.set(xscale="log", xlabel="elements of y", ylabel="share of a copy's bandwidth", title=passes)
            axes.legend()
        else:
            axes.barh(list(names), [float(row["milliseconds"]) for row in chosen])
            axes.invert_yaxis()
            axes.set(xlabel="milliseconds", title=f"{passes}, y {chosen[0]['shape']}, float32, CPU")
    return figure


def write(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    for row in rows:
        print("  ".join(f"{value:<20}" if isinstance(value, str) else f"{value:>10}" for value in row.values()))
    print(f"wrote {path}: {', '.join(rows[0])}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables and the plot")
    parser.add_argument("--compile", action="store_true", help="time torch.compile on a CPU, too (it needs g++)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {arguments.threads} threads"
    print(f"torch {torch.__version__}, {where}\n")
    dtypes = (torch.bfloat16, torch.float16, torch.float32) if device == "cuda" else (torch.float32,)
    shapes = layer_sizes(256, 16) if device == "cuda" else [(8, 128, 128, 128)]
    arguments.out.mkdir(parents=True, exist_ok=True)
    write(arguments.out / "memory.csv", memory(device))
    times = [
        row
        for shape in shapes
        for dtype in dtypes
        for form in FORMATS
        if device == "cuda" or form == "contiguous"
        for with_bias in (False, True)
        for row in time_layer(shape, dtype, form, with_bias, device, arguments.compile or device == "cuda")
    ]
    write(arguments.out / "times.csv", times)
    plot(times, device).savefig(arguments.out / "times.png", dpi=120)


if __name__ == "__main__":
    main()
