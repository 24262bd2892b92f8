"""How alike task vectors are, what an expert does to the other tasks, and whether either predicts what merging costs.

Rows of a record: ``condition`` is ``cosine``, ``sign_conflict`` or ``overlap`` (pairs ``task, other``; percent but for
the cosine), ``transfer`` (``task`` measured with the expert of ``other``: accuracy), ``alone`` and ``pair`` (accuracy
on ``task`` of θ0 + λ T_task, without and with λ T_other).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from adamerging_lib.evaluation import evaluate
from adamerging_lib.geometry import cosines
from adamerging_lib.methods import Merged
from adamerging_lib.suite import Suite
from adamerging_lib.task_vectors import TaskVectors
from adamerging_lib.vectors.select import kept_above


def sign_conflicts(tv: TaskVectors, keep: float = 0.2) -> dict[tuple[str, str], tuple[float, float]]:
    """Of the entries that two trimmed task vectors share, the percentage with opposite signs; and how many they share.

    Arguments:
        tv: θ0 and T_k.
        keep: share of each task vector's entries, the largest by magnitude, that count.

    Returns:
        (task, other) → (conflict: opposite signs among shared entries, overlap: shared entries among those kept).

    Source:
        Yadav et al. 2023, Section 3, count conflicts among trimmed entries in the same way.
    """
    cuts = kept_above(tv, keep)
    k = len(tv.tasks)
    shared, opposite = torch.zeros(2, k, k, dtype=torch.float64)
    for vectors in tv.vectors.values():
        cut = torch.tensor(cuts, dtype=vectors.dtype).view(-1, 1)
        flat = vectors.reshape(k, -1)
        signs = (flat.sign() * (flat.abs() >= cut)).double()
        present, agreement = signs.abs() @ signs.abs().T, signs @ signs.T
        shared += present
        opposite += (present - agreement) / 2
    kept = shared.diagonal()
    return {
        (tv.tasks[i], tv.tasks[j]): (
            float(100 * opposite[i, j] / shared[i, j].clamp_min(1)),
            float(100 * shared[i, j] / torch.minimum(kept[i], kept[j]).clamp_min(1)),
        )
        for i, j in itertools.combinations(range(k), 2)
    }


def similarity(suite: Suite, *, scaling: float = 0.5, keep: float = 0.2, device: str = "cpu") -> list[dict[str, Any]]:
    """Cosines, sign conflicts, the transfer matrix, and the cost of merging each pair.

    Arguments:
        suite: with its experts.
        scaling: λ of both task vectors of a pair.
        keep: as in `sign_conflicts`.
        device: ``cpu``, ``cuda`` or ``auto``.

    Returns:
        Rows of a record.
    """
    tv, rows = suite.task_vectors(), []
    angles = cosines(tv)
    for (task, other), (conflict, overlap) in sign_conflicts(tv, keep).items():
        pair = {"task": task, "other": other}
        rows.append({"condition": "cosine", **pair, "value": float(angles.loc[task, other])})
        rows.append({"condition": "sign_conflict", **pair, "value": conflict})
        rows.append({"condition": "overlap", **pair, "value": overlap})
    for other in tv.tasks:
        for task, accuracy in _accuracies(suite, suite.experts[other], tv.tasks, device).items():
            rows.append({"condition": "transfer", "task": task, "other": other, "accuracy": accuracy})
    for task, accuracy in _accuracies(suite, suite.pretrained, tv.tasks, device).items():
        rows.append({"condition": "zero_shot", "task": task, "accuracy": accuracy})
    for task in tv.tasks:
        state = tv.subset([task]).merge(_all(1, scaling), "task")
        rows.append({"condition": "alone", "task": task, "accuracy": _accuracies(suite, state, [task], device)[task]})
    for pair in itertools.combinations(tv.tasks, 2):
        state = tv.subset(pair).merge(_all(2, scaling), "task")
        found = _accuracies(suite, state, pair, device)
        for task, other in (pair, pair[::-1]):
            rows.append({"condition": "pair", "task": task, "other": other, "accuracy": found[task]})
    return rows


def _all(count: int, scaling: float) -> Tensor:
    return torch.full((count, 1), float(scaling), dtype=torch.float64)


def _accuracies(suite: Suite, state: Mapping[str, Tensor], tasks, device: str) -> dict[str, float]:
    """Accuracy (percent) of one encoder on some tasks."""
    part = dataclasses.replace(suite, test={task: suite.test[task] for task in tasks})
    frame = evaluate(part, Merged(dict(state), "similarity", {}, tuple(tasks)), device=device)
    return dict(zip(frame["task"], frame["accuracy"], strict=True))
