"""Figures of entropy against loss: pooled bins, one small panel a task, and rank correlations."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..tables.common import label
from ..tables.entropy_loss import BIN_NAMES, bins, spearman
from .style import WIDTH, colour, styled


@styled
def loss_by_entropy(rows: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Mean loss in each bin of entropy, all tasks pooled (the paper's Figure 3 a), one line a method."""
    figure, axes = plt.subplots(figsize=(WIDTH, 3.4))
    for method in methods:
        line = bins(rows, method).loc["all"]
        axes.plot(line.index, line, "-o", ms=4, color=colour(method), label=label(method))
    axes.set_xticks(range(len(BIN_NAMES)), BIN_NAMES, rotation=40, ha="right", rotation_mode="anchor")
    axes.set(xlabel="entropy of the prediction (nats)", ylabel="mean loss (nats)", ylim=(0, None))
    axes.legend(frameon=False)
    return figure


@styled
def loss_by_entropy_and_task(rows: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """The same for each task (Figure 11), small panels with one scale."""
    tasks = [task for task in bins(rows, methods[0]).index if task != "all"]
    lanes = -(-len(tasks) // 2)
    size = (WIDTH, 1.35 * lanes + 0.9)
    figure, grid = plt.subplots(lanes, 2, figsize=size, sharex=True, sharey=True, squeeze=False)
    for axes, task in zip(grid.flat, tasks, strict=False):
        for method in methods:
            line = bins(rows, method).loc[task].dropna()
            axes.plot(line.index, line, "-o", ms=2.5, color=colour(method), label=label(method))
        axes.set_title(task, loc="left")
        axes.set_xticks([0, 5, 10], [BIN_NAMES[0], BIN_NAMES[5], BIN_NAMES[10]])
    grid[0, 0].set_ylim(0, 1.05 * max(bins(rows, method).drop(index="all").max().max() for method in methods))
    for axes in grid.flat[len(tasks) :]:
        axes.set_visible(False)
    figure.supxlabel("entropy of the prediction (nats)", fontsize=10.5)
    figure.supylabel("mean loss (nats)", fontsize=10.5)
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(methods), frameon=False, fontsize=9)
    return figure


@styled
def correlations(rows: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Spearman's correlation task by task and over all images (Figure 3 b), one mark a method."""
    frame = spearman(rows)
    tasks = [*(t for t in frame if t != "all"), "all"]
    figure, axes = plt.subplots(figsize=(WIDTH, 0.36 * len(tasks) + 1.1))
    places = np.arange(len(tasks))[::-1]
    for number, method in enumerate(methods):
        shift = 0.18 * (number - (len(methods) - 1) / 2)
        axes.plot(frame.loc[method, tasks], places - shift, "o", ms=6, color=colour(method), label=label(method))
    axes.axvline(0, color="#777777", lw=0.8)
    axes.set_yticks(places, [*tasks[:-1], "all images"])
    axes.grid(axis="x", color="#DDDDDD", lw=0.6)
    axes.set(xlabel="Spearman's rank correlation of entropy and loss", xlim=(min(0, frame.min().min()) - 0.02, 1.03))
    figure.legend(loc="outside upper center", ncols=len(methods), frameon=False, fontsize=9)
    return figure
