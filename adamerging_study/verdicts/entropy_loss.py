"""What the paper reads out of Figures 3 and 11, as verdicts over the entropy_loss record."""

from __future__ import annotations

import pandas as pd

from ..tables.common import label
from ..tables.entropy_loss import bins, monotone_share, spearman
from .common import Verdict


def entropy_loss(rows: pd.DataFrame, before: str, after: str) -> list[Verdict]:
    """Section 3.2.2: images with lower entropy have lower loss, on every task.

    Arguments:
        rows: of the record.
        before, after: method ids of the merged model before and after adaptation.
    """
    found = []
    frame = spearman(rows)
    for method in (before, after):
        name = label(method)
        tasks = frame.loc[method].drop("all")
        pooled, rising = frame.loc[method, "all"], monotone_share(bins(rows, method))
        found += [
            Verdict(f"{name}: entropy and loss correlate over all images (ρ ≥ 0.5)", pooled, 0.5, digits=2),
            Verdict(f"{name}: the correlation is positive on every task", tasks.min(), 0, digits=2),
            Verdict(f"{name}: from bin to bin the mean loss rises in four of five steps", rising, 80),
        ]
    both = frame.loc[after, "all"] - frame.loc[before, "all"]
    found.append(Verdict("Adaptation does not weaken the correlation by more than 0.1", both, -0.1, digits=2))
    return found
