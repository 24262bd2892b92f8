"""The measurement: every task before and after adaptation, then other heads, classes, experts and gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch.nn.functional import cross_entropy

from adamerging_lib.evaluation import predictions
from adamerging_lib.forward import entropy
from adamerging_lib.methods import run_method
from adamerging_lib.suite import Suite

from .. import measuring
from ..fits import Wanted
from . import AFTER, BEFORE

METHODS = ("zero_shot", "individual", BEFORE, AFTER)

Row = dict[str, Any]


def measure(
    suite: Suite,
    *,
    scales: Sequence[float] = (),
    classes: Sequence[int] = (),
    rules: Sequence[str] = (),
    test_images: int = 0,
    seeds: Sequence[int] = (0,),
    device: str = "cpu",
    **learning: Any,
) -> list[Row]:
    """Measure every task before and after adaptation; then vary heads, classes, experts, and how gradients combine.

    Arguments:
        suite: what to merge, and all labelled test images.
        scales: factors for all heads. The order of predictions stays, their entropy does not.
        classes: how many classes the task with the most of them is left with, its first ones.
        rules: how to combine the tasks' gradients instead of adding them up, see `combiner`; with the first seed.
        test_images: drawn per task, once classes are left out; 0 for all.
        seeds: of the order of images; methods that learn are run with each.
        device: as in `measuring.measure`.
        learning: hyper-parameters of the adaptation.

    Returns:
        Rows of a record.
    """

    def measured(
        part: Suite, methods: Sequence[str], about: Mapping[str, Any] | None = None, seeds: Sequence[int] = seeds,
        **changed: Any,
    ) -> list[Row]:  # fmt: skip
        return [
            row
            for method in methods
            for seed in measuring.seeds_of(method, seeds)
            for row in measuring.measure(
                part, method, seed=seed, device=device, about=about, learning={**learning, **changed}
            )
        ]

    few = suite.some_images(test_images or None)
    rows = [*measured(few, METHODS), *_traits(few, seeds[0], device)]
    for scale in scales:
        rows += measured(sharpened(few, scale), [AFTER], {"scale": scale})
    for count in classes:
        part = with_fewest(suite, count, test_images)
        rows += measured(part, METHODS, {"classes": count, "narrowed": most_classes(suite)})
    weakest = weakest_expert(few, device)
    part = few.subset([name for name in suite.tasks if name != weakest])
    rows += measured(part, [BEFORE, AFTER], {"left_out": weakest})
    for rule in rules:
        rows += measured(few, [AFTER], {"rule": rule}, seeds[:1], combine=rule)
    return rows


def kept(
    *,
    scales: Sequence[float],
    classes: Sequence[int],
    rules: Sequence[str],
    test_images: int,
    seeds: Sequence[int],
    device: str = "cpu",
    **learning: Any,
) -> Iterator[Wanted]:
    """The fits that a run with these parameters reads where they are kept, except those of the main comparison.

    Arguments:
        scales, classes, rules, test_images, seeds, device, learning: as in `measure`.
    """

    def few(suite: Suite) -> Suite:
        return suite.some_images(test_images or None)

    def without_weakest(suite: Suite) -> Suite:
        weakest = weakest_expert(few(suite), device)
        return few(suite).subset([name for name in suite.tasks if name != weakest])

    parts: dict[str, Callable[[Suite], Suite]] = {
        f"scale-{scale:g}": lambda suite, scale=scale: sharpened(few(suite), scale) for scale in scales
    }
    parts |= {f"classes-{n}": lambda suite, n=n: with_fewest(suite, n, test_images) for n in classes}
    parts["without-the-weakest"] = without_weakest
    for seed in seeds:
        options = {**learning, "seed": seed, "device": device}
        for name, part in parts.items():
            yield Wanted(f"{name}-{seed}", AFTER, options, part)
        for rule in rules if seed == seeds[0] else ():
            yield Wanted(f"{rule}-{seed}", AFTER, {**options, "combine": rule}, few)


def most_classes(suite: Suite) -> str:
    """The task with the most classes."""
    return max(suite.tasks, key=lambda name: len(suite.test[name].classes))


def with_fewest(suite: Suite, count: int, test_images: int) -> Suite:
    """The suite with only ``count`` classes of the task with the most, then ``test_images`` per task; 0 for all."""
    return narrowed(suite, most_classes(suite), count).some_images(test_images or None)


def weakest_expert(suite: Suite, device: str = "cpu") -> str:
    """The task whose own expert has the lowest accuracy."""
    rows = measuring.measure(suite, "individual", device=device)
    accuracy = {row["task"]: row["accuracy"] for row in rows if row["task"] in suite.tasks}
    return min(suite.tasks, key=accuracy.__getitem__)


def sharpened(suite: Suite, scale: float) -> Suite:
    """The suite with all heads' logits multiplied by ``scale``."""
    return dataclasses.replace(suite, heads={task: head * scale for task, head in suite.heads.items()})


def narrowed(suite: Suite, task: str, count: int) -> Suite:
    """The suite with only the first classes of a task: their rows of its head, and their test images.

    Raises:
        ValueError: where the task has fewer.
    """
    data = suite.test[task]
    if not 2 <= count <= len(data.classes):
        raise ValueError(f"{count} classes of {task!r}: it has {len(data.classes)}; choose from 2 to that many")
    kept = data.labels < count
    part = dataclasses.replace(data, images=data.images[kept], labels=data.labels[kept], classes=data.classes[:count])
    head = suite.heads[task][:count].clone()
    return dataclasses.replace(suite, test={**suite.test, task: part}, heads={**suite.heads, task: head})


def _traits(suite: Suite, seed: int, device: str) -> list[Row]:
    """What is known of each task before adaptation: whether low entropy means low loss, and how many classes it has."""
    rows = []
    for task, scores, labels in predictions(suite, run_method(BEFORE, suite), device=device):
        rho = measuring.rank_correlation(entropy(scores), cross_entropy(scores, labels, reduction="none"))
        rows.append({"kind": "spearman", "method": BEFORE, "task": task, "seed": seed, "value": rho, "n": len(labels)})
    counts = {task: len(data.classes) for task, data in suite.test.items()}
    return rows + [{"kind": "classes", "task": task, "seed": seed, "value": count} for task, count in counts.items()]
