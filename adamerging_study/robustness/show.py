"""Tables and figures of corrupted images: the paper's Tables 4 and 7 and Figure 6, two settings, the failure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from adamerging_lib.published import ARCHITECTURES, published

from ..frames import AVERAGE, labels, needs
from ..style import WIDTH, colour, styled
from .numbers import FIXED, LEARNED, severity

# Entropy alone has AdaMerging's own colour; the cures are told apart by colour and dash.
OBJECTIVE_STYLES = (("#D55E00", "-"), ("#0072B2", "--"), ("#00795B", "-."), ("#B0508A", ":"), ("#5F5F5F", (0, (6, 1))))


def names(conditions: Iterable[str]) -> list[str]:
    """Conditions as in prose: ``motion_blur`` → motion blur."""
    return [condition.replace("_", " ").replace("jpeg", "JPEG") for condition in conditions]


def compared(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the comparison itself: no steps of the failure, and no other severity than that of the comparison."""
    rows = rows[rows["step"].isna()] if "step" in rows else rows
    level = severity(rows)
    return rows[rows["severity"].isin([0, level])]


def averages(rows: pd.DataFrame, adapted_on: str = "corrupted") -> pd.DataFrame:
    """Average accuracy (percent), conditions × methods in the record's order, a mean over seeds.

    Arguments:
        rows: of the record.
        adapted_on: the images that adaptive methods learned on under a corruption: ``corrupted`` or ``clean``.
    """
    rows = compared(rows)
    own = (rows["adapted_on"] == "nothing") | (rows["adapted_on"] == adapted_on) | (rows["condition"] == "clean")
    rows = rows[own & (rows["task"] == AVERAGE)]
    return rows.pivot_table(index="condition", columns="method", values="accuracy", sort=False)


def published_averages(arch: str) -> pd.DataFrame:
    """The same from the paper's Table 4 or 7."""
    rows = published("robustness", arch=arch).query("task == @AVERAGE")
    return rows.pivot_table(index="condition", columns="method_id", values="accuracy", sort=False)


def by_corruption(rows: pd.DataFrame, arch: str) -> pd.DataFrame:
    """Averages of every method on clean images and under every corruption, the published ones beside, as text."""
    ours, label = averages(rows), labels(rows)
    theirs = published_averages(arch).reindex(ours.index)
    theirs = theirs[[method for method in theirs if method in ours]]
    parts = {}
    for where, frame in (("measured", ours), (f"published, {ARCHITECTURES[arch]}", theirs)):
        part = frame.rename(columns=label).map("{:.1f}".format, na_action="ignore")
        if {LEARNED, FIXED} <= set(frame):
            part["gain"] = (frame[LEARNED] - frame[FIXED]).map("{:+.1f}".format, na_action="ignore")
        parts[where] = part
    table = pd.concat(parts, axis="columns").rename_axis(columns=[None, None])
    return table.set_axis(names(table.index))


def by_task(rows: pd.DataFrame) -> pd.DataFrame:
    """Every task's accuracy (percent, as text): (condition, method) × tasks, as the paper prints its Tables 4 and 7."""
    rows, label = compared(rows), labels(rows)
    rows = rows[(rows["adapted_on"] != "clean") | (rows["condition"] == "clean")]
    frame = rows.pivot_table(index=["condition", "method"], columns="task", values="accuracy", sort=False)
    frame = frame[[*(task for task in frame if task != AVERAGE), AVERAGE]].map("{:.1f}".format)
    frame.index = pd.MultiIndex.from_tuples([(*names([c]), label[m]) for c, m in frame.index])
    return frame.rename_axis(columns=None)


def published_by_task(arch: str) -> pd.DataFrame:
    """The paper's Table 4 or 7 as printed, as text."""
    rows = published("robustness", arch=arch)
    frame = rows.pivot_table(index=["condition", "method"], columns="task", values="accuracy", sort=False)
    frame = frame.map(lambda value: max(f"{value:.1f}", f"{value:g}", key=len))  # one digit, two where two are printed
    frame.index = pd.MultiIndex.from_tuples([(*names([c]), m) for c, m in frame.index])
    frame.columns = pd.MultiIndex.from_product([[f"published, {ARCHITECTURES[arch]}"], frame.columns.tolist()])
    return frame


def settings(rows: pd.DataFrame, method: str = LEARNED) -> pd.DataFrame:
    """Averages of one adaptive method under every corruption when it learned on clean and on the corrupted images.

    Arguments:
        rows: of the record.
        method: an adaptive method id.

    Returns:
        Conditions × (learned on clean images, learned on the corrupted images, difference), as text.
    """
    clean, corrupted = (averages(rows, on)[method].drop("clean") for on in ("clean", "corrupted"))
    frame = pd.DataFrame({"learned on clean images": clean, "learned on the corrupted ones": corrupted})
    frame.loc["mean"] = frame.mean()
    text = frame.map("{:.1f}".format)
    text["difference"] = (frame.iloc[:, 1] - frame.iloc[:, 0]).map("{:+.1f}".format)
    return text.set_axis(names(text.index))


def steps(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the failure: those with a step."""
    return rows[rows["step"].notna()] if "step" in rows else rows.iloc[:0]


def ends(rows: pd.DataFrame, column: str = "accuracy") -> pd.DataFrame:
    """A measurement at the start and, under each objective, at the end: (``start``, objectives …) × tasks."""
    rows = steps(rows)
    last, first = rows[rows["step"] == rows["step"].max()], rows[rows["step"] == 0]
    order = rows["objective"].unique()
    frame = last.pivot_table(index="objective", columns="task", values=column, sort=False).loc[order]
    start = first[first["objective"] == order[0]].groupby("task", sort=False)[column].mean()
    return pd.concat([start.to_frame("start").T, frame])[list(rows["task"].unique())]


def failing_task(rows: pd.DataFrame) -> str:
    """The task that loses most accuracy under the first objective."""
    accuracy = ends(rows).drop(columns=AVERAGE)
    return str((accuracy.iloc[1] - accuracy.loc["start"]).idxmin())


def cures(rows: pd.DataFrame) -> pd.DataFrame:
    """What each objective ends at, as text: every task's accuracy (percent) and their average; entropy and the share of
    the most predicted class on the task that fails."""
    task = failing_task(rows)
    accuracy, entropy, share = (ends(rows, column) for column in ("accuracy", "entropy", "share"))
    columns = {("accuracy", name): accuracy[name].map("{:.1f}".format) for name in accuracy}
    columns[task, "entropy (nats)"] = entropy[task].map("{:.2f}".format)
    columns[task, "most predicted class"] = share[task].map("{:.0f} %".format)
    return pd.DataFrame(columns).rename_axis(index=None)


@styled
def examples(images: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """The paper's Figure 6: one picture per task, clean and under every corruption.

    Arguments:
        images: condition → task → uint8 ``[3, height, width]``, the same tasks under every condition.
    """
    tasks = list(next(iter(images.values())))
    size = (WIDTH, 0.8 * len(images) + 0.3)
    figure, grid = plt.subplots(len(images), len(tasks), figsize=size, squeeze=False)
    for line, (condition, pictures) in zip(grid, images.items(), strict=True):
        for axes, task in zip(line, tasks, strict=True):
            axes.imshow(np.asarray(pictures[task]).transpose(1, 2, 0), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(names([condition])[0], rotation=0, ha="right", va="center")
    for axes, task in zip(grid[0], tasks, strict=True):
        axes.set_title(task, fontsize=9.5, fontweight="normal")
    return figure


@styled
def over_severity(rows: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Average accuracy over severity, one small panel per corruption; adaptive methods as they learned on clean images.

    Clean images and the severity of the comparison have means over all seeds, the other severities the first seed.

    Arguments:
        rows: of the record.
        methods: whose lines.
    """
    label, need = labels(rows), needs(rows)
    rows = rows[(rows["task"] == AVERAGE) & (rows["adapted_on"] != "corrupted")]
    conditions = [c for c in rows["condition"].unique() if c != "clean"]
    lanes = -(-len(conditions) // 2)
    size = (WIDTH, 1.3 * lanes + 0.8)
    figure, grid = plt.subplots(lanes, 2, figsize=size, sharex=True, sharey=True, squeeze=False)
    for axes, condition in zip(grid.flat, conditions, strict=False):
        shown = rows[rows["condition"].isin(["clean", condition])]
        for method in methods:
            line = shown[shown["method"] == method].groupby("severity")["accuracy"].mean()
            shade = colour(method, need.get(method))
            axes.plot(line.index, line, "-o", ms=3.5, color=shade, label=label[method])
        axes.set_title(names([condition])[0], loc="left")
        axes.set(ylim=(0, 100), yticks=(0, 50, 100), xticks=sorted(rows["severity"].unique()))
    for axes in grid.flat[len(conditions) :]:
        axes.set_visible(False)
        grid[max(lanes - 2, 0), -1].tick_params(labelbottom=True)  # nothing below it tells the severities
    figure.supxlabel("severity (0: clean)", fontsize=10.5)
    figure.supylabel("average accuracy (%)", fontsize=10.5)
    handles, texts = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return figure


@styled
def failure(rows: pd.DataFrame, task: str) -> Figure:
    """Entropy, accuracy and share of the most predicted class over the steps on one task, one line per objective.

    The first and the last step have means over all seeds, those between them the first seed.

    Arguments:
        rows: of the record.
        task: whose lines, such as `failing_task`.
    """
    rows = steps(rows)
    rows = rows[rows["task"] == task]
    order = rows["objective"].unique()
    panels = {"entropy": "entropy (nats)", "accuracy": "accuracy (%)", "share": "most predicted class (%)"}
    figure, grid = plt.subplots(len(panels), 1, figsize=(WIDTH, 6.2), sharex=True)
    for axes, (column, title) in zip(grid, panels.items(), strict=True):
        frame = rows.pivot_table(index="step", columns="objective", values=column)[order]
        for number, objective in enumerate(frame):
            shade, dash = OBJECTIVE_STYLES[number % len(OBJECTIVE_STYLES)]
            axes.plot(frame.index, frame[objective], color=shade, ls=dash, lw=1.8, label=objective)
        axes.set_title(f"{task}: {title}", loc="left")
    grid[-1].set_xlabel("steps")
    handles, texts = grid[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return figure
