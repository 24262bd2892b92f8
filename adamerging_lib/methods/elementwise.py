"""Shared by the methods that work entry by entry: one vector as a model, and masks of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..task_vectors import TaskVectors
from .merged import PerTask


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


def size(tv: TaskVectors) -> int:
    """P: numbers in the tensors that are merged, tied ones once."""
    return sum(t[0].numel() for t in tv.vectors.values())


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
