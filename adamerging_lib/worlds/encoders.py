"""Encoders: image towers as templates for ``torch.func.functional_call``, and the mini CLIP in open_clip's classes."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..runtime.compat import import_open_clip, import_timm
from ..state import CheckpointError

# Grey-level statistics of the mini suite's pre-training stream, rounded.
MINI_MEAN, MINI_STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@dataclass(frozen=True)
class MiniConfig:
    """Sizes of the mini CLIP: a ViT with 8-pixel patches (16 tokens) and a small text transformer."""

    image_size: int = 32
    patch_size: int = 8
    width: int = 128
    layers: int = 6
    head_width: int = 32
    embed_dim: int = 128
    context_length: int = 24
    text_width: int = 64
    text_layers: int = 2
    text_heads: int = 2


def mini_clip(config: MiniConfig = MiniConfig(), *, seed: int = 0) -> nn.Module:  # noqa: B008 - frozen
    """The mini CLIP, freshly initialised: an ``open_clip.CLIP`` with both towers and a logit scale."""
    open_clip = import_open_clip()
    vision = open_clip.model.CLIPVisionCfg(
        layers=config.layers, width=config.width, head_width=config.head_width,
        patch_size=config.patch_size, image_size=config.image_size,
    )  # fmt: skip
    text = open_clip.model.CLIPTextCfg(
        context_length=config.context_length,
        width=config.text_width,
        heads=config.text_heads,
        layers=config.text_layers,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # open_clip initialises from the global generator; the fork keeps it to ourselves
        model = open_clip.CLIP(embed_dim=config.embed_dim, vision_cfg=vision, text_cfg=text)
        # open_clip's 0.02 would leave every word that no caption holds at nearly the same place, so that class names
        # unknown to pre-training could not be told apart; a web-trained CLIP knows every word a little.
        nn.init.normal_(model.token_embedding.weight, std=0.15)
    return model


def mini_tokenize(captions: list[str], config: MiniConfig = MiniConfig()) -> Tensor:  # noqa: B008 - frozen
    """Captions as open_clip's byte-pair tokens, int64 ``[n, context_length]``."""
    return _tokenizer(config.context_length)(captions)


@functools.cache
def _tokenizer(context_length: int) -> Callable[[list[str]], Tensor]:
    return import_open_clip().SimpleTokenizer(context_length=context_length)


_PROMPTS = 256  # prompts at once: the text tower's memory stays small


def text_encoder(clip: nn.Module, what: str = "") -> Callable[[list[str]], Tensor]:
    """The text tower of an open_clip model with its tokens, as a function: prompts → features ``[n, dim]``.

    Arguments:
        clip: the model.
        what: shown beside the progress.
    """
    tokenize = _tokenizer(clip.context_length)

    def encode(prompts: list[str]) -> Tensor:
        # On no terminal no bar: it would stand on the page of a notebook.
        starts = tqdm(range(0, len(prompts), _PROMPTS), desc=f"{what}: prompts", leave=False, disable=None)
        with torch.no_grad():
            return torch.cat([clip.encode_text(tokenize(prompts[start : start + _PROMPTS])) for start in starts])

    return encode


# The upstream weights' own: (x − 0.5) / 0.5.
TINY_MEAN, TINY_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def tiny_vit(image_size: int) -> nn.Module:
    """ViT-Ti/16 in timm's classes, without weights of its own: images → features ``[n, 192]`` of the class token."""
    import_timm()
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=image_size, patch_size=16, embed_dim=192, depth=12, num_heads=3, num_classes=0,
        norm_layer=functools.partial(nn.LayerNorm, eps=1e-12),
    )  # fmt: skip


def tiny_state(arrays: Mapping[str, np.ndarray], image_size: int) -> dict[str, Tensor]:
    """Arrays of a ViT-Ti/16 named as in the upstream file (q, k and v apart) as the state dict of `tiny_vit`.

    Arguments:
        arrays: name → values; a classifier's (``head…``) are left out.
        image_size: the positions are interpolated to its grid, by bicubic interpolation.

    Raises:
        CheckpointError: naming the arrays that are missing, too many, or of another shape.
    """
    from timm.layers import resample_abs_pos_embed

    given = {name: torch.from_numpy(np.array(arrays[name])).float() for name in arrays if not name.startswith("head")}
    state = {}
    for name, tensor in given.items():
        if name.startswith("patch_embed."):
            state[name.replace("patch_embed.", "patch_embed.proj.")] = tensor
        elif found := re.fullmatch(r"(blocks\.\d+\.attn\.)([qkv])\.(weight|bias)", name):
            prefix, part, kind = found.groups()
            if part == "q" and all(f"{prefix}{other}.{kind}" in given for other in "kv"):
                state[f"{prefix}qkv.{kind}"] = torch.cat([given[f"{prefix}{p}.{kind}"] for p in "qkv"])
        else:
            state[name] = tensor
    if "pos_embed" in state and state["pos_embed"].ndim == 3:
        grid = image_size // 16
        state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], [grid, grid])
    expected = {name: tensor.shape for name, tensor in tiny_vit(image_size).state_dict().items()}
    if wrong := [n for n in (*expected, *state) if expected.get(n) != getattr(state.get(n), "shape", None)]:
        raise CheckpointError(
            f"the arrays are not those of a ViT-Ti/16: {', '.join(dict.fromkeys(wrong))[:200]} are missing or do not "
            f"fit"
        )
    return {name: state[name] for name in expected}
