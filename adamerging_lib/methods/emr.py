"""EMR-Merging: elect one vector for all tasks, mask it for each, and rescale it to each task's size."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..merged import Merged
from ..runtime.values import one_of
from ..task_vectors import TaskVectors
from ..vectors.elementwise import masked_states
from ..vectors.select import entries
from .registry import register

RESCALES = ("tensors", "global")


def survey(tv: TaskVectors, *, rescale: str, **_: Any) -> list[float]:
    """λ_k ``[K]``, which compare whole task vectors with what their masks leave of τ."""
    one_of("rescale", rescale, RESCALES)
    own, kept = ([[] for _ in tv.tasks] for _ in range(2))
    for t in tv.vectors.values():
        vector, mask = _elect(t)
        share = 1 / max(1, vector.numel()) if rescale == "tensors" else 1.0
        for k, chosen in enumerate(mask):
            own[k].append(share * float(t[k].abs().sum(dtype=torch.float64)))
            kept[k].append(share * float((vector * chosen).abs().sum(dtype=torch.float64)))
    # Summed exactly: the order of the tensors, which is another one in a file, then changes nothing.
    return [
        math.fsum(mine) / left if (left := math.fsum(theirs)) else 1.0 for mine, theirs in zip(own, kept, strict=True)
    ]


@register(
    "emr",
    label="EMR-Merging",
    needs="nothing",
    source="Huang et al. 2024",
    task_specific="P/32 + 1 + P/K (one bit per parameter, one number; one more vector for all tasks)",
    task_id=True,
    static=False,
    streams=survey,
)
def emr(tv: TaskVectors, whole: list[float] | None = None, *, rescale: str = "tensors") -> Merged:
    """θ for task k is θ0 + λ_k M_k ⊙ τ with γ = sign(Σ_j T_j), M_k = 1[T_k ⊙ γ > 0], τ = γ ⊙ max_j M_j ⊙ |T_j|.

    Arguments:
        tv: θ0 and T_k.
        whole: λ_k of `survey`, where ``tv`` holds only some of the tensors.
        rescale: how λ_k brings M_k ⊙ τ to the size of T_k. ``tensors``, as the published code does and its numbers
            were made: Σ_l mean|T_k^l| / Σ_l mean|M_k^l ⊙ τ^l| over tensors l, where a bias weighs as much as a
            matrix. ``global``, as the paper writes: ‖T_k‖₁ / ‖M_k ⊙ τ‖₁.

    Returns:
        One encoder per task, made when asked for from θ0, τ, K masks and K numbers.

    Raises:
        ValueError: for an unknown rescaling.

    Touches:
        All floating-point tensors; entries whose sum is zero count as negative, as published.

    Needs:
        Nothing; at inference the task.

    Cost:
        A few passes over K·P entries; memory of τ and K·P bytes of masks. Kept: one bit per parameter and task, one
        number per task, and τ.

    Published:
        88.74 at ViT-B/32, 91.28 at ViT-B/16, 93.73 at ViT-L/14 (pool P1, the authors' logs).

    Source:
        Huang et al. 2024 (EMR-Merging: Tuning-Free High-Performance Model Merging).

    Differs from the published code:
        A task whose entries nowhere agree with τ gets θ0, where 0/0 was.
    """
    scalings = whole or survey(tv, rescale=rescale)
    vector, masks = {}, {}
    for key, t in tv.vectors.items():
        vector[key], masks[key] = _elect(t)
    states = masked_states(tv, vector, masks, scalings)
    hyper = {"rescale": rescale}
    kept = entries(tv) / 32 + 1 + entries(tv) / len(tv.tasks)
    return Merged(None, "emr", hyper, tv.tasks, task_states=states, storage=kept)


def _elect(t: Tensor) -> tuple[Tensor, Tensor]:
    """τ and the masks ``[K, *shape]`` of one tensor."""
    # In float64 a sum of a few float32 numbers is exact, so that the order of the tasks elects no other sign.
    side = torch.where(t.sum(0, dtype=torch.float64) > 0, 1, -1).to(t)
    mask, largest = torch.empty(t.shape, dtype=torch.bool, device=t.device), torch.zeros_like(side)
    for k, out in enumerate(mask):
        turned = t[k] * side
        torch.gt(turned, 0, out=out)
        torch.maximum(largest, turned, out=largest)
    return largest.mul_(side), mask
