"""ACTMat: RegMean with the Gram matrix of each task vector in the place of that of its inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from ..merged import Merged
from ..task_vectors import TaskVectors
from ..vectors.spectral import merge_matrices
from .registry import register
from .wudi import normal_equations


@register("actmat", label="ACTMat", needs="nothing", source="Hameed et al. 2026 (ACTMat)", streams=True)
def actmat(tv: TaskVectors) -> Merged:
    """θ = θ0 + τ, τ = (Σ_k T_k T_kᵀT_k) (Σ_k T_kᵀT_k)⁺: WUDI's closed form without its weights 1 / ‖T_k‖².

    A layer that was trained by gradient descent moves in the directions of its inputs, so T_kᵀT_k stands in for the
    inputs' covariance, which data-free merging does not have. Longer task vectors count for more.

    Arguments:
        tv: θ0 and T_k.

    Returns:
        The shared encoder.

    Touches: every 2-D tensor except ``text_projection``, embeddings included, by τ; all others by the mean of T_k.
    Needs: checkpoints only.
    Cost: as `wudi`.
    Published: 86.1 and 92.2 on eight vision tasks by a public listing that names neither backbone nor pool.

    Source:
        Hameed et al. 2026 (Model Merging via Data-Free Covariance Estimation), arXiv 2604.01329, as the package
        merge-and-rebase computes it.

    Differs from the published code:
        The authors' own was not found. merge-and-rebase takes the pseudo-inverse as here; which matrices it treats
        follows its own model classes, here it is as in `wudi`.
    """

    def solve(t: Tensor) -> Tensor:
        a, b = normal_equations(t, weighted=False)
        return b @ torch.linalg.pinv(a, hermitian=True)

    return Merged(merge_matrices(tv, solve), "actmat", {}, tv.tasks)
