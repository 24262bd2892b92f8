"""What was found on text, by name: averages, differences of two methods, and leads over the best of several."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pandas as pd

from adamerging_lib.published.competitions import BOUNDS, ONE

from ..frames import AVERAGE, averages, labels
from ..sample import Sample, positive
from . import EXISTING

PAIRS = (
    ("individual", "task_arithmetic"), ("individual", "traditional_mtl"), ("ties", "task_arithmetic"),
    ("layer_wise_adamerging", "task_arithmetic"), ("layer_wise_adamerging", "ties"),
    ("layer_wise_adamerging", "task_wise_adamerging"), ("layer_wise_adamerging_pp", "ties"),
    ("regmean", "weight_averaging"), ("regmean", "fisher"), ("tsv_m", "layer_wise_adamerging"),
    ("wudi", "layer_wise_adamerging"), ("tint", "layer_wise_adamerging"), ("tint_pp", "layer_wise_adamerging"),
    ("tint_pp", "tint"), ("tint_pp", "individual"),
)  # fmt: skip


def numbers(sample: Sample) -> dict[str, np.ndarray]:
    """``METHOD_average`` (percent), ``A_over_B`` (points), and leads over the best of several methods (points).

    ``free_over_lw``: the best single model from checkpoints alone, over layer-wise AdaMerging. ``tint_pp_over_others``:
    over the best other method without labels, whatever it gives. ``supermerge_over_existing``: over the best that
    existed. ``lw_tasks_that_gain`` counts, ``lw_gain_on_TASK`` is in points; both over Task Arithmetic.
    """
    about = _about(sample.frame)
    named = {*about.index, *(method for pair in PAIRS for method in pair), *EXISTING, "supermerge"}
    at = {method: sample.average(method) for method in sorted(named)}
    found = {f"{method}_average": values for method, values in at.items()}
    found |= {f"{high}_over_{low}": at[high] - at[low] for high, low in PAIRS}

    def best(chosen: pd.Index) -> np.ndarray:
        return reduce(np.maximum, [at[method] for method in chosen]) if len(chosen) else sample.point(np.nan)

    merging = about.drop(index=list(BOUNDS), errors="ignore")
    free = merging.index[(merging["needs"] == "nothing") & (merging["gives"] == ONE)]
    found["free_over_lw"] = best(free) - at["layer_wise_adamerging"]
    others = merging.index[merging["needs"] != "labels"].difference(["tint", "tint_pp"])
    found["tint_pp_over_others"] = at["tint_pp"] - best(others)
    found["supermerge_over_existing"] = at["supermerge"] - best(about.index.intersection(EXISTING))
    gains = _gains(sample)
    found["lw_tasks_that_gain"] = sum(map(positive, gains.values())) if gains else sample.point(np.nan)
    return found | {f"lw_gain_on_{task}": gain for task, gain in gains.items()}


def words(rows: pd.DataFrame) -> dict[str, str]:
    """``best_free``: by name, the best single model from checkpoints alone."""
    about, average = _about(rows), averages(rows)
    free = about.drop(index=list(BOUNDS), errors="ignore").query("needs == 'nothing' and gives == @ONE").index
    return {"best_free": labels(rows)[average[free].idxmax()]} if len(free) else {}


def _about(rows: pd.DataFrame) -> pd.DataFrame:
    """``needs`` and ``gives`` of the methods in the rows, by id."""
    return rows[rows["task"] == AVERAGE].drop_duplicates("method").set_index("method")[["needs", "gives"]]


def _gains(sample: Sample) -> dict[str, np.ndarray]:
    before = sample.each("accuracy", by="task", method="task_arithmetic")
    after = sample.each("accuracy", by="task", method="layer_wise_adamerging")
    return {task: after[task] - before[task] for task in after if task in before}
