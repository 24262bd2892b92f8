"""Tables of the experiment on reasons, from its rows."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from scipy.stats import spearmanr

from ..experiments.reasons import AFTER, BEFORE
from .common import AVERAGE

TRAITS = {
    "classes": "classes",
    "zero_shot": "zero-shot (%)",
    "individual": "expert (%)",
    BEFORE: "before (%)",
    "spearman": "entropy and loss before (ρ)",
}
WON = "share won back (%)"
FELL, ADDED = "entropy fell by (nats)", "gain, gradients added up"


def by_task(rows: pd.DataFrame, condition: str = "clean") -> pd.DataFrame:
    """One line a task: its traits, accuracy after adaptation, and which share of its loss adaptation won back.

    The share is (after − before) / (expert − before); negative where adaptation cost accuracy. NaN where merging had
    cost the task less than a point.
    """
    own = rows[(rows["condition"] == condition) & (rows["task"] != AVERAGE)]
    frame = own.pivot_table(index="task", columns="method", values="accuracy", sort=False)
    for trait in ("classes", "spearman"):
        frame[trait] = rows[rows["condition"] == trait].set_index("task")["value"]
    lost = frame["individual"] - frame[BEFORE]
    frame[WON] = 100 * (frame[AFTER] - frame[BEFORE]) / lost.where(lost >= 1)
    return frame[[*TRAITS, AFTER, WON]]


def told(rows: pd.DataFrame) -> pd.DataFrame:
    """`by_task` as text; the last line is Spearman's correlation of every trait with the share won back."""
    frame = by_task(rows)
    text = pd.DataFrame({
        **{title: frame[trait].map("{:.1f}".format) for trait, title in TRAITS.items()},
        "after (%)": frame[AFTER].map("{:.1f}".format),
        WON: frame[WON].map(lambda value: "–" if pd.isna(value) else f"{value:.0f}"),
    })  # fmt: skip
    text[TRAITS["classes"]] = frame["classes"].map("{:.0f}".format)
    text[TRAITS["spearman"]] = frame["spearman"].map("{:.2f}".format)
    found = correlations(rows)
    text.loc["ρ with the share won back"] = [f"{found[trait]:.2f}" for trait in TRAITS] + ["", ""]
    return text


def correlations(rows: pd.DataFrame) -> pd.Series:
    """Spearman's correlation over tasks of each trait with the share won back; NaN where one of the two is constant."""
    frame = by_task(rows).dropna(subset=[WON])
    values = {}
    for trait in TRAITS:
        varies = len(frame) > 2 and frame[trait].nunique() > 1 and frame[WON].nunique() > 1
        values[trait] = float(spearmanr(frame[trait], frame[WON]).statistic) if varies else float("nan")
    return pd.Series(values)


def beside(worlds: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Worlds with the same tasks side by side, as text: a task's expert, what adaptation gained, the share won back.

    The last two lines are averages over tasks, and Spearman's correlation of the expert's accuracy with the share.

    Arguments:
        worlds: profile → rows of its record.
    """
    columns = {}
    for name, rows in worlds.items():
        frame = by_task(rows)
        gain = frame[AFTER] - frame[BEFORE]
        frame, rho = frame.assign(gain=gain), correlations(rows)["individual"]
        frame.loc[AVERAGE] = frame.mean()
        columns[f"{name}: expert (%)"] = [*frame["individual"].map("{:.1f}".format), ""]
        columns[f"{name}: gain (points)"] = [*frame["gain"].map("{:+.1f}".format), ""]
        shares = frame[WON].drop(AVERAGE).map(lambda value: "–" if pd.isna(value) else f"{value:.0f}")
        columns[f"{name}: won back (%)"] = [*shares, "", f"ρ = {rho:.2f}"]
    return pd.DataFrame(columns, index=[*frame.index, "expert and share"]).rename_axis("task")


def scales(rows: pd.DataFrame) -> pd.Series:
    """Average accuracy after adaptation by factor of the heads, 1 among them."""
    own = rows[(rows["task"] == AVERAGE) & (rows["method"] == AFTER)]
    found = own[own["condition"].str.startswith("head")].set_index("scale")["accuracy"] if "scale" in own else {}
    plain = own[own["condition"] == "clean"]["accuracy"].iloc[0]
    return pd.Series({1.0: plain, **dict(found)}).sort_index()


def narrowed(rows: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """The task with the most classes, and the percentages of `by_task` for it by the classes left, all of them last."""
    if "narrowed" not in rows or not (names := rows["narrowed"].dropna().unique()).size:
        return "", pd.DataFrame()
    task = names[0]
    counts = {int(count): f"{count:.0f} classes" for count in rows["classes"].dropna().unique()}
    every = by_task(rows).loc[task]
    lines = {count: by_task(rows, condition).loc[task] for count, condition in counts.items()}
    lines[int(every["classes"])] = every
    frame = pd.DataFrame(lines).T.sort_index().drop(columns=["classes", "spearman"])
    return task, frame.rename_axis("classes")


def narrowed_text(rows: pd.DataFrame) -> pd.DataFrame:
    """`narrowed` as text."""
    frame = narrowed(rows)[1].rename(columns={**TRAITS, AFTER: "after (%)"})
    return frame.map(lambda value: "–" if pd.isna(value) else f"{value:.1f}")


def left_out(rows: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """The task with the weakest expert, and averages over all others: before, after, gain; with its expert, without."""
    task = rows["left_out"].dropna().iloc[0]
    own = rows[rows["method"].isin([BEFORE, AFTER]) & ~rows["task"].isin([AVERAGE, task])]
    lines = {}
    for name, condition in ((f"{task} merged too", "clean"), (f"{task} left out", f"{task} left out")):
        means = own[own["condition"] == condition].groupby("method")["accuracy"].mean()
        lines[name] = {"before": means[BEFORE], "after": means[AFTER], "gain": means[AFTER] - means[BEFORE]}
    return task, pd.DataFrame(lines).T


def traded(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a task: by how much its entropy fell (nats), its gain (points), and its gain by each other rule."""
    own = rows[rows["method"].isin([BEFORE, AFTER]) & (rows["task"] != AVERAGE)]

    def change(field: str, condition: str = "clean") -> pd.Series:
        before = own[(own["method"] == BEFORE) & (own["condition"] == "clean")].set_index("task")[field]
        after = own[(own["method"] == AFTER) & (own["condition"] == condition)].set_index("task")[field]
        return after - before

    frame = pd.DataFrame({FELL: -change("entropy"), ADDED: change("accuracy")})
    for rule in rows["combine"].dropna().unique() if "combine" in rows else ():
        frame[rule] = change("accuracy", f"combined by {rule}")
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
