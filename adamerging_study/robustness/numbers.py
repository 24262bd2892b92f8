"""What was found on corrupted images, by name: gains over Task Arithmetic, two settings, the failure and its cures."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pandas as pd

from adamerging_lib.worlds.roles import same_role

from ..sample import AVERAGE, Sample

LEARNED, FIXED = "layer_wise_adamerging", "task_arithmetic"
CORRUPTIONS = (
    "motion_blur", "impulse_noise", "gaussian_noise", "pixelate", "spatter", "contrast", "jpeg_compression",
)  # fmt: skip
"""The paper's seven."""
FAILING = "impulse_noise"
"""The corruption under which claims speak of the failure."""
PLAIN = "Entropy alone"
CURES = {"reliable": "Reliable images only", "diverse": "Diverse predictions", "pull": "Pull to the start"}
"""How names of numbers call an objective → its label in the notebook's parameters."""


def numbers(sample: Sample) -> dict[str, np.ndarray]:
    """Points of layer-wise AdaMerging over Task Arithmetic, learned on the images that it is measured on, and more.

    ``gain_CORRUPTION``, ``gain_clean``: on average over tasks; ``gain_average``: over the paper's seven corruptions;
    ``eurosat_gain_CORRUPTION`` and ``resisc45_gain_CORRUPTION``: on the task of that role. ``clean_over_ta``: learned
    on clean images, mean over the corruptions that were run; ``corrupted_over_clean``: what learning on the corrupted
    ones adds to that, mean over the same.

    Of the fit under ``FAILING`` looked at step by step: ``worst_task_change``: points from start to end on the task
    that loses most by entropy alone; ``entropy_change`` (nats) and ``share_change`` (points of the images taken for
    one class) on that task. Of every cure: ``CURE_over_plain_there`` and ``CURE_over_plain``: points over entropy
    alone on that task and on average; ``gain_CURE``: points over Task Arithmetic, on average.
    """
    level = severity(sample.rows(condition=..., severity=..., adapted_on=...))
    ran = sample.rows(condition=..., severity=level, adapted_on=...)["condition"].unique().tolist() if level else []

    def gain(condition: str, learned_on: str = "corrupted", task: str = AVERAGE) -> np.ndarray:
        where = {"task": task, "condition": condition, "severity": 0 if condition == "clean" else level}
        fixed = sample.accuracy(FIXED, adapted_on="nothing", **where)
        return sample.accuracy(LEARNED, adapted_on=learned_on, **where) - fixed

    at = {name: gain(name) for name in CORRUPTIONS}
    found = {"gain_clean": gain("clean", "clean"), **{f"gain_{name}": values for name, values in at.items()}}
    found["gain_average"] = _mean(list(at.values()), sample)
    kept = [gain(name, "clean") for name in ran]
    found["clean_over_ta"] = _mean(kept, sample)
    found["corrupted_over_clean"] = _mean([gain(name) for name in ran], sample) - found["clean_over_ta"]
    for role in ("EuroSAT", "RESISC45"):
        (task,) = same_role([role], sample.frame["task"].unique())
        found |= {f"{role.lower()}_gain_{name}": gain(name, task=task) for name in CORRUPTIONS}
    return found | _failure(sample)


def severity(rows: pd.DataFrame) -> int:
    """The severity of the comparison: the one at which most was measured, the highest of them.

    Arguments:
        rows: of the record, without those of the steps.
    """
    levels = rows.loc[rows["severity"] > 0, "severity"].value_counts()
    return int(levels.index[levels == levels.max()].max()) if len(levels) else 0


def _failure(sample: Sample) -> dict[str, np.ndarray]:
    where = {"method": LEARNED, "condition": FAILING, "adapted_on": "corrupted"}
    looked_at = sample.rows(**where, severity=..., objective=[PLAIN, *CURES.values()], step=...)
    level, last = (looked_at[field].max() if len(looked_at) else np.nan for field in ("severity", "step"))
    where["severity"] = level
    end = {"plain": {**where, "objective": PLAIN, "step": last}}
    end |= {cure: {**where, "objective": label, "step": last} for cure, label in CURES.items()}
    start = {**end["plain"], "step": 0}
    change = {
        task: sample.accuracy(task=task, **end["plain"]) - sample.accuracy(task=task, **start)
        for task in looked_at["task"].unique()
        if task != AVERAGE
    }
    worst = min(change, key=lambda task: change[task][0]) if change else ""
    found = {"worst_task_change": reduce(np.minimum, change.values()) if change else sample.point(np.nan)}
    for field in ("entropy", "share"):
        after, before = (sample.value(field, task=worst, **look) for look in (end["plain"], start))
        found[f"{field}_change"] = after - before
    fixed = sample.average(FIXED, condition=FAILING, severity=level, adapted_on="nothing")
    for cure in CURES:
        cured, plain = (sample.average(**end[name]) for name in (cure, "plain"))
        there = [sample.accuracy(task=worst, **end[name]) for name in (cure, "plain")]
        found |= {
            f"{cure}_over_plain_there": there[0] - there[1],
            f"{cure}_over_plain": cured - plain,
            f"gain_{cure}": cured - fixed,
        }
    return found


def _mean(values: list[np.ndarray], sample: Sample) -> np.ndarray:
    return sum(values) / len(values) if values else sample.point(np.nan)
