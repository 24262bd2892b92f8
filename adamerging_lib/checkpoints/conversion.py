"""Published checkpoints as safetensors files, once and for all."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

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
_WORDS = {**_ENCODERS, HEAD: "a classification head", "state_dict": "a state dict"}
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
            keeps every tensor of any model under its own name; ``auto`` finds out which of the first three it is.
        key: of a file of torch.save: the entry that holds the weights, dotted where entries lie within entries; ``.``
            is all that the file holds. Without, it is found where only one can be meant, see `weights.find_weights`.
        base: the converted base of an image encoder that holds no projection, to take it from. Without, the target
            has none either, and `load_encoder` takes it from the base it is given.
        drop: with ``state_dict``: patterns of names of tensors to leave out, see `names.dropped`.
        strip: with ``state_dict``: a prefix to take off the names of those that are left, see `names.strip`.
        force: replace a target that exists.

    Returns:
        What was done.

    Raises:
        CheckpointError: the source is broken, not of the kind, holds no weights, or wants to call something.
        ValueError: the target exists, is the source, or is no ``.safetensors`` file; the disk is too small.
    """
    target = given(target)
    one_of("kind", kind, KINDS)
    if target.suffix != ".safetensors" or target.is_dir():
        raise ValueError(f"{target} should be a file that ends in .safetensors, which is what is written")
    opened = open_source(source, key)
    if target.resolve() in [file.resolve() for file in opened.files]:
        raise ValueError(f"{target} is the source: choose another file to write")
    check_free(target, force)
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


def _kind(opened: Source, kind: str) -> str:
    found = recognise(opened)
    if kind == "auto" and found is None:
        raise CheckpointError(
            f"{opened.path} is no CLIP image encoder or head; it holds {first_names(opened)}. {_ALL}"
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
