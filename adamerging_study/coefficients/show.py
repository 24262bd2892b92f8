"""Learned coefficients: paths of task-wise ones, maps of layer-wise ones, their profile over depth, other seeds."""

from __future__ import annotations

import itertools
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ..frames import AVERAGE, labels
from ..style import WIDTH, spread, styled, task_colours
from . import LAYER_WISE
from .numbers import depth, final, halves


def distribution(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per layer-wise method: mean, spread, and the shares that lie at the ends of the clamp, as text."""
    lines = {}
    for method in _layer_wise(rows):
        values = final(rows, method)["coefficient"]
        lines[labels(rows)[method]] = {
            "coefficients": str(len(values)),
            "mean": f"{values.mean():.2f}",
            "standard deviation": f"{values.std():.2f}",
            "exactly 0": f"{100 * (values == 0).mean():.1f} %",
            "exactly 1": f"{100 * (values == 1).mean():.1f} %",
        }
    return pd.DataFrame(lines).T


def by_role(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean coefficient by role of tensor in the shallow and the deep half of the blocks, methods across, as text."""
    parts = {}
    for method in _layer_wise(rows):
        shallow, deep = halves(depth(rows, method))
        means = {"shallow half": shallow.mean(axis=1), "deep half": deep.mean(axis=1)}
        parts[labels(rows)[method]] = pd.DataFrame(means).map("{:.2f}".format)
    return pd.concat(parts, axis=1).rename_axis(index=None)


def seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Fits of layer-wise AdaMerging: accuracy, correlation with and mean distance to the first seed's coefficients."""
    method = LAYER_WISE[0]
    average = rows[(rows["method"] == method) & (rows["task"] == AVERAGE)].set_index("seed")["accuracy"]
    tables = {seed: final(rows, method, seed)["coefficient"].to_numpy() for seed in average.index}
    first = tables[average.index[0]]
    return pd.DataFrame(
        {
            seed: {
                "average accuracy": f"{average[seed]:.1f}",
                "correlation with the first": f"{np.corrcoef(first, found)[0, 1]:.2f}",
                "mean distance to the first": f"{np.abs(found - first).mean():.3f}",
            }
            for seed, found in tables.items()
        }
    ).T.rename_axis(index="seed")


@styled
def paths(rows: pd.DataFrame) -> Figure:
    """λ of each task over steps, one panel per method; every line carries its task's name.

    Marks stand at the steps that the record has: a kept fit has many of the first ones, then few.
    """
    rows = rows[rows["kind"] == "path"]
    methods = list(rows["method"].unique())
    figure, grid = plt.subplots(len(methods), 1, figsize=(WIDTH, 3.1 * len(methods)), sharex=True, squeeze=False)
    for axes, method in zip(grid[:, 0], methods, strict=True):
        frame = rows[rows["method"] == method].pivot(index="step", columns="task", values="coefficient")
        frame = frame[list(rows["task"].unique())]
        low, high = frame.min().min(), frame.max().max()
        places = spread(frame.iloc[-1], 0.075 * max(high - low, 0.05))
        for task, colour, place in zip(frame, task_colours(len(frame.columns)), places, strict=True):
            axes.plot(frame.index, frame[task], "-o", ms=2, color=colour)
            axes.annotate(
                task, (frame.index[-1], place), xytext=(6, 0), textcoords="offset points", va="center", color=colour,
                annotation_clip=False, fontsize=9,
            )  # fmt: skip
        axes.margins(y=0.08)  # room for the lowest label
        axes.set_title(labels(rows)[method], loc="left")
        axes.set_ylabel("λ")
    grid[-1, 0].set_xlabel("steps")
    return figure


@styled
def maps(rows: pd.DataFrame) -> Figure:
    """λ of every tensor and task, one map per layer-wise method; lines between transformer blocks.

    Below stand the blocks, and what the columns of a block are.
    """
    methods = _layer_wise(rows)
    figure, grid = plt.subplots(len(methods), 1, figsize=(WIDTH, 2.5 * len(methods)), squeeze=False)
    for axes, method in zip(grid[:, 0], methods, strict=True):
        tensors = final(rows, method)
        frame = tensors.pivot(index="task", columns="row", values="coefficient")
        frame = frame.loc[tensors["task"].unique(), tensors["row"].unique()]
        image = axes.imshow(frame, aspect="auto", cmap="viridis", vmin=0, vmax=max(1, tensors["coefficient"].max()))
        blocks = tensors.drop_duplicates("row")["block"].tolist()
        starts = [i for i, block in enumerate(blocks) if i == 0 or block != blocks[i - 1]]
        for start in starts[1:]:
            axes.axvline(start - 0.5, color="white", lw=0.8)
        ends = [*starts[1:], len(blocks)]
        names = [blocks[s].removeprefix("block_") if blocks[s].startswith("block_") else "" for s in starts]
        axes.set_xticks([(s + e - 1) / 2 for s, e in zip(starts, ends, strict=True)], names)
        axes.set_yticks(range(len(frame)), list(frame.index), fontsize=8.5)
        axes.tick_params(length=0)
        axes.set_title(labels(rows)[method], loc="left")
        axes.set_xlabel("transformer block")
        sns.despine(ax=axes, left=True, bottom=True)
        figure.colorbar(image, ax=axes, pad=0.01, label="λ")
    if methods:
        axes.set_xlabel(f"transformer block\n{_columns(tensors)}", fontsize=9)
    return figure


@styled
def profile(rows: pd.DataFrame) -> Figure:
    """Mean λ over tasks by transformer block, one line per role of tensor, one panel per method.

    Lines are of the first seed; bars, where there are several, go from the least to the greatest of them.
    """
    methods = _layer_wise(rows)
    height = 2.7 * len(methods) + 0.4
    figure, grid = plt.subplots(len(methods), 1, figsize=(WIDTH, height), sharex=True, sharey=True, squeeze=False)
    for axes, method in zip(grid[:, 0], methods, strict=True):
        frame = depth(rows, method)
        own = rows[(rows["method"] == method) & (rows["kind"] == "final")]
        fits = [depth(fit, method) for _, fit in own.groupby("seed")]
        colours = task_colours(len(frame))
        places = spread(frame.iloc[:, -1], 0.08 * max(frame.max().max() - frame.min().min(), 0.05))
        for (role, line), colour, place in zip(frame.iterrows(), colours, places, strict=True):
            axes.plot(line.index, line, "-o", ms=3, color=colour)
            if len(fits) > 1:
                each = pd.DataFrame([fit.loc[role] for fit in fits])
                axes.vlines(line.index, each.min(), each.max(), color=colour, lw=1.6)
            axes.annotate(
                role, (line.index[-1], place), xytext=(6, 0), textcoords="offset points", va="center", color=colour,
                annotation_clip=False, fontsize=9,
            )  # fmt: skip
        axes.set_title(labels(rows)[method], loc="left")
        axes.set_ylabel("mean λ")
        axes.set_xticks(frame.columns)
    grid[-1, 0].set_xlabel("transformer block")
    return figure


def _columns(tensors: pd.DataFrame) -> str:
    """What the columns are, in the order of the network; of equal neighbours how many."""
    own = tensors.drop_duplicates("row")
    first = next((block for block in own["block"] if block.startswith("block_")), None)
    roles = itertools.groupby(own.loc[own["block"] == first, "role"])
    named = [(role, len(list(some))) for role, some in roles]
    parts = [f"{role} ×{count}" if count > 1 else role for role, count in named]
    others = [block for block in own["block"].unique() if not block.startswith("block_")]
    told = f"columns of a block: {', '.join(parts)}" + (f"; outside blocks: {', '.join(others)}" if others else "")
    return textwrap.fill(told, 62)


def _layer_wise(rows: pd.DataFrame) -> list[str]:
    return list(rows.loc[rows["kind"] == "final", "method"].unique())
