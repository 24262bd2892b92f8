"""Published checkpoints as safetensors files, once and for all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..adapters.expert import load_adapter
from ..adapters.names import refusal
from ..adapters.source import is_adapter
from ..files.checkpoint import check_room
from ..runtime.values import one_of
from ..state import CheckpointError, save
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


@dataclass(frozen=True)
class Conversion:
    """What was converted.

    Arguments:
        source: the checkpoint's file, or the index of its files.
        target: the file written.
        kind: what the source is, see `convert`.
        tensors, numbers: how many the target holds.
        dropped: names of what the source holds and the target does not.
        facts: what was found out beyond the tensors: activation, heads.
        digests: file name → SHA-256 of the source.
    """

    source: Path
    target: Path
    kind: str
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
    source: PathLike, target: PathLike, *, kind: str = "auto", base: PathLike | None = None, force: bool = False
) -> Conversion:
    """Write a published checkpoint as a safetensors file, with where it comes from; nothing of it is executed.

    Arguments:
        source: file or folder.
        target: ``.safetensors`` file to write.
        kind: ``hf`` (a Hugging Face CLIP vision model) and ``task_vectors`` (an open_clip image encoder, a whole module
            or a state dict) become open_clip's vision tower; ``head`` a classification head's weight; ``state_dict``
            keeps every tensor of any model under its own name; ``adapter`` becomes its base with the adapter merged
            into it; ``auto`` finds out which it is, ``state_dict`` apart.
        base: of an adapter, the model that it changes. Of an image encoder that holds no projection, its converted
            base, to take it from; without, the target has none either, and `load_encoder` takes it from the base it is
            given.
        force: replace a target that exists.

    Returns:
        What was done.

    Raises:
        CheckpointError: the source is broken, not of the kind, or wants to call something.
        ValueError: the target exists, is the source, or is no ``.safetensors`` file; the disk is too small.
    """
    target = Path(target)
    one_of("kind", kind, KINDS)
    if target.suffix != ".safetensors":
        raise ValueError(f"{target} should end in .safetensors, which is what is written")
    if is_adapter(source):
        return _convert_adapter(Path(source), target, kind, base, force)
    opened = open_source(source)
    if problem := refusal(opened.tensors, str(opened.path)):
        raise CheckpointError(problem)
    _check_target(target, opened.files, force)
    found = recognise(opened)
    if kind == "auto" and found is None:
        raise CheckpointError(
            f"{opened.path} is no CLIP image encoder or head; it holds {first_names(opened)}. To keep all tensors "
            f"under their own names: --kind state_dict"
        )
    if kind not in ("auto", "state_dict", found):  # ``adapter`` too: it would have been found
        raise CheckpointError(f"{opened.path} is not of kind {kind!r}; it looks like {found or 'none that is known'}")
    kind = found if kind == "auto" else kind
    tensors, dropped = _tensors(opened, kind, base)
    check_room(target, sum(t.nbytes for t in tensors.values()))
    report = Conversion(
        opened.path, target, kind, len(tensors), sum(t.numel() for t in tensors.values()),
        (*dropped, *opened.entries), opened.facts if kind in _ENCODERS else {}, opened.digests(),
    )  # fmt: skip
    save(target, tensors, _metadata(report))
    return report


def _check_target(target: Path, sources: Iterable[Path], force: bool) -> None:
    if target.resolve() in [file.resolve() for file in sources]:
        raise ValueError(f"{target} is the source: choose another file to write")
    if target.exists() and not force:
        raise ValueError(f"{target} exists: choose another file, or replace it with --force (force=True)")


def _convert_adapter(source: Path, target: Path, kind: str, base: PathLike | None, force: bool) -> Conversion:
    """Write the base with the adapter merged into it."""
    if kind not in ("auto", ADAPTER):
        raise CheckpointError(f"{source} is an adapter, whose factors are no model of kind {kind!r}: leave out --kind")
    if base is None:
        raise CheckpointError(
            f"{source} is an adapter, not a model: to write its base with the adapter merged into it, name the base, "
            f"--base FILE; to merge it with others, give both to adamerging merge, --pretrained BASE --expert "
            f"NAME={source}"
        )
    expert = load_adapter(source, base)
    _check_target(target, [*expert.files, *getattr(expert.base, "files", ())], force)
    check_room(target, sum(t.nbytes for t in expert.layout.values()))
    tensors = dict(expert)
    check_finite(tensors, expert.path)
    numbers = sum(t.numel() for t in tensors.values())
    report = Conversion(expert.path, target, ADAPTER, len(tensors), numbers, (), {}, expert.digests())
    save(target, tensors, _metadata(report))
    return report


def _tensors(opened: Source, kind: str, base: PathLike | None) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    if base is not None and kind not in _ENCODERS:
        raise ValueError(f"a base gives a projection to an image encoder; a checkpoint of kind {kind!r} needs none")
    if kind == HEAD:
        return {"weight": head_weight(opened)}, tuple(key for key in opened.tensors if key != "weight")
    if kind == "state_dict":
        tensors = dict(opened.tensors)
        check_finite(tensors, opened.path)
        return tensors, ()
    tower, dropped = vision_tower(opened)
    if base is not None and "proj" not in tower:
        tower = complete(tower, vision_tower(open_source(base))[0], opened.path)
    return tower, dropped


def _metadata(report: Conversion) -> dict[str, str]:
    from .. import __version__

    return {
        "format": "pt",  # without it transformers does not load the file
        "library": f"adamerging_lib {__version__}",
        "kind": report.kind,
        "source": json.dumps(report.digests),
        "dropped": json.dumps(report.dropped),
        **report.facts,
    }
