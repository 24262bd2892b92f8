"""What the tables of several experiments share: names of methods, averages, intervals.

A *row* of a record: ``method, condition, group, task, accuracy, n, seed, setting``; every method and condition also
has a row of the task ``Average``. Points of a λ sweep carry ``scaling`` and the condition ``lambda=...``.
"""

from __future__ import annotations

import pandas as pd

from adamerging_lib.methods import methods
from adamerging_lib.records import average_confidence_interval, confidence_interval

AVERAGE = "Average"
BOUNDS = ("zero_shot", "individual", "traditional_mtl")
"""Reference points, not merging methods: they merge nothing, or need all the labelled training images."""


def label(method: str) -> str:
    """A method's name in tables and figures."""
    known = methods()["label"]
    if method not in known:
        raise ValueError(f"method {method!r} of the record is unknown; known: {', '.join(known.index)}")
    return known[method]


def headline(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the comparison itself, at each method's default: clean test images, no point of a sweep."""
    keep = rows["condition"] == "clean"
    return rows[keep].reset_index(drop=True)


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


def _single(rows: pd.DataFrame) -> pd.DataFrame:
    rows = headline(rows)
    keys = ["method", "task"]
    return rows[rows["task"] != AVERAGE].groupby(keys, sort=False, as_index=False)[["accuracy", "n"]].mean()


def _half(interval: tuple[float, float]) -> float:
    return (interval[1] - interval[0]) / 2


def labelled(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with methods by name instead of id."""
    return frame.rename(index={method: label(method) for method in frame.index}).rename_axis(index=None)


def points(difference: float) -> str:
    """A difference in words: "3.0 points above"."""
    side = "above" if difference >= 0 else "below"
    return f"{abs(difference):.1f} points {side}"
