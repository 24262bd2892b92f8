"""How task vectors lie to θ0 and to each other: norms, angles, conflicts of sign."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from ..task_vectors import TaskVectors


def cosines(tv: TaskVectors) -> pd.DataFrame:
    """cos(T_j, T_k) = ⟨T_j, T_k⟩ / (‖T_j‖ ‖T_k‖) over all tensors: tasks × tasks.

    Source:
        Ilharco et al. 2023 report that task vectors of CLIP models are nearly orthogonal.
    """
    return _cosines(_gram(tv), tv.tasks)


def relative_norms(tv: TaskVectors) -> pd.Series:
    """‖T_k‖ / ‖θ0‖ of every task: how far fine-tuning moved."""
    base = sum(tv.pretrained[key].double().square().sum() for key in tv.vectors).sqrt().cpu()
    return pd.Series((_gram(tv).diagonal().sqrt() / base).numpy(), index=list(tv.tasks))


def compare(tv: TaskVectors) -> pd.DataFrame:
    """How the task vectors lie to θ0 and to each other, from one pass over the tensors; they may be read lazily.

    Arguments:
        tv: θ0 and T_k.

    Returns:
        One row per task: ``norm`` ‖T_k‖, ``relative`` ‖T_k‖ / ‖θ0‖, ``changed`` share of entries that are not zero,
        ``conflict`` share of these whose sign is not that of Σ_j T_j, ``nearest`` the task with the largest
        ``cosine``, and that cosine.
    """
    gram, base = torch.zeros(len(tv.tasks), len(tv.tasks), dtype=torch.float64), 0.0
    size, changed, against = 0, *torch.zeros(2, len(tv.tasks), dtype=torch.int64)
    for key, t in tv.vectors.items():
        gram += _gram_of(t)
        base += float(torch.linalg.vector_norm(tv.pretrained[key].to(t.dtype), dtype=torch.float64)) ** 2
        size, total = size + t[0].numel(), t.sum(0)
        for k, own in enumerate(t):  # one task at a time, for memory
            changed[k] += own.count_nonzero().cpu()
            against[k] += (own * total < 0).count_nonzero().cpu()
    norms = gram.diagonal().sqrt()
    frame = pd.DataFrame({"norm": norms.numpy()}, index=list(tv.tasks))
    frame["relative"] = frame["norm"] / base**0.5 if base else float("nan")
    frame["changed"] = changed.numpy() / size
    frame["conflict"] = against.numpy() / changed.clamp_min(1).numpy()
    others = _cosines(gram, tv.tasks).where(~np.eye(len(tv.tasks), dtype=bool))
    single = len(tv.tasks) == 1
    frame["nearest"] = None if single else others.idxmax(axis=1)
    frame["cosine"] = None if single else others.max(axis=1)
    return frame


def _cosines(gram: torch.Tensor, tasks: tuple[str, ...]) -> pd.DataFrame:
    norms = gram.diagonal().sqrt()
    values = gram / (norms[:, None] * norms).clamp_min(torch.finfo(gram.dtype).tiny)
    return pd.DataFrame(values.numpy(), index=list(tasks), columns=list(tasks))


def _gram(tv: TaskVectors) -> torch.Tensor:
    """⟨T_j, T_k⟩ ``[K, K]``, summed over tensors in float64."""
    return sum(_gram_of(t) for t in tv.vectors.values())


def _gram_of(t: torch.Tensor) -> torch.Tensor:
    # A piece at a time: a large embedding in float64 would take twice the memory of all models' embeddings.
    pieces = (piece.double() for piece in t.reshape(len(t), t[0].numel()).split(1 << 20, dim=1))
    return sum(piece @ piece.T for piece in pieces).cpu()
