"""Hugging Face's CLIP vision models, exactly, as open_clip's vision tower."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..layers import RESBLOCKS, tower_names
from ..state import CheckpointError
from .formats import Format
from .tower import ordered_tower

_MARK = "embeddings.patch_embedding.weight"
_OWN = ("embeddings.class_embedding", "pre_layrnorm.weight")  # their spelling
_BUFFER = "embeddings.position_ids"  # 0, 1, 2, …: older releases of transformers saved it
_OTHERS = re.compile(r"text_model\..*|text_projection\.weight|logit_scale|visual_projection\.weight")
# What transformers leaves out of a config.json because it equals its own defaults.
DEFAULTS: Mapping[str, dict[str, Any]] = {
    "vision": {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "patch_size": 32, "image_size": 224, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    },
    "text": {
        "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8,
        "vocab_size": 49408, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    },
}  # fmt: skip
_PLAIN = {
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "conv1.weight": _MARK,
}
_MODULES = {
    "ln_pre": "pre_layrnorm",
    "ln_post": "post_layernorm",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def hf_names(name: str) -> tuple[str, ...]:
    """Their names of one tensor of the tower: three where open_clip stacks query, key and value, else one."""
    if name in _PLAIN:
        return (_PLAIN[name],)
    block = re.match(re.escape(RESBLOCKS) + r"(\d+)\.", name)
    start = f"encoder.layers.{block[1]}." if block else ""
    rest = name[block.end() :] if block else name
    if rest.startswith("attn.in_proj_"):
        return tuple(f"{start}self_attn.{part}_proj.{rest.removeprefix('attn.in_proj_')}" for part in "qkv")
    module, _, parameter = rest.rpartition(".")
    return (f"{start}{_MODULES[module]}.{parameter}",)


def find_hf(keys: Iterable[str]) -> str | None:
    """What stands before the vision model's tensor names (``vision_model.`` or nothing), or None where none is."""
    keys = set(keys)
    found = [key.removesuffix(_MARK) for key in keys if key.endswith(_MARK)]
    # Other encoders (SigLIP's, BLIP's) have patches too, but not these.
    found = [start for start in found if {f"{start}{name}" for name in _OWN} <= keys]
    return found[0] if len(found) == 1 else None


def from_hf(state: Mapping[str, Tensor], owner: object = "the checkpoint") -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """open_clip's vision tower of a CLIPVisionModel, CLIPVisionModelWithProjection or CLIPModel.

    Arguments:
        state: their state dict, of transformers 4 (names begin with ``vision_model.``) or 5.
        owner: for messages.

    Returns:
        The tower in open_clip's order, with ``proj`` where the state has ``visual_projection``; and the names dropped:
        the text tower and the buffer of positions.

    Raises:
        CheckpointError: where tensors are missing, or others are there than a CLIP vision model has.
    """
    prefix = find_hf(state)
    if prefix is None:
        raise CheckpointError(f"{owner} holds no CLIP vision model: no tensor ends in {_MARK!r}")
    root = prefix.removesuffix("vision_model.")
    block = re.compile(rf"{re.escape(prefix)}encoder\.layers\.(\d+)\.")
    blocks = {int(found[1]) for key in state if (found := block.match(key))}
    used: set[str] = set()
    tower: dict[str, Tensor] = {}
    for name in tower_names(max(blocks, default=-1) + 1):
        theirs = [f"{root}visual_projection.weight"] if name == "proj" else [prefix + n for n in hf_names(name)]
        if missing := [key for key in theirs if key not in state]:
            if name == "proj":
                continue
            raise CheckpointError(f"{owner} lacks {missing[0]!r} of a CLIP vision model: fetch it again, whole")
        used.update(theirs)
        parts = [state[key] for key in theirs]
        tower[name] = torch.cat(parts) if len(parts) > 1 else parts[0].t().contiguous() if name == "proj" else parts[0]
    dropped = tuple(key for key in state if key not in used)
    for key in dropped:
        if key != prefix + _BUFFER and not (key.startswith(root) and _OTHERS.fullmatch(key.removeprefix(root))):
            raise CheckpointError(f"{owner} has {key!r}, which no CLIP vision model has: only ViT towers can be read")
    return ordered_tower(tower, owner), dropped


def tower_config(config: Mapping[str, Any], tower: str) -> dict[str, Any]:
    """The settings of one tower in the ``config.json`` of a CLIP model, as transformers reads them.

    Arguments:
        config: the content of the file.
        tower: ``vision`` or ``text``; the file of a vision model alone has its settings at the top.

    Returns:
        Name → value. ``vision_config_dict``, of old files, overrules ``vision_config``, and so do the defaults of what
        it leaves out. Newer releases of transformers leave out what equals their defaults.
    """
    defaults, name = DEFAULTS[tower], f"{tower}_config"
    own = config.get(name) or ({} if name in config or f"{name}_dict" in config else config)
    old = config.get(f"{name}_dict")
    return defaults | own | ({} if old is None else defaults | old)


def config_facts(path: Path) -> dict[str, str]:
    """``activation`` and ``heads`` from a ``config.json``; empty where there is none.

    Raises:
        CheckpointError: where it is not JSON, or of a model that computes otherwise than open_clip's ViT.
    """
    if not path.is_file():
        return {}
    try:
        config = tower_config(json.loads(path.read_text(encoding="utf-8")), "vision")
        activation, heads = config["hidden_act"], config["num_attention_heads"]
        eps = float(config["layer_norm_eps"])
    except (ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is not a configuration of a CLIP model: {error}") from error
    if eps != 1e-5:
        raise CheckpointError(f"{path} says layer_norm_eps {eps}; open_clip's tower has 1e-05 and cannot stand in")
    return {"activation": str(activation), "heads": str(heads)}


FORMAT = Format("hf", "a CLIP vision model of Hugging Face", lambda keys: find_hf(keys) is not None, from_hf)
