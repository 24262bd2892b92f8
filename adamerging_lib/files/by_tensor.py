"""Merging one tensor after another, for task vectors that are read from disk as they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ..merged import Merged
from ..methods.registry import Method, hyper_parameters
from ..task_vectors import TaskVectors

Part = tuple[str, str | None, Tensor]
"""Tensor name, task where the weights are task-specific (else None), merged tensor."""


def survey(method: Method, tv: TaskVectors, hyper: dict[str, Any]) -> tuple[Any, ...]:
    """What a method must know of all tensors before it merges any of them, as further positional arguments.

    Arguments:
        method: the method.
        tv: all task vectors; may be read lazily.
        hyper: its hyper-parameters.
    """
    if not callable(method.streams):
        return ()
    defaults = {name: parameter.default for name, parameter in hyper_parameters(method).items()}
    return (method.streams(tv, **{**defaults, **hyper}),)


def merge_by_tensor(method: Method, tv: TaskVectors, known: tuple[Any, ...], hyper: dict[str, Any]) -> Iterator[Part]:
    """The tensors of a merged model, each merged by itself where the method allows, else all of them loaded first.

    Arguments:
        method: a data-free method.
        tv: task vectors without tied tensors; may be read lazily.
        known: of `survey`.
        hyper: its hyper-parameters.

    Returns:
        Every tensor once, or once a task: the same numbers, bit for bit, as merging the whole gives.
    """
    if not method.streams:
        loaded = TaskVectors(tv.tasks, dict(tv.pretrained), dict(tv.vectors))
        yield from _parts(method, method.function(loaded, **hyper))
        return
    for key, base in tv.pretrained.items():
        if key in tv.vectors:
            one = TaskVectors(tv.tasks, {key: base}, {key: tv.vectors[key]})
            yield from _parts(method, method.function(one, *known, **hyper))
        else:
            yield from ((key, task, base) for task in _owners(method, tv.tasks))


def _owners(method: Method, tasks: tuple[str, ...]) -> tuple[str | None, ...]:
    return tasks if method.task_id else (None,)


def _parts(method: Method, merged: Merged) -> Iterator[Part]:
    if merged.forward is not None or merged.heads or merged.biases:
        raise ValueError(f"{method.id} keeps more than the weights of an encoder: use it from Python")
    # Task after task: weights that are made when asked for are then held for one task at a time.
    for task in _owners(method, merged.tasks):
        for key, tensor in merged.state_dict(task).items():
            yield key, task, tensor
