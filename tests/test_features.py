"""features.py: VGG19's layers by hand, and weight files that are checked before they are used."""

import hashlib
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import same, seeded
from safetensors.torch import load_file, save_file

from edgeconnect_lite.features import (
    CHOICES,
    NUMBERS,
    ODDS,
    VGG19_FILE,
    VGG19_URL,
    FaceFeatures,
    FeaturesNotFound,
    VGG19Features,
    choose_features,
    load_face_features,
    load_vgg19,
    open_features,
)
from edgeconnect_lite.weights import SHIPPED

# torchvision's names for column E of the paper's table 1, as far as conv5_1: place in `features` -> (out, in)
LAYERS = {
    0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256), 16: (256, 256),
    19: (512, 256), 21: (512, 512), 23: (512, 512), 25: (512, 512), 28: (512, 512),
}  # fmt: skip


@pytest.fixture(scope="module")
def state():
    """Random weights with torchvision's names, scaled so that signals keep their size."""
    weights = {}
    generator = torch.Generator().manual_seed(0)
    for place, (out, inputs) in LAYERS.items():
        weights[f"features.{place}.weight"] = (
            torch.randn(out, inputs, 3, 3, generator=generator) * (2 / (9 * inputs)) ** 0.5
        )
        weights[f"features.{place}.bias"] = torch.randn(out, generator=generator) * 0.1
    return weights


@pytest.fixture(scope="module")
def weight_file(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg19") / "vgg19.safetensors"
    extra = {"features.30.weight": torch.zeros(1), "classifier.0.weight": torch.zeros(1)}  # a whole VGG19 has more
    save_file(state | extra, path)
    return path


@pytest.fixture(scope="module")
def vgg19(weight_file):
    return VGG19Features(weight_file)


def test_five_taps_of_the_documented_channels(vgg19):
    taps = vgg19(torch.rand(2, 3, 64, 48))
    sizes = [(64, 64, 48), (128, 32, 24), (256, 16, 12), (512, 8, 6), (512, 4, 3)]
    assert [tuple(tap.shape[1:]) for tap in taps] == sizes
    assert all(tap.min() >= 0 and tap.max() > 0 and len(tap) == 2 for tap in taps)


def test_relu1_1_is_what_a_hand_convolution_gives(vgg19, state):
    photo = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # ImageNet's, as torchvision has them
    x = np.pad((photo[0].double().numpy() - mean[:, None, None]) / std[:, None, None], ((0, 0), (1, 1), (1, 1)))
    weight, bias = state["features.0.weight"].double().numpy(), state["features.0.bias"].double().numpy()
    relu1_1 = vgg19(photo)[0][0].numpy()
    for row, column in [(0, 0), (0, 31), (31, 5), (13, 17), (31, 31)]:
        wanted = (weight * x[:, row : row + 3, column : column + 3]).sum((1, 2, 3)) + bias
        np.testing.assert_allclose(relu1_1[:, row, column], np.maximum(wanted, 0), rtol=0, atol=1e-5)


def test_all_taps_follow_the_paper_s_column_e(vgg19, state):
    photo = torch.rand(1, 3, 40, 32, generator=torch.Generator().manual_seed(1))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x, taps = (photo - mean[:, None, None]) / std[:, None, None], []
    for block in ([0, 2], [5, 7], [10, 12, 14, 16], [19, 21, 23, 25], [28]):
        for place in block:
            x = F.relu(F.conv2d(x, state[f"features.{place}.weight"], state[f"features.{place}.bias"], padding=1))
            if place == block[0]:
                taps.append(x)
        x = F.max_pool2d(x, 2)
    for found, wanted in zip(vgg19(photo), taps, strict=True):
        torch.testing.assert_close(found, wanted)


def test_the_network_is_frozen_but_gradients_reach_the_photo(vgg19):
    assert not any(parameter.requires_grad for parameter in vgg19.parameters()) and not vgg19.training
    photo = torch.rand(1, 3, 32, 32, requires_grad=True)
    vgg19(photo)[-1].sum().backward()
    assert photo.grad.abs().sum() > 0


def test_small_photos_are_enlarged_to_32_px(vgg19):
    taps = vgg19(torch.rand(1, 3, 7, 40))
    assert tuple(taps[0].shape) == (1, 64, 32, 40) and tuple(taps[4].shape) == (1, 512, 2, 2)


def test_only_the_convolutions_are_in_the_state_dict(vgg19):
    assert set(vgg19.state_dict()) == {f"features.{place}.{part}" for place in LAYERS for part in ("weight", "bias")}


# weight files


def test_a_missing_file_names_the_choices(tmp_path, monkeypatch):
    with pytest.raises(FeaturesNotFound) as error:
        VGG19Features(tmp_path / "nowhere.pth")
    for said in (str(tmp_path / "nowhere.pth"), VGG19_URL, ".safetensors", "--features faces"):
        assert said in str(error.value)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(FeaturesNotFound) as error:
        VGG19Features()
    assert str(tmp_path / "hub/checkpoints/vgg19-dcbb9e9d.pth") in str(error.value)
    assert isinstance(error.value, FileNotFoundError)


def test_a_pth_file_is_loaded_if_its_name_holds_its_hash(state, tmp_path, monkeypatch):
    torch.save(state, tmp_path / "any.pth")
    digest = hashlib.sha256((tmp_path / "any.pth").read_bytes()).hexdigest()
    named = (tmp_path / "any.pth").rename(tmp_path / f"vgg19-{digest[:8]}.pth")
    loaded = load_vgg19(named)
    assert all(same(loaded[name], value) for name, value in state.items())

    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    shutil.move(named, tmp_path / "hub/checkpoints" / VGG19_FILE)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(
        ValueError, match=f"{VGG19_FILE}: its SHA-256 begins with {digest[:8]}; wanted the digits in its name"
    ):
        load_vgg19()


def test_a_pth_file_without_a_hash_in_its_name_is_refused(tmp_path):
    torch.save({}, tmp_path / "vgg19.pth")
    digest = hashlib.sha256((tmp_path / "vgg19.pth").read_bytes()).hexdigest()
    with pytest.raises(ValueError, match=f"begins with {digest[:8]}; wanted the digits in its name"):
        load_vgg19(tmp_path / "vgg19.pth")


def test_a_file_of_other_names_is_refused(tmp_path):
    save_file({"conv1_1.weight": seeded(64, 3, 3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(
        ValueError, match=r"other\.safetensors: holds no features\.0\.weight; wanted VGG19 with torchvision's"
    ):
        VGG19Features(tmp_path / "other.safetensors")


@pytest.mark.parametrize("name", ["features.28.weight", "features.10.bias"])
def test_a_file_that_lacks_one_name_is_refused(state, tmp_path, name):
    save_file({key: value for key, value in state.items() if key != name}, tmp_path / "part.safetensors")
    with pytest.raises(ValueError, match=f"part.safetensors: holds no {name}"):
        VGG19Features(tmp_path / "part.safetensors")


def test_a_file_of_another_shape_is_refused(state, tmp_path):
    save_file(state | {"features.10.weight": torch.zeros(256, 64, 3, 3)}, tmp_path / "odd.safetensors")
    with pytest.raises((ValueError, RuntimeError), match=r"features\.10\.weight"):
        VGG19Features(tmp_path / "odd.safetensors")


# face features


@pytest.fixture(scope="module")
def shipped():
    return load_face_features()


def test_face_features_are_small_frozen_and_stored_as_float16(shipped):
    assert sum(p.numel() for p in shipped.parameters()) <= 2_000_000
    assert not shipped.training and not any(p.requires_grad for p in shipped.parameters())
    stored = load_file(SHIPPED / "face_features/model.safetensors")
    assert {v.dtype for v in stored.values() if v.is_floating_point()} == {torch.float16}


def test_five_levels_of_the_documented_sizes(shipped):
    for height, width in ((128, 128), (64, 100), (16, 16)):
        found = shipped(torch.rand(2, 3, height, width))
        wanted = [(2, c, -(-height // 2**i), -(-width // 2**i)) for i, c in enumerate((24, 48, 96, 160, 224))]
        assert [tuple(f.shape) for f in found] == wanted
        assert all(f.min() >= 0 and f.max() > 0 for f in found)


def test_one_picture_of_a_batch_does_not_see_the_others(shipped):
    photos = torch.rand(3, 3, 32, 32)
    for whole, alone in zip(shipped(photos), shipped(photos[1:2])):
        torch.testing.assert_close(whole[1:2], alone)


def test_a_gradient_reaches_the_photo(shipped):
    photo = torch.rand(1, 3, 32, 32, requires_grad=True)
    sum(f.mean() for f in shipped(photo)).backward()
    assert photo.grad is not None and photo.grad.abs().sum() > 0


def test_embedding_and_description_have_the_documented_form(shipped):
    photos = torch.rand(2, 3, 128, 128)
    third = shipped(photos)[2]
    torch.testing.assert_close(shipped.embed(photos), torch.cat([third.mean((2, 3)), third.std((2, 3))], 1))
    said = shipped.describe(photos)
    assert said.keys() == {*NUMBERS, *ODDS, *CHOICES}
    assert {name: tuple(value.shape) for name, value in said.items()} == {
        "yaw": (2,), "pitch": (2,), "roll": (2,), "light_azimuth": (2,), "smile": (2,), "glasses": (2,), "beard": (2,),
        "hair": (2, 13), "hair_colour": (2, 10),
    }  # fmt: skip


def test_it_describes_nothing_of_sex_age_or_ancestry():
    assert not {"sex", "age", "african", "asian", "caucasian", "skin_luminance"} & {*NUMBERS, *ODDS, *CHOICES}


def test_vgg19_is_taken_where_its_weights_are_and_else_the_face_features(weight_file, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert choose_features("auto") == "faces" and isinstance(open_features("auto"), FaceFeatures)
    assert choose_features("auto", weight_file) == "vgg19" and isinstance(
        open_features("auto", weight_file), VGG19Features
    )
    assert choose_features("faces", weight_file) == "faces"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / VGG19_FILE).write_bytes(b"")
    assert choose_features("auto") == "vgg19"
    with pytest.raises(FeaturesNotFound, match="--features faces"):
        open_features("vgg19", tmp_path / "nowhere.safetensors")
