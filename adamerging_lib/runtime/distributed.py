"""Several processes, started by torchrun, share one adaptation: each has some of the tasks, all make the same steps.

Where a process group is initialised, as by `adapt`, `learn` and the methods built on it (AdaMerging, DOGE AM and
SuperMerge) give every rank its tasks' images, forward and backward passes; the ranks add up their gradients of λ, K·R
numbers per step. Everything else, the merge and Adam among it, each rank does by itself, on equal numbers. Without a
group nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from ..forward import resolve_device


def active() -> bool:
    """Whether this process is one of several of a group."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def leads() -> bool:
    """Whether this process is the one that writes and reports: rank 0, or the only one."""
    return not active() or dist.get_rank() == 0


def own(count: int) -> range:
    """Which of ``count`` tasks are this process's, neighbours in their order and as even as can be.

    Raises:
        ValueError: where a rank would have none.
    """
    if not active():
        return range(count)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    if count < ranks:
        raise ValueError(f"{count} tasks cannot be spread over {ranks} processes: start at most one per task")
    return range(rank * count // ranks, (rank + 1) * count // ranks)


def summed(t: Tensor) -> Tensor:
    """The sum of all ranks' tensors of one shape, on every rank, in place of its own."""
    if active():
        dist.all_reduce(t)
    return t


def gathered(t: Tensor, count: int) -> Tensor:
    """All ranks' rows, where each has those of its own tasks: ``[own, …]`` → ``[count, …]``, on every rank."""
    if not active():
        return t
    mine = own(count)
    # Others' rows are zeros, and adding zeros is exact: ranks may have different numbers of tasks.
    whole = t.new_zeros((count, *t.shape[1:]))
    whole[mine.start : mine.stop] = t
    return summed(whole)


def agree(number: int, what: str) -> None:
    """Raise ValueError unless all ranks have the same number, which is named."""
    if not active():
        return
    found: list[int | None] = [None] * dist.get_world_size()
    dist.all_gather_object(found, number)
    if len(set(found)) > 1:
        raise ValueError(f"the processes see different {what}: {found}; give all of them the same files")


@contextmanager
def group(device: str) -> Iterator[str]:
    """Join the group that torchrun describes, for as long as the block runs; alone where it describes none.

    Arguments:
        device: ``cpu``, ``cuda`` (each process takes the GPU of its local rank) or ``auto``.

    Yields:
        The device of this process.

    Raises:
        ValueError: for a device that is not there.
    """
    kind = resolve_device(device).type
    if "RANK" not in os.environ:
        yield kind
        return
    if kind == "cuda":
        own_device = resolve_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(own_device)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield kind
    finally:
        dist.destroy_process_group()
