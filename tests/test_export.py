"""export.py: both stages in onnxruntime and as torch.export programs give what torch gives, at any size and batch."""

import json
import re
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers import blob_mask

from edgeconnect_lite import FacePhotos, Inpainter, canny, export, free_sizes, generators
from edgeconnect_lite.export import STAGES, STRAY, TOLERANCE, CannotExport, random_inputs
from edgeconnect_lite.weights import save_network

SIZES = [(1, 128, 128), (3, 64, 96), (1, 256, 256), (3, 61, 99), (1, 16, 17)]


def small_network(stage):
    """A narrow generator in which no weight is zero, so that no part of it is idle."""
    torch.manual_seed(1)
    network = stage.kind(4, 8, 1, **({"decision": 4} if stage.name == "edge_generator" else {})).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return network


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with weights/ and onnx/ of two small networks, and the programs that the files were made of."""
    folder = tmp_path_factory.mktemp("export")
    for stage in STAGES:
        save_network(small_network(stage), folder / "weights" / stage.name)
    programs, to_program = {}, export.to_program
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(free_sizes, "LARGEST", 256)  # a shallower pyramid is traced in less time
        patch.setattr(export, "to_program", lambda stage, net: programs.setdefault(stage.name, to_program(stage, net)))
        said = export.export_onnx(folder / "onnx", folder / "weights")
    assert len(said) == 2 and all("of torch" in line for line in said)
    return folder, programs


def wrapped(stage, folder):
    return stage.wrapper(export.load_network(folder / "weights" / stage.name, stage.kind).eval())


def as_tuple(outputs):
    return outputs if isinstance(outputs, tuple | list) else (outputs,)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_both_forms_give_what_torch_gives(exported, stage):
    folder, programs = exported
    session = onnxruntime.InferenceSession(folder / "onnx" / f"{stage.name}.onnx")
    for n, height, width in SIZES:
        given = random_inputs(stage, n, height, width, seed=n + height)
        with torch.inference_mode():
            wanted = as_tuple(wrapped(stage, folder)(*given.values()))
            program = as_tuple(programs[stage.name].module()(*given.values()))
        for outputs in (program, session.run(None, {name: value.numpy() for name, value in given.items()})):
            assert len(outputs) == len(wanted) == len(stage.outputs)
            for got, value in zip(outputs, wanted):
                assert got.shape == value.shape == (n, value.shape[1], height, width)
                beside = np.abs(np.asarray(got) - value.numpy()) > TOLERANCE
                assert beside.mean() <= STRAY, (n, height, width)
                assert float(value.std()) > 0.001  # there is something to compare


def test_the_fused_op_is_gone(exported):
    folder, programs = exported
    for stage in STAGES:
        called = [str(node.target) for node in programs[stage.name].graph.nodes if node.op == "call_function"]
        assert "aten.elu.default" in called and not [name for name in called if "edgeconnect" in name]
        model = onnx.load(folder / "onnx" / f"{stage.name}.onnx")
        onnx.checker.check_model(model)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", export.OPSET)]
        assert {node.domain for node in model.graph.node} == {""} and not model.functions


def test_the_files_say_what_they_take_and_hold(exported):
    folder, _ = exported
    for stage in STAGES:
        file = folder / "onnx" / f"{stage.name}.onnx"
        model = onnx.load(file)
        about = {entry.key: entry.value for entry in model.metadata_props}
        assert json.loads(about["inputs"]) == stage.inputs and json.loads(about["outputs"]) == stage.outputs
        weights = (folder / "weights" / stage.name / "model.safetensors").read_bytes()
        assert about["weights_sha256"] == sha256(weights).hexdigest() and about["network"] == stage.kind.__name__
        assert [value.name for value in model.graph.input] == list(stage.inputs)
        dims = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
        assert [isinstance(dim, str) for dim in dims] == [True, False, True, True]
        assert str(Path(export.__file__).parent).encode() not in file.read_bytes()  # no path of this machine


def test_a_wrong_file_is_noticed_and_nothing_is_written(exported, tmp_path, monkeypatch):
    folder, _ = exported
    stage = STAGES[1]
    data = (folder / "onnx" / f"{stage.name}.onnx").read_bytes()
    other = small_network(stage)
    with torch.no_grad():
        other.unet.outlet.bias += 0.1
    assert export.check_parity(stage, wrapped(stage, folder).generator, data) <= STRAY
    with pytest.raises(CannotExport, match=r"image_generator in onnxruntime: .* wanted at most"):
        export.check_parity(stage, other, data)
    files = {stage.name: onnx.load(folder / "onnx" / f"{stage.name}.onnx") for stage in STAGES}
    monkeypatch.setattr(export, "to_program", lambda stage, network: stage)
    monkeypatch.setattr(export, "to_onnx", lambda stage, _: files["edge_generator"])  # the second file is the first
    with pytest.raises(Exception):  # noqa: B017 - onnxruntime's own: its inputs have other names
        export.export_onnx(tmp_path / "out", folder / "weights")
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_named_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(CannotExport, match=r"needs onnxscript; .* pip install 'edgeconnect-lite\[export\]'"):
        export.export_onnx(tmp_path)


@pytest.mark.parametrize("shape", [(16, 16), (17, 130), (61, 99), (128, 128), (250, 19), (200, 333)])
def test_the_twins_compute_what_they_replace(shape):
    rng = torch.Generator().manual_seed(sum(shape))
    picture = torch.rand(2, 3, *shape, generator=rng)
    mask = torch.from_numpy(np.stack([blob_mask(*shape, seed) for seed in (0, 1)]))[:, None].float()
    mask[0, :, 2:-2, 2:-2] = 1
    assert (free_sizes.push_pull(picture, mask) - generators.push_pull(picture, mask)).abs().max() < 1e-5
    assert (free_sizes.place(picture) - generators.place(picture)).abs().max() < 1e-6
    gap = (free_sizes.blurred_gradient(picture[:, :1]) - canny.blurred_gradient(picture[:, :1])).abs()
    assert (gap > 1e-3).float().mean() < STRAY


@pytest.mark.parametrize("side", [2, 16, 38, 39, 64, 100, 128, 129, 200, 256, 384, 511, 512, 700, 1023, 1024])
def test_the_blurs_weights_are_the_same_whole_numbers(side):
    wanted = canny.bell_in_256ths(canny.blur_sigma((side, 2 * side)))
    got = free_sizes.bell_in_256ths(2 * side, side, torch.zeros(1)).tolist()
    border = (len(got) - len(wanted)) // 2
    assert got == [0] * border + wanted + [0] * border


def test_the_readmes_example_runs_the_whole_line(exported, monkeypatch):
    folder, _ = exported
    blocks = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text("utf-8"), re.S)
    (example,) = [block for block in blocks if "onnxruntime" in block]
    monkeypatch.chdir(folder)
    names: dict = {}
    exec(example, names)
    photo, mask, result = names["photo"], names["mask"], names["result"]
    assert np.array_equal(photo, FacePhotos("test")[16]) and np.array_equal(result[~mask], photo[~mask])
    wanted = Inpainter.from_pretrained(folder / "weights", "cpu")(photo, mask)
    gap = np.abs(result.astype(int) - wanted)[mask]
    assert (gap <= 1).mean() > 0.99 and np.abs(result.astype(int) - photo)[mask].mean() > 1
