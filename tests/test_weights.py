"""weights.py: what is stored is rounded to float16, and the network keeps its own."""

import json
import subprocess
import sys

import torch
from helpers import same
from safetensors.torch import load_file

from edgeconnect_lite.features import FaceFeatures
from edgeconnect_lite.generators import EdgeGenerator
from edgeconnect_lite.weights import load_network, save_network


def test_saved_weights_are_the_rounded_ones_and_the_network_keeps_its_own(tmp_path):
    torch.manual_seed(0)
    generator = EdgeGenerator(4, 8, 1).to(memory_format=torch.channels_last)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    save_network(generator, tmp_path / "a/b")
    save_network(generator, tmp_path / "a/b")  # once more, over the first
    assert {path.name for path in (tmp_path / "a/b").iterdir()} == {"config.json", "model.safetensors"}
    assert all(same(before[name], value) for name, value in generator.state_dict().items())
    stored = load_file(tmp_path / "a/b/model.safetensors")
    assert all(same(stored[name], value.half()) for name, value in before.items())


def test_both_ways_of_loading_agree(tmp_path):
    torch.manual_seed(0)
    generator = EdgeGenerator(4, 8, 1, skips=False, decision=4)
    save_network(generator, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "width": 4, "bottom": 8, "blocks": 1, "skips": False, "decision": 4
    }  # fmt: skip
    ours, hub = load_network(tmp_path, EdgeGenerator), EdgeGenerator.from_pretrained(tmp_path)
    assert ours.state_dict().keys() == hub.state_dict().keys() == generator.state_dict().keys()
    assert all(same(value, hub.state_dict()[name]) for name, value in ours.state_dict().items())
    assert {value.dtype for value in ours.state_dict().values()} == {torch.float32}


def test_counters_of_batch_normalisation_stay_whole_numbers(tmp_path):
    save_network(FaceFeatures(), tmp_path)
    kinds = {value.dtype for value in load_file(tmp_path / "model.safetensors").values()}
    assert kinds == {torch.float16, torch.int64}
    load_network(tmp_path, FaceFeatures)


def test_the_same_network_gives_the_same_bytes_in_every_process(tmp_path):
    code = """if True:
        import sys
        import torch
        from edgeconnect_lite.generators import EdgeGenerator
        from edgeconnect_lite.weights import save_network
        torch.manual_seed(0)
        save_network(EdgeGenerator(4, 8, 1), sys.argv[1], 64)
    """
    for name in "ab":
        subprocess.run([sys.executable, "-c", code, tmp_path / name], check=True)
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert one == other and b'"size":"64"' in one
