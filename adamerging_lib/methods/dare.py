"""DARE: drop entries of the task vectors at random, rescale what is left, and merge as before."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..learning.streams import seeded
from ..merged import Merged
from ..runtime.values import is_number, one_of
from ..task_vectors import TaskVectors
from ..vectors.elementwise import add, on_demand, total
from .registry import register
from .ties import Whole, ties_vector
from .ties import survey as ties_survey

BASES = ("task_arithmetic", "ties")


def survey(tv: TaskVectors, *, base: str, drop: float, keep: float, seed: int, **_: Any) -> Whole | None:
    """What Ties must know of all dropped task vectors; nothing for the plain sum."""
    _check(drop)
    return ties_survey(dropped(tv, drop, seed), keep=keep) if base == "ties" else None


@register("dare", label="DARE", needs="nothing", source="Yu et al. 2024", streams=survey)
def dare(
    tv: TaskVectors,
    whole: Whole | None = None,
    *,
    drop: float = 0.5,
    base: str = "task_arithmetic",
    scaling: float = 0.3,
    keep: float = 0.2,
    seed: int = 0,
) -> Merged:
    """θ = θ0 + λ merge_k(T_k ⊙ B_k / (1 − p)), every entry of B_k zero with probability p, by itself.

    Dropping and rescaling leaves every T_k as it was on average, and adds p / (1 − p) of its squared entries as
    variance.

    Arguments:
        tv: θ0 and T_k.
        whole: what `survey` found, where ``tv`` holds only some of the tensors.
        drop: p, in [0, 1); 0 gives the base method.
        base: ``task_arithmetic`` (sum) or ``ties`` (sum form) of the dropped task vectors.
        scaling: λ.
        keep: share of entries that Ties keeps, dropped ones counted, see `ties`; unused by ``task_arithmetic``.
        seed: of the drawing; B_k depends on it, the task's name and the tensor's name alone.

    Returns:
        The shared encoder.

    Raises:
        ValueError: for an unknown base, or a share out of range.

    Touches:
        All floating-point tensors.

    Needs:
        Nothing.

    Cost:
        K·P random numbers, five times as many with ``base="ties"``; memory of one tensor over K tasks beyond the
        result.

    Published:
        65.8 at ViT-B/32 and 71.5 at ViT-B/16 in a later paper's table (singular-value calibration).

    Source:
        Yu et al. 2024 (Language Models are Super Mario). They drop 90 % and more of large language models and search
        p for smaller ones; the default 0.5 is FusionBench's for CLIP, the only published value for such encoders.

    Differs from the published code:
        With ``base="ties"`` FusionBench's configuration has λ = 0.5; here it is 0.3 for either base unless
        ``scaling`` says otherwise, as Task Arithmetic and Ties have it.
    """
    one_of("base", base, BASES)
    _check(drop)
    vectors = dropped(tv, drop, seed)
    vector = ties_vector(vectors, keep, "sum", whole) if base == "ties" else total(vectors)
    hyper = {"drop": drop, "base": base, "scaling": float(scaling), "seed": seed}
    hyper |= {"keep": keep} if base == "ties" else {}
    return Merged(add(tv, vector, scaling), "dare", hyper, tv.tasks)


def dropped(tv: TaskVectors, drop: float, seed: int) -> TaskVectors:
    """T_k ⊙ B_k / (1 − p), drawn when asked for, the same every time."""

    def draw(key: str) -> Tensor:
        t = tv.vectors[key]
        left = torch.empty_like(t)
        for k, task in enumerate(tv.tasks):
            # Drawn on the CPU in float32 whatever T is, so that precision and device change no mask.
            drawn = torch.rand(t.shape[1:], generator=seeded(seed, task, key))
            torch.mul(t[k], (drawn >= drop).to(t.device), out=left[k])
        return left.div_(1 - drop)

    return on_demand(tv, draw)


def _check(drop: float) -> None:
    if not (is_number(drop) and 0 <= drop < 1):
        raise ValueError(f"drop={drop!r} is not a share in [0, 1): 90 % is 0.9")
