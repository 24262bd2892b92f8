"""What a descent runs: from a merged state and a step's inputs to each task's logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..forward import logits, prepare_encoder, raw_features
from ..runtime.cache import fingerprint_suite
from ..runtime.devices import sent
from ..state import StateDict, accumulation_dtype, is_merged
from ..task_vectors import TaskVectors
from .streams import Stream

if TYPE_CHECKING:
    from ..suite import Suite

Features = Callable[[nn.Module, StateDict, Tensor], Tensor]
Scored = list[tuple[Tensor, Tensor | None]]
"""Of one task: logits and labels (or what stands for them, or None), in one piece or one per batch."""


class Model(Protocol):
    """A model of K tasks, on a device; its weights are not its own, but given with every call."""

    @property
    def count(self) -> int:
        """K, of this process where tasks are spread over several."""

    def drawn(self, streams: Sequence[Any], numbers: range, device: torch.device) -> tuple[Any, Any]:
        """The batches of these numbers of every task, and their labels or None, in the form that `scored` takes."""

    def scored(self, state: StateDict, inputs: Any, labels: Any, group: range) -> list[Scored]:
        """Logits of the tasks of a group under a merged state."""


@dataclass(frozen=True)
class Source:
    """Where a descent's model comes from.

    Arguments:
        opened: (task vectors, tasks, device, options by name) → `Model`.
        fingerprint: digests of all that a run depends on beside its options, for its checkpoints.
    """

    opened: Callable[..., Model]
    fingerprint: Callable[[], Mapping[str, str]]


def suite_source(suite: Suite) -> Source:
    """A suite's encoder and heads as what a descent runs."""
    return Source(partial(EncoderWithHeads.of, suite), partial(fingerprint_suite, suite))


@dataclass(frozen=True)
class EncoderWithHeads:
    """h_k(f_θ(x)) of a suite: one encoder for the images of all tasks at once, one zero-shot head per task.

    Arguments:
        encoder: template in evaluation mode, on the device.
        heads: head weights ``[classes, dim]`` of the K tasks that have images, on the device.
        normalise: uint8 images → float images.
        autocast: narrow type that the encoder's products are computed in; features, logits and losses stay wide.
        features: images → features before normalisation; `raw_features`, or the same compiled.
    """

    encoder: nn.Module
    heads: tuple[Tensor, ...]
    normalise: Callable[[Tensor], Tensor]
    autocast: torch.dtype | None = None
    features: Features = raw_features

    @classmethod
    def of(
        cls, suite: Suite, tv: TaskVectors, tasks: Sequence[str], device: torch.device, **options: Any
    ) -> EncoderWithHeads:
        """Everything on the device, once.

        Arguments:
            suite, tv, device: what and where.
            tasks: those that have images.
            options: further fields.
        """
        encoder = prepare_encoder(suite.encoder, tv.pretrained, device)
        heads = tuple(suite.heads[task].detach().to(device) for task in tasks)
        return cls(encoder, heads, suite.normalise, **options)

    @property
    def count(self) -> int:
        """K."""
        return len(self.heads)

    def drawn(self, streams: Sequence[Stream], numbers: range, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Images ``[K · batches · size, 3, h, w]``, task after task, and labels where the streams have some."""
        draws = [(stream, number) for stream in streams for number in numbers]
        images = torch.cat([sent(stream.batch(number), device) for stream, number in draws])
        if streams[0].labels is None:
            return images, None
        return images, torch.cat([sent(stream.batch_labels(number), device) for stream, number in draws])

    def scored(self, state: StateDict, inputs: Tensor, labels: Tensor | None, group: range) -> list[Scored]:
        """Logits ``[batches · size, classes]`` of each task of a group, its batches in one piece."""
        count = len(inputs) // self.count
        here = slice(group.start * count, group.stop * count)
        unit = self._unit_features(state, inputs[here]).split(count)
        targets = [None] * len(group) if labels is None else labels[here].split(count)
        scores = [logits(part, self.heads[k]) for k, part in zip(group, unit, strict=True)]
        return [[pair] for pair in zip(scores, targets, strict=True)]

    def _unit_features(self, state: StateDict, images: Tensor) -> Tensor:
        with nullcontext() if self.autocast is None else torch.autocast(images.device.type, self.autocast):
            found = self.features(self.encoder, state, self.normalise(images))
        if self.autocast is not None:
            # Features of length one and logits up to 100 need more digits than bfloat16 has.
            found = found.to(accumulation_dtype(next(t.dtype for t in state.values() if is_merged(t))))
        return F.normalize(found, dim=-1)
