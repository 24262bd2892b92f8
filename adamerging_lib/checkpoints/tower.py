"""The CLIP vision tower as open_clip names its tensors: the one form that every published checkpoint is read into."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from torch import Tensor, nn

from ..layers import RESBLOCKS, TEXT_AFTER, TEXT_BEFORE, VISUAL, tower_names
from ..state import CheckpointError, StateDict
from .formats import Format

T = TypeVar("T")

_TEXT = re.compile("|".join([r"transformer\..*", "attn_mask", "logit_bias", *map(re.escape, TEXT_BEFORE + TEXT_AFTER)]))
_BLOCK = re.compile(re.escape(RESBLOCKS) + r"(\d+)\.")
_ACTIVATIONS = {"QuickGELU": "quick_gelu", "GELU": "gelu"}


def find_tower(keys: Iterable[str]) -> str | None:
    """What stands before the tower's own tensor names (``model.visual.``, ``visual.``, nothing), or None."""
    keys = set(keys)
    found = [key.removesuffix("conv1.weight") for key in keys if key.endswith("conv1.weight")]
    found = [prefix for prefix in found if {f"{prefix}class_embedding", f"{prefix}ln_pre.weight"} <= keys]
    return found[0] if len(found) == 1 else None


def take_tower(state: Mapping[str, T], prefix: str, owner: object) -> tuple[dict[str, T], tuple[str, ...]]:
    """The vision tower of an open_clip model, under its own names.

    Arguments:
        state: name → tensor, or whatever stands for one.
        prefix: of `find_tower`.
        owner: for messages.

    Returns:
        The tower in open_clip's order (``proj`` may be missing), and the names of the text tensors that are dropped.

    Raises:
        CheckpointError: where tensors of the tower are missing, or others are there than a CLIP ViT has.
    """
    own = {key.removeprefix(prefix): key for key in state if key.startswith(prefix)}
    rest = [key for key in state if not key.startswith(prefix)]
    model = prefix.removesuffix(VISUAL)
    unknown = [key for key in rest if prefix == model or not _is_text(key, model)]
    tower = {name: state[key] for name, key in ordered_tower(own, owner).items()}  # text is not even read
    if unknown:
        raise CheckpointError(
            f"{owner} holds tensors beside an image encoder, such as {unknown[0]!r}: save the image encoder alone"
        )
    return tower, tuple(rest)


def _is_text(key: str, model: str) -> bool:
    return key.startswith(model) and bool(_TEXT.fullmatch(key.removeprefix(model)))


def ordered_tower(own: Mapping[str, T], owner: object) -> dict[str, T]:
    """Tensors of a tower in open_clip's order.

    Raises:
        CheckpointError: where names are missing or unknown; only the projection ``proj`` may be missing.
    """
    blocks = {int(found[1]) for key in own if (found := _BLOCK.match(key))}
    names = tower_names(max(blocks, default=-1) + 1)
    missing = sorted(set(names) - own.keys() - {"proj"})
    unknown = sorted(own.keys() - set(names))
    if missing or unknown or not blocks:
        raise CheckpointError(
            f"{owner} is not a CLIP ViT: {_few('it lacks', missing or [f'{RESBLOCKS}0'] * (not blocks))}"
            f"{_few('it has', unknown)}; only ViT towers such as B/32, B/16 and L/14 can be read"
        )
    return {name: own[name] for name in names if name in own}


def _few(what: str, names: list[str]) -> str:
    return f"{what} {', '.join(names[:3])}{' and more' if len(names) > 3 else ''} " if names else ""


def describe(tower: StateDict) -> str:
    """Its architecture in words, from the shapes."""
    width, _, patch, _ = tower["conv1.weight"].shape
    blocks = max(int(found[1]) for key in tower if (found := _BLOCK.match(key))) + 1
    tokens = len(tower["positional_embedding"])
    return f"a ViT of {blocks} blocks, width {width}, {patch}-pixel patches and {tokens} tokens"


def complete(tower: StateDict, base: StateDict, owner: object) -> dict[str, Tensor]:
    """A tower made fit to be merged with its base: in the base's order, and with the base's projection if it has none.

    Experts saved as ``CLIPVisionModel`` hold no projection. It was frozen while they were fine-tuned, so that the
    base's projection is theirs, and its task vector is zero.

    Arguments:
        tower: the expert's tensors.
        base: the tower that it was fine-tuned from, with a projection.
        owner: for messages.

    Raises:
        CheckpointError: where the two are of different architectures.
    """
    if "proj" not in base:
        raise CheckpointError("the base has no projection 'proj': give the full CLIP model as base")
    whole = {"proj": base["proj"], **tower}
    shapes = {key: t.shape for key, t in whole.items()}
    if shapes != {key: t.shape for key, t in base.items()}:
        mine, theirs = describe(tower), describe(base)
        if mine == theirs:
            key = next(key for key in {**base, **whole} if key not in whole or shapes[key] != base[key].shape)
            mine, theirs = (f"{key!r} {list(s[key].shape) if key in s else 'missing'}" for s in (whole, base))
        raise CheckpointError(f"{owner} is {mine}, its base is {theirs}: take both of one architecture")
    return {key: whole[key] for key in base}


def facts_of(encoder: nn.Module) -> dict[str, str]:
    """What the tensors of an open_clip vision tower do not tell: ``activation`` and ``heads``."""
    block = encoder.transformer.resblocks[0]
    return {"activation": activation(type(block.mlp.gelu).__name__), "heads": str(block.attn.num_heads)}


def activation(class_name: str) -> str:
    """``quick_gelu``, ``gelu``, or the class name of another activation."""
    return _ACTIVATIONS.get(class_name, class_name)


def check_facts(facts: Mapping[str, str], encoder: nn.Module, owner: object) -> None:
    """Raise CheckpointError where a checkpoint is for another activation or number of heads than the encoder's.

    Such a checkpoint loads without complaint and gives wrong features. Of what it does not tell, nothing is checked.
    """
    for what, expected in facts_of(encoder).items():
        if facts.get(what, expected) != expected:
            raise CheckpointError(
                f"{owner} was made for {what} {facts[what]!r}, the encoder has {expected!r}"
                + ("; OpenAI's weights need a '-quickgelu' configuration of open_clip" if what == "activation" else "")
            )


FORMAT = Format(
    "task_vectors",
    "an image encoder of open_clip",
    lambda keys: find_tower(keys) is not None,
    lambda state, owner: take_tower(state, find_tower(state), owner),
)
