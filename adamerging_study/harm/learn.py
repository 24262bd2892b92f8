"""One case: AdaMerging on an odd stream, on corrupted images or with a bad expert, watched by a guard."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adamerging_lib.learning.adaptation import Adaptation
from adamerging_lib.learning.descent import learn
from adamerging_lib.learning.guard import SHARE, WATCHED, Guard, watching
from adamerging_lib.learning.model import suite_source
from adamerging_lib.learning.streams import Stream, seeded
from adamerging_lib.merged import Fit
from adamerging_lib.suite import Suite, split_indices
from adamerging_lib.task_vectors import TaskVectors
from adamerging_lib.worlds.corruptions import CORRUPTIONS, corrupt

from .. import gain
from ..check.faults import Set, inject
from ..gain.learn import Same, asks_experts, loss_of, scaled, taught
from . import EXPERTS, METHOD, RECIPE, STREAMS

SKEWED = 128
"""Images per task of a skewed stream, at most."""
SORTED = "sorted"


def adapted(suite: Suite, about: Mapping[str, Any], steps: int | None = None) -> Fit:
    """Learn one case, from `begun`.

    Arguments:
        suite: of `situated`.
        about: ``situation``, ``objective``, ``seed``, ``setting``, ``steps``, ``lr``, ``batch_size``.
        steps: fewer than in ``about``, to see the beginning; then nothing is watched.

    Returns:
        The fit that the guard chose, its ``trajectory`` and what the guard saw.
    """
    options = {"steps": about["steps"] if steps is None else steps, "lr": about["lr"], "batches": 1}
    run = Adaptation(options | {"batch_size": _size(about)}, seed=about["seed"], setting=about["setting"])
    streams, guard = _streams(suite, about, run)
    recipe = about["objective"] == RECIPE
    objective = gain.RECIPE[2] if recipe else about["objective"]
    tv, start, clamp, grain = begun(suite, recipe)
    if asks_experts(objective):
        streams = [stream.with_labels(t) for stream, t in zip(streams, taught(Same(suite)), strict=True)]
    return learn(
        suite_source(suite), tv, streams, start, run=run, method=METHOD, hyper=dict(about), granularity=grain,
        clamp=clamp, terms={"loss": loss_of(objective)}, guard=guard if steps is None else None,
    )  # fmt: skip


def begun(suite: Suite, recipe: bool) -> tuple[TaskVectors, Tensor, bool, str]:
    """What coefficients scale, where they start, whether they are clamped, and how fine they are.

    As the recommended recipe has it, or as AdaMerging: from Task Arithmetic, per tensor, in [0, 1].
    """
    start, grain, _ = gain.RECIPE if recipe else gain.CHOICES
    return *scaled(suite, start, grain), grain


@functools.lru_cache(maxsize=1)
def situated(same: Same, situation: str, seed: int, severity: int) -> Suite:
    """The suite with its images corrupted or one expert, drawn by the seed, made bad; else as it is.

    Raises:
        ValueError: for an unknown situation.
    """
    suite = same.suite
    if situation in CORRUPTIONS:
        return corrupt(suite, situation, severity, seed)
    if situation in EXPERTS:
        return _with_bad_expert(suite, situation, seed)
    if situation not in STREAMS:
        known = ", ".join((*STREAMS, *EXPERTS, *CORRUPTIONS))
        raise ValueError(f"situation {situation!r} is unknown; choose from {known}")
    return suite


def _with_bad_expert(suite: Suite, fault: str, seed: int) -> Suite:
    generator = seeded("harm", fault, seed)
    victim, other = (suite.tasks[k] for k in torch.randperm(len(suite.tasks), generator=generator)[:2])
    with tempfile.TemporaryDirectory() as folder:
        whole = Set(suite, suite.pretrained, dict(suite.experts), victim, other, generator, Path(folder))
        pretrained, experts = inject(fault, whole)
    return replace(suite, pretrained=pretrained, experts=experts)


def _size(about: Mapping[str, Any]) -> int:
    """Images per batch: those of the run, unless the situation says its own."""
    kind, _, number = about["situation"].partition("_")
    return int(number) if kind == "batch" else about["batch_size"]


def _streams(suite: Suite, about: Mapping[str, Any], run: Adaptation) -> tuple[list[Stream], Guard]:
    """What is learned from and what is watched: of the adaptation half, in the order and mixture of the situation."""
    pools = [_pool(suite, task, about) for task in suite.tasks]
    count = min(WATCHED, min(map(len, pools)) // SHARE)
    learned, watched = [], []
    for task, pool in zip(suite.tasks, pools, strict=True):
        order = torch.randperm(len(pool), generator=seeded("guard", about["seed"], task))
        rest, images = pool[order[count:].sort().values], suite.test[task].images
        kind = _InOrder if about["situation"] == SORTED else Stream
        learned.append(kind(images, size=run.options["batch_size"], task=task, seed=about["seed"], index=rest))
        watched.append(Stream(images[pool[order[:count]]], size=count, task=task, seed=about["seed"]))
    return learned, watching(suite, watched, run.device)


def _pool(suite: Suite, task: str, about: Mapping[str, Any]) -> Tensor:
    """The images of a task that the situation gives, int64; in their order where that counts."""
    data = suite.test[task]
    half = split_indices(len(data))[0]
    situation, generator = about["situation"], seeded("harm", about["situation"], about["seed"], task)
    labels, classes = data.labels[half], len(data.classes)
    if situation == SORTED:
        drawn = torch.randperm(classes, generator=generator)
        return half[drawn.argsort()[labels].argsort(stable=True)]
    if situation.startswith("skew_"):
        return half[_skewed(labels, classes, float(situation.removeprefix("skew_")), generator)]
    return half


def _skewed(labels: Tensor, classes: int, alpha: float, generator: torch.Generator) -> Tensor:
    """Places of images whose classes follow one draw of Dirichlet(α), without replacement; used-up classes drop out."""
    shares = torch._sample_dirichlet(torch.full((classes,), alpha, dtype=torch.float64), generator)
    weights = shares[labels] / torch.bincount(labels, minlength=classes)[labels]
    possible = int((weights > 0).sum())
    return torch.multinomial(weights, min(SKEWED, possible), generator=generator)


class _InOrder(Stream):
    """Batches in the order of the index, pass after pass: one class after another."""

    def __init__(self, images: Tensor, *, index: Tensor, **options: Any) -> None:
        super().__init__(images, index=index, **options)
        self._pass = functools.partial(_same, index)


def _same(index: Tensor, number: int) -> Tensor:
    return index
