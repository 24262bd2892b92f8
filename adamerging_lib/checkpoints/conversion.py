"""Published checkpoints as safetensors files, once and for all."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..adapters.expert import load_adapter
from ..adapters.names import refusal
from ..adapters.source import is_adapter
from ..files.checkpoint import check_free, check_room, writing
from ..files.header import format_of
from ..files.kinds import layout_of
from ..files.names import dropped, strip
from ..runtime.places import given
from ..runtime.values import one_of
from ..state import CheckpointError
from .reading import (
    FORMATS,
    HEAD,
    PathLike,
    Source,
    check_finite,
    first_names,
    head_weight,
    open_source,
    recognise,
    vision_tower,
)
from .tower import complete

_ENCODERS = {known.kind: known.words for known in FORMATS}
ADAPTER = "adapter"
_WORDS = {**_ENCODERS, HEAD: "a classification head", "state_dict": "a state dict", ADAPTER: "an adapter of a base"}
KINDS = ("auto", *_WORDS)
_ALL = "To keep all tensors under their own names: --kind state_dict"


@dataclass(frozen=True)
class Conversion:
    """What was converted.

    Arguments:
        source: the checkpoint's file, or the index of its files.
        target: the file written.
        kind: what the source is, see `convert`.
        key: the entry of the source that the tensors were taken from; empty for the top.
        tensors, numbers: how many the target holds.
        dropped: names of what the source holds and the target does not.
        facts: what was found out beyond the tensors: activation, heads.
        digests: file name → SHA-256 of the source.
    """

    source: Path
    target: Path
    kind: str
    key: str
    tensors: int
    numbers: int
    dropped: tuple[str, ...]
    facts: Mapping[str, str]
    digests: Mapping[str, str]

    @property
    def what(self) -> str:
        """The kind in words."""
        return _WORDS[self.kind]


def convert(
    source: PathLike,
    target: PathLike,
    *,
    kind: str = "auto",
    key: str | None = None,
    base: PathLike | None = None,
    drop: Sequence[str] = (),
    strip: str | None = None,
    force: bool = False,
) -> Conversion:
    """Write a published checkpoint as a safetensors file, with where it comes from; nothing of it is executed.

    Arguments:
        source: file, index of several files, or folder.
        target: ``.safetensors`` file to write.
        kind: ``hf`` (a Hugging Face CLIP vision model) and ``task_vectors`` (an open_clip image encoder, a whole module
            or a state dict) become open_clip's vision tower; ``head`` a classification head's weight; ``state_dict``
            keeps every tensor of any model under its own name; ``adapter`` becomes its base with the adapter merged
            into it; ``auto`` finds out which it is, ``state_dict`` apart.
        key: of a file of torch.save: the entry that holds the weights, dotted where entries lie within entries; ``.``
            is all that the file holds. Without, it is found where only one can be meant, see `weights.find_weights`.
        base: of an adapter, the model that it changes. Of an image encoder that holds no projection, its converted
            base, to take it from; without, the target has none either, and `load_encoder` takes it from the base it is
            given.
        drop: with ``state_dict``: patterns of names of tensors to leave out, see `names.dropped`.
        strip: with ``state_dict``: a prefix to take off the names of those that are left, see `names.strip`.
        force: replace a target that exists.

    Returns:
        What was done.

    Raises:
        CheckpointError: the source is broken, not of the kind, holds no weights, or wants to call something.
        ValueError: the target exists, is the source, or is not a ``.safetensors`` file; the disk is too small.
    """
    target = given(target)
    one_of("kind", kind, KINDS)
    if target.suffix != ".safetensors" or target.is_dir():
        raise ValueError(f"{target} should be a file that ends in .safetensors, which is what is written")
    if is_adapter(source):
        return _convert_adapter(given(source), target, kind, base, force)
    opened = open_source(source, key)
    _check_target(target, opened.files, force)
    if problem := refusal(opened.tensors, str(opened.path)):
        raise CheckpointError(problem)
    kind = _kind(opened, kind)
    if kind != "state_dict" and (drop or strip):
        raise ValueError(f"--drop and --strip change names, which a checkpoint of kind {kind!r} has its own of")
    places, tensors, left_out = _tensors(opened, kind, base, drop, strip)
    if not places:
        what = "nothing of it is left: drop less" if left_out else "it holds no tensors: name the file of the weights"
        raise CheckpointError(f"{opened.path} gives nothing to write: {what}")
    layout = {new: layout_of(tensors)[old] for new, old in places.items()}
    _check_formats(layout, opened.path)
    check_room(target, sum(t.nbytes for t in layout.values()))
    report = Conversion(
        opened.path, target, kind, opened.key, len(layout), sum(t.numel() for t in layout.values()),
        (*left_out, *opened.entries), opened.facts if kind in _ENCODERS else {}, opened.digests(),
    )  # fmt: skip
    with writing(target, layout, _metadata(report)) as put:
        for new, old in places.items():
            tensor = tensors[old]
            check_finite({old: tensor}, opened.path)
            put(new, tensor)
    return report


def _check_target(target: Path, sources: Iterable[Path], force: bool) -> None:
    if os.path.realpath(target) in map(os.path.realpath, sources):
        raise ValueError(f"{target} is the source: choose another file to write")
    check_free(target, force)


def _convert_adapter(source: Path, target: Path, kind: str, base: PathLike | None, force: bool) -> Conversion:
    """Write the base with the adapter merged into it."""
    if kind not in ("auto", ADAPTER):
        raise CheckpointError(
            f"{source} is an adapter, whose factors are not a model of kind {kind!r}: leave out --kind"
        )
    if base is None:
        raise CheckpointError(
            f"{source} is an adapter, not a model: to write its base with the adapter merged into it, name the base, "
            f"--base FILE; to merge it with others, give both to adamerging merge, --pretrained BASE --expert "
            f"NAME={source}"
        )
    expert = load_adapter(source, base)
    _check_target(target, [*expert.files, *getattr(expert.base, "files", ())], force)
    layout = expert.layout
    _check_formats(layout, expert.path)
    check_room(target, sum(t.nbytes for t in layout.values()))
    numbers = sum(t.numel() for t in layout.values())
    report = Conversion(expert.path, target, ADAPTER, "", len(layout), numbers, (), {}, expert.digests())
    with writing(target, layout, _metadata(report)) as put:
        for name, tensor in expert.items():
            check_finite({name: tensor}, expert.path)
            put(name, tensor)
    return report


def _kind(opened: Source, kind: str) -> str:
    found = recognise(opened)
    if kind == "auto" and found is None:
        raise CheckpointError(
            f"{opened.path} is not a CLIP image encoder or head; it holds {first_names(opened)}. {_ALL}"
        )
    if kind not in ("auto", "state_dict", found):
        raise CheckpointError(f"{opened.path} is not of kind {kind!r}; it looks like {found or 'none that is known'}")
    return found if kind == "auto" else kind


Kept = tuple[Mapping[str, str], Mapping[str, Tensor], tuple[str, ...]]
"""New name → old name, old name → tensor, names that are left out."""


def _tensors(opened: Source, kind: str, base: PathLike | None, drop: Sequence[str], prefix: str | None) -> Kept:
    if base is not None and kind not in _ENCODERS:
        raise ValueError(f"a base gives a projection to an image encoder; a checkpoint of kind {kind!r} needs none")
    if kind == "state_dict":
        out = dropped(opened.tensors, drop)
        names = [name for name in opened.tensors if name not in out]
        places = strip(names, prefix) if prefix is not None and names else {name: name for name in names}
        return places, opened.tensors, tuple(name for name in opened.tensors if name in out)
    if kind == HEAD:
        tensors, left_out = {"weight": head_weight(opened)}, tuple(key for key in opened.tensors if key != "weight")
    else:
        tensors, left_out = vision_tower(opened)
        if base is not None and "proj" not in tensors:
            tensors = complete(tensors, vision_tower(open_source(base))[0], opened.path)
    return {name: name for name in tensors}, tensors, left_out


def _check_formats(layout: Mapping[str, Tensor], path: Path) -> None:
    for key, tensor in layout.items():
        if key == "__metadata__" or not key.isascii() and key.encode(errors="ignore").decode() != key:
            raise CheckpointError(f"{path} has a tensor called {key!r}, a name that no safetensors file can hold")
        try:
            format_of(tensor.dtype)
        except ValueError as error:
            mend = f"leave it out with --drop {shlex.quote(key)}, or save it in another type"
            raise CheckpointError(f"{key!r} of {path}: {error}; {mend}") from error


def _metadata(report: Conversion) -> dict[str, str]:
    from .. import __version__

    return {
        "format": "pt",  # without it transformers does not load the file
        "library": f"adamerging_lib {__version__}",
        "kind": report.kind,
        "source": json.dumps(report.digests),
        **({"key": report.key} if report.key else {}),
        "dropped": json.dumps(report.dropped),
        **report.facts,
    }
