"""Tables of the generalisation experiment: the paper's Tables 3 and 6, and any other choice of unseen tasks."""

from __future__ import annotations

import pandas as pd

from adamerging_lib.published import ARCHITECTURES, published
from adamerging_lib.worlds.roles import ROLES

from .common import AVERAGE, labelled

FLOOR = "zero_shot"


def averages(rows: pd.DataFrame) -> pd.DataFrame:
    """Average accuracy (percent): methods × (split, ``seen`` or ``unseen``) as in the record."""
    rows = rows[rows["task"] == AVERAGE]
    return rows.pivot_table(index="method", columns=["condition", "group"], values="accuracy", sort=False)


def published_averages(condition: str, arch: str) -> pd.DataFrame | None:
    """Published averages of the split that a mini split stands in for: methods × (``seen``, ``unseen``), or None.

    Where the paper's printed average is not that of its own columns, this is the columns' (see `slips`).
    """
    unseen = {ROLES.get(task, task) for task in condition.removeprefix("without ").split(", ")}
    for experiment in ("generalization-1", "generalization-2"):
        rows = published(experiment).query("arch == @arch and task != @AVERAGE")
        if set(rows.loc[rows["group"] == "unseen", "task"]) == unseen:
            return rows.pivot_table(index="method_id", columns="group", values="accuracy", sort=False)
    return None


def by_split(rows: pd.DataFrame, arch: str) -> pd.DataFrame:
    """Averages over seen and unseen tasks of every split, the published ones beside where there are any, as text."""
    frame, columns = averages(rows), {}
    for condition in frame.columns.unique("condition"):
        theirs = published_averages(condition, arch)
        for group in ("seen", "unseen"):
            columns[condition, group] = frame[condition][group].map("{:.1f}".format)
            if theirs is not None:
                shown = theirs[group].reindex(frame.index).map("{:.1f}".format, na_action="ignore")
                columns[condition, f"{group}, published, {ARCHITECTURES[arch]}"] = shown
    return labelled(pd.DataFrame(columns))


def unseen_tasks(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy (percent, as text) on every unseen task: methods × (split, task)."""
    rows = rows[(rows["group"] == "unseen") & (rows["task"] != AVERAGE)]
    frame = rows.pivot_table(index="method", columns=["condition", "task"], values="accuracy", sort=False)
    return labelled(frame.map("{:.1f}".format).rename_axis(columns=[None, None]))


def gains(rows: pd.DataFrame) -> pd.DataFrame:
    """Points above the pre-trained encoder, which has no expert in it: methods × (split, group)."""
    frame = averages(rows)
    if FLOOR not in frame.index:
        raise ValueError(f"the record has no rows of {FLOOR!r}: run it too, gains are measured against it")
    return frame.drop(index=FLOOR) - frame.loc[FLOOR]


def over_splits(rows: pd.DataFrame) -> pd.DataFrame:
    """Every method over all splits, as text: mean gain on seen and unseen tasks, and in how many splits unseen tasks
    gain at all and gain most."""
    unseen, seen = (gains(rows).xs(group, level="group", axis=1) for group in ("unseen", "seen"))
    best = (unseen == unseen.max()).sum(axis=1)
    columns = {
        "seen tasks, mean gain": seen.mean(axis=1).map("{:+.1f}".format),
        "unseen tasks, mean gain": unseen.mean(axis=1).map("{:+.1f}".format),
        "unseen tasks gain": [f"{count} of {unseen.shape[1]}" for count in (unseen > 0).sum(axis=1)],
        "best on unseen tasks": [f"{count} of {unseen.shape[1]}" for count in best],
    }
    return labelled(pd.DataFrame(columns, index=unseen.index))
