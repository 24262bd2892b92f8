"""A transformer block written out by hand, and what flows into its linear maps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

CLIP_NAMES = ("ln_1", "attn.in_proj", "attn.out_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
TIMM_NAMES = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


def block(
    state: Mapping[str, Tensor], prefix: str, x: Tensor, heads: int, names: tuple[str, ...] = CLIP_NAMES
) -> tuple[Tensor, dict[str, Tensor]]:
    """A pre-norm block, one head at a time: its output, and weight name → input."""
    norm1, qkv, out_proj, norm2, fc, proj = (prefix + name for name in names)
    seen = {}

    def linear(name, t, separator="."):
        seen[f"{name}{separator}weight"] = t
        return t @ state[f"{name}{separator}weight"].t() + state[f"{name}{separator}bias"]

    def norm(name, t):
        return F.layer_norm(t, t.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

    y = linear(qkv, norm(norm1, x), "_" if qkv.endswith("in_proj") else ".")
    width, size = x.shape[-1], x.shape[-1] // heads
    joined = torch.empty_like(x)
    for h in range(heads):
        q, k, v = (y[:, :, part * width + h * size : part * width + (h + 1) * size] for part in range(3))
        joined[:, :, h * size : (h + 1) * size] = (q @ k.mT / size**0.5).softmax(-1) @ v
    x = x + linear(out_proj, joined)
    return x + linear(proj, F.gelu(linear(fc, norm(norm2, x)))), seen


def embedded(state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """What ToyViT hands to its first block, from normalised images."""
    x = F.conv2d(images, state["conv1.weight"], stride=4).flatten(2).transpose(1, 2)
    x = torch.cat([state["class_embedding"].expand(len(x), 1, -1), x], 1) + state["positional_embedding"]
    return F.layer_norm(x, x.shape[-1:], state["ln_pre.weight"], state["ln_pre.bias"])
