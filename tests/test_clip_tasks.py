"""The registry of CLIP's tasks."""

from __future__ import annotations

import csv
from importlib import resources

import pytest

from adamerging_lib.worlds.clip.rows import plain_name
from adamerging_lib.worlds.clip.tasks import CORRUPTED, TASKS, hub_split, size_note, split_files, task

CLASSES = dict(
    SUN397=397, Cars=196, RESISC45=45, EuroSAT=10, SVHN=10, GTSRB=43, MNIST=10, DTD=47, Flowers102=102, PCAM=2,
    FER2013=7, OxfordIIITPet=37, STL10=10, CIFAR100=100, CIFAR10=10, Food101=101, FashionMNIST=10, EMNIST=26,
    KMNIST=10, RenderedSST2=2,
)  # fmt: skip
TEMPLATES = dict(
    SUN397=2, Cars=8, RESISC45=18, EuroSAT=3, SVHN=1, GTSRB=3, MNIST=1, DTD=8, Flowers102=1, PCAM=1, FER2013=6,
    OxfordIIITPet=1, STL10=2, CIFAR100=18, CIFAR10=18, Food101=1, FashionMNIST=2, EMNIST=1, KMNIST=1, RenderedSST2=1,
)  # fmt: skip


def test_every_task_has_the_published_numbers_of_classes_and_templates():
    assert {name: len(t.classes) for name, t in TASKS.items()} == CLASSES
    assert {name: len(t.templates) for name, t in TASKS.items()} == TEMPLATES


@pytest.mark.parametrize("name", TASKS)
def test_names_are_told_apart_however_they_are_written_and_templates_hold_one_place(name):
    assert len({plain_name(c) for c in TASKS[name].classes}) == CLASSES[name]
    assert all(c == c.strip() and c for c in TASKS[name].classes)
    assert len(set(TASKS[name].templates)) == TEMPLATES[name]
    assert all(t.count("{}") == 1 and t.count("{") == t.count("}") == 1 for t in TASKS[name].templates)


def test_ids_are_those_of_the_published_tables():
    with resources.files("adamerging_lib").joinpath("published/tables.csv").open(encoding="utf-8") as file:
        published = {row["task"] for row in csv.DictReader(file)} - {"Average"}
    assert published == set(list(TASKS)[:8])


def test_places_that_prompts_put_to_labels():
    """Spot checks of label orders against the data sets' own documentation."""
    places = {
        "SUN397": {0: "abbey", 396: "youth hostel"},
        "Cars": {0: "AM General Hummer SUV 2000", 195: "smart fortwo Convertible 2012"},
        "GTSRB": {14: "stop", 17: "red circle with white horizonal stripe no entry"},
        "EuroSAT": {2: "brushland or shrubland", 9: "lake or sea"},
        "Food101": {16: "cheesecake", 17: "cheese plate"},  # FusionBench has these two the other way round
        "DTD": {30: "polka-dotted"},
    }
    for name, expected in places.items():
        assert {label: TASKS[name].classes[label] for label in expected} == expected


def test_four_tasks_have_the_seven_corrupted_splits():
    with_them = {name for name, t in TASKS.items() if t.corrupted == CORRUPTED}
    assert with_them == {"Cars", "RESISC45", "EuroSAT", "GTSRB"}
    assert hub_split(TASKS["GTSRB"], "motion_blur") == "motion_blur"
    with pytest.raises(ValueError, match="no split 'motion_blur': .* train, test"):
        hub_split(TASKS["DTD"], "motion_blur")


def test_the_files_of_a_split_among_a_repositorys():
    names = [
        "README.md", ".gitattributes", "data/train-00000-of-00001.parquet", "data/test-00001-of-00002.parquet",
        "data/test-00000-of-00002.parquet", "data/test.zip", "other/test-00000-of-00001.parquet",
    ]  # fmt: skip
    assert split_files(names, TASKS["Cars"], "test") == [names[4], names[3]]
    assert split_files(names, TASKS["Cars"], "contrast") == []
    assert split_files(["data/validation-00000-of-00001.parquet"], TASKS["Food101"], "test")
    assert split_files(["cropped_digits/test-00000-of-00001.parquet"], TASKS["SVHN"], "test")
    assert split_files(["full_numbers/test-00000-of-00001.parquet"], TASKS["SVHN"], "test") == []
    assert split_files(["test/0.tar", "train/0.tar"], TASKS["FER2013"], "test") == ["test/0.tar"]
    hashed = "data/test-00000-of-00001-bb04e6313f58efa0.parquet"
    assert split_files([hashed], TASKS["PCAM"], "test") == [hashed]


def test_a_missing_file_among_numbered_ones_is_named():
    names = [f"data/test-{n:05d}-of-00018.parquet" for n in range(18) if n != 11]
    with pytest.raises(ValueError, match="of the 18 files .*number 00011 is missing: .*adamerging fetch"):
        split_files(names, TASKS["SUN397"], "test")
    with pytest.raises(ValueError, match="number 00001 is missing"):
        split_files(["data/test-00000-of-00002-abcdef.parquet"], TASKS["PCAM"], "test")


def test_differences_in_size_are_named():
    assert "19,850 images, 19,887 in the AdaMerging paper" in size_note(TASKS["SUN397"], "test", 19_850)
    assert size_note(TASKS["SUN397"], "train", 19_850) is None
    assert size_note(TASKS["MNIST"], "test", 10_000) is None
    assert "12 images in the files, 10,000 on the hub" in size_note(TASKS["MNIST"], "test", 12)
    assert "8,041 on the hub" in size_note(TASKS["Cars"], "contrast", 12)
    counted = {name: t.paper_size or t.sizes["test"] for name, t in list(TASKS.items())[:8]}
    assert sum(counted.values()) == 87_470  # of the paper's averages


def test_an_unknown_task_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="CLIP task 'cars196' is unknown: did you mean"):
        task("cars196")
    assert task("SUN397") is TASKS["SUN397"]
