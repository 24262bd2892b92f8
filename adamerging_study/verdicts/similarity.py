"""What is said of task vectors' likeness, as verdicts over the similarity record."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..tables.similarity import MEASURES, cost, prediction, square, transfer
from .common import Verdict


def similarity(rows: pd.DataFrame) -> list[Verdict]:
    """Near orthogonality, sign conflicts, transfer, and what predicts the cost of merging two tasks."""
    gains, table = transfer(rows), prediction(rows)["ρ over pairs"]
    off = gains.where(~np.eye(len(gains), dtype=bool)).stack()
    angle, conflict = square(rows, "cosine").stack().abs().mean(), square(rows, "sign_conflict").stack().mean()
    alike, against = table[MEASURES["cosine"]], table[MEASURES["sign_conflict"]]
    return [
        Verdict("Task vectors are nearly at right angles: mean |cosine| ≤ 0.1", angle, 0, 0.1, digits=2),
        Verdict("Shared entries conflict in sign about as often as not (40 to 60 %)", conflict, 40, 60),
        Verdict("An expert is worse than the pre-trained encoder on most other tasks (%)", 100 * (off < 0).mean(), 50),
        Verdict("A second task vector costs the first task accuracy, on average", cost(rows).stack().mean(), 0),
        Verdict("Task vectors that are more alike cost each other less (ρ ≤ −0.3)", alike, high=-0.3, digits=2),
        Verdict("More sign conflicts cost more (ρ ≥ 0.3)", against, 0.3, digits=2),
    ]
