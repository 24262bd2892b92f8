"""Figures of the robustness experiment: corrupted examples, accuracy over severity, and a failure step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..tables.common import AVERAGE, label
from ..tables.robustness import names, steps
from .style import WIDTH, colour, styled

# Entropy alone has AdaMerging's own colour; the cures are told apart by colour and dash.
OBJECTIVE_STYLES = (("#D55E00", "-"), ("#0072B2", "--"), ("#00795B", "-."), ("#B0508A", ":"), ("#5F5F5F", (0, (6, 1))))


@styled
def examples(images: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """The paper's Figure 6: one picture a task, clean and under every corruption.

    Arguments:
        images: condition → task → uint8 ``[3, height, width]``, the same tasks under every condition.
    """
    tasks = list(next(iter(images.values())))
    size = (WIDTH, 0.8 * len(images) + 0.3)
    figure, grid = plt.subplots(len(images), len(tasks), figsize=size, squeeze=False)
    for line, (condition, pictures) in zip(grid, images.items(), strict=True):
        for axes, task in zip(line, tasks, strict=True):
            axes.imshow(np.asarray(pictures[task]).transpose(1, 2, 0), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(names([condition])[0], rotation=0, ha="right", va="center")
    for axes, task in zip(grid[0], tasks, strict=True):
        axes.set_title(task, fontsize=9.5, fontweight="normal")
    return figure


@styled
def over_severity(rows: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Average accuracy over severity, one small panel a corruption; adaptive methods as they learned on clean images.

    Arguments:
        rows: of the record.
        methods: whose lines.
    """
    rows = rows[(rows["task"] == AVERAGE) & (rows["adapted_on"] != "corrupted")]
    conditions = [c for c in rows["condition"].unique() if c != "clean"]
    lanes = -(-len(conditions) // 2)
    size = (WIDTH, 1.3 * lanes + 0.8)
    figure, grid = plt.subplots(lanes, 2, figsize=size, sharex=True, sharey=True, squeeze=False)
    for axes, condition in zip(grid.flat, conditions, strict=False):
        shown = rows[rows["condition"].isin(["clean", condition])]
        for method in methods:
            line = shown[shown["method"] == method].groupby("severity")["accuracy"].mean()
            axes.plot(line.index, line, "-o", ms=3.5, color=colour(method), label=label(method))
        axes.set_title(names([condition])[0], loc="left")
        axes.set(ylim=(0, 100), yticks=(0, 50, 100), xticks=sorted(rows["severity"].unique()))
    for axes in grid.flat[len(conditions) :]:
        axes.set_visible(False)
        grid[max(lanes - 2, 0), -1].tick_params(labelbottom=True)  # nothing below it tells the severities
    figure.supxlabel("severity (0: clean)", fontsize=10.5)
    figure.supylabel("average accuracy (%)", fontsize=10.5)
    handles, texts = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return figure


@styled
def failure(rows: pd.DataFrame, task: str) -> Figure:
    """Entropy, accuracy and share of the most predicted class over the steps on one task, one line an objective."""
    rows = steps(rows)
    rows = rows[rows["task"] == task]
    order = rows["objective"].unique()
    panels = {"entropy": "entropy (nats)", "accuracy": "accuracy (%)", "share": "most predicted class (%)"}
    figure, grid = plt.subplots(len(panels), 1, figsize=(WIDTH, 6.2), sharex=True)
    for axes, (column, title) in zip(grid, panels.items(), strict=True):
        frame = rows.pivot_table(index="step", columns="objective", values=column)[order]
        for number, objective in enumerate(frame):
            shade, dash = OBJECTIVE_STYLES[number % len(OBJECTIVE_STYLES)]
            axes.plot(frame.index, frame[objective], color=shade, ls=dash, lw=1.8, label=objective)
        axes.set_title(f"{task}: {title}", loc="left")
    grid[-1].set_xlabel("steps")
    handles, texts = grid[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return figure
