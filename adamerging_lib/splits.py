"""Which test images adaptation may see: the transductive and the inductive setting."""

from __future__ import annotations

import torch
from torch import Tensor

SETTINGS = ("transductive", "inductive")


def split_indices(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The two disjoint halves of n test images in the inductive setting.

    Arguments:
        n: number of images, at least 2.
        seed: of the shuffle.

    Returns:
        (adapt ``[n // 2]``, held_out ``[n − n // 2]``): int64 indices in ascending order.
    """
    if n < 2:
        raise ValueError(f"{n} images cannot be split into an adaptation and a held-out half: give at least 2")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[: n // 2].sort().values, order[n // 2 :].sort().values
