"""Entropy against loss: pooled bins, one small panel per task, and rank correlations."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..frames import labelled, labels, needs
from ..style import WIDTH, colour, styled
from . import ALL, BINS

BIN_NAMES = (*(f"{i / 10:.1f}–{(i + 1) / 10:.1f}" for i in range(BINS - 1)), "> 1")


def spearman(rows: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation of entropy and loss: methods × tasks, ``all`` (images of all tasks pooled) last.

    A mean over seeds where there are several.
    """
    spearman = rows[rows["kind"] == "spearman"]
    return spearman.pivot_table(index="method", columns="task", values="value", sort=False)


def spearman_text(rows: pd.DataFrame) -> pd.DataFrame:
    """The same as text, the pooled one first."""
    frame = spearman(rows)
    return labelled(frame[[ALL, *(task for task in frame if task != ALL)]].map("{:.2f}".format), rows)


def bins(rows: pd.DataFrame, method: str) -> pd.DataFrame:
    """Mean loss (nats) of one method: tasks × bins of entropy, ``all`` last; NaN for a bin without an image.

    Of several seeds, the mean of their means, each seed with images in the bin counting once.
    """
    bins = rows[(rows["kind"] == "bin") & (rows["method"] == method)]
    return bins.pivot_table(index="task", columns="bin", values="loss", sort=False).sort_index(axis=1)


def half_widths(rows: pd.DataFrame, method: str) -> pd.DataFrame:
    """Half an approximate 95 % interval of each mean in `bins`, over images: 1.96 s / √n, the mean of several seeds'.

    NaN for bins of a single image, and of records that keep no deviation.
    """
    bins = rows[(rows["kind"] == "bin") & (rows["method"] == method)]
    halves = bins.assign(half=1.96 * bins.get("deviation", np.nan) / np.sqrt(bins["n"].astype(float)))
    frame = halves.pivot_table(index="task", columns="bin", values="half", sort=False, dropna=False)
    return frame.sort_index(axis=1)


def pooled(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean loss, as in `bins`, and share of the images in each bin, all tasks pooled: bins × methods, as text."""
    bins = rows[(rows["kind"] == "bin") & (rows["task"] == ALL)]
    cells = bins.groupby(["bin", "method"]).agg(loss=("loss", "mean"), n=("n", "sum"))
    share = 100 * cells["n"] / cells.groupby("method")["n"].sum()
    text = cells["loss"].map("{:.2f}".format) + " (" + share.map("{:.0f} %".format) + ")"
    frame = text.unstack("method")[bins["method"].unique()]
    frame.index = [BIN_NAMES[int(i)] for i in frame.index]
    return labelled(frame.T, rows).T.rename_axis(index="entropy, nats")


@styled
def loss_by_entropy(rows: pd.DataFrame) -> Figure:
    """Mean loss in each bin of entropy, all tasks pooled (the paper's Figure 3 a), one line per method.

    Bars are approximate 95 % intervals over images, see `half_widths`.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 3.4))
    for method in _methods(rows):
        line = bins(rows, method).loc[ALL]
        axes.plot(line.index, line, "-o", ms=4, **_of(rows, method))
        _bars(axes, line, half_widths(rows, method).loc[ALL], _of(rows, method)["color"])
    axes.set_xticks(range(len(BIN_NAMES)), BIN_NAMES, rotation=40, ha="right", rotation_mode="anchor")
    axes.set(xlabel="entropy of the prediction (nats)", ylabel="mean loss (nats)", ylim=(0, None))
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


@styled
def loss_by_entropy_and_task(rows: pd.DataFrame) -> Figure:
    """The same for each task (Figure 11), small panels with one scale, bars as in `loss_by_entropy`."""
    frames = {method: bins(rows, method) for method in _methods(rows)}
    halves = {method: half_widths(rows, method) for method in frames}
    tasks = [task for task in rows["task"].unique() if task != ALL]
    lanes = -(-len(tasks) // 2)
    size = (WIDTH, 1.35 * lanes + 0.9)
    figure, grid = plt.subplots(lanes, 2, figsize=size, sharex=True, sharey=True, squeeze=False)
    for axes, task in zip(grid.flat, tasks, strict=False):
        for method, frame in frames.items():
            line = frame.loc[task].dropna()
            axes.plot(line.index, line, "-o", ms=2.5, **_of(rows, method))
            _bars(axes, line, halves[method].loc[task], _of(rows, method)["color"])
        axes.set_title(task, loc="left")
        axes.set_xticks([0, 5, 10], [BIN_NAMES[0], BIN_NAMES[5], BIN_NAMES[10]])
    tops = [frame + halves[method].reindex_like(frame).fillna(0) for method, frame in frames.items()]
    grid[0, 0].set_ylim(0, 1.05 * max(top.drop(index=ALL).max().max() for top in tops))
    for axes in grid.flat[len(tasks) :]:
        axes.set_visible(False)
    figure.supxlabel("entropy of the prediction (nats)", fontsize=10.5)
    figure.supylabel("mean loss (nats)", fontsize=10.5)
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(frames), frameon=False, fontsize=9)
    return figure


@styled
def correlations(rows: pd.DataFrame) -> Figure:
    """Spearman's correlation task by task and over all images (Figure 3 b), one mark per method.

    Bars are approximate 95 % intervals over images, see `around`; of several seeds the mark is the mean.
    """
    images = rows[rows["kind"] == "spearman"].groupby(["method", "task"])["n"].first()
    least = 0.0
    frame, methods = spearman(rows), _methods(rows)
    tasks = [*(task for task in frame if task != ALL), ALL]
    figure, axes = plt.subplots(figsize=(WIDTH, 0.36 * len(tasks) + 1.1))
    places = np.arange(len(tasks))[::-1]
    for number, method in enumerate(methods):
        shift = 0.18 * (number - (len(methods) - 1) / 2)
        axes.plot(frame.loc[method, tasks], places - shift, "o", ms=6, **_of(rows, method))
        ends = around(frame.loc[method, tasks].to_numpy(), images[method][tasks].to_numpy())
        least = min(least, ends[0].min())
        axes.hlines(places - shift, *ends, color=_of(rows, method)["color"], lw=1.8)
    axes.axvline(0, color="#777777", lw=0.8)
    axes.set_yticks(places, [*tasks[:-1], "all images"])
    axes.grid(axis="x", color="#DDDDDD", lw=0.6)
    axes.set(xlabel="Spearman's rank correlation of entropy and loss", xlim=(least - 0.02, 1.03))
    figure.legend(loc="outside upper center", ncols=len(methods), frameon=False, fontsize=9)
    return figure


def around(rho: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Approximate 95 % interval of Spearman's correlation: Fisher's z with the variance (1 + ρ²/2) / (n − 3).

    The variance is Bonett's and Wright's (Psychometrika 65, 2000). Where it is undefined, at |ρ| = 1 or for fewer than
    four images, the interval is the value.

    Arguments:
        rho: correlations.
        n: how many images each is over.
    """
    rho, n = np.asarray(rho, float), np.asarray(n, float)
    known = (np.abs(rho) < 1) & (n > 3)
    z, wide = np.arctanh(np.where(known, rho, 0)), 1.96 * np.sqrt((1 + rho**2 / 2) / np.where(known, n - 3, 1))
    low, high = (np.where(known, np.tanh(end), rho) for end in (z - wide, z + wide))
    return low, high


def _bars(axes: Axes, line: pd.Series, half: pd.Series, tint: str) -> None:
    half = half.reindex(line.index)
    axes.vlines(line.index, (line - half).clip(lower=0), line + half, color=tint, lw=1.2)


def _methods(rows: pd.DataFrame) -> list[str]:
    return list(rows["method"].unique())


def _of(rows: pd.DataFrame, method: str) -> dict[str, str]:
    return {"color": colour(method, needs(rows).get(method)), "label": labels(rows)[method]}
