"""Figures of the leaderboard: average accuracy against what is kept for each task, and against the time it takes."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from adamerging_lib.methods.registry import NEEDS

from ..tables import label
from ..tables.leaderboard import ONE, PARTS, REFERENCE, standings
from .style import METHOD_DASHES, NEEDS_COLOURS, NEEDS_MARKERS, WIDTH, colour, edge_labels, marker, styled


@styled
def over_storage(rows: pd.DataFrame) -> Figure:
    """Average accuracy against the numbers kept for each task: on the left those that keep nothing, a column for each
    kind of needs; on the right the others, on a logarithmic axis. The title says who is best on either side.

    Arguments:
        rows: rows of a leaderboard record.
    """
    frame = standings(rows)
    merging = frame[frame["group"] != REFERENCE]
    none, some = merging[merging["storage"] == 0], merging[merging["storage"] > 0]
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, _height(len(none))), sharey=True)
    columns = none["needs"].map(dict(zip(NEEDS, range(len(NEEDS)), strict=True))).astype(float)
    left.set(xlim=(-0.6, len(NEEDS) - 0.4), xticks=[], xlabel="nothing")
    _decorate(figure, merging, {"nothing kept": none, "parts for each task": some})
    right.set(xscale="log", xlabel="numbers kept for each task")
    if len(some):
        right.set_xlim(some["storage"].min() / 2.5, some["storage"].max() * 2.5)
    right.xaxis.set_major_formatter(FuncFormatter(_short))
    for axes, part, x in ((left, none, columns), (right, some, some["storage"])):
        named = _points(axes, part, x)
        references = _references(axes, frame)
        edge_labels(axes, named if axes is left else named | references, "left" if axes is left else "right")
    left.tick_params(axis="y", length=0, labelleft=False)
    right.tick_params(axis="y", labelleft=True)
    right.set_title("average accuracy (%)", loc="left", fontsize=9, fontweight="normal", x=-0.2)
    return figure


@styled
def over_seconds(rows: pd.DataFrame) -> Figure:
    """Average accuracy against the seconds that it takes to make the model, on a logarithmic axis; hollow where a
    method keeps parts for each task, grey steps for the best single model without labels so far. The title says which
    that is within a second and at any price.

    Arguments:
        rows: rows of a leaderboard record.
    """
    frame = standings(rows)
    merging = frame[(frame["group"] != REFERENCE) & frame["seconds"].notna()]
    seconds = merging["seconds"].clip(lower=1e-3)
    figure, axes = plt.subplots(figsize=(WIDTH, _height(len(merging) // 2 + 3)))
    axes.set(xscale="log", xlabel="seconds of one core to make the model")
    axes.set_xlim(seconds.min() / 2.5, seconds.max() * 1.6)  # on the left, room for the numbers of the other axis
    axes.xaxis.set_major_formatter(FuncFormatter(_short))
    single = merging[(merging["kind"] == ONE) & (merging["needs"] != "labels")]
    quick = single[seconds[single.index] <= 1]
    _decorate(figure, merging, {"one model within a second": quick, "one model at any price": single})
    front = seconds[single.index].sort_values(kind="stable")
    axes.step(front, merging.loc[front.index, "average"].cummax(), where="post", color="#DCDCDC", lw=4, zorder=0.3)
    named, references = _points(axes, merging, seconds), _references(axes, frame)
    early = seconds.rank(method="first") <= (len(seconds) + len(references)) / 2
    edge_labels(axes, {label(m): named[label(m)] for m in merging.index[early]}, "left")
    edge_labels(axes, {label(m): named[label(m)] for m in merging.index[~early]} | references, "right")
    axes.tick_params(axis="y", length=0, direction="in", pad=-22, labelsize=9, labelcolor="#6A6A6A")
    plt.setp(axes.get_yticklabels(), bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
    axes.set_title("average accuracy (%)", loc="left", fontsize=9, fontweight="normal")
    return figure


def _height(names: int) -> float:
    """Inches for so many names above each other, and what stands above and below them."""
    return max(3.2, 0.165 * names) + 1.9


def _decorate(figure: Figure, merging: pd.DataFrame, competitions: dict[str, pd.DataFrame]) -> None:
    """Title with the best of each competition that needs no labels, and the legend of what methods need."""
    lines = ["Best without labels"]
    for name, part in competitions.items():
        part = part[part["needs"] != "labels"]
        if len(part):
            best = part["average"].idxmax()
            lines.append(f"{name}: {label(best)}, {part.loc[best, 'average']:.1f}")
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    shown = [needs for needs in NEEDS if needs in set(merging["needs"])]
    edge = {"ls": "", "ms": 6.5, "mec": "#333333", "mew": 0.5}
    figure.legend(
        handles=[plt.Line2D([], [], marker=NEEDS_MARKERS[n], mfc=NEEDS_COLOURS[n], label=n, **edge) for n in shown],
        title="needs, beyond checkpoints", alignment="left", title_fontsize=9, fontsize=9, ncols=2, frameon=False,
        loc="outside lower left", handletextpad=0.2, columnspacing=1.2,
    )  # fmt: skip


def _points(axes: Axes, frame: pd.DataFrame, x: pd.Series) -> dict[str, tuple[float, float]]:
    """One marker a method, hollow where it keeps parts for each task; names and places."""
    for method, row in frame.iterrows():
        filled = {"mfc": colour(method), "mec": "#333333", "mew": 0.5}
        hollow = {"mfc": "white", "mec": colour(method), "mew": 1.6}
        style = hollow if row["kind"] == PARTS else filled
        axes.plot(x[method], row["average"], marker(method), ms=6.5, zorder=3, **style)
    return {label(method): (x[method], frame.loc[method, "average"]) for method in frame.index}


def _references(axes: Axes, frame: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Level lines of the reference points, and limits that show all; their names and where they end at the right."""
    axes.set_ylim(frame["average"].min() - 3, min(101, frame["average"].max() + 3))
    axes.grid(axis="y", color="#EFEFEF")
    axes.set_axisbelow(True)
    ends = {}
    for method, row in frame[frame["group"] == REFERENCE].iterrows():
        axes.axhline(row["average"], color=colour(method), ls=METHOD_DASHES.get(method, "-"), lw=1.4, zorder=1)
        ends[label(method)] = (axes.get_xlim()[1], row["average"])
    return ends


def _short(value: float, _position: int | None = None) -> str:
    """1500 as "1.5 k"."""
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
