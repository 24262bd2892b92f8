"""How straight the ways to the experts are, and how nearly at right angles."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ..sample import Sample, ratio
from . import HALFWAY


def numbers(sample: Sample) -> dict[str, np.ndarray]:
    """``largest_cosine`` (absolute), ``halfway_mean``, ``halfway_least`` (percent), ``least_step`` (points).

    Halfway is the share of an expert's gain that is there at α = 1/2, its mean and its least over tasks. The least step
    is the least gain from one measured α to the next, negative where accuracy falls, over all tasks.
    """
    cosines, paths = sample.rows(kind="cosine", condition=None, other=...), _paths(sample)
    shares = [_halfway(path) for path in paths if {0.0, HALFWAY, 1.0} <= path.keys()]
    steps = [path[b] - path[a] for path in paths for a, b in pairwise(sorted(path))]
    none = sample.point(np.nan)
    return {
        "largest_cosine": sample.point(cosines["value"].abs().max()) if len(cosines) else none,
        "halfway_mean": np.mean(shares, axis=0) if shares else none,
        "halfway_least": np.min(shares, axis=0) if shares else none,
        "least_step": np.min(steps, axis=0) if steps else none,
    }


def _paths(sample: Sample) -> list[dict[float, np.ndarray]]:
    """Of each task, α → accuracy on it."""
    rows = sample.rows(method="expert_path", alpha=...)
    tasks = [task for task in rows["task"].unique() if task != "Average"] if len(rows) else []
    return [sample.each("accuracy", by="alpha", method="expert_path", task=task) for task in tasks]


def _halfway(path: dict[float, np.ndarray]) -> np.ndarray:
    gain = path[1.0] - path[0.0]
    # An expert without gain has none of it.
    return np.where(gain == 0, 0.0, 100 * ratio(path[HALFWAY] - path[0.0], gain))
