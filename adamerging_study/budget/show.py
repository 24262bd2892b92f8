"""Tables and figures of the budget: accuracy over steps, one setting varied at a time, over the number of tasks."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adamerging_lib.records import average_confidence_interval

from ..claims import WHERE
from ..frames import AVERAGE, labels
from ..sample import Sample, interval
from ..style import METHOD_DASHES, WIDTH, colour, styled
from . import FACE, METHOD, STEPS, TASKS


def levels(rows: pd.DataFrame, factor: str) -> pd.Series:
    """Average accuracy of AdaMerging by level of a factor, in the record's order; empty where it was not varied."""
    own = _varied(rows, factor)
    own = own[(own["task"] == AVERAGE) & own["method"].str.contains("adamerging")]
    return own.groupby("level", sort=False)["accuracy"].mean()


def base(rows: pd.DataFrame) -> float:
    """Average accuracy of the base run."""
    return float(_base_row(rows)["accuracy"])


def settings(rows: pd.DataFrame) -> list[str]:
    """Factors that were varied one at a time around the base run, in the record's order."""
    return [factor for factor in rows.get("factor", pd.Series()).dropna().unique() if factor not in (STEPS, TASKS)]


def ablation(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per factor and level: average accuracy, half a 95 % interval over images, the difference to the base."""
    lines = []
    for factor in settings(rows):
        own = _varied(rows, factor)
        for level, accuracy in levels(rows, factor).items():
            low, high = average_confidence_interval(own[(own["level"] == level) & (own["task"] != AVERAGE)])
            lines.append((factor, level, f"{accuracy:.1f} ± {(high - low) / 2:.1f}", f"{accuracy - base(rows):+.1f}"))
    return pd.DataFrame(lines, columns=["factor", "level", "average accuracy", "against the base run"])


def by_task_count(rows: pd.DataFrame) -> pd.DataFrame:
    """Average accuracy over number of tasks: methods × counts."""
    own = _varied(rows, TASKS)
    frame = own[own["task"] == AVERAGE].pivot_table(index="method", columns="level", values="accuracy", sort=False)
    return frame.rename(columns=int).sort_index(axis=1)


def advice(rows: pd.DataFrame) -> list[str]:
    """What a user should choose, in sentences computed from the record; nothing is said of what was not varied."""
    return [*_on_steps(rows), *_on_rates(rows), *_on_images(rows), *_on_granularity(rows)]


@styled
def over_steps(rows: pd.DataFrame, steps: int) -> Figure:
    """Average accuracy along one long run; seconds on top where they are known.

    Bars are 95 % intervals of the difference to the start, paired image by image, around each look.

    Arguments:
        rows: of a budget record.
        steps: those of the base run, whose seconds tell how long a step takes.
    """
    line = levels(rows, STEPS)
    figure, axes = plt.subplots(figsize=(WIDTH, 3.2))
    axes.plot(line.index.astype(int), line, "-o", ms=4, color=colour(METHOD))
    if len(line):
        start = _sample(rows).average(METHOD, factor=STEPS, level=line.index[0])
        _bars(axes, line, _against(rows, STEPS, start))
    axes.set(xlabel="steps", ylabel="average accuracy (%)")
    seconds = _base_row(rows).get("seconds", np.nan) / steps
    if seconds > 0:
        top = axes.secondary_xaxis("top", functions=(lambda s: s * seconds, lambda s: s / seconds))
        top.set_xlabel("seconds")
    return figure


@styled
def one_at_a_time(rows: pd.DataFrame) -> Figure:
    """Average accuracy at each level of each factor, the base run as a line through all of them.

    Bars are 95 % intervals of the difference to the base run, paired image by image, around each level.
    """
    places, names, bars, start, heads = [], [], [], 0.0, {}
    for factor in settings(rows):
        found = levels(rows, factor)
        bars += _against_base(rows, factor).values()
        spots = start + np.arange(len(found))
        places += zip(spots, found, strict=True)
        names += list(found.index)
        heads[factor] = spots[0] - 0.85
        start = spots[-1] + 1.8
    figure, axes = plt.subplots(figsize=(WIDTH, 0.27 * len(places) + 0.14 * len(heads) + 0.9))
    y, x = zip(*places, strict=True) if places else ((), ())
    axes.axvline(base(rows), color="#777777", lw=1, ls="--")
    for place, height, bar in zip(x, y, bars, strict=True):
        if bar is not None:
            axes.plot(place + np.array(bar), [height, height], color=colour(METHOD), lw=1.6, solid_capstyle="butt")
    axes.plot(x, y, "o", ms=6, color=colour(METHOD))
    left = axes.get_yaxis_transform()
    for factor, height in heads.items():
        axes.text(0.01, height, factor, transform=left, weight="bold", fontsize=9.5, va="center")
    axes.set_yticks(y, names)
    axes.set_ylim(max(y, default=0) + 0.7, -1.4)
    axes.grid(axis="x", color="#DDDDDD", lw=0.6)
    axes.set_xlabel("average accuracy (%); dashed: the base run")
    return figure


@styled
def over_tasks(rows: pd.DataFrame) -> Figure:
    """Average accuracy over the number of tasks merged, one line per method.

    Bars are 95 % intervals of the difference of AdaMerging to Task Arithmetic, paired image by image.
    """
    frame, label = by_task_count(rows), labels(rows)
    figure, axes = plt.subplots(figsize=(WIDTH, 3.3))
    for method, line in frame.iterrows():
        dash = METHOD_DASHES.get(method, "-")
        axes.plot(line.index, line, marker="o", ms=4, color=colour(method), ls=dash, label=label[method])
    axes.set(xlabel="number of tasks merged", ylabel="average accuracy over them (%)", xticks=list(frame.columns))
    if len(frame):
        axes.legend(frameon=False)
    if METHOD in frame.index:
        fixed = _sample(rows).each("accuracy", by="level", method="task_arithmetic", factor=TASKS)
        ends = {int(level): bar for level, bar in _against(rows, TASKS, fixed, method=METHOD).items()}
        _bars(axes, frame.loc[METHOD].dropna(), ends)
    return figure


def _against_base(rows: pd.DataFrame, factor: str) -> dict[str, tuple[float, float] | None]:
    """As `_against`, with the base run."""
    return _against(rows, factor, _sample(rows).average(METHOD))


def _against(
    rows: pd.DataFrame, factor: str, other: np.ndarray | Mapping[str, np.ndarray], method: object = ...
) -> dict[str, tuple[float, float] | None]:
    """Level → ends of the paired interval of its difference to another run, less that difference; None without one.

    Arguments:
        rows: of a budget record.
        factor: that was varied.
        other: accuracy of the other run, ``[1 + draws]``; or one per level.
        method: its id, or ``...`` for any.
    """
    ends = {}
    for level, values in _sample(rows).each("accuracy", by="level", method=method, factor=factor).items():
        beside = other.get(level) if isinstance(other, Mapping) else other
        point, low, high = (None, None, None) if beside is None else interval(values - beside)
        ends[level] = None if low is None or high is None else (low - point, high - point)
    return ends


def _bars(axes: Axes, line: pd.Series, ends: Mapping[object, tuple[float, float] | None]) -> None:
    """Upright bars around the points of a line, where there are any."""
    for level, value in line.items():
        if bar := ends.get(level):
            axes.vlines(int(level), value + bar[0], value + bar[1], color=colour(METHOD), lw=1.6)


def _sample(rows: pd.DataFrame) -> Sample:
    return Sample(rows, where={**WHERE, **dict.fromkeys(FACE.factors)})


def _varied(rows: pd.DataFrame, factor: str) -> pd.DataFrame:
    """Rows in which one factor was varied; none where nothing was."""
    known = rows if "factor" in rows else rows.assign(factor=None, level=None)
    return known[known["factor"] == factor]


def _base_row(rows: pd.DataFrame) -> pd.Series:
    own = rows[rows["factor"].isna()] if "factor" in rows else rows
    return own[own["task"] == AVERAGE].iloc[0]


def _on_steps(rows: pd.DataFrame) -> list[str]:
    steps = levels(rows, STEPS)
    if len(steps) < 2:
        return []
    gain, last = steps - steps.iloc[0], steps.index[-1]
    enough = next(step for step, value in gain.items() if value >= 0.9 * gain.max())
    if enough == last:
        take = f"Take {last} steps or more: no earlier look has nine tenths of their gain"
    else:
        take = (
            f"Take {enough} steps at the learning rate of the base run: nine tenths of the largest gain within {last} "
            "are there"
        )
    return [f"{take} ({gain.max():+.1f} points over λ = 0.3)."]


def _on_rates(rows: pd.DataFrame) -> list[str]:
    rate = levels(rows, "lr")
    if len(rate) < 2:
        return []
    return [
        f"Of the rates tried, {rate.idxmax()} did best at the base run's number of steps ({rate.max():.1f} percent)."
    ]


def _on_images(rows: pd.DataFrame) -> list[str]:
    images = levels(rows, "images")
    if len(images) < 2:
        return []
    few = next(level for level, value in images.items() if value >= images.max() - 1)
    tried = ", ".join(images.index)
    return [f"Within a point of the best come {few} unlabelled images per task, of those tried ({tried})."]


def _on_granularity(rows: pd.DataFrame) -> list[str]:
    grain = levels(rows, "granularity")
    if len(grain) < 2:
        return []
    return [
        f"One coefficient per {grain.idxmax()} did best ({grain.max():.1f} percent), one per {grain.idxmin()} worst "
        f"({grain.min():.1f})."
    ]
