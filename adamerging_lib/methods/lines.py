"""LiNeS: scale a merged vector up with depth, because shallow blocks hold what all tasks share."""

from __future__ import annotations

import torch
from torch import Tensor

from ..task_vectors import TaskVectors
from .consensus import THRESHOLD, consensus_vector
from .elementwise import alone, total
from .merged import Merged
from .registry import register
from .ties import ties_vector

BASES = ("task_arithmetic", "ties", "consensus_ta")


@register("lines", label="LiNeS", needs="nothing", source="Wang et al. 2025 (LiNeS)")
def lines(tv: TaskVectors, *, base: str = "task_arithmetic", alpha: float | None = None, beta: float = 0.5) -> Merged:
    """θ^l = θ0^l + (α + β l / (L − 1)) τ^l in transformer block l = 0 … L − 1, and θ0 + α τ outside the blocks.

    Arguments:
        tv: θ0 and T_k.
        base: whose merged vector τ is scaled: ``task_arithmetic`` (Σ_k T_k), ``ties`` (20 %, mean) or
            ``consensus_ta`` (thresholds 0.4, two tasks).
        alpha: α; default (‖Σ_k T_k‖₁ / ‖τ‖₁) / K, which is 1/K for Task Arithmetic.
        beta: β. The paper searches it on validation data over the scalings of the base method, (0, 1] for all but
            Ties; 0.5 is the middle of that range, no published value. For a single task it sets β = 1 − α.

    Returns:
        The shared encoder.

    Raises:
        ValueError: for an unknown base, or a model without numbered transformer blocks.

    Touches:
        All floating-point tensors.

    Needs:
        Nothing with a given β.

    Cost:
        That of the base method.

    Published:
        Eight-task averages: none found.

    Source:
        Wang et al. 2025 (LiNeS: Post-training Layer Scaling Prevents Forgetting and Enhances Model Merging).

    Differs from the published code:
        Blocks are found by the names of the vision tower's tensors in open_clip, Hugging Face and timm models, and
        counted; there, by any number between dots, out of 12 or 24. A text tower that came along is scaled by α.
    """
    try:
        rows = tv.rows("block")
    except ValueError as error:
        raise ValueError(
            "lines scales by depth and finds no transformer blocks (resblocks.N, encoder.layers.N or blocks.N) among "
            f"the tensor names: use {base} itself"
        ) from error
    vector = _vector(tv, base)
    if alpha is None:
        whole, left = (sum(float(t.abs().sum(dtype=torch.float64)) for t in v.values()) for v in (total(tv), vector))
        alpha = whole / left / len(tv.tasks) if left else 0.0
    blocks = [name for name in rows.names if name.startswith("block_")]
    depth = {name: number / max(1, len(blocks) - 1) for number, name in enumerate(blocks)}
    scalings = [alpha + beta * depth.get(name, 0.0) for name in rows.names]
    state = alone(tv, vector).merge(torch.tensor([scalings], dtype=torch.float64), "block")
    return Merged(state, "lines", {"base": base, "alpha": alpha, "beta": float(beta)}, tv.tasks)


def _vector(tv: TaskVectors, base: str) -> dict[str, Tensor]:
    if base == "task_arithmetic":
        return total(tv)
    if base == "ties":
        return ties_vector(tv, 0.2, "mean")
    if base == "consensus_ta":
        return consensus_vector(tv, THRESHOLD, 2)
    raise ValueError(f"base {base!r} is unknown; choose from {', '.join(BASES)}")
