"""What the tables and figures of several experiments share: names of methods, averages, intervals.

A frame is that of `records.frame`: ``method, condition, group, task, accuracy, n, seed, setting``, the experiment's own
factors, and ``label``, ``needs`` and ``gives`` of the method. Every method and condition also has a row of the task
``Average``.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from adamerging_lib.published.competitions import BOUNDS as BOUNDS
from adamerging_lib.records import average_confidence_interval, confidence_interval

AVERAGE = "Average"


def labels(rows: pd.DataFrame) -> dict[str, str]:
    """Method id → its name in tables and figures, of all methods in the rows."""
    named = rows.dropna(subset=["method", "label"]).drop_duplicates("method")
    return dict(zip(named["method"], named["label"], strict=True))


def needs(rows: pd.DataFrame) -> dict[str, str]:
    """Method id → what it needs beyond checkpoints and heads, of all methods in the rows."""
    named = rows.dropna(subset=["method", "needs"]).drop_duplicates("method")
    return dict(zip(named["method"], named["needs"], strict=True))


def without(rows: pd.DataFrame, factors: Iterable[str]) -> pd.DataFrame:
    """Rows in which none of these factors was varied."""
    varied = rows.reindex(columns=list(factors)).notna().any(axis=1)
    return rows[~varied].reset_index(drop=True)


def headline(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the comparison itself, at each method's default: clean test images, no point of a sweep over λ."""
    return without(rows[rows["condition"] == "clean"], ["scaling"])


def averages(rows: pd.DataFrame) -> pd.Series:
    """Method id → average accuracy (percent) in the record's order; a mean over seeds where there are several."""
    rows = headline(rows)
    return rows[rows["task"] == AVERAGE].groupby("method", sort=False)["accuracy"].mean()


def accuracies(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy (percent), methods × tasks with ``Average`` last, both in the record's order."""
    rows = headline(rows)
    frame = rows.pivot_table(index="method", columns="task", values="accuracy", sort=False)
    return frame[[*(task for task in frame if task != AVERAGE), AVERAGE]]


def interval_half_widths(rows: pd.DataFrame) -> pd.DataFrame:
    """Half a 95 % interval (points) for every method × task and ``Average``."""
    frame = _single(rows)
    frame["half"] = [_half(confidence_interval(row.accuracy, row.n)) for row in frame.itertuples()]
    halves = frame.pivot_table(index="method", columns="task", values="half", sort=False)
    halves[AVERAGE] = average_half_widths(rows)
    return halves


def average_half_widths(rows: pd.DataFrame) -> pd.Series:
    """Half a 95 % interval (points) of every method's average."""
    groups = _single(rows).groupby("method", sort=False)
    return pd.Series({method: _half(average_confidence_interval(group)) for method, group in groups})


def labelled(frame: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The frame with methods by name instead of id in its index; the names stand in ``rows``."""
    return frame.rename(index=labels(rows)).rename_axis(index=None)


def points(difference: float) -> str:
    """A difference in words: "3.0 points above"."""
    side = "above" if difference >= 0 else "below"
    return f"{abs(difference):.1f} points {side}"


def _single(rows: pd.DataFrame) -> pd.DataFrame:
    rows = headline(rows)
    keys = ["method", "task"]
    return rows[rows["task"] != AVERAGE].groupby(keys, sort=False, as_index=False)[["accuracy", "n"]].mean()


def _half(interval: tuple[float, float]) -> float:
    return (interval[1] - interval[0]) / 2
