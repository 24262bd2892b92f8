"""The mini suite's eight tasks: procedural stand-ins for the paper's data sets, 32 × 32 pixels, drawn from seeds alone.

Image i of a split is drawn by a generator seeded with (suite, task, split, i), so the three splits are disjoint streams
by construction and any image can be drawn again without the ones before it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from multiprocessing import get_context

import numpy as np

from . import aerial, glyphs, landcover, scenes, signs, textures, vehicles

SEED = 20240115  # of the whole suite
SPLITS = {"train": 0, "validation": 1, "test": 2}
SIZES = {"train": 4000, "validation": 500, "test": 1000}


@dataclass(frozen=True)
class MiniTask:
    """One procedural task.

    Arguments:
        name: task id.
        stand_in: the paper's data set whose place it takes.
        classes: class names in label order.
        templates: prompts of the zero-shot head, ``{}`` is the class name.
        shift: how far the images are from the pre-training look, as a range inside [0, 1].
        draw: ``draw(class name, rng, shift, split) -> uint8 [32, 32, 3]``.
    """

    name: str
    stand_in: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    shift: tuple[float, float]
    draw: Callable[[str, np.random.Generator, float, str], np.ndarray]


def _without_split(draw, name, rng, shift, split):
    return draw(name, rng, shift)


def _task(name, stand_in, classes, templates, shift, draw, takes_split=False):
    return MiniTask(name, stand_in, classes, templates, shift, draw if takes_split else partial(_without_split, draw))


TASKS: dict[str, MiniTask] = {
    task.name: task
    for task in (
        _task("scenes", "SUN397", scenes.CLASSES,
              ("a photo of a {}.", "a landscape with a {}.", "a {}."), (0.5, 1.0), scenes.draw),
        _task("vehicles", "Cars", vehicles.CLASSES,
              ("a photo of a {}.", "a {} from the side.", "a {}."), (0.4, 0.9), vehicles.draw),
        _task("aerial", "RESISC45", aerial.CLASSES,
              ("an aerial photo of a {}.", "a {} seen from above.", "a {}."), (0.5, 1.0), aerial.draw),
        _task("landcover", "EuroSAT", landcover.CLASSES,
              ("a satellite image of {}.", "{} from orbit.", "{}."), (0.5, 1.0), landcover.draw),
        _task("housenumbers", "SVHN", glyphs.DIGITS,
              ("a photo of the number {}.", "the number {} on a house.", "{}."), (0.4, 0.9), glyphs.print_character),
        _task("signs", "GTSRB", signs.CLASSES,
              ("a photo of a {}.", "a {} in the street.", "a {}."), (0.5, 1.0), signs.draw),
        _task("digits", "MNIST", glyphs.DIGITS,
              ("a photo of the number {}.", "the handwritten number {}.", "{}."), (0.5, 1.0), glyphs.write_digit, True),
        _task("textures", "DTD", textures.CLASSES,
              ("a photo of a {} texture.", "a {} surface.", "{}."), (0.5, 1.0), textures.draw),
    )
}  # fmt: skip


def render(name: str, split: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Images ``start`` to ``stop`` of a split.

    Returns:
        uint8 images ``[n, 3, 32, 32]`` and int64 labels ``[n]``; classes take turns, so they are balanced.

    Raises:
        ValueError: unknown task or split.
    """
    if name not in TASKS:
        raise ValueError(f"unknown mini task {name!r}; the tasks are {', '.join(TASKS)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    task, place = TASKS[name], list(TASKS).index(name)
    images = np.empty((stop - start, 32, 32, 3), np.uint8)
    labels = np.arange(start, stop) % len(task.classes)
    for row, (index, label) in enumerate(zip(range(start, stop), labels, strict=True)):
        rng = np.random.default_rng((SEED, place, SPLITS[split], index))
        images[row] = task.draw(task.classes[label], rng, rng.uniform(*task.shift), split)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels


def render_parallel(draw: Callable, chunks: list[tuple], workers: int) -> list:
    """``draw(*chunk)`` for every chunk in order, over processes when ``workers`` > 1."""
    if workers <= 1:
        return [draw(*chunk) for chunk in chunks]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(_call, repeat(draw), chunks))


def _call(draw, chunk):
    return draw(*chunk)
