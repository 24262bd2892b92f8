"""DOGE: task vectors of one length, changed by projected descent until they agree with every task, then trimmed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor

from ..layers import is_stacked
from ..learning.recipes import check_count, check_positive
from ..merged import Merged
from ..runtime.values import one_of
from ..task_vectors import TaskVectors
from ..vectors.elementwise import on_demand
from ..vectors.select import kept_above
from ..vectors.spectral import block_matrices, side_by_side, svd
from .registry import register

PROJECTIONS = ("gradient", "update")


Whole = tuple[Collection[str], list[float]]
"""What DOGE must know of all tensors: which it touches, and the smallest magnitude that each task keeps of them."""


def survey(tv: TaskVectors, *, keep: float, **_: Any) -> Whole:
    """The matrices, and thresholds ``[K]`` over all of them."""
    keys = block_matrices(tv)
    if not keys:
        raise ValueError(f"DOGE finds no matrix among {', '.join(list(tv.vectors)[:5])} ...: it merges matrices only")
    # One threshold for all matrices of a task: a matrix that fine-tuning hardly moved keeps few entries or none.
    return keys, kept_above(on_demand(tv, tv.vectors.__getitem__, keys), keep)


@register("doge_ta", label="DOGE TA", needs="nothing", source="Wei et al. 2025, Section 3", streams=survey)
def doge_ta(
    tv: TaskVectors,
    whole: Whole | None = None,
    *,
    norm: float = 0.07,
    keep: float = 0.3,
    subspace: int = 6,
    iterations: int = 400,
    lr: float = 1e-4,
    project: str = "gradient",
) -> Merged:
    """θ = θ0 + Σ_k λ_k (T_k + Δ) ⊙ M_k for every matrix, λ_k = 0.07 / ‖T_k‖_F, Δ learned from the task vectors alone.

    Δ minimises Σ_j Σ_rows ⟨T_j, T_j − Σ_i λ_i (T_i + Δ)⟩² row by row, from zero, by Adam on gradients without their
    part in the shared subspace; M_k keeps the entries that are largest in T_k.

    Arguments:
        tv: θ0 and T_k.
        whole: matrices and thresholds of `survey`, where ``tv`` holds only some of the tensors.
        norm: Frobenius norm of λ_k T_k in every matrix, the same for every task. 0.07 is sized for CLIP.
        keep: share of entries kept per task, by |T_k| over all its matrices together, as `ties` keeps them.
        subspace: the shared subspace has ⌊r / subspace⌋ directions, r = min(m, n): the first left singular vectors of
            every task's first ⌊r/K⌋ (at least one), side by side. Fewer than one leave the gradient whole.
        iterations: steps of Adam per matrix.
        lr: its learning rate.
        project: ``gradient``, as published: Adam then scales entry by entry, which lets a part of Δ (a sixth of its
            length on the mini suite) back into the shared subspace; or ``update``, which keeps Δ out of it exactly.

    Returns:
        The shared encoder.

    Touches: weights of attention and MLP inside transformer blocks; every matrix where no name speaks of a block.
        All other tensors stay as in θ0.
    Needs: checkpoints only.
    Cost: 2 K m n per step and matrix, and K + 1 SVDs: 9 s for the mini suite, 4 min for eight ViT-B/32 (one core).
    Published: none found.

    Source:
        Wei et al. 2025 (Modeling Multi-Task Model Merging as Adaptive Projective Gradient Descent), Section 3; the
        form is that of the authors' port in FusionBench, whose documentation describes another loss.

    Differs from the published code:
        The query, key and value parts of one fused tensor are three matrices, as they are in the checkpoints that the
        code was written for: the same model gives the same result under either name. A matrix that a task leaves as
        it was has λ_k = 0 instead of a division by zero.
    """
    hyper = {"norm": norm, "keep": keep, "subspace": subspace, "iterations": iterations, "lr": lr, "project": project}
    vectors = doge_vectors(tv, whole, **hyper)
    state = vectors.merge(torch.ones(len(tv.tasks), 1, dtype=torch.float64), "task")
    return Merged(state, "doge_ta", hyper, tv.tasks)


def doge_vectors(
    tv: TaskVectors,
    whole: Whole | None = None,
    *,
    per_task: bool = False,
    norm: float = 0.07,
    keep: float = 0.3,
    subspace: int | None = None,
    iterations: int = 400,
    lr: float = 1e-4,
    project: str = "gradient",
) -> TaskVectors:
    """λ_k (T_k + Δ) ⊙ M_k, whose sum is `doge_ta`; or (T_k + Δ_k) ⊙ M_k, the vectors that DOGE AM merges adaptively.

    Arguments:
        tv: θ0 and T_k.
        whole: as in `doge_ta`.
        per_task: learn one Δ_k per task, and leave out λ_k, which AdaMerging learns then; in the loss it stays.
        norm, keep, iterations, lr, project: as in `doge_ta`.
        subspace: as in `doge_ta`; default 6, with ``per_task`` K.

    Returns:
        The same θ0 and tasks; zero vectors for the tensors that DOGE does not touch.

    Raises:
        ValueError: for unusable arguments, or where no tensor is a matrix.
    """
    check_positive("norm", norm)
    check_positive("lr", lr)
    check_count("iterations", iterations, least=0)
    subspace = subspace or (len(tv.tasks) if per_task else 6)
    check_count("subspace", subspace)
    one_of("project", project, PROJECTIONS)
    keys, largest = whole or survey(tv, keep=keep)
    vectors = {key: torch.zeros_like(t) for key, t in tv.vectors.items()}
    for key in vectors.keys() & set(keys):
        for t, place in _parts(key, tv.vectors[key], vectors[key]):
            lengths = torch.linalg.vector_norm(t, dim=(1, 2), keepdim=True)
            scale = torch.where(lengths > 0, norm / lengths, 0)  # ∞ where a task left the matrix alone: not taken
            basis = shared_subspace(t, subspace).to(t)
            delta = _descend(t, scale, basis, per_task, iterations, lr, project)
            # M_k is of T_k and not of T_k + Δ: survey fixed the thresholds before anything was learned. ``place`` is a
            # view of the result.
            cut = torch.tensor(largest, dtype=t.dtype, device=t.device).view(-1, 1, 1)
            torch.mul(t + delta, t.abs() >= cut, out=place)
            if not per_task:
                place *= scale
    return tv.replace(vectors)


def shared_subspace(t: Tensor, subspace: int) -> Tensor:
    """Orthonormal directions ``[m, ⌊r / subspace⌋]`` that one matrix's task vectors ``[K, m, n]`` share most."""
    return svd(side_by_side(t)[0])[0][:, : min(t.shape[1:]) // subspace]


def _descend(
    t: Tensor, scale: Tensor, basis: Tensor, per_task: bool, iterations: int, lr: float, project: str
) -> Tensor:
    """Δ ``[1, m, n]``, or Δ_k ``[K, m, n]``.

    With D = Σ_i λ_i Δ_i the gradient is −2 λ_i Σ_j r_j T_j, row by row, r_j = ⟨T_j, T_j − Σ_i λ_i T_i − D⟩: two
    products with the task vectors per step, and no graph.
    """
    rows = t.transpose(0, 1).contiguous()  # [m, K, n]
    # What does not change with Δ, once instead of in every step: ⟨T_j, T_j − Σ_i λ_i T_i⟩.
    missing = rows.square().sum(-1) - (rows @ (scale * t).sum(0).unsqueeze(-1)).squeeze(-1)  # [m, K]
    # A shared Δ enters D as (Σ_i λ_i) Δ, so one weight and one Δ stand for all K.
    weights = scale if per_task else scale.sum(0, keepdim=True)
    delta = torch.zeros_like(t[: len(weights)])
    optimiser = torch.optim.Adam([delta], lr=lr)
    for _ in range(iterations):
        left = missing - (rows @ (weights * delta).sum(0).unsqueeze(-1)).squeeze(-1)
        gradient = -2 * (left.unsqueeze(1) @ rows).squeeze(1)  # [m, n]
        gradient -= basis @ (basis.mT @ gradient)
        delta.grad = weights * gradient  # one number per task, so it stays outside the shared subspace
        optimiser.step()
        if project == "update":  # Adam has divided every entry by a scale of its own, which turned the step
            delta -= basis @ (basis.mT @ delta)
    return delta


def _parts(key: str, t: Tensor, out: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The matrices in one tensor ``[K, m, n]``: three where queries, keys and values are fused."""
    yield from zip(t.chunk(3, 1), out.chunk(3, 1), strict=True) if is_stacked(key) else [(t, out)]
