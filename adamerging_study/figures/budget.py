"""Figures of the budget experiment: accuracy over steps, one setting varied at a time, and over the number of tasks."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..tables.budget import LAYER_WISE, base, by_task_count, levels
from ..tables.common import label
from .style import METHOD_DASHES, WIDTH, colour, styled


@styled
def over_steps(rows: pd.DataFrame, seconds_a_step: float | None = None) -> Figure:
    """Average accuracy along one long run; seconds on top where they are known."""
    line = levels(rows, "steps")
    steps = line.index.astype(int)
    figure, axes = plt.subplots(figsize=(WIDTH, 3.2))
    axes.plot(steps, line, "-o", ms=4, color=colour(LAYER_WISE))
    axes.set(xlabel="steps", ylabel="average accuracy (%)")
    if seconds_a_step:
        top = axes.secondary_xaxis("top", functions=(lambda s: s * seconds_a_step, lambda s: s / seconds_a_step))
        top.set_xlabel("seconds")
    return figure


@styled
def one_at_a_time(rows: pd.DataFrame) -> Figure:
    """Average accuracy at each level of each factor, the base run as a line through all of them."""
    factors = [f for f in dict.fromkeys(rows["factor"]) if f not in ("base", "steps", "tasks")]
    places, names, start, bands = [], [], 0.0, []
    for factor in factors:
        found = levels(rows, factor)
        spots = start + np.arange(len(found))
        places += [(spot, value) for spot, value in zip(spots, found, strict=True)]
        names += list(found.index)
        bands.append((factor, spots[0], spots[-1]))
        start = spots[-1] + 1.8
    figure, axes = plt.subplots(figsize=(WIDTH, 0.27 * len(places) + 0.14 * len(factors) + 0.9))
    y, x = zip(*places, strict=True)
    axes.axvline(base(rows), color="#777777", lw=1, ls="--")
    axes.plot(x, y, "o", ms=6, color=colour(LAYER_WISE))
    for factor, first, _ in bands:
        axes.text(
            0.01, first - 0.85, factor, transform=axes.get_yaxis_transform(), weight="bold", fontsize=9.5, va="center"
        )
    axes.set_yticks(y, names)
    axes.set_ylim(max(y) + 0.7, -1.4)
    axes.grid(axis="x", color="#DDDDDD", lw=0.6)
    axes.set_xlabel("average accuracy (%); dashed: the base run")
    return figure


@styled
def over_tasks(rows: pd.DataFrame) -> Figure:
    """Average accuracy over the number of tasks merged, one line a method."""
    frame = by_task_count(rows)
    figure, axes = plt.subplots(figsize=(WIDTH, 3.3))
    for method, line in frame.iterrows():
        dash = METHOD_DASHES.get(method, "-")
        axes.plot(line.index, line, marker="o", ms=4, color=colour(method), ls=dash, label=label(method))
    axes.set(xlabel="number of tasks merged", ylabel="average accuracy over them (%)", xticks=list(frame.columns))
    axes.legend(frameon=False)
    return figure
