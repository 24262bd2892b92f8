"""Verdicts of the performance experiment: the gate of the mini world, and the paper's order of methods."""

from __future__ import annotations

import math

import pandas as pd

from ..tables.common import AVERAGE, BOUNDS, accuracies, averages, label
from ..tables.comparison import best_scaling
from .common import Verdict, lookup


def mini_gate(rows: pd.DataFrame) -> list[Verdict]:
    """Whether the mini world is a world like CLIP's: the conditions under which the paper's comparison has a meaning.

    Arguments:
        rows: rows of a performance record of the profile ``mini``.
    """
    at = lookup(averages(rows))
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
    at = lookup(ours)
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
