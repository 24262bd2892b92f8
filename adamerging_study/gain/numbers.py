"""What the grid found, by name: averages of its cells, and the steps from one choice to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import combinations, permutations

import numpy as np
import pandas as pd

from adamerging_lib.published.competitions import ONE

from ..frames import AVERAGE
from ..sample import Sample, ratio
from . import CHOICES, FILTERED, GRAINS, METHOD, MIXED, OBJECTIVES, PLAIN, RECIPE, STARTS, plain

INDUCTIVE, FROM = "inductive", "tsv_m"
PUBLISHED = "layer_wise_adamerging"
FEW = 32
"""Images per task that count as few."""
COUNTS = (2, 8, FEW, 128, 0)
"""Images per task that numbers have names for, beside those of the run; 0 is all of the half."""
FIRST = ("task_arithmetic", "tsv_m", "wudi")
"""The starts that the grid began with, of which a claim was made."""
COMPARED = ("recipe", "choices", "recipe_over_start", "choices_over_start", "recipe_over_choices")
"""What is told of each place with corrupted images or absent experts."""
BEYOND = ("individual", "traditional_mtl")


def numbers(sample: Sample) -> dict[str, np.ndarray]:
    """Percent and points, all on images that were not learned from, except for what ends in ``_same``.

    ``METHOD_average``; of the cells from TSV-M ``GRAIN_OBJECTIVE_IMAGES``, of the others ``START_OBJECTIVE``;
    ``A_over_B_OBJECTIVE_IMAGES`` of two grains, ``A_over_B_GRAIN`` of two objectives; ``OBJECTIVE_gain_from_START``;
    ``starts_spread`` between the best and the worst of `FIRST` before learning, and after it
    ``starts_spread_OBJECTIVE``, of all starts ``all_starts_spread``; ``OBJECTIVE_A_over_B`` of two starts;
    ``slow_tensor_IMAGES`` at the lower rate; ``recipe_IMAGES`` is `RECIPE`. On corrupted images and on tasks whose
    experts are absent see `_elsewhere`, of SWUDI's control `_mixed`.
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
    learned = [start for start in STARTS if any(start == begun for begun, *_ in grid.cells)]
    ranges = {"starts_spread": [start for start in learned if start in FIRST], "all_starts_spread": learned}
    found |= {name: _spread([before[start] for start in starts], grid.nan) for name, starts in ranges.items()}
    for objective in OBJECTIVES:
        after = {start: grid(start, "tensor", objective) for start in STARTS}
        for name, starts in ranges.items():
            found[f"{name}_{objective}"] = _spread([after[start] for start in starts], grid.nan)
        for one, other in permutations(STARTS, 2):
            found[f"{objective}_{one}_over_{other}"] = after[one] - after[other]
        found |= {f"{objective}_gain_from_{start}": after[start] - before[start] for start in STARTS}
        for grain in GRAINS:
            found[f"{grain}_{objective}_over_start"] = grid(FROM, grain, objective) - before[FROM]
    found["starts_spread_ratio"] = ratio(found["starts_spread_imitation"], found["starts_spread"])
    for grain in GRAINS:
        growth = {o: grid(FROM, grain, o, 128) - grid(FROM, grain, o, 8) for o in OBJECTIVES}
        found |= {f"{o}_{grain}_by_images": growth[o] for o in OBJECTIVES}
        for objective in OBJECTIVES:
            same = grid.same.get((FROM, grain, objective, 0), grid.nan)
            found[f"same_over_other_{grain}_{objective}"] = same - grid(FROM, grain, objective, 0)
            found[f"{grain}_{objective}_8_over_start"] = grid(FROM, grain, objective, 8) - before[FROM]
    found["imitation_over_diverse_by_images"] = (
        found["imitation_component_by_images"] - found["diverse_component_by_images"]
    )
    return found | _recipe(sample, grid) | _elsewhere(sample) | _mixed(sample)


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


def _elsewhere(sample: Sample) -> dict[str, np.ndarray]:
    """`RECIPE` and `CHOICES` where images are corrupted, and where experts are absent.

    ``recipe_WHERE``, ``choices_WHERE``, their differences ``recipe_over_choices_WHERE``, and from their starts
    ``recipe_over_start_WHERE``, ``choices_over_start_WHERE``. WHERE is a corruption, or ``seen_N`` and ``unseen_N`` for
    the tasks merged and left out in the Nth split; ``corrupted``, ``seen`` and ``unseen`` are means over them, and
    ``corrupted_least`` is the least.
    """
    rows, found = sample.frame, {}
    kinds = {"corrupted": {c: {"condition": c} for c in rows["condition"].unique() if c != "clean"}}
    for group in ("seen", "unseen"):
        splits = enumerate(rows["unseen"].dropna().unique() if "unseen" in rows else [], 1)
        kinds[group] = {f"{group}_{n}": {"group": group, "unseen": split} for n, split in splits}
    for kind, places in kinds.items():
        for place, which in places.items():
            found |= {f"{name}_{place}": values for name, values in _compared(sample, which).items()}
        for name in COMPARED:
            each = [found[f"{name}_{place}"] for place in places] or [sample.point(np.nan)]
            found[f"{name}_{kind}"] = np.mean(each, axis=0)
            if kind == "corrupted":
                found[f"{name}_{kind}_least"] = reduce(np.minimum, each)
    return found


def _compared(sample: Sample, which: Mapping[str, object]) -> dict[str, np.ndarray]:
    """`COMPARED`, of the rows that match."""
    found = {}
    which = {**which, "setting": INDUCTIVE}
    for name, (start, grain, objective) in {"recipe": RECIPE, "choices": CHOICES}.items():
        cell = {"start": start, "grain": grain, "objective": objective, "images": ...}
        found[name] = sample.average(METHOD, **cell, **which)
        found[f"{name}_over_start"] = found[name] - sample.average(start, **which)
    found["recipe_over_choices"] = found["recipe"] - found["choices"]
    return found


def _mixed(sample: Sample) -> dict[str, np.ndarray]:
    """SWUDI's control: ``mixed_PERCENT`` of WUDI's closed form, and where methods lie on that way, ``METHOD_distance``.

    ``best_mixed`` of those that are neither end, chosen on the measured images, and ``METHOD_over_mixed`` over it.
    """
    each = sample.each("accuracy", by="mixed", method=MIXED, setting=INDUCTIVE)
    found = {f"mixed_{100 * share:.0f}": values for share, values in each.items()}
    inner = [values for share, values in each.items() if 0 < share < 1]
    found["best_mixed"] = reduce(np.maximum, inner) if inner else sample.point(np.nan)
    for method in FILTERED:
        found[f"{method}_over_mixed"] = _of(sample, method) - found["best_mixed"]
        found[f"{method}_distance"] = sample.value("distance", method=method, task=AVERAGE, setting=INDUCTIVE)
    return found | {"swudi_over_wudi": _of(sample, "swudi") - _of(sample, "wudi")}


class _Grid:
    """Averages of the cells, NaN where one was not run."""

    def __init__(self, sample: Sample) -> None:
        self.nan = sample.point(np.nan)
        self.cells, self.same, self.slow = {}, {}, {}
        rows = plain(sample.frame)
        for which in _kinds(rows[(rows["method"] == METHOD) & (rows["task"] == AVERAGE)]):
            values, key = sample.average(METHOD, **PLAIN, **which), (which["start"], which["grain"], which["objective"])
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
    return sample.average(method, **PLAIN, setting=INDUCTIVE)


def _kinds(rows: pd.DataFrame) -> list[dict[str, object]]:
    """The factors of every cell, ``rate`` None where it is the run's own."""
    columns = ["start", "grain", "objective", "images", "setting", "rate"]
    kinds = rows.reindex(columns=columns).drop_duplicates().to_dict("records")
    return [{name: None if value != value else value for name, value in kind.items()} for kind in kinds]


def _methods(rows: pd.DataFrame) -> list[str]:
    return [method for method in dict.fromkeys(rows["method"]) if method not in (METHOD, MIXED)]


def _best(sample: Sample, *, free: bool) -> np.ndarray:
    """The best single model of a published method that needs nothing, or nothing but unlabelled images."""
    rows = plain(sample.frame)
    rows = rows[rows["task"] == AVERAGE].drop_duplicates("method").set_index("method")
    rows = rows.drop(index=[method for method in (METHOD, *BEYOND) if method in rows.index])
    fit = (rows["gives"] == ONE) & (rows["needs"].eq("nothing") if free else rows["needs"].ne("labels"))
    chosen = list(rows.index[fit])
    return reduce(np.maximum, [_of(sample, method) for method in chosen]) if chosen else sample.point(np.nan)


def _spread(values: Sequence[np.ndarray], nan: np.ndarray) -> np.ndarray:
    return reduce(np.maximum, values) - reduce(np.minimum, values) if values else nan
