"""Tables of entropy against loss, from rows of the entropy_loss record."""

from __future__ import annotations

import pandas as pd

from .common import labelled

BIN_NAMES = (*(f"{i / 10:.1f}–{(i + 1) / 10:.1f}" for i in range(10)), "> 1")


def spearman(rows: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation of entropy and loss: methods × tasks, ``all`` (images of all tasks pooled) last."""
    own = rows[rows["condition"] == "spearman"]
    return own.pivot_table(index="method", columns="task", values="value", sort=False)


def spearman_text(rows: pd.DataFrame) -> pd.DataFrame:
    """The same as text, the pooled one first."""
    frame = spearman(rows)
    return labelled(frame[["all", *(t for t in frame if t != "all")]].map("{:.2f}".format))


def bins(rows: pd.DataFrame, method: str) -> pd.DataFrame:
    """Mean loss (nats) of one method: tasks × bins of entropy, ``all`` last; NaN for a bin without an image."""
    own = rows[(rows["condition"] == "bin") & (rows["method"] == method)]
    return own.pivot_table(index="task", columns="bin", values="loss", sort=False).sort_index(axis=1)


def pooled(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean loss and share of the images in each bin, all tasks pooled: bins × methods, as text."""
    own = rows[(rows["condition"] == "bin") & (rows["task"] == "all")]
    total = own.groupby("method")["n"].transform("sum")
    text = own["loss"].map("{:.2f}".format) + " (" + (100 * own["n"] / total).map("{:.0f} %".format) + ")"
    frame = own.assign(text=text).pivot(index="bin", columns="method", values="text")[own["method"].unique()]
    frame.index = [BIN_NAMES[int(i)] for i in frame.index]
    return labelled(frame.T).T.rename_axis(index="entropy, nats")


def monotone_share(frame: pd.DataFrame) -> float:
    """Share (percent) of neighbouring bins whose mean loss rises, over the rows of `bins`."""
    steps = frame.apply(lambda row: row.dropna().diff().dropna(), axis=1).stack()
    return float(100 * (steps > 0).mean())
