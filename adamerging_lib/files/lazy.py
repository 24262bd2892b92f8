"""Task vectors of checkpoints on disk, computed anew each time one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..state import CheckpointError, StateDict, averaged, check_codes, is_finite, vectors_of
from ..task_vectors import TaskVectors, weights
from ..vectors.elementwise import PIECE
from ..vectors.geometry import Geometry, Pieces, measured
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


class LazyVectors(Mapping[str, Tensor]):
    """Tensor name → T ``[K, *shape]``, computed and checked anew each time one is asked for, whole or in pieces.

    Arguments:
        names: of the tensors.
        pretrained: θ0.
        experts: task name → θ_k, that fit.
        on_read: called once for every tensor.
        kept: small ones of earlier passes over the same files.
    """

    def __init__(
        self,
        names: Iterable[str],
        pretrained: StateDict,
        experts: Mapping[str, StateDict],
        on_read: Callable[[], object] = lambda: None,
        kept: Kept | None = None,
    ) -> None:
        self._names, self._pretrained, self._experts = dict.fromkeys(names), pretrained, experts
        self._on_read, self._kept = on_read, kept or Kept()

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._names:
            raise KeyError(key)
        self._on_read()
        if key in self._kept.vectors:
            return self._kept.vectors[key]
        base = self._pretrained[key]
        t = vectors_of(key, base, self._experts)
        return self._kept.keep(key, torch.zeros(len(self._experts), *base.shape) if t is None else t)

    def pieces(self, key: str, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """θ0 ``[n]`` and T ``[K, n]`` of one tensor piece by piece, in half the time of making it whole.

        Arguments:
            key: name of the tensor.
            size: entries of a piece.
        """
        base = self._pretrained[key]
        flat = base.reshape(-1).split(size)
        # A mask of −∞ is one only as a whole, and what an adapter adds is a product of matrices.
        exact = any(hasattr(state, "difference") for state in self._experts.values())
        if exact or base.numel() <= size or not is_finite(base):
            t = self[key]
            yield from zip(flat, t.reshape(len(t), base.numel()).split(size, dim=1), strict=True)
            return
        self._on_read()
        tuned = {task: state[key].reshape(-1).split(size) for task, state in self._experts.items()}
        for place, piece in enumerate(flat):
            yield piece, vectors_of(key, piece, {task: {key: own[place]} for task, own in tuned.items()})

    def __contains__(self, key: object) -> bool:  # Mapping's own would read the tensor
        return key in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


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
    found = found or Found()
    names = [key for key in weights(pretrained) if key not in found.tied and key not in found.masks]
    statistics, means = {}, {}
    for key in filter(is_statistic, layout_of(pretrained)):
        if not is_copied(key, layout_of(pretrained)[key]):
            own, tuned = pretrained[key], _of(experts, key)
            means[key] = averaged(key, own, tuned)
            statistics[key] = torch.stack([own, *tuned.values()])
    start = _Start(pretrained, means) if means else pretrained
    vectors = LazyVectors(names, pretrained, experts, on_read, kept)
    return TaskVectors(tuple(experts), start, vectors, found.tied, statistics)


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
    vectors = LazyVectors(names, pretrained, experts, on_read)

    def tensors() -> Iterator[tuple[str, torch.Size, Pieces]]:
        for key in names:
            if key in tied:
                continue
            base = pretrained[key]
            if not (ranks or broken) and is_finite(base):
                yield key, base.shape, vectors.pieces(key, PIECE)
                continue
            on_read()
            t = tried(key, lambda key=key, base=base: vectors_of(key, base, experts))
            if t is not None:
                yield key, base.shape, [(base, t)]
            elif key not in out:
                masks.add(key)

    found = measured(tuple(experts), tensors(), ranks=ranks)
    if len(masks) + len(tied) == len(names):
        raise ValueError("no tensor is left to merge: all are the same in every model, and hold NaN or Inf")
    masks |= {key for key, home in tied.items() if home in masks}  # what equals a mask is one
    tied = {key: home for key, home in tied.items() if key not in masks}
    return Found(tied, frozenset(masks), tuple(changed)), found


def _of(experts: Mapping[str, StateDict], key: str) -> dict[str, Tensor]:
    return {task: state[key] for task, state in experts.items()}
