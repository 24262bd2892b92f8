"""How similar task vectors are, what an expert does to the other tasks, and what merging two of them costs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from adamerging_lib.merged import Merged
from adamerging_lib.suite import Suite
from adamerging_lib.task_vectors import TaskVectors
from adamerging_lib.vectors.geometry import cosines
from adamerging_lib.vectors.select import kept_above

from .. import evaluations, measuring


def measure(
    suite: Suite, *, scaling: float = 0.5, keep: float = 0.2, test_images: int = 0, device: str = "cpu"
) -> list[dict[str, Any]]:
    """Cosines, sign conflicts, the transfer matrix, and what each task loses to each second task vector.

    Arguments:
        suite: with its experts, and the test images.
        scaling: λ of both task vectors of a pair.
        keep: as in `sign_conflicts`.
        test_images: drawn per task; 0 for all.
        device: ``cpu``, ``cuda`` or ``auto``.

    Returns:
        Rows of a record.
    """
    suite = suite.some_images(test_images or None)
    tv = suite.task_vectors()
    rows = _of_vectors(tv, keep)
    for other in tv.tasks:
        rows += _of_images(suite, suite.experts[other], tv.tasks, device, kind="transfer", other=other)
    rows += _of_images(suite, suite.pretrained, tv.tasks, device, kind="zero_shot")
    for task in tv.tasks:
        state = tv.subset([task]).merge(_all(1, scaling), "task")
        rows += _of_images(suite, state, [task], device, kind="alone")
    for pair in itertools.combinations(tv.tasks, 2):
        state = tv.subset(pair).merge(_all(2, scaling), "task")
        both = _of_images(suite, state, pair, device, kind="pair")
        rows += [{**row, "other": other} for row, other in zip(both, pair[::-1], strict=True)]
    return rows


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


def _of_vectors(tv: TaskVectors, keep: float) -> list[dict[str, Any]]:
    angles, rows = cosines(tv), []
    for (task, other), (conflict, overlap) in sign_conflicts(tv, keep).items():
        pair = {"task": task, "other": other}
        rows.append({"kind": "cosine", **pair, "value": float(angles.loc[task, other])})
        rows.append({"kind": "sign_conflict", **pair, "value": conflict})
        rows.append({"kind": "overlap", **pair, "value": overlap})
    return rows


def _of_images(
    suite: Suite, state: Mapping[str, Tensor], tasks: Iterable[str], device: str, **about: str
) -> list[dict[str, Any]]:
    """One row per task: how well one encoder does on its test images."""
    part = dataclasses.replace(suite, test={task: suite.test[task] for task in tasks})
    frame = evaluations.evaluate(part, Merged(dict(state), "similarity", {}, tuple(tasks)), device=device)
    return measuring.rows_of(frame, average=False, condition="clean", **about)


def _all(count: int, scaling: float) -> Tensor:
    return torch.full((count, 1), float(scaling), dtype=torch.float64)
