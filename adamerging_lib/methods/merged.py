"""What every method returns: weights, shared or one set a task, and what made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from torch import Tensor

from ..coefficients import Coefficients
from ..state import StateDict


@dataclass(frozen=True)
class Merged:
    """A merged model.

    Arguments:
        state: the shared encoder's state dict, or None where every task has its own.
        method: method id.
        hyper: hyper-parameters that made it, plain values.
        tasks: tasks merged.
        task_states: task → state dict, where the weights are task-specific.
        coefficients: λ, where the method has one a row and task.
        heads: task → head weight ``[classes, dim]`` that replaces the suite's.
        history: one row a step, for adaptive methods.
    """

    state: StateDict | None
    method: str
    hyper: Mapping[str, Any]
    tasks: tuple[str, ...]
    task_states: Mapping[str, StateDict] | None = None
    coefficients: Coefficients | None = None
    heads: Mapping[str, Tensor] | None = None
    history: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        if (self.state is None) == (self.task_states is None):
            raise ValueError(f"{self.method}: give either a shared state or task_states")

    def state_dict(self, task: str | None = None) -> dict[str, Tensor]:
        """The encoder's state dict; for a task where the method has task-specific weights.

        A shared encoder serves any task, also one that was not merged.

        Raises:
            ValueError: where the weights are task-specific and the task is not given or unknown.
        """
        if self.task_states is None:
            return dict(self.state)
        if task not in self.task_states:
            problem = "needs a task" if task is None else f"has no weights for task {task!r}"
            raise ValueError(f"{self.method} keeps one encoder a task and {problem}; one of {', '.join(self.tasks)}")
        return dict(self.task_states[task])


@dataclass(frozen=True)
class Fit(Merged):
    """A merged model whose coefficients were learned.

    Arguments:
        trajectory: coefficients as used, before the first step and after every step, ``[steps + 1, K, R]``.
    """

    trajectory: Tensor = field(default=None, repr=False)
