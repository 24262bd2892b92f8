"""Streams of images: seeded shuffled passes, where every batch is a function of the seed and its number."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..runtime.devices import sent
from ..runtime.distributed import own
from ..suite import split_indices
from .recipes import check_count

if TYPE_CHECKING:
    from ..suite import Suite, TaskData


def seeded(*parts: object) -> torch.Generator:
    """A generator of its own for every combination of seed, task, step, …: no draw depends on an earlier one."""
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def in_passes(first: int, size: int, n: int, shuffled: Callable[[int], Tensor]) -> Tensor:
    """What stands at the places ``first`` … ``first + size − 1`` of all passes laid end to end, int64 ``[size]``.

    Arguments:
        first, size: the places.
        n: images per pass.
        shuffled: number of a pass → its images in order, int64 ``[n]``.
    """
    parts = []
    while size > 0:
        number, offset = divmod(first, n)
        parts.append(shuffled(number)[offset : offset + size])
        first, size = first + len(parts[-1]), size - len(parts[-1])
    return torch.cat(parts)


class Stream:
    """Endless batches of one task's images, drawn without replacement within a pass.

    Batch number b holds the places b·size … (b+1)·size − 1 of all passes laid end to end, each pass shuffled by a
    generator seeded with (seed, task, pass). Nothing is carried from batch to batch, so a resumed run draws exactly
    what the killed one would have drawn, and adding a task leaves the other streams as they were.

    Arguments:
        images: uint8 ``[n, 3, h, w]``.
        size: images per batch.
        task: name, part of the seed.
        seed: of all streams of a run.
        index: int64, the images that may be drawn; default all.
        labels: int64 ``[n]``, for those that learn from labels.
    """

    def __init__(
        self,
        images: Tensor,
        *,
        size: int,
        task: str,
        seed: int,
        index: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> None:
        n = len(images) if index is None else len(index)
        if n == 0 or size < 1:
            raise ValueError(f"stream of task {task!r} has {n} images and batches of {size}: both must be at least 1")
        self.images, self.labels, self.size, self.n = images, labels, size, n
        self.task, self.seed, self._index = task, seed, index

        @lru_cache(maxsize=2)
        def shuffled(number: int) -> Tensor:
            order = torch.randperm(n, generator=seeded(seed, task, number))
            return order if index is None else index.cpu()[order]

        self._pass = shuffled

    def with_labels(self, labels: Tensor) -> Stream:
        """The same batches with labels, or what stands for them: a row for each of ``images``."""
        copied = copy.copy(self)
        copied.labels = labels
        return copied

    def parted(self, count: int) -> tuple[Stream, Stream]:
        """The stream without ``count`` images, drawn by seed and task, and one batch of these, without labels."""
        index = torch.arange(len(self.images)) if self._index is None else self._index.cpu()
        order = index[torch.randperm(self.n, generator=seeded("guard", self.seed, self.task))]
        rest = Stream(
            self.images, size=self.size, task=self.task, seed=self.seed, index=order[count:].sort().values,
            labels=self.labels,
        )  # fmt: skip
        apart = self.images[sent(order[:count], self.images.device)]
        return rest, Stream(apart, size=count, task=self.task, seed=self.seed)

    def indices(self, number: int) -> Tensor:
        """Which images batch ``number`` (from 0) holds, int64 ``[size]``."""
        return in_passes(number * self.size, self.size, self.n, self._pass)

    def batch(self, number: int) -> Tensor:
        """Images of batch ``number``, uint8 ``[size, 3, h, w]``, on the images' device."""
        return self.images[sent(self.indices(number), self.images.device)]

    def batch_labels(self, number: int) -> Tensor:
        """Labels of batch ``number``, int64 ``[size]``; of a stream that was given labels."""
        return self.labels[sent(self.indices(number), self.labels.device)]


def task_streams(
    suite: Suite,
    tasks: Sequence[str],
    *,
    size: int,
    seed: int,
    setting: str,
    device: torch.device,
    images: int | None = None,
    labelled: Mapping[str, TaskData] | None = None,
) -> list[Stream]:
    """One stream of images per task.

    Arguments:
        suite: with heads and test images.
        tasks: whose streams, in this order.
        size: images per batch.
        seed: of the streams and of the pool.
        setting: ``transductive`` (all test images) or ``inductive`` (the adaptation half of them).
        device: where they will be used; images that fit there are kept there.
        images: draw from a fixed pool of this many images per task. The pools of one seed are nested: the 8 images of
            ``images=8`` are among those of ``images=16``.
        labelled: images with labels to draw from instead of the test images, such as ``suite.training()``; the
            setting splits test images only.

    Raises:
        ValueError: for tasks without images or heads, images that cannot share a forward, or a pool larger than what
            there is.
    """
    source = suite.test if labelled is None else labelled
    if missing := [task for task in tasks if task not in source or task not in suite.heads]:
        kind = "test images" if labelled is None else "labelled images"
        raise ValueError(f"the suite has no {kind} or no head for {', '.join(missing)}: adaptation needs both")
    pools = {task: source[task].images for task in tasks}
    if len({(images.shape[1:], images.dtype) for images in pools.values()}) > 1:
        raise ValueError("the tasks' images differ in size or type: bring them to one size, they share one forward")
    if device.type == "cuda":
        # Images that live on the GPU save a copy per step; a quarter of what is free leaves room for activations.
        mine = [tasks[k] for k in own(len(tasks))]
        if sum(pools[task].nbytes for task in mine) <= torch.cuda.mem_get_info(device)[0] // 4:
            pools |= {task: pools[task].to(device) for task in mine}
    streams = []
    for task, pool in pools.items():
        index = split_indices(len(pool))[0] if setting == "inductive" and labelled is None else None
        if images is not None:
            index = _draw(torch.arange(len(pool)) if index is None else index, images, task=task, seed=seed)
        labels = None if labelled is None else labelled[task].labels
        streams.append(Stream(pool, size=size, task=task, seed=seed, index=index, labels=labels))
    return streams


def _draw(index: Tensor, count: int, *, task: str, seed: int) -> Tensor:
    check_count("images", count)
    if count > len(index):
        raise ValueError(f"images={count}, but task {task!r} has {len(index)} to draw from: ask for at most that many")
    return index[torch.randperm(len(index), generator=seeded("pool", seed, task))[:count]]
