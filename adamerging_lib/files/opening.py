"""Opening the models that a merge is given, by their paths."""

from __future__ import annotations

import os

from ..runtime.places import given
from .checkpoint import CheckpointFile


def open_pretrained(path: str | os.PathLike[str]) -> CheckpointFile:
    """θ0 as a file, see `CheckpointFile`."""
    return CheckpointFile(given(path))


def open_expert(path: str | os.PathLike[str], pretrained: CheckpointFile) -> CheckpointFile:
    """θ_k as a file.

    Arguments:
        path: as of `CheckpointFile`.
        pretrained: θ0, of which an expert may hold the difference only.
    """
    return CheckpointFile(given(path))
