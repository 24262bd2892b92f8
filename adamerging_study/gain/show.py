"""Tables and figures of the grid: accuracy over images, starts and objectives, and the steps from one to the next."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..frames import AVERAGE, labels, with_half
from ..robustness.show import names
from ..sample import Sample, interval
from ..style import WIDTH, styled
from . import CHOICES, GRAINS, METHOD, OBJECTIVES, RECIPE, STARTS, WEIGHTS, plain
from .numbers import FROM, INDUCTIVE

COLOURS = {"tensor": "#D55E00", "component": "#00795B", WEIGHTS: "#3C4E7C"}
MARKERS = {"tensor": "o", "component": "s", WEIGHTS: "D"}
LINES = {"tsv_m": "--", "traditional_mtl": ":", "individual": "-"}
OBJECTIVE_COLOURS = {
    "entropy": "#D55E00", "diverse": "#B8860B", "prior": "#8C6BB1", "imitation": "#00795B", "hard_imitation": "#56B4E9",
    "sure_imitation": "#B0508A", "labels": "#333333",
}  # fmt: skip


MIXTURES = {0: "plain sum (Task Arithmetic, λ = 1)"}
"""The end of the line that is no method here by another name."""


def cells(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per cell: its factors, accuracy on average, the ends of its 95 % interval, and how many seeds.

    ``rate`` is missing where a cell was learned at the run's own rate.
    """
    rows = plain(rows)
    sample, own = Sample(rows), rows[(rows["method"] == METHOD) & (rows["task"] == AVERAGE)]
    factors, lines = ["start", "grain", "objective", "images", "setting", "rate"], []
    own = own if "rate" in own else own.assign(rate=np.nan)
    for values, part in own.groupby(factors, sort=False, dropna=False):
        which = {name: None if value != value else value for name, value in zip(factors, values, strict=True)}
        accuracy, low, high = interval(sample.average(METHOD, **which))
        lines.append({**which, "accuracy": accuracy, "low": low, "high": high, "seeds": part["seed"].nunique()})
    return pd.DataFrame(lines, columns=[*factors, "accuracy", "low", "high", "seeds"])


def table(rows: pd.DataFrame, of: str, by: str, **which: object) -> pd.DataFrame:
    """Average accuracies, half a 95 % interval beside, of cells that differ in two factors, as text.

    Arguments:
        rows: of the record.
        of, by: the factors of lines and columns.
        which: values of the other factors.
    """
    frame = _named_rates(cells(rows))
    for column, value in which.items():
        frame = frame[frame[column] == value]
    frame = frame.assign(images=frame["images"].map(lambda count: f"{count:.0f}" if count else "all"))
    frame = frame.assign(text=with_half(frame["accuracy"], frame["low"], frame["high"]))
    pivot = frame.pivot_table(index=of, columns=by, values="text", aggfunc="first", sort=False)
    return _named(pivot.fillna("–"))


def beside(rows: pd.DataFrame) -> pd.DataFrame:
    """What the grid is compared with, best first: average accuracies, half a 95 % interval beside, as text."""
    rows = plain(rows)
    rows = rows[rows["method"] != METHOD]
    sample, named = Sample(rows), rows[rows["task"] == AVERAGE].reindex(columns=["method", "mixed"]).drop_duplicates()
    label, lines = labels(rows), []
    for method, share in named.astype(object).where(named.notna(), None).itertuples(index=False):
        name = label[method] if share is None else MIXTURES.get(share, f"{100 * share:.0f} % WUDI, the rest plain sum")
        lines.append((name, *interval(sample.average(method, mixed=share))))
    frame = pd.DataFrame(lines, columns=["name", "accuracy", "low", "high"]).set_index("name")
    frame = frame.sort_values("accuracy", ascending=False).rename_axis(index=None)
    return with_half(frame["accuracy"], frame["low"], frame["high"]).to_frame("accuracy (%)")


@styled
def over_images(rows: pd.DataFrame, objectives: Sequence[str]) -> Figure:
    """Accuracy on other images over the images learned from: one line per fineness, 95 % intervals as bands.

    Arguments:
        rows: of the record.
        objectives: one panel each.
    """
    rows = plain(rows)
    frame, label = cells(rows).query("start == @FROM and setting == @INDUCTIVE"), labels(rows)
    frame = frame.assign(images=frame["images"].replace(0, _half_of(rows)).astype(int))
    figure, panels = plt.subplots(
        len(objectives), 1, figsize=(WIDTH, 3.2 * len(objectives)), sharex=True, sharey=True, squeeze=False
    )
    frame, counts = _named_rates(frame), sorted(frame["images"].unique())
    for axes, objective in zip(panels[:, 0], objectives, strict=True):
        for grain in frame["grain"].unique():
            line = frame.query("grain == @grain and objective == @objective").sort_values("images")
            if len(line) < 2:
                continue
            band = line[["low", "high"]].astype(float).to_numpy().T
            own, dash = (grain, "-") if grain in GRAINS else ("tensor", "--")
            axes.fill_between(line["images"], *band, color=COLOURS[own], alpha=0.13, lw=0)
            axes.plot(line["images"], line["accuracy"], color=COLOURS[own], marker=MARKERS[own], ms=5, ls=dash,
                      label=GRAINS.get(grain, grain))  # fmt: skip
        for method, dash in LINES.items():
            height = rows[(rows["method"] == method) & (rows["task"] == AVERAGE)]["accuracy"].mean()
            axes.axhline(height, color="#777777", lw=0.9, ls=dash, zorder=0)
            if not np.isnan(height):
                side = "top" if method == "traditional_mtl" else "bottom"  # it lies close below the experts
                axes.annotate(label[method], (1, height), xycoords=("axes fraction", "data"), fontsize=8.5,
                              ha="right", va=side, color="#555555")  # fmt: skip
        axes.set(xscale="log", title=OBJECTIVES[objective], ylabel="accuracy (%)")
        axes.set_xticks(counts, map(str, counts))
        axes.minorticks_off()
    panels[-1, 0].set_xlabel("unlabelled images per task that are learned from")
    _legend(figure, panels[0, 0], columns=2)
    return figure


@styled
def by_objective(rows: pd.DataFrame, images: int) -> Figure:
    """Accuracy on other images, one line of markers per objective, one marker per fineness, from TSV-M."""
    rows = plain(rows)
    frame = cells(rows).query("start == @FROM and images == @images and setting == @INDUCTIVE and rate.isna()")
    objectives = [name for name in OBJECTIVES if name in set(frame["objective"])][::-1]
    figure, axes = plt.subplots(figsize=(WIDTH, 0.55 * len(objectives) + 1.5))
    start = rows[(rows["method"] == FROM) & (rows["task"] == AVERAGE)]["accuracy"].mean()
    axes.axvline(start, color="#777777", lw=0.9, ls="--", zorder=0)
    for y, objective in enumerate(objectives):
        part = frame[frame["objective"] == objective]
        for place, grain in enumerate(name for name in GRAINS if name in set(frame["grain"])):
            for _, cell in part[part["grain"] == grain].iterrows():
                height = y + 0.16 * (1 - place)
                low, high = (cell[end] if cell[end] is not None else np.nan for end in ("low", "high"))
                axes.plot([low, high], [height, height], color=COLOURS[grain], lw=1.6)
                axes.plot(cell["accuracy"], height, MARKERS[grain], color=COLOURS[grain], ms=5.5,
                          label=GRAINS[grain] if y == len(objectives) - 1 else None)  # fmt: skip
    axes.set_yticks(range(len(objectives)), [OBJECTIVES[name] for name in objectives])
    axes.set(xlabel="accuracy on other images (%); dashed: the start, TSV-M", ylim=(-0.6, len(objectives) - 0.4))
    axes.tick_params(axis="y", length=0)
    _legend(figure, axes)
    return figure


@styled
def from_starts(rows: pd.DataFrame) -> Figure:
    """From each start's accuracy to what one coefficient per tensor makes of it, one marker per objective."""
    rows = plain(rows)
    frame = cells(rows).query("grain == 'tensor' and setting == @INDUCTIVE and rate.isna()")
    starts = [start for start in STARTS if start in set(frame["start"])][::-1]
    at = frame[frame["start"] != FROM]["images"]
    frame = frame[frame["images"] == (at.iloc[0] if len(at) else 0)]
    tried = frame[frame["start"] != FROM]["objective"].unique()
    frame, figure = frame[frame["objective"].isin(tried)], plt.figure(figsize=(WIDTH, 0.5 * len(starts) + 1.5))
    axes = figure.add_subplot()
    for y, start in enumerate(starts):
        before = rows[(rows["method"] == start) & (rows["task"] == AVERAGE)]["accuracy"].mean()
        axes.plot([before, before], [y - 0.25, y + 0.25], color="#333333", lw=2, label="start" if not y else None)
        for _, cell in frame[frame["start"] == start].iterrows():
            hue = OBJECTIVE_COLOURS[cell["objective"]]
            axes.plot([cell["low"], cell["high"]], [y, y], color=hue, lw=1.6)
            axes.plot(cell["accuracy"], y, "o", color=hue, ms=6, label=None if y else OBJECTIVES[cell["objective"]])
    axes.set_yticks(range(len(starts)), [STARTS[start] for start in starts])
    axes.set(xlabel="accuracy on other images (%)", ylim=(-0.6, len(starts) - 0.4))
    axes.tick_params(axis="y", length=0)
    _legend(figure, axes)
    return figure


@styled
def elsewhere(rows: pd.DataFrame) -> Figure:
    """The recipe and AdaMerging's choices, each from its start, under every corruption and without some experts.

    Ticks are the starts, markers with 95 % intervals what learning made of them.
    """
    places = _places(rows)
    figure, axes = plt.subplots(figsize=(WIDTH, 0.42 * len(places) + 1.4))
    sample, names_of = Sample(rows), {RECIPE: "the recipe", CHOICES: "AdaMerging's choices"}
    for y, which in enumerate(reversed(places.values())):
        for (start, grain, objective), name in names_of.items():
            ends = sample.average(METHOD, start=start, grain=grain, objective=objective, **which)
            value, low, high = interval(ends)
            hue, height = COLOURS[grain], y + (0.15 if grain == RECIPE[1] else -0.15)
            before = sample.average(start, **which)[0]
            axes.plot([before, before], [height - 0.14, height + 0.14], color=hue, lw=2,
                      label=None if y else f"{STARTS[start]}, where it starts")  # fmt: skip
            axes.plot([low, high], [height, height], color=hue, lw=1.6)
            axes.plot(value, height, MARKERS[grain], color=hue, ms=5.5, label=None if y else name)
    axes.set_yticks(range(len(places)), list(places)[::-1])
    axes.set(xlabel="accuracy on other images (%)", ylim=(-0.6, len(places) - 0.4))
    axes.tick_params(axis="y", length=0)
    _legend(figure, axes, columns=2)
    return figure


def _places(rows: pd.DataFrame) -> dict[str, dict[str, object]]:
    """What a line of `elsewhere` is called → the columns that its rows have."""
    conditions = [condition for condition in rows["condition"].unique() if condition != "clean"]
    places = {told: {"condition": name} for told, name in zip(names(conditions), conditions, strict=True)}
    for split in rows["unseen"].dropna().unique() if "unseen" in rows else []:
        places |= {f"without {split}: on others": {"group": "seen", "unseen": split}}
        places |= {f"without {split}: on these": {"group": "unseen", "unseen": split}}
    return places


def _legend(figure: Figure, axes: Axes, columns: int | None = None) -> None:
    """The labels of one panel, below the figure; in one line unless columns are given."""
    handles, names = axes.get_legend_handles_labels()
    if names:
        ncols = columns or len(names)
        figure.legend(handles, names, loc="outside lower center", ncols=ncols, frameon=False, fontsize=9.5)


def _named_rates(frame: pd.DataFrame) -> pd.DataFrame:
    """Cells of another rate as a fineness of their own, named after both."""
    rates = frame["rate"].astype(float)  # a run without other rates has a column of None
    named = frame["grain"].map(GRAINS) + rates.map(", rate {:g}".format)
    return frame.assign(grain=frame["grain"].where(rates.isna(), named))


def _half_of(rows: pd.DataFrame) -> int:
    """Images per task in the half that is learned from: as many as in the half that is measured on."""
    counts = rows[(rows["task"] != AVERAGE) & (rows.get("setting") == INDUCTIVE)]["n"]
    return int(counts.median()) if len(counts) else 0


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    words = {**STARTS, **GRAINS, **OBJECTIVES}
    frame = frame.rename(index=lambda name: words.get(name, name), columns=lambda name: words.get(name, name))
    return frame.rename_axis(index=None, columns=None)
