"""Cases: every situation with every objective, each measured at its start, at its end and where the guard stopped."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from adamerging_lib.evaluation import evaluate
from adamerging_lib.merged import Merged
from adamerging_lib.suite import Suite
from adamerging_lib.worlds.corruptions import CORRUPTIONS

from .. import measuring, traces
from ..fits import digests
from ..gain.learn import Same
from . import KEPT, LAST, METHOD, OTHERS, RECIPE, START
from .learn import adapted, begun, situated

__all__ = ["cells", "digests", "learn", "measure"]


def measure(suite: Suite, **cases: Any) -> list[dict[str, Any]]:
    """Every case, from kept outcomes where parameters and clean data agree.

    Arguments:
        suite: learned from one half of its test images, measured on the other.
        cases: see `cells`.

    Returns:
        Rows of a record.
    """
    rows, data, told = [], digests(suite), set()
    for name, about in cells(**cases):
        kept = traces.find(suite.profile, "harm", name, about, data) or traces.make(learn, suite, about, data)
        case = about["situation"], about["seed"]
        condition = about["situation"] if about["situation"] in CORRUPTIONS else "clean"
        identity = {"method": METHOD, "condition": condition, "group": "all", "seed": about["seed"]}
        identity |= {"situation": about["situation"], "objective": about["objective"]}
        if about["objective"] == RECIPE:
            rows += [{**identity, **_told(row)} for row in kept.rows]
            continue
        # All objectives of a situation start from the same state: it is told once, of none of them.
        first, told = case not in told, told | {case}
        rows += [{**identity, **_told(row)} for row in kept.rows if row["state"] != START]
        starts = [{**identity, **_told(row)} for row in kept.rows if row["state"] == START and first]
        rows += [{key: value for key, value in row.items() if key != "objective"} for row in starts]
    return rows


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without what this experiment does not speak of."""
    return {key: value for key, value in row.items() if key not in ("entropy", "loss", "calibration")}


def learn(suite: Suite, about: Mapping[str, Any], steps: int | None) -> tuple[np.ndarray, list[dict[str, Any]] | None]:
    """One case: the losses on its way, and what its start, its end and the kept state give on the other images."""
    suite = situated(Same(suite), about["situation"], about["seed"], about["severity"])
    fit = adapted(suite, about, steps)
    losses = fit.history[list(suite.tasks)].to_numpy()
    if steps is not None:
        return losses, None
    chosen = int(fit.guard["step"][fit.guard["kept"]].item())
    how, frames, rows = (Same(suite), about["setting"], about["objective"] == RECIPE), {}, []
    for state, step in ((START, 0), (LAST, about["steps"]), (KEPT, chosen)):
        if step not in frames:
            frames[step] = _measured(*how, fit.trajectory[step]) if step else _started(*how)
        seen = fit.guard.set_index("step").loc[step]
        part = measuring.rows_of(frames[step], state=state, step=step)
        part[-1] |= {"expected_lead": 100 * float(seen["lead"]), "expected_error": 100 * float(seen["error"])}
        part[-1] |= {f"watched_{name}": float(seen[name]) for name in OTHERS}
        part[-1]["drift"] = float((fit.trajectory[step] - fit.trajectory[0]).abs().mean())
        rows += part
    return losses, rows


def _measured(same: Same, setting: str, recipe: bool, coefficients: Tensor) -> pd.DataFrame:
    suite, (tv, *_, grain) = same.suite, begun(same.suite, recipe)
    merged = Merged(tv.merge(coefficients, grain), METHOD, {"setting": setting}, suite.tasks)
    return evaluate(suite, merged, setting=setting, outcomes=True)


@functools.lru_cache(maxsize=2)
def _started(same: Same, setting: str, recipe: bool) -> pd.DataFrame:
    """Where the recipe starts in a situation, or all objectives do."""
    return _measured(same, setting, recipe, begun(same.suite, recipe)[1])


def cells(
    *,
    streams: Sequence[str],
    experts: Sequence[str],
    corruptions: Sequence[str],
    objectives: Sequence[str],
    seeds: Sequence[int],
    corruption_seeds: Sequence[int],
    severity: int,
    steps: int,
    lr: float,
    batch_size: int,
    prior_in: Sequence[str] = (),
    recipe_in: Sequence[str] = (),
    recipe_steps: int = 100,
    recipe_lr: float = 0.03,
    **_: Any,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, parameters) of the cases.

    Arguments:
        streams, experts: situations, with each of ``seeds``.
        corruptions: of all images, at this ``severity``, with each of ``corruption_seeds``.
        objectives: what is minimised in each.
        seeds: of the images' order, of the draw of classes, and of which expert is bad.
        corruption_seeds: of the corruptions and the order of images.
        severity: 1 to 5.
        steps, lr, batch_size: of Adam.
        prior_in: situations in which predictions are also made as diverse as the experts'.
        recipe_in: situations in which the recommended recipe is run as well.
        recipe_steps, recipe_lr: of its Adam.
    """
    wanted = [(situation, seed) for seed in seeds for situation in (*streams, *experts)]
    wanted += [(situation, seed) for seed in corruption_seeds for situation in corruptions]
    for situation, seed in wanted:
        extra = ["prior"] * (situation in prior_in) + [RECIPE] * (situation in recipe_in)
        for objective in (*objectives, *extra):
            own = (recipe_steps, recipe_lr) if objective == RECIPE else (steps, lr)
            yield f"{situation}-{objective}-{seed}", {
                "situation": situation, "objective": objective, "seed": seed, "setting": "inductive", "steps": own[0],
                "lr": own[1], "batch_size": batch_size, "severity": severity,
            }  # fmt: skip
