"""How closely loss follows entropy, before and after adaptation."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..sample import Sample
from . import ALL, BINS

WHEN = ("before", "after")


def numbers(sample: Sample) -> dict[str, np.ndarray]:
    """``spearman_WHEN`` over all images, ``spearman_WHEN_least`` over tasks, ``rising_WHEN`` (percent of steps).

    WHEN is ``before`` or ``after`` adaptation. ``spearman_gain`` is after minus before. ``loss_high_over_low`` and
    ``loss_middle_over_low`` (nats): mean loss before adaptation in the last and the middle bin, minus the first.
    """
    found = {}
    methods = [*_adapted(sample), None, None]
    for when, method in zip(WHEN, methods, strict=False):
        about = {"method": method, "condition": None, "kind": "spearman"}
        tasks = [value[0] for value in sample.each("value", by="task", **about).values()]
        found[f"spearman_{when}"] = sample.value("value", task=ALL, **about)
        found[f"spearman_{when}_least"] = sample.point(pd.Series(tasks, dtype=float).min())
        found[f"rising_{when}"] = sample.point(_rising(_bins(sample, method)))
    found["spearman_gain"] = found["spearman_after"] - found["spearman_before"]
    losses = [_loss(sample, methods[0], number) for number in (0, BINS // 2, BINS - 1)]
    found["loss_middle_over_low"], found["loss_high_over_low"] = losses[1] - losses[0], losses[2] - losses[0]
    return found


def _adapted(sample: Sample) -> list[str]:
    """The methods before and after adaptation: those that the record begins with."""
    rows = sample.rows(kind="spearman", condition=None)
    return [method for method in rows["method"].unique() if method != "individual"] if len(rows) else []


def _bins(sample: Sample, method: str | None) -> pd.DataFrame:
    return sample.rows(kind="bin", condition=None, bin=..., method=method)


def _loss(sample: Sample, method: str | None, number: int) -> np.ndarray:
    return sample.value("loss", kind="bin", condition=None, bin=number, method=method, task=ALL)


def _rising(rows: pd.DataFrame) -> float:
    """Percent of the steps from one bin that holds images to the next in which the mean loss rises, of all seeds."""
    if not len(rows):
        return np.nan
    steps = rows.sort_values("bin").groupby(["task", "seed"])["loss"].diff().dropna()
    return float(100 * (steps > 0).mean()) if len(steps) else np.nan
