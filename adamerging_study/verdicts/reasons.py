"""What is said of when lowering entropy helps, as verdicts over the record on reasons."""

from __future__ import annotations

import math

import pandas as pd
from scipy.stats import spearmanr

from ..tables.reasons import ADDED, FELL, WON, correlations, left_out, narrowed, scales, traded
from .common import Verdict


def reasons(rows: pd.DataFrame) -> list[Verdict]:
    """Traits of tasks that go with success, and what interventions on heads, classes, experts and gradients did."""
    rho, by_scale, left = correlations(rows), scales(rows), narrowed(rows)[1]
    change = (by_scale - by_scale[1.0]).abs().max() if len(by_scale) > 1 else math.nan
    fewer = left[WON].iloc[0] - left[WON].iloc[-1] if len(left) > 1 else math.nan
    gains = left_out(rows)[1]["gain"]
    each = traded(rows)
    losing = (each.drop(columns=FELL) < 0).sum()
    fewer_lose = losing[ADDED] - losing["min_norm"] if "min_norm" in losing else math.nan
    return [
        Verdict("Adaptation wins more back where low entropy means low loss (ρ ≥ 0.3)", rho["spearman"], 0.3, digits=2),
        Verdict("It wins more back where the expert is better (ρ ≥ 0.3)", rho["individual"], 0.3, digits=2),
        Verdict("It wins less back the more classes a task has (ρ ≤ −0.3)", rho["classes"], high=-0.3, digits=2),
        Verdict("Sharper or softer heads move the average by at most 2 points", change, 0, 2),
        Verdict("With the fewest classes, more of the widest task's loss is won back (points)", fewer, 0.01),
        Verdict("Without the weakest expert, the other tasks gain more (points)", gains.iloc[1] - gains.iloc[0], 0.01),
        Verdict("The more a task's entropy falls, the more it gains (ρ ≥ 0.3)", _rho(each), 0.3, digits=2),
        Verdict("Where every task's entropy must fall (min-norm), fewer tasks lose accuracy", fewer_lose, 1, digits=0),
    ]


def _rho(each: pd.DataFrame) -> float:
    varies = len(each) > 2 and min(each[FELL].nunique(), each[ADDED].nunique()) > 1
    return float(spearmanr(each[FELL], each[ADDED]).statistic) if varies else math.nan
