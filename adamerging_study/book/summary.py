"""The tables of the first page: the paper's methods in both worlds, and the best methods that use no labels."""

from __future__ import annotations

import math

import numpy as np

from adamerging_lib import records
from adamerging_lib.published import published
from adamerging_lib.published.competitions import GIVES, NEEDS, ONE
from adamerging_lib.worlds.roles import ROLES

from .. import claims
from ..judge import POINT_ONLY
from ..leaderboard.numbers import key
from ..sample import AVERAGE, interval
from .answer import WORLDS, brief, numbers_of, published_gains, quoted, record_of, task_gains
from .markdown import table

ROWS = {
    "zero_shot_average": ("Pre-trained encoder, nothing merged", "zero_shot"),
    "ta_average": ("Task Arithmetic, λ = 0.3", "task_arithmetic"),
    "ta_best": ("Task Arithmetic, best λ", None),
    "ties_average": ("Ties-Merging, λ = 0.3", "ties"),
    "ties_best": ("Ties-Merging, best λ", None),
    "tw_average": ("Task-wise AdaMerging", "task_wise_adamerging"),
    "twpp_average": ("Task-wise AdaMerging++", "task_wise_adamerging_pp"),
    "lw_average": ("Layer-wise AdaMerging", "layer_wise_adamerging"),
    "lwpp_average": ("Layer-wise AdaMerging++", "layer_wise_adamerging_pp"),
    "mtl_average": ("One encoder trained on all tasks", "traditional_mtl"),
    "individual_average": ("Eight separate experts", "individual"),
}
"""Number → its name in the summary, and the method's row in the paper's Table 1, None where it has no such row."""


def averages_text() -> str:
    """Average accuracy of the paper's methods in both worlds, with 95 % intervals, and as published."""
    theirs = published(table=1).set_index(["task", "method_id"])["accuracy"][AVERAGE]
    worlds = numbers_of("performance").values()
    rows = []
    for number, (name, method) in ROWS.items():
        paper = quoted(str(theirs[method])) if method in theirs else "–"
        rows.append([name, *(_cell(numbers[number]) for numbers in worlds), paper])
    return table(rows, ["average accuracy, percent", *WORLDS.values(), "published, ViT-B/32"])


def gains_text() -> str:
    """What layer-wise AdaMerging gains over Task Arithmetic task by task, a row for every task of the paper."""
    worlds = [
        {ROLES.get(task, task): (task, values) for task, values in task_gains(numbers).items()}
        for numbers in numbers_of("performance").values()
    ]
    rows = []
    for place, theirs in published_gains("layer_wise_adamerging").items():
        found = [f"{_gain(world[place][1])}, {world[place][0]}" if place in world else "–" for world in worlds]
        rows.append([place, quoted(f"{theirs:+.1f}"), *found])
    return table(rows, ["in the paper", "published, ViT-B/32", *WORLDS.values()])


def winners_text() -> str:
    """The best method without labels in each competition of both worlds' leaderboards, with its average accuracy."""
    numbers = numbers_of("leaderboard")
    best = {profile: claims.words_of(records.read(record_of("leaderboard", profile))) for profile in WORLDS}
    rows = []
    for gives in GIVES:
        for needs in (needs for needs in NEEDS if needs != "labels"):
            name = key(needs, gives)
            cells = [
                _cell(numbers[profile][f"{name}_average"], best[profile].get(f"{name}_best")) for profile in WORLDS
            ]
            if any(cell != "–" for cell in cells):
                rows.append([needs, "one model" if gives == ONE else "one model and parts per task", *cells])
    return table(rows, ["needs, beyond checkpoints", "gives", *WORLDS.values()])


def _cell(values: np.ndarray, name: str | None = None) -> str:
    """A percentage with its interval below it where there is one, after a name; a dash for what was not run."""
    point, low, high = interval(values)
    if math.isnan(point):
        return "–"
    told = f"{name}, {point:.1f}" if name else f"{point:.1f}"
    return told if low is None or high is None else f"{told}<br><small>{low:.1f} to {high:.1f}</small>"


def _gain(values: np.ndarray) -> str:
    """As `brief`, without a word on a missing interval."""
    return brief(values).removesuffix(f" ({POINT_ONLY})")
