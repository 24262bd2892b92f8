"""Run a state dict through a suite's encoder and heads; the encoder module itself is only a template."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from .state import StateDict, accumulation_dtype, is_merged


def resolve_device(device: str | torch.device) -> torch.device:
    """``cpu``, ``cuda`` (or ``cuda:N``), or ``auto`` for a GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r} is unknown; use 'cpu', 'cuda' or 'auto'") from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {str(device)!r} asked for, but torch sees no GPU; use 'cpu' or 'auto'")
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"device {str(device)!r} asked for, but torch sees {count} GPUs, numbered from 0")
    return resolved


def prepare_encoder(encoder: nn.Module, state: StateDict, device: torch.device) -> nn.Module:
    """The encoder in evaluation mode on a device, without touching the caller's module.

    Raises:
        ValueError: where the state dict's keys are not the encoder's. functional_call would silently fall back to
            the template's own weights for a missing key.
    """
    keys = encoder.state_dict().keys()
    if difference := keys ^ state.keys():
        raise ValueError(
            f"the state dict does not fit the encoder: missing {sorted(keys - state.keys())[:5]}, "
            f"unexpected {sorted(state.keys() - keys)[:5]} of {len(difference)} differing keys"
        )
    here = all(t.device == device for t in [*encoder.parameters(), *encoder.buffers()])
    if here and not any(module.training for module in encoder.modules()):
        return encoder
    return copy.deepcopy(encoder).eval().to(device)


def compute_state(state: StateDict, device: torch.device) -> dict[str, Tensor]:
    """A state dict to compute with: on the device, half precision widened to float32."""
    return {
        key: t.detach().to(device, accumulation_dtype(t.dtype) if is_merged(t) else None) for key, t in state.items()
    }


def raw_features(encoder: nn.Module, state: StateDict, images: Tensor) -> Tensor:
    """Image features ``[n, dim]`` of normalised images ``[n, 3, h, w]`` under a state dict, of any length.

    Tokens, whole numbers ``[n, length]``, reach the encoder as they are.
    """
    if images.is_floating_point():
        images = images.to(next(t.dtype for t in state.values() if is_merged(t)))
    return functional_call(encoder, dict(state), (images,))


def features(encoder: nn.Module, state: StateDict, images: Tensor) -> Tensor:
    """Unit-length image features ``[n, dim]`` of normalised images ``[n, 3, h, w]`` under a state dict."""
    return F.normalize(raw_features(encoder, state, images), dim=-1)


def logits(unit_features: Tensor, head: Tensor) -> Tensor:
    """Zero-shot logits ``[n, classes]`` = f/‖f‖ · Wᵀ, W ``[classes, dim]`` already times exp(logit_scale)."""
    return unit_features @ head.to(unit_features).t()


def entropy(logits: Tensor) -> Tensor:
    """Shannon entropy of softmax(logits) in nats, ``[n]``, through log_softmax so that p = 0 contributes 0."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)
