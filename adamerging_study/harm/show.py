"""Tables and figures of the cases: how far each ends from its start, and what the guard expected of it."""

from __future__ import annotations

from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..frames import with_half
from ..sample import Sample, interval
from ..style import WIDTH, styled
from . import KEPT, LAST, METHOD, OBJECTIVES, RECIPE, START, STATES, told
from .numbers import gains, leads, numbers

COLOURS = {"entropy": "#D55E00", "diverse": "#B8860B", "prior": "#8C6BB1", "imitation": "#00795B"}
MARKERS = {"entropy": "o", "diverse": "s", "prior": "^", "imitation": "D"}
NAMES = {
    "beliefs": "the experts' beliefs did not fall", "agreement": "agreement with the experts did not fall",
    "variety": "the mean prediction's entropy did not fall", "entropy": "mean entropy did not rise",
    "drift": "the coefficients moved little", "both": "neither beliefs nor the mean prediction's entropy fell",
}  # fmt: skip
"""When the last state is kept, by each statistic."""
FAR = 2.0
"""How many times as far from the start as nine in ten others a case has to be to stand at the edge, as a number."""


def cases(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per situation, objective and state: points above the start, the ends of the 95 % interval, and seeds."""
    lines, seeds = [], rows.groupby(["situation", "objective"])["seed"].nunique()
    for (situation, objective, state), values in gains(Sample(rows)).items():
        gain, low, high = interval(values)
        about = {"situation": situation, "objective": objective, "state": state}
        lines.append({**about, "gain": gain, "low": low, "high": high, "seeds": seeds[situation, objective]})
    return pd.DataFrame(lines).astype({"gain": float, "low": float, "high": float})


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Points above the start with half a 95 % interval, as text: situations down, objectives and states across."""
    frame = _told(cases(rows).query("objective != @RECIPE"))
    frame = frame.assign(column=frame["objective"].map(OBJECTIVES) + ", " + frame["state"].map(STATES))
    pivot = frame.pivot_table(index="situation", columns="column", values="text", aggfunc="first", sort=False)
    return pivot.rename(index=told).rename_axis(index=None, columns=None)


def recipe(rows: pd.DataFrame) -> pd.DataFrame:
    """As `table`, of the recommended recipe, with the accuracy (percent) of its start; empty where it was not run."""
    frame = _told(cases(rows).query("objective == @RECIPE"))
    frame = frame.assign(column=frame["state"].map(STATES))
    pivot = frame.pivot_table(index="situation", columns="column", values="text", aggfunc="first", sort=False)
    sample = Sample(rows)
    begun = [sample.average(METHOD, situation=name, objective=RECIPE, state=START)[0] for name in pivot.index]
    pivot.insert(0, STATES[START], [f"{value:.1f}" for value in begun])
    return pivot.rename(index=told).rename_axis(index=None, columns=None)


def _told(frame: pd.DataFrame) -> pd.DataFrame:
    """Cases, with the gain and half its 95 % interval as ``text``."""
    return frame.assign(text=with_half(frame["gain"], frame["low"], frame["high"], "{:+.1f}"))


@styled
def over_situations(rows: pd.DataFrame) -> Figure:
    """One panel per objective, one line per situation: the last state (open) and the one the guard kept (filled).

    Cases far from all others stand at the edge as numbers.
    """
    frame = cases(rows).query("objective != @RECIPE")
    far = frame["gain"].abs() > FAR * frame["gain"].abs().quantile(0.9)  # would press all others together
    situations, objectives = list(dict.fromkeys(frame["situation"])), list(dict.fromkeys(frame["objective"]))
    figure, panels = plt.subplots(
        1, len(objectives), figsize=(WIDTH, 0.34 * len(situations) + 1.4), sharex=True, sharey=True, squeeze=False
    )
    places = np.arange(len(situations))[::-1]
    for axes, objective in zip(panels[0], objectives, strict=True):
        axes.axvline(0, color="#777777", lw=0.9, ls="--", zorder=0)
        for state, shift, face in ((LAST, 0.15, "white"), (KEPT, -0.15, COLOURS[objective])):
            own = (frame["objective"] == objective) & (frame["state"] == state)
            part, heights = frame[own & ~far].set_index("situation").reindex(situations), places + shift
            axes.hlines(heights, part["low"], part["high"], color=COLOURS[objective], lw=1.4)
            axes.plot(part["gain"], heights, MARKERS[objective], color=COLOURS[objective], mfc=face, ms=5)
            for _, case in frame[own & far].iterrows():
                right, at = case["gain"] > 0, places[situations.index(case["situation"])] + shift
                value = f"{case['gain']:+.0f}".replace("-", "−")
                axes.text(float(right), at, f"{value} →" if right else f"← {value}", ha="right" if right else "left",
                          va="center", fontsize=8.5, color=COLOURS[objective],
                          transform=axes.get_yaxis_transform())  # fmt: skip
        axes.set_title(fill(OBJECTIVES[objective], 11), fontsize=9.5)
        axes.set_ylim(-0.7, len(situations) - 0.3)
        axes.tick_params(axis="y", length=0)
    panels[0, 0].set_yticks(places, [told(name) for name in situations])
    middle, odd = divmod(len(objectives), 2)
    panels[0, middle].set_xlabel("points above the start (dashed)", x=0.5 if odd else 0)
    handles = [
        plt.Line2D([], [], marker="o", ls="", ms=5, color="#4A4A4A", mfc=face, label=STATES[state])
        for state, face in ((LAST, "white"), (KEPT, "#4A4A4A"))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9.5)
    return figure


@styled
def expected_and_real(rows: pd.DataFrame) -> Figure:
    """The last state's lead over the start by the experts' beliefs, and by labels: one mark per fit."""
    frame = leads(rows).rename(columns={"beliefs": "expected"})
    figure, axes = plt.subplots(figsize=(WIDTH, 0.7 * WIDTH))
    ends = [frame[["expected", "real"]].min().min() - 1, frame[["expected", "real"]].max().max() + 1]
    axes.plot(ends, ends, color="#777777", lw=0.9, ls="--", zorder=0)
    axes.axhline(0, color="#BBBBBB", lw=0.8, zorder=0)
    axes.axvline(0, color="#BBBBBB", lw=0.8, zorder=0)
    for objective, part in frame.groupby("objective", sort=False):
        axes.plot(part["expected"], part["real"], MARKERS[objective], color=COLOURS[objective], ms=5, alpha=0.75,
                  label=OBJECTIVES[objective])  # fmt: skip
    far = frame.loc[(frame["expected"] - frame["real"]).abs().sort_values(ascending=False).index]
    for _, case in far.drop_duplicates("situation").head(3).iterrows():
        above = case["real"] > case["expected"]
        axes.annotate(
            told(case["situation"]), (case["expected"], case["real"]), xytext=(0, 24) if above else (8, -16),
            textcoords="offset points", ha="center" if above else "left", fontsize=8.5, color="#333333",
            arrowprops={"arrowstyle": "-", "lw": 0.6, "color": "#777777"},
        )  # fmt: skip
    axes.set(xlabel="lead expected from the experts' predictions (points)", ylabel="lead measured with labels (points)")
    axes.legend(frameon=False, fontsize=9.5)
    return figure


def statistics(rows: pd.DataFrame) -> pd.DataFrame:
    """What each statistic says of harm, as text: one row per statistic, see `numbers.numbers`."""
    found = {name: values[0] for name, values in numbers(Sample(rows, draws=0)).items()}
    objectives = [name for name in OBJECTIVES if name in set(rows["objective"])]
    columns = ["AUC", "harmed fits left", "gains kept (%)", *(f"of {OBJECTIVES[name]}" for name in objectives)]
    first = ["–", f"{found['compared_harmed']:.0f}", *["100"] * (len(columns) - 2)]
    lines = {"always": first if found["compared"] else ["–"] * len(columns)}
    for name, said in NAMES.items():
        shares = [f"veto_{name}_share", *(f"veto_{name}_share_{objective}" for objective in objectives)]
        values = [found.get(key, np.nan) for key in (f"veto_{name}_harmed", *shares)]
        lines[said] = [f"{found.get(f'auc_{name}', np.nan):.2f}", *(f"{value:.0f}" for value in values)]
    return pd.DataFrame.from_dict(lines, orient="index", columns=columns).replace("nan", "–")
