"""What was found on seen and unseen tasks, by name, for the paper's two splits and over all that were run."""

from __future__ import annotations

from functools import reduce

import numpy as np

from adamerging_lib.worlds.roles import ROLES

from ..sample import Sample

FLOOR = "zero_shot"
LEARNED = {"lw": "layer_wise_adamerging", "lwpp": "layer_wise_adamerging_pp"}
FIXED = {"ta": "task_arithmetic", "ties": "ties"}
"""The methods that the paper compares with."""
SPLITS = {"1": {"MNIST", "EuroSAT"}, "2": {"RESISC45", "SVHN"}}
"""Split of the paper's Tables 3 and 6 → its unseen tasks."""


def numbers(sample: Sample) -> dict[str, np.ndarray]:
    """``A_over_B_GROUP_SPLIT`` (points) and what holds over all splits.

    A is ``lw`` or ``lwpp``, B what it is built on (``ta``, ``ties``) or ``both`` for the better of the two; GROUP is
    ``seen`` or ``unseen``, SPLIT 1 or 2. ``merged_over_floor``: the least of all merged models over the pre-trained
    encoder, on the unseen tasks of any split. ``learned_over_newer``: what the better AdaMerging has over the best
    method outside the paper's comparison, on unseen tasks, mean over splits.
    """
    rows = sample.rows(unseen=...)
    splits = rows["unseen"].dropna().unique().tolist() if "unseen" in rows else []
    found = {}
    for number, tasks in SPLITS.items():
        split = next((split for split in splits if roles(split) == tasks), "")
        for group in ("seen", "unseen"):
            found |= {f"{name}_{group}_{number}": gap for name, gap in _gaps(sample, split, group).items()}
    at = [_unseen(sample, split) for split in splits]
    floors = [sample.average(FLOOR, unseen=split, group="unseen") for split in splits]
    least = [value - floor for models, floor in zip(at, floors, strict=True) for value in models.values()]
    found["merged_over_floor"] = reduce(np.minimum, least) if least else sample.point(np.nan)
    beyond = [_over_newer(sample, models) for models in at]
    found["learned_over_newer"] = sum(beyond) / len(beyond) if beyond else sample.point(np.nan)
    return found


def roles(split: str) -> set[str]:
    """The paper's names of the unseen tasks of a split: ``digits, landcover`` → MNIST, EuroSAT."""
    return {ROLES.get(task, task) for task in split.split(", ")}


def _gaps(sample: Sample, split: str, group: str) -> dict[str, np.ndarray]:
    at = {
        short: sample.average(method, unseen=split, group=group) for short, method in {**LEARNED, **FIXED}.items()
    }
    better = np.maximum(at["ta"], at["ties"])
    return {
        "lw_over_ta": at["lw"] - at["ta"],
        "lwpp_over_ties": at["lwpp"] - at["ties"],
        "lw_over_both": at["lw"] - better,
        "lwpp_over_both": at["lwpp"] - better,
    }


def _unseen(sample: Sample, split: str) -> dict[str, np.ndarray]:
    """Merged model → average on the unseen tasks of a split."""
    methods = sample.rows(unseen=split, group="unseen")["method"].unique()
    return {method: sample.average(method, unseen=split, group="unseen") for method in methods if method != FLOOR}


def _over_newer(sample: Sample, at: dict[str, np.ndarray]) -> np.ndarray:
    of_the_paper = {*LEARNED.values(), *FIXED.values(), "weight_averaging"}
    newer = [values for method, values in at.items() if method not in of_the_paper]
    if not newer or not set(LEARNED.values()) <= set(at):
        return sample.point(np.nan)
    return reduce(np.maximum, [at[method] for method in LEARNED.values()]) - reduce(np.maximum, newer)
