"""What fixed encoders say of images, computed once per image: features, and the individual models' logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ..forward import compute_state, logits, prepare_encoder, raw_features
from ..learning.streams import Stream
from ..state import StateDict, accumulation_dtype, is_merged

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
        batch_size: images per forward pass.

    Returns:
        Features ``[n, dim]`` on the device, float32 or wider.
    """
    encoder, weights = prepare_encoder(suite.encoder, state, device), compute_state(state, device)
    with torch.no_grad():
        parts = [raw_features(encoder, weights, suite.normalise(b.to(device))) for b in images.split(batch_size)]
    return torch.cat(parts)


def feature_table(suite: Suite, state: StateDict, task: str, which: Tensor, *, device: torch.device) -> Tensor:
    """Features ``[n, dim]`` of a task's n test images under a state dict, NaN for those that ``which`` leaves out."""
    images = suite.test[task].images
    dtype = accumulation_dtype(next(t.dtype for t in state.values() if is_merged(t)))
    table = torch.full((len(images), suite.heads[task].shape[1]), torch.nan, dtype=dtype, device=device)
    if len(which):
        chosen = images[which.to(images.device)]
        table.index_copy_(0, which.to(device), encode(suite, state, chosen, device=device))
    return table


def expert_table(suite: Suite, task: str, which: Tensor, *, device: torch.device) -> Tensor:
    """Logits ``[n, classes]`` of θ_k with the zero-shot head, see `feature_table`."""
    table = feature_table(suite, suite.experts[task], task, which, device=device)
    return logits(F.normalize(table, dim=-1), suite.heads[task].detach().to(device))
