"""The way from the pre-trained encoder to each expert, and how task vectors lie to θ0 and to each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from adamerging_lib.merged import Merged
from adamerging_lib.suite import Suite
from adamerging_lib.task_vectors import TaskVectors
from adamerging_lib.vectors.geometry import cosines, relative_norms

from .. import evaluations, measuring


def measure(
    suite: Suite, *, alphas: Sequence[float], test_images: int = 0, device: str = "cpu"
) -> list[dict[str, Any]]:
    """Accuracy of θ0 + α T_k on task k itself (the other task vectors left out), cosines and norms of task vectors.

    Arguments:
        suite: with its experts, and the test images.
        alphas: values of α; 0 is zero-shot, 1 the expert.
        test_images: drawn per task; 0 for all.
        device: ``cpu``, ``cuda`` or ``auto``.

    Returns:
        Rows of a record: ``method`` is ``expert_path`` or ``task_vectors``.
    """
    suite = suite.some_images(test_images or None)
    tv, rows = suite.task_vectors(), []
    for alpha in alphas:
        one = torch.tensor([[float(alpha)]], dtype=torch.float64)
        states = {task: tv.subset([task]).merge(one, "task") for task in tv.tasks}
        path = Merged(None, "expert_path", {"alpha": alpha}, tv.tasks, task_states=states)
        frame = evaluations.evaluate(suite, path, device=device)
        rows += measuring.rows_of(frame, method="expert_path", condition="clean", alpha=float(alpha))
    return rows + _of_vectors(tv)


def _of_vectors(tv: TaskVectors) -> list[dict[str, Any]]:
    angles, norms, rows = cosines(tv), relative_norms(tv), []
    for j, task in enumerate(tv.tasks):
        about = {"method": "task_vectors", "task": task}
        rows.append({**about, "kind": "relative_norm", "value": float(norms[task])})
        for other in tv.tasks[j + 1 :]:
            rows.append({**about, "kind": "cosine", "other": other, "value": float(angles.loc[task, other])})
    return rows
