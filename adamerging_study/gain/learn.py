"""One cell of the grid: learn coefficients, or all weights, from a start, on some images, against an objective."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from adamerging_lib.learning.adaptation import Adaptation
from adamerging_lib.learning.descent import initial, learn
from adamerging_lib.learning.imitation import imitation_loss, keeps, taught_streams
from adamerging_lib.learning.model import suite_source
from adamerging_lib.learning.objective import Loss, entropy_loss, label_loss
from adamerging_lib.learning.streams import Stream
from adamerging_lib.merged import Merged
from adamerging_lib.methods import run_method
from adamerging_lib.methods.adamerging import split, started
from adamerging_lib.suite import Suite
from adamerging_lib.task_vectors import TaskVectors

from . import METHOD, WEIGHTS

KEEP = 0.2
"""Share of entries that Ties trims to, as published."""


def adapted(suite: Suite, about: Mapping[str, Any], steps: int | None = None) -> tuple[Merged, np.ndarray]:
    """Learn one cell.

    Arguments:
        suite: experts, heads, and images to learn from.
        about: ``start``, ``grain``, ``objective``, ``images`` (0 for all), ``setting``, ``seed``, ``steps``, ``lr``,
            ``batch_size``.
        steps: fewer than in ``about``, to see the beginning.

    Returns:
        The model, and the losses of the tasks before each step, nats, ``[steps, K]``.
    """
    options = {"steps": about["steps"] if steps is None else steps, "lr": about["lr"], "batches": 1}
    options |= {"batch_size": about["batch_size"]}
    run = Adaptation(options, seed=about["seed"], setting=about["setting"])
    streams = run.streams(suite, images=about["images"] or None)
    streams = [stream.with_labels(t) for stream, t in zip(streams, _targets(suite, about["objective"]), strict=True)]
    if about["grain"] == WEIGHTS:
        return _all_weights(suite, _start(Same(suite), about["start"]), streams, run, about)
    tv, start, clamp = scaled(suite, about["start"], about["grain"])
    fit = learn(
        suite_source(suite), tv, streams, start, run=run, method=METHOD, hyper=dict(about), granularity=about["grain"],
        clamp=clamp, terms={"loss": loss_of(about["objective"])},
    )  # fmt: skip
    return Merged(fit.state, METHOD, dict(about), suite.tasks), fit.history[list(suite.tasks)].to_numpy()


def loss_of(objective: str) -> Loss:
    """One of ``OBJECTIVES``: a function of a batch's logits, of labels or the expert's logits, and a count."""
    if objective == "labels":
        return label_loss
    if objective in ("entropy", "diverse", "prior"):
        return entropy_loss(diversity=float(objective != "entropy"), prior=objective == "prior")
    return {"imitation": imitation_loss, "hard_imitation": _hard, "sure_imitation": _sure}[objective]


def asks_experts(objective: str) -> bool:
    """Whether an objective compares with what the experts say."""
    return objective == "prior" or "imitation" in objective


def _hard(scores: Tensor, taught: Tensor, batches: int) -> Tensor:
    """Σ_batches of the mean cross-entropy with the class that the expert predicts."""
    return F.cross_entropy(scores, taught[:, : scores.shape[-1]].argmax(-1)) * batches


def _sure(scores: Tensor, taught: Tensor, batches: int) -> Tensor:
    """As `imitation_loss`, on the images that Tint++'s filter keeps."""
    taught = taught[:, : scores.shape[-1]]
    kept, _ = keeps(taught, scores.detach())
    each = F.cross_entropy(scores, taught.softmax(-1), reduction="none")
    return (each * kept).sum() / kept.sum().clamp(min=1) * batches


def scaled(suite: Suite, start: str, grain: str) -> tuple[TaskVectors, Tensor, bool]:
    """What coefficients scale, where they start, and whether they are clamped to [0, 1], as published.

    From WUDI and Iso-C, whose sums do not fall apart by task, plain task vectors are added to the merged model, with
    coefficients that start at 0.
    """
    vectors = {"task_arithmetic": "plain", "ties": "ties", "tsv_m": "tsv"}.get(start)
    tv = suite.task_vectors()
    if vectors is None:
        tv = replace(tv, pretrained={**tv.pretrained, **_start(Same(suite), start).state})
        return tv, initial(0.0, tv, tv.rows(grain))[0], False
    tv = _split(Same(suite), vectors)
    return tv, started(None, tv, vectors, grain)[0], vectors != "tsv"


def _all_weights(
    suite: Suite, start: Merged, streams: Sequence[Stream], run: Adaptation, about: Mapping[str, Any]
) -> tuple[Merged, np.ndarray]:
    """Adam on every weight of the merged model itself: no coefficients, the same loss on the same batches."""
    tv = suite.task_vectors()
    model, loss = suite_source(suite).opened(tv, suite.tasks, run.device), loss_of(about["objective"])
    leaves = {key: start.state[key].detach().to(torch.float32, copy=True).requires_grad_() for key in tv.vectors}
    state = {**start.state, **leaves, **{key: leaves[home] for key, home in tv.tied.items()}}
    optimiser = torch.optim.Adam(leaves.values(), lr=run.options["lr"])
    steps = run.steps(METHOD, suite.tasks)
    for step in steps:
        inputs, labels = model.drawn(streams, range(step, step + 1), run.device)
        scored = model.scored(state, inputs, labels, range(model.count))
        losses = torch.stack([loss(scores, labels, 1) for [(scores, labels)] in scored])
        optimiser.zero_grad()
        losses.sum().backward(inputs=list(leaves.values()))
        optimiser.step()
        steps.add(losses)
    kinds = {key: start.state[key].dtype for key in state}
    state = {key: t.detach().to(kinds[key]) for key, t in state.items()}
    return Merged(state, METHOD, dict(about), suite.tasks), steps.history()[list(suite.tasks)].to_numpy()


class Same:
    """A suite as a key: the same one, not an equal one, whose tensors nobody would compare."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.suite is other.suite

    def __hash__(self) -> int:
        return id(self.suite)


# A grid asks for the same starts, parts and predictions again and again.
@functools.lru_cache(maxsize=8)
def _start(same: Same, method: str) -> Merged:
    return run_method(method, same.suite)


@functools.lru_cache(maxsize=3)
def _split(same: Same, vectors: str) -> TaskVectors:
    return split(same.suite.task_vectors(), vectors, KEEP)


@functools.lru_cache(maxsize=3)
def taught(same: Same) -> list[Tensor]:
    """What each task's expert says of all its test images: logits ``[n, most classes of a task]``."""
    streams = Adaptation({"batch_size": 1}).streams(same.suite)
    return [stream.labels for stream in taught_streams(same.suite, streams, torch.device("cpu"))]


def _targets(suite: Suite, objective: str) -> list[Tensor | None]:
    if asks_experts(objective):
        return taught(Same(suite))
    return [suite.test[task].labels if objective == "labels" else None for task in suite.tasks]
