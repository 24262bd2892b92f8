"""The measurement: every task before and after adaptation, then other heads, classes, experts and gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch.nn.functional import cross_entropy

from adamerging_lib.evaluation import predictions
from adamerging_lib.forward import entropy
from adamerging_lib.methods import run_method
from adamerging_lib.suite import Suite

from .. import measuring
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
    seed: int = 0,
    device: str = "cpu",
    **learning: Any,
) -> list[Row]:
    """Measure every task before and after adaptation; then vary heads, classes, experts, and how gradients combine.

    Arguments:
        suite: what to merge, and all labelled test images.
        scales: factors for all heads. The order of predictions stays, their entropy does not.
        classes: how many classes the task with the most of them is left with, its first ones.
        rules: how to combine the tasks' gradients instead of adding them up, see `combiner`.
        test_images: drawn per task, once classes are left out; 0 for all.
        seed, device: as in `measuring.measure`.
        learning: hyper-parameters of the adaptation.

    Returns:
        Rows of a record.
    """
    common = {"learning": learning, "seed": seed, "device": device}
    few = suite.some_images(test_images or None)
    plain = [row for method in METHODS for row in measuring.measure(few, method, **common)]
    rows = [*plain, *_traits(few, seed, device)]
    for scale in scales:
        rows += measuring.measure(sharpened(few, scale), AFTER, about={"scale": scale}, **common)
    task = max(suite.tasks, key=lambda name: len(suite.test[name].classes))
    for count in classes:
        part = narrowed(suite, task, count).some_images(test_images or None)
        for method in METHODS:
            rows += measuring.measure(part, method, about={"classes": count, "narrowed": task}, **common)
    expert = {row["task"]: row["accuracy"] for row in plain if row["method"] == "individual"}
    weakest = min(suite.tasks, key=expert.__getitem__)
    part = few.subset([name for name in suite.tasks if name != weakest])
    for method in (BEFORE, AFTER):
        rows += measuring.measure(part, method, about={"left_out": weakest}, **common)
    for rule in rules:
        given = {**common, "learning": {**learning, "combine": rule}}
        rows += measuring.measure(few, AFTER, about={"rule": rule}, **given)
    return rows


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
