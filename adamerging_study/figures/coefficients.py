"""Figures of learned coefficients: the way of task-wise ones, the map of layer-wise ones, their profile over depth."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ..tables.coefficients import depth, final
from ..tables.common import label
from .style import WIDTH, spread, styled, task_colours


@styled
def paths(rows: pd.DataFrame) -> Figure:
    """λ of each task over steps, one panel a method; every line carries its task's name."""
    rows = rows[rows["condition"] == "path"]
    methods = list(rows["method"].unique())
    figure, grid = plt.subplots(len(methods), 1, figsize=(WIDTH, 3.1 * len(methods)), sharex=True, squeeze=False)
    for axes, method in zip(grid[:, 0], methods, strict=True):
        frame = rows[rows["method"] == method].pivot(index="step", columns="task", values="coefficient")
        frame = frame[list(rows["task"].unique())]
        low, high = frame.min().min(), frame.max().max()
        places = spread(frame.iloc[-1], 0.075 * max(high - low, 0.05))
        for task, colour, place in zip(frame, task_colours(len(frame.columns)), places, strict=True):
            axes.plot(frame.index, frame[task], color=colour)
            axes.annotate(
                task, (frame.index[-1], place), xytext=(6, 0), textcoords="offset points", va="center", color=colour,
                annotation_clip=False, fontsize=9,
            )  # fmt: skip
        axes.margins(y=0.08)  # room for the lowest label
        axes.set_title(label(method), loc="left")
        axes.set_ylabel("λ")
    grid[-1, 0].set_xlabel("steps")
    return figure


@styled
def maps(rows: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """λ of every tensor and task, one map a method; lines between transformer blocks."""
    figure, grid = plt.subplots(len(methods), 1, figsize=(WIDTH, 2.5 * len(methods)), squeeze=False)
    for axes, method in zip(grid[:, 0], methods, strict=True):
        own = final(rows, method)
        frame = own.pivot(index="task", columns="row", values="coefficient")
        frame = frame.loc[own["task"].unique(), own["row"].unique()]
        image = axes.imshow(frame, aspect="auto", cmap="viridis", vmin=0, vmax=max(1, own["coefficient"].max()))
        blocks = own.drop_duplicates("row")["block"].tolist()
        starts = [i for i, block in enumerate(blocks) if i == 0 or block != blocks[i - 1]]
        for start in starts[1:]:
            axes.axvline(start - 0.5, color="white", lw=0.8)
        ends = [*starts[1:], len(blocks)]
        names = [blocks[s].removeprefix("block_") if blocks[s].startswith("block_") else "" for s in starts]
        axes.set_xticks([(s + e - 1) / 2 for s, e in zip(starts, ends, strict=True)], names)
        axes.set_yticks(range(len(frame)), list(frame.index), fontsize=8.5)
        axes.tick_params(length=0)
        axes.set_title(label(method), loc="left")
        axes.set_xlabel("transformer block (a column is a tensor)")
        sns.despine(ax=axes, left=True, bottom=True)
        figure.colorbar(image, ax=axes, pad=0.01, label="λ")
    return figure


@styled
def profile(rows: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Mean λ over tasks by transformer block, one line a kind of tensor, one panel a method."""
    height = 2.7 * len(methods) + 0.4
    figure, grid = plt.subplots(len(methods), 1, figsize=(WIDTH, height), sharex=True, sharey=True, squeeze=False)
    for axes, method in zip(grid[:, 0], methods, strict=True):
        frame = depth(rows, method)
        colours = task_colours(len(frame))
        places = spread(frame.iloc[:, -1], 0.055 * max(frame.max().max() - frame.min().min(), 0.05))
        for (kind, line), colour, place in zip(frame.iterrows(), colours, places, strict=True):
            axes.plot(line.index, line, "-o", ms=3, color=colour)
            axes.annotate(
                kind, (line.index[-1], place), xytext=(6, 0), textcoords="offset points", va="center", color=colour,
                annotation_clip=False, fontsize=9,
            )  # fmt: skip
        axes.set_title(label(method), loc="left")
        axes.set_ylabel("mean λ")
        axes.set_xticks(frame.columns)
    grid[-1, 0].set_xlabel("transformer block")
    return figure
