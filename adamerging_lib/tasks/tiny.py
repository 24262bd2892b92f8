"""The eight tasks of the tiny profiles: real photographs, in packs that anyone can lay out; see `packs`.

Those of `tiny-hub` are the paper's own, drawn from the files of the Hugging Face Hub; see `packing`. Those of the
other profiles need no hub: each takes the place of one of the paper's data sets. What a pack holds is its maker's
choice; the folder behind the book's runs was made from what public repositories hold, and so

* SVHN's place is CIFAR-10's: of SVHN's digits there are 801 for training, too few for an expert;
* SUN397's place is that of the older set of 15 scenes, grey pictures, 100 a class for training;
* Cars has all 196 classes with 10 training images each, RESISC45 14 of 45 classes, DTD 10 of 47 with 80 each;
* MNIST's splits are both drawn from its official test images, and GTSRB's from its training tracks, none in both.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..augmentation import Augmentation

HUB = "tiny-hub"
"""The profile whose images and pretrained weights come from the hub."""
PHOTOGRAPH = Augmentation(mirror=True)
FROM_ABOVE = Augmentation(turn=True)
SYMBOL = Augmentation(zoom=0.9, rotation=10.0)


@dataclass(frozen=True)
class TinyTask:
    """One set of real images.

    Arguments:
        name: task id, with which the file name of its pack begins.
        label: for people.
        stand_in: the paper's data set whose place it takes.
        views: what augmentation may change.
    """

    name: str
    label: str
    stand_in: str
    views: Augmentation


TASKS: dict[str, TinyTask] = {
    task.name: task
    for task in (
        TinyTask("scene15", "15 Scenes", "SUN397", PHOTOGRAPH),
        TinyTask("cars", "Stanford Cars", "Cars", PHOTOGRAPH),
        TinyTask("resisc45", "RESISC45", "RESISC45", FROM_ABOVE),
        TinyTask("eurosat", "EuroSAT", "EuroSAT", FROM_ABOVE),
        TinyTask("cifar10", "CIFAR-10", "SVHN", PHOTOGRAPH),
        TinyTask("gtsrb", "GTSRB", "GTSRB", SYMBOL),
        TinyTask("mnist", "MNIST", "MNIST", SYMBOL),
        TinyTask("dtd", "DTD", "DTD", FROM_ABOVE),
    )
}
HUB_TASKS: dict[str, TinyTask] = {
    task.name: task
    for task in (
        TinyTask("sun397", "SUN397", "SUN397", PHOTOGRAPH),
        TinyTask("cars", "Stanford Cars", "Cars", PHOTOGRAPH),
        TinyTask("resisc45", "RESISC45", "RESISC45", FROM_ABOVE),
        TinyTask("eurosat", "EuroSAT", "EuroSAT", FROM_ABOVE),
        TinyTask("svhn", "SVHN", "SVHN", SYMBOL),
        TinyTask("gtsrb", "GTSRB", "GTSRB", SYMBOL),
        TinyTask("mnist", "MNIST", "MNIST", SYMBOL),
        TinyTask("dtd", "DTD", "DTD", FROM_ABOVE),
    )
}
"""Those of the profile ``tiny-hub``."""


def task_set(profile: str) -> dict[str, TinyTask]:
    """The tasks of a tiny profile, by name."""
    return HUB_TASKS if profile == HUB else TASKS
