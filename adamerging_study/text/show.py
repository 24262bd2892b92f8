"""Tables and figures of the page on text: its tasks, the standings, and what AdaMerging gains task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..frames import AVERAGE, BOUNDS, accuracies, average_half_widths, headline, labelled, labels, needs
from ..sample import Sample, interval
from ..style import NEEDS_MARKERS, WIDTH, colour, heatmap, styled

if TYPE_CHECKING:
    from adamerging_lib.suite import Suite

BASE = "task_arithmetic"


def tasks(suite: Suite, stands_for: Mapping[str, str]) -> pd.DataFrame:
    """Each task: the data set whose kind it is of, its classes, chance and test texts, as text.

    Arguments:
        suite: of text.
        stands_for: task → data set.
    """
    lines = {
        task: {
            "of the kind of": stands_for[task],
            "classes": ", ".join(data.classes),
            "chance": f"{100 / len(data.classes):.1f} %",
            "test texts": f"{len(data):,}",
        }
        for task, data in suite.test.items()
    }
    return pd.DataFrame(lines).T


def examples(texts: Mapping[str, Sequence[tuple[Sequence[str], str]]]) -> pd.DataFrame:
    """Some texts and their labels: one line per text.

    Arguments:
        texts: task → (text of one or two parts, label).
    """
    lines = [(task, " / ".join(text), label) for task, some in texts.items() for text, label in some]
    return pd.DataFrame(lines, columns=["task", "text", "label"]).set_index("task").rename_axis(index=None)


def standings(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy (percent) on average with half a 95 % interval, and task by task, best method first, as text."""
    frame, told = accuracies(rows), needs(rows)
    frame = frame.loc[frame[AVERAGE].sort_values(ascending=False, kind="stable").index]
    half = average_half_widths(rows)
    shown = {AVERAGE.lower(): frame[AVERAGE].map("{:.1f}".format) + half.map(" ± {:.1f}".format)}
    shown["needs"] = pd.Series({method: told.get(method, "") for method in frame.index})
    shown |= {task: frame[task].map("{:.1f}".format) for task in frame if task != AVERAGE}
    return labelled(pd.DataFrame(shown).loc[frame.index], rows)


def gains(rows: pd.DataFrame) -> pd.Series:
    """Merging method → gain over Task Arithmetic, points, with the ends of its paired 95 % interval, best first."""
    sample = Sample(headline(rows))
    merging = [method for method in accuracies(rows).index if method not in (*BOUNDS, BASE)]
    base = sample.average(BASE)
    found = {method: interval(sample.average(method) - base) for method in merging}
    frame = pd.DataFrame(found, index=["gain", "low", "high"]).T.astype(float)
    return frame.sort_values("gain", ascending=False, kind="stable")


@styled
def forest(rows: pd.DataFrame) -> Figure:
    """Gain of every merging method over Task Arithmetic, best on top, with paired 95 % intervals.

    Arguments:
        rows: rows of a record of this experiment.
    """
    frame, label, told = gains(rows)[::-1], labels(rows), needs(rows)
    figure, axes = plt.subplots(figsize=(WIDTH, 0.25 * len(frame) + 1.6))
    for y, (method, row) in enumerate(frame.iterrows()):
        hue = colour(method, told.get(method))
        marker = NEEDS_MARKERS[told[method]]
        axes.plot([row["low"], row["high"]], [y, y], color=hue, lw=1.8, solid_capstyle="butt")
        axes.plot(row["gain"], y, marker, ms=6, mfc=hue, mec="#333333", mew=0.5)
    axes.axvline(0, color="#B0B0B0", lw=1, zorder=0)
    axes.set_yticks(range(len(frame)), [label[method] for method in frame.index], fontsize=9.5)
    axes.set(xlabel=f"points above {label[BASE]}, on average over the tasks", ylim=(-0.7, len(frame) - 0.3))
    axes.tick_params(axis="y", length=0)
    kinds = [kind for kind in NEEDS_MARKERS if kind in {told[method] for method in frame.index}]
    handles = [plt.Line2D([], [], ls="", marker=NEEDS_MARKERS[kind], mfc="#9A9A9A", mec="#333333") for kind in kinds]
    figure.legend(handles, kinds, loc="outside lower left", ncols=2, frameon=False, fontsize=9, title="needs",
                  alignment="left", title_fontsize=9)  # fmt: skip
    return figure


@styled
def gains_by_task(rows: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Points above Task Arithmetic, methods × tasks, the average last.

    Arguments:
        rows: rows of a record of this experiment.
        methods: ids, in order; those that were not run are left out.
    """
    frame = accuracies(rows)
    frame = (frame - frame.loc[BASE]).loc[[method for method in methods if method in frame.index]]
    limit = max(1.0, np.abs(frame.to_numpy()).max())
    figure, axes = plt.subplots(figsize=(WIDTH, 0.36 * len(frame) + 1.4))
    heatmap(axes, labelled(frame, rows), digits=1, cmap="RdBu", vmin=-limit, vmax=limit)
    axes.axvline(len(frame.columns) - 1, color="white", lw=3)
    return figure
