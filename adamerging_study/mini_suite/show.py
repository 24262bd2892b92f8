"""Tables and figures of a world: its tasks, how its zoo was trained, and its task vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from adamerging_lib.worlds.roles import ROLES

from ..frames import AVERAGE
from ..style import WIDTH, heatmap, styled

if TYPE_CHECKING:
    from adamerging_lib.suite import Suite
    from adamerging_lib.worlds.mini.tasks import MiniTask


def tasks(suite: Suite) -> pd.DataFrame:
    """Each task: the paper's data set whose place it takes, its classes and test images, as text."""
    lines = {
        task: {
            "stands in for": ROLES.get(task, task),
            "classes": str(len(data.classes)),
            "chance": f"{100 / len(data.classes):.1f} %",
            "test images": f"{len(data):,}",
        }
        for task, data in suite.test.items()
    }
    return pd.DataFrame(lines).T


def prompts(tasks: Mapping[str, MiniTask]) -> pd.DataFrame:
    """What zero-shot heads are made of: each task's templates and class names, as text."""
    lines = {
        name: {"prompts": " · ".join(task.templates), "class names": ", ".join(task.classes)}
        for name, task in tasks.items()
    }
    return pd.DataFrame(lines).T


def recipe(manifest: Mapping[str, Mapping]) -> pd.DataFrame:
    """How a zoo was trained: settings × stages, as text, in the manifest's order."""
    stages = {stage: {key: str(value) for key, value in part.items()} for stage, part in manifest["recipe"].items()}
    order = list(dict.fromkeys(key for part in stages.values() for key in part))
    return pd.DataFrame(stages, dtype=object).reindex(order)


def zoo_accuracies(manifest: Mapping[str, Mapping], names: Mapping[str, str]) -> pd.DataFrame:
    """Accuracies (percent) that a zoo's manifest states: methods × tasks, and their unweighted average, as text.

    Arguments:
        manifest: of the zoo.
        names: method id → its name.
    """
    frame = pd.DataFrame(manifest["accuracies"]).T
    frame[AVERAGE] = frame.mean(axis=1)
    return frame.map("{:.1f}".format).rename(index=dict(names))


def path_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy (percent) over α, tasks × α in the record's order; the average left out."""
    path = rows[(rows["method"] == "expert_path") & (rows["task"] != AVERAGE)]
    return path.pivot_table(index="task", columns="alpha", values="accuracy", sort=False).sort_index(axis=1)


def cosines_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Cosines between task vectors, tasks × tasks in the record's order, 1 on the diagonal."""
    tasks = rows.loc[rows["kind"] == "relative_norm", "task"].tolist()
    square = pd.DataFrame(np.eye(len(tasks)), index=tasks, columns=tasks)
    for pair in rows[rows["kind"] == "cosine"].itertuples():
        square.loc[pair.task, pair.other] = square.loc[pair.other, pair.task] = pair.value
    return square


def gain_share(path: pd.DataFrame, alpha: float) -> pd.Series:
    """(acc(α) − acc(0)) / (acc(1) − acc(0)) of every task, percent: the share of the expert's gain reached at α.

    Arguments:
        path: of `path_of`, with α = 0, α and 1 among its columns.
        alpha: where to look.

    Raises:
        ValueError: where one of the three values of α is missing.
    """
    if missing := [a for a in (0.0, float(alpha), 1.0) if a not in path]:
        raise ValueError(f"the path has no α = {', '.join(map(str, missing))}: measure it there too")
    return 100 * (path[float(alpha)] - path[0.0]) / (path[1.0] - path[0.0])


def summary(rows: pd.DataFrame, alpha: float = 0.3) -> pd.DataFrame:
    """One line per task: accuracies at both ends, share of the gain at α, norm, and the largest cosine, as text."""
    path, angles = path_of(rows), cosines_of(rows)
    norms = rows[rows["kind"] == "relative_norm"].set_index("task")["value"]
    others = angles.where(~np.eye(len(angles), dtype=bool))
    columns = {
        "zero-shot": path[0.0].map("{:.1f}".format),
        "expert": path[1.0].map("{:.1f}".format),
        f"share of the gain at α = {alpha:g}": gain_share(path, alpha).map("{:.0f} %".format, na_action="ignore"),
        "‖T‖ / ‖θ0‖": norms.map("{:.3f}".format),
        "largest cosine with another": others.max().map("{:.2f}".format),
    }
    return pd.DataFrame(columns).loc[path.index].rename_axis(index=None)


@styled
def contact_sheet(images: Mapping[str, np.ndarray]) -> Figure:
    """One line of images per task.

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
def cosines(rows: pd.DataFrame) -> Figure:
    """Cosine between task vectors, tasks × tasks, in colours from −1 to 1; the diagonal is left out."""
    frame = cosines_of(rows)
    off = frame.where(~np.eye(len(frame), dtype=bool))
    figure, axes = plt.subplots(figsize=(WIDTH, 4.6))
    heatmap(axes, off, digits=2, cmap="RdBu_r", vmin=-1, vmax=1)
    return figure


@styled
def expert_paths(rows: pd.DataFrame) -> Figure:
    """Accuracy of θ0 + α T_k on its own task over α, one small panel per task, the other tasks grey behind it."""
    path = path_of(rows)
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
