"""What the experiment on reasons found, by name: rank correlations over tasks, and what interventions changed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import numpy as np

from ..sample import Sample, positive, rank_correlation, ratio
from . import AFTER, BEFORE, LEAST_LOSS


def numbers(sample: Sample) -> dict[str, np.ndarray]:
    """``rho_…``: Spearman's correlations over tasks; averages, gains and changes of gains in points.

    ``rho_telling``, ``rho_expert`` and ``rho_classes`` are of a trait with the recovered share, of the tasks that had
    something to win back; ``rho_entropy_fell`` is of the fall in entropy with the gain. Those of measured entropy have
    no interval.
    """
    before, after, plain = sample.average(BEFORE), sample.average(AFTER), {}
    for method in ("individual", BEFORE, AFTER):
        plain[method] = sample.each("accuracy", by="task", method=method)
    min_norm = sample.average(AFTER, rule="min_norm")
    return {
        "lw_over_ta": after - before,
        "min_norm_over_ta": min_norm - before,
        "min_norm_over_lw": min_norm - after,
        **_correlations(sample, plain),
        "scale_change": _scale_change(sample, after),
        "fewer_classes_won": _fewer_classes(sample),
        **_left_out(sample),
        "fewer_tasks_lose": _losing(plain[BEFORE], plain[AFTER], sample)
        - _losing(plain[BEFORE], sample.each("accuracy", by="task", method=AFTER, rule="min_norm"), sample),
    }


def share_won_back(before: np.ndarray, after: np.ndarray, expert: np.ndarray) -> np.ndarray:
    """100 (after − before) / (expert − before), percent; NaN where merging had cost less than ``LEAST_LOSS``."""
    lost = expert - before
    return 100 * ratio(after - before, lost) if lost[0] >= LEAST_LOSS else np.full(lost.shape, np.nan)


def _correlations(sample: Sample, plain: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    before, after, expert = (plain[method] for method in (BEFORE, AFTER, "individual"))
    tasks = [task for task in after if task in before and task in expert]
    share = {task: share_won_back(before[task], after[task], expert[task]) for task in tasks}
    share = {task: values for task, values in share.items() if not np.isnan(values[0])}
    telling, classes = (sample.each("value", by="task", kind=k, condition=None) for k in ("spearman", "classes"))
    counted = {task: np.full_like(values, values[0]) for task, values in classes.items()}  # a count is exact
    calm, unsure = (sample.each("entropy", by="task", method=method) for method in (AFTER, BEFORE))
    gain = {task: after[task] - before[task] for task in tasks}
    fell = {task: unsure[task] - calm[task] for task in tasks}
    return {
        "rho_telling": _rho(telling, share, sample),
        "rho_expert": _rho(expert, share, sample),
        "rho_classes": _rho(counted, share, sample),
        "rho_entropy_fell": _rho(fell, gain, sample),
    }


def _rho(x: Mapping[str, np.ndarray], y: Mapping[str, np.ndarray], sample: Sample) -> np.ndarray:
    """Rank correlation over the tasks of y; missing where there are fewer than three."""
    if len(y) < 3 or not y.keys() <= x.keys():
        return sample.point(np.nan)
    return rank_correlation(np.stack([x[task] for task in y]), np.stack([y[task] for task in y]))


def _scale_change(sample: Sample, plain: np.ndarray) -> np.ndarray:
    """How far sharper or softer heads move the average at most."""
    moved = [np.abs(values - plain) for values in sample.each("accuracy", by="scale", method=AFTER).values()]
    return reduce(np.maximum, moved) if moved else sample.point(np.nan)


def _fewer_classes(sample: Sample) -> np.ndarray:
    """What the task with the most classes wins back more, percent of its loss, once it is left with the fewest."""
    left = sample.rows(method=AFTER, classes=..., narrowed=...).reindex(columns=["narrowed", "classes"]).dropna()
    if left.empty:
        return sample.point(np.nan)
    task, few = left["narrowed"].iloc[0], int(left["classes"].min())
    sides = [
        share_won_back(*(sample.accuracy(method, task, **which) for method in (BEFORE, AFTER, "individual")))
        for which in ({"classes": few, "narrowed": task}, {})
    ]
    return sides[0] - sides[1]


def _left_out(sample: Sample) -> dict[str, np.ndarray]:
    """What adaptation gains on all tasks but the weakest expert's without it, and how much more than with it."""
    rows = sample.rows(method=AFTER, left_out=...).reindex(columns=["left_out", "task"]).dropna()
    tasks = rows["task"][rows["task"] != "Average"].tolist()
    if not tasks:
        return dict.fromkeys(("gain_left_out", "gain_left_out_more"), sample.point(np.nan))
    weakest = rows["left_out"].iloc[0]
    gain, alone = (
        sample.average(AFTER, task=tasks, left_out=out) - sample.average(BEFORE, task=tasks, left_out=out)
        for out in (None, weakest)
    )
    return {"gain_left_out": alone, "gain_left_out_more": alone - gain}


def _losing(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], sample: Sample) -> np.ndarray:
    """How many tasks lose accuracy."""
    return sum(positive(before[task] - after[task]) for task in after) if after else sample.point(np.nan)
