"""The tasks of the world of text: sentences and pairs of sentences, made from seeds alone.

Text i of a split is made by a generator seeded with (suite, task, split, i), and any text can be made again without the
ones before it. Two seeds may make the same sentence, though, as no two seeds draw the same picture. So every text
belongs to one split, by a digest of its words, and a generator draws again until it finds a text of its own split: no
text of one split can be in another, however many are made.
"""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import dataclass
from random import Random
from types import ModuleType
from typing import TYPE_CHECKING

from ....runtime.values import one_of

if TYPE_CHECKING:  # what `TextTask.generator` imports: caches ask sources what texts depend on
    from . import acceptability, entailment, paraphrase, questions, sentiment, topics  # noqa: F401

Text = tuple[str, ...]
"""One sentence, or two."""

SEED = 20250301  # of the whole suite
SHARES = {"train": (0.0, 0.6), "validation": (0.6, 0.7), "test": (0.7, 1.0)}
"""Split → the part of all texts that are its own, as a range of `place`; pre-training has none of the test's."""
SIZES = {"train": 4000, "validation": 500, "test": 1000}
PATIENCE = 2000  # draws: a generator that finds nothing by then has too few texts of a class


@dataclass(frozen=True)
class TextTask:
    """One task. The module of its name in this folder makes its texts.

    That module has ``CLASSES``, the class names in label order, and ``draw(class name, rng)``, which returns a `Text`.

    Arguments:
        name: task id.
        kind: which task of GLUE or of the like it stands in for.
    """

    name: str
    kind: str

    @property
    def generator(self) -> ModuleType:
        """Its module, imported when first asked for."""
        return importlib.import_module(f".{self.name}", __name__)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.generator.CLASSES


TASKS: dict[str, TextTask] = {
    task.name: task
    for task in (
        TextTask("sentiment", "SST-2"),
        TextTask("topics", "AG News"),
        TextTask("questions", "TREC"),
        TextTask("entailment", "MNLI"),
        TextTask("paraphrase", "MRPC and QQP"),
        TextTask("acceptability", "CoLA"),
    )
}
"""A task's row also is its number in the seeds: a row before others would change all their texts."""


def place(text: Text) -> float:
    """Where a text lies in [0, 1), by a digest of its words; `SHARES` says whose it then is."""
    digest = hashlib.sha256(" | ".join(text).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def render(name: str, split: str, start: int, stop: int) -> tuple[list[Text], list[int]]:
    """Texts ``start`` to ``stop`` of a split, and their labels; classes take turns, so they are balanced.

    Arguments:
        name: task id.
        split: ``train``, ``validation`` or ``test``.
        start, stop: which texts.

    Raises:
        ValueError: unknown task or split.
    """
    one_of("text task", name, TASKS)
    one_of("split", split, SHARES)
    task, row = TASKS[name], list(TASKS).index(name)
    classes, draw, (low, high) = task.classes, task.generator.draw, SHARES[split]
    texts, labels = [], [index % len(classes) for index in range(start, stop)]
    for index, label in zip(range(start, stop), labels, strict=True):
        rng = Random(f"{SEED}|{row}|{split}|{index}")
        drawn = (draw(classes[label], rng) for _ in range(PATIENCE))
        texts.append(next(text for text in drawn if low <= place(text) < high))
    return texts, labels
