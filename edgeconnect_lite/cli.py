"""The command line: edgeconnect-lite demo | lab | edit | inpaint | train | evaluate | prepare | export | kernel | marks.

Every command ends with exit code 0; with 1 and one line on standard error that says what came and what was wanted; or with 2
where its arguments cannot be parsed.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro


class UsageError(ValueError):
    """The command was asked for something that it cannot do; the message says what was wanted."""


def demo(out: Path = Path("demo.png"), photo: int = 10, seed: int = 4, weights: str | None = None) -> None:
    """Complete one rendered test face in two stages, print the hole's PSNR, and write a picture of every step.

    Args:
        out: where the picture goes (.png, .jpg, .webp).
        photo: number of the test face, 0 to 499.
        seed: decides the strokes that make the hole.
        weights: a folder of weights, or a name on the Hugging Face Hub; by default the shipped ones.
    """
    import numpy as np

    from edgeconnect_lite.figures import show, steps_of
    from edgeconnect_lite.inpainting import Inpainter
    from edgeconnect_lite.masks import stroke_mask
    from edgeconnect_lite.metrics import hole_psnr
    from edgeconnect_lite.photos import FacePhotos, write_bytes

    _check_writable(out, endings=(".png", ".jpg", ".webp"))
    faces = FacePhotos("test")
    if not 0 <= photo < len(faces):
        raise UsageError(f"--photo is {photo}; wanted 0 to {len(faces) - 1}")
    face, mask = faces[photo], stroke_mask(np.random.default_rng(seed), ratio=(0.2, 0.3))
    steps = steps_of(Inpainter.from_pretrained(weights), face, mask)
    print(f"test face {photo}, hole {mask.mean():.0%} of the picture; PSNR of the hole:")
    for title, picture in list(steps.items())[-3:]:
        print(f"  {title:<28} {hole_psnr(picture, face, mask):5.2f} dB")
    write_bytes(out, show(steps, columns=5).to_bytes(out.suffix.lstrip("."), dpi=150))
    print(f"wrote {out}")


def lab(extra: tyro.conf.Positional[tuple[str, ...]] = ()) -> None:
    """Open lesson 00 in JupyterLab (needs the checkout of the course).

    Args:
        extra: arguments for JupyterLab, after a "--".
    """
    root = Path(__file__).resolve().parents[1]
    lesson = Path("notebooks") / "00_start_here.ipynb"
    if not (root / lesson).is_file():
        raise UsageError("the lessons are not part of the installed package; get a checkout of edgeconnect-lite, "
                         "install it there (pip install -c constraints.txt -e '.[dev]') and run this again")  # fmt: skip
    as_root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # containers
    start = f"--LabApp.default_url=/lab/tree/{lesson.as_posix()}"  # in the printed address too, where no browser opens
    command = [sys.executable, "-m", "jupyter", "lab", start, *as_root, *extra]
    raise SystemExit(subprocess.run(command, cwd=root, check=False).returncode)


def edit(
    photo: tyro.conf.Positional[Path],
    mask: Path | None = None,
    out: Path | None = None,
    weights: str | None = None,
    invert_mask: bool = False,
    port: int = 0,
    browser: bool = True,
) -> None:
    """Open the edge editor on a photo, in a browser: paint a hole, draw its edges, see the face change. Ctrl+C ends and saves.

    Args:
        photo: the photo: .jpg .png .webp .bmp. Unless it has the networks' size, place two rings on the eyes first.
        mask: a picture of the same size, white = hole, to begin with; the photo is then taken as it is, without the rings.
        out: a folder for the result (photo.png) and all that was drawn, by default PHOTO-edited; what it holds already goes on.
        weights: a folder of weights, or a name on the Hugging Face Hub; by default the shipped ones.
        invert_mask: black = hole, as Quick Draw masks have it.
        port: of this machine, where the page is served; 0 = any free one.
        browser: open the page; else its address is printed alone.
    """
    import signal
    import webbrowser

    from edgeconnect_lite.editor.serve import EditorServer
    from edgeconnect_lite.editor.widget import STATE
    from edgeconnect_lite.inpainting import Inpainter
    from edgeconnect_lite.masks import as_mask, read_mask
    from edgeconnect_lite.photos import read_photo

    picture = read_photo(photo)
    hole = None if mask is None else as_mask(read_mask(mask, invert_mask), picture.shape[:2])
    folder = out or photo.with_name(f"{photo.stem}-edited")
    if hole is not None and (folder / STATE).exists():
        raise UsageError(f"{folder} holds an edited photo with its hole already; wanted no --mask, or another --out")
    folder.mkdir(parents=True, exist_ok=True)
    server = EditorServer(picture, hole, Inpainter.from_pretrained(weights), folder, port)
    print(f"the editor is at {server.address}\nCtrl+C ends it", flush=True)
    if browser:
        webbrowser.open(server.address)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # who is asked to stop saves too
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print(f"\n{server.save()}")
    finally:
        server.server_close()


def inpaint(
    photo: tyro.conf.Positional[Path],
    mask: tyro.conf.Positional[Path],
    out: Path,
    edges: Path | None = None,
    save_edges: Path | None = None,
    weights: str | None = None,
    invert_mask: bool = False,
) -> None:
    """Fill the hole of a photo.

    Args:
        photo: the photo: .jpg .png .webp .bmp .gif (first frame) .tif .avif, of any size, upright as its EXIF tag says.
        mask: a picture of the same size, white = hole.
        out: where the result goes: .png keeps known pixels and transparency bit for bit, .webp is lossy, .jpg .bmp opaque.
        edges: an edge map of the same size to paint from, white = edge; by default stage 1 predicts one.
        save_edges: where the edges that were used go, white = edge, to be edited and given back by --edges.
        weights: a folder of weights, or a name on the Hugging Face Hub; by default the shipped ones.
        invert_mask: black = hole, as Quick Draw masks have it.
    """
    import numpy as np

    from edgeconnect_lite.inpainting import THRESHOLD, Inpainter, as_edges, like_known
    from edgeconnect_lite.masks import as_mask, read_mask
    from edgeconnect_lite.photos import as_photo, read_picture, write_picture

    for path in (out, save_edges):
        if path:
            _check_writable(path)
    found = read_picture(photo)
    picture, marked = as_photo(found), read_mask(mask, invert_mask)
    if marked.shape == picture.shape[1::-1] != picture.shape[:2]:
        turned = "wanted a mask of the upright photo: a photo is turned as its EXIF tag says"
        raise UsageError(
            "{}: is {} x {} and the photo {} x {}; {}".format(mask, *picture.shape[:2], *marked.shape, turned)
        )
    hole = as_mask(marked, picture.shape[:2])
    given = None if edges is None else as_edges(read_mask(edges), picture.shape[:2])
    inpainter = Inpainter.from_pretrained(weights)
    used = inpainter.predict_edges(picture, hole) > THRESHOLD if given is None else given
    result = like_known(inpainter(picture, hole, used), hole)
    if save_edges:
        write_picture(save_edges, used.astype("uint8") * 255)
    if found.shape[2] == 4:  # transparent stays transparent, with its own colours; what is painted is opaque
        colours = np.where(hole[..., None], result, found[..., :3])
        result = np.dstack([colours, np.where(hole, np.uint8(255), found[..., 3])])
    write_picture(out, result)
    print(f"wrote {out}")


def evaluate(
    weights: str | None = None, photos: Path | None = None, masks: Path | None = None, invert_masks: bool = False,
    sets: str | None = None, also: tyro.conf.UseAppendAction[tuple[str, ...]] = (), limit: int | None = None,
    seed: int = 0, json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None, figures: Path | None = None,
) -> None:  # fmt: skip
    """Measure a pair of weights on the hole: the classical methods, and ours with predicted, true and no edges.

    Args:
        weights: a folder of weights, or a name on the Hugging Face Hub; by default the shipped ones.
        photos: a folder, .txt list or .zip of photos, or a data set's root, of which the part to measure on is taken (CelebA-HQ
            has none: a warning says so); by default the 500 shipped test faces, which are then also split by what they show.
        masks: a folder, .txt list or .zip of masks, white = hole, in place of the sets.
        invert_masks: black = hole in that folder.
        sets: which of strokes (free, and in six bins of hole ratio), brush (20-40 %), box (in the centre); by default all.
        also: other weights to measure beside these, NAME=DIR; may be given more than once.
        limit: only the first so many photos.
        seed: decides the masks.
        json_file: where the figures go as JSON: results[mask_set][bin][method][metric], splits, proposals.
        figures: a folder for plot.png and panels of the best, median and worst cases by rank.
    """
    from itertools import islice

    from edgeconnect_lite.data_sets import open_data_set
    from edgeconnect_lite.evaluation_report import print_report, run_evaluation, write_figures
    from edgeconnect_lite.inpainting import Inpainter
    from edgeconnect_lite.photos import FacePhotos, write_bytes

    if json_file:
        _check_writable(json_file, endings=(".json",))
    if figures and (not figures.parent.is_dir() or (figures.exists() and not figures.is_dir())):
        raise UsageError(f"--figures is {figures}; wanted a folder, or a new one in a folder that is there")
    if limit is not None and limit < 1:
        raise UsageError(f"--limit is {limit}; wanted at least 1")
    chosen = _mask_sets(sets, masks, invert_masks)
    faces = FacePhotos("test") if photos is None else open_data_set(photos, 128, held_out=True)
    others = {name: Inpainter.from_pretrained(folder) for name, folder in _named(also).items()}
    inpainter = Inpainter.from_pretrained(weights)
    some = faces if limit is None else list(islice(faces, limit))
    records = faces.records if isinstance(faces, FacePhotos) else None
    report, panels = run_evaluation(inpainter, some, chosen, seed, others, records)
    print_report(report)
    if json_file:
        text = json.dumps({"command": " ".join(["edgeconnect-lite", *sys.argv[1:]]), **report}, indent=1)
        write_bytes(json_file, text.encode() + b"\n")
        print(f"wrote {json_file}")
    if figures:
        for path in write_figures(figures, report["results"], panels):
            print(f"wrote {path}")


def _mask_sets(sets: str | None, masks: Path | None, invert: bool) -> dict:
    """[mask_set][bin] -> masks: the folder's, or the chosen ones of our own."""
    from edgeconnect_lite.data_sets import masks_at
    from edgeconnect_lite.evaluation import mask_sets
    from edgeconnect_lite.masks import MaskFolder

    if masks is not None:
        if sets is not None:
            raise UsageError(f"--sets is {sets} and --masks is {masks}; wanted one of the two")
        return {masks.resolve().name: {"any": MaskFolder(masks_at(masks, held_out=True), 128, invert)}}
    known = mask_sets()
    names = list(known) if sets is None else [name.strip() for name in sets.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"--sets names {', '.join(unknown) or 'nothing'}; wanted some of {','.join(known)}")
    return {name: known[name] for name in names}


def _named(pairs: tuple[str, ...]) -> dict[str, str]:
    """NAME=DIR, ... -> {name: folder}."""
    from edgeconnect_lite.evaluation import METHODS

    named: dict[str, str] = {}
    for pair in pairs:
        name, equals, folder = pair.partition("=")
        if not (name and equals and folder):
            raise UsageError(f"--also is {pair}; wanted NAME=DIR")
        if name in named or name in (*METHODS, "photo"):
            raise UsageError(f"--also names {name} twice or as a method of its own; wanted another name")
        named[name] = folder
    return named


def prepare(
    source: tyro.conf.Positional[Path],
    out: Path,
    size: int = 128,
    masks: bool = False,
    invert_masks: bool = False,
    split: str | None = None,
    workers: int = 0,
) -> None:
    """Prepare pictures for training once: all into one .zip, cut and resized, or a .txt list of those that can be read.

    Broken ones are left out and named. A .zip goes on where an earlier run was ended, and is read bit for bit as SOURCE was.

    Args:
        source: a folder tree of pictures, the root of CelebA, CelebA-HQ, FFHQ or Places365, a .txt list, or a .zip.
        out: the archive, a .zip file, or the list, a .txt file; --photos (or --masks) takes both.
        size: px of the pictures in the archive.
        masks: SOURCE holds masks: kept with one bit a pixel, white = hole.
        invert_masks: black = hole in SOURCE, as Quick Draw masks have it; not in the archive any more.
        split: which part of a well-known data set (train, valid, test; of Quick Draw's masks train or test), by default train.
        workers: processes; 0 = one for each CPU core.
    """
    from edgeconnect_lite.data_sets import masks_at, open_data_set
    from edgeconnect_lite.listing import list_pictures
    from edgeconnect_lite.parallel import cores
    from edgeconnect_lite.prepare import Recipe, prepare_archive, prepare_list
    from edgeconnect_lite.runs import progress

    _check_writable(out, endings=(".txt", ".zip"))
    if not 16 <= size <= 4096 or workers < 0:
        raise UsageError(f"--size is {size} and --workers {workers}; wanted 16 to 4096, and at least 0")
    if out.exists() and source.exists() and out.samefile(source):
        raise UsageError(f"{out} is the source; wanted another --out")
    if masks and split and (split not in ("train", "test") or masks_at(source) == source):
        raise UsageError(
            f"--split is {split}; wanted, of masks, train or test, and both of them as folders in {source}"
        )
    paths = list_pictures(masks_at(source, split == "test")) if masks else open_data_set(source, size, split).paths
    if out.suffix.lower() == ".txt":
        report = prepare_list(paths, out, workers or cores(), progress)
    else:
        try:
            report = prepare_archive(paths, out, Recipe(size, masks, invert_masks), workers or cores(), progress)
        except KeyboardInterrupt:
            kept = f"{out}.part keeps what is done, the same command goes on"
            raise SystemExit(f"edgeconnect-lite: interrupted; {kept}") from None
    for _, reason in report.skipped:
        print(f"skipped: {reason}", file=sys.stderr)
    earlier = f", {report.found} of them in an earlier run" if report.found else ""
    print(f"wrote {out}: {report.stored} of {len(paths)} pictures{earlier}")


def export(out: Path, weights: str | None = None) -> None:
    """Write both generators as ONNX files, for sides of 16 to 1,024 px, checked against torch (needs the extra `export`).

    Args:
        out: the folder for edge_generator.onnx and image_generator.onnx.
        weights: a folder of weights, or a name on the Hugging Face Hub; by default the shipped ones.
    """
    from edgeconnect_lite.export import export_onnx

    if not out.is_dir() and not out.parent.is_dir():
        raise UsageError(f"--out is {out}; wanted a folder, or a new one in a folder that is there")
    print("\n".join(export_onnx(out, weights)))


def kernel(
    kernels: tuple[str, ...] = ("forward", "backward_from_x", "backward_from_yg"),
    dtypes: tuple[str, ...] = ("bfloat16", "float16", "float32"),
    targets: tuple[int, ...] = (80, 90, 100),
    layout: str = "contiguous",
    bias: bool = False,
    odd_sizes: bool = False,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Compile the fused gated ELU for GPUs, without one, and report its machine code (about a second for each line).

    Args:
        kernels: which of forward, forward_keeping_gate, backward_from_x, backward_from_yg.
        dtypes: which of bfloat16, float16, float32.
        targets: compute capabilities, times 10: 75, 80, 86, 89, 90, 100, 120.
        layout: contiguous or channels_last.
        bias: with the convolution's bias folded in.
        odd_sizes: for sizes that allow no 128-bit accesses.
        json_file: where the figures go as JSON, with those of torch.compile's kernels.
    """
    from edgeconnect_kernels.report import print_report, report, variants

    from edgeconnect_lite.photos import write_bytes
    from edgeconnect_lite.runs import progress

    if json_file:
        _check_writable(json_file, endings=(".json",))
    chosen = variants(kernels, dtypes, targets, layout=layout, bias=bias, aligned=not odd_sizes)
    if not chosen:
        raise UsageError("no kernel is left to compile; wanted at least one kernel, dtype and target (with --bias: not "
                         "backward_from_yg alone)")  # fmt: skip
    result = report(progress(chosen, desc="compiling"))
    print_report(result)
    if json_file:
        text = json.dumps({"command": " ".join(["edgeconnect-lite", *sys.argv[1:]]), **result}, indent=1)
        write_bytes(json_file, text.encode() + b"\n")
        print(f"wrote {json_file}")


def marks(folder: tyro.conf.Positional[Path], out: Path, minutes: float = 6.0, course: Path | None = None) -> None:
    """Run notebooks that students handed in, and write what the checkers say. It runs their code: do it in a container.

    Args:
        folder: FOLDER/<student>/NN_*.ipynb, or one student's FOLDER/NN_*.ipynb.
        out: the table, a .csv file: a row for each student and lesson.
        minutes: that the cells of one notebook may take.
        course: the lessons as they were handed out; by default this checkout's notebooks.
    """
    from edgeconnect_lite.marks import collect, print_table, write_csv

    _check_writable(out, endings=(".csv",))
    rows = []
    for row in collect(folder, course, minutes):
        rows.append(row)
        write_csv(out, rows)  # after each: a long run may be interrupted
    print_table(rows)
    print(f"wrote {out}")


def _train_help() -> None:
    """Train a network: `edgeconnect-lite train edge --help`, `train image --help`, `train features --help`."""


def _train_commands() -> dict[str, Callable]:
    from edgeconnect_lite.attributes import FeatureTraining, train_features
    from edgeconnect_lite.training import EdgeTraining, ImageTraining, train_edge, train_image

    def edge(config: Annotated[EdgeTraining, tyro.conf.arg(name="")], out: Path, resume: bool = False) -> None:
        """Train stage 1, the edge generator; --resume goes on from --out's checkpoint."""
        train_edge(config, out, resume)

    def image(config: Annotated[ImageTraining, tyro.conf.arg(name="")], out: Path, resume: bool = False) -> None:
        """Train stage 2, the image generator; --resume goes on from --out's checkpoint."""
        train_image(config, out, resume)

    def features(config: Annotated[FeatureTraining, tyro.conf.arg(name="")], out: Path, resume: bool = False) -> None:
        """Train the face features; --resume goes on from --out's checkpoint."""
        train_features(config, out, resume)

    return {"edge": edge, "image": image, "features": features}


def _check_writable(path: Path, endings: tuple[str, ...] | None = None) -> None:
    """Before the work, not after it: is this a file that can be written? endings: None = pictures."""
    from edgeconnect_lite.photos import EXTENSIONS

    endings = endings or EXTENSIONS
    if path.suffix.lower() not in endings:
        raise UsageError(f"{path}: cannot write this kind of file; wanted an ending of {', '.join(endings)}")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent} to write to")
    if path.is_dir() or not os.access(path.parent, os.W_OK):  # a new file takes the place of the old one
        raise UsageError(f"{path}: cannot be written")


def main(arguments: list[str] | None = None) -> None:
    """The entry point of `edgeconnect-lite`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    commands = {
        "demo": demo,
        "lab": lab,
        "edit": edit,
        "inpaint": inpaint,
        "evaluate": evaluate,
        "prepare": prepare,
        "export": export,
        "kernel": kernel,
        "marks": marks,
    }
    try:
        if arguments[:1] == ["train"]:
            tyro.extras.subcommand_cli_from_dict(_train_commands(), prog="edgeconnect-lite train", args=arguments[1:])
        else:
            commands["train"] = _train_help
            description = "Edge-guided inpainting of faces in two stages."
            tyro.extras.subcommand_cli_from_dict(
                commands, prog="edgeconnect-lite", description=description, args=arguments
            )
    except KeyboardInterrupt:
        raise SystemExit("edgeconnect-lite: interrupted") from None
    except Exception as error:
        if os.environ.get("EDGECONNECT_TRACEBACK"):
            raise
        expected = isinstance(error, ValueError | OSError | RuntimeError)
        say = str(error) if expected else f"{type(error).__name__}: {error} (EDGECONNECT_TRACEBACK=1 shows where)"
        raise SystemExit(f"edgeconnect-lite: {say}") from None


if __name__ == "__main__":
    main()
