"""Figures of the similarity experiment: matrices of tasks, and measures against the cost of merging."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..tables.similarity import MEASURES, cost, pairs, prediction, square, transfer
from .style import WIDTH, heatmap, styled, task_colours


@styled
def conflicts(rows: pd.DataFrame) -> Figure:
    """Percentage of shared large entries whose signs are opposite, tasks × tasks."""
    figure, axes = plt.subplots(figsize=(WIDTH, 4.4))
    heatmap(axes, square(rows, "sign_conflict"), digits=0, cmap="Blues")
    return figure


@styled
def transfers(rows: pd.DataFrame) -> Figure:
    """Gain over the pre-trained encoder, experts in rows and tasks in columns."""
    return _matrix(transfer(rows), "expert", "measured on")


@styled
def costs(rows: pd.DataFrame) -> Figure:
    """What a second task vector costs the first task, in points."""
    return _matrix(-cost(rows), "task", "with the task vector of")


def _matrix(frame: pd.DataFrame, vertical: str, horizontal: str) -> Figure:
    limit = np.nanmax(np.abs(frame.to_numpy()))
    figure, axes = plt.subplots(figsize=(WIDTH, 4.6))
    heatmap(axes, frame, digits=0, cmap="RdBu", vmin=-limit, vmax=limit)
    axes.set(ylabel=vertical, xlabel=horizontal)
    return figure


@styled
def predictors(rows: pd.DataFrame) -> Figure:
    """Cost to the task against each measure of the pair, one mark an ordered pair, coloured by the task that pays."""
    table, rho = pairs(rows), prediction(rows)["ρ over pairs"]
    tasks = list(table.index.get_level_values("task").unique())
    figure, grid = plt.subplots(2, 2, figsize=(WIDTH, 5.4), sharey=True)
    for axes, (name, title) in zip(grid.flat, MEASURES.items(), strict=True):
        for task, colour in zip(tasks, task_colours(len(tasks)), strict=True):
            part = table.loc[task]
            axes.plot(part[name], part["cost"], "o", ms=3.5, color=colour, label=task)
        axes.set_title(f"ρ = {rho[title]:.2f}", loc="left")
        axes.set_xlabel(title.replace(" (", "\n("), fontsize=9)
    figure.supylabel("cost to the task (points)", fontsize=10.5)
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    return figure
