"""Task arithmetic."""

from __future__ import annotations

import torch

from ..merged import Merged
from ..task_vectors import TaskVectors
from .registry import register


@register(
    "task_arithmetic",
    label="Task Arithmetic",
    needs="nothing",
    source="Ilharco et al. 2023",
    streams=True,
    linear=True,
    entrywise=True,
)
def task_arithmetic(tv: TaskVectors, *, scaling: float = 0.3) -> Merged:
    """θ = θ0 + λ Σ_k T_k, one λ for all tasks and tensors.

    Arguments:
        tv: θ0 and T_k.
        scaling: λ, 0.3 as published.

    Returns:
        The shared encoder.

    Source:
        Ilharco et al. 2023; AdaMerging, Section 3.1.
    """
    coefficients = torch.full((len(tv.tasks), 1), float(scaling), dtype=torch.float64)
    return Merged(tv.merge(coefficients, "task"), "task_arithmetic", {"scaling": float(scaling)}, tv.tasks)
