"""Verdicts over rows of records: a measured difference, the range that it must lie in, and one of three words.

Lines hold no measured number, so that a notebook's stored verdicts compare equal on every machine until one flips.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .diagnostics import cosines_of, gain_share, path_of
from .tables import AVERAGE, BOUNDS, accuracies, averages, best_scaling, label

HOLDS, FAILS, NOT_RUN = "holds", "does not hold", "not run"


@dataclass(frozen=True)
class Verdict:
    """One check: ``low <= value <= high``; NaN for a value that the record lacks.

    Arguments:
        check: the statement, in words.
        value: points of accuracy, or percent.
        low, high: the range in which the statement holds, ends included.
        digits: shown after the point.
    """

    check: str
    value: float
    low: float = -math.inf
    high: float = math.inf
    digits: int = 1

    @property
    def word(self) -> str:
        """``holds``, ``does not hold`` or ``not run``."""
        if math.isnan(self.value):
            return NOT_RUN
        return HOLDS if self.low <= self.value <= self.high else FAILS

    def __str__(self) -> str:
        return f"{self.check}: {self.word}"


def mini_gate(rows: pd.DataFrame) -> list[Verdict]:
    """Whether the mini world is a world like CLIP's: the conditions under which the paper's comparison has a meaning.

    Arguments:
        rows: rows of a performance record of the profile ``mini``.
    """
    at = _lookup(averages(rows))
    frame = accuracies(rows)
    worst = frame.loc["individual"].drop(AVERAGE).min() if "individual" in frame.index else math.nan
    peak = best_scaling(rows, "task_arithmetic")
    best = peak[1] if peak else math.nan
    expert, arithmetic = at("individual"), at("task_arithmetic")
    return [
        Verdict("Zero-shot lies between 35 and 75", at("zero_shot"), 35, 75),
        Verdict("Experts reach 92 on average", expert, 92),
        Verdict("No expert is below 85", worst, 85),
        Verdict("Traditional MTL is within 4 points of the experts", abs(expert - at("traditional_mtl")), 0, 4),
        Verdict("Task Arithmetic (λ = 0.3) is at least 12 points below the experts", expert - arithmetic, 12),
        Verdict("Ties-Merging ≥ Task Arithmetic − 1", at("ties") - arithmetic, -1),
        Verdict("Layer-wise AdaMerging ≥ Task Arithmetic at its best λ + 5", at("layer_wise_adamerging") - best, 5),
    ]


def paper_order(rows: pd.DataFrame) -> list[Verdict]:
    """The order of methods that the paper reads out of its Tables 1, 2 and 5 (Section 4.2 and Appendix B.1)."""
    ours = averages(rows)
    at = _lookup(ours)
    merged = ours.drop(index=list(BOUNDS), errors="ignore")
    others = merged.drop(index="weight_averaging", errors="ignore")
    bound = ours.reindex(["individual", "traditional_mtl"]).min(skipna=False)
    pairs = [
        ("ties", "task_arithmetic"),
        ("task_wise_adamerging", "task_arithmetic"),
        ("task_wise_adamerging_pp", "ties"),
        ("layer_wise_adamerging", "task_wise_adamerging"),
        ("layer_wise_adamerging_pp", "task_wise_adamerging_pp"),
        ("layer_wise_adamerging_pp", "layer_wise_adamerging"),
    ]
    return [
        Verdict("Individual and Traditional MTL are above every merged model", bound - merged.max(), 0),
        Verdict("Weight Averaging is the lowest merged model", others.min() - at("weight_averaging"), 0),
        *(Verdict(f"{label(high)} is above {label(low)}", at(high) - at(low), 0) for high, low in pairs),
    ]


def performance(rows: pd.DataFrame, profile: str) -> list[Verdict]:
    """All verdicts of the performance experiment; the gate of the mini world only on the profile ``mini``."""
    return [*(mini_gate(rows) if profile == "mini" else []), *paper_order(rows)]


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


def to_frame(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Verdicts as a table: check, measured, required, verdict."""
    return pd.DataFrame(
        [(v.check, "–" if math.isnan(v.value) else f"{v.value:.{v.digits}f}", _range(v), v.word) for v in verdicts],
        columns=["check", "measured", "required", "verdict"],
    )


def _range(verdict: Verdict) -> str:
    if math.isinf(verdict.high):
        return f"≥ {verdict.low:g}"
    if math.isinf(verdict.low):
        return f"≤ {verdict.high:g}"
    return f"{verdict.low:g} to {verdict.high:g}"


def _lookup(values: pd.Series):
    return lambda method: float(values.get(method, math.nan))
