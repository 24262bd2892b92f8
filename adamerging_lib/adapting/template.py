"""Any module as the model of a descent: its parameters come from the merge, heads and the like from each task."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..forward import compute_state
from ..learning.model import Scored
from ..state import StateDict
from . import statistics
from .batches import Batches, Inputs, told

Logits = Callable[[str, Any], Tensor]
"""(task, the model's output) → logits ``[n, …, classes]``."""


def default_logits(task: str, output: Any) -> Tensor:
    """The output itself, or its ``logits``.

    Raises:
        ValueError: for an output that is neither.
    """
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if not isinstance(found, Tensor):
        raise ValueError(
            f"the model's output is a {type(output).__name__} without logits: say how it becomes logits, such as "
            f"logits=lambda task, output: output[0]"
        )
    return found


@dataclass(frozen=True)
class Template:
    """A module, what each task keeps, and how outputs become logits.

    Arguments:
        module: in evaluation mode, on the device.
        tasks: K names.
        private: of each task, the tensors that take their places in the module.
        logits: see `Logits`.
        dtype: what it computes in.
        autocast: narrow type that products are computed in; logits and losses stay wide.
        teachers: of each task, the expert whose outputs stand for labels; None for none.
        teacher: the module that runs them, by its own statistics; None for none.
    """

    module: nn.Module
    tasks: tuple[str, ...]
    private: tuple[StateDict, ...]
    logits: Logits
    dtype: torch.dtype
    autocast: torch.dtype | None = None
    teachers: tuple[StateDict, ...] | None = None
    teacher: nn.Module | None = None

    @classmethod
    def of(
        cls,
        model: nn.Module,
        tasks: Sequence[str],
        private: Mapping[str, StateDict],
        *,
        logits: Logits | None,
        dtype: torch.dtype,
        device: torch.device,
        mode: str = "none",
        autocast: torch.dtype | None = None,
        teachers: Mapping[str, StateDict] | None = None,
    ) -> Template:
        """Everything on the device, once; the module given is not touched.

        Arguments:
            model: the module.
            mode: how statistics serve, see `statistics.prepare`.
            tasks, private, logits, dtype, device, autocast, teachers: see the fields, by task.
        """
        module, teacher = _ready(model, dtype, device), None
        statistics.prepare(module, mode)
        if teachers is not None:
            teacher = _ready(model, dtype, device)
        own = tuple(compute_state(private.get(task, {}), device) for task in tasks)
        taught = None if teachers is None else tuple(compute_state(teachers[task], device) for task in tasks)
        return cls(module, tuple(tasks), own, logits or default_logits, dtype, autocast, taught, teacher)

    @property
    def count(self) -> int:
        """K."""
        return len(self.tasks)

    def drawn(
        self, streams: Sequence[Batches], numbers: range, device: torch.device
    ) -> tuple[list[list[Inputs]], None]:
        """Batches of every task, as a list each, on the device."""
        return [[moved(stream.batch(number), device, self.dtype) for number in numbers] for stream in streams], None

    def scored(self, state: StateDict, inputs: list[list[Inputs]], labels: None, group: range) -> list[Scored]:
        """Logits ``[n, classes]`` of each batch of a group's tasks, and the experts' where they teach."""
        return [[(self.scores(k, state, batch), self._taught(k, batch)) for batch in inputs[k]] for k in group]

    def scores(self, k: int, state: StateDict, batch: Inputs) -> Tensor:
        """Logits ``[n, classes]`` of one batch of task k, places that the batch masks left out.

        Raises:
            ValueError: saying with what the module cannot be called.
        """
        # Layers that follow statistics write to those they are given: states stay as they are.
        own = {**state, **self.private[k]}
        own |= {name: t.clone() for name, t in own.items() if statistics.written(name)}
        return self._run(self.module, own, k, batch)

    def _taught(self, k: int, batch: Inputs) -> Tensor | None:
        if self.teachers is None:
            return None
        with torch.no_grad():
            return self._run(self.teacher, self.teachers[k], k, batch)

    def _run(self, module: nn.Module, state: StateDict, k: int, batch: Inputs) -> Tensor:
        def call(*positional: Any, **named: Any) -> Any:
            device = next(t.device for t in state.values())
            with nullcontext() if self.autocast is None else torch.autocast(device.type, self.autocast):
                return functional_call(module, dict(state), positional, named)

        return scores_of(call, batch, self.tasks[k], self.logits).to(self.dtype)


def scores_of(call: Callable[..., Any], batch: Inputs, task: str, logits: Logits) -> Tensor:
    """Logits ``[n, classes]`` of a batch, places that it masks left out.

    Arguments:
        call: the module, or what stands for it.
        batch: tensor, or dict of keyword arguments.
        task: name.
        logits: see `Logits`.

    Raises:
        ValueError: saying with what the module cannot be called, or that its logits are none.
    """
    try:
        output = call(batch) if isinstance(batch, Tensor) else call(**batch)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, AssertionError, AttributeError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"the model cannot take a batch of task {task!r}, {told(batch)}: {type(error).__name__}: {first}"
        ) from error
    found = logits(task, output)
    if not isinstance(found, Tensor) or found.dim() < 2:
        what = f"of shape {list(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise ValueError(f"the logits of task {task!r} are {what}: they should be [inputs, classes], see logits=")
    mask = batch.get("attention_mask") if isinstance(batch, dict) else None
    if found.dim() > 2 and isinstance(mask, Tensor) and mask.shape == found.shape[:-1]:
        found = found[mask.bool()]
    return found.flatten(0, -2)


def moved(inputs: Inputs, device: torch.device, dtype: torch.dtype) -> Inputs:
    """A batch on a device, its floats in the type that the model computes in."""

    def move(value: Any) -> Any:
        return value.to(device, dtype if value.is_floating_point() else None) if isinstance(value, Tensor) else value

    return move(inputs) if isinstance(inputs, Tensor) else {name: move(value) for name, value in inputs.items()}


def _ready(model: nn.Module, dtype: torch.dtype, device: torch.device) -> nn.Module:
    if any(t.is_meta for t in (*model.parameters(), *model.buffers())):
        raise ValueError("the model is on 'meta', without data for what its checkpoints lack: build it on the CPU")
    return copy.deepcopy(model).to(device, dtype).eval().requires_grad_(False)
