"""Task vectors in a basis of singular triplets, each with a coefficient of its own: TSV-M's sum taken apart by task.

TSV-M adds Δ = polar(U) diag(s) polar(V)ᵀ, where U, s and V hold the first r' triplets of every task's matrix side by
side. Its columns belong to tasks, so Δ = Σ_k Σ_j s_kj u_kj v_kjᵀ is a sum of K·r' pieces. With c_kj on each,
∂L/∂c = s ⊙ diag(Uᵀ G V) costs two thin products and no matrix of full size beside G.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..task_vectors import Rows, TaskVectors
from .lowrank import Factors
from .spectral import matrices, polar, side_by_side


@dataclass(frozen=True)
class Components(Factors):
    """T_k = Σ_j b_kj a_kj, of as many pieces for every task, task after task in ``b`` and ``a``."""

    @property
    def pieces(self) -> int:
        """How many a task has."""
        return len(self.owner) // self.tasks

    def added(self, base: Tensor, coefficients: Tensor) -> Tensor:
        """θ0 + Σ_k Σ_j c_kj b_kj a_kj, for c ``[pieces, K]``; ``[K]`` has one for all pieces of a task."""
        if coefficients.dim() == 1:
            return super().added(base, coefficients)
        scaled = self.b * coefficients.t().reshape(-1)
        return torch.addmm(base.reshape(len(scaled), -1), scaled, self.a).view(base.shape)

    def each(self, gradient: Tensor) -> Tensor:
        """b_kjᵀ G a_kjᵀ of every piece, ``[pieces, K]``."""
        small = self.b.t() @ gradient.reshape(self.b.shape[0], -1).to(self.b)
        return (small * self.a).sum(1).view(self.tasks, -1).t()


def tsv_split(tv: TaskVectors) -> TaskVectors:
    """Each task's part of TSV-M's sum: the matrices' as `Components`, all else as it is.

    Arguments:
        tv: θ0 and T_k.

    Source:
        Gargiulo et al. 2025 (Task Singular Vectors), Section 4, for the basis; coefficients per component are not
        theirs.
    """
    vectors, treated = dict(tv.vectors), set(matrices(tv))
    for key, t in tv.vectors.items():
        if key in treated:
            u, s, vh = side_by_side(t)
            owner = torch.arange(len(t), device=t.device).repeat_interleave(len(s) // len(t))
            b, a = polar(u) * s, polar(vh)
            vectors[key] = Components(b.to(t), a.to(t).contiguous(), owner, len(t), t.shape[1:])
    return replace(tv, vectors=vectors)


def tsv_start(tv: TaskVectors, rows: Rows) -> Tensor:
    """λ at which `tsv_split` is TSV-M, ``[K, R]``: 1 for the parts of matrices, 1/K for all else.

    Arguments:
        tv: of `tsv_split`.
        rows: of its coefficients.

    Raises:
        ValueError: for rows that hold both kinds, which no λ does justice.
    """
    start = torch.full((len(tv.tasks), len(rows.names)), torch.nan, dtype=torch.float64)
    for key, t in tv.vectors.items():
        value, row = 1.0 if isinstance(t, Components) else 1 / len(tv.tasks), rows.index[key]
        if bool((start[:, row] == (1 / len(tv.tasks) if value == 1.0 else 1.0)).any()) and len(tv.tasks) > 1:
            raise ValueError(
                "vectors='tsv' starts matrices at 1 and all else at 1/K, so that they cannot share coefficients: take "
                "granularity 'tensor' or 'component'"
            )
        start[:, row] = value
    return start
