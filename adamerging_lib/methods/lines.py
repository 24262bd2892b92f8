"""LiNeS: scale a merged vector up with depth, because shallow blocks hold what all tasks share."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..layers import read
from ..merged import Merged
from ..runtime.values import one_of
from ..task_vectors import TaskVectors
from ..vectors.elementwise import alone, total
from .consensus import THRESHOLD, consensus_vector
from .registry import register
from .ties import survey as ties_survey
from .ties import ties_vector

BASES = ("task_arithmetic", "ties", "consensus_ta")

Whole = tuple[float, dict[str, float], Any]
"""What LiNeS must know of all tensors: α, tensor name → scaling, and what its base method must know."""


def survey(tv: TaskVectors, *, base: str, alpha: float | None, beta: float, **_: Any) -> Whole:
    """Scalings by depth from the names; α of Ties and Consensus from whole vectors."""
    one_of("base", base, BASES)
    try:
        layers = read(tv.vectors)
    except ValueError as error:
        raise ValueError(
            f"lines scales by depth and finds no transformer blocks to count: {error}; use {base} itself"
        ) from error
    of_base = ties_survey(tv, keep=0.2) if base == "ties" else None
    if alpha is None:
        alpha = 1 / len(tv.tasks) if base == "task_arithmetic" else _share(tv, base, of_base) / len(tv.tasks)
    return alpha, {key: alpha + beta * layer.relative_depth for key, layer in layers.items()}, of_base


def _is_linear(*, base: str, **_: Any) -> bool:
    return base == "task_arithmetic"


@register(
    "lines",
    label="LiNeS",
    needs="nothing",
    source="Wang et al. 2025 (LiNeS)",
    streams=survey,
    linear=_is_linear,
)
def lines(
    tv: TaskVectors,
    whole: Whole | None = None,
    *,
    base: str = "task_arithmetic",
    alpha: float | None = None,
    beta: float = 0.5,
) -> Merged:
    """θ^l = θ0^l + (α + β l / (L − 1)) τ^l in transformer block l = 0 … L − 1, and θ0 + α τ outside the blocks.

    Arguments:
        tv: θ0 and T_k.
        whole: α and scalings of `survey`, where ``tv`` holds only some of the tensors.
        base: whose merged vector τ is scaled: ``task_arithmetic`` (Σ_k T_k), ``ties`` (20 %, mean) or
            ``consensus_ta`` (thresholds 0.4, two tasks).
        alpha: α; default (‖Σ_k T_k‖₁ / ‖τ‖₁) / K, which is 1/K for Task Arithmetic.
        beta: β. The paper searches it on validation data over the scalings of the base method, (0, 1] for all but
            Ties; 0.5 is the middle of that range, no published value. For a single task it sets β = 1 − α.

    Returns:
        The shared encoder.

    Raises:
        ValueError: for an unknown base, or a model whose blocks cannot be counted by their names.

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
        Blocks are found by the names of tensors in open_clip, Hugging Face and timm models, see `layers`, and counted;
        there, by any number between dots, out of 12 or 24. Encoder and decoder are counted each for itself. A text
        tower that came along with an image tower is scaled by α.
    """
    alpha, scalings, of_base = whole or survey(tv, base=base, alpha=alpha, beta=beta)
    vector = alone(tv, _vector(tv, base, of_base))
    state = vector.merge(torch.tensor([[scalings[key] for key in tv.vectors]], dtype=torch.float64), "tensor")
    return Merged(state, "lines", {"base": base, "alpha": alpha, "beta": float(beta)}, tv.tasks)


def _vector(tv: TaskVectors, base: str, of_base: Any) -> dict[str, Tensor]:
    if base == "ties":
        return ties_vector(tv, 0.2, "mean", of_base)
    return consensus_vector(tv, THRESHOLD, 2) if base == "consensus_ta" else total(tv)


def _share(tv: TaskVectors, base: str, of_base: Any) -> float:
    """‖Σ_k T_k‖₁ / ‖τ‖₁, tensor by tensor; 0 where τ is zero."""
    whole, left = [], []
    for key, t in tv.vectors.items():
        one = replace(tv, vectors={key: t})
        whole.append(float(t.sum(0).abs().sum(dtype=torch.float64)))
        left.append(float(_vector(one, base, of_base)[key].abs().sum(dtype=torch.float64)))
    # Summed exactly: the order of the tensors, which is another one in a file, then changes nothing.
    return math.fsum(whole) / math.fsum(left) if any(left) else 0.0
