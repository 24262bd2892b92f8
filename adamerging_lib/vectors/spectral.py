"""What methods on singular values share: which tensors are matrices, thin SVD, polar factor."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from ..layers import in_block
from ..task_vectors import TaskVectors
from .elementwise import add


def matrices(tv: TaskVectors) -> tuple[str, ...]:
    """Tensors that published code decomposes: two-dimensional, ``text_projection`` in no part of the name.

    Embeddings and the projection are among them, convolutions (4-D), biases and norms are not.
    """
    return tuple(key for key, t in tv.vectors.items() if t.dim() == 3 and "text_projection" not in key)


def block_matrices(tv: TaskVectors) -> tuple[str, ...]:
    """Weights of attention and MLP inside transformer blocks; every matrix where no name speaks of a block.

    Published filters spell this in one library's names: "encoder", "weight" and no "layer_norm" (Hugging Face), or
    "attn" or "mlp" and neither "ln" nor "bias" (open_clip). Blocks under any name that `layers` knows give the same.
    """
    inside = tuple(key for key in matrices(tv) if in_block(key) and "weight" in key)
    return inside or matrices(tv)


def svd(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Thin SVD in float64, where directions of no length are zero instead of arbitrary.

    From the eigenvectors of the smaller Gram matrix: half the time of an SVD in float32, a quarter of one in float64,
    and exact to float32's rounding for singular values above √(max(m, n)·ε) ≈ 4e-7 of the largest. Smaller ones are
    the rounding of float32 task vectors: any orthonormal completion would do for them, so that what is built on it
    would depend on the machine and the order of tasks. They are set to zero, with their vectors.

    Arguments:
        a: ``[..., m, n]``.

    Returns:
        U ``[..., m, r]``, s ``[..., r]`` descending, Vᵀ ``[..., r, n]``, r = min(m, n).
    """
    m, n = a.shape[-2:]
    if m < n:
        u, s, vh = svd(a.mT)
        return vh.mT, s, u.mT
    a = a.double()
    v = torch.linalg.eigh(a.mT @ a).eigenvectors.flip(-1)
    u = a @ v
    s = torch.linalg.vector_norm(u, dim=-2)
    found = s > (m * torch.finfo(s.dtype).eps) ** 0.5 * s.amax(-1, keepdim=True)
    found = found.unsqueeze(-2)
    u = torch.where(found, u / s.unsqueeze(-2), 0)
    return u, torch.where(found.squeeze(-2), s, 0), torch.where(found, v, 0).mT


def polar(a: Tensor) -> Tensor:
    """U Vᵀ of A = U diag(s) Vᵀ ``[m, n]``: the nearest matrix with orthonormal columns or rows, zero on A's kernel."""
    u, _, vh = svd(a)
    return u @ vh


def side_by_side(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first r' = ⌊r/K⌋ singular triplets of every task, at least one, of one matrix's task vectors.

    Arguments:
        t: ``[K, m, n]``, r = min(m, n).

    Returns:
        U ``[m, K·r']``, s ``[K·r']``, Vᵀ ``[K·r', n]``, task after task.
    """
    each = max(1, min(t.shape[1:]) // len(t))
    u, s, vh = svd(t)
    return u[:, :, :each].transpose(0, 1).flatten(1), s[:, :each].flatten(), vh[:, :each].flatten(0, 1)


def merge_matrices(
    tv: TaskVectors, of: Callable[[Tensor], Tensor], scaling: float = 1.0, only: Collection[str] | None = None
) -> dict[str, Tensor]:
    """θ0 + α Δ, Δ made of ``[K, m, n]`` for every matrix, and the mean of the task vectors for other tensors.

    Arguments:
        tv: θ0 and T_k.
        of: one matrix's task vectors ``[K, m, n]`` → Δ ``[m, n]``.
        scaling: α.
        only: names of matrices; all else then stays as in θ0.
    """
    treated = set(matrices(tv) if only is None else only)

    def delta(key: str, t: Tensor) -> Tensor:
        if key in treated:
            return of(t).to(t)
        return t.mean(0) if only is None else torch.zeros_like(t[0])

    return add(tv, {key: delta(key, t) for key, t in tv.vectors.items()}, scaling)
