"""Embeddings and heads that a base ties: one tensor under two names, of which an adapter may name one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from ..state import StateDict

# Modules that models tie; layers that merely are equal, such as repeated ones, stay apart.
_TIED = ("embed_tokens", "lm_head", "shared", "wte", "word_embeddings", "tok_embeddings", "embed_in", "embed_out",
         "decoder", "output", "output_embeddings", "token_embedding", "embedding", "embeddings", "head")  # fmt: skip


def twins(base: StateDict, known: Mapping[str, Tensor], changed: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of a changed tensor and another one that is equal to it in the base, both of embeddings or heads.

    Arguments:
        base: θ0.
        known: its names and shapes.
        changed: names of changed tensors.
    """
    changed = [key for key in changed if key in known and _can_be_tied(key, known[key])]
    for key in changed:
        alike = [name for name, t in known.items() if t.shape == known[key].shape and _can_be_tied(name, t)]
        if others := [name for name in alike if name not in changed]:
            own = base[key]
            yield from ((key, name) for name in others if torch.equal(own, base[name]))


def _can_be_tied(key: str, tensor: Tensor) -> bool:
    module, _, end = key.rpartition(".")
    return end == "weight" and tensor.dim() == 2 and module.rpartition(".")[2] in _TIED
