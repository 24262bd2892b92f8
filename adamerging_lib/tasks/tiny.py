"""The eight tasks of the `tiny` profile: real photographs, in packs that anyone can lay out; see `packs`.

Each takes the place of one of the paper's data sets. SVHN has CIFAR-10 in its place: of SVHN's cropped digits a
folder made from public repositories holds 801 for training, too few for an expert.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..augmentation import Augmentation

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
