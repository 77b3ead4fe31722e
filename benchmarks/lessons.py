"""What each lesson costs, alone: seconds, CPU seconds and memory of its checked run, the way the tests run it.

    python benchmarks/lessons.py [--lessons 00 08] [--machine TEXT] [--json FILE]

One lesson at a time, `pytest notebooks/NN_topic.ipynb` in a process of its own, with an empty home folder and an empty folder
for temporary files: so no lesson can use what another left. Memory is the kernel's and its children's, without pytest: their
proportional set sizes together, looked at five times a second, or the largest single process's own record, whichever is more.
A lesson that fails, or that leaves a file beside the lessons, ends the benchmark.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import command
import psutil

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
BARS = {"seconds": 90, "peak_mb": 3000}  # of one lesson
ALL_SECONDS = 480
OPTIONS = ("-q", "-p", "no:cacheprovider", "--nbval-cell-timeout=1500")  # patience for a busy machine
PACKAGES = ("torch", "ipykernel", "nbval")
MB = 1e6


def memory(process: psutil.Process) -> float:
    """What the process's children, and theirs, hold now, or the most that one of them ever held, in MB."""
    together, largest = 0, 0
    for child in process.children(recursive=True):
        with suppress(psutil.Error, OSError, IndexError):  # it may end while we look
            together += child.memory_full_info().pss
            status = Path(f"/proc/{child.pid}/status").read_text()
            largest = max(largest, 1024 * int(status.split("VmHWM:")[1].split()[0]))
    return max(together, largest) / MB


def cost(arguments: list[str], folder: Path) -> dict:
    """Run a command with an empty home: its seconds, its and its descendants' CPU seconds, its children's memory in MB."""
    for name in ("home", "tmp"):
        (folder / name).mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "PYTEST_"))}
    env |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
    peak, start = 0.0, time.perf_counter()
    with open(folder / "output", "w+b") as output:
        process = psutil.Popen(arguments, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT)
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            peak = max(peak, memory(process))
            time.sleep(0.2)
        seconds = time.perf_counter() - start
    said, used = (folder / "output").read_text("utf-8", "replace"), ended[2]
    process.returncode = os.waitstatus_to_exitcode(ended[1])
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}:\n{said[-3000:]}")
    return {"seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime, "peak_mb": peak}


def files() -> dict[Path, int]:
    """Every file beside the lessons, with its time."""
    return {path: path.stat().st_mtime_ns for path in NOTEBOOKS.rglob("*") if "__pycache__" not in path.parts}


def measure(options: argparse.Namespace) -> dict:
    """The cost of each lesson; the load is others', of the minute before."""
    results: dict = {"machine": options.machine, "cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}
    results |= {"versions": {name: version(name) for name in PACKAGES}, "lessons": {}}
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if options.lessons and path.name[:2] not in options.lessons:
            continue
        before = files()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            found = cost([sys.executable, "-m", "pytest", *OPTIONS, f"notebooks/{path.name}"], Path(folder))
            results["lessons"][path.name[:2]] = {name: round(figure, 1) for name, figure in found.items()}
        if left := dict(files().items() - before.items()):
            raise RuntimeError(f"{path.name} left files beside the lessons: {', '.join(map(str, left))}")
        print(path.name, results["lessons"][path.name[:2]], file=sys.stderr, flush=True)
    return results


def report(results: dict) -> str:
    """The costs as a table, and what is above a bar."""
    lessons = results["lessons"]
    lines = [f"{'lesson':>7} {'seconds':>8} {'CPU seconds':>12} {'peak MB':>8}"]
    for name, found in lessons.items():
        over = [f"{key} above {bar}" for key, bar in BARS.items() if found[key] > bar]
        cells = f"{name:>7} {found['seconds']:8.1f} {found['cpu_seconds']:12.1f} {found['peak_mb']:8.0f}"
        lines.append("  ".join([cells, *over]))
    seconds, cpu = (sum(found[key] for found in lessons.values()) for key in ("seconds", "cpu_seconds"))
    lines.append(f"{'all':>7} {seconds:8.1f} {cpu:12.1f}" + (f"  above {ALL_SECONDS}" if seconds > ALL_SECONDS else ""))
    return "\n".join(lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lessons", nargs="+", help="their numbers; all, if not given")
    command.add_output(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    command.run("lessons.py", arguments, parse(arguments), measure, report)


if __name__ == "__main__":
    main()
