"""Merging one tensor after another, for task vectors that are read from disk as they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from ..merged import Merged
from ..methods.registry import Method, hyper_parameters
from ..task_vectors import TaskVectors, check_merged, weights
from ..vectors.elementwise import PIECE, OnDemand, pieces

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


class _ReadError(Exception):
    """A tensor was asked for in a rehearsal."""


def rehearse(method: Method, layout: Mapping[str, Tensor], tasks: tuple[str, ...], hyper: Mapping[str, Any]) -> None:
    """Let a method refuse what it refuses before it reads any number: values out of range, names that it cannot use.

    Arguments:
        method: the method.
        layout: name → tensor on ``meta`` of θ0.
        tasks: names.
        hyper: its hyper-parameters.

    Raises:
        ValueError: of the method.
    """

    def read(key: str) -> Tensor:
        raise _ReadError(key)

    with suppress(_ReadError):
        method.function(TaskVectors(tasks, layout, OnDemand(weights(layout), read)), **hyper)


def merge_by_tensor(method: Method, tv: TaskVectors, known: tuple[Any, ...], hyper: dict[str, Any]) -> Iterator[Part]:
    """The tensors of a merged model, each merged by itself where the method allows, else all of them loaded first.

    Arguments:
        method: a data-free method.
        tv: task vectors; may be read lazily.
        known: of `survey`.
        hyper: its hyper-parameters.

    Returns:
        Every tensor once, or once per task: the same numbers, bit for bit, as merging the whole gives.

    Raises:
        ValueError: where a merged number is too large for its type.
    """
    if not method.streams:
        loaded = tv.only(tv.pretrained)
        yield from _parts(method, loaded, method.function(loaded, **hyper))
        return
    others: dict[str, list[str]] = {}
    for name, home in tv.tied.items():
        others.setdefault(home, []).append(name)
    riders = list(tv.statistics)  # go with the first tensor, so that no method sees a model without vectors
    for key in tv.pretrained:
        if key in tv.vectors:
            names, size = [key, *others.get(key, ())], tv.pretrained[key].numel()
            if method.entrywise and not method.task_id and not riders and size > PIECE:
                merged = _in_pieces(method, tv, key, known, hyper)
                yield from ((name, None, merged) for name in names)
                continue
            one = tv.only([*names, *riders])
            riders = []
            yield from _parts(method, one, method.function(one, *known, **hyper))
        elif key not in tv.tied and key not in tv.statistics:
            yield from ((key, task, tv.pretrained[key]) for task in _owners(method, tv.tasks))


def _in_pieces(method: Method, tv: TaskVectors, key: str, known: tuple[Any, ...], hyper: dict[str, Any]) -> Tensor:
    """One large tensor, merged piece by piece, for time and memory."""
    base = tv.pretrained[key]
    merged, at = torch.empty(base.numel(), dtype=base.dtype, device=base.device), 0
    for start, t in pieces(tv, key):
        one = TaskVectors(tv.tasks, {key: start}, {key: t})
        state = method.function(one, *known, **hyper).state_dict()
        check_merged(one, state)
        merged[at : at + start.numel()] = state[key]
        at += start.numel()
    return merged.view(base.shape)


def _owners(method: Method, tasks: tuple[str, ...]) -> tuple[str | None, ...]:
    return tasks if method.task_id else (None,)


def _parts(method: Method, tv: TaskVectors, merged: Merged) -> Iterator[Part]:
    if merged.forward is not None or merged.heads or merged.biases:
        raise ValueError(f"{method.id} keeps more than the weights of an encoder: use it from Python")
    # Task after task: weights that are made when asked for are then held for one task at a time.
    for task in _owners(method, merged.tasks):
        state = merged.state_dict(task)
        check_merged(tv, state)
        for key, tensor in state.items():
            yield key, task, tensor
