"""How similar task vectors are, what experts do to each other's tasks, and what predicts the cost of merging two."""

from __future__ import annotations

import numpy as np

from ..sample import Sample, positive, rank_correlation

PREDICTORS = ("cosine", "sign_conflict")
Pair = tuple[str, str]


def numbers(sample: Sample) -> dict[str, np.ndarray]:
    """Means over pairs of tasks; over ordered pairs, Spearman's ρ of a measure with the cost to the task.

    ``mean_cosine`` (of absolute values), ``mean_sign_conflict`` (percent); ``experts_that_hurt``: percent of ordered
    pairs in which the expert of one task is worse than θ0 on the other; ``pair_cost``: points that a task loses when a
    second task vector is added, on average; ``cost_by_cosine`` and ``cost_by_sign_conflict``: ρ.
    """
    hurt = [100 * positive(-gain) for gain in _gains(sample).values()]
    costs = _costs(sample)
    found = {"experts_that_hurt": _mean(hurt, sample), "pair_cost": _mean(list(costs.values()), sample)}
    for kind in PREDICTORS:
        rows = sample.rows(kind=kind, condition=None, other=...)
        found[f"mean_{kind}"] = sample.point(rows["value"].abs().mean() if len(rows) else np.nan)
        values = {(row.task, row.other): row.value for row in rows.itertuples()}
        found[f"cost_by_{kind}"] = _correlation(values, costs, sample)
    return found


def _gains(sample: Sample) -> dict[Pair, np.ndarray]:
    """(task, other) → points that the expert of other gains over θ0 on task."""
    return {
        (task, other): sample.accuracy(None, task, kind="transfer", other=other)
        - sample.accuracy(None, task, kind="zero_shot")
        for task, other in _pairs(sample, "transfer")
        if task != other
    }


def _costs(sample: Sample) -> dict[Pair, np.ndarray]:
    """(task, other) → points that task loses when T_other is added to its own task vector."""
    return {
        (task, other): sample.accuracy(None, task, kind="alone")
        - sample.accuracy(None, task, kind="pair", other=other)
        for task, other in _pairs(sample, "pair")
    }


def _pairs(sample: Sample, kind: str) -> list[Pair]:
    return [(row.task, row.other) for row in sample.rows(kind=kind, other=...).itertuples()]


def _mean(values: list[np.ndarray], sample: Sample) -> np.ndarray:
    return np.mean(values, axis=0) if values else sample.point(np.nan)


def _correlation(symmetric: dict[Pair, float], costs: dict[Pair, np.ndarray], sample: Sample) -> np.ndarray:
    """Spearman's ρ over ordered pairs of a measure of unordered ones and the costs."""
    measure = symmetric | {pair[::-1]: value for pair, value in symmetric.items()}
    pairs = [pair for pair in costs if pair in measure]
    if len(pairs) < 2:
        return sample.point(np.nan)
    values = np.array([costs[pair] for pair in pairs])
    return rank_correlation(np.broadcast_to([[measure[pair]] for pair in pairs], values.shape), values)
