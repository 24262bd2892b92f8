"""Figure of the generalisation experiment: gains over the pre-trained encoder on seen and on unseen tasks."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..tables.common import label
from ..tables.generalisation import gains
from .style import TASK_COLOURS, WIDTH, styled

MARKS = ("o", "D", "s", "^")  # so many splits have a mark and a name of their own


@styled
def gain_over_floor(rows: pd.DataFrame) -> Figure:
    """Points above the pre-trained encoder on seen and on unseen tasks: a mark a split, a bar for their mean.

    Arguments:
        rows: of the record.
    """
    frame = gains(rows)
    conditions = list(frame.columns.unique("condition"))
    frame = frame.loc[frame.xs("unseen", level="group", axis=1).mean(axis=1).sort_values().index]
    places = np.arange(len(frame))
    figure, grid = plt.subplots(1, 2, figsize=(WIDTH, 0.36 * len(frame) + 1.3), sharey=True)
    named = len(conditions) <= len(MARKS)
    for axes, group in zip(grid, ("seen", "unseen"), strict=True):
        own = frame.xs(group, level="group", axis=1)
        axes.barh(places, own.mean(axis=1), height=0.66, color="#DCDCDC")
        for number, condition in enumerate(conditions):
            look = {"marker": "o", "ms": 3, "color": "#555555", "alpha": 0.4}
            if named:
                look = {"marker": MARKS[number], "ms": 5.5, "color": TASK_COLOURS[number], "label": condition}
            axes.plot(own[condition], places, ls="", **look)
        axes.axvline(0, color="#222222", lw=1)
        axes.set_title(f"{group} tasks", loc="left")
        axes.tick_params(axis="y", length=0)
    grid[0].set_yticks(places, [label(method) for method in frame.index])
    figure.supxlabel("points above the pre-trained encoder", fontsize=10.5)
    if named:
        handles, texts = grid[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside upper center", ncols=1, frameon=False, fontsize=9)
    return figure
