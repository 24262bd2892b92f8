"""Tables and the figure of seen and unseen tasks: the paper's Tables 3 and 6, and any other choice of unseen tasks."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from adamerging_lib.published import ARCHITECTURES, published

from ..frames import AVERAGE, labelled, labels
from ..style import TASK_COLOURS, WIDTH, styled
from .numbers import FLOOR, roles

MARKS = ("o", "D", "s", "^")  # so many splits have a mark and a name of their own


def averages(rows: pd.DataFrame) -> pd.DataFrame:
    """Average accuracy (percent): methods × (unseen tasks, ``seen`` or ``unseen``) as in the record."""
    rows = rows[rows["task"] == AVERAGE]
    return rows.pivot_table(index="method", columns=["unseen", "group"], values="accuracy", sort=False)


def published_averages(split: str, arch: str) -> pd.DataFrame | None:
    """Published averages of the split that a mini split stands in for: methods × (``seen``, ``unseen``), or None.

    Where the paper's printed average is not that of its own columns, this is the columns' (see `slips`).
    """
    for experiment in ("generalization-1", "generalization-2"):
        rows = published(experiment).query("arch == @arch and task != @AVERAGE")
        if set(rows.loc[rows["group"] == "unseen", "task"]) == roles(split):
            return rows.pivot_table(index="method_id", columns="group", values="accuracy", sort=False)
    return None


def by_split(rows: pd.DataFrame, arch: str) -> pd.DataFrame:
    """Averages over seen and unseen tasks of every split, the published ones beside where there are any, as text."""
    frame, columns = averages(rows), {}
    for split in frame.columns.unique("unseen"):
        theirs = published_averages(split, arch)
        for group in ("seen", "unseen"):
            columns[_title(split), group] = frame[split][group].map("{:.1f}".format)
            if theirs is not None:
                shown = theirs[group].reindex(frame.index).map("{:.1f}".format, na_action="ignore")
                columns[_title(split), f"{group}, published, {ARCHITECTURES[arch]}"] = shown
    return labelled(pd.DataFrame(columns), rows)


def unseen_tasks(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy (percent, as text) on every unseen task: methods × (split, task)."""
    unseen = rows[(rows["group"] == "unseen") & (rows["task"] != AVERAGE)]
    frame = unseen.pivot_table(index="method", columns=["unseen", "task"], values="accuracy", sort=False)
    frame = frame.rename(columns=_title, level="unseen").map("{:.1f}".format).rename_axis(columns=[None, None])
    return labelled(frame, rows)


def gains(rows: pd.DataFrame) -> pd.DataFrame:
    """Points above the pre-trained encoder, which has no expert in it: methods × (unseen tasks, group)."""
    frame = averages(rows)
    if FLOOR not in frame.index:
        raise ValueError(f"the record has no rows of {FLOOR!r}: run it too, gains are measured against it")
    return frame.drop(index=FLOOR) - frame.loc[FLOOR]


def over_splits(rows: pd.DataFrame) -> pd.DataFrame:
    """Every method over all splits, as text: mean gain on seen and unseen tasks, and in how many splits unseen tasks
    gain at all and gain most."""
    unseen, seen = (gains(rows).xs(group, level="group", axis=1) for group in ("unseen", "seen"))
    best = (unseen == unseen.max()).sum(axis=1)
    columns = {
        "seen tasks, mean gain": seen.mean(axis=1).map("{:+.1f}".format),
        "unseen tasks, mean gain": unseen.mean(axis=1).map("{:+.1f}".format),
        "unseen tasks gain": [f"{count} of {unseen.shape[1]}" for count in (unseen > 0).sum(axis=1)],
        "best on unseen tasks": [f"{count} of {unseen.shape[1]}" for count in best],
    }
    return labelled(pd.DataFrame(columns, index=unseen.index), rows)


@styled
def gain_over_floor(rows: pd.DataFrame) -> Figure:
    """Points above the pre-trained encoder on seen and on unseen tasks: one mark per split, a bar for their mean.

    Arguments:
        rows: of the record.
    """
    frame, label = gains(rows), labels(rows)
    splits = list(frame.columns.unique("unseen"))
    frame = frame.loc[frame.xs("unseen", level="group", axis=1).mean(axis=1).sort_values().index]
    places = np.arange(len(frame))
    figure, grid = plt.subplots(1, 2, figsize=(WIDTH, 0.36 * len(frame) + 1.3), sharey=True)
    named = len(splits) <= len(MARKS)
    for axes, group in zip(grid, ("seen", "unseen"), strict=True):
        gain = frame.xs(group, level="group", axis=1)
        axes.barh(places, gain.mean(axis=1), height=0.66, color="#DCDCDC")
        for number, split in enumerate(splits):
            look = {"marker": "o", "ms": 3, "color": "#555555", "alpha": 0.4}
            if named:
                look = {"marker": MARKS[number], "ms": 5.5, "color": TASK_COLOURS[number], "label": _title(split)}
            axes.plot(gain[split], places, ls="", **look)
        axes.axvline(0, color="#222222", lw=1)
        axes.set_title(f"{group} tasks", loc="left")
        axes.tick_params(axis="y", length=0)
    grid[0].set_yticks(places, [label[method] for method in frame.index])
    figure.supxlabel("points above the pre-trained encoder", fontsize=10.5)
    if named:
        handles, texts = grid[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside upper center", ncols=1, frameon=False, fontsize=9)
    return figure


def _title(split: str) -> str:
    return f"without {split}"
