"""What layer-wise AdaMerging needs: one setting varied at a time around a short base run.

Rows of a record: ``factor``, ``level`` (text), ``method``, ``task``, ``accuracy``; on ``Average`` also ``seconds``. The
factor ``steps`` reads the models along one long run; ``tasks`` adds the tasks one by one, in the suite's order.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from adamerging_lib import records
from adamerging_lib.evaluation import evaluate
from adamerging_lib.merged import Merged
from adamerging_lib.methods import adamerge
from adamerging_lib.methods.adamerging import METHOD_IDS
from adamerging_lib.suite import Suite

from . import at_step, measure

METHOD = "layer_wise_adamerging"
# Factor → the argument of `adamerge` that it sets; seed, steps and tasks are handled on their own.
ARGUMENTS = {
    "lr": "lr", "batch size": "batch_size", "images": "images", "granularity": "granularity", "range of λ": "clamp",
    "start": "init", "diversity": "objective", "seed": "seed",
}  # fmt: skip

DEFAULTS = inspect.signature(adamerge).parameters


def budget(
    suite: Suite,
    levels: Mapping[str, Sequence[Any]],
    base: Mapping[str, Any],
    *,
    steps_shown: Sequence[int] = (),
    task_counts: Sequence[int] = (),
    seed: int = 0,
    setting: str = "transductive",
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Vary one factor at a time.

    Arguments:
        suite: what to merge, and the test images.
        levels: factor (a key of ``ARGUMENTS``) → its levels; None stands for all images, ``diversity`` is the weight
            of a reward for predictions that differ from image to image, see `adamerge`.
        base: hyper-parameters of the base run: steps, lr, batch_size, batches.
        steps_shown: where to look along one run of as many steps as the largest of them.
        task_counts: how many tasks, the first of the suite, are merged; Task Arithmetic and the experts beside.
        seed, setting, device: as in `measure`.

    Returns:
        Rows of a record.

    Raises:
        ValueError: for an unknown factor.
    """
    if unknown := [factor for factor in levels if factor not in ARGUMENTS]:
        raise ValueError(f"factor {unknown[0]!r} is unknown; choose from {', '.join(ARGUMENTS)}")
    common = {"seed": seed, "setting": setting, "device": device}
    rows = [{**row, "factor": "base", "level": "base"} for row in measure(suite, METHOD, learning=base, **common)]
    for factor, values in levels.items():
        for value in values:
            told = {"factor": factor, "level": _text(factor, value)}
            given = {"diversity": value} if factor == "diversity" else value
            hyper = {**base, **common, ARGUMENTS[factor]: given}
            method = METHOD_IDS.get((value, "plain")) if factor == "granularity" else METHOD
            if method is None:  # a granularity that is no method of its own
                fit = adamerge(suite, **hyper, progress=False)
                rows += [{**row, **told} for row in _rows(suite, fit, seed, device)]
                continue
            name = ARGUMENTS[factor]
            if factor == "granularity" or (name not in common and value == DEFAULTS[name].default):
                del hyper[name]  # so that the fit is the base run's, from the cache
            options = {key: hyper.pop(key) for key in common}
            rows += [{**row, **told} for row in measure(suite, method, learning=hyper, **options)]
    if steps_shown:
        fit = adamerge(suite, **{**base, "steps": max(steps_shown)}, progress=False, **common)
        for step in steps_shown:
            told = {"factor": "steps", "level": str(step)}
            rows += [{**row, **told} for row in _rows(suite, at_step(suite, fit, step), seed, device)]
    for count in task_counts:
        part = subset(suite, suite.tasks[:count])
        for method in ("task_arithmetic", METHOD, "individual"):
            found = measure(part, method, learning=base, **common)
            rows += [{**row, "factor": "tasks", "level": str(count)} for row in found]
    return rows


def subset(suite: Suite, tasks: Sequence[str]) -> Suite:
    """The suite with some of its tasks, in the order given."""
    parts = {name: {task: getattr(suite, name)[task] for task in tasks} for name in ("experts", "heads", "test")}
    return dataclasses.replace(suite, **parts, joint=None)


def _rows(suite: Suite, merged: Merged, seed: int, device: str) -> list[dict[str, Any]]:
    frame = evaluate(suite, merged, device=device)
    return records.rows_of(frame, method=merged.method, condition="clean", group="all", seed=seed)


def _text(factor: str, value: Any) -> str:
    """A level as it stands in tables."""
    if factor == "range of λ":
        return {True: "clamp", False: "free"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    return "all" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
