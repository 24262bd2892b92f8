"""Streams of unlabelled images: seeded shuffled passes, where every batch is a function of the seed and its number."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..splits import split_indices

if TYPE_CHECKING:
    from ..suite import Suite


class Stream:
    """Endless batches of one task's images, drawn without replacement within a pass.

    Batch number b holds the places b·size … (b+1)·size − 1 of all passes laid end to end, each pass shuffled by a
    generator seeded with (seed, task, pass). Nothing is carried from batch to batch, so a resumed run draws exactly
    what the killed one would have drawn, and adding a task leaves the other streams as they were.

    Arguments:
        images: uint8 ``[n, 3, h, w]``.
        size: images a batch.
        task: name, part of the seed.
        seed: of all streams of a run.
        index: int64, the images that may be drawn; default all.
    """

    def __init__(self, images: Tensor, *, size: int, task: str, seed: int, index: Tensor | None = None) -> None:
        n = len(images) if index is None else len(index)
        if n == 0 or size < 1:
            raise ValueError(f"stream of task {task!r} has {n} images and batches of {size}: both must be at least 1")
        self.images, self.size, self.n = images, size, n

        @lru_cache(maxsize=2)
        def shuffled(number: int) -> Tensor:
            digest = hashlib.sha256(f"{seed}|{task}|{number}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
            order = torch.randperm(n, generator=generator)
            return order if index is None else index.cpu()[order]

        self._pass = shuffled

    def indices(self, number: int) -> Tensor:
        """Which images batch ``number`` (from 0) holds, int64 ``[size]``."""
        start, parts = number * self.size, []
        while sum(map(len, parts)) < self.size:
            which, offset = divmod(start + sum(map(len, parts)), self.n)
            parts.append(self._pass(which)[offset : offset + self.size - sum(map(len, parts))])
        return torch.cat(parts)

    def batch(self, number: int) -> Tensor:
        """Images of batch ``number``, uint8 ``[size, 3, h, w]``, on the images' device."""
        return self.images[self.indices(number).to(self.images.device)]


def task_streams(
    suite: Suite, tasks: Sequence[str], *, size: int, seed: int, setting: str, device: torch.device
) -> list[Stream]:
    """One stream a task over all its test images (transductive) or over the adaptation half of them (inductive)."""
    if missing := [task for task in tasks if task not in suite.test or task not in suite.heads]:
        raise ValueError(f"the suite has no test images or no head for {', '.join(missing)}: adaptation needs both")
    pools = {task: suite.test[task].images for task in tasks}
    if len({(images.shape[1:], images.dtype) for images in pools.values()}) > 1:
        raise ValueError("the tasks' images differ in size or type: bring them to one size, they share one forward")
    if device.type == "cuda":
        # Images that live on the GPU spare a copy a step; a quarter of what is free leaves room for activations.
        if sum(images.nbytes for images in pools.values()) <= torch.cuda.mem_get_info(device)[0] // 4:
            pools = {task: images.to(device) for task, images in pools.items()}
    halves = {task: split_indices(len(images))[0] if setting == "inductive" else None for task, images in pools.items()}
    return [Stream(pools[task], size=size, task=task, seed=seed, index=halves[task]) for task in tasks]
