"""attributes.py: the data that the face features learn from, their training, and how well the shipped ones describe."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import noise_photo, same

from edgeconnect_lite.attributes import (
    MIRRORED,
    FaceCrops,
    FeatureTraining,
    attribute_losses,
    attribute_targets,
    damage,
    measure_attributes,
    train_features,
)
from edgeconnect_lite.features import CHOICES, NUMBERS, ODDS, load_face_features
from edgeconnect_lite.metrics import embed_faces, face_feature_distance
from edgeconnect_lite.photos import FacePhotos
from edgeconnect_lite.runs import TrainingStopped

TINY = FeatureTraining(steps=3, batch_size=2, size=32, validation=4996, warmup=1, threads=1, workers=0, log_every=2)


@pytest.fixture(scope="module")
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network():
    return load_face_features()


@pytest.fixture(scope="module")
def faces():
    return list(FacePhotos("test"))


# how good the shipped network is: the card's figures


def test_it_describes_test_faces(network):
    scores = measure_attributes(network)
    assert scores["glasses"] >= 0.95 and scores["yaw"] <= 4, scores
    chance = {"pitch": 3.7, "roll": 2.1, "light_azimuth": 33.0, "smile": 0.22}  # error of the mean, about
    assert all(scores[name] < 0.85 * error for name, error in chance.items()), scores
    assert scores["beard"] > 0.75 and scores["hair"] > 0.4 and scores["hair_colour"] > 0.5, scores


def test_distances_rank_damage(network, faces):
    """Against a shuffled half of the test faces: the other half < the same lightly damaged < heavily damaged < noise."""
    order = np.random.default_rng(0).permutation(len(faces))
    half, other = ([faces[i] for i in part] for part in np.split(order, 2))
    rng = np.random.default_rng(0)
    sets = {
        "clean": other,
        "light": [damage(face, rng, 0.4) for face in other],
        "heavy": [damage(face, rng, 1.0) for face in other],
        "noise": [noise_photo(128, 128, i) for i in range(len(other))],
    }
    reference = embed_faces(half, network)
    found = {name: face_feature_distance(reference, embed_faces(rows, network)) for name, rows in sets.items()}
    for kind in ("frechet", "kernel"):
        clean, light, heavy, noise = (found[name][kind] for name in sets)
        assert clean < light < heavy < noise, (kind, found)
        assert abs(clean) < 0.2 * heavy and abs(clean) < 0.02 * noise, (kind, found)
    assert abs(found["clean"]["kernel"]) < 0.25 * found["light"]["kernel"], found


# the parts


def test_damage_grows_with_its_strength_and_0_changes_nothing(faces):
    def change(strength):
        rng = np.random.default_rng(0)
        gaps = [np.abs(damage(face, rng, strength).astype(float) - face).mean() for face in faces[:40]]
        return np.mean(gaps)

    before = faces[0].copy()
    changes = [change(strength) for strength in (0.0, 0.25, 0.5, 1.0)]
    assert changes[0] == 0 and changes == sorted(changes) and changes[1] > 0.5
    assert np.array_equal(faces[0], before)
    one, two = (damage(faces[0], np.random.default_rng(3), 0.7) for _ in range(2))
    assert np.array_equal(one, two) and one.dtype == np.uint8 and one.shape == faces[0].shape


def test_a_crop_depends_on_seed_and_place_alone():
    crops = FaceCrops(TINY)
    crop, target = crops[7]
    again, same_target = FaceCrops(TINY)[7]
    assert same(crop, again) and all(same(target[name], same_target[name]) for name in target)
    assert crop.shape == (3, 32, 32) and crop.dtype == torch.float32 and crop.min() >= 0 and crop.max() <= 1
    assert target.keys() == {*NUMBERS, *ODDS, *CHOICES}


def test_a_mirrored_face_looks_the_other_way():
    config = replace(TINY, validation=4999)  # one face, again and again
    yaws = {round(FaceCrops(config)[k][1]["yaw"].item(), 3) for k in range(12)}
    yaw = float(FacePhotos("train").records[0]["yaw"])
    assert yaws == {yaw, -yaw} and set(MIRRORED) < set(NUMBERS)
    pitches = {FaceCrops(config)[k][1]["pitch"].item() for k in range(12)}
    assert len(pitches) == 1


def test_right_answers_cost_nothing():
    target = {name: values[:3] for name, values in attribute_targets(FacePhotos("test").records).items()}
    said = {name: target[name].clone() for name in NUMBERS}
    said |= {name: 40 * (2 * target[name] - 1) for name in ODDS}
    said |= {name: 40 * torch.nn.functional.one_hot(target[name], len(names)) for name, names in CHOICES.items()}
    said |= {name: said[name].float() for name in CHOICES}
    assert all(value.item() == pytest.approx(0, abs=1e-6) for value in attribute_losses(said, target).values())
    said["yaw"] = said["yaw"] + 12
    assert attribute_losses(said, target)["yaw"].item() == pytest.approx(1 - 0.15)


# training


def test_a_short_run_writes_what_it_promises_and_resumes(threads, tmp_path, monkeypatch):
    small = lambda network, *rest: measure_attributes(network, "train", range(2))  # noqa: E731
    monkeypatch.setattr("edgeconnect_lite.attributes.measure_attributes", small)
    first = train_features(TINY, tmp_path / "a")
    folder = tmp_path / "a/face_features"
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "model.safetensors", "checkpoint.pt", "training.json", "log.jsonl"
    }  # fmt: skip
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 3, 3]
    with pytest.raises(TrainingStopped, match="holds a checkpoint already"):
        train_features(TINY, tmp_path / "a")
    with pytest.raises(TrainingStopped, match="seed was 0 and is 1"):
        train_features(replace(TINY, seed=1), tmp_path / "a", resume=True)

    calls = []

    def interrupted(*arguments):
        calls.append(0)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return attribute_losses(*arguments)

    monkeypatch.setattr("edgeconnect_lite.attributes.attribute_losses", interrupted)
    always = replace(TINY, checkpoint_minutes=0.0)
    with pytest.raises(KeyboardInterrupt):
        train_features(always, tmp_path / "b")
    again = train_features(always, tmp_path / "b", resume=True)
    assert all(same(value, again.state_dict()[name]) for name, value in first.state_dict().items())
