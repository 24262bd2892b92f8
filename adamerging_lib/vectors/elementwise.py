"""Shared by the methods that work entry by entry: one vector as a model, and masks of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..merged import PerTask
from ..task_vectors import TaskVectors

PIECE = 1 << 17
"""Entries of a large tensor that are worked on together: few enough to stay in the processor's cache."""


class OnDemand(Mapping[str, Tensor]):
    """Tensor name → tensor, computed anew each time one is asked for."""

    def __init__(self, names: Iterable[str], make: Callable[[str], Tensor]) -> None:
        self._make = dict.fromkeys(names, make)

    def __getitem__(self, name: str) -> Tensor:
        return self._make[name](name)

    def __contains__(self, name: object) -> bool:  # Mapping's own would make the tensor
        return name in self._make

    def __iter__(self) -> Iterator[str]:
        return iter(self._make)

    def __len__(self) -> int:
        return len(self._make)


def pieces(tv: TaskVectors, key: str) -> Iterator[tuple[Tensor, Tensor]]:
    """θ0 ``[n]`` and T ``[K, n]`` of one tensor piece by piece; vectors that are read from files are made so.

    Arguments:
        tv: θ0 and T_k.
        key: name of the tensor.
    """
    if hasattr(tv.vectors, "pieces"):
        yield from tv.vectors.pieces(key, PIECE)
    else:
        t, base = tv.vectors[key], tv.pretrained[key]
        yield from zip(base.reshape(-1).split(PIECE), t.reshape(len(t), base.numel()).split(PIECE, dim=1), strict=True)


def on_demand(tv: TaskVectors, make: Callable[[str], Tensor], names: Iterable[str] | None = None) -> TaskVectors:
    """The same θ0 and tasks with other vectors, or some of them, of which one tensor is held at a time.

    Arguments:
        tv: θ0 and T_k.
        make: tensor name → ``[K, *shape]``, the same whenever asked for.
        names: of the tensors; default those of ``tv``.
    """
    return replace(tv, vectors=OnDemand(tv.vectors if names is None else names, make))


def alone(tv: TaskVectors, vector: Mapping[str, Tensor]) -> TaskVectors:
    """θ0 with one vector τ in place of the K task vectors, so that merging gives θ0 + λ τ."""
    return TaskVectors(("merged",), tv.pretrained, {key: vector[key].unsqueeze(0) for key in tv.vectors}, tv.tied)


def add(tv: TaskVectors, vector: Mapping[str, Tensor], scaling: float = 1.0) -> dict[str, Tensor]:
    """The state dict θ0 + λ τ.

    Arguments:
        tv: for θ0, its tied tensors and the names of the merged ones.
        vector: τ, tensor name → tensor.
        scaling: λ.
    """
    return alone(tv, vector).merge(torch.tensor([[float(scaling)]], dtype=torch.float64), "task")


def total(tv: TaskVectors) -> dict[str, Tensor]:
    """Σ_k T_k."""
    return {key: t.sum(0) for key, t in tv.vectors.items()}


def masked_states(
    tv: TaskVectors, vector: Mapping[str, Tensor], masks: Mapping[str, Tensor], scalings: Sequence[float]
) -> PerTask:
    """Task → θ0 + λ_k M_k ⊙ τ, made when asked for; held are θ0, τ and the masks, never the task vectors.

    Arguments:
        tv: for θ0 and the task names.
        vector: τ, tensor name → tensor.
        masks: tensor name → bool ``[K, *shape]``.
        scalings: λ_k.
    """
    tasks, tau = tv.tasks, alone(tv, vector)

    def make(task: str) -> dict[str, Tensor]:
        k = tasks.index(task)
        return add(tau, {key: t[0] * masks[key][k] for key, t in tau.vectors.items()}, scalings[k])

    return PerTask(tasks, make)
