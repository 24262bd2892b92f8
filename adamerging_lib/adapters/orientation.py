"""Whether a matrix of the base is stored [out, in], as torch's Linear does, or [in, out], as GPT-2's Conv1D."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..state import CheckpointError


class Orientation:
    """How matrices of a base are stored, by what cannot be otherwise.

    peft goes by the module's class, which files do not have. The shapes of factors and weight tell it for all but
    square weights. For these: weights of the same name elsewhere that are not square and have factors or a bias, then
    ``fan_in_fan_out``, which peft sets to what the last module was.

    Arguments:
        base: names and shapes.
        fan_in_fan_out: what the adapter's configuration says.
    """

    def __init__(self, base: Mapping[str, Tensor], fan_in_fan_out: bool) -> None:
        self._said = fan_in_fan_out
        self._seen: dict[str, set[bool]] = {}
        for key, weight in base.items():
            bias = base.get(f"{key.removesuffix('.weight')}.bias")
            if key.endswith(".weight") and bias is not None and bias.dim() == 1:
                self.learn(key, weight.shape, bias.shape[0], None)

    def learn(self, key: str, shape: torch.Size, out: int, into: int | None) -> None:
        """Note how a weight that is not square is stored.

        Arguments:
            key: its name.
            shape: its shape.
            out, into: its sides as the module has them; None for unknown.
        """
        if len(shape) == 2 and shape[0] != shape[1] and out in shape and into in (None, *shape):
            self._seen.setdefault(_word(key), set()).add(out == shape[1])

    def transposed(self, key: str, shape: torch.Size, out: int, into: int, owner: object) -> bool:
        """Whether a weight is stored ``[in, out]``.

        Arguments:
            key: its name.
            shape: its shape.
            out, into: sides that the factors have.
            owner: of the adapter, for messages.

        Raises:
            CheckpointError: a square weight, of which nothing tells it.
        """
        if len(shape) != 2 or out != into:
            return len(shape) == 2 and tuple(shape) == (into, out)
        alike = self._seen.get(_word(key), set())
        if len(alike) == 1:
            return next(iter(alike))
        everywhere = set().union(*self._seen.values()) if self._seen else {self._said}
        if self._said in everywhere:
            return self._said
        stored = "[out, in]" if self._said else "[in, out]"
        raise CheckpointError(
            f"{owner} says fan_in_fan_out={str(self._said).lower()}, and other matrices of the base are stored "
            f"{stored}: how square {key!r} is stored cannot be told. Set fan_in_fan_out in its adapter_config.json to "
            f"{str(not self._said).lower()} if that layer is like the others; else merge the adapter with peft first"
        )


def _word(key: str) -> str:
    """The module's own name: the last word before the tensor's."""
    return key.rpartition(".")[0].rpartition(".")[2]
