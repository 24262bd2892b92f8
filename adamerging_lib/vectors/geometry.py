"""How task vectors lie to θ0 and to each other: norms, angles, conflicts of sign."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

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
    return compare_pairs(tv.tasks, ((tv.pretrained[key], t) for key, t in tv.vectors.items()))


def compare_pairs(tasks: Sequence[str], pairs: Iterable[tuple[Tensor, Tensor]]) -> pd.DataFrame:
    """The table of `compare`.

    Arguments:
        tasks: names.
        pairs: θ0 and T ``[K, *shape]`` of every tensor.
    """
    gram, base = torch.zeros(len(tasks), len(tasks), dtype=torch.float64), 0.0
    size, changed, against = 0, *torch.zeros(2, len(tasks), dtype=torch.int64)
    for own, t in pairs:
        gram += _gram_of(t)
        base += float(torch.linalg.vector_norm(own.to(t.dtype), dtype=torch.float64)) ** 2
        size, total = size + t[0].numel(), t.sum(0)
        for k, own_t in enumerate(t):  # one task at a time, for memory
            changed[k] += own_t.count_nonzero().cpu()
            against[k] += (own_t * total < 0).count_nonzero().cpu()
    norms = gram.diagonal().sqrt()
    frame = pd.DataFrame({"norm": norms.numpy()}, index=list(tasks))
    # From a θ0 of zeros every other model is infinitely far.
    frame["relative"] = frame["norm"] / base**0.5 if base else frame["norm"].where(frame["norm"] == 0, float("inf"))
    frame["changed"] = changed.numpy() / max(1, size)
    frame["conflict"] = against.numpy() / changed.clamp_min(1).numpy()
    others = _cosines(gram, tasks).where(~np.eye(len(tasks), dtype=bool))
    single = len(tasks) == 1
    frame["nearest"] = None if single else others.idxmax(axis=1)
    frame["cosine"] = None if single else others.max(axis=1)
    return frame


def _cosines(gram: Tensor, tasks: Sequence[str]) -> pd.DataFrame:
    norms = gram.diagonal().sqrt()
    values = gram / (norms[:, None] * norms).clamp_min(torch.finfo(gram.dtype).tiny)
    return pd.DataFrame(values.numpy(), index=list(tasks), columns=list(tasks))


def _gram(tv: TaskVectors) -> Tensor:
    """⟨T_j, T_k⟩ ``[K, K]``, summed over tensors in float64."""
    return sum(_gram_of(t) for t in tv.vectors.values())


def _gram_of(t: Tensor) -> Tensor:
    # A piece at a time: a large embedding in float64 would take twice the memory of all models' embeddings.
    pieces = (piece.double() for piece in t.reshape(len(t), t[0].numel()).split(1 << 20, dim=1))
    return sum(piece @ piece.T for piece in pieces).cpu()
