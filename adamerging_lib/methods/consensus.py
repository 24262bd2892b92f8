"""TALL-masks: which entries of the multi-task vector a task needs; and Consensus, which keeps what several need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..learning.recipes import check_count
from ..merged import Merged
from ..runtime.values import is_number
from ..task_vectors import TaskVectors
from ..vectors.elementwise import add, masked_states
from ..vectors.select import entries
from .registry import register

THRESHOLD = 0.4


@register(
    "consensus_ta",
    label="Consensus TA",
    needs="nothing",
    source="Wang et al. 2024 (TALL-masks)",
    streams=True,
    entrywise=True,
)
def consensus_ta(
    tv: TaskVectors, *, scaling: float = 0.3, threshold: float | Mapping[str, float] = THRESHOLD, active: int = 2
) -> Merged:
    """θ = θ0 + λ C ⊙ Σ_k T_k, C = 1[Σ_k M_k ≥ n] with the masks M_k of `tall_masks`.

    Entries that one task alone needs ("selfish") or that none needs ("catastrophic") go back to θ0.

    Arguments:
        tv: θ0 and T_k.
        scaling: λ; the paper searches it on validation data.
        threshold: λ_k of the masks, as in `tall_masks`.
        active: n, the number of tasks that must need an entry; 0 gives Task Arithmetic. With fewer tasks than that,
            all of them.

    Returns:
        The shared encoder.

    Raises:
        ValueError: for unusable thresholds or numbers of tasks.

    Touches:
        All floating-point tensors.

    Needs:
        Nothing with given thresholds; the published choice of them needs labelled validation images.

    Cost:
        K·P comparisons; memory of the result and K masks of one tensor.

    Published:
        73.6 at ViT-B/32 and 85.2 at ViT-L/14 (pool P1); 75.0, 79.4, 86.3 (P3: B/32, B/16, L/14), with validation.

    Source:
        Wang et al. 2024 (Localizing Task Information for Improved Model Merging and Compression).

    Differs from the published code:
        See `tall_masks`; and with one task nothing is dropped, where the published rule leaves θ0.
    """
    vector = consensus_vector(tv, threshold, active)
    hyper = {"scaling": float(scaling), "threshold": _plain(threshold), "active": active}
    return Merged(add(tv, vector, scaling), "consensus_ta", hyper, tv.tasks)


def consensus_vector(tv: TaskVectors, threshold: float | Mapping[str, float], active: int) -> dict[str, Tensor]:
    """C ⊙ Σ_k T_k of `consensus_ta`, tensor name → tensor."""
    check_count("active", active, least=0)
    least = min(active, len(tv.tasks))
    return {key: summed * (mask.sum(0) >= least) for key, summed, mask in _masks(tv, threshold)}


@register(
    "tall_masks",
    label="TALL-masks",
    needs="nothing",
    source="Wang et al. 2024 (TALL-masks)",
    task_specific="P/32 + P/K (one bit per parameter; one more vector for all tasks)",
    task_id=True,
    static=False,
    streams=True,
)
def tall_masks(tv: TaskVectors, *, threshold: float | Mapping[str, float] = THRESHOLD) -> Merged:
    """θ for task k is θ0 + M_k ⊙ τ, τ = Σ_j T_j, M_k = 1[|T_k| > λ_k |θ0 + τ − θ_k|] = 1[|T_k| > λ_k |τ − T_k|].

    Arguments:
        tv: θ0 and T_k.
        threshold: λ_k, one for all tasks, or task → value. The paper chooses it for every task among 0.2, 0.3, …,
            0.6 on labelled validation images; 0.4 is the middle of that grid.

    Returns:
        One encoder per task, made when asked for from θ0, τ and K masks.

    Raises:
        ValueError: for negative or missing thresholds.

    Touches:
        All floating-point tensors.

    Needs:
        Nothing with given thresholds; at inference the task.

    Cost:
        K·P comparisons; memory of τ and K·P bytes of masks. Kept: one bit per parameter and task, and τ.

    Published:
        More than 99 % of the individual models' accuracy (pool P3, abstract); averages: none found.

    Source:
        Wang et al. 2024 (Localizing Task Information for Improved Model Merging and Compression).

    Differs from the published code:
        A given λ_k in place of the search; and the differences are taken between task vectors, where the published
        code subtracts whole weights and rounds a little more.
    """
    vector, masks = {}, {}
    for key, summed, mask in _masks(tv, threshold):
        vector[key], masks[key] = summed, mask
    states = masked_states(tv, vector, masks, [1.0] * len(tv.tasks))
    hyper = {"threshold": _plain(threshold)}
    kept = entries(tv) / 32 + entries(tv) / len(tv.tasks)
    return Merged(None, "tall_masks", hyper, tv.tasks, task_states=states, storage=kept)


def _masks(tv: TaskVectors, threshold: float | Mapping[str, float]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Tensor name, Σ_k T_k, and M_k, bool ``[K, *shape]``."""
    given = threshold if isinstance(threshold, Mapping) else dict.fromkeys(tv.tasks, threshold)
    if difference := given.keys() ^ set(tv.tasks):
        raise ValueError(f"threshold names other tasks than were merged: {', '.join(sorted(map(str, difference)))}")
    for task, value in given.items():
        if not (is_number(value) and 0 <= value < float("inf")):
            raise ValueError(f"threshold of task {task!r} is {value!r}: give a number of at least 0, such as 0.4")
    for key, t in tv.vectors.items():
        summed, mask = t.sum(0), torch.empty(t.shape, dtype=torch.bool, device=t.device)
        for k, task in enumerate(tv.tasks):
            torch.gt(t[k].abs(), (summed - t[k]).abs_().mul_(given[task]), out=mask[k])
        yield key, summed, mask


def _plain(threshold: float | Mapping[str, float]) -> float | dict[str, float]:
    return dict(threshold) if isinstance(threshold, Mapping) else threshold
