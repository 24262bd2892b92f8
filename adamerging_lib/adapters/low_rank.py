"""Sums of low-rank changes: as factors of the summed rank, or cut to a rank without ever forming the sum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..vectors.spectral import svd

Factors = tuple[Tensor, Tensor]
"""B ``[m, r]`` and A ``[r, n]``."""


def stacked(parts: Sequence[Factors]) -> Factors:
    """B = [B₁ B₂ …] and A = [A₁; A₂; …], so that B A = Σ B_k A_k.

    Arguments:
        parts: B_k ``[m, r_k]``, A_k ``[r_k, n]``, of one m and n.
    """
    return torch.cat([b for b, _ in parts], 1), torch.cat([a for _, a in parts])


def cut(factors: Factors, rank: int) -> tuple[Factors, Tensor]:
    """The nearest product of a rank: singular values of B A from those of a matrix r × r.

    With B = Q_B R_B and Aᵀ = Q_A R_A, the singular values of B A are those of R_B R_Aᵀ.

    Arguments:
        factors: B ``[m, r]``, A ``[r, n]``.
        rank: R; more than r is r.

    Returns:
        B ``[m, min(R, r)]`` and A ``[min(R, r), n]`` in float64, of balanced lengths; and all singular values.
    """
    b, a = (factor.double() for factor in factors)
    wanted = min(rank, b.shape[1])
    (left, upper), (right, lower) = torch.linalg.qr(b), torch.linalg.qr(a.T)
    u, s, vh = torch.linalg.svd(upper @ lower.T, full_matrices=False)
    return _balanced(left @ u, s, vh @ right.T, wanted), s


def cut_matrix(matrix: Tensor, rank: int) -> tuple[Factors, Tensor]:
    """The nearest product of a rank to a matrix ``[m, n]``; returns as `cut`."""
    u, s, vh = svd(matrix)
    return _balanced(u, s, vh, rank), s


def _balanced(u: Tensor, s: Tensor, vh: Tensor, rank: int) -> Factors:
    root = s[:rank].sqrt()
    lacking = rank - len(root)  # directions that a small matrix does not have: zeros, so that ranks can be equal
    b, a = u[:, : len(root)] * root, root[:, None] * vh[: len(root)]
    return torch.nn.functional.pad(b, (0, lacking)), torch.nn.functional.pad(a, (0, 0, 0, lacking))
