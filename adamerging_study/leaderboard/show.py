"""Tables and figures of the leaderboard: methods compete only where they need the same and give the same.

Rows are a frame of `records.frame`; the row ``Average`` also tells ``seconds``, ``memory`` (bytes) and ``storage``
(numbers of 32 bits per task).
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from adamerging_lib.published import ARCHITECTURES, POOLS, leaderboard, pool_averages
from adamerging_lib.published.competitions import BOUNDS, NEEDS, ONE, PARTS, REFERENCE, competition, competitions

from ..display import Table
from ..frames import AVERAGE, accuracies, average_half_widths, averages, headline, labelled, points
from ..style import METHOD_DASHES, NEEDS_COLOURS, NEEDS_MARKERS, WIDTH, colour, edge_labels, styled

ADAMERGING = (
    "task_wise_adamerging", "task_wise_adamerging_pp", "layer_wise_adamerging", "layer_wise_adamerging_pp",
)  # fmt: skip


def standings(rows: pd.DataFrame) -> pd.DataFrame:
    """The leaderboard as numbers, a mean over seeds where there are several.

    Arguments:
        rows: rows of a leaderboard record.

    Returns:
        Method ids × ``label, competition, needs, gives, average`` (percent), ``normalised`` (mean over tasks of
        accuracy by the task's own expert, percent; missing where experts were not run), ``seconds, memory`` (MB),
        ``storage``; by competition, best first, a tie by name.
    """
    single = accuracies(rows).drop(columns=AVERAGE)
    own = headline(rows).query("task == @AVERAGE").groupby("method", sort=False)
    frame = own[["label", "needs", "gives"]].first().reindex(single.index)
    names = [competition(row.Index, row.needs, row.gives) for row in frame.itertuples()]
    frame.insert(1, "competition", pd.Categorical(names, competitions(), ordered=True))
    frame["average"] = averages(rows)
    experts = single.loc["individual"] if "individual" in single.index else float("nan")
    frame["normalised"] = 100 * (single / experts).mean(axis=1)
    costs = own[["seconds", "memory", "storage"]].mean()
    frame["seconds"], frame["memory"], frame["storage"] = costs["seconds"], costs["memory"] / 1e6, costs["storage"]
    return frame.sort_values(["competition", "average", "label"], ascending=[True, False, True]).rename_axis("method")


def by_competition(rows: pd.DataFrame, pool: str = "P1") -> list[Table]:
    """One table per competition, best method first, published averages of one checkpoint pool beside.

    Arguments:
        rows: rows of a leaderboard record.
        pool: ``P1``, ``P2`` or ``P3``.
    """
    frame, half = standings(rows), average_half_widths(rows)
    theirs = pool_averages(pool).reindex(frame.index)
    measured = pd.DataFrame(
        {
            "average": frame["average"].map("{:.1f}".format) + " ± " + half.map("{:.1f}".format),
            "of experts, %": _text(frame["normalised"], ".1f"),
            "seconds": _text(frame["seconds"], ".2g", whole_from=10),
            "MB": _text(frame["memory"], ".0f"),
            "numbers kept per task": _text(frame["storage"], ",.0f"),
        }
    )
    # What a reference point costs is training, which nobody does here.
    measured.loc[frame["competition"] == REFERENCE, ["seconds", "MB"]] = None
    parts = {"measured": measured, f"published, {pool}": theirs.map(_as_printed, na_action="ignore")}
    shown = pd.concat(parts, axis="columns").rename_axis(columns=[None, None])
    return [
        Table(labelled(shown.loc[part.index], rows), f"{name[:1].upper()}{name[1:]}")
        for name, part in frame.groupby("competition", observed=True, sort=True)
    ]


def by_task(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy (percent) of every method on every task, in the order of the standings, as text."""
    frame = accuracies(rows).loc[standings(rows).index]
    return labelled(frame.map("{:.1f}".format), rows).rename_axis(columns=None)


def published_beside(rows: pd.DataFrame, pool: str = "P1") -> pd.DataFrame:
    """Everything published of one checkpoint pool, our own average beside where we have run the method.

    Arguments:
        rows: rows of a leaderboard record.
        pool: ``P1``, ``P2`` or ``P3``.

    Returns:
        One line per published method and source: needs as published, averages of three architectures, the measured one
        (for the first source of a method), source.
    """
    keys = ["method", "method_id", "needs", "source"]
    frame = leaderboard(pool).pivot(index=keys, columns="arch", values="accuracy")
    order = leaderboard(pool)[keys].drop_duplicates()
    frame = frame.reindex(columns=list(ARCHITECTURES)).loc[pd.MultiIndex.from_frame(order)].reset_index()
    ours = averages(rows).map("{:.1f}".format)
    first = ~frame["method_id"].duplicated()
    frame["measured"] = frame["method_id"].where(first).map(ours)
    for arch, name in ARCHITECTURES.items():
        frame[f"published, {name}"] = frame[arch].map(_as_printed, na_action="ignore")
    frame["published needs"] = frame["needs"].replace("", "–")
    columns = [f"published, {name}" for name in ARCHITECTURES.values()]
    return frame[["method", "measured", *columns, "published needs", "source"]].set_index("method").rename_axis(None)


def in_words(rows: pd.DataFrame) -> list[str]:
    """One sentence per competition of two or more: the winner, its lead, how near it comes to the experts."""
    frame, lines = standings(rows), []
    for name, part in frame.groupby("competition", observed=True, sort=True):
        if name == REFERENCE or len(part) < 2:
            continue
        best, second = part.iloc[0], part.iloc[1]
        share = "" if pd.isna(best["normalised"]) else f", {best['normalised']:.1f} % of the experts"
        lines.append(
            f"{name[:1].upper()}{name[1:]}: {best['label']} leads with {best['average']:.1f}{share}, "
            f"{points(best['average'] - second['average'])} {second['label']}; {len(part)} methods."
        )
    return lines


def slow(rows: pd.DataFrame, seconds: float) -> list[str]:
    """Methods that took longer than so many seconds, slowest first, as sentences."""
    frame = standings(rows).sort_values("seconds", ascending=False, kind="stable")
    slow = frame[frame["seconds"] > seconds]
    return [f"{row['label']}: {row['seconds']:.0f} s" for _, row in slow.iterrows()] or ["none"]


def pool_caption(pool: str) -> str:
    """Which experts the published numbers belong to."""
    return f"Published averages: pool {pool}, {POOLS[pool]}; over the paper's own eight tasks."


def order_in_words(rows: pd.DataFrame, pool: str, arch: str) -> list[str]:
    """How far the order of merging methods is the published one: rank correlation over those that have both numbers.

    Arguments:
        rows: rows of a leaderboard record.
        pool: ``P1``, ``P2`` or ``P3``.
        arch: ``ViT-B-32``, ``ViT-B-16`` or ``ViT-L-14``.
    """
    theirs = pool_averages(pool)[ARCHITECTURES[arch]]
    both = pd.concat([averages(rows).drop(index=list(BOUNDS), errors="ignore"), theirs], axis=1, join="inner").dropna()
    where = f"published for {ARCHITECTURES[arch]} in pool {pool}"
    if len(both) < 3:
        return [f"Fewer than three of the merging methods run here have an average {where}."]
    rho = both.iloc[:, 0].corr(both.iloc[:, 1], method="spearman")
    return [f"{len(both)} merging methods have an average {where}; rank correlation with the order here: {rho:.2f}."]


@styled
def ranking(rows: pd.DataFrame) -> Figure:
    """Average accuracy of every method, best on top, with 95 % intervals where they are known: the marker says what it
    needs, hollow where it keeps parts for each task. Reference points are lines.

    Arguments:
        rows: rows of a leaderboard record.
    """
    frame, half = standings(rows), average_half_widths(rows)
    merging = frame[frame["competition"] != REFERENCE].sort_values("average", kind="stable")
    figure, axes = plt.subplots(figsize=(WIDTH, 0.19 * len(merging) + 1.7))
    for y, (method, row) in enumerate(merging.iterrows()):
        _mark(axes, method, row, row["average"], y, xerr=half[method] if pd.notna(half[method]) else None)
    axes.set_yticks(range(len(merging)), merging["label"], fontsize=9)
    axes.set(xlabel="average accuracy (%)", ylim=(-0.8, len(merging) - 0.2))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#EFEFEF")
    axes.set_axisbelow(True)
    for method, row in frame[frame["competition"] == REFERENCE].iterrows():
        axes.axvline(row["average"], color=colour(method), ls=METHOD_DASHES.get(method, "-"), lw=1.4, zorder=1,
                     label=row["label"])  # fmt: skip
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper right", ncols=3, fontsize=9, frameon=False)
    _legend(figure, merging)
    return figure


@styled
def over_storage(rows: pd.DataFrame) -> Figure:
    """Average accuracy against the numbers kept for each task, on a logarithmic axis, of methods that keep any; the
    best of those that keep nothing is a line. The title says who is best without labels on either side.

    Arguments:
        rows: rows of a leaderboard record.
    """
    frame = standings(rows)
    merging = frame[frame["competition"] != REFERENCE]
    none, some = merging[merging["storage"] == 0], merging[merging["storage"] > 0]
    figure, axes = plt.subplots(figsize=(WIDTH, 4.6))
    _decorate(figure, some, {"nothing kept": none, "parts for each task": some})
    axes.set(xscale="log", xlabel="numbers kept for each task", ylabel="average accuracy (%)")
    if len(some):
        axes.set_xlim(some["storage"].min() / 2.5, some["storage"].max() * 2.5)
    axes.xaxis.set_major_formatter(FuncFormatter(_short))
    named, best = _points(axes, some, some["storage"]), _best(none)
    references = _references(axes, frame)
    if best is not None:
        axes.axhline(best["average"], color="#9A9A9A", lw=1.4, zorder=1)
        references[f"best that keeps nothing: {best['label']}"] = (axes.get_xlim()[1], best["average"])
    edge_labels(axes, named | references, "right")
    return figure


@styled
def over_seconds(rows: pd.DataFrame) -> Figure:
    """Average accuracy against the seconds that it takes to make the model, on a logarithmic axis; hollow where a
    method keeps parts for each task, grey steps for the best single model without labels so far. The title says which
    that is within a second and at any price. Named are the methods on the steps, those with parts, and AdaMerging.

    Arguments:
        rows: rows of a leaderboard record.
    """
    frame = standings(rows)
    merging = frame[(frame["competition"] != REFERENCE) & frame["seconds"].notna()]
    seconds = merging["seconds"].clip(lower=1e-3)
    figure, axes = plt.subplots(figsize=(WIDTH, 5.2))
    axes.set(xscale="log", xlabel="seconds of one core to make the model", ylabel="average accuracy (%)")
    axes.set_xlim(seconds.min() / 1.6, seconds.max() * 1.6)
    axes.xaxis.set_major_formatter(FuncFormatter(_short))
    single = merging[(merging["gives"] == ONE) & (merging["needs"] != "labels")]
    quick = single[seconds[single.index] <= 1]
    _decorate(figure, merging, {"one model within a second": quick, "one model at any price": single})
    order = seconds[single.index].sort_values(kind="stable").index
    front = merging.loc[order, "average"].cummax()
    axes.step(seconds[order], front, where="post", color="#DCDCDC", lw=4, zorder=0.3)
    places, references = _points(axes, merging, seconds), _references(axes, frame)
    steps = merging.loc[front.index[~front.duplicated()], "label"]  # the first at each height: ties would crowd
    told = {*steps, *merging.loc[merging["gives"] == PARTS, "label"], *merging["label"][merging.index.isin(ADAMERGING)]}
    edge_labels(axes, {name: place for name, place in places.items() if name in told} | references, "right")
    return figure


def _best(frame: pd.DataFrame) -> pd.Series | None:
    """The best method that needs no labels; None where there is none."""
    frame = frame[frame["needs"] != "labels"]
    return frame.loc[frame["average"].idxmax()] if len(frame) else None


def _decorate(figure: Figure, merging: pd.DataFrame, competitions: dict[str, pd.DataFrame]) -> None:
    """Title with the best of each competition that needs no labels, and the legend of what methods need."""
    lines = ["Best without labels"]
    for name, part in competitions.items():
        if (best := _best(part)) is not None:
            lines.append(f"{name}: {best['label']}, {best['average']:.1f}")
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    _legend(figure, merging)


def _legend(figure: Figure, merging: pd.DataFrame) -> None:
    """What the methods need, by marker."""
    shown = [needs for needs in NEEDS if needs in set(merging["needs"])]
    edge = {"ls": "", "ms": 6.5, "mec": "#333333", "mew": 0.5}
    figure.legend(
        handles=[plt.Line2D([], [], marker=NEEDS_MARKERS[n], mfc=NEEDS_COLOURS[n], label=n, **edge) for n in shown],
        title="needs, beyond checkpoints; hollow: parts for each task", alignment="left", title_fontsize=9, fontsize=9,
        ncols=2, frameon=False, loc="outside lower left", handletextpad=0.2, columnspacing=1.2,
    )  # fmt: skip


def _points(axes: Axes, frame: pd.DataFrame, x: pd.Series) -> dict[str, tuple[float, float]]:
    """One marker per method; names and places."""
    for method, row in frame.iterrows():
        _mark(axes, method, row, x[method], row["average"])
    return {row["label"]: (x[method], row["average"]) for method, row in frame.iterrows()}


def _mark(axes: Axes, method: str, row: pd.Series, x: float, y: float, xerr: float | None = None) -> None:
    """The marker of a method, hollow where it keeps parts for each task."""
    hue = colour(method, row["needs"])
    filled, hollow = {"mfc": hue, "mec": "#333333", "mew": 0.5}, {"mfc": "white", "mec": hue, "mew": 1.6}
    style = hollow if row["gives"] == PARTS else filled
    if xerr is not None:
        axes.plot([x - xerr, x + xerr], [y, y], color=hue, lw=1.8, solid_capstyle="butt", zorder=2)
    axes.plot(x, y, NEEDS_MARKERS[row["needs"]], ms=6.5, zorder=3, **style)


def _references(axes: Axes, frame: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Level lines of the reference points, and limits that show all; their names and where they end at the right."""
    axes.set_ylim(frame["average"].min() - 3, min(101, frame["average"].max() + 3))
    axes.grid(axis="y", color="#EFEFEF")
    axes.set_axisbelow(True)
    ends = {}
    for method, row in frame[frame["competition"] == REFERENCE].iterrows():
        axes.axhline(row["average"], color=colour(method), ls=METHOD_DASHES.get(method, "-"), lw=1.4, zorder=1)
        ends[row["label"]] = (axes.get_xlim()[1], row["average"])
    return ends


def _short(value: float, _position: int | None = None) -> str:
    """1500 as "1.5 k"."""
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _text(values, spec: str, whole_from: float = float("inf")):
    """Numbers as text, missing ones left missing; from ``whole_from`` on without digits after the point."""
    return values.map(lambda v: f"{v:.0f}" if abs(v) >= whole_from else format(v, spec), na_action="ignore")


def _as_printed(value: float) -> str:
    """Two digits after the point where two were printed."""
    return f"{value:.2f}".removesuffix("0")
