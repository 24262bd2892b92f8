"""Published checkpoints of every format as one thing: tensors by name, and what else is known of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..files.checkpoint import CheckpointFile
from ..files.kinds import is_mask
from ..files.located import INDEX, PICKLED, Located, locate
from ..files.signatures import foreign, is_pickled, is_safetensors
from ..layers import RESBLOCKS, VISUAL
from ..state import CheckpointError, StateDict, is_finite, is_merged, sha256
from . import huggingface, tower
from .formats import Format
from .huggingface import config_facts
from .inert import Record
from .pickles import PickledFile, StoredTensors
from .tower import activation, check_facts, complete
from .weights import find_weights

PathLike = str | os.PathLike[str]
FACTS = ("activation", "heads")
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
        tensors: name → tensor, read from disk when asked for; ``layout`` of it tells shapes and types.
        entries: names of what is in the file beside tensors.
        key: the entry that the tensors are of; empty for the top.
        known: what the file tells beyond the tensors, see `tower.facts_of`.
        config: a ``config.json`` that may tell more.
        attributes: of a pickled module.
    """

    path: Path
    files: tuple[Path, ...]
    tensors: CheckpointFile | StoredTensors | _Joined
    entries: tuple[str, ...] = ()
    key: str = ""
    known: Mapping[str, str] = field(default_factory=dict)
    config: Path | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, str]:
        """What is known beyond the tensors; CheckpointError where the ``config.json`` is of no CLIP ViT.

        Only a vision tower asks for them: any other model may have any other configuration.
        """
        return (config_facts(self.config) if self.config else {}) | dict(self.known)

    def digests(self) -> dict[str, str]:
        """File name → SHA-256."""
        return {file.name: sha256(file) for file in self.files}


def open_source(path: PathLike, key: str | None = None) -> Source:
    """Open a checkpoint, whatever its files are called: safetensors, or files of torch.save; one, several, a folder.

    Arguments:
        path: file, index or folder.
        key: of a file of torch.save: the entry to take whole, see `weights.find_weights`.

    Raises:
        CheckpointError: naming the file and the mend; see `PickledFile` for those that want to run something.
    """
    located = locate(path)
    pickled = [file for file in located.files if _is_pickled(file)]
    if pickled:
        if len(pickled) < len(located.files):
            raise CheckpointError(
                f"{located.path} is of files of two formats, {pickled[0].name} is a pickle: fetch one format whole"
            )
        return _pickled(located, key)
    if key is not None:
        raise CheckpointError(f"{located.path} is not a file of torch.save, it has no entries: leave --key out")
    file = CheckpointFile(path)
    known = {name: file.metadata[name] for name in FACTS if name in file.metadata}
    return Source(file.path, file.files, file, known=known, config=_config(file.path))


def _is_pickled(file: Path) -> bool:
    # A file of torch.save that is broken at its very beginning is still to be told as one.
    named = file.name.endswith(PICKLED) and not is_safetensors(file) and not foreign(file)
    return named or is_pickled(file)


def _config(path: Path) -> Path:
    return path.with_name("config.json")


def _pickled(located: Located, key: str | None) -> Source:
    parts: dict[Path, tuple[StoredTensors, tuple[str, ...] | None]] = {}
    entries: dict[str, None] = {}
    for path, names in located.files.items():
        file = PickledFile(path)
        weights = find_weights(file.content, path, key)
        parts[path] = StoredTensors(file, weights.tensors), names
        entries.update(dict.fromkeys(weights.entries))
    config = _config(located.path) if ".bin" in (located.path.suffix, *located.path.suffixes) else None
    if len(parts) == 1:
        whole = weights.modules.get("")
        return Source(
            path, (path,), parts[path][0], tuple(entries), weights.key, _module_facts(weights.modules), config,
            whole.attributes if whole else {},
        )  # fmt: skip
    return Source(located.path, tuple(parts), _Joined(parts, located.path), tuple(entries), weights.key, config=config)


class _Joined(Mapping[str, Tensor]):
    """The tensors of several files as one checkpoint's; the names that an index gives for each, or all."""

    def __init__(self, parts: Mapping[Path, tuple[StoredTensors, tuple[str, ...] | None]], path: Path) -> None:
        self._part: dict[str, StoredTensors] = {}
        self.layout: dict[str, Tensor] = {}
        """Tensor name → tensor on ``meta``: shape and dtype."""
        for file, (tensors, names) in parts.items():
            for key in tensors if names is None else names:
                if key not in tensors:
                    raise CheckpointError(f"{file} lacks {key!r}, which {path} promises: fetch both again")
                if key in self._part:
                    raise CheckpointError(
                        f"{key!r} lies in two of the files beside {path.name}, and no index says which of them counts: "
                        f"fetch the {INDEX} of {path.parent}"
                    )
                self._part[key], self.layout[key] = tensors, tensors.layout[key]

    def __getitem__(self, key: str) -> Tensor:
        return self._part[key][key]

    def __contains__(self, key: object) -> bool:  # Mapping's own would read the tensor
        return key in self._part

    def __iter__(self) -> Iterator[str]:
        return iter(self._part)

    def __len__(self) -> int:
        return len(self._part)


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
        CheckpointError: where the source is not an image encoder with a CLIP ViT, or holds NaN or Inf.
    """
    if (found := _format(source)) is None:
        raise CheckpointError(f"{source.path} is not a CLIP image encoder; it holds {first_names(source)}")
    tensors, dropped = found.tower(source.tensors, source.path)
    check_finite(tensors, source.path)
    return tensors, dropped


def check_finite(tensors: StateDict, path: Path) -> None:
    """Raise CheckpointError where a number is NaN or Inf, except in masks of −∞."""
    for key, tensor in tensors.items():
        if is_merged(tensor) and not is_finite(tensor) and not is_mask(tensor):
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
        CheckpointError: where it is not a head, or one that does not compute W f / ‖f‖.
    """
    return head_weight(open_source(path))


def head_weight(source: Source) -> Tensor:
    """See `load_head`."""
    if recognise(source) != HEAD or (weight := source.tensors["weight"]).ndim != 2:
        raise CheckpointError(f"{source.path} is not a classification head; it holds {first_names(source)}")
    if not source.attributes.get("normalize", True):
        raise CheckpointError(f"{source.path} does not normalise features, zero-shot heads do: take one that does")
    if "bias" in source.tensors and bool(source.tensors["bias"].any()):
        raise CheckpointError(f"{source.path} has a bias that is not zero, zero-shot heads have none")
    check_finite({"weight": weight}, source.path)
    return weight.float().contiguous()
