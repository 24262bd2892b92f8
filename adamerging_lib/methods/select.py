"""The k-th smallest magnitude of whole task vectors, exactly, without putting them together."""

from __future__ import annotations

import torch

from ..task_vectors import TaskVectors

_DIGIT = 16  # bits settled by one pass


def kth_magnitudes(tv: TaskVectors, rank: int) -> list[float]:
    """The rank-th smallest |entry| of each task's whole vector, over all tensors together.

    Non-negative floats are ordered like their bit patterns read as integers, so counting the patterns' leading 16
    bits finds those of the answer, and each further pass the next 16: two passes for float32, four for float64.
    Sorting, or `torch.kthvalue`, would need the whole vector several times over.

    Arguments:
        tv: task vectors, finite; read tensor by tensor, once a pass.
        rank: from 1 to the number of entries of one task.

    Returns:
        K magnitudes.

    Raises:
        ValueError: for a rank out of range.
    """
    bases, tasks = [tv.pretrained[key] for key in tv.vectors], len(tv.tasks)
    wide = torch.float64 if any(t.dtype == torch.float64 for t in bases) else torch.float32
    size = sum(t.numel() for t in bases)
    if not 1 <= rank <= size:
        raise ValueError(f"rank {rank} is out of range: task vectors have {size} entries, the smallest has rank 1")
    integer, bits = (torch.int64, 64) if wide == torch.float64 else (torch.int32, 32)
    found, left = [0] * tasks, [rank] * tasks  # leading bits of the answers, and their rank among what shares them
    for shift in range(bits - _DIGIT, -1, -_DIGIT):
        counts = [torch.zeros(1 << _DIGIT, dtype=torch.int64) for _ in range(tasks)]
        for t in tv.vectors.values():
            for k in range(tasks):
                pattern = t[k].to(wide).abs().reshape(-1).view(integer)
                if shift + _DIGIT < bits:
                    pattern = pattern[pattern >> (shift + _DIGIT) == found[k]]
                digits = (pattern >> shift) & ((1 << _DIGIT) - 1)
                counts[k] += torch.bincount(digits, minlength=1 << _DIGIT).cpu()
        for k, count in enumerate(counts):
            digit = int(torch.searchsorted(count.cumsum(0), left[k]))
            left[k] -= int(count[:digit].sum())
            found[k] = found[k] << _DIGIT | digit
    return torch.tensor(found, dtype=integer).view(wide).tolist()
