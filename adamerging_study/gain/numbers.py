"""What the grid found, by name: averages of its cells, and the steps from one choice to the next."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import combinations

import numpy as np
import pandas as pd

from adamerging_lib.published.competitions import ONE

from ..frames import AVERAGE
from ..sample import Sample, ratio
from . import CHOICES, GRAINS, METHOD, OBJECTIVES, RECIPE, STARTS

INDUCTIVE, FROM = "inductive", "tsv_m"
PUBLISHED = "layer_wise_adamerging"
FEW = 32
"""Images per task that count as few."""
COUNTS = (2, 8, FEW, 128, 0)
"""Images per task that numbers have names for, beside those of the run; 0 is all of the half."""
BEYOND = ("individual", "traditional_mtl")


def numbers(sample: Sample) -> dict[str, np.ndarray]:
    """Percent and points, all on images that were not learned from but for what ends in ``_same``.

    ``METHOD_average``; of the cells from TSV-M ``GRAIN_OBJECTIVE_IMAGES``, of the others ``START_OBJECTIVE``;
    ``A_over_B_OBJECTIVE_IMAGES`` of two grains, ``A_over_B_GRAIN`` of two objectives; ``OBJECTIVE_gain_from_START``;
    ``starts_spread`` between the best and the worst start before learning, and after it ``starts_spread_OBJECTIVE``;
    ``slow_tensor_IMAGES`` at the lower rate; ``recipe_IMAGES`` is `RECIPE`.
    """
    grid = _Grid(sample)
    slow = {n: grid.slow.get(n, grid.nan) for n in grid.counts}
    found = {f"{method}_average": _of(sample, method) for method in _methods(sample.frame)}
    found |= {f"{g}_{o}_{n or 'all'}": v for (s, g, o, n), v in grid.cells.items() if s == FROM}
    found |= {f"{s}_{o}": v for (s, g, o, n), v in grid.cells.items() if (g, n) == ("tensor", grid.at)}
    found |= {f"{g}_{o}_same": v for (_, g, o, _), v in grid.same.items()}
    for coarse, fine in combinations(GRAINS, 2):
        for objective in OBJECTIVES:
            for count in grid.counts:
                step = grid(FROM, fine, objective, count) - grid(FROM, coarse, objective, count)
                found[f"{fine}_over_{coarse}_{objective}_{count or 'all'}"] = step
    for low, high in combinations(OBJECTIVES, 2):
        for grain in GRAINS:
            found[f"{high}_over_{low}_{grain}"] = grid(FROM, grain, high) - grid(FROM, grain, low)
    found |= {f"slow_tensor_{n or 'all'}": values for n, values in slow.items()}
    for grain in GRAINS:
        found |= {f"{grain}_over_slow_tensor_{n or 'all'}": grid(FROM, grain, "imitation", n) - slow[n] for n in slow}
    before = {start: _of(sample, start) for start in STARTS}
    learned = {start for start, *_ in grid.cells}
    found["starts_spread"] = _spread([before[start] for start in STARTS if start in learned], grid.nan)
    for objective in OBJECTIVES:
        after = {start: grid(start, "tensor", objective) for start in STARTS}
        found[f"starts_spread_{objective}"] = _spread([after[start] for start in STARTS if start in learned], grid.nan)
        found |= {f"{objective}_gain_from_{start}": after[start] - before[start] for start in STARTS}
        for grain in GRAINS:
            found[f"{grain}_{objective}_over_start"] = grid(FROM, grain, objective) - before[FROM]
    found["starts_spread_ratio"] = ratio(found["starts_spread_imitation"], found["starts_spread"])
    return found | _recipe(sample, grid)


def _recipe(sample: Sample, grid: _Grid) -> dict[str, np.ndarray]:
    """``recipe_IMAGES``, ``recipe_over_published``, and over the best of the methods measured beside the grid."""
    at = {count: grid(*RECIPE, count) for count in COUNTS}
    found = {f"recipe_{count or 'all'}": values for count, values in at.items()}
    free, static = _best(sample, free=True), _best(sample, free=False)
    return found | {
        "recipe_few_over_free": at[FEW] - free,
        "recipe_over_static": at[128] - static,
        "recipe_over_published": at[128] - _of(sample, PUBLISHED),
    }


class _Grid:
    """Averages of the cells, NaN where one was not run."""

    def __init__(self, sample: Sample) -> None:
        self.nan = sample.point(np.nan)
        self.cells, self.same, self.slow = {}, {}, {}
        rows = sample.frame
        for which in _kinds(rows[(rows["method"] == METHOD) & (rows["task"] == AVERAGE)]):
            values, key = sample.average(METHOD, **which), (which["start"], which["grain"], which["objective"])
            if which["rate"] is not None:
                self.slow[int(which["images"])] = values  # where several rates were asked for, the last
            else:
                kind = self.cells if which["setting"] == INDUCTIVE else self.same
                kind[*key, int(which["images"])] = values
        self.counts = list(dict.fromkeys([*COUNTS, *(count for *_, count in self.cells)]))
        others = [count for start, *_, count in self.cells if start != FROM]
        self.at = others[0] if others else 128

    def __call__(self, start: str, grain: str, objective: str, images: int | None = None) -> np.ndarray:
        return self.cells.get((start, grain, objective, self.at if images is None else images), self.nan)


def _of(sample: Sample, method: str) -> np.ndarray:
    """Average of a method on the images that the grid is measured on."""
    return sample.average(method, setting=INDUCTIVE)


def _kinds(rows: pd.DataFrame) -> list[dict[str, object]]:
    """The factors of every cell, ``rate`` None where it is the run's own."""
    columns = ["start", "grain", "objective", "images", "setting", "rate"]
    kinds = rows.reindex(columns=columns).drop_duplicates().to_dict("records")
    return [{name: None if value != value else value for name, value in kind.items()} for kind in kinds]


def _methods(rows: pd.DataFrame) -> list[str]:
    return [method for method in dict.fromkeys(rows["method"]) if method != METHOD]


def _best(sample: Sample, *, free: bool) -> np.ndarray:
    """The best single model of a published method that needs nothing, or nothing but unlabelled images."""
    rows = sample.frame[sample.frame["task"] == AVERAGE].drop_duplicates("method").set_index("method")
    rows = rows.drop(index=[method for method in (METHOD, *BEYOND) if method in rows.index])
    fit = (rows["gives"] == ONE) & (rows["needs"].eq("nothing") if free else rows["needs"].ne("labels"))
    chosen = list(rows.index[fit])
    return reduce(np.maximum, [_of(sample, method) for method in chosen]) if chosen else sample.point(np.nan)


def _spread(values: Sequence[np.ndarray], nan: np.ndarray) -> np.ndarray:
    return reduce(np.maximum, values) - reduce(np.minimum, values) if values else nan
