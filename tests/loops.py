"""Task vectors as plain lists, for references written as loops over entries."""

from __future__ import annotations

import torch
from torch import Tensor

from adamerging_lib import TaskVectors


def lists(tv: TaskVectors) -> list[list[float]]:
    """One flat list of entries per task, tensor after tensor."""
    return [[v for t in tv.vectors.values() for v in t[k].reshape(-1).tolist()] for k in range(len(tv.tasks))]


def moved(tv: TaskVectors, state: dict[str, Tensor]) -> list[float]:
    """θ − θ0 as one flat list in the same order."""
    return [v for key in tv.vectors for v in (state[key] - tv.pretrained[key]).reshape(-1).tolist()]


def vectors_of(*rows: list[float]) -> TaskVectors:
    """Task vectors t0, t1, … of one tensor ``a`` over θ0 = 0."""
    pretrained = {"a": torch.zeros(len(rows[0]), dtype=torch.float64)}
    experts = {f"t{k}": {"a": torch.tensor(row, dtype=torch.float64)} for k, row in enumerate(rows)}
    return TaskVectors.from_state_dicts(pretrained, experts)
