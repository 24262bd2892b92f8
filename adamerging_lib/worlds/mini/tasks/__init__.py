"""The drawn world's tasks: 32 × 32 pixels, drawn from seeds alone; eight are stand-ins for the paper's data sets.

Image i of a split is drawn by a generator seeded with (suite, task, split, i), so the three splits are disjoint streams
by construction and any image can be drawn again without the ones before it.

A further task is one more row of `TASKS`, at its end, and a module of its name in this folder; see `MiniTask`. The
profile has it by default once `make zoo` has trained its expert.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from ....runtime.values import one_of

if TYPE_CHECKING:  # what `MiniTask.generator` imports: caches ask sources what images depend on
    from . import aerial, digits, housenumbers, landcover, scenes, signs, textures, vehicles  # noqa: F401

SEED = 20240115  # of the whole suite
SPLITS = {"train": 0, "validation": 1, "test": 2}
SIZES = {"train": 4000, "validation": 500, "test": 1000}


@dataclass(frozen=True)
class MiniTask:
    """One procedural task. The module of its name in this folder draws it.

    That module has ``CLASSES``, the class names in label order, and ``draw(class name, rng, shift)``, which returns a
    uint8 image ``[32, 32, 3]``. If pre-training is to show such pictures, it also has ``KIND``, a `kinds.Kind`, and
    ``EXTRA``, further concepts that ``draw`` knows.

    Arguments:
        name: task id.
        stand_in: the paper's data set whose place it takes; None for none.
        templates: prompts of the zero-shot head, ``{}`` is the class name.
        shift: how far the images are from the pre-training look, as a range inside [0, 1].
        by_split: ``draw`` takes the split too.
    """

    name: str
    stand_in: str | None
    templates: tuple[str, ...]
    shift: tuple[float, float]
    by_split: bool = False

    @property
    def generator(self) -> ModuleType:
        """Its module, imported when first asked for: names and roles are read where nothing is drawn."""
        return importlib.import_module(f".{self.name}", __name__)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.generator.CLASSES


TASKS: dict[str, MiniTask] = {
    task.name: task
    for task in (
        MiniTask("scenes", "SUN397", ("a photo of a {}.", "a landscape with a {}.", "a {}."), (0.5, 1.0)),
        MiniTask("vehicles", "Cars", ("a photo of a {}.", "a {} from the side.", "a {}."), (0.4, 0.9)),
        MiniTask("aerial", "RESISC45", ("an aerial photo of a {}.", "a {} seen from above.", "a {}."), (0.5, 1.0)),
        MiniTask("landcover", "EuroSAT", ("a satellite image of {}.", "{} from orbit.", "{}."), (0.5, 1.0)),
        MiniTask("housenumbers", "SVHN", ("a photo of the number {}.", "the number {} on a house.", "{}."), (0.4, 0.9)),
        MiniTask("signs", "GTSRB", ("a photo of a {}.", "a {} in the street.", "a {}."), (0.5, 1.0)),
        MiniTask("digits", "MNIST", ("a photo of the number {}.", "the handwritten number {}.", "{}."), (0.5, 1.0),
                 by_split=True),
        MiniTask("textures", "DTD", ("a photo of a {} texture.", "a {} surface.", "{}."), (0.5, 1.0)),
    )
}  # fmt: skip
"""A task's row also is its number in the seeds: a row before others would change all their images."""


def render(name: str, split: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Images ``start`` to ``stop`` of a split.

    Returns:
        uint8 images ``[n, 3, 32, 32]`` and int64 labels ``[n]``; classes take turns, so they are balanced.

    Raises:
        ValueError: unknown task or split.
    """
    one_of("mini task", name, TASKS)
    one_of("split", split, SPLITS)
    task, place = TASKS[name], list(TASKS).index(name)
    draw, classes = task.generator.draw, task.classes
    images = np.empty((stop - start, 32, 32, 3), np.uint8)
    labels = np.arange(start, stop) % len(classes)
    for row, (index, label) in enumerate(zip(range(start, stop), labels, strict=True)):
        rng = np.random.default_rng((SEED, place, SPLITS[split], index))
        given = (classes[label], rng, rng.uniform(*task.shift))
        images[row] = draw(*given, split) if task.by_split else draw(*given)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels
