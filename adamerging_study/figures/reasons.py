"""Figures of the experiment on reasons: traits of tasks against what adaptation won back."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from ..tables.reasons import TRAITS, WON, by_task, correlations
from .style import WIDTH, styled, task_colours


@styled
def traits(rows: pd.DataFrame) -> Figure:
    """Share of the loss that adaptation won back against each trait, one mark a task."""
    frame, rho = by_task(rows).dropna(subset=[WON]), correlations(rows)
    figure, grid = plt.subplots(2, 3, figsize=(WIDTH, 5.0), sharey=True)
    for axes, (trait, title) in zip(grid.flat, TRAITS.items(), strict=False):
        for task, colour in zip(frame.index, task_colours(len(frame)), strict=True):
            axes.plot(frame.loc[task, trait], frame.loc[task, WON], "o", ms=6, color=colour, label=task)
        axes.axhline(0, color="#777777", lw=0.8)
        axes.set_title(f"ρ = {rho[trait]:.2f}", loc="left")
        axes.set_xlabel(title, fontsize=9.5)
        if trait == "classes" and len(frame):
            axes.set_xscale("log")
            counts = frame[trait].astype(int)
            axes.set_xticks(
                sorted({counts.min(), counts.max()}), sorted({str(counts.min()), str(counts.max())}, key=int)
            )
            axes.minorticks_off()
    last = grid.flat[len(TRAITS)]
    last.axis("off")
    handles, names = grid.flat[0].get_legend_handles_labels()
    last.legend(handles, names, loc="center", frameon=False, fontsize=9)
    figure.supylabel("share of the loss won back (%)", fontsize=10.5)
    return figure
