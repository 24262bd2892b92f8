"""Made-up rows of a performance record: numbers of the paper's size, drawn for tests of tables and figures only."""

import numpy as np
import pandas as pd

from adamerging_lib.published import STAND_IN

LEVELS = {
    "zero_shot": 48.0,
    "individual": 95.0,
    "traditional_mtl": 93.0,
    "weight_averaging": 65.0,
    "task_arithmetic": 69.0,
    "ties": 72.0,
    "task_wise_adamerging": 71.0,
    "task_wise_adamerging_pp": 74.0,
    "layer_wise_adamerging": 80.0,
    "layer_wise_adamerging_pp": 81.0,
}
SCALINGS = [0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0]


def performance_rows(n=500, **levels) -> pd.DataFrame:
    """Rows of ten methods on the eight mini tasks, and a sweep of two methods that peaks at λ = 0.2."""
    spread = np.linspace(-4, 4, len(STAND_IN))
    rows = []
    for method, level in {**LEVELS, **levels}.items():
        rows += _one(method, "clean", level + spread, n)
    for method, peak in {"task_arithmetic": 70.0, "ties": 73.0}.items():
        for scaling in SCALINGS:
            level = peak - 40 * (scaling - 0.2) ** 2
            rows += [row | {"scaling": scaling} for row in _one(method, f"lambda={scaling:.2f}", level + spread, n)]
    return pd.DataFrame(rows)


def _one(method, condition, accuracies, n):
    first = {"method": method, "condition": condition, "group": "all"}
    last = {"entropy": 0.5, "loss": 0.6, "calibration": 5.0, "seed": 0, "setting": "transductive"}
    rows = [
        first | {"task": task, "accuracy": float(accuracy), "n": n} | last
        for task, accuracy in zip(STAND_IN, accuracies, strict=True)
    ]
    average = {"task": "Average", "accuracy": float(np.mean(accuracies)), "n": n * len(rows)}
    return [*rows, first | average | last]
