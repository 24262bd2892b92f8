"""What the budget experiment found, by name: gains along the steps, differences to the base run, and over tasks."""

from __future__ import annotations

from functools import reduce

import numpy as np

from ..sample import Sample
from . import METHOD, STEPS, TASKS


def numbers(sample: Sample) -> dict[str, np.ndarray]:
    """Differences between levels, points; ``base_average`` and ``after_STEPS_steps``, percent.

    Gains are over the start of the long run, λ = 0.3 throughout, which is Task Arithmetic; ``…_distance`` has no sign.
    ``seed_deviation`` is the standard deviation over the orders of images that were tried; its interval is over images
    only.
    """
    base = sample.average(METHOD)
    at = {factor: _levels(sample, factor) for factor in ("granularity", "images", "diversity", "batch size", "start")}
    nan = sample.point(np.nan)
    diverse = at["diversity"].get("1", nan)
    task, block, tensor = (at["granularity"].get(name, nan) for name in ("task", "block", "tensor"))
    along = _levels(sample, STEPS)
    start = along.get("0", nan)
    looks = list(along.values())
    return {
        "base_average": base,
        "base_gain": base - start,
        "diversity_gain": diverse - start,
        "diversity_over_base": diverse - base,
        "tensor_over_task": tensor - task,
        "block_between": np.minimum(block - task, tensor - block),
        "images_32_over_all": at["images"].get("32", nan) - at["images"].get("all", nan),
        "batch_8_distance": np.abs(at["batch size"].get("8", nan) - base),
        "start_0_2_distance": np.abs(at["start"].get("0.2", nan) - base),
        "seed_deviation": _deviation(list(_levels(sample, "seed").values()), nan),
        "late_gain": looks[-1] - looks[len(looks) // 2] if len(looks) > 1 else nan,
        **{f"after_{step}_steps": values for step, values in along.items()},
        **_over_tasks(sample),
    }


def _levels(sample: Sample, factor: str) -> dict[str, np.ndarray]:
    """Level → average accuracy of AdaMerging, whichever of its variants the level asks for."""
    return sample.each("accuracy", by="level", method=..., factor=factor)


def _deviation(seeds: list[np.ndarray], nan: np.ndarray) -> np.ndarray:
    return np.std(seeds, axis=0, ddof=1) if len(seeds) > 1 else nan


def _over_tasks(sample: Sample) -> dict[str, np.ndarray]:
    """The least lead of AdaMerging over Task Arithmetic, and what more tasks cost the latter against the experts."""
    adaptive, fixed, expert = (
        sample.each("accuracy", by="level", method=method, factor=TASKS)
        for method in (METHOD, "task_arithmetic", "individual")
    )
    counts = sorted(fixed, key=int)
    if not counts:
        return dict.fromkeys(("lw_over_ta_least", "ta_loss_growth"), sample.point(np.nan))
    fewest, most = (expert[count] - fixed[count] for count in (counts[0], counts[-1]))
    return {
        "lw_over_ta_least": reduce(np.minimum, [adaptive[count] - fixed[count] for count in counts]),
        "ta_loss_growth": most - fewest,
    }
