"""What the paper reads out of its Tables 3 and 6 on tasks that no expert was merged for, as verdicts."""

from __future__ import annotations

import math

import pandas as pd

from ..tables.common import label
from ..tables.generalisation import FLOOR, averages
from .common import Verdict

LEARNED = ("layer_wise_adamerging", "layer_wise_adamerging_pp")
PAPERS = ("task_arithmetic", "ties")  # what the paper compares with


def generalisation(rows: pd.DataFrame) -> list[Verdict]:
    """Section 4.2, "Substantially Improved Generalization", split by split; then two questions that it leaves open.

    Arguments:
        rows: of the generalisation record.
    """
    frame, found = averages(rows), []
    for condition in frame.columns.unique("condition"):
        own = frame[condition]
        for group in ("seen", "unseen"):
            others = own[group].reindex(PAPERS).max(skipna=False)
            for method in LEARNED:
                check = f"{condition}: {label(method)} is above Task Arithmetic and Ties-Merging on {group} tasks"
                found.append(Verdict(check, own[group].get(method, math.nan) - others, 0))
    unseen = frame.xs("unseen", level="group", axis=1)
    merged = unseen.drop(index=FLOOR, errors="ignore")
    floor = unseen.loc[FLOOR] if FLOOR in unseen.index else math.nan
    rest = merged.drop(index=[*LEARNED, *PAPERS, "weight_averaging"], errors="ignore")
    learned = merged.reindex(LEARNED).max(skipna=False)
    beyond = (learned - rest.max()).mean(skipna=False) if len(rest) else math.nan
    return [
        *found,
        Verdict("Every merged model is above the pre-trained encoder on unseen tasks", (merged - floor).min().min(), 0),
        Verdict("In the mean, the better AdaMerging is above the best newer method on unseen tasks", beyond, 0),
    ]
