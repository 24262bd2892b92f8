"""When does lowering entropy help? What is known of each task, and interventions on heads, classes, experts, gradients.

Rows of a record: those of `measure`; with the condition ``classes`` and ``spearman`` a ``value`` for each task (the
number of its classes; the rank correlation of entropy and loss before adaptation); with ``head x2`` in ``scale`` by how
much all heads were sharpened; with ``10 classes`` in ``classes`` how many the task ``narrowed`` was left with; with
``cars left out`` in ``left_out`` the task whose expert was not merged; with ``combined by min_norm`` in ``combine`` the
rule by which the tasks' gradients were combined.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from adamerging_lib.suite import Suite

from . import measure
from .budget import subset
from .entropy_loss import ALL, entropy_loss

BEFORE, AFTER = "task_arithmetic", "layer_wise_adamerging"
METHODS = ("zero_shot", "individual", BEFORE, AFTER)


def reasons(
    suite: Suite,
    learning: Mapping[str, Any],
    *,
    scales: Sequence[float] = (),
    classes: Sequence[int] = (),
    rules: Sequence[str] = (),
    images: int | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Measure every task before and after adaptation; then vary heads, classes, experts, and how gradients combine.

    Arguments:
        suite: what to merge, and all labelled test images.
        learning: hyper-parameters of the adaptation.
        scales: factors for all heads. The order of predictions stays, their entropy does not.
        classes: how many classes the task with the most of them is left with, its first ones.
        rules: how to combine the tasks' gradients instead of adding them up, see `combiner`.
        images: test images drawn a task, once classes are left out; None for all.
        seed, device: as in `measure`.

    Returns:
        Rows of a record.
    """
    common = {"learning": learning, "seed": seed, "device": device}
    few = suite.some_images(images)
    rows = [row for method in METHODS for row in measure(few, method, **common)]
    pairs = entropy_loss(few, [BEFORE], learning, seed=seed, device=device)
    rows += [row for row in pairs if row["condition"] == "spearman" and row["task"] != ALL]
    for task, data in suite.test.items():
        rows.append({"condition": "classes", "task": task, "seed": seed, "value": len(data.classes)})
    for scale in scales:
        found = measure(sharpened(few, scale), AFTER, condition=f"head x{scale:g}", **common)
        rows += [{**row, "scale": scale} for row in found]
    task = max(suite.tasks, key=lambda name: len(suite.test[name].classes))
    for count in classes:
        part = narrowed(suite, task, count).some_images(images)
        for method in METHODS:
            found = measure(part, method, condition=f"{count} classes", **common)
            rows += [{**row, "classes": count, "narrowed": task} for row in found]
    expert = {
        row["task"]: row["accuracy"] for row in rows if (row.get("method"), row["condition"]) == ("individual", "clean")
    }
    weakest = min(suite.tasks, key=expert.__getitem__)
    part = subset(few, [name for name in suite.tasks if name != weakest])
    for method in (BEFORE, AFTER):
        found = measure(part, method, condition=f"{weakest} left out", **common)
        rows += [{**row, "left_out": weakest} for row in found]
    for rule in rules:
        given = {**common, "learning": {**learning, "combine": rule}}
        found = measure(few, AFTER, condition=f"combined by {rule}", **given)
        rows += [{**row, "combine": rule} for row in found]
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
