"""training.py: tiny networks, a few steps; a resumed run is the uninterrupted one, bit for bit."""

import itertools
import json
import math
import shutil
import sysconfig
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import noise_photo, same, save
from safetensors.torch import load_file

from edgeconnect_lite import losses, run_parts, training
from edgeconnect_lite.checkpoints import TrainingStopped
from edgeconnect_lite.cli import main
from edgeconnect_lite.data_sets import CelebA
from edgeconnect_lite.dilated import DilatedGenerator
from edgeconnect_lite.features import FeaturesNotFound
from edgeconnect_lite.generators import EdgeGenerator, EdgePrediction, ImageGenerator
from edgeconnect_lite.inpainting import Inpainter, predict_probability
from edgeconnect_lite.masks import MaskFolder, RandomMasks
from edgeconnect_lite.optimizers import Muon
from edgeconnect_lite.photos import BrokenPhotoWarning, FacePhotos, PhotoFolder, read_photo
from edgeconnect_lite.run_parts import (
    open_data,
    open_image_generator,
    open_masks,
    open_optimizer,
    open_photos,
    part_of,
    with_optimizers,
)
from edgeconnect_lite.runs import learning_rate
from edgeconnect_lite.samples import MixedPhotos, Sample, Samples, batches, edge_stage_input
from edgeconnect_lite.steps import given_edges, noise_of, weighted_sum
from edgeconnect_lite.training import EdgeTraining, ImageTraining, train_edge, train_image
from edgeconnect_lite.weights import BadWeights, load_network


@pytest.fixture(scope="module", autouse=True)
def process_as_before():
    """A run sets the process's threads, and that tiny numbers count as 0."""
    torch_threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(torch_threads)
    cv2.setNumThreads(cv2_threads)
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Fourteen shipped faces as a folder of small files."""
    folder, faces = tmp_path_factory.mktemp("photos"), FacePhotos("test", 64)
    for i in range(14):
        save(folder / f"{i:02d}.png", faces[i])
    return str(folder)


def tiny(kind, photos, **changes):
    shared = {
        "width": 4,
        "bottom": 8,
        "blocks": 1,
        "size": 64,
        "batch_size": 2,
        "steps": 4,
        "validation": 4,
        "threads": 1,
    }
    if kind is ImageTraining:
        shared |= {"perceptual_weight": 0, "style_weight": 0}
    else:
        shared |= {"decision": 4, "adversarial_weight": 0.01, "feature_matching_weight": 0.3}
    return kind(photos=photos, log_every=2, **{**shared, **changes})


STAGES = {
    "edge": (EdgeTraining, train_edge, EdgeGenerator, "edge_cross_entropy"),
    "image": (ImageTraining, train_image, ImageGenerator, "reconstruction_loss"),
}
each_stage = pytest.mark.parametrize("stage", STAGES)


def kept(out, name):
    """A file of the run that wrote to `out`; a path that does not exist where there is none."""
    return next(out.glob(f"*_generator/{name}"), out / name)


def read_log(out):
    return [json.loads(line) for line in kept(out, "log.jsonl").read_text().splitlines()]


def equal_trees(a, b):
    """Equal in every tensor and number, through dicts and lists."""
    if isinstance(a, torch.Tensor):
        return same(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal_trees(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal_trees(x, y) for x, y in zip(a, b))
    return a == b


def checkpoint(out):
    return torch.load(kept(out, "checkpoint.pt"), weights_only=True)


# whole runs


@each_stage
def test_a_short_run_writes_everything_that_it_promises(stage, photos, tmp_path):
    kind, train, make, _ = STAGES[stage]
    config = tiny(kind, photos)
    generator = train(config, tmp_path / "deep/out")
    out = tmp_path / "deep/out"
    assert {path.name for path in out.iterdir()} == {f"{stage}_generator"}
    assert isinstance(generator, make)
    stored = json.loads(kept(out, "training.json").read_text())
    assert stored == json.loads(json.dumps(asdict(config)))

    folder = out / f"{stage}_generator"
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "model.safetensors", "checkpoint.pt", "training.json", "log.jsonl", "panel.png"
    }  # fmt: skip
    sizes = {"width": 4, "bottom": 8, "blocks": 1, "skips": True}
    assert json.loads((folder / "config.json").read_text()) == sizes | ({"decision": 4} if stage == "edge" else {})
    half = load_file(folder / "model.safetensors")
    assert {value.dtype for value in half.values()} == {torch.float16}
    assert all(same(half[name], value.half()) for name, value in generator.state_dict().items())
    loaded = make.from_pretrained(folder)
    assert all(same(value, half[name].float()) for name, value in loaded.state_dict().items())

    lines = read_log(out)
    terms = {"discriminator", "adversarial", "feature_matching"}
    terms |= {"cross_entropy", "gray"} if stage == "edge" else {"reconstruction", "squared"}
    assert [line.pop("step") for line in lines] == [2, 4, 4]
    assert set(lines[0]) == set(lines[1]) == terms
    assert set(lines[2]) == ({"precision", "recall", "f1"} if stage == "edge" else {"hole_psnr"})
    assert all(math.isfinite(value) for line in lines for value in line.values())
    columns = 3 if stage == "edge" else 4
    assert read_photo(kept(out, "panel.png")).shape == (4 * 66 - 2, columns * 66 - 2, 3)
    assert checkpoint(out)["step"] == 4


@each_stage
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(stage, photos, tmp_path):
    kind, train, _, _ = STAGES[stage]
    runs = []
    for name, seed in (("first", 0), ("second", 0), ("third", 1)):
        train(tiny(kind, photos, steps=2, seed=seed), tmp_path / name)
        runs.append(checkpoint(tmp_path / name))
    assert equal_trees(runs[0], runs[1])
    assert not equal_trees(runs[0]["generator"], runs[2]["generator"])


@each_stage
def test_a_resumed_run_is_the_uninterrupted_one(stage, photos, tmp_path, monkeypatch):
    kind, train, _, loss = STAGES[stage]
    config = tiny(kind, photos, steps=6, warmup=3, checkpoint_minutes=0.0)  # a checkpoint after every step
    train(config, tmp_path / "whole")

    calls, true_loss = [], getattr(losses, loss)

    def interrupted(*arguments):
        calls.append(0)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return true_loss(*arguments)

    monkeypatch.setattr(losses, loss, interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "parts")
    monkeypatch.undo()
    assert checkpoint(tmp_path / "parts")["step"] == 3
    train(config, tmp_path / "parts", resume=True)
    whole, parts = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts")
    kept_parts = {"generator", "discriminator", "g_optimizer", "d_optimizer", "log"}
    assert whole.keys() == kept_parts | {"step", "random_state", "config", "environment"}
    assert equal_trees(whole, parts)
    files = [tmp_path / name / f"{stage}_generator/model.safetensors" for name in ("whole", "parts")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_finished_run_resumes_to_itself(photos, tmp_path, capsys):
    config = tiny(EdgeTraining, photos, steps=2)
    first = train_edge(config, tmp_path)
    before = kept(tmp_path, "checkpoint.pt").read_bytes()
    again = train_edge(config, tmp_path, resume=True)
    assert all(same(first.state_dict()[name], value) for name, value in again.state_dict().items())
    assert kept(tmp_path, "checkpoint.pt").read_bytes() == before
    assert "has its 2 steps behind it already" in capsys.readouterr().out


@each_stage
def test_a_run_may_begin_with_the_weights_of_another(stage, photos, tmp_path):
    kind, train, _, _ = STAGES[stage]
    first = train(tiny(kind, photos, steps=2), tmp_path / "first")
    config = tiny(kind, photos, steps=1, start_from=str(tmp_path / "first"), learning_rate=0.0)
    second = train(config, tmp_path / "second")
    assert all(same(first.state_dict()[name].half().float(), value) for name, value in second.state_dict().items())
    with pytest.raises(ValueError, match=r"'width': 4.*wanted .*'width': 8"):
        train(replace(config, width=8), tmp_path / "third")
    with pytest.raises(BadWeights, match="no such folder"):
        train(replace(config, start_from=str(tmp_path / "nowhere")), tmp_path / "third")


def test_a_run_may_begin_with_the_shipped_weights(photos, tmp_path):
    config = EdgeTraining(photos=photos, size=64, start_from="shipped", steps=1, batch_size=1, validation=2, threads=1)
    before = Inpainter.from_pretrained().edge_generator.state_dict()
    after = train_edge(replace(config, learning_rate=0.0), tmp_path).state_dict()
    assert all(same(before[name], value) for name, value in after.items())


@each_stage
def test_the_loss_falls(stage, photos, tmp_path):
    kind, train, _, _ = STAGES[stage]
    config = tiny(kind, photos, steps=40, batch_size=4, learning_rate=1e-2, warmup=1, hole_weight=1.0)
    train(replace(config, adversarial_weight=0, feature_matching_weight=0, log_every=10), tmp_path)
    term = "cross_entropy" if stage == "edge" else "reconstruction"
    course = [line[term] for line in read_log(tmp_path) if term in line]
    assert len(course) == 4 and course[-1] < 0.9 * course[0]


def test_terms_of_weight_0_are_not_computed(photos, tmp_path):
    off = {"adversarial_weight": 0, "feature_matching_weight": 0}
    train_edge(tiny(EdgeTraining, photos, steps=2, gray_weight=0, **off), tmp_path / "edge")
    assert set(read_log(tmp_path / "edge")[0]) == {"step", "cross_entropy"}
    train_edge(tiny(EdgeTraining, photos, steps=2, cross_entropy_weight=0, **off), tmp_path / "gray")
    assert set(read_log(tmp_path / "gray")[0]) == {"step", "gray"}
    train_image(tiny(ImageTraining, photos, steps=2, squared_weight=0, **off), tmp_path / "image")
    assert set(read_log(tmp_path / "image")[0]) == {"step", "reconstruction"}


def test_the_gray_term_alone_teaches_the_u_net_and_not_the_decision(photos, tmp_path):
    """With gradients for neither, the decision's layers stay as they were, without even a decay."""
    off = {"adversarial_weight": 0, "feature_matching_weight": 0, "cross_entropy_weight": 0}
    config = tiny(EdgeTraining, photos, steps=3, warmup=1, gray_weight=1.0, **off)
    torch.manual_seed(config.seed)
    before = EdgeGenerator(config.width, config.bottom, config.blocks, config.skips, config.decision).state_dict()
    after = train_edge(config, tmp_path).state_dict()
    moved = {name.split(".")[0] for name, value in after.items() if not same(value.contiguous(), before[name])}
    assert moved == {"unet"}


@pytest.mark.parametrize("optimizer", ["muon", "adam"])
@each_stage
def test_every_optimizer_trains_and_resumes(stage, optimizer, photos, tmp_path):
    kind, train, _, _ = STAGES[stage]
    config = tiny(kind, photos, optimizer=optimizer, steps=2)
    train(config, tmp_path)
    groups = checkpoint(tmp_path)["g_optimizer"]["param_groups"]
    assert [group.get("muon") for group in groups] == ([True, False] if optimizer == "muon" else [None])
    train(config, tmp_path, resume=True)
    with pytest.raises(TrainingStopped, match="optimizer was"):
        train(replace(config, optimizer={"muon": "adam", "adam": "muon"}[optimizer]), tmp_path, resume=True)


def test_the_optimizers_are_as_configured():
    network = EdgeGenerator(4, 8, 1, decision=4)
    config = EdgeTraining(learning_rate=7e-3, betas=(0.7, 0.8), discriminator_betas=(0.1, 0.2))
    for name, kind in (("muon", Muon), ("adam", torch.optim.Adam)):
        optimizer = open_optimizer(network, replace(config, optimizer=name))
        assert type(optimizer) is kind
        assert all(group["betas"] == (0.7, 0.8) and group["lr"] == 7e-3 for group in optimizer.param_groups)
        assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters()))
    other = with_optimizers(network, torch.nn.Conv2d(1, 1, 3), config)["d_optimizer"]
    assert type(other) is torch.optim.Adam and other.param_groups[0]["betas"] == (0.1, 0.2)


def test_the_peer_trains_and_its_folder_holds_it(photos, tmp_path, monkeypatch):
    assert {p: open_image_generator(ImageTraining(network=p)).__class__ for p in ("unet", "dilated")} == {
        "unet": ImageGenerator, "dilated": DilatedGenerator
    }  # fmt: skip
    monkeypatch.setattr(run_parts, "DilatedGenerator", partial(DilatedGenerator, width=4, blocks=1))
    config = tiny(ImageTraining, photos, network="dilated", steps=2, checkpoint_minutes=0.0)
    trained = train_image(config, tmp_path)
    loaded = load_network(kept(tmp_path, "config.json").parent, DilatedGenerator)
    assert all(same(value.half().float(), loaded.state_dict()[name]) for name, value in trained.state_dict().items())
    assert {"hole_psnr"} < set().union(*read_log(tmp_path))
    train_image(config, tmp_path, resume=True)


def test_a_compiled_run_is_the_eager_one_to_rounding(photos, tmp_path):
    if not (shutil.which("g++") and Path(sysconfig.get_path("include"), "Python.h").exists()):
        pytest.skip("g++ or Python's headers (python3-dev) are missing, which Inductor needs on a CPU")
    logs = []
    for compiled in (False, True):
        torch.compiler.reset()
        config = tiny(EdgeTraining, photos, steps=2, compile=compiled, adversarial_weight=0, feature_matching_weight=0)
        trained = train_edge(config, tmp_path / str(compiled))
        logs.append(read_log(tmp_path / str(compiled))[0])
    assert type(trained) is EdgeGenerator  # not the compiled wrapper, whose parameters have other names
    loaded = load_network(kept(tmp_path / "True", "config.json").parent, EdgeGenerator)
    assert loaded.state_dict().keys() == trained.state_dict().keys()
    assert logs[1] == pytest.approx(logs[0], rel=0.01)


@each_stage
def test_compile_compiles_the_generator(stage, photos, tmp_path, monkeypatch):
    kind, train, make, _ = STAGES[stage]
    seen = []
    monkeypatch.setattr(torch, "compile", lambda network: seen.append(type(network)) or network)
    train(tiny(kind, photos, steps=1), tmp_path / "eager")
    assert not seen
    train(tiny(kind, photos, steps=1, compile=True), tmp_path / "compiled")
    assert seen == [make]


def test_stage_2_trains_on_the_edges_of_a_stage_1(photos, tmp_path, monkeypatch):
    first = train_edge(tiny(EdgeTraining, photos, steps=1), tmp_path / "pair")
    config = tiny(ImageTraining, photos, steps=1, predicted_edges=0.5, edge_weights=str(tmp_path / "pair"))
    predictors = []

    def watched(sample, config, predict, *noise):
        predictors.append(predict)
        return given_edges(sample, config, predict, *noise)

    monkeypatch.setattr(training, "given_edges", watched)
    train_image(config, tmp_path / "second")
    (predict,) = predictors
    assert all(same(value.half().float(), predict.state_dict()[name]) for name, value in first.state_dict().items())
    train_image(replace(config, predicted_edges=0.0, edge_weights=str(tmp_path / "nowhere")), tmp_path / "third")
    assert predictors[1:] == [None]  # and no weights are looked for
    with pytest.raises(BadWeights, match="no such folder"):
        train_image(replace(config, edge_weights=str(tmp_path / "nowhere")), tmp_path / "fourth")


def test_a_run_counts_tiny_numbers_as_0(photos, tmp_path, monkeypatch):
    if not torch.set_flush_denormal(True):
        pytest.xfail("this processor cannot")
    torch.set_flush_denormal(False)
    tiny_number, seen, true_loss = torch.tensor([1e-39]), [], losses.edge_cross_entropy
    assert (tiny_number * 1.5).item() > 0
    monkeypatch.setattr(
        losses,
        "edge_cross_entropy",
        lambda *arguments: seen.append((tiny_number * 1.5).item()) or true_loss(*arguments),
    )
    train_edge(tiny(EdgeTraining, photos, steps=1), tmp_path)
    assert seen == [0.0]


@pytest.mark.parametrize("condition", ["nothing", "mask"])
@each_stage
def test_every_condition_trains(stage, condition, photos, tmp_path):
    kind, train, _, _ = STAGES[stage]
    train(tiny(kind, photos, steps=1, condition=condition), tmp_path)
    assert kept(tmp_path, "checkpoint.pt").is_file()


def test_the_shipped_faces_are_the_default(tmp_path):
    config = tiny(EdgeTraining, EdgeTraining().photos, steps=1)
    assert config.photos == "faces"
    train_edge(config, tmp_path)
    assert checkpoint(tmp_path)["step"] == 1


def test_two_runs_of_one_process_may_differ_in_precision(photos, tmp_path):
    train_edge(tiny(EdgeTraining, photos, steps=1), tmp_path / "no")
    train_edge(tiny(EdgeTraining, photos, steps=1, precision="bf16"), tmp_path / "bf16")
    train_edge(tiny(EdgeTraining, photos, steps=1), tmp_path / "no again")


# refusals


@pytest.mark.parametrize(
    ("kind", "setting", "value", "wanted"),
    [
        (EdgeTraining, "optimizer", "sgd", "muon, adam"),
        (ImageTraining, "optimizer", "Muon", "muon, adam"),
        (ImageTraining, "network", "resnet", "unet, dilated"),
        (EdgeTraining, "precision", "fp16", "no, bf16"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(kind, setting, value, wanted, photos, tmp_path):
    train = train_edge if kind is EdgeTraining else train_image
    with pytest.raises(ValueError, match=f"{setting} is '{value}'; wanted one of {wanted}"):
        train(tiny(kind, photos, **{setting: value}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_existing_checkpoint_is_not_overwritten(photos, tmp_path):
    config = tiny(EdgeTraining, photos, steps=1)
    train_edge(config, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(TrainingStopped, match="holds a checkpoint already; pass --resume to go on, or another --out"):
        train_edge(config, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@each_stage
def test_nothing_to_resume_is_an_error(stage, photos, tmp_path):
    kind, train, _, _ = STAGES[stage]
    with pytest.raises(TrainingStopped, match=r"checkpoint\.pt: there is no checkpoint to resume from"):
        train(tiny(kind, photos), tmp_path, resume=True)


CHANGES = [
    ({"width": 8}, "width was 4 and is 8"),
    ({"condition": "nothing"}, "condition was 'mask.photo' and is 'nothing'"),
    ({"steps": 9, "seed": 3}, "seed was 0 and is 3; steps was 1 and is 9"),
    ({"hole_ratio": (0.1, 0.2)}, r"hole_ratio was \(0.02, 0.6\) and is \(0.1, 0.2\)"),
]


@pytest.mark.parametrize("change, said", CHANGES)
def test_other_settings_than_the_checkpoint_s_are_listed(change, said, photos, tmp_path):
    config = tiny(EdgeTraining, photos, steps=1)
    train_edge(config, tmp_path)
    before = kept(tmp_path, "checkpoint.pt").read_bytes()
    with pytest.raises(TrainingStopped, match=rf"checkpoint\.pt: made with other settings than these: {said}\. "):
        train_edge(replace(config, **change), tmp_path, resume=True)
    assert kept(tmp_path, "checkpoint.pt").read_bytes() == before


def test_settings_that_change_no_weight_may_change(photos, tmp_path):
    config = tiny(EdgeTraining, photos, steps=1)
    train_edge(config, tmp_path)
    train_edge(replace(config, workers=1, log_every=7, checkpoint_minutes=1.0), tmp_path, resume=True)


def test_a_checkpoint_of_an_older_version_is_named(photos, tmp_path):
    train_edge(tiny(EdgeTraining, photos, steps=1), tmp_path)
    state = checkpoint(tmp_path)
    torch.save({name: value for name, value in state.items() if name != "log"}, kept(tmp_path, "checkpoint.pt"))
    with pytest.raises(TrainingStopped, match=r"checkpoint\.pt: holds no log"):
        train_edge(tiny(EdgeTraining, photos, steps=1), tmp_path, resume=True)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_broken_checkpoint_is_named(share, photos, tmp_path):
    config = tiny(EdgeTraining, photos, steps=1)
    train_edge(config, tmp_path)
    whole = kept(tmp_path, "checkpoint.pt").read_bytes()
    kept(tmp_path, "checkpoint.pt").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(TrainingStopped, match=r"checkpoint\.pt"):
        train_edge(config, tmp_path, resume=True)


def test_too_few_photos_are_an_error(photos, tmp_path):
    with pytest.raises(ValueError, match=r"14 photos are too few; wanted 13 \+ 2"):
        train_edge(tiny(EdgeTraining, photos, validation=13), tmp_path)


def test_a_run_that_keeps_no_photo_back_is_refused_at_once_or_runs_to_its_end(photos, tmp_path):
    """But never trains to the end and then fails before the checkpoint is written."""
    try:
        train_edge(tiny(EdgeTraining, photos, steps=1, validation=0), tmp_path)
    except ValueError as error:
        assert "validation" in str(error)
    else:
        assert kept(tmp_path, "checkpoint.pt").is_file()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@each_stage
def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(stage, value, photos, tmp_path, monkeypatch):
    kind, train, _, loss = STAGES[stage]
    config = tiny(kind, photos, checkpoint_minutes=0.0)
    calls, true_loss = [], getattr(losses, loss)

    def exploding(*arguments):
        calls.append(0)
        return true_loss(*arguments) * (value if len(calls) == 3 else 1)

    monkeypatch.setattr(losses, loss, exploding)
    term = "cross_entropy" if stage == "edge" else "reconstruction"
    with pytest.raises(TrainingStopped, match=f"step 2: the loss term {term} is {value}"):
        train(config, tmp_path)
    state = checkpoint(tmp_path)
    assert state["step"] == 2 and all(torch.isfinite(tensor).all() for tensor in state["generator"].values())


def test_an_adversarial_term_that_is_not_finite_is_named_too(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(losses, "adversarial_loss", lambda logits: logits.sum() * float("nan"))
    with pytest.raises(TrainingStopped, match="step 0: the loss term adversarial is nan"):
        train_edge(tiny(EdgeTraining, photos), tmp_path)
    assert not kept(tmp_path, "checkpoint.pt").exists()


# the parts


def test_the_loss_is_the_weighted_sum_of_its_terms():
    config = EdgeTraining(
        cross_entropy_weight=2.0, gray_weight=7.0, adversarial_weight=0.5, feature_matching_weight=3.0
    )
    values = {"cross_entropy": 1.5, "gray": 0.5, "discriminator": 100.0, "adversarial": 4.0, "feature_matching": 0.25}
    terms = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
    assert weighted_sum(terms, config, 0).item() == pytest.approx(2 * 1.5 + 7 * 0.5 + 0.5 * 4 + 3 * 0.25)


def test_the_learning_rate_warms_up_and_falls_as_a_cosine_to_a_hundredth():
    config = EdgeTraining(steps=1100, warmup=100, learning_rate=2e-3)
    rates = [learning_rate(config, step) for step in range(1101)]
    assert rates[0] == pytest.approx(2e-5) and rates[49] == pytest.approx(1e-3)
    assert rates[99] == rates[100] == max(rates) == pytest.approx(2e-3)
    assert rates[600] == pytest.approx(2e-3 * (0.01 + 0.99 / 2))
    assert rates[1100] == pytest.approx(2e-5)
    assert all(a > b for a, b in itertools.pairwise(rates[100:]))
    assert learning_rate(EdgeTraining(steps=10, warmup=0), 0) == EdgeTraining().learning_rate
    assert learning_rate(EdgeTraining(steps=5, warmup=5), 5) > 0
    constant = EdgeTraining(steps=1100, warmup=10, learning_rate=2e-3, schedule="constant")
    assert [learning_rate(constant, step) for step in (4, 10, 500, 1099)] == pytest.approx([1e-3, 2e-3, 2e-3, 2e-3])


def test_the_noise_of_a_step_depends_on_seed_and_step_alone():
    def draw(seed, step):
        return torch.rand(4, generator=noise_of(EdgeTraining(seed=seed), step, torch.device("cpu"))).tolist()

    assert draw(0, 3) == draw(0, 3)
    assert len({tuple(draw(seed, step)) for seed in range(3) for step in range(5)}) == 15


def test_stage_2_is_given_true_edges_near_the_hole_and_known_ones_elsewhere():
    samples = Samples(FacePhotos("test", 64), RandomMasks("boxes", 64), seed=0)
    sample = next(iter(batches(samples, 6, 1)))
    near = cv2.dilate(sample.mask.numpy().transpose(2, 3, 0, 1).reshape(64, 64, 6), np.ones((5, 5))) > 0
    near = torch.from_numpy(near.transpose(2, 0, 1))[:, None]
    edges = given_edges(sample, ImageTraining(blank_edges=0.0), None, torch.Generator())
    assert same(edges, torch.where(near, sample.edges, sample.known_edges)) and edges[near].sum() > 0
    blank = given_edges(sample, ImageTraining(blank_edges=1.0), None, torch.Generator())
    assert same(blank, sample.known_edges)  # which are none near the hole
    torch.manual_seed(0)
    generator = EdgeGenerator(4, 8, 1, decision=4)
    with torch.no_grad():
        generator.outlet.bias.fill_(0.0)
    config = ImageTraining(blank_edges=0.0, predicted_edges=1.0)
    predicted = (predict_probability(generator, sample) > 0.5).float()
    edges = given_edges(sample, config, generator, torch.Generator())
    assert same(edges, torch.where(near, predicted, sample.known_edges))
    assert edges[near].sum() > 0 and not same(edges[near], sample.edges[near])


class Stripes(torch.nn.Module):
    """Stands for stage 1: sure of a line in column 2, whatever it is given. It keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.given = []

    def forward(self, x):
        self.given.append(x)
        logits = torch.full_like(x[:, :1], -9.0)
        logits[..., 2] = 9.0
        return EdgePrediction(logits, x[:, :1])


def test_the_shares_of_blank_predicted_and_true_edges_are_as_asked_and_seeded():
    ones, count = torch.ones(2000, 1, 6, 6), 2000
    sample = Sample(photo=ones, gray=ones, mask=ones, edges=ones, known_edges=torch.zeros_like(ones))
    line = torch.zeros(6, 6)
    line[:, 2] = 1

    def draw(predict, seed=0, **shares):
        edges = given_edges(sample, ImageTraining(**shares), predict, torch.Generator().manual_seed(seed))
        kinds = torch.tensor([edges[k].sum().item() for k in range(count)])  # 0 blank, 6 predicted, 36 true
        assert all(same(edges[k, 0], line) for k in (kinds == 6).nonzero()[:, 0])
        assert sum((kinds == total).sum().item() for total in (0, 6, 36)) == count  # a sample has one kind of edges
        return edges, [(kinds == total).float().mean().item() for total in (0, 6, 36)]

    edges, shares = draw(Stripes(), blank_edges=0.15, predicted_edges=0.5)
    assert shares == pytest.approx([0.15, 0.5, 0.35], abs=0.03)
    assert same(edges, draw(Stripes(), blank_edges=0.15, predicted_edges=0.5)[0])
    assert not same(edges, draw(Stripes(), seed=1, blank_edges=0.15, predicted_edges=0.5)[0])
    assert draw(None, blank_edges=0.15)[1] == pytest.approx([0.15, 0, 0.85], abs=0.03)
    assert draw(Stripes(), blank_edges=0.0, predicted_edges=1.0)[1] == [0, 1, 0]
    assert draw(Stripes(), blank_edges=1.0, predicted_edges=0.0)[1] == [1, 0, 0]


def test_a_broken_photo_is_not_replaced_by_one_of_the_other_part(tmp_path):
    for i in range(8):
        save(tmp_path / f"{i}.png", np.full((16, 16, 3), 10 * i, np.uint8))
    (tmp_path / "5.png").write_bytes(b"broken")  # the last of the training part
    whole = PhotoFolder(tmp_path, 16)
    train, held_out = part_of(whole, 0, 6), part_of(whole, 6, 8)
    with pytest.warns(BrokenPhotoWarning):
        assert train[5][0, 0, 0] == 0 and len(train) == 6
    assert [photo[0, 0, 0] for photo in held_out] == [60, 70] and len(whole) == 8


@pytest.mark.parametrize("kind", [EdgeTraining, ImageTraining])
def test_a_run_without_any_loss_is_refused(kind, photos, tmp_path):
    config = tiny(kind, photos, steps=1)
    off = {
        name: 0.0
        for name in asdict(config)
        if name.endswith("_weight") and not name.startswith(("hole", "edge", "deep"))
    }
    train = train_edge if kind is EdgeTraining else train_image
    with pytest.raises(ValueError, match="the weight of every loss is 0; wanted at least one above 0"):
        train(replace(config, **off), tmp_path)


def test_shares_of_edges_that_sum_to_more_than_all_are_refused(photos, tmp_path):
    for blank, predicted in ((0.6, 0.5), (-0.5, 1.0), (0.0, -0.1)):
        with pytest.raises(ValueError, match=f"blank_edges is {blank} and predicted_edges {predicted}; wanted shares"):
            train_image(ImageTraining(photos=photos, blank_edges=blank, predicted_edges=predicted), tmp_path)


def test_stage_1_is_given_its_own_input_of_the_samples_that_it_predicts():
    samples = Samples(FacePhotos("test", 64), RandomMasks("boxes", 64), seed=0)
    sample, predict = next(iter(batches(samples, 3, 1))), Stripes()
    given_edges(sample, ImageTraining(blank_edges=0.0, predicted_edges=1.0), predict, torch.Generator())
    (given,) = predict.given
    assert same(given, edge_stage_input(sample))


def test_photos_and_masks_are_opened_by_name(photos, tmp_path):
    assert isinstance(open_photos("faces", 64), FacePhotos) and open_photos("faces", 64).split == "train"
    assert isinstance(open_photos(photos, 32), PhotoFolder) and open_photos(photos, 32)[0].shape == (32, 32, 3)
    save(tmp_path / "img_align_celeba/000001.jpg", noise_photo(218, 178))
    (tmp_path / "list_eval_partition.txt").write_text("000001.jpg 0\n")
    assert isinstance(open_photos(str(tmp_path), 64), CelebA)

    masks = open_masks(EdgeTraining(masks="strokes, boxes", size=64, hole_ratio=(0.2, 0.3)))
    assert isinstance(masks, RandomMasks) and masks.kinds == ("strokes", "boxes")
    assert masks.draw(np.random.default_rng(0)).shape == (64, 64)
    black_holes = np.full((64, 64), 255, np.uint8)
    black_holes[:16] = 0
    save(tmp_path / "masks/1.png", black_holes)
    masks = open_masks(EdgeTraining(masks=str(tmp_path / "masks"), size=64, invert_masks=True))
    assert isinstance(masks, MaskFolder) and masks[0].mean() == 0.25
    with pytest.raises(ValueError, match="wanted strokes, brush, boxes"):
        open_masks(EdgeTraining(masks="circles"))


def test_photos_are_mixed_by_name_and_weight(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(6):
        save(tmp_path / f"more, or less/{i}.png", np.full((16, 16, 3), i, np.uint8))
        save(tmp_path / f"dark:2/{i}.png", np.full((16, 16, 3), i, np.uint8))
    mixed = open_photos(f"faces:1,{photos}:3", 64)
    assert isinstance(mixed, MixedPhotos) and mixed.weights == [1, 3]
    assert isinstance(mixed.sources[0], FacePhotos) and isinstance(mixed.sources[1], PhotoFolder)
    assert open_photos("faces, dark:2:0.5", 64).weights == [1, 0.5]
    with pytest.raises(ValueError, match="xxx: there is no such folder"):
        open_photos(f"faces:1,{'x' * 300}", 64)
    for name in ("more, or less", "dark:2"):  # a folder of that name comes first
        assert isinstance(open_photos(name, 64), PhotoFolder)
    with pytest.raises(ValueError, match="gone: there is no such folder"):
        open_photos("faces:1,gone:2", 64)
    with pytest.raises(ValueError, match="weights are"):
        open_photos("faces:1,dark:2:0", 64)
    _, samples, held_out = open_data(tiny(EdgeTraining, "dark:2:3,faces:1", validation=4, batch_size=2))
    assert len(held_out) == 4 and sum(sample.photo.max() < 0.1 for sample in held_out) == 3
    assert isinstance(samples.photos, MixedPhotos) and len(samples.photos) == 3 + 4999
    seen = [float(samples.photos[samples.photos.index_at(0, k)].max()) for k in range(60)]
    assert {value for value in seen if value < 6} == {0, 1, 2}  # 3, 4, 5 are held out
    with pytest.raises(ValueError, match=r"dark:2:1,faces:1: 5006 photos are too few; wanted 12 \+ 2"):
        open_data(tiny(EdgeTraining, "dark:2:1,faces:1", validation=12, batch_size=2))


def test_a_run_on_an_archive_and_a_zip_of_masks_is_the_run_on_the_folders(photos, tmp_path):
    for i in range(3):
        save(tmp_path / f"masks/{i}.png", np.arange(64 * 64).reshape(64, 64) < 1000 * (i + 1))
    main(["prepare", photos, "--out", str(tmp_path / "photos.zip"), "--size", "64"])
    main(["prepare", str(tmp_path / "masks"), "--out", str(tmp_path / "masks.zip"), "--size", "64", "--masks"])
    folder = open_data(tiny(EdgeTraining, photos, masks=str(tmp_path / "masks")))
    zipped = open_data(tiny(EdgeTraining, str(tmp_path / "photos.zip"), masks=str(tmp_path / "masks.zip")))
    for k in range(8):
        assert all(map(same, folder[1][k], zipped[1][k]))
    assert all(same(a, b) for one, two in zip(folder[2], zipped[2], strict=True) for a, b in zip(one, two))


def test_every_loss_of_the_configs_exists():
    for kind in (EdgeTraining, ImageTraining):
        names = {field.name.removesuffix("_weight") for field in fields(kind) if field.name.endswith("_weight")}
        for name in names - {"hole", "edge", "deep_edge"}:
            function = {"cross_entropy": "edge_cross_entropy", "gray": "reconstruction_loss"}.get(name, f"{name}_loss")
            assert callable(getattr(losses, function))


def test_the_share_of_roughened_photos_reaches_the_stream(photos):
    for share in (0.0, 0.6):
        _, samples, _ = open_data(tiny(EdgeTraining, photos, roughen=share))
        assert samples.roughen == share


class Taps(torch.nn.Module):
    """Stands for VGG19: five maps of a photo, no weights to download."""

    def __init__(self, weights=None):
        super().__init__()

    def forward(self, photo):
        return [photo * (level + 1) for level in range(5)]


def test_perceptual_and_style_are_computed_on_the_features(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "open_features", lambda *choice: Taps())
    train_image(tiny(ImageTraining, photos, steps=2, perceptual_weight=0.1, style_weight=50.0), tmp_path)
    first = read_log(tmp_path)[0]
    assert first["perceptual"] > 0 and first["style"] > 0


@pytest.mark.parametrize("off", ["perceptual", "style"])
def test_of_perceptual_and_style_one_may_be_off(off, photos, tmp_path, monkeypatch):
    """The module's promise: a loss whose weight is 0 is not computed."""
    monkeypatch.setattr(training, "open_features", lambda *choice: Taps())
    weights = {"perceptual_weight": 0.1, "style_weight": 50.0, f"{off}_weight": 0}
    train_image(tiny(ImageTraining, photos, steps=2, **weights), tmp_path)
    assert {"perceptual", "style"} - set(read_log(tmp_path)[0]) == {off}


@pytest.mark.parametrize("off", ["adversarial", "feature_matching"])
@each_stage
def test_of_the_adversarial_terms_one_may_be_off(stage, off, photos, tmp_path):
    kind, train, _, _ = STAGES[stage]
    train(tiny(kind, photos, steps=2, **{f"{off}_weight": 0}), tmp_path)
    assert {"adversarial", "feature_matching"} - set(read_log(tmp_path)[0]) == {off}


def test_missing_features_stop_the_run_before_it_begins(photos, tmp_path):
    with pytest.raises(FeaturesNotFound, match="--features faces"):
        train_image(
            tiny(ImageTraining, photos, perceptual_weight=0.1, vgg19=str(tmp_path / "gone.pth")), tmp_path / "out"
        )
    assert not kept(tmp_path / "out", "checkpoint.pt").exists()
