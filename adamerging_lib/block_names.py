"""Which transformer block a tensor belongs to, by its name."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Transformer blocks as open_clip, Hugging Face (its language models too: layers.N, layer.N, h.N) and timm name them.
BLOCK = re.compile(r"(?:^|\.)(?:resblocks|blocks|layers|layer|h)\.(\d+)\.")
_TOWER = re.compile(r"^(?:model\.)?(?:visual|vision_model)\.")
_BEFORE_BLOCKS = re.compile(
    r"^(?:class_embedding|positional_embedding|conv1|ln_pre|embeddings|pre_layrnorm|pre_layernorm"
    r"|cls_token|reg_token|dist_token|pos_embed|patch_embed|norm_pre|(?:\w+\.)?(?:embeddings|embed_tokens|wte|wpe))(?:\.|$)"
)


def block_rows(names: Iterable[str]) -> dict[str, str]:
    """Tensor name → ``embeddings``, ``block_N``, ``head``, or ``text`` for what lies outside a named vision tower."""
    names = tuple(names)
    towered = any(_TOWER.match(name) for name in names)
    groups = {}
    for name in names:
        short, found = _TOWER.subn("", name)
        if towered and not found and not name.startswith("visual_projection"):
            groups[name] = "text"
        elif block := BLOCK.search(short):
            groups[name] = f"block_{block.group(1)}"
        else:
            groups[name] = "embeddings" if _BEFORE_BLOCKS.match(short) else "head"
    if not any(group.startswith("block_") for group in groups.values()):
        raise ValueError(
            "granularity 'block' finds no transformer blocks (resblocks.N, blocks.N, layers.N, layer.N or h.N) among "
            "the tensor names; use 'tensor' or 'module'"
        )
    return groups


def block_order(group: str) -> tuple[int, int]:
    """Sorting key of the groups of `block_rows`: embeddings, blocks by number, head, text."""
    if group.startswith("block_"):
        return 1, int(group[len("block_") :])
    return {"embeddings": 0, "head": 2, "text": 3}[group], 0
