"""Tables of the robustness experiment: the paper's Tables 4 and 7, the two settings, and the cures of the failure."""

from __future__ import annotations

import pandas as pd

from adamerging_lib.published import ARCHITECTURES, published

from .common import AVERAGE, label

LEARNED, FIXED = "layer_wise_adamerging", "task_arithmetic"


def names(conditions) -> list[str]:
    """Conditions as in prose: ``motion_blur`` → motion blur."""
    return [condition.replace("_", " ").replace("jpeg", "JPEG") for condition in conditions]


def compared(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the comparison itself: no steps of the failure, and no other severity than that of the comparison."""
    rows = rows[rows["step"].isna()] if "step" in rows else rows
    level = severity(rows)
    return rows[rows["severity"].isin([0, level])]


def severity(rows: pd.DataFrame) -> int:
    """The severity of the comparison: the one at which most was measured, the highest of them."""
    levels = rows.loc[rows["severity"] > 0, "severity"].value_counts()
    return int(levels.index[levels == levels.max()].max()) if len(levels) else 0


def averages(rows: pd.DataFrame, adapted_on: str = "corrupted", task: str = AVERAGE) -> pd.DataFrame:
    """Accuracy (percent), conditions × methods in the record's order, a mean over seeds.

    Arguments:
        rows: of the record.
        adapted_on: the images that adaptive methods learned on under a corruption: ``corrupted`` or ``clean``.
        task: whose accuracy; the average by default.
    """
    rows = compared(rows)
    own = (rows["adapted_on"] == "nothing") | (rows["adapted_on"] == adapted_on) | (rows["condition"] == "clean")
    rows = rows[own & (rows["task"] == task)]
    return rows.pivot_table(index="condition", columns="method", values="accuracy", sort=False)


def published_averages(arch: str, task: str = AVERAGE) -> pd.DataFrame:
    """The same from the paper's Table 4 or 7."""
    rows = published("robustness", arch=arch).query("task == @task")
    return rows.pivot_table(index="condition", columns="method_id", values="accuracy", sort=False)


def by_corruption(rows: pd.DataFrame, arch: str) -> pd.DataFrame:
    """Averages of every method on clean images and under every corruption, the published ones beside, as text."""
    ours, theirs = averages(rows), published_averages(arch)
    theirs = theirs.reindex(ours.index)
    told = f"published, {ARCHITECTURES[arch]}"
    columns = {("measured", label(method)): ours[method].map("{:.1f}".format) for method in ours}
    for method in theirs:
        columns[told, label(method)] = theirs[method].map("{:.1f}".format, na_action="ignore")
    for where, frame in (("measured", ours), (told, theirs)):
        if {LEARNED, FIXED} <= set(frame):
            gain = frame[LEARNED] - frame[FIXED]
            columns[where, "gain"] = gain.map("{:+.1f}".format, na_action="ignore")
    frame = pd.DataFrame(columns)
    frame = frame[[c for c in frame if c[0] == "measured"] + [c for c in frame if c[0] == told]]
    return frame.set_axis(names(frame.index))


def by_task(rows: pd.DataFrame) -> pd.DataFrame:
    """Every task's accuracy (percent, as text): (condition, method) × tasks, as the paper prints its Tables 4 and 7."""
    rows = compared(rows)
    rows = rows[(rows["adapted_on"] != "clean") | (rows["condition"] == "clean")]
    frame = rows.pivot_table(index=["condition", "method"], columns="task", values="accuracy", sort=False)
    frame = frame[[*(task for task in frame if task != AVERAGE), AVERAGE]].map("{:.1f}".format)
    frame.index = pd.MultiIndex.from_tuples([(*names([c]), label(m)) for c, m in frame.index])
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
