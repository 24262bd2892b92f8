"""What fixed encoders say of images, computed once an image: features, and the individual models' pseudo-labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ..forward import compute_state, logits, prepare_encoder, raw_features, resolve_device
from ..state import StateDict, accumulation_dtype
from .streams import Stream

if TYPE_CHECKING:
    from ..suite import Suite


def images_used(stream: Stream, batches: int) -> Tensor:
    """Which images the first batches of a stream hold, int64 in ascending order, each once."""
    drawn = [stream.indices(number) for number in range(batches)]
    return torch.cat(drawn).unique() if drawn else torch.empty(0, dtype=torch.int64)


def encode(suite: Suite, state: StateDict, images: Tensor, *, device: torch.device, batch_size: int = 512) -> Tensor:
    """Features of many images under one state dict, not of unit length.

    Arguments:
        suite: with the encoder and the normalisation.
        state: state dict of the encoder.
        images: uint8 ``[n, 3, h, w]``, on any device.
        device: where it runs.
        batch_size: images a forward pass.

    Returns:
        Features ``[n, dim]`` on the device, float32 or wider.
    """
    encoder, weights = prepare_encoder(suite.encoder, state, device), compute_state(state, device)
    with torch.no_grad():
        parts = [raw_features(encoder, weights, suite.normalise(b.to(device))) for b in images.split(batch_size)]
    return torch.cat(parts)


def expert_logits(suite: Suite, task: str, images: Tensor, *, device: torch.device) -> Tensor:
    """The individual model's logits ``[n, classes]`` of its task's images: θ_k with the zero-shot head."""
    head = suite.heads[task].detach()
    if not len(images):
        return torch.empty(0, len(head), dtype=accumulation_dtype(head.dtype), device=device)
    return logits(F.normalize(encode(suite, suite.experts[task], images, device=device), dim=-1), head.to(device))


def expert_table(suite: Suite, task: str, stream: Stream, batches: int, device: torch.device) -> Tensor:
    """The individual model's logits ``[n, classes]`` of the task's test images; NaN for those that no batch holds."""
    used, images = images_used(stream, batches), suite.test[task].images
    scores = expert_logits(suite, task, images[used.to(images.device)], device=device)
    return scores.new_full((len(images), scores.shape[1]), torch.nan).index_copy_(0, used.to(device), scores)


def pseudo_labels(suite: Suite, *, device: str | torch.device = "cpu") -> dict[str, tuple[Tensor, Tensor]]:
    """What each individual model predicts on its task's test images, and how sure it is; labels are not read.

    Arguments:
        suite: with experts, heads and test images.
        device: ``cpu``, ``cuda`` or ``auto``.

    Returns:
        Task → (predicted class ``[n]`` int64, its softmax probability ``[n]``), in the images' order, on the CPU.
    """
    device, found = resolve_device(device), {}
    for task in suite.tasks:
        confidence, predicted = expert_logits(suite, task, suite.test[task].images, device=device).softmax(-1).max(-1)
        found[task] = predicted.cpu(), confidence.cpu()
    return found
