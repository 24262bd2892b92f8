"""The k-th smallest entry of whole task vectors, exactly, without putting them together."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..runtime.values import is_number
from ..task_vectors import TaskVectors
from .elementwise import pieces

# Bits settled by one pass. 16 need 65,536 counters per task; 8 would read all checkpoints twice as often, and 32 would
# need four thousand million counters.
_DIGIT = 16


def kept_above(tv: TaskVectors, keep: float) -> list[float]:
    """The smallest magnitude that each task keeps: the (d − ⌊keep·d⌋)-th smallest |entry| of its d; 0 keeps all.

    Arguments:
        tv: task vectors, finite; read tensor by tensor, twice.
        keep: share of entries, in (0, 1].

    Returns:
        K magnitudes.

    Raises:
        ValueError: for a share out of range.
    """
    if not (is_number(keep) and 0 < keep <= 1):
        raise ValueError(f"keep={keep!r} is not a share in (0, 1]: 20 % is 0.2")
    size = entries(tv)
    # The published code of Ties-Merging takes this rank too, and keeps the entries that equal it.
    rank = size - int(keep * size)
    return kth_smallest(tv, rank, magnitude=True) if rank else [0.0] * len(tv.tasks)


def entries(tv: TaskVectors) -> int:
    """P: numbers in the tensors that are merged, tied ones once; the task vectors are not read."""
    return sum(tv.pretrained[key].numel() for key in tv.vectors)


def kth_smallest(tv: TaskVectors, rank: int, *, magnitude: bool = False) -> list[float]:
    """The rank-th smallest entry of each task's whole vector, over all tensors together.

    Non-negative floats are ordered like their bit patterns read as integers, negative ones the other way round, so
    counting the patterns' leading 16 bits finds those of the answer, and each further pass the next 16: two passes
    for float32, four for float64. Sorting, or `torch.kthvalue`, would need the whole vector several times over.

    Arguments:
        tv: task vectors, finite; read tensor by tensor, once per pass.
        rank: from 1 to the number of entries of one task.
        magnitude: of |entries| instead of entries.

    Returns:
        K entries.

    Raises:
        ValueError: for a rank out of range.
    """
    size = entries(tv)
    if not 1 <= rank <= size:
        raise ValueError(f"rank {rank} is out of range: task vectors have {size} entries, the smallest has rank 1")
    # One width for all tensors, or their patterns could not be compared; widening a float is exact.
    wide = torch.float64 if any(tv.pretrained[key].dtype == torch.float64 for key in tv.vectors) else torch.float32
    integer, bits = (torch.int64, 64) if wide == torch.float64 else (torch.int32, 32)
    found, left = [0] * len(tv.tasks), [rank] * len(tv.tasks)  # leading bits of the answers, and their rank among those
    for shift in range(bits - _DIGIT, -1, -_DIGIT):
        first = shift + _DIGIT == bits
        least = -(1 << (_DIGIT - 1)) if first else 0  # the leading digit has a sign
        # Tensors in the outer loop: each is read from disk once per pass, for all tasks.
        counts = [torch.zeros(1 << _DIGIT, dtype=torch.int64) for _ in tv.tasks]
        for piece in _pieces(tv):
            for k, own in enumerate(piece):
                flat = own.to(wide)
                pattern = flat.abs().view(integer) if magnitude else _ordered(flat.view(integer))
                if first:
                    digits = (pattern >> shift) - least  # from 0, as bincount wants them
                else:  # only entries that begin like the answer can still be it
                    pattern = pattern[pattern >> (shift + _DIGIT) == found[k]]
                    digits = (pattern >> shift) & ((1 << _DIGIT) - 1)
                counts[k] += torch.bincount(digits, minlength=1 << _DIGIT).cpu()
        for k, count in enumerate(counts):
            digit = int(torch.searchsorted(count.cumsum(0), left[k]))
            left[k] -= int(count[:digit].sum())  # entries below are settled
            found[k] = (found[k] << _DIGIT) + digit + least
    return _ordered(torch.tensor(found, dtype=integer)).view(wide).tolist()


def _pieces(tv: TaskVectors) -> Iterator[Tensor]:
    """All entries ``[K, n]`` piece by piece: small tensors together, as every piece costs 65,536 counters per task."""
    waiting: list[Tensor] = []
    size = 0
    for key in tv.vectors:
        for _, flat in pieces(tv, key):
            if flat.shape[1] >= 1 << _DIGIT:
                yield flat
                continue
            waiting.append(flat)
            size += flat.shape[1]
            if size >= 1 << _DIGIT:
                yield torch.cat(waiting, 1)
                waiting, size = [], 0
    if waiting:
        yield torch.cat(waiting, 1)


def _ordered(pattern: Tensor) -> Tensor:
    """Bit patterns of floats ↔ integers in the floats' order: those with the sign bit have all other bits turned."""
    return pattern ^ ((pattern >> (8 * pattern.itemsize - 1)) & torch.iinfo(pattern.dtype).max)
