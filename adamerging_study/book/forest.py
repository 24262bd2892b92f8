"""The figure of the first page: what each form of AdaMerging gains over Task Arithmetic, in every world."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adamerging_lib import records
from adamerging_lib.published import published

from ..performance.numbers import SHORT
from ..sample import AVERAGE, interval
from ..style import colour, styled
from .answer import TEXT, WORLDS, brief, direction_text, numbers_of, record_of, verdict_text
from .roles import seeds_told
from .worlds import TITLES, heading

FORMS = {
    "layer_wise_adamerging": "Layer-wise", "layer_wise_adamerging_pp": "Layer-wise ++",
    "task_wise_adamerging": "Task-wise", "task_wise_adamerging_pp": "Task-wise ++",
}  # fmt: skip
"""The four forms of AdaMerging, from top to bottom → their names in the figure."""
BASES = {"ta_average": "over λ = 0.3", "ta_best": "over the best λ"}
"""Number that a gain is measured from → which λ of Task Arithmetic that is."""

PANELS = (*WORLDS, TEXT)
WIDTH = 4.8  # inches: 10.5 pt are then still 10 px on a telephone

_PLACES = {"ta_average": -0.2, "ta_best": 0.2}
_COLUMNS = {"ta_average": 0.87, "ta_best": 1.0}  # of the numbers, in shares of the width


def forest_text(picture: Path, address: str) -> str:
    """The figure with its caption and its alternative text, drawn from the records of all worlds.

    Arguments:
        picture: file to draw it into.
        address: of that file, from the page.
    """
    worlds = {profile: gains(numbers) for profile, numbers in numbers_of("performance", PANELS).items()}
    theirs = {TITLES[profile]: published_averages() for profile in WORLDS}
    figure = forest({TITLES[profile]: found for profile, found in worlds.items()}, theirs)
    figure.savefig(picture, format="png", metadata={"Software": None})
    plt.close(figure)
    options = f':name: fig-forest\n:width: 100%\n:alt: "{alt(worlds)}"'
    return f"```{{figure}} {address}\n{options}\n\n{caption(list(worlds))}\n```\n"


def gains(numbers: Mapping[str, np.ndarray]) -> dict[tuple[str, str], np.ndarray]:
    """(Form, base) → what the form gains over Task Arithmetic at that λ, points, paired image by image."""
    return {(form, base): numbers[f"{SHORT[form]}_average"] - numbers[base] for form in FORMS for base in BASES}


def published_averages() -> dict[str, float]:
    """Form → its published gain over Task Arithmetic at λ = 0.3, points (Table 1)."""
    at = published(table=1).set_index(["task", "method_id"])["accuracy"][AVERAGE]
    return {form: float(at[form] - at["task_arithmetic"]) for form in FORMS}


def alt(worlds: Mapping[str, Mapping[tuple[str, str], np.ndarray]]) -> str:
    """The figure in words: what it shows in the end, then every gain with its interval, and the published ones."""
    parts = []
    for profile, found in worlds.items():
        each = [f"{FORMS[form]} {', '.join(brief(found[form, base]) for base in BASES)}" for form in FORMS]
        parts.append(f"{heading(TITLES[profile])}, {' and '.join(BASES.values())}: {'; '.join(each)}.")
    theirs = ", ".join(f"{FORMS[form]} {gain:+.1f}" for form, gain in published_averages().items())
    finding = re.sub(r"\[(.*?)\]\{.*?\}", r"\1", verdict_text())
    if TEXT in worlds:
        finding += f" On text the sign {direction_text(worlds[TEXT]['layer_wise_adamerging', 'ta_average'])}."
    return (
        f"{finding} Forest plot of points gained over Task Arithmetic, with 95 % intervals. {' '.join(parts)} "
        f"Published, on images, over λ = 0.3: {theirs}."
    )


def caption(profiles: Iterable[str] = tuple(WORLDS)) -> str:
    """What the figure shows, and what the runs behind it were.

    Arguments:
        profiles: of its panels.
    """
    runs = {profile: run(profile) for profile in profiles}
    told = "; ".join(f"{TITLES[profile]}: {text}" for profile, text in runs.items())
    if len(set(runs.values())) == 1:
        told = f"all worlds: {runs.popitem()[1]}"
    return (
        "Points over Task Arithmetic at $\\lambda = 0.3$ (filled) and at the best $\\lambda$ of a sweep, which takes "
        "labels to find (hollow), with 95 % intervals over test inputs and, where there are several, seeds. Diamonds: "
        f"*published*, CLIP ViT-B/32 on images. {heading(told)}."
    )


def run(profile: str) -> str:
    """What a world's main comparison was run with: steps, test images per task, seeds, and whether it kept outcomes."""
    record = records.read(record_of("performance", profile))
    rows = [row for row in record["rows"] if row["method"] == "layer_wise_adamerging" and row["task"] != AVERAGE]
    images, seeds = {int(row["n"]) for row in rows}, sorted({row["seed"] for row in rows})
    told = [f"{record['parameters']['steps']} steps"] if "steps" in record["parameters"] else []
    if images:
        span = f"{min(images):,}" + (f" to {max(images):,}" if len(images) > 1 else "")
        told += [f"{span} test {'texts' if profile == TEXT else 'images'} per task", seeds_told(seeds)]
    return ", ".join(told + ([] if all("right" in row for row in rows) else ["no intervals"]))


@styled
def forest(
    worlds: Mapping[str, Mapping[tuple[str, str], np.ndarray]], theirs: Mapping[str, Mapping[str, float]]
) -> Figure:
    """Gains of the four forms as points with 95 % intervals, a panel per world, one below the other.

    Arguments:
        worlds: name → (form, base) → ``[1 + draws]``, see `gains`; without an interval the point stands alone, and a
            gain that was not run is left out.
        theirs: name → form → published gain over Task Arithmetic at λ = 0.3, a diamond; none in worlds left out.
    """
    size = WIDTH, 1.4 * len(worlds) + 0.75
    figure, panels = plt.subplots(len(worlds), 1, figsize=size, sharex=True, sharey=True, squeeze=False)
    low, high = _ends(worlds, theirs)
    for axes, (name, found) in zip(panels[:, 0], worlds.items(), strict=True):
        axes.set_title(heading(name), loc="left", fontsize=10.5)
        axes.axvline(0, color="#8A8A8A", lw=1)
        axes.grid(axis="x", color="#EFEFEF")
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        for row, form in enumerate(FORMS):
            if name in theirs:
                at = theirs[name][form], row + _PLACES["ta_average"]
                axes.plot(*at, "D", ms=6, color="#6A6A6A", mfc="white", zorder=2)
            for base in BASES:
                _draw(axes, found[form, base], row + _PLACES[base], colour(form), filled=base == "ta_average")
                axes.text(_COLUMNS[base], row, _told(found[form, base]), **_beside(axes))
    axes.set(yticks=range(len(FORMS)), yticklabels=FORMS.values(), ylim=(len(FORMS) - 0.5, -0.5))
    for base, sign in (("ta_average", "●"), ("ta_best", "○")):
        panels[0, 0].text(_COLUMNS[base], -0.75, sign, **_beside(panels[0, 0]))
    # The numbers stand right of everything drawn, in a third of the width.
    ticks = range(5 * math.ceil(low / 5), math.ceil(high), 5)
    axes.set_xlim(low, high + (high - low) / 3)
    axes.set_xticks(ticks, map(_number, ticks))
    axes.set_xlabel("points of average accuracy over Task Arithmetic")
    _legend(figure)
    return figure


def _draw(axes: Axes, values: np.ndarray, y: float, shade: str, filled: bool) -> None:
    """A point, and its interval where there is one; nothing for what was not run."""
    point, low, high = interval(values)
    if math.isnan(point):
        return
    if low is not None and high is not None:
        axes.plot([low, high], [y, y], color=shade, lw=1.8, solid_capstyle="butt", zorder=3)
    axes.plot(point, y, "o", ms=6, color=shade, mfc=shade if filled else "white", mew=1.4, zorder=4)


def _told(values: np.ndarray) -> str:
    """The number beside a point; nothing for what was not run."""
    return "" if math.isnan(values[0]) else _number(f"{values[0]:+.1f}")


def _beside(axes: Axes) -> dict[str, object]:
    """How text stands in a column at the right edge."""
    return {"ha": "right", "va": "center", "transform": axes.get_yaxis_transform()}


def _ends(
    worlds: Mapping[str, Mapping[tuple[str, str], np.ndarray]], theirs: Mapping[str, Mapping[str, float]]
) -> tuple[float, float]:
    """What the axis spans so that 0, every interval and every published gain lies inside."""
    ends = [end for found in worlds.values() for values in found.values() for end in interval(values)]
    ends += [gain for gains in theirs.values() for gain in gains.values()]
    ends = [0.0, *(end for end in ends if end is not None and not math.isnan(end))]
    return min(ends) - 0.5, max(ends) + 0.5


def _number(value: object) -> str:
    """A number with a minus sign of its own."""
    return str(value).replace("-", "−")


def _legend(figure: Figure) -> None:
    grey = {"ls": "", "ms": 6, "color": "#4A4A4A"}
    handles = [
        plt.Line2D([], [], marker="o", label="over λ = 0.3", **grey),
        plt.Line2D([], [], marker="o", mfc="white", mew=1.4, label="over the best λ", **grey),
        plt.Line2D([], [], marker="D", mfc="white", label="published", **grey),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, handlelength=1,
                  handletextpad=0.3, columnspacing=1.2, borderaxespad=0)  # fmt: skip
