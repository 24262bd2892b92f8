"""What the budget experiment says of claims about steps, granularity and the number of tasks."""

from __future__ import annotations

import pandas as pd

from ..tables.budget import base, by_task_count, levels, spread_over_seeds
from .common import Verdict


def budget(rows: pd.DataFrame) -> list[Verdict]:
    """Verdicts over the budget record; a factor that it lacks is *not run*."""
    nan = float("nan")
    steps, grain, images = levels(rows, "steps"), levels(rows, "granularity"), levels(rows, "images")
    diverse = levels(rows, "diversity").get("1", nan)
    counts = by_task_count(rows)
    found = [
        Verdict("Accuracy still rises over the second half of the longest run", _step(steps), 0),
        Verdict("One coefficient a tensor beats one a task", grain.get("tensor", nan) - grain.get("task", nan), 0),
        Verdict("Coefficients for whole blocks lie between the two", _between(grain), 0),
        Verdict(
            "32 images a task come within 3 points of all of them", images.get("32", nan) - images.get("all", nan), -3
        ),
        Verdict("A reward for diverse predictions helps on clean images, too (weight 1)", diverse - base(rows), 0),
        Verdict("The spread over seeds is below 1 point (standard deviation)", spread_over_seeds(rows)[1], 0, 1, 2),
    ]
    if len(counts):
        adaptive, fixed = counts.loc["layer_wise_adamerging"], counts.loc["task_arithmetic"]
        loss = counts.loc["individual"] - fixed
        found += [
            Verdict("AdaMerging is above Task Arithmetic for every number of tasks", (adaptive - fixed).min(), 0),
            Verdict("Task Arithmetic loses more against the experts, the more tasks", loss.iloc[-1] - loss.iloc[0], 0),
        ]
    return found


def _step(steps: pd.Series) -> float:
    return float(steps.iloc[-1] - steps.iloc[len(steps) // 2]) if len(steps) > 1 else float("nan")


def _between(grain: pd.Series) -> float:
    if not {"task", "block", "tensor"} <= set(grain.index):
        return float("nan")
    return float(min(grain["block"] - grain["task"], grain["tensor"] - grain["block"]))
