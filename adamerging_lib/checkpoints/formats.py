"""What a format of image encoders is: how it is recognised, and how it becomes open_clip's vision tower."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Format:
    """A way to name the tensors of an image encoder; a new one is listed once, in `reading.FORMATS`.

    Arguments:
        kind: its name on the command line.
        words: what such a checkpoint is.
        found: names of tensors → whether they are of this format.
        tower: (name → tensor, owner for messages) → the vision tower as open_clip names it, and the names of the
            tensors dropped; CheckpointError where it is none.
    """

    kind: str
    words: str
    found: Callable[[Iterable[str]], bool]
    tower: Callable[[Mapping[str, Tensor], object], tuple[dict[str, Tensor], tuple[str, ...]]]
