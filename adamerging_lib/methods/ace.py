"""ACE-Merging: a closed form on input covariances that are estimated from the task vectors themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from ..learning.recipes import check_positive
from ..merged import Merged
from ..task_vectors import TaskVectors
from ..vectors.spectral import merge_matrices, svd
from .registry import register

GATE = 0.3
"""γ above which the tasks' norms count as unequal."""
REPAIRED = 0.3
"""Share of the directions that the repair lifts."""


@register("ace", label="ACE-Merging", needs="nothing", source="Xu et al. 2026 (ACE-Merging)", streams=True)
def ace(tv: TaskVectors, *, eps: float = 1e-5) -> Merged:
    """θ = θ0 + τ, τ = [Σ_k X_k (C_k + ε I)] [Σ_k (C_k + ε I) + 1 cᵀ]⁻¹, X_k = T_k less its mean row, C_k = X_kᵀX_k.

    c is the mean row of Σ_k C_k, a prior that all tasks share. Where the tasks' energies in a matrix are uneven, as
    told by γ = Var_k(log ‖T_k‖²) / mean_k(log ‖T_k‖²)² > 0.3, C_k and ε are divided by tr C_k, and c, then made of
    these C_k, by the mean ‖T_k‖². Then σ U Vᵀ is added to τ: the first 30 % of the singular directions of τ + Σ_k T_k
    (C_k − C̄), all with their mean length σ, where C̄ is the mean of C_k + ε_k I.

    Arguments:
        tv: θ0 and T_k.
        eps: ε.

    Returns:
        The shared encoder.

    Raises:
        ValueError: for an ε that is not above 0.

    Touches: every 2-D tensor except ``text_projection``, embeddings included, by τ; all others by the mean of T_k.
    Needs: checkpoints only.
    Cost: one solve n × n per matrix, and 2 K m n²; where the gate opens, an SVD: 1 s for the mini suite (one core).
    Published: 87.9 / 90.6 (P3, B/32, B/16), as others report it.

    Source:
        Xu et al. 2026 (ACE-Merging), arXiv 2603.02945, as the authors' code has it; ε for image encoders from notes
        of a reader of the paper.

    Differs from the published code:
        That has ε = 1e-2 as its default. It takes float32 and a pseudo-inverse where the inverse fails; here float64.
        Directions of no length stay out of the repair. A single task has γ = 0.
    """
    check_positive("eps", eps)
    return Merged(merge_matrices(tv, lambda t: _merged(t.double(), eps)), "ace", {"eps": float(eps)}, tv.tasks)


def _merged(t: Tensor, eps: float) -> Tensor:
    """τ ``[m, n]`` of one matrix's task vectors ``[K, m, n]``."""
    energies = t.square().sum((1, 2))
    centred = t - t.mean(1, keepdim=True)
    grams = centred.mT @ centred
    traces = grams.diagonal(dim1=1, dim2=2).sum(1)
    small, uneven = torch.full_like(traces, eps), gamma(energies) > GATE
    if uneven:
        found = traces > 0
        grams = torch.where(found[:, None, None], grams / traces.clamp(min=_least(t))[:, None, None], 0)
        small = torch.where(found, eps / traces.clamp(min=_least(t)), 0)
    prior = grams.sum(0).mean(0)
    if uneven:
        prior = prior / energies.mean().clamp(min=_least(t))
    top = (centred @ grams).sum(0) + (small[:, None, None] * centred).sum(0)
    eye = torch.eye(t.shape[2], dtype=t.dtype, device=t.device)
    bottom = grams.sum(0) + small.sum() * eye + prior
    tau = torch.linalg.solve(bottom, top, left=False)
    if not uneven:
        return tau
    mean = (grams.sum(0) + small.sum() * eye) / len(t)
    u, s, vh = svd(tau + (t @ (grams - mean)).sum(0))
    lifted = int(REPAIRED * len(s))
    return tau + s[:lifted].sum() / max(lifted, 1) * (u[:, :lifted] @ vh[:lifted])


def gamma(energies: Tensor) -> float:
    """Var_k(log ‖T_k‖²) / mean_k(log ‖T_k‖²)² of the tasks whose matrix has any length; 0 for fewer than two."""
    logs = energies[energies > 0].log()
    return float(logs.var() / logs.mean().square().clamp(min=_least(logs))) if len(logs) > 1 else 0.0


def _least(t: Tensor) -> float:
    return torch.finfo(t.dtype).tiny
