"""What a figure's marks and cells stand for, kept beside its picture, so that a built page can tell it to the mouse.

A picture in a notebook knows nothing of its points. `register` makes Jupyter keep, in the metadata of the output, where
each mark and each cell of a heatmap lies in the picture and what it stands for; `book.hover` puts that into the page.
Print, PDF and readers of the notebook see the picture as ever.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from IPython.core.getipython import get_ipython
from IPython.core.pylabtools import print_figure
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.text import Annotation

KEY = "hover"
MOST = 600
"""Marks of a figure, beyond which a mouse could tell none from the next."""

Spot = tuple[float, float, str]
"""A point, from the left and from the top as shares of the picture, and what it stands for."""


def register() -> None:
    """Keep the spots of every figure that this Jupyter shows from now on; outside Jupyter nothing."""
    if shell := get_ipython():
        shell.display_formatter.formatters["image/png"].for_type(Figure, _shown)


def _shown(figure: Figure) -> tuple[str, dict[str, Any]] | str | None:
    picture = print_figure(figure, fmt="png", base64=True)
    found = spots(figure) if picture else []
    # As one text: a notebook would give every number a line of its own.
    return (picture, {KEY: json.dumps(found, ensure_ascii=False)}) if found else picture


def spots(figure: Figure) -> list[Spot]:
    """The marks of lines and scatter plots and the cells of heatmaps, in reading order; empty where there are too many.

    Arguments:
        figure: as it is drawn, its picture cropped as Jupyter crops it.
    """
    figure.draw_without_rendering()
    box = figure.get_tightbbox().padded(rcParams["savefig.pad_inches"])
    found = []
    for axes in figure.axes:
        frame = axes.get_window_extent().padded(1)
        for x, y, told in [*_cells(axes), *_marks(axes)]:
            at = axes.transData.transform((x, y))
            if not (np.isfinite(at).all() and frame.contains(*at)):
                continue
            inches = at / figure.dpi
            across, down = (inches[0] - box.x0) / box.width, (box.y1 - inches[1]) / box.height
            found.append((round(float(across), 4), round(float(down), 4), told))
    found = list(dict.fromkeys(found))
    return sorted(found, key=lambda spot: (spot[1], spot[0])) if len(found) <= MOST else []


def _cells(axes: Axes) -> Iterator[tuple[float, float, str]]:
    """Of heatmaps: the middle of each cell, its row, its column and its value."""
    for mesh in axes.collections:
        if isinstance(mesh, QuadMesh):
            corners, values = mesh.get_coordinates(), np.ma.asarray(mesh.get_array())
            values = values.reshape(corners.shape[0] - 1, corners.shape[1] - 1)
            for (row, column), value in np.ma.ndenumerate(values):
                x, y = (corners[row, column] + corners[row + 1, column + 1]) / 2
                named = [told for axis, at in ((axes.yaxis, y), (axes.xaxis, x)) if (told := _tick(axis, at))]
                yield x, y, f"{', '.join(named)}: {value:.3g}"
    for image in axes.images:
        values = np.ma.asarray(image.get_array())
        if values.ndim == 2:
            for (row, column), value in np.ma.ndenumerate(values):
                named = [t for axis, at in ((axes.yaxis, row), (axes.xaxis, column)) if (t := _tick(axis, at))]
                yield column, row, f"{', '.join(named)}: {value:.3g}"


def _marks(axes: Axes) -> Iterator[tuple[float, float, str]]:
    """Of lines with markers and of scatter plots: each point, its name or its line's, and its two numbers."""
    names = {tuple(np.round(note.xy, 9)): note.get_text() for note in axes.texts if isinstance(note, Annotation)}
    marked = [line for line in axes.lines if line.get_marker() not in ("None", "", None)]
    groups = [(line.get_label(), line.get_xydata()) for line in marked]
    groups += [(c.get_label(), c.get_offsets()) for c in axes.collections if isinstance(c, PathCollection)]
    for label, points in groups:
        for x, y in np.ma.filled(np.ma.asarray(points, float), np.nan):
            own = names.get((round(x, 9), round(y, 9))) or ("" if str(label).startswith("_") else str(label))
            sides = [(axis, at, _tick(axis, at)) for axis, at in ((axes.yaxis, y), (axes.xaxis, x))]
            named = [name for name in (*(name for *_, name in sides), own) if name]
            numbers = [_number(axis, at) for axis, at, name in reversed(sides) if not name]
            yield x, y, ": ".join(part for part in (", ".join(named), ", ".join(numbers)) if part)


def _number(axis: Axis, at: float) -> str:
    """A coordinate with what its axis shows."""
    label = axis.get_label_text().partition(";")[0].replace("\n", " ").strip()
    return f"{at:.3g} {label}".strip()


def _tick(axis: Axis, at: float) -> str:
    """The name of the tick that a coordinate lies at; empty where ticks are numbers."""
    for place, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=False):
        text = label.get_text()
        if abs(place - at) < 0.3 and any(letter.isalpha() for letter in text):
            return text.replace("\n", " ")
    return ""
