"""Tables of the similarity experiment, from its rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

MEASURES = {
    "cosine": "cosine of the task vectors",
    "sign_conflict": "sign conflicts (% of shared entries)",
    "overlap": "shared entries (% of those kept)",
    "transfer": "gain of the other expert on the task (points)",
}


def square(rows: pd.DataFrame, condition: str) -> pd.DataFrame:
    """A symmetric measure of pairs: tasks × tasks in the record's order, NaN on the diagonal."""
    own = rows[rows["condition"] == condition]
    tasks = list(rows.loc[rows["condition"] == "alone", "task"])
    frame = pd.DataFrame(np.nan, index=tasks, columns=tasks)
    for row in own.itertuples():
        frame.loc[row.task, row.other] = frame.loc[row.other, row.task] = row.value
    return frame


def transfer(rows: pd.DataFrame) -> pd.DataFrame:
    """Gain over zero-shot (points): experts in rows × tasks in columns; the diagonal is the expert's own task."""
    own = rows[rows["condition"] == "transfer"]
    frame = own.pivot(index="other", columns="task", values="accuracy")
    tasks = list(own["task"].unique())
    zero = rows[rows["condition"] == "zero_shot"].set_index("task")["accuracy"]
    return (frame.loc[tasks, tasks] - zero[tasks]).rename_axis(index="expert", columns="task")


def cost(rows: pd.DataFrame) -> pd.DataFrame:
    """What adding T_other costs task: accuracy of θ0 + λ T_task minus that with λ T_other added; tasks × others."""
    own = rows[rows["condition"] == "pair"]
    tasks = list(own["task"].unique())
    frame = own.pivot(index="task", columns="other", values="accuracy").loc[tasks, tasks]
    alone = rows[rows["condition"] == "alone"].set_index("task")["accuracy"]
    return -frame.sub(alone[tasks], axis=0)


def pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """One line an ordered pair (task, other): the measures, and the cost to the task."""
    columns = {name: square(rows, name).stack() for name in ("cosine", "sign_conflict", "overlap")}
    gains = transfer(rows).T  # task × expert
    columns["transfer"] = gains.where(~np.eye(len(gains), dtype=bool)).stack()
    columns["cost"] = cost(rows).stack()
    return pd.DataFrame(columns).dropna(how="all").rename_axis(index=["task", "other"])


def prediction(rows: pd.DataFrame) -> pd.DataFrame:
    """Spearman's ρ of each measure with the cost over ordered pairs, with its p; and the mean ρ within a task.

    Within a task the measure must tell which partner costs it least; over all pairs it may also tell tasks apart.
    """
    table, lines = pairs(rows), {}
    for name, title in MEASURES.items():
        rho, p = _spearman(table[name], table["cost"])
        within = [_spearman(part[name], part["cost"])[0] for _, part in table.groupby(level="task", sort=False)]
        lines[title] = {"ρ over pairs": rho, "p": p, "mean ρ within a task": pd.Series(within).mean()}
    return pd.DataFrame(lines).T


def _spearman(x: pd.Series, y: pd.Series) -> tuple[float, float]:
    """ρ and p; NaN where one of the two is constant."""
    if x.nunique() < 2 or y.nunique() < 2:
        return float("nan"), float("nan")
    found = spearmanr(x, y)
    return float(found.statistic), float(found.pvalue)
