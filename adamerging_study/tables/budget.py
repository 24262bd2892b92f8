"""Tables of the budget experiment, from its rows."""

from __future__ import annotations

import pandas as pd

from adamerging_lib.records import average_confidence_interval

from .common import AVERAGE

LAYER_WISE = "layer_wise_adamerging"


def levels(rows: pd.DataFrame, factor: str) -> pd.Series:
    """Average accuracy of AdaMerging by level of a factor, in the record's order."""
    own = rows[(rows["factor"] == factor) & (rows["task"] == AVERAGE) & rows["method"].str.contains("adamerging")]
    return own.groupby("level", sort=False)["accuracy"].mean()


def base(rows: pd.DataFrame) -> float:
    """Average accuracy of the base run."""
    return float(levels(rows, "base").iloc[0])


def ablation(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a factor and level: average accuracy, half a 95 % interval over images, the difference to the base."""
    lines = []
    for factor in dict.fromkeys(rows["factor"]):
        if factor in ("base", "tasks", "steps"):
            continue
        for level, accuracy in levels(rows, factor).items():
            own = rows[(rows["factor"] == factor) & (rows["level"] == level) & (rows["task"] != AVERAGE)]
            low, high = average_confidence_interval(own)
            lines.append((factor, level, f"{accuracy:.1f} ± {(high - low) / 2:.1f}", f"{accuracy - base(rows):+.1f}"))
    return pd.DataFrame(lines, columns=["factor", "level", "average accuracy", "against the base run"])


def by_task_count(rows: pd.DataFrame) -> pd.DataFrame:
    """Average accuracy over number of tasks: methods × counts."""
    own = rows[(rows["factor"] == "tasks") & (rows["task"] == AVERAGE)]
    frame = own.pivot_table(index="method", columns="level", values="accuracy", sort=False)
    return frame.rename(columns=int).sort_index(axis=1)


def advice(rows: pd.DataFrame) -> list[str]:
    """What a user should choose, in three sentences computed from the record."""
    steps = levels(rows, "steps")
    gain = steps - steps.iloc[0]
    enough = next(step for step, value in gain.items() if value >= 0.9 * gain.max())
    rate = levels(rows, "lr")
    images = levels(rows, "images")
    few = next((level for level, value in images.items() if value >= images.max() - 1), images.index[-1])
    grain = levels(rows, "granularity")
    last = steps.index[-1]
    if enough == last:
        take = f"Take {last} steps or more: no earlier look has nine tenths of their gain"
    else:
        take = f"Take {enough} steps at the learning rate of the base run: nine tenths of the gain of {last} are there"
    return [
        f"{take} ({gain.max():+.1f} points over λ = 0.3); of the rates tried, {rate.idxmax()} did best at the base "
        f"run's number of steps ({rate.max():.1f} percent).",
        f"Within a point of the best come {few} unlabelled images a task, of those tried ({', '.join(images.index)}).",
        f"One coefficient a {grain.idxmax()} did best ({grain.max():.1f} percent), one a {grain.idxmin()} worst "
        f"({grain.min():.1f}).",
    ]


def spread_over_seeds(rows: pd.DataFrame) -> tuple[float, float, int]:
    """Mean, standard deviation and number of the average accuracies over seeds."""
    values = levels(rows, "seed")
    return float(values.mean()), float(values.std()), len(values)
