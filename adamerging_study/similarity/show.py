"""Matrices over pairs of tasks, and what tells the cost of merging two."""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from ..style import WIDTH, heatmap, name_points, styled, task_colours

MEASURES = {
    "cosine": "cosine of the task vectors",
    "sign_conflict": "sign conflicts (% of shared entries)",
    "overlap": "shared entries (% of those kept)",
    "transfer": "gain of the other expert on the task (points)",
}

MARKERS = "osD^vP<>"
"""Of the tasks in a scatter plot, beside their colours."""
NAMED = 3
"""How many of the dearest pairs have their names in it."""


def square(rows: pd.DataFrame, kind: str) -> pd.DataFrame:
    """A symmetric measure of pairs: tasks × tasks in the record's order, NaN on the diagonal."""
    tasks = list(rows.loc[rows["kind"] == "alone", "task"])
    frame = pd.DataFrame(np.nan, index=tasks, columns=tasks)
    for row in rows[rows["kind"] == kind].itertuples():
        frame.loc[row.task, row.other] = frame.loc[row.other, row.task] = row.value
    return frame


def transfer(rows: pd.DataFrame) -> pd.DataFrame:
    """Gain over zero-shot (points): experts in rows × tasks in columns; the diagonal is the expert's own task."""
    measured = rows[rows["kind"] == "transfer"]
    frame = measured.pivot(index="other", columns="task", values="accuracy")
    tasks = list(measured["task"].unique())
    zero = rows[rows["kind"] == "zero_shot"].set_index("task")["accuracy"]
    return (frame.loc[tasks, tasks] - zero[tasks]).rename_axis(index="expert", columns="task")


def cost(rows: pd.DataFrame) -> pd.DataFrame:
    """What adding T_other costs task: accuracy of θ0 + λ T_task minus that with λ T_other added; tasks × others."""
    measured = rows[rows["kind"] == "pair"]
    tasks = list(measured["task"].unique())
    frame = measured.pivot(index="task", columns="other", values="accuracy").loc[tasks, tasks]
    alone = rows[rows["kind"] == "alone"].set_index("task")["accuracy"]
    return -frame.sub(alone[tasks], axis=0)


def pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per ordered pair (task, other): the measures, and the cost to the task."""
    gains = transfer(rows).T  # task × expert
    squares = {name: square(rows, name) for name in ("cosine", "sign_conflict", "overlap")}
    squares |= {"transfer": gains.where(~np.eye(len(gains), dtype=bool)), "cost": cost(rows)}
    columns = {name: frame.stack().dropna() for name, frame in squares.items()}
    return pd.DataFrame(columns).rename_axis(index=["task", "other"])


def prediction(rows: pd.DataFrame) -> pd.DataFrame:
    """Spearman's ρ of each measure with the cost over ordered pairs, with its p; and the mean ρ within a task.

    Within a task the measure must tell which partner costs it least; over all pairs it may also tell tasks apart.
    """
    table, lines = pairs(rows), {}
    for name, title in MEASURES.items():
        rho, p = _spearman(table[name], table["cost"])
        within = [_spearman(part[name], part["cost"])[0] for _, part in table.groupby(level="task", sort=False)]
        lines[title] = {"ρ over pairs": rho, "p": p, "mean ρ within a task": pd.Series(within).mean()}
    return pd.DataFrame(lines).T


def _spearman(x: pd.Series, y: pd.Series) -> tuple[float, float]:
    """ρ and p; NaN where one of the two is constant."""
    if x.nunique() < 2 or y.nunique() < 2:
        return float("nan"), float("nan")
    found = spearmanr(x, y)
    return float(found.statistic), float(found.pvalue)


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
    """Cost to the task against each measure of the pair, one mark per ordered pair, by the task that pays.

    The dearest pairs have their names beside them: task + the other.
    """
    table, rho = pairs(rows), prediction(rows)["ρ over pairs"]
    tasks = list(table.index.get_level_values("task").unique())
    looks = dict(zip(tasks, zip(task_colours(len(tasks)), itertools.cycle(MARKERS)), strict=True))
    figure, grid = plt.subplots(2, 2, figsize=(WIDTH, 6.2), sharey=True)
    for axes, (name, title) in zip(grid.flat, MEASURES.items(), strict=True):
        for task, (colour, marker) in looks.items():
            part = table.loc[task]
            axes.plot(part[name], part["cost"], marker, ms=4, color=colour, label=task)
        axes.set_title(f"ρ = {rho[title]:.2f}", loc="left")
        axes.set_xlabel(title.replace(" (", "\n("), fontsize=9)
    figure.supylabel("cost to the task (points)", fontsize=10.5)
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    axes.set_ylim(top=table["cost"].max() + 0.2 * np.ptp(table["cost"]))  # room for names
    dearest = table["cost"].nlargest(NAMED).index
    for axes, name in zip(grid.flat, MEASURES, strict=True):
        points = [
            (f"{task} + {other}" if (task, other) in dearest else "", line[name], line["cost"], looks[task][0])
            for (task, other), line in table.iterrows()
        ]
        name_points(axes, points)
    return figure
