"""What the paper reads out of its Tables 4 and 7, and what it does not say about them, as verdicts."""

from __future__ import annotations

import math

import pandas as pd

from adamerging_lib.worlds.roles import same_role

from ..tables import robustness as table
from ..tables.common import AVERAGE
from .common import Verdict, lookup

NOISES = ("impulse_noise", "gaussian_noise", "spatter")
"""Where the published AdaMerging is below Task Arithmetic on EuroSAT (Table 4)."""


def robustness(rows: pd.DataFrame) -> list[Verdict]:
    """Section 4.2, "Robust to Test Data Distribution Shifts", and Appendix B.1.

    Arguments:
        rows: of the robustness record.
    """
    frame = table.averages(rows)
    gain = lookup(frame[table.LEARNED] - frame[table.FIXED] if {table.LEARNED, table.FIXED} <= set(frame) else frame)
    conditions = [c for c in frame.index if c != "clean"]
    found = [
        Verdict(f"{where}: AdaMerging is above Task Arithmetic", gain(condition), 0)
        for condition, where in zip(["clean", *conditions], ["Clean", *table.names(conditions)], strict=True)
    ]
    return [*found, *settings(rows), *_failure(rows)]


def settings(rows: pd.DataFrame) -> list[Verdict]:
    """Whether it pays to learn on the corrupted images themselves."""
    clean, corrupted = (table.averages(rows, on).drop(index="clean", errors="ignore") for on in ("clean", "corrupted"))
    if table.LEARNED not in corrupted:
        return []
    better = (corrupted[table.LEARNED] - clean[table.LEARNED]).mean()
    kept = (clean[table.LEARNED] - clean[table.FIXED]).mean() if table.FIXED in clean else math.nan
    return [
        Verdict("Learning on the corrupted images beats learning on clean ones, in the mean", better, 0),
        Verdict("Coefficients learned on clean images stay above Task Arithmetic when the images shift", kept, 0),
    ]


def _failure(rows: pd.DataFrame) -> list[Verdict]:
    """The hidden failure: on one task, noise makes entropy and accuracy fall together; and what cures it."""
    (stand_in,) = same_role(["EuroSAT"], rows["task"].unique())
    frame = table.averages(rows, task=stand_in)
    found = []
    if {table.LEARNED, table.FIXED} <= set(frame):
        for noise in frame.index.intersection(NOISES):
            loss = frame.loc[noise, table.LEARNED] - frame.loc[noise, table.FIXED]
            check = f"{table.names([noise])[0]}: AdaMerging is below Task Arithmetic on {stand_in}, as published"
            found.append(Verdict(check, loss, high=0))
    if table.steps(rows).empty:
        return found
    task = table.failing_task(rows)
    ends = {column: table.ends(rows, column) for column in ("accuracy", "entropy", "share")}
    plain, *cures = ends["accuracy"].index[1:]
    accuracy, entropy, share = (frame.loc[plain, task] - frame.loc["start", task] for frame in ends.values())
    found += [
        Verdict("On some task adaptation costs 1 point of accuracy or more", accuracy, high=-1),
        Verdict("There, entropy falls all the same", entropy, high=0, digits=2),
        Verdict("There, predictions gather in one class", share, 0),
    ]
    for cure in cures:
        better = ends["accuracy"].loc[cure] - ends["accuracy"].loc[plain]
        found += [
            Verdict(f"{cure}: more accurate there than entropy alone", better[task], 0),
            Verdict(f"{cure}: not worse on average by more than 2 points", better[AVERAGE], -2),
        ]
    return found
