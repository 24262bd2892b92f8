"""Figures of the performance experiment: accuracy over λ, averages, gaps to the experts, the README's picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adamerging_lib.published import ARCHITECTURES, figure1

from ..tables.common import BOUNDS, averages, interval_half_widths, label
from ..tables.comparison import gap_to_experts, published_averages, sweep
from .style import METHOD_DASHES, WIDTH, colour, heatmap, spread, styled


@styled
def accuracy_over_scaling(rows: pd.DataFrame, mark_published: bool = False) -> Figure:
    """Figure 1: average accuracy over λ; methods without a λ, learned λ and both bounds as level lines.

    Arguments:
        rows: rows of a performance record, its sweep included.
        mark_published: add the four values of the paper's Figure 1 (ViT-B/32), hollow; those without a λ stand at the
            right edge.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 4.6))
    _draw_scaling(axes, rows, mark_published)
    return figure


@styled
def average_accuracies(rows: pd.DataFrame, arch: str | None = None) -> Figure:
    """Average accuracy of every method, best on top, with 95 % intervals over test images.

    Arguments:
        rows: rows of a performance record.
        arch: mark the published averages of this architecture; None marks none.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 3.8))
    _draw_averages(axes, rows, arch)
    return figure


@styled
def gaps(rows: pd.DataFrame) -> Figure:
    """Points between every method and the task's own expert, methods × tasks."""
    frame = gap_to_experts(rows)
    frame = frame.loc[frame["Average"].sort_values(ascending=False).index]
    figure, axes = plt.subplots(figsize=(WIDTH, 0.36 * len(frame) + 1.3))
    limit = max(1.0, frame.abs().to_numpy().max())
    frame = frame.rename(index={method: label(method) for method in frame.index})
    heatmap(axes, frame, digits=0, cmap="RdBu", vmin=-limit, vmax=limit)
    axes.axvline(len(frame.columns) - 1, color="white", lw=3)
    return figure


@styled
def readme(rows: pd.DataFrame, path: str | Path) -> None:
    """The README's picture: Figure 1 and the averages side by side, saved as PNG."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4))
    _draw_scaling(left, rows, False)
    _draw_averages(right, rows, None)
    left.set_title("One λ for all tasks, against learned λ", loc="left")
    right.set_title("The same on average, best on top", loc="left")
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def _draw_scaling(axes: Axes, rows: pd.DataFrame, mark_published: bool) -> None:
    points, level = sweep(rows), averages(rows)
    right = points["scaling"].max() if len(points) else 1.0
    ends = {}
    for method, curve in points.groupby("method", sort=False):
        axes.plot(curve["scaling"], curve["accuracy"], "-o", ms=3.5, color=colour(method), zorder=3)
        ends[method] = curve["accuracy"].iloc[-1]
    for method, accuracy in level.items():
        if method not in ends:
            axes.plot([0, right], [accuracy] * 2, color=colour(method), ls=METHOD_DASHES.get(method, "-"), lw=1.6)
            ends[method] = accuracy
    if mark_published:
        for row in figure1().itertuples():
            at = right if np.isnan(row.scaling) else row.scaling
            axes.plot(at, row.accuracy, "D", ms=6, color=colour(row.method_id), mfc="none", alpha=0.6, clip_on=False)
        axes.plot([], [], "D", color="#5F5F5F", mfc="none", label="published, ViT-B/32")
        axes.legend(frameon=False, loc="lower left", fontsize=9, handletextpad=0.2)
    axes.set(xlabel="merging coefficient λ, one for all tasks", ylabel="average accuracy (%)", xlim=(0, right))
    low, high = max(0, min([*level, *points["accuracy"]]) - 8), 100
    axes.set_ylim(low, high)
    for method, y in zip(ends, spread(list(ends.values()), gap=(high - low) * 0.055), strict=True):
        style = {"arrowstyle": "-", "color": colour(method), "lw": 1.2, "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)}
        axes.annotate(
            label(method),
            xy=(right, ends[method]),
            xytext=(right * 1.08, y),
            va="center",
            fontsize=9.5,
            arrowprops=style,
            annotation_clip=False,
        )


def _draw_averages(axes: Axes, rows: pd.DataFrame, arch: str | None) -> None:
    order = averages(rows).sort_values()
    half = interval_half_widths(rows)["Average"]
    for y, (method, accuracy) in enumerate(order.items()):
        shown = {"alpha": 0.45} if method in BOUNDS else {}
        axes.barh(y, accuracy, height=0.7, color=colour(method), **shown)
        axes.errorbar(accuracy, y, xerr=half[method], color="#222222", lw=1.2, capsize=2.5)
        axes.text(112, y, f"{accuracy:.1f}", va="center", ha="right", fontsize=9.5)
    if arch is not None:
        theirs = published_averages()[ARCHITECTURES[arch]].reindex(order.index)
        text = f"published, {ARCHITECTURES[arch]}"
        axes.plot(theirs, range(len(order)), "D", ms=6, color="#222222", mfc="white", label=text)
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), fontsize=9, handletextpad=0.2)
    axes.set_yticks(range(len(order)), [label(method) for method in order.index])
    axes.set(xlabel="average accuracy (%)", xlim=(0, 112), xticks=range(0, 101, 20))
    axes.tick_params(axis="y", length=0)
