"""Ties-Merging: trim, elect signs, merge what agrees; and the per-task vectors Φ(T_k) of AdaMerging++."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..merged import Merged
from ..runtime.values import one_of
from ..task_vectors import TaskVectors
from ..vectors.elementwise import add, pieces
from ..vectors.select import kept_above
from .registry import register

REDUCTIONS = ("mean", "sum", "max")

# The authors trim 20 % of whole pickled models, whose text tower never moves; on the vision tower alone the same cut
# keeps these shares. keep=0.2 is the paper's text, these are the paper's numbers.
PAPER_EXACT_KEEP = {"ViT-B-32": 0.258, "ViT-B-16": 0.259, "ViT-L-14": 0.225}

Whole = tuple[list[float], int]
"""What Ties must know of all tensors: the smallest magnitude that each task keeps, and the majority sign."""


def survey(tv: TaskVectors, *, keep: float, **_: Any) -> Whole:
    """Thresholds ``[K]`` and the majority sign over whole task vectors, in three passes over the tensors."""
    thresholds = kept_above(tv, keep)
    parts = (t for key in tv.vectors for _, t in pieces(tv, key))
    balance = sum(int(_sign(_trim(t, thresholds)).sum(dtype=torch.int64)) for t in parts)
    return thresholds, (balance > 0) - (balance < 0)


@register("ties", label="Ties-Merging", needs="nothing", source="Yadav et al. 2023", streams=survey, entrywise=True)
def ties(
    tv: TaskVectors, whole: Whole | None = None, *, keep: float = 0.2, reduction: str = "sum", scaling: float = 0.3
) -> Merged:
    """θ = θ0 + λ τ, where τ reduces over tasks the trimmed entries whose sign is the elected one.

    Arguments:
        tv: θ0 and T_k.
        whole: thresholds and majority sign of `survey`, where ``tv`` holds only some of the tensors.
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
    state = add(tv, ties_vector(tv, keep, reduction, whole), scaling)
    return Merged(state, "ties", {"keep": keep, "reduction": reduction, "scaling": float(scaling)}, tv.tasks)


def ties_vector(tv: TaskVectors, keep: float, reduction: str, whole: Whole | None = None) -> dict[str, Tensor]:
    """τ of `ties`, tensor name → tensor, before it is scaled and added to θ0."""
    one_of("reduction", reduction, REDUCTIONS)
    reduced = {}
    for key, entries, sign in _agreeing(tv, whole or survey(tv, keep=keep)):
        reduced[key] = entries.abs().amax(0) * sign if reduction == "max" else entries.sum(0)
        if reduction == "mean":
            reduced[key] /= (entries != 0).sum(0).clamp_(min=1)
    return reduced


def ties_split(tv: TaskVectors, keep: float = 0.2) -> TaskVectors:
    """Keep each task's own entries that survive trimming and sign election: Φ(T_k) = trim(T_k) ⊙ 1[sign(T_k) = s].

    The result is neither averaged nor divided by a count, so Σ_k Φ(T_k) is the τ of `ties` with ``reduction="sum"``.
    Φ depends on all K tasks together through the elected sign s.

    Arguments:
        tv: θ0 and T_k.
        keep: as in `ties`.

    Returns:
        The same θ0 and tasks with Φ(T_k).

    Source:
        AdaMerging, Section 3.2.1 (AdaMerging++); the form follows the published code, the text leaves it open.

    Example:
        >>> trimmed = am.ties_split(am.TaskVectors.from_state_dicts(base, experts), keep=0.2)
        >>> bool((trimmed.vectors["body.weight"] == 0).any())
        True
    """
    return tv.replace({key: entries for key, entries, _ in _agreeing(tv, survey(tv, keep=keep))})


def _trim(t: Tensor, thresholds: list[float]) -> Tensor:
    # Task by task: temporaries of a whole stack are mapped anew each time, which takes longer than the arithmetic.
    trimmed = torch.empty_like(t)
    for own, kept, cut in zip(t, trimmed, thresholds, strict=True):
        torch.mul(own, own.abs() >= cut, out=kept)
    return trimmed


def _sign(trimmed: Tensor) -> Tensor:
    return trimmed.sum(0).sign_().to(torch.int8)


def _agreeing(tv: TaskVectors, whole: Whole) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Tensor name, trimmed entries ``[K, *shape]`` that agree with the elected sign, and that sign (int8)."""
    thresholds, majority = whole
    for key, t in tv.vectors.items():
        entries = _trim(t, thresholds)
        sign = _sign(entries)
        # Entries whose sum is zero take the majority sign of all entries; a tie there counts as negative, as published.
        sign[sign == 0] = majority
        side = torch.where(sign > 0, t.new_tensor(1), t.new_tensor(-1))
        yield key, entries.mul_(side).clamp_min_(0).mul_(side), sign
