"""What data at its real scale costs: listing, preparing and reading 50,000 pictures, the first training step of 200,000.

    python benchmarks/prepare.py [--pictures 50000] [--listed 200000] [--json FILE]

The pictures are 200 of the shipped faces as CelebA has them (178 x 218 px, JPEG), hard-linked to as many names: each is
decoded and packed for itself, but read from a warm disk cache. Each probe is a process of its own, the quick
ones the best of three. Seconds are on the wall, cpu_seconds those of all its processes; rates are pictures per CPU second, that
is, per core. Memory is the most that a process took beyond its imports. The 200,000 names lie in one folder, as CelebA's do.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import command
import cv2
import numpy as np

from edgeconnect_lite.listing import list_pictures
from edgeconnect_lite.photos import FacePhotos, PhotoFolder
from edgeconnect_lite.prepare import Recipe, pack, prepare_archive
from edgeconnect_lite.trees import EXTENSIONS
from edgeconnect_lite.zips import ZipWriter

DISTINCT = 200


# probes: each in a process of its own


def list_with_pathlib(folder: str) -> list[Path]:
    """As a few lines of pathlib would; in the package before."""
    paths = (path for path in Path(folder).rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    return sorted(paths)


def open_and_read(source: str, count: str) -> PhotoFolder:
    """Photos at random places."""
    photos = PhotoFolder(source)
    for index in np.random.default_rng(0).integers(0, len(photos), int(count)):
        photos[int(index)]
    return photos


def prepare(source: str, out: str, workers: str) -> Any:
    return prepare_archive(list_pictures(source), Path(out), Recipe(), int(workers))


def first_step(root: str, out: str) -> None:
    """`edgeconnect-lite train edge`, imports and all, to the end of its first step."""
    from edgeconnect_lite import runs
    from edgeconnect_lite.cli import main

    def stop(*_: Any) -> None:
        raise SystemExit

    runs.Log.__call__ = stop
    try:
        main(["train", "edge", "--photos", root, "--out", out])
    except SystemExit as end:
        if end.code:
            raise


PROBES: dict[str, Callable] = {
    "pathlib": list_with_pathlib, "list": list_pictures, "zipfile": lambda path: zipfile.ZipFile(path).infolist(),
    "read": open_and_read, "prepare": prepare, "first_step": first_step,
}  # fmt: skip


def run_probe(name: str, arguments: list[str]) -> dict[str, float]:
    """Seconds, CPU seconds and MB of one probe, in this process. Of first_step the imports count too."""
    cv2.setNumThreads(1)
    start, used, memory = time.perf_counter(), cpu_seconds(), megabytes("VmRSS")
    kept = PROBES[name](*arguments)
    found = {"seconds": time.perf_counter() - start, "cpu_seconds": cpu_seconds() - used}
    found["mb"] = megabytes("VmHWM") - memory
    del kept  # until here: its memory counts
    return found


def cpu_seconds() -> float:
    """Of this process and of those of its children that have ended."""
    return time.process_time() + os.times().children_user + os.times().children_system


def megabytes(what: str) -> float:
    """What this process holds (VmRSS), or the most that it has held (VmHWM). Linux alone says it."""
    status = Path("/proc/self/status")
    found = re.search(rf"{what}:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) / 1e3 if found else 0.0


def probe(name: str, *arguments: Any, lists: str = "off") -> dict[str, float]:
    """The probe in a new process; lists: where it keeps lists of trees."""
    words = [sys.executable, str(Path(__file__).resolve()), "--probe", name, *map(str, arguments)]
    start = time.perf_counter()
    environment = {**os.environ, "EDGECONNECT_LISTS": lists, "TQDM_DISABLE": "1"}
    done = subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return {**found, "seconds": time.perf_counter() - start} if name == "first_step" else found


def best(name: str, *arguments: Any, lists: str = "off") -> dict[str, float]:
    """The quickest of three: the machine may be busy."""
    return min((probe(name, *arguments, lists=lists) for _ in range(3)), key=lambda found: found["seconds"])


# what they are asked about


def make_pictures(folder: Path, count: int) -> None:
    """000001.jpg, ...: `count` names of DISTINCT pictures."""
    folder.mkdir(parents=True)
    faces = FacePhotos("train")
    first = [folder / f"{i + 1:06d}.jpg" for i in range(min(count, DISTINCT))]
    for i, path in enumerate(first):
        square = cv2.resize(faces[i], (178, 178), interpolation=cv2.INTER_CUBIC)
        tall = cv2.copyMakeBorder(square, 20, 20, 0, 0, cv2.BORDER_REPLICATE)
        cv2.imwrite(str(path), tall[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    for i in range(DISTINCT, count):
        os.link(first[i % DISTINCT], folder / f"{i + 1:06d}.jpg")


def make_celeba(root: Path, count: int) -> None:
    """CelebA's form: four fifths of the pictures to train with, and the official table."""
    make_pictures(root / "img_align_celeba", count)
    parts = (f"{i + 1:06d}.jpg {min(2, max(0, 10 * i // count - 7))}\n" for i in range(count))
    (root / "list_eval_partition.txt").write_text("".join(parts))


def make_archive(path: Path, count: int) -> None:
    """An archive of `count` small pictures: what opening it costs depends on their number alone."""
    picture = pack(cv2.imencode(".png", np.zeros((16, 16, 3), np.uint8))[1].tobytes(), "black", Recipe(16))
    with path.open("w+b") as file:
        writer = ZipWriter(file)
        for i in range(count):
            writer.add(f"{i:08d}.webp", picture)
        writer.finish()


def measure(options: argparse.Namespace) -> dict:
    counts = (options.pictures // 10, options.pictures)
    results: dict[str, Any] = {"machine": options.machine, "pictures": options.pictures, "listed": options.listed}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        home = Path(name)
        make_celeba(home / "celeba", options.listed)
        make_archive(home / "small.zip", options.listed)
        for count in counts:
            make_pictures(home / f"{count}", count)
        time.sleep(3)  # a folder that changed just now is not remembered
        listed = home / "celeba/img_align_celeba"
        results["list"] = {name: best(name, listed) for name in ("pathlib", "list")}
        results["list"]["cached"] = best("list", listed, lists=str(home / "lists"))
        results["open"] = {name: best(name, home / "small.zip") for name in ("zipfile", "list")}
        results["first_step"] = {
            name: best("first_step", root, home / "run", lists=str(home / "lists"))
            for name, root in (("celeba", home / "celeba"), ("folder", listed))
        }
        results["prepare"] = {
            str(count): rated(probe("prepare", home / f"{count}", home / f"{count}.zip", options.workers), count)
            for count in counts
        }
        results["read"] = {}
        for kind, ending in (("folder", ""), ("archive", ".zip")):
            for count in counts:
                one = best("read", home / f"{count}{ending}", 1)
                some = probe("read", home / f"{count}{ending}", options.reads + 1)
                row = rated({"cpu_seconds": some["cpu_seconds"] - one["cpu_seconds"]}, options.reads)
                start = {"start_seconds": one["seconds"], "start_cpu_seconds": one["cpu_seconds"]}
                results["read"][f"{kind}_{count}"] = row | start | {"mb": some["mb"]}
        results["bytes_per_picture"] = {
            "source": sum(path.stat().st_size for path in listed.glob("0000*.jpg"))
            / len(list(listed.glob("0000*.jpg"))),
            "archive": (home / f"{options.pictures}.zip").stat().st_size / options.pictures,
        }
    return rounded(results)


def rated(found: dict[str, float], count: int) -> dict[str, float]:
    return {**found, "pictures_per_cpu_second": count / found["cpu_seconds"]}


def rounded(value: Any) -> Any:
    """Four digits of every figure."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def report(results: dict) -> str:
    lines = [f"{results['listed']:,} files listed, {results['pictures']:,} pictures prepared"]
    for part in ("list", "open", "first_step", "prepare", "read"):
        lines += [part, *(f"  {name:<14} {row}" for name, row in results[part].items())]
    return "\n".join([*lines, f"bytes a picture {results['bytes_per_picture']}"])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=50_000)
    parser.add_argument("--listed", type=int, default=200_000)
    parser.add_argument("--reads", type=int, default=4000, help="pictures read for the rates")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", help="where the temporary pictures go")
    parser.add_argument("--probe", nargs="+", help=argparse.SUPPRESS)
    command.add_output(parser)
    options = parser.parse_args(arguments)
    if options.probe:
        print(json.dumps(run_probe(options.probe[0], options.probe[1:])))
    else:
        command.run("prepare.py", arguments, options, measure, report)


if __name__ == "__main__":
    main()
