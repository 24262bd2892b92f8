"""What tells the tiny profiles apart, and their eight tasks: real photographs, in packs that anyone can lay out.

`packs` says how. The tasks of `tiny-hub` are the paper's own, drawn from the files of the Hugging Face Hub; see
`packing`. Those of the other profiles need no hub: each takes the place of one of the paper's data sets. What a pack
holds is its maker's choice; the folder behind the book's runs was made from what public repositories hold, and so

* SVHN's place is CIFAR-10's: of SVHN's digits there are 801 for training, too few for an expert;
* SUN397's place is that of the older set of 15 scenes, grey pictures, 100 per class for training;
* Cars has all 196 classes with 10 training images each, RESISC45 14 of 45 classes, DTD 10 of 47 with 80 each;
* MNIST's splits are both drawn from its official test images, and GTSRB's from its training tracks, none in both.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..augmentation import Augmentation

HUB = "tiny-hub"
"""The profile whose images and pretrained weights come from the hub."""


@dataclass(frozen=True)
class Setting:
    """What tells a tiny profile from the others.

    Arguments:
        image_size: pixels per side.
        shorter: its models are trained for the recipe's steps divided by this.
    """

    image_size: int = 96
    shorter: int = 1


SETTINGS: dict[str, Setting] = {
    "tiny": Setting(),
    "tiny-64": Setting(image_size=64),
    "tiny-128": Setting(image_size=128),
    "tiny-short": Setting(shorter=4),
    HUB: Setting(),
}
PHOTOGRAPH = Augmentation(mirror=True)
FROM_ABOVE = Augmentation(turn=True)
SYMBOL = Augmentation(zoom=0.9, rotation=10.0)


@dataclass(frozen=True)
class TinyTask:
    """One set of real images.

    Arguments:
        name: task id, with which the file name of its pack begins.
        label: for people.
        stand_in: the paper's data set whose place it takes; None for none.
        views: what augmentation may change.
        steps: of its expert's training, where the recipe's own are too few.
    """

    name: str
    label: str
    stand_in: str | None
    views: Augmentation
    steps: int | None = None


TASKS: dict[str, TinyTask] = {
    task.name: task
    for task in (
        TinyTask("scene15", "15 Scenes", "SUN397", PHOTOGRAPH),
        # 196 classes, few images of each, are far from learned after 800 steps.
        TinyTask("cars", "Stanford Cars", "Cars", PHOTOGRAPH, steps=2000),
        TinyTask("resisc45", "RESISC45", "RESISC45", FROM_ABOVE),
        TinyTask("eurosat", "EuroSAT", "EuroSAT", FROM_ABOVE),
        TinyTask("cifar10", "CIFAR-10", "SVHN", PHOTOGRAPH),
        TinyTask("gtsrb", "GTSRB", "GTSRB", SYMBOL),
        TinyTask("mnist", "MNIST", "MNIST", SYMBOL),
        TinyTask("dtd", "DTD", "DTD", FROM_ABOVE),
    )
}
_FROM_HUB = {
    "SUN397": TinyTask("sun397", "SUN397", "SUN397", PHOTOGRAPH, steps=2000),  # 397 classes
    "SVHN": TinyTask("svhn", "SVHN", "SVHN", SYMBOL),
}
HUB_TASKS: dict[str, TinyTask] = {
    task.name: task for task in (_FROM_HUB.get(task.stand_in, task) for task in TASKS.values() if task.stand_in)
}
"""Those of the profile ``tiny-hub``: the published data sets."""


def task_set(profile: str) -> dict[str, TinyTask]:
    """The tasks of a tiny profile, by name."""
    return HUB_TASKS if profile == HUB else TASKS
