"""Weight averaging."""

from __future__ import annotations

import torch

from ..merged import Merged
from ..task_vectors import TaskVectors
from .registry import register


@register(
    "weight_averaging",
    label="Weight Averaging",
    needs="nothing",
    source="Wortsman et al. 2022",
    streams=True,
    linear=True,
    entrywise=True,
)
def weight_averaging(tv: TaskVectors) -> Merged:
    """θ = (1/K) Σ_k θ_k = θ0 + (1/K) Σ_k T_k: the plain mean of the experts.

    Arguments:
        tv: θ0 and T_k.

    Returns:
        The shared encoder.

    Source:
        Baseline of AdaMerging, Section 4.1.

    Differs from the published code:
        AdaMerging's coefficient file lists seven coefficients for eight tasks, which drops the last task; here every
        task counts.
    """
    k = len(tv.tasks)
    return Merged(tv.merge(torch.full((k, 1), 1 / k, dtype=torch.float64), "task"), "weight_averaging", {}, tv.tasks)
