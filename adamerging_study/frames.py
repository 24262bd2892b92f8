"""What the tables and figures of several experiments share: names of methods, averages, intervals.

A frame is that of `records.frame`: ``method, condition, group, task, accuracy, n, seed, setting``, the experiment's own
factors, and ``label``, ``needs`` and ``gives`` of the method. Every method and condition also has a row of the task
``Average``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from adamerging_lib.published.competitions import BOUNDS as BOUNDS
from adamerging_lib.records import average_confidence_interval

from .sample import AVERAGE, Sample, interval


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
    """Half a 95 % interval (points) for every method × task and ``Average``.

    Where rows keep outcomes, it is the interval that claims are judged by: over test images and, of several seeds, over
    seeds (`Sample`). Of rows without outcomes it is a bootstrap over images alone, from accuracy and n.
    """
    sample, frame = Sample(headline(rows)), _single(rows)
    frame["half"] = [half_width(sample.accuracy(row["method"], row["task"]), [row]) for row in frame.to_dict("records")]
    halves = frame.pivot_table(index="method", columns="task", values="half", sort=False)
    halves[AVERAGE] = _of_averages(sample, frame)
    return halves


def average_half_widths(rows: pd.DataFrame) -> pd.Series:
    """Half a 95 % interval (points) of every method's average, as in `interval_half_widths`."""
    return _of_averages(Sample(headline(rows)), _single(rows))


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


def _of_averages(sample: Sample, single: pd.DataFrame) -> pd.Series:
    groups = single.groupby("method", sort=False)
    return pd.Series({method: half_width(sample.average(method), group) for method, group in groups})


def with_half(values: pd.Series, low: pd.Series, high: pd.Series, form: str = "{:.1f}") -> pd.Series:
    """Values with half their 95 % interval beside them, where there is one, as text: "12.3 ± 0.4".

    Arguments:
        values: points or percent.
        low, high: the ends of their intervals.
        form: of the values.
    """
    half = (high - low).astype(float) / 2
    return values.map(form.format) + half.map(" ± {:.1f}".format).where(half.notna(), "")


def half_width(drawn: np.ndarray, tasks: pd.DataFrame | Iterable[Mapping[str, Any]]) -> float:
    """Half a 95 % interval (points) of an array of `Sample`; where it has no draws, of the mean of these rows.

    Arguments:
        drawn: an average accuracy, percent, ``[1 + draws]``.
        tasks: one row per task, with ``accuracy`` in percent and ``n``.
    """
    _, low, high = interval(drawn)
    if low is None:
        low, high = average_confidence_interval(tasks)
    return (high - low) / 2
