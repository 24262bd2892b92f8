"""A whole CLIP model of Hugging Face, both towers, as open_clip's; its architecture is read from ``config.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..layers import resblock_names
from ..runtime.compat import import_open_clip
from ..state import CheckpointError
from .huggingface import config_facts, from_hf, hf_names, tower_config
from .reading import check_finite, open_source
from .tower import check_facts

_WORDS = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_BUFFERS = re.compile(r"(text|vision)_model\.embeddings\.position_ids")


def load_clip_model(folder: Path) -> nn.Module:
    """The CLIP model of a folder as Hugging Face lays it out, on the CPU, in float32 and evaluation mode.

    Arguments:
        folder: with ``config.json`` and the weights (``model.safetensors``, in one or several files, or
            ``pytorch_model.bin``).

    Raises:
        CheckpointError: naming the file and what is wrong with it.
    """
    folder = Path(folder)
    config = folder / "config.json"
    if not config.is_file():
        raise CheckpointError(f"{config} is missing: fetch it, the architecture is read from it")
    facts = config_facts(config)
    model = _model(config)
    source = open_source(folder)
    tower, dropped = from_hf(source.tensors, source.path)
    if "proj" not in tower:
        raise CheckpointError(f"{source.path} has no projection: a base is a whole CLIPModel with both towers")
    state = {f"visual.{name}": tensor for name, tensor in tower.items()}
    words, used = text_from_hf(source.tensors, len(model.transformer.resblocks), source.path)
    state |= words
    if extra := [key for key in dropped if key not in used and not _BUFFERS.fullmatch(key)]:
        raise CheckpointError(
            f"{source.path} holds {extra[0]!r}, which the model of {config} has not: fetch both again"
        )
    check_finite(state, source.path)
    expected = {key: tensor.shape for key, tensor in model.state_dict().items()}
    for key, shape in expected.items():
        if (found := state[key].shape if key in state else None) != shape:
            found = "is missing" if found is None else f"is {list(found)}"
            raise CheckpointError(f"{key!r} of {source.path} {found}, {config} wants {list(shape)}: fetch both again")
    if unknown := state.keys() - expected.keys():
        raise CheckpointError(f"{source.path} holds more than {config} wants, such as {sorted(unknown)[0]!r}")
    model.load_state_dict(state)
    check_facts(facts, model.visual, source.path)
    return model.float().eval()


def text_from_hf(state: Mapping[str, Tensor], blocks: int, owner: object) -> tuple[dict[str, Tensor], set[str]]:
    """open_clip's text tower, projection and logit scale of a CLIPModel.

    Arguments:
        state: its state dict.
        blocks: how many transformer blocks the tower has.
        owner: for messages.

    Returns:
        Name → tensor, and the names used of the state dict.

    Raises:
        CheckpointError: where a tensor is missing.
    """
    names = {name: (f"text_model.{theirs}",) for name, theirs in _WORDS.items()}
    for name in resblock_names(blocks):
        names[name] = tuple(f"text_model.{theirs}" for theirs in hf_names(name))
    names |= {"text_projection": ("text_projection.weight",), "logit_scale": ("logit_scale",)}
    tower = {}
    for name, theirs in names.items():
        if missing := [key for key in theirs if key not in state]:
            raise CheckpointError(f"{owner} lacks {missing[0]!r} of a whole CLIPModel: a base has both towers")
        parts = [state[key] for key in theirs]
        tower[name] = torch.cat(parts) if len(parts) > 1 else parts[0]
    tower["text_projection"] = tower["text_projection"].t().contiguous()
    return tower, {key for theirs in names.values() for key in theirs}


def _model(config: Path) -> nn.Module:
    """The model that a config.json describes, with weights drawn at random."""
    open_clip = import_open_clip()
    settings = json.loads(config.read_text(encoding="utf-8"))
    try:
        vision, text = tower_config(settings, "vision"), tower_config(settings, "text")
        if text["hidden_act"] != vision["hidden_act"] or vision["hidden_act"] not in ("quick_gelu", "gelu"):
            raise ValueError(f"activations {vision['hidden_act']!r} and {text['hidden_act']!r}")
        if float(text["layer_norm_eps"]) != 1e-5:
            raise ValueError(f"layer_norm_eps {text['layer_norm_eps']} of the text tower")
        return open_clip.CLIP(
            embed_dim=settings.get("projection_dim", 512),
            quick_gelu=vision["hidden_act"] == "quick_gelu",
            vision_cfg=open_clip.model.CLIPVisionCfg(
                head_width=vision["hidden_size"] // vision["num_attention_heads"],
                patch_size=vision["patch_size"], image_size=vision["image_size"], **_sizes(vision),
            ),
            text_cfg=open_clip.model.CLIPTextCfg(
                heads=text["num_attention_heads"], vocab_size=text["vocab_size"],
                context_length=text["max_position_embeddings"], **_sizes(text),
            ),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{config} describes no CLIP model that open_clip's ViT can stand for: {error}"
        ) from error


def _sizes(tower: Mapping[str, Any]) -> dict[str, Any]:
    width = tower["hidden_size"]
    return {"width": width, "layers": tower["num_hidden_layers"], "mlp_ratio": tower["intermediate_size"] / width}
