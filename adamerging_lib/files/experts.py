"""What is given as the base and as an expert of a merge, opened: checkpoints, and adapters of a base."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from ..adapters.expert import AdapterExpert
from ..adapters.names import refusal
from ..adapters.source import base_name, describe, is_adapter, is_both, open_adapter, ranks_of
from ..runtime.places import given
from ..state import CheckpointError
from .checkpoint import CheckpointFile

PathLike = str | os.PathLike[str]
Expert = CheckpointFile | AdapterExpert


def open_base(path: PathLike) -> CheckpointFile:
    """Open the file of θ0.

    Raises:
        CheckpointError: naming the file and the mend; for an adapter, that it is none.
    """
    path = given(path)
    if is_adapter(path):
        raise CheckpointError(
            f"{path} is an adapter ({describe(path).kind}), not a model: give the base that it changes as --pretrained "
            f"BASE, and the adapter as --expert NAME={path}"
        )
    return _model(path)


def open_expert(path: PathLike, pretrained: CheckpointFile) -> Expert:
    """Open the file of θ_k: a checkpoint, or an adapter of θ0.

    Arguments:
        path: file or folder.
        pretrained: θ0.

    Raises:
        CheckpointError: naming the file and the mend.
    """
    path = given(path)
    if is_adapter(path):
        return AdapterExpert(open_adapter(path), pretrained)
    if is_both(path):
        raise CheckpointError(
            f"{path} holds a whole model and an adapter: name the one that is meant, such as "
            f"{path / 'model.safetensors'} or {path / 'adapter_model.safetensors'}"
        )
    return _model(path)


def adapter_notes(experts: Mapping[str, Expert]) -> tuple[str, ...]:
    """What the adapters among experts are, a sentence each."""
    notes = []
    for task, expert in experts.items():
        if isinstance(expert, AdapterExpert):
            ranks = sorted(set(ranks_of(expert.source).values())) or [0]
            rank = " to ".join(str(rank) for rank in dict.fromkeys([ranks[0], ranks[-1]]))
            changed = sum(key in expert.base for key in expert.changes)
            notes.append(f"expert {task!r} is a LoRA adapter, rank {rank}: it changes {changed} of the base's tensors")
    return tuple(notes)


def adapter_warnings(experts: Mapping[str, Expert], base: CheckpointFile) -> tuple[str, ...]:
    """What looks odd about the adapters among experts, a sentence each: names of models are no more than names."""
    adapters = {task: expert for task, expert in experts.items() if isinstance(expert, AdapterExpert)}
    warnings = [f"expert {task!r}: {warning}" for task, expert in adapters.items() for warning in expert.warnings]
    named = {task: base_name(expert.source) for task, expert in adapters.items() if base_name(expert.source)}
    first = next(iter(named), None)
    for task, name in named.items():
        if _last(name) != _last(named[first]):
            warnings.append(
                f"experts {first!r} and {task!r} name two bases, {named[first]} and {name}: were they trained on one?"
            )
    own = _own_name(base.path.with_name("config.json"))
    if first is not None and own and _last(own) != _last(named[first]):
        warnings.append(f"expert {first!r} was trained on {named[first]}, and pretrained calls itself {own}")
    return tuple(warnings)


def _own_name(config: Path) -> str:
    """What a model of transformers calls itself, where it does."""
    try:
        return str(json.loads(config.read_text(encoding="utf-8")).get("_name_or_path") or "")
    except (OSError, ValueError, AttributeError):
        return ""


def _last(name: str) -> str:
    return Path(name).name.casefold()


def _model(path: PathLike) -> CheckpointFile:
    file = CheckpointFile(path)
    if problem := refusal(file, str(file.path)):
        raise CheckpointError(problem)
    return file
