"""Published checkpoints of every format as one thing: tensors by name, and what else is known of them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..files.checkpoint import CheckpointFile
from ..layers import RESBLOCKS, VISUAL
from ..state import CheckpointError, StateDict, is_finite, is_merged, sha256
from . import huggingface, tower
from .formats import Format
from .huggingface import config_facts
from .machine import Record, Stored
from .pickles import PickledFile, StoredTensors, open_module
from .tower import activation, check_facts, complete

T = TypeVar("T")
PathLike = str | os.PathLike[str]
FACTS = ("activation", "heads")
_NESTED = ("state_dict", "model_state_dict", "model")  # where training checkpoints keep their weights
_BIN = "pytorch_model.bin"
FORMATS = (
    huggingface.FORMAT,
    tower.FORMAT,
)
"""Formats of image encoders; the first that fits counts."""
HEAD = "head"


@dataclass(frozen=True)
class Source:
    """A checkpoint, opened.

    Arguments:
        path: its file, or the index of its files.
        files: all its files.
        tensors: name → tensor, read from disk when asked for.
        entries: names of what is in the file beside tensors.
        facts: what is known beyond the tensors, see `tower.facts_of`.
        attributes: of a pickled module.
    """

    path: Path
    files: tuple[Path, ...]
    tensors: Mapping[str, Tensor]
    entries: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def digests(self) -> dict[str, str]:
        """File name → SHA-256."""
        return {file.name: sha256(file) for file in self.files}


def open_source(path: PathLike, *, facts: bool = True) -> Source:
    """Open a checkpoint: safetensors (one file, several, a folder), ``pytorch_model.bin``, or a file of torch.save.

    Arguments:
        path: file or folder.
        facts: whether a config.json beside it is read for what image encoders need, and refused where it names another
            kind of model.

    Raises:
        CheckpointError: naming the file and the mend; see `PickledFile` for those that want to run something.
    """
    path = Path(path)
    if path.is_dir() and not any((path / f"model.safetensors{end}").is_file() for end in ("", ".index.json")):
        if not (path / _BIN).is_file():
            raise CheckpointError(f"{path} holds neither model.safetensors nor {_BIN}: name the file")
        path = path / _BIN
    if path.suffix == ".bin":
        return _bin(path, facts)
    if path.is_dir() or path.name.endswith((".safetensors", ".safetensors.index.json")):
        file = CheckpointFile(path)
        known = {name: file.metadata[name] for name in FACTS if name in file.metadata}
        return Source(file.path, file.files, file, facts=(_config(file.path) if facts else {}) | known)
    return _pickled(path)


def _config(path: Path) -> dict[str, str]:
    return config_facts(path.with_name("config.json"))


def _bin(path: Path, facts: bool) -> Source:
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: check the path")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return _pickled(path)  # a whole module, or worse: it says by name what it wants
    except Exception as error:  # whatever torch meets in half a file
        raise CheckpointError(
            f"{path} is not a readable {_BIN} ({type(error).__name__}); it may be cut short: fetch it again"
        ) from error
    tensors, entries = _state_dict(content, Tensor, path)
    return Source(path, (path,), tensors, entries, _config(path) if facts else {})


def _pickled(path: Path) -> Source:
    file = PickledFile(path)
    if isinstance(file.content, Record):
        tensors, modules = open_module(file.content, path)
        attributes = file.content.attributes
        return Source(path, (path,), StoredTensors(file, tensors), (), _module_facts(modules), attributes)
    tensors, entries = _state_dict(file.content, Stored, path)
    return Source(path, (path,), StoredTensors(file, tensors), entries)


def _state_dict(content: Any, kind: type[T], path: Path) -> tuple[dict[str, T], tuple[str, ...]]:
    """The tensors of a state dict, or of one inside a training checkpoint; and the names of everything else."""
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a model or a state dict")
    within = next((name for name in _NESTED if isinstance(content.get(name), Mapping)), None)
    state = content if within is None else content[within]
    entries = [key for key in content if key != within] if within else []
    tensors = {str(key): value for key, value in state.items() if isinstance(value, kind)}
    return tensors, (*map(str, entries), *(str(key) for key in state if str(key) not in tensors))


def _module_facts(modules: Mapping[str, Record]) -> dict[str, str]:
    facts = {}
    for path, module in modules.items():
        if path.endswith(f"{VISUAL}{RESBLOCKS}0.attn"):
            facts["heads"] = str(module.attributes.get("num_heads"))
        elif path.endswith(f"{VISUAL}{RESBLOCKS}0.mlp.gelu"):
            facts["activation"] = activation(module.name.name)
    return facts


def recognise(source: Source) -> str | None:
    """The kind of one of ``FORMATS``, ``head``, or None: what a checkpoint is, by the names of its tensors."""
    if (found := _format(source)) is not None:
        return found.kind
    return HEAD if set(source.tensors) in ({"weight"}, {"weight", "bias"}) else None


def _format(source: Source) -> Format | None:
    return next((known for known in FORMATS if known.found(source.tensors)), None)


def vision_tower(source: Source) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """open_clip's vision tower of an image encoder in any published format, and the names of the tensors dropped.

    Raises:
        CheckpointError: where the source is no image encoder with a CLIP ViT, or holds NaN or Inf.
    """
    if (found := _format(source)) is None:
        raise CheckpointError(f"{source.path} is no CLIP image encoder; it holds {first_names(source)}")
    tensors, dropped = found.tower(source.tensors, source.path)
    check_finite(tensors, source.path)
    return tensors, dropped


def check_finite(tensors: StateDict, path: Path) -> None:
    """Raise CheckpointError where a number is NaN or Inf."""
    for key, tensor in tensors.items():
        if is_merged(tensor) and not is_finite(tensor):
            raise CheckpointError(f"{key!r} of {path} holds NaN or Inf: the checkpoint is broken, fetch it again")


def first_names(source: Source) -> str:
    """A few names of its tensors, for messages."""
    return ", ".join(list(source.tensors)[:3]) or "no tensors"


def load_encoder(path: PathLike, encoder: nn.Module, base: StateDict | None = None) -> dict[str, Tensor]:
    """The state dict of a published image encoder, ready to be merged.

    Arguments:
        path: a checkpoint in any published format, or one that `convert` wrote.
        encoder: open_clip's vision tower that it will run in.
        base: state dict of the tower that it was fine-tuned from: gives the projection where the checkpoint has none.
            None for the base itself, which must hold one.

    Returns:
        Name → tensor, in the order of the base (or the encoder).

    Raises:
        CheckpointError: of another architecture, activation or number of heads; broken; or wanting to run something.
    """
    source = open_source(path)
    tensors, _ = vision_tower(source)
    if base is None and "proj" not in tensors:
        raise CheckpointError(f"{source.path} has no projection: give the base that it was fine-tuned from")
    state = complete(tensors, encoder.state_dict() if base is None else base, source.path)
    check_facts(source.facts, encoder, source.path)
    return state


def load_head(path: PathLike) -> Tensor:
    """The weight ``[classes, dim]`` of a published classification head, already times exp(logit_scale).

    Arguments:
        path: ``head_*.pt`` (a whole module or a state dict), or one that `convert` wrote.

    Raises:
        CheckpointError: where it is no head, or one that does not compute W f / ‖f‖.
    """
    return head_weight(open_source(path))


def head_weight(source: Source) -> Tensor:
    """See `load_head`."""
    if recognise(source) != HEAD or (weight := source.tensors["weight"]).ndim != 2:
        raise CheckpointError(f"{source.path} is no classification head; it holds {first_names(source)}")
    if not source.attributes.get("normalize", True):
        raise CheckpointError(f"{source.path} does not normalise features, zero-shot heads do: take one that does")
    if "bias" in source.tensors and bool(source.tensors["bias"].any()):
        raise CheckpointError(f"{source.path} has a bias that is not zero, zero-shot heads have none")
    check_finite({"weight": weight}, source.path)
    return weight.float().contiguous()
