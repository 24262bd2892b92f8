"""What every method returns: weights, shared or one set per task, and what made them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from torch import Tensor, nn

from .coefficients import Coefficients
from .forward import features
from .state import StateDict, is_merged

Forward = Callable[[nn.Module, StateDict, Tensor, str | None, Mapping[str, Tensor]], Tensor]
"""(encoder, state, normalised images, task, extra) → unit features ``[n, dim]``."""


class PerTask(Mapping[str, StateDict]):
    """Task → state dict, made when asked for: masks and one shared vector then cost one encoder, not K.

    Arguments:
        tasks: task names.
        make: task → state dict.
    """

    def __init__(self, tasks: tuple[str, ...], make: Callable[[str], StateDict]) -> None:
        self._tasks, self._make = tasks, make

    def __getitem__(self, task: str) -> StateDict:
        if task not in self._tasks:
            raise KeyError(task)
        return self._make(task)

    def __contains__(self, task: object) -> bool:  # Mapping's own would make the state
        return task in self._tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)


@dataclass(frozen=True)
class Merged:
    """A merged model.

    Arguments:
        state: the shared encoder's state dict, or None where every task has its own.
        method: method id.
        hyper: hyper-parameters that made it, plain values.
        tasks: tasks merged.
        task_states: task → whole state dict, where the weights are task-specific; may be a lazy `PerTask`.
        overrides: task → the few tensors that replace the shared state's for that task.
        coefficients: λ, where the method has one per row and task.
        heads: task → head weight ``[classes, dim]`` that replaces the suite's.
        biases: task → bias ``[classes]`` of the head, where it has one.
        history: one row per step, for adaptive methods.
        forward: how images become features where that takes more than a pass through the encoder (adapters, routers):
            a function at the top of a module of this package, see `Forward`.
        extra: the tensors that ``forward`` needs beyond the state, by name.
        storage: 32-bit numbers kept per task beyond one encoder and the zero-shot heads, where the fields above
            do not say it (masks of one bit per parameter: P / 32).
        seconds, memory: what `run_method` took to make it: seconds, and bytes at the peak (see `cost.measured`; None
            where the system does not say). A fit from the cache carries the values of the run that made it.

    Example:
        >>> merged = am.merge("task_arithmetic", am.load_suite("mini").task_vectors(), scaling=0.3)
        >>> merged.method, merged.hyper
        ('task_arithmetic', {'scaling': 0.3})
        >>> am.state.save("merged.safetensors", merged.state)
    """

    state: StateDict | None
    method: str
    hyper: Mapping[str, Any]
    tasks: tuple[str, ...]
    task_states: Mapping[str, StateDict] | None = None
    overrides: Mapping[str, StateDict] | None = None
    coefficients: Coefficients | None = None
    heads: Mapping[str, Tensor] | None = None
    biases: Mapping[str, Tensor] | None = None
    history: pd.DataFrame | None = None
    forward: Forward | None = None
    extra: Mapping[str, Tensor] | None = None
    storage: float | None = None
    seconds: float | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        if (self.state is None) == (self.task_states is None):
            raise ValueError(f"{self.method}: give either a shared state or task_states")
        if self.overrides and self.state is None:
            raise ValueError(f"{self.method}: overrides replace tensors of a shared state, and there is none")

    def state_dict(self, task: str | None = None) -> dict[str, Tensor]:
        """Return the encoder's state dict; where the method has task-specific weights, that of the given task.

        A shared encoder serves any task, even one that was not merged.

        Raises:
            ValueError: the weights are task-specific, and the task is not given or unknown.
        """
        if self.task_states is None:
            return {**self.state, **(self.overrides or {}).get(task, {})}
        if task not in self.task_states:
            problem = "needs a task" if task is None else f"has no weights for task {task!r}"
            raise ValueError(f"{self.method} keeps one encoder per task and {problem}; one of {', '.join(self.tasks)}")
        return dict(self.task_states[task])

    def features(self, encoder: nn.Module, state: StateDict, images: Tensor, task: str | None = None) -> Tensor:
        """Unit-length features ``[n, dim]`` of normalised images under a state of `state_dict`, on its device."""
        if self.forward is None:
            return features(encoder, state, images)
        extra = {name: t.to(images.device) for name, t in (self.extra or {}).items()}
        return self.forward(encoder, state, images, task, extra)

    @property
    def task_storage(self) -> float:
        """32-bit numbers kept per task beyond one encoder and the zero-shot heads; a mean over tasks."""
        if self.storage is not None:
            return float(self.storage)
        kept = [*(self.overrides or {}).values(), self.heads or {}, self.biases or {}, self.extra or {}]
        if self.task_states is not None:
            kept += list(self.task_states.values())
        return sum(t.numel() for part in kept for t in part.values() if is_merged(t)) / len(self.tasks)


@dataclass(frozen=True)
class Fit(Merged):
    """A merged model whose coefficients were learned.

    Arguments:
        trajectory: coefficients as used, before the first step and after every step, ``[steps + 1, K, R]``.
        guard: with ``guard=True``, what the guard saw, one row per look: ``step``, ``expected`` accuracy by the
            experts' beliefs, its ``lead`` over the start and the standard ``error`` of that; ``entropy``, ``variety``
            and ``agreement``, for comparison (see `Guard.looked`); and ``kept``, true for the state that was kept.

    Example:
        >>> fit = am.adamerge(am.load_suite("mini").some_images(20), steps=2, batch_size=4, progress=False)
        >>> fit.trajectory.shape == (3, *fit.coefficients.values.shape)
        True
    """

    trajectory: Tensor = field(default=None, repr=False)
    guard: pd.DataFrame | None = None
