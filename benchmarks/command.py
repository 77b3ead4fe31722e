"""What the command lines of the benchmarks share: how a run is named, printed and kept."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path


def add_output(parser: argparse.ArgumentParser) -> None:
    """The options that `run` needs."""
    parser.add_argument("--machine", default="", help="what the JSON says of the machine")
    parser.add_argument("--json", type=Path, help="write the figures there")


def run(
    script: str,
    arguments: list[str] | None,
    options: argparse.Namespace,
    measure: Callable[[argparse.Namespace], dict],
    report: Callable[[dict], str],
) -> None:
    """Measure, print the report, and write the figures with the command that made them, without this machine's folders."""
    given = sys.argv[1:] if arguments is None else arguments
    told = [Path(argument).name if Path(argument).is_absolute() else argument for argument in given]
    results = {"command": shlex.join(["python", f"benchmarks/{script}", *told]), **measure(options)}
    print(report(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
