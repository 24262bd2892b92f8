"""PCB-Merging: entries of the task vectors compete, the strongest of every task are averaged by their strength."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..merged import Merged
from ..task_vectors import TaskVectors
from ..vectors.elementwise import add, on_demand
from ..vectors.select import entries, kth_smallest
from .registry import register

Whole = list[tuple[float, float, float, float]]
"""What PCB must know of all tensors, a task: the magnitudes to clip at, low and high; q_k, and the largest of B_k."""


def survey(tv: TaskVectors, *, ratio: float, clip: float, **_: Any) -> Whole:
    """Quantiles of |T_k| and of B_k over whole vectors, in eight passes over the tensors."""
    for name, share, fits in (("ratio", ratio, 0 < ratio <= 1), ("clip", clip, 0 <= clip < 0.5)):
        if isinstance(share, bool) or not fits:
            raise ValueError(f"{name}={share!r} is out of range: ratio lies in (0, 1], clip in [0, 0.5); 5 % is 0.05")
    count = entries(tv)
    bounds = _at(tv, int(count * clip), max(0, int(count * (1 - clip) - 1)), magnitude=True)
    balances = on_demand(tv, lambda key: _balances(tv.vectors[key], bounds))
    cuts = _at(balances, min(count - 1, int(count * (1 - ratio))), count - 1)
    return [(*bound, *cut) for bound, cut in zip(bounds, cuts, strict=True)]


@register("pcb", label="PCB-Merging", needs="nothing", source="Du et al. 2024", streams=survey, entrywise=True)
def pcb(
    tv: TaskVectors,
    whole: Whole | None = None,
    *,
    ratio: float = 0.05,
    scaling: float = 1.2,
    clip: float = 1e-4,
) -> Merged:
    """θ = θ0 + λ Σ_k W_k ⊙ T_k / Σ_k W_k, W_k the top of B_k = exp(K · norm(|T_k|)²) ⊙ tanh(T_k ⊙ Σ_j T_j), normed.

    norm(x) = (x − min x) / (max x − min x) over the whole vector. W_k = norm(max(B_k, q_k)), where q_k is the
    quantile of B_k that leaves the share ``ratio`` above it: all entries below weigh nothing.

    Arguments:
        tv: θ0 and T_k.
        whole: quantiles of `survey`, where ``tv`` holds only some of the tensors.
        ratio: share of entries kept per task, in (0, 1].
        scaling: λ.
        clip: share of the smallest and of the largest |T_k| that are set to the next one inside, before norm and in
            the average, so that outliers do not flatten all others; in [0, 0.5).

    Returns:
        The shared encoder.

    Raises:
        ValueError: for shares out of range.

    Touches:
        All floating-point tensors, each task's as one vector.

    Needs:
        Nothing; the published numbers searched λ and the ratio on validation data.

    Cost:
        Four selections by rank per task; memory of a tensor of every task beyond the result.

    Published:
        76.3 at ViT-B/32 and 87.5 at ViT-L/14 (pool P1), with validation.

    Source:
        Du et al. 2024 (Parameter Competition Balancing for Model Merging). The formula is that of the published key
        steps (pcb-merging.py); ratio and λ are those that its authors run with on CLIP.

    Differs from the published code:
        The text has softmax in place of exp and tanh. The repository's script for CLIP clips 1 % and sums
        normed vectors inside tanh, a third version. The ratio is a share of what is merged: the scripts count
        text towers that never move, so their 5 % is 6.5 % of a ViT-B/32 vision tower. Vectors without two different
        magnitudes weigh nothing, where 0/0 was.
    """
    whole = whole or survey(tv, ratio=ratio, clip=clip)
    merged = {}
    for key, t in tv.vectors.items():
        weighted, weights = torch.zeros_like(t[0]), torch.zeros_like(t[0])
        balances = _balances(t, [(low, high) for low, high, _, _ in whole])
        for own, weight, (low, high, cut, top) in zip(t, balances, whole, strict=True):
            weight.sub_(cut).div_(top - cut or 1).clamp_(min=0)
            weights += weight
            weighted += weight.mul_(own.abs().clamp_(low, high)).mul_(own.sign())
        merged[key] = weighted.div_(weights.clamp_(min=1e-12))
    hyper = {"ratio": ratio, "scaling": float(scaling), "clip": clip}
    return Merged(add(tv, merged, scaling), "pcb", hyper, tv.tasks)


def _balances(t: Tensor, bounds: list[tuple[float, float]]) -> Tensor:
    """B_k ``[K, *shape]`` of one tensor."""
    total, balances = t.sum(0), torch.empty_like(t)
    for own, out, (low, high) in zip(t, balances, bounds, strict=True):
        torch.clamp(own.abs(), low, high, out=out)
        out.sub_(low).div_(high - low or 1).square_().mul_(len(t)).exp_()
        out *= (own * total).tanh_()
    return balances


def _at(tv: TaskVectors, *places: int, magnitude: bool = False) -> list[tuple[float, ...]]:
    """Each task's entries at some places (from 0) of its sorted vector."""
    return list(zip(*(kth_smallest(tv, 1 + place, magnitude=magnitude) for place in places), strict=True))
