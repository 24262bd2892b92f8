"""What the paper reads out of Figures 4, 5 and 7 to 10, as verdicts over the coefficients record."""

from __future__ import annotations

import pandas as pd

from ..tables.coefficients import deep_minus_shallow, final, least_correlation
from ..tables.common import label
from .common import Verdict

TASK_WISE = ("task_wise_adamerging", "task_wise_adamerging_pp")
LAYER_WISE = ("layer_wise_adamerging", "layer_wise_adamerging_pp")


def coefficients(rows: pd.DataFrame) -> list[Verdict]:
    """Sections 4.3 and B.2: coefficients differ between tasks and between layers, and grow with depth."""
    found = []
    paths = rows[rows["condition"] == "path"]
    for method in TASK_WISE:
        own = paths[paths["method"] == method]
        last = own[own["step"] == own["step"].max()]["coefficient"]
        apart = last.max() - last.min()
        found.append(Verdict(f"{label(method)}: tasks get coefficients at least 0.1 apart", apart, 0.1, digits=2))
    for method in LAYER_WISE:
        own = final(rows, method)
        between = own.groupby("row")["coefficient"].mean().std()
        name = label(method)
        found.append(Verdict(f"{name}: tensors get different coefficients", between, 0.05, digits=2))
        steps = deep_minus_shallow(rows, method)
        found.append(Verdict(f"{name}: deep blocks get larger ones", steps["all tensors"], 0, digits=2))
        weights = [kind for kind in ("attention in", "attention out", "MLP in", "MLP out") if kind in steps]
        found.append(Verdict(f"{name}: so do their weight matrices", steps[weights].mean(), 0, digits=2))
    same = least_correlation(rows, LAYER_WISE[0])
    found.append(Verdict(f"{label(LAYER_WISE[0])}: another seed finds much the same", same, 0.7, digits=2))
    return found
