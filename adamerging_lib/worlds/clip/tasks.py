"""The twenty image classification tasks of the CLIP profiles: where each lies on the Hugging Face Hub, and its prompts.

Eight are the AdaMerging paper's, fourteen and twenty the suites of Wang et al. 2024 (TALL masks). Class names and
templates stand in ``prompts.json``, as FusionBench 0.2.33 has them: the published experts were fine-tuned against heads
made of just these words, odd ones included ("cra" for crab). For the paper's eight they are also those of task_vectors
and of CLIP itself. Two things differ from the suites as first published: Food101's "cheesecake" and "cheese plate"
stand in the hub's order, which FusionBench exchanges, and EMNIST is its letters, for which the experts on the hub were
made, where TALL masks took its digits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from ...runtime.values import one_of

CORRUPTED = ("contrast", "gaussian_noise", "impulse_noise", "jpeg_compression", "motion_blur", "pixelate", "spatter")
"""Splits that FusionBench published for four of the tasks: their test images, corrupted."""


@dataclass(frozen=True)
class ClipTask:
    """One data set.

    Arguments:
        id: name in the published tables.
        repo: dataset repository on the hub.
        expert: how the names of its experts' repositories end.
        suite: how many tasks the smallest published suite has that holds it, 8, 14 or 20; None outside of them.
        sizes: images of ``train`` and ``test`` on the hub.
        source: who made it.
        licence: as its card on the hub or its authors' page says; "none stated" where neither does.
        config: configuration, which is the folder of its files in the repository.
        files: where the files of a split lie in the repository, ``{split}`` is the hub's name of the split.
        splits: our name of a split → the hub's, where they differ.
        image, label: columns.
        corrupted: corrupted test splits that the repository has.
        paper_size: test images that the papers' numbers count, where the hub has another number.
        fetch: the profile that messages tell to fetch it by.
    """

    id: str
    repo: str
    expert: str
    suite: int | None
    sizes: Mapping[str, int]
    source: str
    licence: str = "none stated"
    config: str = "default"
    files: str = "data/{split}-*.parquet"
    splits: Mapping[str, str] = field(default_factory=dict)
    image: str = "image"
    label: str = "label"
    corrupted: tuple[str, ...] = ()
    paper_size: int | None = None
    fetch: str = "clip-b32"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of the prompts, in label order."""
        return tuple(_prompts()[self.id]["classes"])

    @property
    def templates(self) -> tuple[str, ...]:
        """Prompts, ``{}`` is the class name."""
        return tuple(_prompts()[self.id]["templates"])


def _task(id: str, repo: str, expert: str, suite: int | None, train: int, test: int, source: str, **more) -> ClipTask:
    if config := more.get("config"):
        more.setdefault("files", f"{config}/{{split}}-*.parquet")
    return ClipTask(id, repo, expert, suite, {"train": train, "test": test}, source, **more)


TASKS: dict[str, ClipTask] = {
    task.id: task
    for task in (
        _task("SUN397", "tanganke/sun397", "sun397", 8, 19_850, 19_850, "Xiao et al. 2010", paper_size=19_887),
        _task("Cars", "tanganke/stanford_cars", "stanford-cars", 8, 8_144, 8_041, "Krause et al. 2013",
              corrupted=CORRUPTED, licence="non-commercial research"),
        _task("RESISC45", "tanganke/resisc45", "resisc45", 8, 18_900, 6_300, "Cheng et al. 2017", corrupted=CORRUPTED),
        _task("EuroSAT", "tanganke/eurosat", "eurosat", 8, 21_600, 2_700, "Helber et al. 2019", corrupted=CORRUPTED,
              licence="MIT"),
        _task("SVHN", "ufldl-stanford/svhn", "svhn", 8, 73_257, 26_032, "Netzer et al. 2011", config="cropped_digits",
              licence="non-commercial use"),
        _task("GTSRB", "tanganke/gtsrb", "gtsrb", 8, 26_640, 12_630, "Stallkamp et al. 2012", corrupted=CORRUPTED),
        _task("MNIST", "ylecun/mnist", "mnist", 8, 60_000, 10_000, "LeCun et al. 1998", config="mnist", licence="MIT"),
        _task("DTD", "tanganke/dtd", "dtd", 8, 3_760, 1_880, "Cimpoi et al. 2014", licence="research"),
        _task("Flowers102", "dpdl-benchmark/oxford_flowers102", "oxford_flowers102", 14, 1_020, 6_149,
              "Nilsback and Zisserman 2008"),
        _task("PCAM", "1aurent/PatchCamelyon", "pcam", 14, 262_144, 32_768, "Veeling et al. 2018", licence="CC0 1.0"),
        # The only one in tar files: clip-benchmark's WebDataset, whose labels carry no names.
        _task("FER2013", "clip-benchmark/wds_fer2013", "fer2013", 14, 28_709, 7_178, "Goodfellow et al. 2013",
              files="{split}/*.tar", image="jpg", label="cls"),
        _task("OxfordIIITPet", "timm/oxford-iiit-pet", "oxford-iiit-pet", 14, 3_680, 3_669, "Parkhi et al. 2012",
              licence="CC BY-SA 4.0"),
        _task("STL10", "tanganke/stl10", "stl10", 14, 5_000, 8_000, "Coates et al. 2011"),
        _task("CIFAR100", "tanganke/cifar100", "cifar100", 14, 50_000, 10_000, "Krizhevsky 2009"),
        _task("CIFAR10", "tanganke/cifar10", "cifar10", 20, 50_000, 10_000, "Krizhevsky 2009"),
        _task("Food101", "ethz/food101", "food101", 20, 75_750, 25_250, "Bossard et al. 2014",
              splits={"test": "validation"}, licence="scientific fair use"),
        _task("FashionMNIST", "zalando-datasets/fashion_mnist", "fashion_mnist", 20, 60_000, 10_000, "Xiao et al. 2017",
              config="fashion_mnist", licence="MIT"),
        _task("EMNIST", "tanganke/emnist_letters", "emnist_letters", 20, 124_800, 20_800, "Cohen et al. 2017",
              config="emnist-letters"),
        _task("KMNIST", "tanganke/kmnist", "kmnist", 20, 60_000, 10_000, "Clanuwat et al. 2018", config="kmnist",
              licence="CC BY-SA 4.0"),
        _task("RenderedSST2", "nateraw/rendered-sst2", "rendered-sst2", 20, 6_920, 1_821,
              "Radford et al. 2021; Socher et al. 2013"),
    )
}  # fmt: skip


def task(name: str) -> ClipTask:
    """A task by id.

    Raises:
        ValueError: for an unknown one, with the nearest known.
    """
    one_of("CLIP task", name, TASKS)
    return TASKS[name]


def hub_split(task: ClipTask, split: str) -> str:
    """The hub's name of a split: ``train``, ``test``, or one of the task's corrupted ones.

    Raises:
        ValueError: for a split that the data set does not have.
    """
    known = (*task.sizes, *task.corrupted)
    if split not in known:
        raise ValueError(f"{task.id} ({task.repo}) has no split {split!r}: its splits are {', '.join(known)}")
    return task.splits.get(split, split)


def split_files(names: Iterable[str], task: ClipTask, split: str) -> list[str]:
    """Those of a repository's files that hold a split, sorted.

    Arguments:
        names: paths within the repository, with slashes.
        task: whose repository it is.
        split: ``train``, ``test``, or one of the task's corrupted ones.

    Raises:
        ValueError: for a split that the data set does not have, or where some of its files are missing.
    """
    pattern = task.files.format(split=hub_split(task, split))
    found = sorted(name for name in names if fnmatchcase(name, pattern))
    # The hub numbers the files of a split: data/test-00003-of-00018.parquet, sometimes with a hash behind.
    numbered = {int(m[1]): int(m[2]) for name in found if (m := re.search(r"-(\d{5})-of-(\d{5})[.-]", name))}
    if missing := sorted(set(range(max(numbered.values(), default=0))) - numbered.keys()):
        raise ValueError(
            f"{task.repo} is here only in part: of the {max(numbered.values())} files {pattern}, number "
            f"{', '.join(f'{number:05d}' for number in missing[:5])} is missing: {mend(task)}"
        )
    return found


def mend(task: ClipTask) -> str:
    """What to do where files of a data set are missing or broken."""
    return f"fetch it with  adamerging fetch --profile {task.fetch} --only datasets --tasks {task.id}"


def size_note(task: ClipTask, split: str, found: int) -> str | None:
    """What to tell about the number of images of a split; None where hub and papers count the same.

    Arguments:
        found: images in the files at hand.
    """
    expected = task.sizes.get(split, task.sizes["test"])
    if found != expected:
        return f"{task.id} {split}: {found:,} images in the files, {expected:,} on the hub when this was written"
    if split != "train" and task.paper_size not in (None, found):
        return f"{task.id} {split}: {found:,} images, {task.paper_size:,} in the AdaMerging paper's numbers"
    return None


@cache
def _prompts() -> dict[str, dict[str, list[str]]]:
    return json.loads(Path(__file__).with_name("prompts.json").read_text(encoding="utf-8"))
