"""Task vectors of checkpoints on disk, computed anew each time one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..state import CheckpointError, StateDict, averaged, check_codes, vectors_of
from ..task_vectors import TaskVectors, weights
from ..vectors.elementwise import OnDemand
from ..vectors.geometry import Geometry, measured
from .kinds import is_copied, is_statistic, layout_of, ties

_SMALL = 1 << 14  # bytes of a task vector that is kept


@dataclass(frozen=True)
class Found:
    """What only the numbers of models tell.

    Arguments:
        tied: name → name of the tensor that it equals in every model, see `kinds.ties`.
        masks: names of floats that are not finite but the same in all models.
        changed: names of the tensors that are copied from θ0 although an expert has others.
    """

    tied: Mapping[str, str] = field(default_factory=dict)
    masks: frozenset[str] = frozenset()
    changed: tuple[str, ...] = ()


@dataclass
class Kept:
    """Small task vectors that passes over the same files share: making one anew takes longer than its memory is worth.

    Arguments:
        vectors: name → T.
        left: bytes that may still be kept.
    """

    vectors: dict[str, Tensor] = field(default_factory=dict)
    left: int = 1 << 25

    def keep(self, key: str, t: Tensor) -> Tensor:
        """The tensor, kept if it is small and there is room."""
        if t.nbytes <= min(_SMALL, self.left):
            self.vectors[key] = t
            self.left -= t.nbytes
        return t


class _Start(Mapping[str, Tensor]):
    """θ0, with the means of statistics in the place of its own."""

    def __init__(self, pretrained: StateDict, means: Mapping[str, Tensor]) -> None:
        self._pretrained, self._means = pretrained, means

    def __getitem__(self, key: str) -> Tensor:
        return self._means[key] if key in self._means else self._pretrained[key]

    def __contains__(self, key: object) -> bool:  # Mapping's own would read the tensor
        return key in self._pretrained

    def __iter__(self) -> Iterator[str]:
        return iter(self._pretrained)

    def __len__(self) -> int:
        return len(self._pretrained)


def lazy_task_vectors(
    pretrained: StateDict,
    experts: Mapping[str, StateDict],
    on_read: Callable[[], object] = lambda: None,
    found: Found | None = None,
    kept: Kept | None = None,
) -> TaskVectors:
    """Task vectors of checkpoints on disk, computed and checked for NaN anew each time one is asked for.

    Arguments:
        pretrained: θ0.
        experts: task name → θ_k, that fit, see `align.align`.
        on_read: called once for every tensor.
        found: what `examine` found; without it ties are not known.
        kept: small ones of earlier passes over the same files.
    """
    found, kept = found or Found(), kept or Kept()

    def read(key: str) -> Tensor:
        on_read()
        if key in kept.vectors:
            return kept.vectors[key]
        base = pretrained[key]
        t = vectors_of(key, base, experts)
        return kept.keep(key, torch.zeros(len(experts), *base.shape) if t is None else t)

    names = [key for key in weights(pretrained) if key not in found.tied and key not in found.masks]
    statistics, means = {}, {}
    for key in filter(is_statistic, layout_of(pretrained)):
        if not is_copied(key, layout_of(pretrained)[key]):
            own, tuned = pretrained[key], _of(experts, key)
            means[key] = averaged(key, own, tuned)
            statistics[key] = torch.stack([own, *tuned.values()])
    start = _Start(pretrained, means) if means else pretrained
    return TaskVectors(tuple(experts), start, OnDemand(names, read), found.tied, statistics)


def examine(
    pretrained: StateDict,
    experts: Mapping[str, StateDict],
    on_read: Callable[[], object] = lambda: None,
    *,
    ranks: bool = False,
    broken: Callable[[str, CheckpointError], object] | None = None,
) -> tuple[Found, Geometry]:
    """Check every number of models that fit, and say what only numbers tell and how task vectors lie.

    Arguments:
        pretrained: θ0.
        experts: task name → θ_k, that fit, see `align.align`.
        on_read: called once for every tensor that is merged.
        ranks: whether effective ranks are measured too, see `geometry.effective_rank`.
        broken: called with the name of each tensor that cannot be merged, and the error; such tensors are then left
            out. By default the error is raised.

    Returns:
        What was found, and how task vectors lie.

    Raises:
        CheckpointError: naming the tensor, where a number cannot be merged.
        ValueError: where nothing is left to merge.
    """
    layout, changed, masks, out = layout_of(pretrained), [], set(), set()

    def tried(key: str, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except CheckpointError as error:
            if broken is None:
                raise
            broken(key, error)
            out.add(key)
            return None

    for key in layout:
        if is_copied(key, layout[key]):
            if tried(key, lambda key=key: check_codes(key, pretrained[key], _of(experts, key))):
                changed.append(key)
        elif is_statistic(key):
            tried(key, lambda key=key: averaged(key, pretrained[key], _of(experts, key)))
    names = weights(pretrained)
    tied = ties([pretrained, *experts.values()], names)

    def pairs() -> Iterator[tuple[str, Tensor, Tensor]]:
        for key in names:
            if key in tied:
                continue
            on_read()
            base = pretrained[key]
            t = tried(key, lambda key=key, base=base: vectors_of(key, base, experts))
            if t is not None:
                yield key, base, t
            elif key not in out:
                masks.add(key)

    found = measured(tuple(experts), pairs(), ranks=ranks)
    if len(masks) + len(tied) == len(names):
        raise ValueError("no tensor is left to merge: all are the same in every model, and hold NaN or Inf")
    masks |= {key for key, home in tied.items() if home in masks}  # what equals a mask is one
    tied = {key: home for key, home in tied.items() if key not in masks}
    return Found(tied, frozenset(masks), tuple(changed)), found


def _of(experts: Mapping[str, StateDict], key: str) -> dict[str, Tensor]:
    return {task: state[key] for task, state in experts.items()}
