"""The tiny profiles on the real folder, wherever ADAMERGING_ASSETS names one: run with ``-m assets``."""

import os

import pytest
import torch
from torch.nn.functional import normalize

import adamerging_lib as am
from adamerging_lib.methods import individual, weight_averaging, zero_shot
from adamerging_lib.state import CheckpointError
from adamerging_lib.suite import normalise
from adamerging_lib.worlds.encoders import TINY_MEAN, TINY_STD
from adamerging_lib.worlds.tiny import world as tiny
from adamerging_lib.worlds.tiny.tasks import SETTINGS, TASKS

pytestmark = pytest.mark.assets

SIZE = SETTINGS["tiny"].image_size
# Nearest-prototype accuracy at 96 px that a wrongly loaded encoder does not reach (chance is 7, 7 and 10 %).
FLOORS = {"scene15": 40.0, "resisc45": 45.0, "eurosat": 55.0}


@pytest.fixture(scope="module")
def files():
    if not os.environ.get("ADAMERGING_ASSETS"):
        pytest.skip("no real images here: set ADAMERGING_ASSETS to a folder of packs, see worlds/tiny/packs.py")
    try:
        return tiny.asset_files(TASKS)
    except CheckpointError as error:
        pytest.skip(f"no real images here: {error}")


@pytest.fixture(scope="module")
def suite(files):
    try:
        return am.load_suite("tiny")
    except CheckpointError as error:
        pytest.skip(f"no experts here: {error}")


@pytest.mark.parametrize("task", TASKS)
def test_packs_have_both_splits_every_class_and_different_images(files, task):
    train, test = (tiny.tiny_images(task, split, files[task], SIZE) for split in ("train", "test"))
    assert train.classes == test.classes and len(set(train.classes)) == len(train.classes)
    for data in (train, test):
        assert data.images.shape == (len(data), 3, SIZE, SIZE) and data.images.dtype == torch.uint8
        assert torch.bincount(data.labels, minlength=len(data.classes)).min() >= 1
        assert data.images.float().std((1, 2, 3)).median() > 10
    known = {image.numpy().tobytes() for image in train.images}
    assert sum(image.numpy().tobytes() in known for image in test.images) <= 0.01 * len(test)


@pytest.mark.parametrize("task", FLOORS)
def test_the_pretrained_features_know_the_classes(files, task):
    encoder = tiny.pretrained_encoder(files["pretrained"], SIZE)
    head = tiny.tiny_head(task, files, SIZE, encoder)
    data = tiny.tiny_images(task, "test", files[task], SIZE)
    every = len(data) // 300  # packs may be sorted by class
    images, labels = data.images[::every], data.labels[::every]
    with torch.inference_mode():
        scores = normalize(encoder(normalise(images, TINY_MEAN, TINY_STD)), dim=-1) @ head.T
    assert 100 * (scores.argmax(1) == labels).double().mean() > FLOORS[task]


def test_experts_are_far_better_than_the_pretrained_model_and_their_average(suite):
    few = suite.some_images(200)
    accuracy = {
        name: am.evaluate(few, model).set_index("task")["accuracy"]
        for name, model in (
            ("zero-shot", zero_shot(few.task_vectors())),
            ("experts", individual(few)),
            ("average", weight_averaging(few.task_vectors())),
        )
    }
    assert (accuracy["experts"] > accuracy["zero-shot"]).all()
    assert accuracy["experts"].mean() > accuracy["average"].mean() > accuracy["zero-shot"].mean()
