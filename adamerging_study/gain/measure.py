"""The grid: start × what is learned × objective × images, one slice at a time, and merging methods beside it."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from adamerging_lib.evaluation import evaluate
from adamerging_lib.merged import Merged
from adamerging_lib.methods import run_method
from adamerging_lib.methods.registry import find, hyper_parameters
from adamerging_lib.methods.swudi import filtered
from adamerging_lib.suite import Suite
from adamerging_lib.task_vectors import TaskVectors
from adamerging_lib.vectors.spectral import matrices, merge_matrices
from adamerging_lib.worlds.corruptions import corrupt
from adamerging_lib.worlds.roles import same_role

from .. import evaluations, measuring, traces
from ..fits import digests
from ..generalisation.measure import hide
from . import CHOICES, FILTERED, METHOD, MIXED, RECIPE, WEIGHTS
from .learn import Same, adapted

Cell = dict[str, Any]
FACTORS = ("start", "grain", "objective", "images")
CLEAN = "clean"

__all__ = ["cells", "digests", "learn", "measure"]


def measure(
    suite: Suite,
    *,
    methods: Sequence[str] = (),
    recipe: str = "mini",
    mixed: Sequence[float] = (),
    device: str = "cpu",
    **grid: Any,
) -> list[dict[str, Any]]:
    """The cells of the grid, from kept outcomes where parameters and clean data agree, and methods on the same images.

    Arguments:
        suite: what to merge; learned from one half of its test images, measured on the other.
        methods: ids of those that the grid is compared with.
        recipe: of those among them that learn.
        mixed: shares of WUDI's closed form, the rest being the plain sum, see `mixture`.
        device: where methods run; the grid's cells run on the CPU.
        grid: see `cells`.

    Returns:
        Rows of a record.
    """
    rows, data, tv = [], digests(suite), suite.task_vectors()
    ends = [mixture(tv, end) for end in (0, 1)] if mixed else []
    for method in methods:
        for seed in measuring.seeds_of(method, grid["seeds"]):
            learning = {"recipe": recipe} if "recipe" in hyper_parameters(find(method)) else {}
            rows += measuring.measure(suite, method, learning=learning, seed=seed, setting="inductive", device=device)
            if mixed and method in FILTERED:
                rows[-1]["distance"] = distance(run_method(method, suite), *ends, matrices(tv))
    for share in mixed:
        merged = mixture(tv, share)
        frame = evaluations.evaluate(suite, merged, setting="inductive", device=device)
        identity = {"condition": CLEAN, "group": "all", "seed": grid["seeds"][0], "mixed": share}
        rows += measuring.rows_of(frame, method=MIXED, **identity)
        rows[-1]["distance"] = distance(merged, *ends, matrices(tv))
    for name, about in cells(**grid):
        kept = traces.find(suite.profile, "gain", name, about, data) or traces.make(learn, suite, about, data)
        told = {factor: about[factor] for factor in FACTORS}
        told |= {"rate": about["lr"]} if about["lr"] != grid[f"{about['grain']}_lr"] else {}
        identity = {"method": METHOD, "group": "all", "seed": about["seed"], **told, **_told(suite, about)}
        rows += [{**identity, **row} for row in kept.rows]
    return rows + _starts(suite, cells(**grid))


def mixture(tv: TaskVectors, share: float) -> Merged:
    """θ0 + (1 − c) S + c τ*: the sum S = Σ_k T_k and WUDI's closed form τ*, mixed alike in all directions of a matrix.

    Arguments:
        tv: θ0 and T_k.
        share: c; 1 is `wudi`.
    """
    state = merge_matrices(tv, lambda t: filtered(t, lambda values: torch.full_like(values, share)))
    return Merged(state, MIXED, {"share": share}, tv.tasks)


def distance(merged: Merged, total: Merged, closed: Merged, keys: Collection[str]) -> float:
    """‖τ − S‖ / ‖τ* − S‖ over all matrices: how far a merged model lies from the plain sum, `wudi` being at 1.

    Arguments:
        merged: one model for all tasks.
        total, closed: the ends of the line, `mixture` of 0 and 1.
        keys: names of the matrices.
    """
    state, start, end = (model.state_dict() for model in (merged, total, closed))
    parts = [(state[key] - start[key], end[key] - start[key]) for key in keys]
    own, whole = (sum(float(part.double().square().sum()) for part in side) for side in zip(*parts, strict=True))
    return (own / whole) ** 0.5


def learn(suite: Suite, about: Mapping[str, Any], steps: int | None) -> tuple[np.ndarray, list[dict[str, Any]] | None]:
    """One cell: the losses on its way, and what it gives on the other images; no rows where it was cut short."""
    suite = situated(Same(suite), **_situation(about))
    merged, losses = adapted(suite, about, steps)
    return losses, None if steps is not None else _rows(suite, merged, about["setting"])


@functools.lru_cache(maxsize=2)
def situated(same: Same, condition: str, severity: int, unseen: tuple[str, ...], seed: int) -> Suite:
    """The suite with its images corrupted, or without the experts of some tasks, whose heads and images stay."""
    if unseen:
        return hide(same.suite, same_role(unseen, same.suite.tasks))
    return same.suite if condition == CLEAN else corrupt(same.suite, condition, severity, seed)


def _situation(about: Mapping[str, Any]) -> dict[str, Any]:
    """What `situated` takes. Draws of images are not another situation, so long as nothing is drawn in them."""
    condition, unseen = about.get("condition", CLEAN), tuple(about.get("unseen", ()))
    seed = 0 if condition == CLEAN else about["seed"]
    return {"condition": condition, "severity": about.get("severity", 0), "unseen": unseen, "seed": seed}


def _told(suite: Suite, about: Mapping[str, Any]) -> dict[str, Any]:
    """What tells the rows of a cell apart that was learned elsewhere."""
    unseen = same_role(about.get("unseen", ()), suite.tasks)
    return {"condition": about.get("condition", CLEAN), **({"unseen": ", ".join(unseen)} if unseen else {})}


def _starts(suite: Suite, wanted: Iterator[tuple[str, Cell]]) -> list[dict[str, Any]]:
    """Rows of the merged models that cells start from elsewhere, measured as these are."""
    rows, begun = [], set()
    for _, about in wanted:
        situation = _situation(about)
        which = about["start"], *situation.values()
        if which in begun or not ({"condition", "unseen"} & about.keys()):
            continue
        begun.add(which)
        part = situated(Same(suite), **situation)
        merged = measuring.fit(part, about["start"], seed=about["seed"])
        identity = {"method": about["start"], "group": "all", "seed": about["seed"], **_told(suite, about)}
        rows += [{**identity, **row} for row in _rows(part, merged, about["setting"])]
    return rows


def _rows(suite: Suite, merged: Merged, setting: str) -> list[dict[str, Any]]:
    """One row per task and their average; of seen and of unseen tasks, where the suite has such."""
    frame = evaluate(suite, merged, setting=setting, outcomes=True)
    if len(frame) == len(suite.tasks):
        return measuring.rows_of(frame)
    return measuring.rows_by_group(frame, suite.tasks)


def cells(
    *,
    grains: Sequence[str],
    objectives: Sequence[str],
    images: Sequence[int],
    by_images: Sequence[str],
    starts: Sequence[str],
    from_starts: Sequence[str],
    at_images: int,
    transductive: Sequence[str] = (),
    tensor_rates: Sequence[float] = (),
    corruptions: Sequence[str] = (),
    severity: int = 3,
    unseen: Sequence[Sequence[str]] = (),
    seeds: Sequence[int],
    steps: int,
    tensor_lr: float,
    component_lr: float,
    weights_lr: float,
    batch_size: int,
    **_: Any,
) -> Iterator[tuple[str, Cell]]:
    """(name, parameters) of the cells, each once: three slices through the grid that meet in TSV-M.

    Arguments:
        grains: what is learned, from TSV-M, in the first two slices.
        objectives: of the slice over objectives, at ``at_images``.
        images, by_images: per task, and objectives, of the slice over images.
        starts, from_starts: of the slice over starts, per tensor, at ``at_images``, and its objectives.
        at_images: images per task of the other slices.
        transductive: objectives that also learn from, and are measured on, all test images.
        tensor_rates: other rates of Adam on coefficients per tensor, in the slice over images, of its first objective.
        corruptions, severity: of all images, those learned from too, with the recipe and with AdaMerging's choices.
        unseen: tasks, under the suite's names or those of another profile, whose experts are left out, with the same.
        seeds: of the images and their order, and of the corruptions.
        steps, batch_size: of Adam.
        tensor_lr: its rate on coefficients per tensor.
        component_lr, weights_lr: its rates on coefficients per component and on weights.
    """
    rates, inductive = {"tensor": tensor_lr, "component": component_lr, WEIGHTS: weights_lr}, "inductive"
    wanted = [("tsv_m", g, o, n, inductive, rates[g]) for o in by_images for n in images for g in grains]
    wanted += [("tsv_m", g, o, at_images, inductive, rates[g]) for o in objectives for g in grains]
    wanted += [(s, "tensor", o, at_images, inductive, tensor_lr) for s in starts for o in from_starts]
    wanted += [("tsv_m", g, o, 0, "transductive", rates[g]) for o in transductive for g in grains]
    wanted += [("tsv_m", "tensor", o, n, inductive, r) for r in tensor_rates for o in by_images[:1] for n in images]
    elsewhere = {name: {"condition": name, "severity": severity} for name in corruptions}
    elsewhere |= {f"without-{'-'.join(split)}": {"unseen": list(split)} for split in unseen}
    both = [(s, g, o, at_images, inductive, rates[g]) for s, g, o in (RECIPE, CHOICES)]
    for seed in seeds:
        common = {"seed": seed, "steps": steps, "batch_size": batch_size}
        for cell in dict.fromkeys(wanted):
            start, grain, objective, count, setting, lr = cell
            parts = [start, grain, objective, str(count or "all")]
            parts += ["same"] * (setting != inductive) + [f"{lr:g}"] * (lr != rates[grain]) + [str(seed)]
            yield "-".join(parts), {**_named(cell), **common}
        for where, changed in elsewhere.items():
            for cell in both:
                start, grain, objective, count, *_ = cell
                name = "-".join([start, grain, objective, str(count or "all"), where, str(seed)])
                yield name, {**_named(cell), **common, **changed}


def _named(cell: tuple[Any, ...]) -> Cell:
    return dict(zip(("start", "grain", "objective", "images", "setting", "lr"), cell, strict=True))
