"""Isotropic merging: one length for all singular directions of the merged task matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from ..merged import Merged
from ..task_vectors import TaskVectors
from ..vectors.spectral import merge_matrices, polar, svd
from .registry import register


@register("iso_c", label="Iso-C", needs="nothing", source="Marczak et al. 2025, Section 4.1", streams=True)
def iso_c(tv: TaskVectors, *, scaling: float = 1.5) -> Merged:
    """θ = θ0 + α Δ, Δ = mean(s) U Vᵀ where Σ_k T_k = U diag(s) Vᵀ: the sum with its spectrum made flat.

    Arguments:
        tv: θ0 and T_k.
        scaling: α; the authors choose it on validation images, FusionBench's table has 1.5, its default is 1.

    Returns:
        The shared encoder.

    Touches: every 2-D tensor except ``text_projection``, embeddings included, by Δ; all others by α times the
        mean of T_k.
    Needs: checkpoints only.
    Cost: one SVD per matrix, O(m n r) with r = min(m, n): 0.2 s for the mini suite, 20 s for eight ViT-B/32
        (one core).
    Published: 86.3 / 90.6 / 94.2 (P3, B/32, B/16, L/14); 82.8 (P2, B/32, α = 1.5).

    Source:
        Marczak et al. 2025 (No Task Left Behind), Section 4.1.

    Differs from the published code:
        Directions in which the sum has no length get none in Δ, where a library's SVD completes the basis at will;
        a sum of full rank gives the same.
    """

    def flat(t: Tensor) -> Tensor:
        u, s, vh = svd(t.sum(0, dtype=torch.float64))
        return s.mean() * (u @ vh)

    return Merged(merge_matrices(tv, flat, scaling), "iso_c", {"scaling": float(scaling)}, tv.tasks)


@register("iso_cts", label="Iso-CTS", needs="nothing", source="Marczak et al. 2025, Section 4.2", streams=True)
def iso_cts(tv: TaskVectors, *, scaling: float = 1.5, common: float = 0.8) -> Merged:
    """θ = θ0 + α Δ, Δ = mean(s) polar([U_1 … U_K U_c]) polar([V_1 … V_K V_c])ᵀ.

    U_c, V_c are the first r_c singular vectors of Σ_k T_k, and U_k, V_k the first (r − r_c) / K of T_k without its
    part in U_c, so that every task keeps directions that the sum has lost.

    Arguments:
        tv: θ0 and T_k.
        scaling: α, as in `iso_c`.
        common: share of the rank r for the common directions; what is left is rounded to a multiple of K.

    Returns:
        The shared encoder.

    Touches: as `iso_c`.
    Needs: checkpoints only.
    Cost: K + 3 SVDs per matrix: 1 s for the mini suite, 3 min for eight ViT-B/32 (one core).
    Published: 86.2 / 91.1 / 94.7 (P3, B/32, B/16, L/14); 84.9 (P1, B/32, as AdaRank reports it); 82.7 (P2, B/32,
        α = 1.5).

    Source:
        Marczak et al. 2025 (No Task Left Behind), Section 4.2.

    Differs from the published code:
        Directions without length stay out, as in `iso_c`. Where rounding up would ask for more task-specific
        directions than the rank has, it rounds down.
    """
    if isinstance(common, bool) or not 0 <= common <= 1:
        raise ValueError(f"common={common!r} is not a share in [0, 1]: 80 % is 0.8")

    def flat(t: Tensor) -> Tensor:
        u, s, vh, _ = subspaces(t.double(), common)
        return s.mean() * (polar(u) @ polar(vh))

    hyper = {"scaling": float(scaling), "common": float(common)}
    return Merged(merge_matrices(tv, flat, scaling), "iso_cts", hyper, tv.tasks)


def subspaces(t: Tensor, common: float) -> tuple[Tensor, Tensor, Tensor, int]:
    """Left vectors ``[m, r]``, singular values ``[r]``, right vectors ``[r, n]``, and how many of them each task has.

    Tasks come first, in order, then the common directions. ``t`` is ``[K, m, n]``.
    """
    k, r = len(t), min(t.shape[1:])
    each = min(round((r - int(r * common)) / k), r // k)
    u, s, vh = svd(t.sum(0))
    u_common = u[:, : r - k * each]
    ut, st, vt = svd(t - u_common @ (u_common.mT @ t))
    left = torch.cat([*ut[:, :, :each], u_common], dim=1)
    right = torch.cat([*vt[:, :each], vh[: r - k * each]])
    return left, torch.cat([*st[:, :each], s[: r - k * each]]), right, each
