"""What stands around the descent of `adapt`: the model before, between and after its steps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..forward import compute_state, entropy
from ..learning.adaptation import Adaptation
from ..learning.guard import WATCHED, Guard
from ..learning.model import Source
from ..merged import Fit
from ..state import StateDict, accumulation_dtype, fingerprint
from ..task_vectors import TaskVectors
from ..vectors.lowrank import Factors
from .adapted import Adapted
from .batches import Batches, Inputs
from .checks import check_start
from .parts import Parts
from .statistics import recalibrated
from .template import Logits, Template, default_logits, moved

RECALIBRATE = ("auto", "task", "shared", "none")
LOOKED_AT = 8
"""Batches of a task whose entropies are compared before and after."""
RECALIBRATED = 64
"""Batches of a task that statistics are made anew from, at most."""


@dataclass(frozen=True)
class Engine:
    """The model and data of one call of `adapt`.

    Arguments:
        model: the template.
        parts: of its checkpoints.
        logits: as given.
        run: device and options.
        mode: how statistics serve, see `statistics.prepare`.
        streams: task → its batches.
        taught: whether the experts' predictions stand for labels.
    """

    model: nn.Module
    parts: Parts
    logits: Logits | None
    run: Adaptation
    mode: str
    streams: Mapping[str, Batches]
    taught: bool

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in."""
        return accumulation_dtype(next(iter(self.parts.tv.vectors.values())).dtype)

    @property
    def source(self) -> Source:
        """Of the descent's model."""
        return Source(self._opened, self._fingerprint)

    def guard(self) -> Guard:
        """A guard that looks at what the streams keep back.

        Raises:
            ValueError: where a task has nothing to keep back.
        """
        found = {task: stream.watched(WATCHED) for task, stream in self.streams.items()}

        def drawn(model: Template, device: torch.device) -> tuple[list[list[Inputs]], None]:
            return [[moved(batch, device, self.dtype) for batch in found[task]] for task in model.tasks], None

        return Guard(replace(self.source, opened=partial(self._opened, taught=True)), drawn)

    def _opened(
        self, tv: TaskVectors, tasks: Sequence[str], device: torch.device, *, mode: str | None = None,
        taught: bool = False, **options: Any,
    ) -> Template:  # fmt: skip
        teachers = {task: self._expert(task) for task in tasks} if self.taught or taught else None
        return Template.of(
            self.model, tasks, self.parts.private, logits=self.logits, dtype=self.dtype, device=device,
            mode=mode or self.mode, teachers=teachers, **options,
        )  # fmt: skip

    def _expert(self, task: str) -> StateDict:
        """θ0 + T_k with what is the expert's own."""
        tv = self.parts.tv
        k = tv.tasks.index(task)
        state = {key: t + tv.vectors[key][k] if key in tv.vectors else t for key, t in tv.pretrained.items()}
        state |= {name: state[home] for name, home in tv.tied.items()}
        return {**state, **self.parts.statistics[task], **self.parts.private[task]}

    def _fingerprint(self) -> dict[str, str]:
        """Of all that a run depends on beside its options."""
        tv = self.parts.tv
        parts = {key: {"a": t.a, "b": t.b} if isinstance(t, Factors) else {"": t} for key, t in tv.vectors.items()}
        vectors = {f"{key}|{name}": t for key, part in parts.items() for name, t in part.items()}
        digests = {"pretrained": fingerprint(tv.pretrained), "vectors": fingerprint(vectors)}
        digests["model"] = hashlib.sha256(repr(self.model).encode()).hexdigest()
        for task in tv.tasks:
            digests[f"private {task}"] = fingerprint({**self.parts.private[task], **self.parts.statistics[task]})
            first = self.streams[task].first
            named = {"": first} if isinstance(first, Tensor) else first
            digests[f"data {task}"] = fingerprint({name: t for name, t in named.items() if isinstance(t, Tensor)})
        return digests

    def check(self, tv: TaskVectors, start: Tensor, granularity: str) -> dict[str, tuple[float, float]]:
        """Run what can go wrong before the first step does; entropies at the start, see `_entropies`.

        Raises:
            ValueError: for what cannot be learned from, see `check_start`.
        """
        template = self._opened(tv, tv.tasks, self.run.device)
        state = compute_state(tv.merge(start, granularity), self.run.device)
        for k, stream in enumerate(self.streams.values()):
            check_start(template, k, state, tuple(tv.vectors), stream)
        return self._entropies(template, [state] * len(tv.tasks))

    def finished(self, fit: Fit, before: Mapping[str, tuple[float, float]], recalibrate: str) -> Adapted:
        """The fit with statistics made anew, and entropies before and after.

        Arguments:
            fit: of the descent.
            before: of `check`.
            recalibrate: one of ``RECALIBRATE``.
        """
        template = self._opened(self.parts.tv, fit.tasks, self.run.device, mode="none")
        state, own = (
            compute_state(fit.state, self.run.device),
            {task: dict(self.parts.private[task]) for task in fit.tasks},
        )
        names = list(next(iter(self.parts.statistics.values())))
        if recalibrate == "auto":
            recalibrate = "task" if any(own.values()) else "shared"
        recalibrate, shared = recalibrate if names else "none", {}
        if recalibrate == "shared":
            shared = self._anew(template, state, range(len(own)), names)
        elif recalibrate == "task":
            own = {task: own[task] | self._anew(template, state, [k], names) for k, task in enumerate(fit.tasks)}
        new = [{**shared, **{key: t for key, t in own[task].items() if key in names}} for task in fit.tasks]
        after = self._entropies(template, [{**state, **compute_state(one, self.run.device)} for one in new])
        return Adapted(
            {**fit.state, **shared}, fit.method, {**fit.hyper, "recalibrate": recalibrate}, fit.tasks,
            overrides={task: part for task, part in own.items() if part} or None, coefficients=fit.coefficients,
            history=fit.history, trajectory=fit.trajectory, guard=fit.guard, template=self.model,
            logits=self.logits or default_logits, ties=self.parts.ties,
            confidence={t: {"before": before[t][0], "after": after[t][0], "most": after[t][1]} for t in fit.tasks},
        )  # fmt: skip

    def _entropies(self, template: Template, states: Sequence[StateDict]) -> dict[str, tuple[float, float]]:
        """Task → mean entropy of predictions on the first batches of its data, and the most that it can be."""
        found = {}
        for k, (task, stream) in enumerate(self.streams.items()):
            with torch.no_grad():
                scores = [template.scores(k, states[k], batch) for batch in self._pass(stream, LOOKED_AT)]
            values = torch.cat([entropy(part.double()) for part in scores])
            found[task] = float(values.mean()), float(torch.tensor(scores[0].shape[-1]).double().log())
        return found

    def _anew(
        self, template: Template, state: StateDict, tasks: Sequence[int], names: Sequence[str]
    ) -> dict[str, Tensor]:
        """Statistics of some tasks' data together, as they are kept: on the CPU, in the checkpoints' types."""
        streams, like = list(self.streams.values()), self.parts.tv.pretrained
        batches = ((k, batch) for k in tasks for batch in self._pass(streams[k], RECALIBRATED))
        found = recalibrated(template.module, lambda given: template.scores(given[0], state, given[1]), batches, names)
        return {name: t.to("cpu", like[name].dtype) for name, t in found.items()}

    def _pass(self, stream: Batches, most: int) -> Iterator[Inputs]:
        return (moved(batch, self.run.device, self.dtype) for batch in stream.one_pass(most))
