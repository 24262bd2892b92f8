"""What is given as the base and as an expert of a merge, opened: checkpoints, and adapters of a base."""

from __future__ import annotations

import os

from ..adapters.expert import AdapterExpert
from ..adapters.names import refusal
from ..adapters.source import describe, is_adapter, open_adapter
from ..state import CheckpointError
from .checkpoint import CheckpointFile

PathLike = str | os.PathLike[str]
Expert = CheckpointFile | AdapterExpert


def open_base(path: PathLike) -> CheckpointFile:
    """Open the file of θ0.

    Raises:
        CheckpointError: naming the file and the mend; for an adapter, that it is none.
    """
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
    if is_adapter(path):
        return AdapterExpert(open_adapter(path), pretrained)
    return _model(path)


def _model(path: PathLike) -> CheckpointFile:
    file = CheckpointFile(path)
    if problem := refusal(file, str(file.path)):
        raise CheckpointError(problem)
    return file
