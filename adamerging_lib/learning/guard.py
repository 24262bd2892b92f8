"""A guard: of all states on the path of a descent, keep the one that the experts' predictions speak for, or go back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from ..forward import compute_state
from ..runtime import distributed
from ..task_vectors import TaskVectors
from .imitation import taught_streams
from .model import Model, Source, suite_source
from .streams import Stream

if TYPE_CHECKING:
    from ..suite import Suite

WATCHED = 64
"""Inputs per task that a guard looks at, at most; never more than one of ``SHARE``."""
SHARE = 4
LOOKS = 10
"""After this many equal stretches of the path a guard looks, and at the start."""

Drawn = Callable[[Model, torch.device], tuple[Any, Any]]
"""(model, device) → the watched inputs of all tasks and what the model needs to teach them, as `Model.scored` takes."""


@dataclass(frozen=True)
class Guard:
    """Chooses a state by A(λ) = mean_k mean_x p_k(ŷ_λ(x) | x) on inputs that nothing is learned from.

    p_k are the k-th expert's probabilities and ŷ_λ(x) is the class that the merged model predicts: A is the accuracy to
    be expected if the experts' beliefs were true. The state with the highest A is kept where its lead over the start
    is more than one standard error, of the difference on the same inputs; else the start.

    Arguments:
        source: of a model that tells the experts' logits beside its own.
        drawn: see `Drawn`.
    """

    source: Source
    drawn: Drawn

    def looked(
        self, tv: TaskVectors, path: Tensor, granularity: str, tasks: tuple[str, ...], device: torch.device
    ) -> pd.DataFrame:
        """Look at states of a path and choose.

        Arguments:
            tv: θ0 and the vectors that λ scales.
            path: λ as used, before the first step and after each, ``[steps + 1, K, R]``.
            granularity: rows of λ.
            tasks: those that have inputs.
            device: where the model runs.

        Returns:
            One row per look: ``step``, ``expected`` (A, a share), ``lead`` over the start and its standard ``error``;
            of the merged model's predictions, mean over tasks, statistics that are not used in the choice: mean
            ``entropy`` (nats), ``variety``, the entropy of the mean prediction (nats), and ``agreement``, the share
            that are the expert's class; and ``kept``, true in one row.
        """
        own = [tasks[k] for k in distributed.own(len(tasks))]
        model = self.source.opened(tv, own, device)
        inputs, taught = self.drawn(model, device)
        last = len(path) - 1
        steps = sorted({round(i * last / LOOKS) for i in range(LOOKS + 1)})
        looks = [
            _look(model, compute_state(tv.merge(path[step], granularity), device), inputs, taught) for step in steps
        ]
        table = pd.DataFrame(
            [{"step": step, **_against(looks[0], look, len(tasks))} for step, look in zip(steps, looks, strict=True)]
        )
        best = int(table["lead"].to_numpy().argmax())
        best = best if table["lead"][best] > table["error"][best] else 0
        return table.assign(kept=table.index == best)


@dataclass(frozen=True)
class Look:
    """What is seen of one state.

    Arguments:
        beliefs: p_k(ŷ | x) of every watched input, task by task, float64; 0 where the model's logits are not finite.
        others: of every task, the statistics of `OTHERS`, float64 ``[K, 3]``.
    """

    beliefs: list[Tensor]
    others: Tensor


OTHERS = ("entropy", "variety", "agreement")


@torch.no_grad()
def _look(model: Model, state: dict[str, Tensor], inputs: Any, taught: Any) -> Look:
    beliefs, others = [], []
    for k in range(model.count):
        each = []
        for scores, told in model.scored(state, inputs, taught, range(k, k + 1))[0]:
            if scores.shape[-1] == 1:
                raise ValueError("guard=True compares predicted classes, and a head with one output has none: no guard")
            each.append((scores.double(), told[:, : scores.shape[-1]].double()))
        scores, told = map(torch.cat, zip(*each, strict=True))
        finite, said = scores.isfinite().all(-1), scores.argmax(-1)
        # Where logits are not finite, the model says nothing: no belief, no agreement, all classes alike.
        odds = torch.where(finite[:, None], scores, 0).softmax(-1)
        sure = told.softmax(-1).gather(-1, said[:, None]).squeeze(-1)
        agreement = (finite & (said == told.argmax(-1))).double().mean()
        beliefs.append(torch.where(finite, sure, 0))
        others.append(torch.stack([_entropy(odds).mean(), _entropy(odds.mean(0)), agreement]))
    return Look(beliefs, torch.stack(others))


def _entropy(odds: Tensor) -> Tensor:
    return torch.special.entr(odds).sum(-1)


def _against(first: Look, now: Look, count: int) -> dict[str, float]:
    """What a look says beside the first, over all ``count`` tasks."""
    leads = [after - before for before, after in zip(first.beliefs, now.beliefs, strict=True)]
    told = [torch.stack([f.mean(), d.mean(), _squared_error(d)]) for f, d in zip(now.beliefs, leads, strict=True)]
    gathered = distributed.gathered(torch.cat([torch.stack(told), now.others], 1), count)
    expected, lead, squared, *others = gathered.unbind(1)
    return {
        "expected": float(expected.mean()),
        "lead": float(lead.mean()),
        "error": float(squared.sum().sqrt() / count),
        **{name: float(values.mean()) for name, values in zip(OTHERS, others, strict=True)},
    }


def _squared_error(values: Tensor) -> Tensor:
    """Of the mean; infinite for one value, whose spread nobody knows."""
    return values.var() / len(values) if len(values) > 1 else values.new_tensor(torch.inf)


def suite_guard(suite: Suite, streams: Sequence[Stream], device: torch.device) -> tuple[Guard, list[Stream]]:
    """A guard of a suite's streams, and the streams without what it watches.

    Arguments:
        suite: with experts and heads.
        streams: one per task; at least ``SHARE`` images each.
        device: where experts run.

    Raises:
        ValueError: for a stream of fewer images, naming the task.
    """
    count = min(WATCHED, min(stream.n for stream in streams) // SHARE)
    if count == 0:
        least = min(streams, key=lambda stream: stream.n)
        raise ValueError(
            f"guard=True keeps one of {SHARE} images back, and task {least.task!r} has {least.n}: give it at least "
            f"{SHARE}, or leave the guard out"
        )
    learned, watched = zip(*(stream.parted(count) for stream in streams), strict=True)
    return watching(suite, watched, device), list(learned)


def watching(suite: Suite, streams: Sequence[Stream], device: torch.device) -> Guard:
    """A guard that watches the first batch of each stream, of the same size in all.

    Arguments:
        suite: with experts and heads.
        streams: one per task.
        device: where experts run.
    """
    taught = taught_streams(suite, streams, device)
    own = [taught[k] for k in distributed.own(len(suite.tasks))]
    return Guard(suite_source(suite), lambda model, device: model.drawn(own, range(1), device))
