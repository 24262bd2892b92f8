"""The transformer blocks of an encoder, run one at a time under any state dict."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..forward import features
from ..layers import read
from ..state import StateDict


class BlockChain:
    """What an encoder computes up to its first block, and then block after block.

    Arguments:
        encoder: template in evaluation mode, on the device.
        state: a state dict to try the chain with.
        image: one normalised image ``[1, 3, h, w]``, likewise.

    Raises:
        ValueError: where the encoder has no blocks by name (``resblocks.N``, ``encoder.layers.N``, ``blocks.N``), or
            does more than pass tokens ``[n, tokens, width]`` from one block to the next.
    """

    def __init__(self, encoder: nn.Module, state: StateDict, image: Tensor) -> None:
        try:
            paths = dict.fromkeys(layer.block for layer in read(encoder.state_dict()).values() if layer.block)
        except ValueError as error:
            raise ValueError(
                "the encoder has no transformer blocks named resblocks.N, encoder.layers.N or blocks.N: "
                f"methods that go block by block need them ({error})"
            ) from error
        found = {f"{path}.": encoder.get_submodule(path) for path in paths}
        calls: list[tuple[nn.Module, tuple[Any, ...], dict[str, Any], Tensor]] = []

        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
            calls.append((module, args, kwargs, _tokens(out)))

        with torch.no_grad(), _hooks([b.register_forward_hook(note, with_kwargs=True) for b in found.values()]):
            features(encoder, state, image)
        _check_chain(calls)
        self.encoder, self._rest, self._options = encoder, calls[0][1][1:], calls[0][2]
        # A text tower that came along is not called; its blocks do not count.
        self.blocks = tuple(call[0] for call in calls)
        self.prefixes = tuple(next(name for name, part in found.items() if part is block) for block in self.blocks)

    def __len__(self) -> int:
        return len(self.blocks)

    def enter(self, state: StateDict, images: Tensor) -> Tensor:
        """Tokens ``[n, tokens, width]`` that the first block gets for normalised images under a state dict."""

        def stop(module: nn.Module, args: tuple[Any, ...]) -> None:
            raise _Reached(args[0])

        with _hooks([self.blocks[0].register_forward_pre_hook(stop)]):
            try:
                features(self.encoder, state, images)
            except _Reached as reached:
                return reached.tokens
        raise RuntimeError("the encoder did not call its first block, though it did on the first image")

    def run(self, index: int, state: StateDict, tokens: Tensor) -> Tensor:
        """Block ``index`` under the encoder's state dict, or its own part of it: ``[n, tokens, width]`` → the same."""
        prefix = self.prefixes[index]
        own = {key.removeprefix(prefix): t for key, t in state.items() if key.startswith(prefix)}
        return _tokens(functional_call(self.blocks[index], own, (tokens, *self._rest), self._options))


class _Reached(Exception):
    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens


def _tokens(out: Any) -> Tensor:
    return out[0] if isinstance(out, tuple) else out  # Hugging Face's layers return tuples


def _check_chain(calls: list[tuple[Any, ...]]) -> None:
    problem = None
    if not calls or len({id(call[0]) for call in calls}) != len(calls):
        problem = "its blocks are not called once each"
    elif any(not call[1] for call in calls):
        problem = "its blocks take the tokens by keyword"
    elif any(not torch.equal(after[1][0], before[3]) for before, after in pairwise(calls)):
        problem = "it changes the tokens between blocks"
    elif calls[0][1][0].dim() != 3 or calls[0][1][0].shape[0] != 1:
        problem = f"its blocks take {list(calls[0][1][0].shape)} for one image, not [1, tokens, width]"
    elif any(isinstance(v, Tensor) for _, args, kwargs, _ in calls for v in [*args[1:], *kwargs.values()]):
        problem = "its blocks take further tensors beside the tokens (text: which of them are padding)"
    if problem:
        raise ValueError(f"the encoder cannot be run block by block: {problem}")


@contextmanager
def _hooks(handles: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
