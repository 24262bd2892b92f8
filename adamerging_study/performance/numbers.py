"""What the main comparison found, by name: averages of methods, and the differences that the paper speaks of."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pandas as pd

from ..frames import BOUNDS, averages, labels
from ..sample import Sample, positive

FIXED = ("task_arithmetic", "ties")
LEARNED = (
    "task_wise_adamerging", "task_wise_adamerging_pp", "layer_wise_adamerging", "layer_wise_adamerging_pp",
)  # fmt: skip
SHORT = {
    "zero_shot": "zero_shot", "individual": "individual", "traditional_mtl": "mtl", "weight_averaging": "wa",
    "task_arithmetic": "ta", "ties": "ties", "task_wise_adamerging": "tw", "task_wise_adamerging_pp": "twpp",
    "layer_wise_adamerging": "lw", "layer_wise_adamerging_pp": "lwpp",
}  # fmt: skip
"""Method → how the names of numbers call it."""
PAIRS = (
    ("lw", "ta"), ("lw", "ties"), ("lw", "tw"), ("lwpp", "ties"), ("lwpp", "twpp"), ("lwpp", "lw"), ("tw", "ta"),
    ("tw", "lw"),
    ("twpp", "ties"), ("ties", "ta"), ("mtl", "individual"), ("mtl", "ties"), ("individual", "ta"),
)  # fmt: skip


def numbers(sample: Sample) -> dict[str, np.ndarray]:
    """``METHOD_average`` (percent); ``A_over_B`` (points); gains over the best λ of a sweep; how far apart λ takes it.

    ``best_scaling_ta`` is where the sweep over λ has its top, without an interval. ``lw_gain_on_TASK``,
    ``individual_on_TASK`` (points, percent) and ``METHOD_entropy_on_TASK``, ``METHOD_loss_on_TASK`` (nats) tell of one
    task.
    """
    at = {short: sample.average(method) for method, short in SHORT.items()}
    found = {f"{short}_average": values for short, values in at.items()}
    found |= {f"{high}_over_{low}": at[high] - at[low] for high, low in PAIRS}
    merged = [at[SHORT[method]] for method in (*FIXED, *LEARNED)]
    found["wa_below_all"] = reduce(np.minimum, merged) - at["wa"]
    bound = np.minimum(at["individual"], at["mtl"])
    found["bounds_over_merged"] = bound - reduce(np.maximum, [*merged, at["wa"]])
    found["best_average"] = reduce(np.fmax, [*merged, at["wa"]])
    found["worst_expert"] = _least(list(sample.each("accuracy", by="task", method="individual").values()), sample)
    found["mtl_distance"] = np.abs(found["mtl_over_individual"])
    for method, learned in zip(FIXED, ("lw", "lwpp"), strict=True):
        found |= _swept(sample, at, method, learned)
    gains = _gains(sample)
    if gains:
        found["lw_tasks_that_gain"] = sum(positive(gain) for gain in gains.values())
    return found | {f"lw_gain_on_{task}": gain for task, gain in gains.items()} | _by_task(sample)


def words(rows: pd.DataFrame) -> dict[str, str]:
    """``best_method``: the merging method with the best average, by name."""
    merged = averages(rows).drop(index=list(BOUNDS), errors="ignore")
    return {"best_method": labels(rows)[merged.idxmax()]} if len(merged) else {}


def _swept(sample: Sample, at: dict[str, np.ndarray], method: str, learned: str) -> dict[str, np.ndarray]:
    """What a sweep over λ says of a fixed method, and of the learned one beside it."""
    short = SHORT[method]
    curve = sample.each("accuracy", by="scaling", method=method)
    points = list(curve.values())
    best, worst = _most(points, sample), _least(points, sample)
    top = max(curve, key=lambda scaling: curve[scaling][0]) if curve else np.nan
    return {
        f"best_scaling_{short}": sample.point(top),
        f"{short}_best": best,
        f"{short}_worst": worst,
        f"{short}_range": best - worst,
        f"{short}_below_best": best - at[short],
        f"{short}_at_one": curve.get(1.0, sample.point(np.nan)),
        f"{learned}_over_best_{short}": at[learned] - best,
    }


def _by_task(sample: Sample) -> dict[str, np.ndarray]:
    """The experts' accuracies, and entropy and loss before and after adaptation, task by task."""
    experts = sample.each("accuracy", by="task", method="individual")
    found = {f"individual_on_{task}": accuracy for task, accuracy in experts.items()}
    for method in ("task_arithmetic", "layer_wise_adamerging"):
        for field in ("entropy", "loss"):
            each = sample.each(field, by="task", method=method)
            found |= {f"{SHORT[method]}_{field}_on_{task}": values for task, values in each.items()}
    return found


def _gains(sample: Sample) -> dict[str, np.ndarray]:
    """Task → what layer-wise AdaMerging gains over Task Arithmetic there, points."""
    before = sample.each("accuracy", by="task", method="task_arithmetic")
    after = sample.each("accuracy", by="task", method="layer_wise_adamerging")
    return {task: after[task] - before[task] for task in after if task in before}


def _most(points: list[np.ndarray], sample: Sample) -> np.ndarray:
    return reduce(np.maximum, points) if points else sample.point(np.nan)


def _least(points: list[np.ndarray], sample: Sample) -> np.ndarray:
    return reduce(np.minimum, points) if points else sample.point(np.nan)
