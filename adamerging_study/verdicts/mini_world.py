"""Verdicts on the experts of a world: the ground that merging stands on."""

from __future__ import annotations

import numpy as np
import pandas as pd

from adamerging_lib.vectors.geometry import cosines_of, gain_share, path_of

from .common import Verdict


def experts(rows: pd.DataFrame) -> list[Verdict]:
    """Whether experts are small and nearly linear moves away from θ0, as CLIP's are; the ground that merging stands on.

    Arguments:
        rows: rows of `diagnostics.measure_experts`, with α = 0, 0.5 and 1 among them.
    """
    path, angles = path_of(rows), cosines_of(rows)
    off = angles.where(~np.eye(len(angles), dtype=bool)).abs()
    halfway = gain_share(path, 0.5).fillna(0)  # an expert without gain has none of it
    steepest_fall = path.diff(axis=1).min().min()
    return [
        Verdict("Task vectors are nearly at right angles: no |cosine| above 0.2", off.max().max(), 0, 0.2, digits=2),
        Verdict("On average, half of an expert's gain is there at α = 0.5", halfway.mean(), 50),
        Verdict("Every expert has half of its gain at α = 0.5", halfway.min(), 50),
        Verdict("No way from θ0 to an expert falls by more than 1 point", steepest_fall, -1),
    ]
