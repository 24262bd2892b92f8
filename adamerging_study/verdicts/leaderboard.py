"""What the literature says of merging methods beyond AdaMerging, over rows of a leaderboard record."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..tables import label
from ..tables.leaderboard import ONE, PARTS, REFERENCE, standings
from .common import Verdict, lookup

_PAIRS = [
    # data-free, one model
    ("lines", "task_arithmetic"),
    ("consensus_ta", "task_arithmetic"),
    ("pcb", "ties"),
    ("iso_c", "ties"),
    ("iso_cts", "ties"),
    ("tsv_m", "ties"),
    ("wudi", "ties"),
    ("wudi_adam", "ties"),
    # training images
    ("fisher", "weight_averaging"),
    ("regmean", "fisher"),
    ("regmean_pp", "regmean"),
    ("prodistill", "regmean"),
    # test images
    ("adarank", "layer_wise_adamerging"),
    ("surgery", "task_arithmetic"),
    ("emr", "layer_wise_adamerging_pp"),
    ("tint_pp", "tint"),
    ("wemoe", "layer_wise_adamerging"),
]
"""Method → the one that it is published as better than (see the docstrings for who says so)."""


def leaderboard(rows: pd.DataFrame) -> list[Verdict]:
    """Statements of the literature about the order of methods, each with the difference that was measured.

    Arguments:
        rows: rows of a leaderboard record.
    """
    frame = standings(rows)
    at = lookup(frame["average"])
    merging = frame[frame["group"] != REFERENCE]

    def best(needs: list[str], kind: str, without: str | None = None) -> float:
        chosen = merging[merging["needs"].isin(needs) & (merging["kind"] == kind) & (merging.index != without)]
        return chosen["average"].max()

    images = ["unlabelled training images", "unlabelled test images"]
    free, seen = best(["nothing"], ONE), best(images, ONE)
    other = best(["nothing"], ONE, without="ties")
    parts = best(["nothing", *images], PARTS)
    return [
        Verdict("The best model from checkpoints alone is above Ties-Merging", other - at("ties"), 0),
        Verdict("The best model from unlabelled images is above the best from checkpoints alone", seen - free, 0),
        Verdict("Without labels, parts for each task come nearest to the experts", parts - np.maximum(free, seen), 0),
        *(Verdict(f"{label(high)} is above {label(low)}", at(high) - at(low), 0) for high, low in _PAIRS),
    ]
