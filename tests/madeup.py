"""Made-up rows of a performance record: numbers of the paper's size, drawn for tests of tables and figures only."""

import numpy as np
import pandas as pd

from adamerging_lib.methods import methods, registry
from adamerging_lib.worlds.roles import STAND_IN

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
# Of methods beyond the main comparison: average, seconds, numbers kept per task.
OTHERS = {
    "dare": (66.0, 0.1, 0),
    "lines": (70.0, 0.1, 0),
    "consensus_ta": (73.6, 0.2, 0),
    "pcb": (76.3, 0.3, 0),
    "doge_ta": (80.5, 4.0, 0),
    "iso_c": (83.0, 0.4, 0),
    "iso_cts": (84.9, 2.0, 0),
    "tsv_m": (84.2, 0.5, 0),
    "wudi": (84.0, 0.6, 0),
    "wudi_adam": (85.2, 3.0, 0),
    "swudi": (85.4, 0.5, 0),
    "swudi_a": (85.0, 0.5, 0),
    "actmat": (83.8, 0.5, 0),
    "ace": (85.0, 0.5, 0),
    "svc": (81.9, 0.6, 0),
    "tall_masks": (92.0, 0.2, 40_000),
    "emr": (88.7, 0.2, 40_001),
    "fisher": (68.3, 20.0, 0),
    "regmean": (71.8, 5.0, 0),
    "regmean_pp": (72.5, 9.0, 0),
    "zipit": (65.2, 3.0, 0),
    "prodistill": (86.0, 30.0, 0),
    "component_adamerging": (87.85, 20.0, 0),
    "samerging": (86.5, 30.0, 0),
    "doge_am": (81.9, 18.0, 0),
    "adarank": (87.9, 25.0, 0),
    "surgery": (80.9, 8.0, 4_000),
    "tint": (89.0, 15.0, 1_200),
    "tint_pp": (90.1, 16.0, 1_200),
    "wemoe": (89.4, 30.0, 900_000),
    "supermerge": (82.0, 15.0, 0),
    "joint_training": (87.0, 20.0, 0),
    "pcgrad": (87.5, 40.0, 0),
    "wpcgrad": (87.4, 40.0, 0),
    "cagrad": (87.6, 41.0, 0),
    "nash_mtl": (87.8, 42.0, 0),
    "taps": (89.9, 50.0, 600_000),
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
            rows += [row | {"scaling": scaling} for row in _one(method, "clean", level + spread, n)]
    return pd.DataFrame(rows)


def leaderboard_rows(methods, n=500, **levels) -> pd.DataFrame:
    """Rows of a leaderboard of some of the methods of ``LEVELS`` and ``OTHERS``, with what each of them costs."""
    spread = np.linspace(-4, 4, len(STAND_IN))
    rows = []
    for number, method in enumerate(methods):
        level, seconds, storage = OTHERS.get(method, (LEVELS.get(method), 0.1 + number, 1e6 * (method == "individual")))
        own = _one(method, "clean", levels.get(method, level) + spread, n)
        own[-1] |= {"seconds": seconds, "memory": 40_000_000 + number, "storage": storage}
        rows += own
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


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with ``label``, ``needs`` and ``gives`` of its methods, as `records.frame` gives it."""
    known = methods()
    gives = {id: registry.find(id).gives for id in known.index}
    return frame.assign(
        label=frame["method"].map(known["label"]),
        needs=frame["method"].map(known["needs"]),
        gives=frame["method"].map(gives),
    )
