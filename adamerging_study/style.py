"""What all figures share: colours of the methods, sizes, and a few drawing helpers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from scipy.optimize import isotonic_regression

from . import hover

# Chosen so that any two differ by at least 15 in CIELAB, also as seen with protan-, deuter- and tritanopia
# (tests/test_style.py). A new method takes a colour that keeps the test green, or shares one with a new dash.
METHOD_COLOURS = {
    "zero_shot": "#A8A8A8",
    "individual": "#000000",
    "traditional_mtl": "#5F5F5F",
    "weight_averaging": "#C05A9A",
    "task_arithmetic": "#1F6FB5",
    "ties": "#E69F00",
    "task_wise_adamerging": "#56B4E9",
    "task_wise_adamerging_pp": "#009E73",
    "layer_wise_adamerging": "#D55E00",
    "layer_wise_adamerging_pp": "#661100",
}
# Other methods take the muted colour of what they need, and always stand with their name and that marker. Any two of
# these differ by 20 in the same sense, and from the colours above by 12.
NEEDS_COLOURS = {
    "nothing": "#3C4E7C",
    "unlabelled training images": "#7F8039",
    "unlabelled test images": "#D09AC5",
    "labels": "#7DC392",
}
NEEDS_MARKERS = dict(zip(NEEDS_COLOURS, "osD^", strict=True))
METHOD_DASHES = {"zero_shot": ":", "traditional_mtl": "--", "weight_averaging": "-."}  # all others are solid
WIDTH = 5.6  # inches; 10.5 pt text is then still 9 px on a page of 360 px
STYLE = {
    **sns.axes_style("ticks"),
    "font.size": 10.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "figure.dpi": 160,
    "figure.constrained_layout.use": True,
}


# Eight tasks (or kinds of tensor) as lines with their names beside; all dark enough for text on white.
TASK_COLOURS = ("#0072B2", "#B8860B", "#00795B", "#C44E00", "#B0508A", "#7A4B22", "#5B3A9B", "#555555")


def task_colours(count: int) -> list[str]:
    """Colours of that many tasks, in the suite's order; beyond eight they repeat."""
    return [TASK_COLOURS[i % len(TASK_COLOURS)] for i in range(count)]


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Decorator: draw in the house style, whatever the caller's matplotlib settings are."""

    @wraps(draw)
    def styled(*args, **kwargs) -> Figure:
        with plt.rc_context(STYLE):
            figure = draw(*args, **kwargs)
        hover.register()  # only now: Jupyter's own settings come with the first figure
        return figure

    return styled


def colour(method: str, needs: str | None = None) -> str:
    """The colour of a method: its own, or that of what it needs.

    Arguments:
        method: its id.
        needs: what it needs, as its record says, see `frames.needs`; for methods without a colour of their own.

    Raises:
        ValueError: for a method that has neither.
    """
    if method in METHOD_COLOURS:
        return METHOD_COLOURS[method]
    if needs not in NEEDS_COLOURS:
        raise ValueError(f"method {method!r} has no colour: say what it needs, or add it to {__name__}.METHOD_COLOURS")
    return NEEDS_COLOURS[needs]


def heatmap(axes: Axes, frame: pd.DataFrame, digits: int, **options) -> None:
    """Heat map with its numbers in it, without a colour bar."""
    text = {"annot": frame.round(digits) + 0.0, "fmt": f".{digits}f", "annot_kws": {"size": 8.5}}  # + 0.0: no "-0"
    sns.heatmap(frame, ax=axes, cbar=False, linewidths=0.6, **text, **options)
    axes.set(xlabel="", ylabel="")
    axes.set_xticks(axes.get_xticks(), axes.get_xticklabels(), rotation=40, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)


def spread(values: Sequence[float], gap: float, low: float = -np.inf, high: float = np.inf) -> np.ndarray:
    """The values, moved as little as possible (least squares) so that they lie ``gap`` apart and in [low, high]."""
    values = np.asarray(values, float)
    order = np.argsort(values, kind="stable")
    steps = gap * np.arange(len(values))
    spread = np.empty_like(values)
    moved = isotonic_regression(values[order] - steps).x
    spread[order] = np.clip(moved, low, max(low, high - gap * (len(values) - 1))) + steps
    return spread


def edge_labels(axes: Axes, labels: Mapping[str, tuple[float, float]], side: str, size: float = 9) -> None:
    """Names beside the axes in the order of their points' heights, none over another, each with a line to its point.

    Arguments:
        axes: with final limits, and everything else around them in place: its height decides how close names may stand.
        labels: text → point, in data units.
        side: ``left`` or ``right``.
        size: of the text, in points.
    """
    axes.figure.draw_without_rendering()
    low, high = axes.get_ylim()
    gap = 1.25 * size / 72 * axes.figure.dpi / axes.get_window_extent().height * (high - low)
    x, align, start = (-0.04, "right", 1) if side == "left" else (1.04, "left", 0)
    line = {"arrowstyle": "-", "color": "#B0B0B0", "lw": 0.6, "shrinkA": 1, "shrinkB": 3, "relpos": (start, 0.5)}
    places = spread([y for _, y in labels.values()], gap, low, high)
    for (text, point), y in zip(labels.items(), places, strict=True):
        axes.annotate(
            text, xy=point, xycoords="data", xytext=(x, y), textcoords=axes.get_yaxis_transform(), ha=align,
            va="center", fontsize=size, annotation_clip=False, zorder=1, arrowprops=line,
        )  # fmt: skip


def name_points(axes: Axes, points: Sequence[tuple[str, float, float, str]], size: float = 8) -> None:
    """Names beside points, each on the side where it covers least of other names and points.

    Arguments:
        axes: with final limits, and everything else of the figure in place.
        points: (name, x, y, colour), in data units; an empty name is a point to keep clear of.
        size: of the text, in points.
    """
    axes.figure.draw_without_rendering()
    frame, reach = axes.get_window_extent(), axes.figure.dpi / 72
    spots = axes.transData.transform([(x, y) for _, x, y, _ in points]) if points else []
    dots, names = [Bbox.from_extents(x - 3 * reach, y - 3 * reach, x + 3 * reach, y + 3 * reach) for x, y in spots], []
    for name, x, y, colour in points:
        if not name:
            continue
        text = axes.annotate(name, (x, y), xytext=(0, 0), textcoords="offset points", fontsize=size, color=colour)
        text.set_in_layout(False)
        text.set_path_effects([withStroke(linewidth=2, foreground="white")])  # over lines and dots
        costs = []
        for place in _SIDES:
            _put(text, place)
            box = text.get_window_extent()
            outside = _area(box) - _area(Bbox.intersection(box, frame))
            covered = [sum(_area(Bbox.intersection(box, other)) for other in others) for others in (dots, names)]
            costs.append(4 * outside + covered[0] + 4 * covered[1] + 0.1 * abs(place[1]) * _area(box))
        _put(text, _SIDES[int(np.argmin(costs))])
        names.append(text.get_window_extent())


# Direction of a name from its point, the usual one first.
_SIDES = [(across, up) for up in (0, 1, -1, 2, -2, 3, -3) for across in (1, -1, 0) if across or up]


def _put(text: Annotation, place: tuple[int, int]) -> None:
    across, up = place
    text.set_position((4.5 * across, 4 * up if across else 5 * up))
    text.set_ha({1: "left", 0: "center", -1: "right"}[across])
    text.set_va("center" if up == 0 else "bottom" if up > 0 else "top")


def _area(box: Bbox | None) -> float:
    return 0.0 if box is None else box.width * box.height
