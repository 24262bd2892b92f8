"""Small CLIP models with random weights, in the classes and files that real ones are published in."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from adamerging_lib.checkpoints.huggingface import hf_names
from adamerging_lib.runtime.compat import import_open_clip

open_clip = import_open_clip()

GENUINE = ("2_0_2", "2_24_0")  # the open_clip releases of tests/genuine


def clip(seed: int = 0, *, layers: int = 2, width: int = 16, quick_gelu: bool = True) -> nn.Module:
    """A CLIP with heads of width 8, 4-pixel patches of 8-pixel images and features of size 6."""
    vision = open_clip.model.CLIPVisionCfg(layers=layers, width=width, head_width=8, patch_size=4, image_size=8)
    text = open_clip.model.CLIPTextCfg(context_length=4, vocab_size=10, width=8, heads=2, layers=1)
    model = open_clip.CLIP(embed_dim=6, vision_cfg=vision, text_cfg=text, quick_gelu=quick_gelu)
    return randomised(model, seed)


def randomised(model: nn.Module, seed: int) -> nn.Module:
    """Every parameter drawn anew: fresh layer norms are all alike, and would hide that two were exchanged."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    return model.eval()


def to_hf(tower: Mapping[str, Tensor], prefix: str = "vision_model.") -> dict[str, Tensor]:
    """open_clip's vision tower as Hugging Face writes it: the inverse of `from_hf`.

    Arguments:
        tower: ``proj`` becomes ``visual_projection.weight``, where it is there.
        prefix: ``vision_model.`` for CLIPVisionModelWithProjection and for transformers 4; empty for CLIPVisionModel
            of transformers 5.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in tower.items():
        if name != "proj":
            theirs = hf_names(name)
            state |= {prefix + n: part.clone() for n, part in zip(theirs, tensor.chunk(len(theirs)), strict=True)}
    if "proj" in tower:
        state["visual_projection.weight"] = tower["proj"].t().contiguous()
    return state


def images(count: int = 3, size: int = 8) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


class ImageEncoder(nn.Module):
    """As task_vectors saves it, named like theirs."""

    def __init__(self, model: nn.Module, *, keep_text: bool = False) -> None:
        super().__init__()
        self.model, self.cache_dir = model, None
        self.train_preprocess = open_clip.image_transform(8, is_train=True)
        self.val_preprocess = open_clip.image_transform(8, is_train=False)
        if not keep_text:
            del self.model.transformer


class ClassificationHead(nn.Linear):
    def __init__(self, weight: Tensor, *, normalize: bool = True, bias: float = 0.0) -> None:
        super().__init__(*reversed(weight.shape))
        self.normalize = normalize
        self.weight = nn.Parameter(weight.clone())
        self.bias = nn.Parameter(torch.full_like(self.bias, bias))


def pickled(monkeypatch, path, module: nn.Module, *, legacy: bool = False):
    """Save a whole module under the name of task_vectors' classes, in either of torch.save's formats."""
    modeling = types.ModuleType("src.modeling")
    for cls in (ImageEncoder, ClassificationHead):
        monkeypatch.setattr(cls, "__module__", "src.modeling")
        setattr(modeling, cls.__name__, cls)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "src", types.ModuleType("src"))
        patch.setitem(sys.modules, "src.modeling", modeling)
        torch.save(module, path, _use_new_zipfile_serialization=not legacy)
    return path
