"""Tables and figures of the main comparison: the paper's Tables 1, 2 and 5 and Figure 1, and the README's picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adamerging_lib.published import ARCHITECTURES, figure1, published

from ..frames import AVERAGE, BOUNDS, accuracies, averages, interval_half_widths, labelled, labels, points
from ..style import METHOD_DASHES, WIDTH, colour, heatmap, spread, styled


def sweep(rows: pd.DataFrame) -> pd.DataFrame:
    """Average accuracy over λ: ``method, scaling, accuracy``, sorted; a mean over seeds where there are several."""
    if "scaling" not in rows:
        return pd.DataFrame(columns=["method", "scaling", "accuracy"])
    points = rows[rows["scaling"].notna() & (rows["task"] == AVERAGE)]
    return points.groupby(["method", "scaling"], sort=True, as_index=False)["accuracy"].mean()


def published_averages() -> pd.DataFrame:
    """Published average accuracies of Tables 1, 2 and 5: method ids × architectures as in prose."""
    rows = published("performance").query("task == @AVERAGE")
    frame = rows.pivot(index="method_id", columns="arch", values="accuracy")
    return frame[list(ARCHITECTURES)].rename(columns=ARCHITECTURES)


def published_performance(arch: str) -> pd.DataFrame:
    """The paper's Table 1, 2 or 5 as printed, averages included: methods × tasks, as text."""
    rows = published("performance", arch=arch)
    frame = rows.pivot_table(index="method", columns="task", values="accuracy", sort=False)
    frame.columns = pd.MultiIndex.from_product([[f"published, {ARCHITECTURES[arch]}"], frame.columns.tolist()])
    return frame.map("{:.1f}".format, na_action="ignore").rename_axis(index=None)


def comparison(rows: pd.DataFrame) -> pd.DataFrame:
    """The paper's Tables 1, 2 and 5 as measured, the published averages beside them.

    Arguments:
        rows: rows of a performance record.

    Returns:
        Methods × (the average, "accuracy ± half a 95 % interval"; published averages of three architectures; the
        same interval task by task), as text. Of a method with several seeds, accuracies are means and intervals are
        over test images and seeds; of one with a single seed, they are over test images and say nothing about others.
    """
    measured = accuracies(rows)
    half = interval_half_widths(rows).reindex_like(measured)
    cells = measured.map("{:.1f}".format) + " ± " + half.map("{:.1f}".format)
    theirs = published_averages().reindex(measured.index).map("{:.1f}".format, na_action="ignore")
    parts = {
        "average": cells[[AVERAGE]].rename(columns={AVERAGE: "measured"}),
        "average, published": theirs,
        "measured, by task": cells.drop(columns=AVERAGE),
    }
    return labelled(pd.concat(parts, axis="columns").rename_axis(columns=[None, None]), rows)


def gap_to_experts(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every method minus that of the task's own expert, paired by task: method ids × tasks, in points."""
    frame = accuracies(rows)
    if "individual" not in frame.index:
        raise ValueError("the record has no rows of 'individual': run it too, the gap is measured against it")
    return frame.drop(index="individual") - frame.loc["individual"]


def ranking(rows: pd.DataFrame, arch: str = "ViT-B-32") -> pd.DataFrame:
    """Merging methods from best to worst: place, average, lead over the next, and the published place beside.

    Arguments:
        rows: rows of a performance record.
        arch: whose published averages order the last two columns.
    """
    ours = averages(rows).drop(index=list(BOUNDS), errors="ignore").sort_values(ascending=False, kind="stable")
    theirs = published_averages()[ARCHITECTURES[arch]].reindex(ours.index)
    frame = pd.DataFrame(
        {
            "place": range(1, len(ours) + 1),
            "average": ours.map("{:.1f}".format),
            "lead over the next": (ours - ours.shift(-1)).map("{:+.1f}".format, na_action="ignore"),
            "published place": theirs.rank(ascending=False, method="min").astype("Int64").astype("string"),
            f"published average, {ARCHITECTURES[arch]}": theirs.map("{:.1f}".format, na_action="ignore"),
        }
    )
    return labelled(frame, rows)


def ranking_in_words(rows: pd.DataFrame, arch: str = "ViT-B-32") -> list[str]:
    """What the table shows, one sentence per line: best method, gains over Task Arithmetic and Ties at their best λ."""
    ours, label = averages(rows), labels(rows)
    merged = ours.drop(index=list(BOUNDS), errors="ignore")
    best = merged.idxmax()
    lines = [f"Best merged model: {label[best]}, {merged[best]:.1f} on average."]
    for bound in ("individual", "traditional_mtl"):
        if bound in ours:
            lines.append(f"It is {points(merged[best] - ours[bound])} {label[bound]} ({ours[bound]:.1f}).")
    theirs = published_averages()[ARCHITECTURES[arch]]
    for learned, base in {"layer_wise_adamerging": "task_arithmetic", "layer_wise_adamerging_pp": "ties"}.items():
        peak = best_scaling(rows, base)
        if learned in ours and peak is not None:
            scaling, accuracy = peak
            lines.append(
                f"{label[learned]} is {points(ours[learned] - accuracy)} {label[base]} at its best λ ({scaling:g}); "
                f"published, {ARCHITECTURES[arch]}: {points(theirs[learned] - theirs[base])} it."
            )
    return lines


def best_scaling(rows: pd.DataFrame, method: str) -> tuple[float, float] | None:
    """λ with the highest average accuracy in a method's sweep, and that accuracy; None without a sweep."""
    points = sweep(rows).query("method == @method")
    if points.empty:
        return None
    top = points.loc[points["accuracy"].idxmax()]
    return float(top["scaling"]), float(top["accuracy"])


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
    """Average accuracy of every method, best on top, with the 95 % intervals of `comparison`.

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
    frame = labelled(frame, rows)
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
    points, level, label = sweep(rows), averages(rows), labels(rows)
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
            label[method],
            xy=(right, ends[method]),
            xytext=(right * 1.08, y),
            va="center",
            fontsize=9.5,
            arrowprops=style,
            annotation_clip=False,
        )


def _draw_averages(axes: Axes, rows: pd.DataFrame, arch: str | None) -> None:
    order = averages(rows).sort_values()
    half, label = interval_half_widths(rows)["Average"], labels(rows)
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
    axes.set_yticks(range(len(order)), [label[method] for method in order.index])
    axes.set(xlabel="average accuracy (%)", xlim=(0, 112), xticks=range(0, 101, 20))
    axes.tick_params(axis="y", length=0)
