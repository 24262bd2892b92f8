"""Tables and figures of the experiment on reasons: traits of tasks beside what adaptation recovered, interventions."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import rankdata, spearmanr

from ..frames import AVERAGE, without
from ..style import WIDTH, name_points, styled, task_colours
from . import AFTER, BEFORE, FACE, LEAST_LOSS

TRAITS = {
    "classes": "classes",
    "zero_shot": "zero-shot (%)",
    "individual": "expert (%)",
    BEFORE: "before (%)",
    "spearman": "entropy and loss before (ρ)",
}
WON = "recovered share (%)"
FELL, ADDED = "entropy fell by (nats)", "gain, gradients added up"


def by_task(rows: pd.DataFrame, classes: int | None = None) -> pd.DataFrame:
    """One line per task: its traits, accuracy after adaptation, and the recovered share of its merging gap.

    Accuracies are means over seeds. The share is (after − before) / (expert − before); negative where adaptation cost
    accuracy. NaN where merging had cost the task less than ``LEAST_LOSS``.

    Arguments:
        rows: of a record on reasons.
        classes: how many the task with the most of them was left with; None for all.
    """
    own = without(rows, FACE.factors) if classes is None else rows[rows["classes"] == classes]
    own = own[own["task"] != AVERAGE]
    frame = own.pivot_table(index="task", columns="method", values="accuracy", sort=False)
    for trait in ("classes", "spearman"):
        frame[trait] = rows[rows["kind"] == trait].groupby("task")["value"].mean()
    lost = frame["individual"] - frame[BEFORE]
    frame[WON] = 100 * (frame[AFTER] - frame[BEFORE]) / lost.where(lost >= LEAST_LOSS)
    return frame[[*TRAITS, AFTER, WON]]


def told(rows: pd.DataFrame) -> pd.DataFrame:
    """`by_task` as text; the last line is Spearman's correlation of every trait with the recovered share."""
    frame = by_task(rows)
    text = pd.DataFrame({
        **{title: frame[trait].map("{:.1f}".format) for trait, title in TRAITS.items()},
        "after (%)": frame[AFTER].map("{:.1f}".format),
        WON: frame[WON].map(lambda value: "–" if pd.isna(value) else f"{value:.0f}"),
    })  # fmt: skip
    text[TRAITS["classes"]] = frame["classes"].map("{:.0f}".format)
    text[TRAITS["spearman"]] = frame["spearman"].map("{:.2f}".format)
    found, count = correlations(rows), frame[WON].notna().sum()
    text.loc[f"ρ with the recovered share (n = {count})"] = [f"{found[trait]:.2f}" for trait in TRAITS] + ["", ""]
    return text


def correlations(rows: pd.DataFrame) -> pd.Series:
    """Spearman's correlation over tasks of each trait with the recovered share; NaN where one of them is constant."""
    frame = by_task(rows).dropna(subset=[WON])
    return pd.Series({trait: _rho(frame[trait], frame[WON]) for trait in TRAITS})


def beside(worlds: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Worlds with the same tasks side by side, as text: a task's expert, what adaptation gained, the recovered share.

    The last two lines are averages over tasks, and Spearman's correlation of the expert's accuracy with the share,
    with the number of tasks and the `chance` of it.

    Arguments:
        worlds: title of a world → rows of its record.
    """
    columns = {}
    for name, rows in worlds.items():
        frame = by_task(rows)
        gain = frame[AFTER] - frame[BEFORE]
        told = frame.dropna(subset=[WON])
        rho, p = correlations(rows)["individual"], chance(told["individual"], told[WON])
        frame = frame.assign(gain=gain)
        frame.loc[AVERAGE] = frame.mean()
        columns[f"{name}: expert (%)"] = [*frame["individual"].map("{:.1f}".format), ""]
        columns[f"{name}: gain (points)"] = [*frame["gain"].map("{:+.1f}".format), ""]
        shares = frame[WON].drop(AVERAGE).map(lambda value: "–" if pd.isna(value) else f"{value:.0f}")
        columns[f"{name}: recovered share (%)"] = [*shares, "", f"ρ = {rho:.2f} (n = {len(told)}, p = {p:.2f})"]
    return pd.DataFrame(columns, index=[*frame.index, "expert and share"]).rename_axis("task")


def scales(rows: pd.DataFrame) -> pd.Series:
    """Average accuracy after adaptation by factor of the heads, 1 among them; means over seeds."""
    own = rows[(rows["task"] == AVERAGE) & (rows["method"] == AFTER)]
    plain = without(own, FACE.factors)["accuracy"].mean()
    found = own.groupby("scale")["accuracy"].mean() if "scale" in own else {}
    return pd.Series({1.0: plain, **dict(found)}).sort_index()


def scales_text(rows: pd.DataFrame) -> pd.DataFrame:
    """`scales` as text."""
    return scales(rows).map("{:.1f}".format).to_frame("average accuracy").rename_axis("factor")


def narrowed(rows: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """The task with the most classes, and the percentages of `by_task` for it by the classes left, all of them last.

    Beside them stands the number of its test images.
    """
    if "narrowed" not in rows or not (names := rows["narrowed"].dropna().unique()).size:
        return "", pd.DataFrame()
    task = names[0]
    every = by_task(rows).loc[task]
    lines = {int(count): by_task(rows, count).loc[task] for count in rows["classes"].dropna().unique()}
    lines[int(every["classes"])] = every
    frame = pd.DataFrame(lines).T.sort_index().drop(columns=["classes", "spearman"])
    own = rows[(rows["task"] == task) & (rows["method"] == AFTER)]
    images = dict(own.groupby("classes")["n"].first())  # every seed sees the same
    images[int(every["classes"])] = without(own, FACE.factors)["n"].iloc[0]
    frame.insert(0, "test images", pd.Series(images))
    return task, frame.rename_axis("classes")


def narrowed_text(rows: pd.DataFrame) -> pd.DataFrame:
    """`narrowed` as text."""
    frame = narrowed(rows)[1].rename(columns={**TRAITS, AFTER: "after (%)"})
    text = frame.map(lambda value: "–" if pd.isna(value) else f"{value:.1f}")
    return text.assign(**{"test images": frame["test images"].map("{:.0f}".format)}) if len(frame) else text


def left_out(rows: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """The task with the weakest expert, and averages over all others: before, after, gain; with its expert, without."""
    task = rows["left_out"].dropna().iloc[0]
    own = rows[rows["method"].isin([BEFORE, AFTER]) & ~rows["task"].isin([AVERAGE, task])]
    sides = {f"{task} merged too": without(own, FACE.factors), f"{task} left out": own[own["left_out"] == task]}
    lines = {}
    for name, side in sides.items():
        means = side.groupby("method")["accuracy"].mean()
        lines[name] = {"before": means[BEFORE], "after": means[AFTER], "gain": means[AFTER] - means[BEFORE]}
    return task, pd.DataFrame(lines).T


def left_out_text(rows: pd.DataFrame) -> pd.DataFrame:
    """`left_out` as text."""
    return left_out(rows)[1].map("{:.1f}".format)


def traded(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per task: by how much its entropy fell (nats), its gain (points), and its gain by each other rule.

    Means over seeds.
    """
    own = rows[(rows["task"] != AVERAGE) & rows["method"].isin([BEFORE, AFTER])]
    plain = without(own, FACE.factors)
    before, after = (_by_task(plain[plain["method"] == method]) for method in (BEFORE, AFTER))
    frame = pd.DataFrame({
        FELL: before["entropy"] - after["entropy"], ADDED: after["accuracy"] - before["accuracy"],
    })  # fmt: skip
    for rule in rows["rule"].dropna().unique() if "rule" in rows else ():
        frame[rule] = _by_task(own[own["rule"] == rule])["accuracy"] - before["accuracy"]
    return frame


def traded_text(rows: pd.DataFrame) -> pd.DataFrame:
    """`traded` as text; the last lines are averages, and how many tasks lost accuracy."""
    frame = traded(rows)
    gains = frame.drop(columns=FELL)
    text = gains.map("{:+.1f}".format)
    text.insert(0, FELL, frame[FELL].map("{:.2f}".format))
    text.loc[AVERAGE] = [f"{frame[FELL].mean():.2f}", *gains.mean().map("{:+.1f}".format)]
    text.loc["tasks that lose"] = ["", *(gains < 0).sum().map(str)]
    return text


@styled
def traits(rows: pd.DataFrame) -> Figure:
    """Recovered share of the merging gap against each trait, one mark per task, with its name."""
    frame, rho = by_task(rows).dropna(subset=[WON]), correlations(rows)
    colours = task_colours(len(frame))
    figure, grid = plt.subplots(3, 2, figsize=(WIDTH, 7.2), sharey=True)
    for axes, (trait, title) in zip(grid.flat, TRAITS.items(), strict=False):
        for task, colour in zip(frame.index, colours, strict=True):
            axes.plot(frame.loc[task, trait], frame.loc[task, WON], "o", ms=5, color=colour)
        axes.margins(0.12)
        axes.axhline(0, color="#777777", lw=0.8)
        axes.set_title(f"ρ = {rho[trait]:.2f}", loc="left")
        axes.set_xlabel(title, fontsize=9.5)
        if trait == "classes" and len(frame):
            axes.set_xscale("log")
            ends = sorted({frame[trait].min(), frame[trait].max()})
            axes.set_xticks(ends, [f"{end:.0f}" for end in ends])
            axes.minorticks_off()
    grid.flat[len(TRAITS)].axis("off")
    figure.supylabel("recovered share of the merging gap (%)", fontsize=10.5)
    for axes, trait in zip(grid.flat, TRAITS, strict=False):
        name_points(axes, list(zip(frame.index, frame[trait], frame[WON], colours, strict=True)))
    return figure


def chance(x: pd.Series, y: pd.Series) -> float:
    """The exact p-value of Spearman's correlation: the share of all orders of x with one as strong, up or down.

    Arguments:
        x, y: one value per task, of at most nine tasks: every order is tried.
    """
    # Centred ranks: with them an inner product is the correlation, except for a factor that no order changes.
    first, second = (rank - rank.mean() for rank in (rankdata(x), rankdata(y)))
    orders = np.array(list(itertools.permutations(first))) @ second
    return float(np.mean(np.abs(orders) >= abs(first @ second) - 1e-9))


def _by_task(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of the measurements of one model, task by task in the order of the rows."""
    return rows.groupby("task", sort=False)[["accuracy", "entropy"]].mean()


def _rho(x: pd.Series, y: pd.Series) -> float:
    varies = len(x) > 2 and x.nunique() > 1 and y.nunique() > 1
    return float(spearmanr(x, y).statistic) if varies else float("nan")
