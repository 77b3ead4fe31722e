"""The command line: what it writes, and one clear line for each bad input, with nothing half-written."""

import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import needs_triton
from PIL import Image

from edgeconnect_lite import FacePhotos, stroke_mask
from edgeconnect_lite.cli import main
from edgeconnect_lite.masks import MaskPolarityWarning
from edgeconnect_lite.photos import read_photo, write_picture


@pytest.fixture
def files(tmp_path, monkeypatch):
    """photo.png and mask.png in an empty folder, which is also the current one."""
    monkeypatch.chdir(tmp_path)
    write_picture("photo.png", FacePhotos("test")[16])
    write_picture("mask.png", stroke_mask(np.random.default_rng(0)).astype(np.uint8) * 255)
    return tmp_path


def test_demo_prints_the_three_figures_and_writes_a_picture(files, capsys):
    main(["demo", "--out", "steps.png"])
    printed = capsys.readouterr().out
    assert [line.split("  ")[1] for line in printed.splitlines() if line.endswith(" dB")] == [
        "Telea", "composite, predicted edges", "composite, true edges",
    ]  # fmt: skip
    assert read_photo("steps.png").std() > 30


def test_inpaint_saves_edges_that_give_the_same_picture_again(files):
    main(["inpaint", "photo.png", "mask.png", "--out", "out.png", "--save-edges", "edges.png"])
    main(["inpaint", "photo.png", "mask.png", "--out", "again.png", "--edges", "edges.png"])
    photo, mask, out = read_photo("photo.png"), read_photo("mask.png")[..., 0] > 0, read_photo("out.png")
    assert np.array_equal(out[~mask], photo[~mask]) and not np.array_equal(out[mask], photo[mask])
    assert np.array_equal(out, read_photo("again.png"))
    write_picture("edges.png", np.zeros((128, 128), np.uint8))
    main(["inpaint", "photo.png", "mask.png", "--out", "blank.png", "--edges", "edges.png"])
    assert not np.array_equal(out, read_photo("blank.png"))


def test_a_mask_without_a_hole_gives_the_photo_back(files):
    write_picture("mask.png", np.zeros((128, 128), np.uint8))
    main(["inpaint", "photo.png", "mask.png", "--out", "out.png"])
    assert np.array_equal(read_photo("out.png"), read_photo("photo.png"))


def test_inverted_mask(files):
    write_picture("inverted.png", 255 - read_photo("mask.png"))
    main(["inpaint", "photo.png", "mask.png", "--out", "a.png"])
    main(["inpaint", "photo.png", "inverted.png", "--invert-mask", "--out", "b.png"])
    assert np.array_equal(read_photo("a.png"), read_photo("b.png"))


def _spoil(kind, folder):
    """Make one thing wrong; returns the arguments and what the message must say."""
    arguments = {"photo": "photo.png", "mask": "mask.png", "--out": "out.png"}
    if kind == "text file as photo":
        (folder / "bad.png").write_text("this is not a picture")
        return arguments | {"photo": "bad.png"}, "bad.png: not a picture"
    if kind == "truncated jpeg":
        data = cv2.imencode(".jpg", read_photo("photo.png"))[1].tobytes()
        (folder / "bad.jpg").write_bytes(data[: len(data) // 2])
        return arguments | {"photo": "bad.jpg"}, "bad.jpg: broken picture"
    if kind == "zero bytes":
        (folder / "bad.png").write_bytes(b"")
        return arguments | {"photo": "bad.png"}, "bad.png: the file is empty"
    if kind == "missing photo":
        return arguments | {"photo": "none.png"}, "none.png: there is no such file"
    if kind == "missing mask":
        return arguments | {"mask": "none.png"}, "none.png: there is no such file"
    if kind == "folder as photo":
        return arguments | {"photo": "."}, "cannot be read"
    if kind == "mask of another size":
        write_picture("bad.png", np.zeros((64, 32), np.uint8))
        return arguments | {"mask": "bad.png"}, "mask is 32 x 64 and the photo 128 x 128"
    if kind == "all hole":
        write_picture("bad.png", np.full((128, 128), 255, np.uint8))
        return arguments | {"mask": "bad.png"}, "all hole"
    if kind == "edges of another size":
        write_picture("bad.png", np.zeros((64, 64), np.uint8))
        return arguments | {"--edges": "bad.png"}, "edges have shape (64, 64); wanted (128, 128)"
    if kind == "missing weights":
        return arguments | {"--weights": "none"}, "none: there is no such folder"
    if kind == "empty weights":
        (folder / "empty").mkdir()
        return arguments | {"--weights": "empty"}, "empty/edge_generator/config.json: there is no such file"
    if kind == "output in no folder":
        return arguments | {"--out": "none/out.png"}, "there is no folder none"
    if kind == "output is a folder":
        (folder / "dir.png").mkdir()
        return arguments | {"--out": "dir.png"}, "dir.png: cannot be written"
    if kind == "edges' output in no folder":
        return arguments | {"--save-edges": "none/edges.png"}, "there is no folder none"
    assert kind == "unknown output format"
    return arguments | {"--out": "out.xyz"}, "cannot write this kind of file"


@pytest.mark.parametrize("kind", [
    "text file as photo", "truncated jpeg", "zero bytes", "missing photo", "missing mask", "folder as photo",
    "mask of another size", "all hole", "edges of another size", "missing weights", "empty weights",
    "output in no folder", "output is a folder", "edges' output in no folder", "unknown output format",
])  # fmt: skip
def test_bad_input_is_one_line_and_nothing_is_written(files, kind):
    arguments, wanted = _spoil(kind, files)
    before = sorted(files.rglob("*"))
    words = [arguments.pop("photo"), arguments.pop("mask")] + [word for pair in arguments.items() for word in pair]
    with pytest.raises(SystemExit) as stop:
        main(["inpaint", *words])
    message = str(stop.value.code)
    assert message.startswith("edgeconnect-lite: ") and wanted in message and "\n" not in message
    assert sorted(files.rglob("*")) == before


def test_an_error_leaves_the_process_with_code_1_and_no_traceback(files):
    command = [sys.executable, "-m", "edgeconnect_lite.cli", "inpaint", "none.png", "mask.png", "--out", "out.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr == "edgeconnect-lite: none.png: there is no such file\n"
    assert done.stdout == ""


def test_prepare_names_what_it_skips(files, capsys):
    (files / "broken.jpg").write_text("nothing")
    main(["prepare", ".", "--out", "list.txt"])
    shown = capsys.readouterr()
    assert "skipped: broken.jpg: not a picture" in shown.err and "2 of 3 pictures" in shown.out
    assert (files / "list.txt").read_text().split() == ["mask.png", "photo.png"]


def evaluated(*words):
    main(["evaluate", "--json", "figures.json", *words])
    return json.loads(Path("figures.json").read_text())


def test_evaluate_writes_the_figures_by_set_bin_and_method(files, capsys):
    written = evaluated("--limit", "2", "--figures", "drawn")
    results = written["results"]
    assert {"command", "results", "splits"} <= set(written) <= {"command", "results", "splits", "proposals"}
    assert {name: list(bins) for name, bins in results.items()} == {
        "strokes": ["any", "0-10%", "10-20%", "20-30%", "30-40%", "40-50%", "50-60%"], "brush": ["20-40%"], "box": ["25%"],
    }  # fmt: skip
    for methods in [methods for bins in results.values() for methods in bins.values()]:
        assert list(methods) == ["telea", "navier_stokes", "predicted", "true", "none"]
        for figures in methods.values():
            assert {"psnr", "psnr_interval", "ssim", "l1", "frechet", "kernel", "hole_ratio"} <= set(figures)
        edges = {
            "precision",
            "recall",
            "f1",
            "f1_interval",
            "f1_1px",
            "line_width",
            "true_line_width",
            "line_width_ratio",
        }
        assert edges | {"over_telea", "over_none", "adherence", "over_telea_interval"} <= set(methods["predicted"])
        assert edges <= set(methods["telea"]) and {"over_telea", "over_predicted", "adherence"} <= set(methods["true"])
        assert methods["true"]["edge_effect"] > 0 and methods["telea"]["photos"] == 2
    assert 0.5 <= results["strokes"]["50-60%"]["telea"]["hole_ratio"] <= 0.6
    assert results["box"]["25%"]["telea"]["hole_ratio"] == 0.25
    assert sum(group["photos"] for group in written["splits"]["strokes any"]["yaw"].values()) == 2
    assert {path.name for path in (files / "drawn").iterdir()} == {
        "plot.png", "panel-strokes-20-30.jpg", "panel-brush-20-40.jpg", "panel-box-25.jpg",
    }  # fmt: skip
    assert read_photo("drawn/panel-brush-20-40.jpg").std() > 30
    assert "everything on the hole" in capsys.readouterr().out


def test_evaluate_on_folders(files, capsys):
    for name, kind in (("faces", "photo.png"), ("holes", "mask.png")):
        (files / name).mkdir()
        (files / kind).rename(files / name / kind)
        (files / name / f"two-{kind}").write_bytes((files / name / kind).read_bytes())
    written = evaluated("--photos", "faces", "--masks", "holes", "--limit", "2")
    assert list(written["results"]) == ["holes"] and "splits" not in written
    assert written["results"]["holes"]["any"]["predicted"]["photos"] == 2
    mask = read_photo("holes/mask.png")[..., 0] > 0
    assert written["results"]["holes"]["any"]["none"]["hole_ratio"] == pytest.approx(mask.mean(), rel=1e-5)
    assert "holes any" in capsys.readouterr().out
    with pytest.warns(MaskPolarityWarning):
        written = evaluated("--photos", "faces", "--masks", "holes", "--limit", "1", "--invert-masks")
    assert written["results"]["holes"]["any"]["none"]["hole_ratio"] == pytest.approx(1 - mask.mean(), rel=1e-5)
    assert "frechet" not in written["results"]["holes"]["any"]["telea"]


def test_evaluate_other_weights_beside_the_shipped_ones(files, capsys):
    shipped = str(resources.files("edgeconnect_lite") / "assets/weights")
    written = evaluated("--limit", "2", "--sets", "box", "--also", f"twin={shipped}", "--also", f"third={shipped}")
    assert list(written["results"]) == ["box"]
    methods = written["results"]["box"]["25%"]
    assert list(methods)[-2:] == ["twin", "third"] and "twin - telea" in capsys.readouterr().out
    for name in ("twin", "third"):
        for metric in ("psnr", "ssim", "l1", "frechet", "f1", "f1_interval", "over_telea"):
            assert methods[name][metric] == methods["predicted"][metric]
        assert methods[name]["over_predicted"] == 0


def test_train_and_resume_by_command(files, capsys):
    tiny = ["--width", "4", "--bottom", "8", "--blocks", "1", "--size", "64", "--batch-size", "2", "--validation", "2",
            "--photos", "faces", "--log-every", "1", "--threads", "1"]  # fmt: skip
    main(["train", "edge", "--out", "run", "--steps", "2", *tiny])
    with pytest.raises(SystemExit, match="holds a checkpoint already; pass --resume"):
        main(["train", "edge", "--out", "run", "--steps", "3", *tiny])
    with pytest.raises(SystemExit, match="steps was 2 and is 3"):
        main(["train", "edge", "--out", "run", "--steps", "3", "--resume", *tiny])
    main(["train", "edge", "--out", "run", "--steps", "2", "--resume", *tiny])
    steps = [json.loads(line)["step"] for line in (files / "run/edge_generator/log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 2]
    with pytest.raises(SystemExit, match="VGG19's weights are not at"):
        main(["train", "image", "--out", "other", "--steps", "1", "--vgg19", "none.pth", "--style-weight", "50", *tiny])
    with pytest.raises(SystemExit) as stop:
        main(["train", "edge", "--out", "third", "--condition", "moon", *tiny])
    assert stop.value.code == 2 and "condition" in capsys.readouterr().err


@needs_triton
def test_kernel_prints_the_figures_and_writes_them(files, capsys):
    main(["kernel", "--kernels", "forward", "--dtypes", "bfloat16", "--targets", "90", "100", "--json", "kernel.json"])
    printed = capsys.readouterr().out
    written = json.loads((files / "kernel.json").read_text())
    assert [(row["name"], row["dtype"], row["target"]) for row in written["kernels"]] == [
        ("forward", "bfloat16", 90), ("forward", "bfloat16", 100),
    ]  # fmt: skip
    assert printed.count("2 LDG.128, 1 STG.128") == 2 and "modelled, not measured" in printed
    assert all(f"{row['instructions_per_element']:.1f}" in printed for row in written["kernels"])
    assert "H200 SXM" in printed and "A100" not in printed and {"formula", "peer", "command"} <= set(written)


@needs_triton
def test_kernel_with_a_bias_leaves_out_the_pass_that_has_none(files, capsys):
    main(["kernel", "--dtypes", "float32", "--targets", "90", "--bias", "--odd-sizes"])
    printed = capsys.readouterr().out
    assert "backward_from_x" in printed and "backward_from_yg" not in printed and "G.128" not in printed


def test_kernel_without_triton_says_so(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(SystemExit, match=r"edgeconnect-lite: compiling a kernel needs Triton, which is not installed"):
        main(["kernel", "--json", "kernel.json"])
    assert not (files / "kernel.json").exists()


@pytest.mark.parametrize("words, wanted", [
    (["kernel", "--targets", "70"], "target is 70; wanted 75, 80, 86, 89, 90, 100, 120"),
    (["kernel", "--kernels", "backward_from_yg", "--bias"], "no kernel is left to compile"),
    (["kernel", "--json", "a.txt"], "wanted an ending of .json"),
    (["demo", "--photo", "500", "--out", "a.png"], "--photo is 500; wanted 0 to 499"),
    (["demo", "--out", "none/a.png"], "there is no folder none"),
    (["evaluate", "--limit", "0"], "--limit is 0; wanted at least 1"),
    (["evaluate", "--json", "a.txt"], "wanted an ending of .json"),
    (["evaluate", "--sets", "brush,clouds"], "--sets names clouds; wanted some of strokes,brush,box"),
    (["evaluate", "--sets", ""], "--sets names nothing; wanted some of strokes,brush,box"),
    (["evaluate", "--sets", "brush", "--masks", "."], "--sets is brush and --masks is .; wanted one of the two"),
    (["evaluate", "--also", "runs/mine"], "--also is runs/mine; wanted NAME=DIR"),
    (["evaluate", "--also", "true=runs/mine"], "--also names true twice or as a method"),
    (["evaluate", "--also", "mine=none"], "none: there is no such folder"),
    (["evaluate", "--figures", "photo.png"], "--figures is photo.png; wanted a folder"),
    (["evaluate", "--figures", "none/of/these"], "--figures is none/of/these; wanted a folder"),
    (["evaluate", "--masks", "none"], "none: there is no such folder"),
    (["evaluate", "--photos", "none", "--json", "a.json"], "none: there is no such folder"),
    (["prepare", "none", "--out", "a.txt"], "none: there is no such folder"),
    (["train", "edge", "--out", "run", "--photos", "none"], "none: there is no such folder"),
    (["train", "edge", "--out", "run", "--masks", "clouds"], "kind is ('clouds',); wanted strokes, brush, boxes"),
    (["train", "edge", "--out", "run", "--steps", "0"], "steps is 0; wanted at least 1"),
    (["train", "image", "--out", "run", "--log-every", "0"], "log_every is 0; wanted at least 1"),
    (["train", "edge", "--out", "run", "--resume"], "there is no checkpoint to resume from"),
])  # fmt: skip
def test_the_other_commands_say_what_was_wanted_too(files, words, wanted):
    before = sorted(files.rglob("*"))
    with pytest.raises(SystemExit) as stop:
        main(words)
    message = str(stop.value.code)
    assert message.startswith("edgeconnect-lite: ") and wanted in message and "\n" not in message
    assert sorted(files.rglob("*")) == before


def test_both_stages_can_share_a_folder_which_is_then_one_of_weights(files):
    tiny = ["--out", "run", "--width", "4", "--bottom", "8", "--blocks", "1", "--size", "64", "--batch-size", "2",
            "--validation", "2", "--steps", "1", "--threads", "1"]  # fmt: skip
    main(["train", "edge", *tiny])
    main(["train", "image", *tiny])
    main(["inpaint", "photo.png", "mask.png", "--out", "out.png", "--weights", "run"])
    assert (files / "out.png").is_file()


@pytest.mark.parametrize("mode", ["L", "RGBA", "1x1"])
def test_gray_transparent_and_tiny_photos(files, mode):
    photo = Image.open("photo.png")
    (photo.resize((1, 1)) if mode == "1x1" else photo.convert(mode)).save("other.png")
    if mode == "1x1":
        write_picture("mask.png", np.zeros((1, 1), np.uint8))
    main(["inpaint", "other.png", "mask.png", "--out", "out.png"])
    assert read_photo("out.png").shape[:2] == read_photo("mask.png").shape[:2]


def test_strokes_on_a_transparent_layer_are_a_mask_and_edges(files):
    strokes = read_photo("mask.png")[..., 0]
    Image.fromarray(np.dstack([np.full((128, 128, 3), 255, np.uint8), strokes])).save("layer.png")
    main(["inpaint", "photo.png", "mask.png", "--out", "a.png", "--edges", "mask.png"])
    main(["inpaint", "photo.png", "layer.png", "--out", "b.png", "--edges", "layer.png"])
    assert np.array_equal(read_photo("a.png"), read_photo("b.png"))


def test_lab_outside_a_checkout_says_so(monkeypatch, tmp_path):
    import edgeconnect_lite.cli as cli

    monkeypatch.setattr(cli, "__file__", str(tmp_path / "site-packages/edgeconnect_lite/cli.py"))
    with pytest.raises(SystemExit, match="get a checkout of edgeconnect-lite"):
        main(["lab"])
