"""The grid: start × what is learned × objective × images, one slice at a time, and merging methods beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from adamerging_lib.evaluation import evaluate
from adamerging_lib.methods.registry import find, hyper_parameters
from adamerging_lib.suite import Suite

from .. import measuring, traces
from ..fits import digests
from . import METHOD, WEIGHTS
from .learn import adapted

Cell = dict[str, Any]
FACTORS = ("start", "grain", "objective", "images")

__all__ = ["cells", "digests", "learn", "measure"]


def measure(
    suite: Suite,
    *,
    methods: Sequence[str] = (),
    recipe: str = "mini",
    device: str = "cpu",
    **grid: Any,
) -> list[dict[str, Any]]:
    """The cells of the grid, from kept outcomes where parameters and data agree, and methods on the same images.

    Arguments:
        suite: what to merge; learned from one half of its test images, measured on the other.
        methods: ids of those that the grid is compared with.
        recipe: of those among them that learn.
        device: where methods run; the grid's cells run on the CPU.
        grid: see `cells`.

    Returns:
        Rows of a record.
    """
    rows, data = [], digests(suite)
    for method in methods:
        for seed in measuring.seeds_of(method, grid["seeds"]):
            learning = {"recipe": recipe} if "recipe" in hyper_parameters(find(method)) else {}
            rows += measuring.measure(suite, method, learning=learning, seed=seed, setting="inductive", device=device)
    for name, about in cells(**grid):
        kept = traces.find(suite.profile, "gain", name, about, data) or traces.make(learn, suite, about, data)
        told = {factor: about[factor] for factor in FACTORS}
        told |= {"rate": about["lr"]} if about["lr"] != grid[f"{about['grain']}_lr"] else {}
        identity = {"method": METHOD, "condition": "clean", "group": "all", "seed": about["seed"], **told}
        rows += [{**identity, **row} for row in kept.rows]
    return rows


def learn(suite: Suite, about: Mapping[str, Any], steps: int | None) -> tuple[np.ndarray, list[dict[str, Any]] | None]:
    """One cell: the losses on its way, and what it gives on the other images; no rows where it was cut short."""
    merged, losses = adapted(suite, about, steps)
    if steps is not None:
        return losses, None
    frame = evaluate(suite, merged, setting=about["setting"], outcomes=True)
    return losses, measuring.rows_of(frame)


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
        tensor_rates: other rates of Adam on coefficients per tensor, in the slice over images.
        seeds: of the images and their order.
        steps, batch_size: of Adam.
        tensor_lr: its rate on coefficients per tensor.
        component_lr, weights_lr: its rates on coefficients per component and on weights.
    """
    rates, inductive = {"tensor": tensor_lr, "component": component_lr, WEIGHTS: weights_lr}, "inductive"
    wanted = [("tsv_m", g, o, n, inductive, rates[g]) for o in by_images for n in images for g in grains]
    wanted += [("tsv_m", g, o, at_images, inductive, rates[g]) for o in objectives for g in grains]
    wanted += [(s, "tensor", o, at_images, inductive, tensor_lr) for s in starts for o in from_starts]
    wanted += [("tsv_m", g, o, 0, "transductive", rates[g]) for o in transductive for g in grains]
    wanted += [("tsv_m", "tensor", o, n, inductive, r) for r in tensor_rates for o in by_images for n in images]
    for seed in seeds:
        for start, grain, objective, count, setting, lr in dict.fromkeys(wanted):
            parts = [start, grain, objective, str(count or "all")]
            parts += ["same"] * (setting != inductive) + [f"{lr:g}"] * (lr != rates[grain]) + [str(seed)]
            yield "-".join(parts), {
                "start": start, "grain": grain, "objective": objective, "images": count, "setting": setting,
                "seed": seed, "steps": steps, "lr": lr, "batch_size": batch_size,
            }  # fmt: skip
