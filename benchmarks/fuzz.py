"""The fuzz campaign: broken files of every kind that a user can hand in, each read in a worker with little memory and time.

    python benchmarks/fuzz.py                            (all formats; 107,000 cases)
    python benchmarks/fuzz.py --only png state --cases 500 --keep runs/fuzz
    python benchmarks/fuzz.py --json results/fuzz.json

Each case is either read, or refused with the reader's own exception. Whatever else comes is a failure: another exception, a
process that dies, or one that takes longer than the limit. Failing inputs are kept (--keep), and named by format and number.
"""

import argparse
import atexit
import faulthandler
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from command import add_output, run
from fuzz_cases import case, seeds

CASES = {"png": 20_000, "jpeg": 12_000, "webp": 8_000, "bmp": 8_000, "gif": 8_000, "tiff": 5_000, "mask": 5_000,
         "strokes": 12_000, "config": 7_000, "safetensors": 9_000, "state": 3_000, "eyes": 2_000, "post": 3_000,
         "list": 2_000, "zip": 3_000}  # fmt: skip
SECONDS, MEMORY = 10.0, 1 << 30  # of one case: of a core's time; more than what the worker holds when it begins
PATIENCE = 12  # a case that waits, and does not compute, may last so many times longer
SMALL = {"width": 2, "bottom": 3, "blocks": 1, "skips": True, "decision": 2}


class Painter:
    """An inpainter that takes no time."""

    size = 32

    def predict_edges(self, photo, mask):
        return mask * 0.25

    def __call__(self, photo, mask, edges):
        return photo


# ----- the readers: format -> (valid files, what reads one, the exceptions that it documents) -----


@cache
def folder() -> Path:
    """Of this process: in memory where there is such a place."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    made = Path(tempfile.mkdtemp(prefix="fuzz-", dir=place))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def photo() -> Any:
    """Larger than the painter's size, so that it is cropped."""
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@cache
def small_weights() -> Path:
    """A folder with a very small edge generator."""
    from edgeconnect_lite.generators import EdgeGenerator
    from edgeconnect_lite.weights import save_network

    save_network(EdgeGenerator(**SMALL), folder() / "weights")
    return folder() / "weights"


@cache
def small_state() -> bytes:
    """What a small editor saves, with an undone stroke."""
    import numpy as np

    from edgeconnect_lite.editor import EdgeEditor

    mask = np.zeros((32, 32), bool)
    mask[8:20, 8:20] = True
    photo = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    editor = EdgeEditor(photo, mask, Painter(), true_edges=mask, edges=mask * 0.5)
    editor.line([(9, 9), (18, 15)])
    editor.paint_mask([(20, 20)], 3)
    editor.undo()
    editor.save(folder() / "state")
    return (folder() / "state" / "editor.json").read_bytes()


@cache
def server() -> Any:
    """The editor's server with a crop and an editor, both kept in its folder; what is posted is handed to it."""
    from edgeconnect_lite.editor.serve import EditorServer

    (folder() / "served").mkdir()
    made = EditorServer(photo(), None, Painter(), folder() / "served")
    made.hear({"do": "edit"})
    made.widgets["editor"].paint_mask([(9, 9), (18, 15)], 3)
    made.save()
    return made


def written(name: str, data: bytes) -> Path:
    path = folder() / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def trial(data: bytes) -> None:
    """No format: what the campaign must notice. The file says what happens."""
    if data == b"refused":
        raise ValueError(data)
    if data == b"other exception":
        raise KeyError(data)
    if data == b"memory":
        bytearray(4 * MEMORY)
    if data == b"crash":
        os.abort()
    if data == b"hang":
        while True:
            pass


def reader(kind: str) -> tuple[list[bytes], Callable[[bytes], Any], tuple[type[Exception], ...]]:
    if kind == "trial":
        return seeds(kind), trial, (ValueError,)
    from edgeconnect_lite.editor.serve import EYES, EditorServer
    from edgeconnect_lite.editor.strokes import BadStroke, Layers, apply_stroke, check_stroke
    from edgeconnect_lite.editor.widget import STATE, EdgeEditor, EditorNotSaved
    from edgeconnect_lite.generators import EdgeGenerator
    from edgeconnect_lite.masks import BadMask, read_mask
    from edgeconnect_lite.photos import BadPhoto, PhotoFolder, read_photo
    from edgeconnect_lite.weights import WEIGHT_FILES, BadWeights, load_network

    def strokes(data: bytes) -> None:
        import numpy as np

        try:
            given = json.loads(data)
        except (ValueError, RecursionError):
            raise BadStroke("not JSON") from None  # json's own
        for stroke in given if isinstance(given, list) else [given]:
            apply_stroke(Layers(np.zeros((32, 32), bool), np.zeros((32, 32), np.uint8)), check_stroke(stroke, (32, 32)))

    def weights(which: int) -> Callable[[bytes], None]:
        good = [(small_weights() / file).read_bytes() for file in WEIGHT_FILES]

        def read(data: bytes) -> None:
            for i, file in enumerate(WEIGHT_FILES):
                written(f"broken-weights/{file}", data if i == which else good[i])
            load_network(folder() / "broken-weights", EdgeGenerator)

        return read

    def state(data: bytes) -> None:
        written(f"broken-state/{STATE}", data)
        EdgeEditor.load(folder() / "broken-state", Painter()).wait()

    def eyes(data: bytes) -> None:
        written(f"broken-eyes/{STATE}", (server().folder / STATE).read_bytes())
        written(f"broken-eyes/{EYES}", data)
        EditorServer(photo(), None, Painter(), folder() / "broken-eyes").server_close()

    def post(data: bytes) -> None:  # as Handler.do_POST
        server().hear(json.loads(data))
        editor = server().widgets["editor"]
        editor.wait()
        if len(editor.strokes) > 50:
            editor._history_of.position = 0

    if kind == "strokes":
        return seeds(kind), strokes, (BadStroke,)
    if kind in ("config", "safetensors"):
        which = ("config", "safetensors").index(kind)
        return [(small_weights() / WEIGHT_FILES[which]).read_bytes()], weights(which), (BadWeights,)
    if kind == "state":
        return [small_state()], state, (EditorNotSaved,)
    if kind == "eyes":
        return [(server().folder / EYES).read_bytes()], eyes, (EditorNotSaved,)
    if kind == "post":
        act = {"type": "do", "at": 0, "from": "a"}
        told = [{"widget": "editor", "content": act | {"stroke": each}} for each in json.loads(seeds("strokes")[0])]
        told += [{"widget": "editor", "content": {"type": "undo", "at": 1}}, {"do": "edit"}, {"do": "save"},
                 {"widget": "editor", "state": {"threshold": 9, "proposal": 0}},
                 {"widget": "crop", "state": {"_eyes": [[3, 4], [9, 9]]}}]  # fmt: skip
        return [json.dumps(each).encode() for each in told], post, (ValueError, RuntimeError, OSError)
    if kind in ("list", "zip"):
        ending = "txt" if kind == "list" else "zip"
        return seeds(kind), lambda data: list(PhotoFolder(written(f"broken/x.{ending}", data))), (BadPhoto,)
    if kind == "mask":
        return seeds(kind), lambda data: read_mask(written("x.png", data)), (BadMask,)
    return seeds(kind), lambda data: read_photo(written("x.png", data)), (BadPhoto,)


# ----- the campaign -----


def outcome_of(read: Callable[[bytes], Any], documented: tuple[type[Exception], ...], data: bytes) -> tuple[str, str]:
    """("read" | "refused" | "other exception", what was said)."""
    try:
        read(data)
    except documented as error:
        return "refused", f"{type(error).__name__}: {error}"
    except Exception as error:
        return "other exception", f"{type(error).__name__}: {error}"[:300]
    return "read", ""


def work(kind: str, seed: int, start: int, end: int, pipe: Any, seconds: float) -> None:
    """In a worker: cases start to end - 1; tells of each as it begins and as it ends."""
    faulthandler.enable(os.fdopen(os.dup(2), "w"))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the decoders' own remarks
    warnings.simplefilter("ignore")
    valid, read, documented = reader(kind)
    outcome_of(read, documented, valid[0])  # what is loaded once is loaded
    here = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (here + MEMORY, here + MEMORY))
    for k in range(start, end):
        data = case(kind, seed, k, valid)
        pipe.send(("begins", k, ""))
        signal.setitimer(signal.ITIMER_PROF, seconds)  # then the process dies
        outcome, said = outcome_of(read, documented, data)
        signal.setitimer(signal.ITIMER_PROF, 0)
        pipe.send((outcome, k, said))
    shutil.rmtree(folder(), ignore_errors=True)
    pipe.send(("done", end, ""))


def campaign(kind: str, seed: int, count: int, keep: Path | None, seconds: float = SECONDS) -> dict[str, Any]:
    """All cases of a format: how many ended how, and the failures."""
    outcomes, failures, slowest, next_case = Counter(), [], 0.0, 0
    context = multiprocessing.get_context("spawn")  # a fork would inherit threads of torch and OpenCV
    while next_case < count:
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=work, args=(kind, seed, next_case, count, theirs, seconds), daemon=True)
        worker.start()
        theirs.close()
        running, began = None, time.monotonic()
        while True:
            try:
                outcome, k, said = (
                    ours.recv()
                    if ours.poll(PATIENCE * seconds if running is not None else 120)
                    else ("hang", running, "")
                )
            except EOFError:
                worker.join()
                outcome = "hang" if worker.exitcode == -signal.SIGPROF else "crash"
                k, said = running, f"exit code {worker.exitcode}"
            if outcome == "done":
                next_case = count
                break
            if outcome == "begins":
                running, began = k, time.monotonic()
                continue
            if k is None:
                raise RuntimeError(f"{kind}: the worker did not begin ({outcome} {said})")
            outcomes[outcome] += 1
            slowest, running = max(slowest, time.monotonic() - began), None
            if outcome not in ("read", "refused"):
                failures.append({"case": k, "outcome": outcome, "said": said})
                if keep:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{kind}-{k}").write_bytes(input_of(kind, seed, k))
            next_case = k + 1
            if outcome in ("crash", "hang"):
                break
        worker.kill()
        worker.join()
    print(f"{kind:<12} {dict(outcomes)}  slowest {slowest:.2f} s", flush=True)
    return {"cases": count, **outcomes, "slowest_s": round(slowest, 2), "failures": failures[:50]}


def input_of(kind: str, seed: int, k: int) -> bytes:
    return case(kind, seed, k, reader(kind)[0])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    chosen = {kind: options.cases or count for kind, count in CASES.items() if not options.only or kind in options.only}
    start = time.monotonic()
    by_format = {kind: campaign(kind, options.seed, count, options.keep) for kind, count in chosen.items()}
    names = ("cases", "read", "refused", "other exception", "crash", "hang")
    total = {name: sum(result.get(name, 0) for result in by_format.values()) for name in names}
    limits = {"core_seconds_a_case": SECONDS, "bytes_a_worker": MEMORY}
    return {"machine": options.machine, "seed": options.seed, "limits": limits, "total": total, "formats": by_format,
            "minutes": round((time.monotonic() - start) / 60, 1)}  # fmt: skip


def report(results: dict[str, Any]) -> str:
    rows = {**results["formats"], "all": results["total"]}
    names = ("cases", "read", "refused", "other exception", "crash", "hang")
    lines = [" | ".join(("| format", *names)) + " |", "| --- " + "| ---: " * len(names) + "|"]
    return "\n".join(
        [
            *lines,
            *(
                f"| {kind} | " + " | ".join(str(row.get(name, 0)) for name in names) + " |"
                for kind, row in rows.items()
            ),
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=(), metavar="FORMAT", help=", ".join(CASES))
    parser.add_argument("--cases", type=int, help="of each format, in place of its own number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the failing inputs")
    add_output(parser)
    run("fuzz.py", arguments, parser.parse_args(arguments), measure, report)


if __name__ == "__main__":
    main()
