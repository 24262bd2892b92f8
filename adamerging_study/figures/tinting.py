"""Figures of the tinting experiment: the pilot, what is learned, and what the filter keeps."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from adamerging_lib.layers import RESBLOCKS

from ..tables.tinting import average, pilot, variants
from .style import WIDTH, colour, styled

TINT = "#7A3FA0"


@styled
def single_layers(rows: pd.DataFrame) -> Figure:
    """Average accuracy by the one layer that is tinted, λ left at its start; levels of Task Arithmetic and experts."""
    bars = pilot(rows)[::-1]
    figure, axes = plt.subplots(figsize=(WIDTH, 0.34 * len(bars) + 1.1))
    axes.barh([name.replace(RESBLOCKS, "block ") for name in bars.index], bars, color=TINT)
    for method, name in (("task_arithmetic", "no layer"), ("individual", "experts")):
        level = average(rows, method)
        axes.axvline(level, color=colour(method), ls="--", lw=1.2)
        axes.text(level, 1.01, name, ha="center", va="bottom", fontsize=9, color=colour(method),
                  transform=axes.get_xaxis_transform())  # fmt: skip
    for place, value in enumerate(bars):
        axes.text(value - 0.6, place, f"{value:.1f}", va="center", ha="right", color="white", fontsize=9)
    axes.set_xlabel("average accuracy (%), one layer a task learned, λ = 0.3")
    return figure


@styled
def what_is_learned(rows: pd.DataFrame) -> Figure:
    """Average accuracy by what is learned."""
    frame = variants(rows)[::-1]
    values = frame["average accuracy"].astype(float)
    figure, axes = plt.subplots(figsize=(WIDTH, 0.36 * len(frame) + 0.7))
    axes.barh(range(len(frame)), values, color="#9DB7CE")
    axes.set_yticks(range(len(frame)), [name.replace(", ", ",\n", 1) for name in frame.index], fontsize=9)
    for place, value in enumerate(values):
        axes.text(value - 0.6, place, f"{value:.1f}", va="center", ha="right", fontsize=9)
    axes.set_xlabel("average accuracy (%)")
    return figure


@styled
def filtering(rows: pd.DataFrame) -> Figure:
    """Share of the images that Tint++ keeps, and where both models agree, over the rounds."""
    figure, axes = plt.subplots(figsize=(WIDTH, 3.0))
    for quantity, style, title in (("kept", "-", "kept"), ("agreement", "--", "both models agree")):
        own = rows[rows["quantity"] == quantity]
        axes.plot(own["epoch"], own["value"], style, color=TINT, label=title)
    axes.set(xlabel="rounds over the tasks", ylabel="share of the images (%)", ylim=(None, 101))
    axes.legend(frameon=False, loc="lower right")
    return figure
