"""Pre-trained CLIP models through open_clip, with the activation that they were trained with."""

from __future__ import annotations

import difflib
import os
import warnings

from torch import nn

from ..runtime.compat import import_open_clip
from ..state import CheckpointError
from .tower import facts_of

_ACTIVATION = {True: "quick_gelu", False: "gelu"}


def load_base(
    config: str,
    pretrained: str | os.PathLike[str] = "openai",
    *,
    activation: str = "quick_gelu",
    cache: str | None = None,
) -> nn.Module:
    """A CLIP model with both towers, on the CPU, in float32 and evaluation mode.

    open_clip's plain configurations, such as ``ViT-B-32``, have GELU; OpenAI's weights were trained with QuickGELU and
    lose accuracy without it. open_clip warns of the mismatch at most; here it is an error.

    Arguments:
        config: name of an open_clip configuration, such as ``ViT-B-32-quickgelu``.
        pretrained: open_clip's name of the weights, or a file of them.
        activation: what the weights were trained with, ``quick_gelu`` or ``gelu``.
        cache: folder for downloads, open_clip's own by default.

    Raises:
        CheckpointError: for a configuration that is unknown or has another activation, or weights that cannot be had.
    """
    open_clip = import_open_clip()
    if (settings := open_clip.get_model_config(config)) is None:
        near = difflib.get_close_matches(config, open_clip.list_models(), 1)
        hint = f"did you mean {near[0]!r}?" if near else "open_clip.list_models() lists all"
        raise CheckpointError(f"open_clip has no configuration {config!r}: {hint}")
    if not isinstance(settings["vision_cfg"].get("layers"), int):
        raise CheckpointError(f"the vision tower of {config!r} is no plain ViT: choose one such as ViT-B-32-quickgelu")
    if (has := _ACTIVATION[bool(settings.get("quick_gelu"))]) != activation:
        other = f"{config}-quickgelu" if activation == "quick_gelu" else config.removesuffix("-quickgelu")
        raise CheckpointError(f"{config!r} has {has}, the weights were trained with {activation}: use {other!r}")
    weights = os.fspath(pretrained)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="QuickGELU mismatch")
        try:
            model = open_clip.create_model(config, pretrained=weights, cache_dir=cache)
        except UserWarning as error:
            raise CheckpointError(f"{error} Choose the configuration that the weights were trained with") from error
        except Exception as error:  # whatever the hub, torch and safetensors meet
            hub = (open_clip.get_pretrained_cfg(config, weights) or {}).get("hf_hub")
            file = f" such as open_clip_model.safetensors of {hub} on the Hugging Face Hub" if hub else ""
            raise CheckpointError(
                f"weights {weights!r} of {config!r} cannot be loaded ({_first_line(error)}); give the path of a file"
                f"{file}"
            ) from error
    if (has := facts_of(model.visual)["activation"]) != activation:
        raise CheckpointError(f"{config!r} was built with {has}, the weights were trained with {activation}")
    return model.eval()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
