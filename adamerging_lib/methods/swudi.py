"""SWUDI: WUDI's closed form, filtered: directions that the task vectors hardly span keep the plain sum."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..learning.recipes import check_positive
from ..merged import Merged
from ..task_vectors import TaskVectors
from ..vectors.spectral import merge_matrices
from .registry import register
from .wudi import normal_equations

SOURCE = "Wei et al. 2026 (SWUDI)"


@register("swudi", label="SWUDI", needs="nothing", source=SOURCE, streams=True)
def swudi(tv: TaskVectors, *, time: float = 1300.0, share: float = 0.65) -> Merged:
    """θ = θ0 + τ, τ = S + (τ* − S) Q diag(h) Qᵀ, h_i = (1 − exp(−t λ_i)) 1[i ≤ ⌈s n⌉], S = Σ_k T_k, τ* as in `wudi`.

    Q diag(λ) Qᵀ, λ descending, is WUDI's matrix A = Σ_k T_kᵀT_k / ‖T_k‖². The first factor of h is what gradient
    flow on half of WUDI's loss, started at S, has done after the time t; the second leaves S in the weakest directions.
    The authors explain in this way why Adam, stopped early, does better than the closed form at CLIP's size.

    Arguments:
        tv: θ0 and T_k.
        time: t; λ sums to K, so it has no unit. ``inf`` for no soft filter.
        share: s, of the n columns of a matrix, in (0, 1].

    Returns:
        The shared encoder.

    Raises:
        ValueError: for a time or a share of no use.

    Touches: every 2-D tensor except ``text_projection``, embeddings included, by τ; all others by the mean of T_k.
    Needs: checkpoints only.
    Cost: as `wudi`.
    Published: 85.55 (P2, B/32); there, the closed form 82.33, WUDI by Adam 84.63, the soft filter alone 85.10.

    Source:
        Wei et al. 2026 (Closed-Form Spectral Regularization), arXiv 2606.07289; filter, t = 1300 and s = 0.65 from the
        authors' code for eight ViT-B/32, where they were tuned.

    Differs from the published code:
        That computes in float32 and lets no λ be below 1e-8; here float64, and directions without length stay out.
        ``text_projection`` is left to the mean, as by all such methods here.
    """
    if not time > 0:
        raise ValueError(f"time={time!r} lets the filter pass nothing: give a number above 0, such as 1300")
    check_positive("share", share)
    if share > 1:
        raise ValueError(f"share={share!r} is not a share in (0, 1]: 65 % is 0.65")

    def filter_(values: Tensor) -> Tensor:
        kept = torch.arange(len(values), device=values.device) < math.ceil(share * len(values))
        return -torch.expm1(-time * values) * kept

    hyper = {"time": float(time), "share": float(share)}
    return Merged(merge_matrices(tv, lambda t: filtered(t, filter_)), "swudi", hyper, tv.tasks)


@register("swudi_a", label="SWUDI-A", needs="nothing", source=SOURCE, streams=True)
def swudi_a(tv: TaskVectors) -> Merged:
    """As `swudi` with h_i = 1[i ≤ ⌈(Σ_j √λ_j)² / Σ_j λ_j⌉]: how many directions count is read off each matrix.

    Arguments:
        tv: θ0 and T_k.

    Returns:
        The shared encoder.

    Touches, Needs, Cost: as `swudi`.
    Published: 85.53 (P2, B/32).

    Source:
        Wei et al. 2026 (Closed-Form Spectral Regularization), arXiv 2606.07289; the rule,
        "participation_sqrt", from the authors' code.

    Differs from the published code:
        As `swudi`. The code has other rules for the number; this is the one that its configuration names.
    """

    def filter_(values: Tensor) -> Tensor:
        root = values.sqrt()
        count = root.sum().square() / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
        return (torch.arange(len(values), device=values.device) < torch.ceil(count * (1 - 1e-12))).to(values)

    return Merged(merge_matrices(tv, lambda t: filtered(t, filter_)), "swudi_a", {}, tv.tasks)


def filtered(t: Tensor, filter_: Callable[[Tensor], Tensor]) -> Tensor:
    """S + (τ* − S) Q diag(h) Qᵀ of one matrix's task vectors ``[K, m, n]``; `filter_` maps λ ``[n]``, descending, to h.

    Directions in which no task vector has any length stay as in S, where they have none either.
    """
    a, b = normal_equations(t)
    values, q = (part.flip(-1) for part in torch.linalg.eigh(a))
    found = values > len(values) * torch.finfo(values.dtype).eps * values[0].clamp(min=0)
    values = torch.where(found, values, 0)
    total = t.sum(0, dtype=torch.float64)
    best = (b @ q) / torch.where(found, values, 1)
    return total + torch.where(found, filter_(values), 0) * (best - total @ q) @ q.mT
