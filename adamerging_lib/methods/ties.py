"""Ties-Merging: trim, elect signs, merge what agrees; and the per-task vectors Φ(T_k) of AdaMerging++."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..task_vectors import TaskVectors
from .merged import Merged
from .registry import register

REDUCTIONS = ("mean", "sum", "max")

# The authors trim 20 % of whole pickled models, whose text tower never moves; on the vision tower alone the same cut
# keeps these shares. keep=0.2 is the paper's text, these are the paper's numbers.
PAPER_EXACT_KEEP = {"ViT-B-32": 0.258, "ViT-B-16": 0.259, "ViT-L-14": 0.225}


@register("ties", label="Ties-Merging", needs="nothing", source="Yadav et al. 2023")
def ties(tv: TaskVectors, *, keep: float = 0.2, reduction: str = "sum", scaling: float = 0.3) -> Merged:
    """θ = θ0 + λ τ, where τ reduces over tasks the trimmed entries whose sign is the elected one.

    Arguments:
        tv: θ0 and T_k.
        keep: share of entries kept per task, in (0, 1], by magnitude over the whole task vector. Exactly: every
            entry at least as large as the (d − ⌊keep·d⌋)-th smallest of d, as in the published code, so ⌊keep·d⌋ + 1
            entries and ties; keep=1 keeps all.
        reduction: ``sum``, ``mean`` over the agreeing tasks, or ``max`` by magnitude.
        scaling: λ.

    Returns:
        The shared encoder.

    Source:
        Yadav et al. 2023, Section 4 (mean, λ = 1). The defaults, sum and 0.3, are those of AdaMerging's repository,
        which give 72.9 at ViT-B/32; the paper's table prints 72.4, the mean at λ = 1.

    Differs from the published code:
        keep=1 works instead of failing, and keep is always a share, never a percentage.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction {reduction!r} is unknown; choose from {', '.join(REDUCTIONS)}")
    reduced = {}
    for key, entries, sign in _agreeing(tv, keep):
        reduced[key] = entries.abs().amax(0) * sign if reduction == "max" else entries.sum(0)
        if reduction == "mean":
            reduced[key] /= (entries != 0).sum(0).clamp_(min=1)
    one = TaskVectors(("ties",), tv.pretrained, {key: t.unsqueeze(0) for key, t in reduced.items()}, tv.tied)
    state = one.merge(torch.tensor([[float(scaling)]], dtype=torch.float64), "task")
    return Merged(state, "ties", {"keep": keep, "reduction": reduction, "scaling": float(scaling)}, tv.tasks)


def ties_split(tv: TaskVectors, keep: float = 0.2) -> TaskVectors:
    """Φ(T_k) = trim(T_k) ⊙ 1[sign(T_k) = s]: each task's own entries that survive trimming and sign election.

    Never averaged and never divided by a count, so Σ_k Φ(T_k) is the τ of `ties` with ``reduction="sum"``. Φ depends
    on all K tasks together through the elected sign s.

    Arguments:
        tv: θ0 and T_k.
        keep: as in `ties`.

    Returns:
        The same θ0 and tasks with Φ(T_k).

    Source:
        AdaMerging, Section 3.2.1 (AdaMerging++); the form follows the published code, the text leaves it open.
    """
    return tv.replace({key: entries for key, entries, _ in _agreeing(tv, keep)})


def trim_threshold(vector: Sequence[Tensor], keep: float) -> float:
    """The magnitude at or above which one task's entries are kept, taken over all its tensors together."""
    flat = torch.cat([t.reshape(-1) for t in vector]).abs_()
    rank = flat.numel() - int(keep * flat.numel())
    return flat.kthvalue(rank).values.item() if rank else 0.0


def _agreeing(tv: TaskVectors, keep: float) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Tensor name, trimmed entries ``[K, *shape]`` that agree with the elected sign, and that sign (int8)."""
    if isinstance(keep, bool) or not (isinstance(keep, (int, float)) and 0 < keep <= 1):
        raise ValueError(f"keep={keep!r} is not a share in (0, 1]: 20 % is 0.2")
    # One task, then one tensor at a time: what is held beyond the task vectors is one flat copy and int8 signs.
    thresholds = [trim_threshold([t[k] for t in tv.vectors.values()], keep) for k in range(len(tv.tasks))]

    def trim(t: Tensor) -> Tensor:
        cut = torch.tensor(thresholds, dtype=t.dtype, device=t.device).view(-1, *[1] * (t.dim() - 1))
        return t * (t.abs() >= cut)

    signs = {key: trim(t).sum(0).sign_().to(torch.int8) for key, t in tv.vectors.items()}
    balance = sum(int(sign.sum(dtype=torch.int64)) for sign in signs.values())
    # Entries whose sum is zero take the majority sign of all entries; a tie there counts as negative, as published.
    majority = (balance > 0) - (balance < 0)
    for key, t in tv.vectors.items():
        sign = signs[key]
        sign[sign == 0] = majority
        entries = trim(t)
        entries *= torch.where(sign > 0, entries > 0, entries < 0)
        yield key, entries, sign
