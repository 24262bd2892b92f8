"""Figures of the mini world: its images, and diagnostics of its task vectors."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from .style import WIDTH, heatmap, styled


@styled
def contact_sheet(images: Mapping[str, np.ndarray]) -> Figure:
    """One line of images a task.

    Arguments:
        images: task → uint8 ``[n, 3, height, width]``, the same n for all tasks.
    """
    figure, grid = plt.subplots(len(images), 1, figsize=(WIDTH, 0.62 * len(images)), squeeze=False)
    for axes, (task, batch) in zip(grid[:, 0], images.items(), strict=True):
        batch = np.asarray(batch)
        padded = np.pad(batch, ((0, 0), (0, 0), (0, 0), (0, 2)), constant_values=255)
        axes.imshow(np.concatenate(list(padded.transpose(0, 2, 3, 1)), axis=1), interpolation="nearest")
        axes.set_ylabel(task, rotation=0, ha="right", va="center")
        axes.set(xticks=[], yticks=[])
        sns.despine(ax=axes, left=True, bottom=True)
    return figure


@styled
def cosines(frame: pd.DataFrame) -> Figure:
    """Cosine between task vectors, tasks × tasks; the diagonal is 1 and left out."""
    off = frame.where(~np.eye(len(frame), dtype=bool))
    limit = max(0.1, np.nanmax(np.abs(off.to_numpy()), initial=0.0))
    figure, axes = plt.subplots(figsize=(WIDTH, 4.6))
    heatmap(axes, off, digits=2, cmap="RdBu_r", vmin=-limit, vmax=limit)
    return figure


@styled
def expert_paths(path: pd.DataFrame) -> Figure:
    """Accuracy of θ0 + α T_k on its own task over α, one small panel a task, the other tasks grey behind it.

    Arguments:
        path: accuracy (percent), tasks × α.
    """
    lanes = -(-len(path) // 2)
    size = (WIDTH, 1.25 * lanes + 0.4)
    figure, grid = plt.subplots(lanes, 2, figsize=size, sharex=True, sharey=True, squeeze=False)
    for axes, task in zip(grid.flat, path.index, strict=False):
        axes.plot(path.columns, path.T, color="#D5D5D5", lw=1)
        axes.plot(path.columns, path.loc[task], "-o", ms=3, color="#1F6FB5")
        axes.set_title(task, loc="left")
        axes.set(ylim=(0, 103), yticks=(0, 50, 100))
    for axes in grid.flat[len(path) :]:
        axes.set_visible(False)
    figure.supxlabel("α: share of the task vector added", fontsize=10.5)
    figure.supylabel("accuracy on its own task (%)", fontsize=10.5)
    return figure
