"""What all figures share: colours of the methods, sizes, and a few drawing helpers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

# Chosen so that any two differ by at least 15 in CIELAB, also as seen with protan-, deuter- and tritanopia
# (tests/test_figures.py). A new method takes a colour that keeps the test green, or shares one with a new dash.
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
    """Colours of so many tasks, in the suite's order; beyond eight they repeat."""
    return [TASK_COLOURS[i % len(TASK_COLOURS)] for i in range(count)]


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Decorator: draw in the house style, whatever the caller's matplotlib settings are."""

    @wraps(draw)
    def styled(*args, **kwargs) -> Figure:
        with plt.rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled


def colour(method: str) -> str:
    """The colour of a method; a method without one is a ValueError that says where to give it one."""
    if method not in METHOD_COLOURS:
        raise ValueError(f"method {method!r} has no colour: add one to METHOD_COLOURS, adamerging_lib/figures/style.py")
    return METHOD_COLOURS[method]


def heatmap(axes: Axes, frame: pd.DataFrame, digits: int, **options) -> None:
    """Heat map with its numbers in it, without a colour bar."""
    text = {"annot": frame.round(digits) + 0.0, "fmt": f".{digits}f", "annot_kws": {"size": 8.5}}  # + 0.0: no "-0"
    sns.heatmap(frame, ax=axes, cbar=False, linewidths=0.6, **text, **options)
    axes.set(xlabel="", ylabel="")
    axes.set_xticks(axes.get_xticks(), axes.get_xticklabels(), rotation=40, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)


def spread(values: Sequence[float], gap: float) -> np.ndarray:
    """The values, moved as little as possible (least squares) so that any two lie at least ``gap`` apart."""
    values = np.asarray(values, float)
    order = np.argsort(values, kind="stable")
    steps = gap * np.arange(len(values))
    spread = np.empty_like(values)
    spread[order] = isotonic_regression(values[order] - steps).x + steps
    return spread
