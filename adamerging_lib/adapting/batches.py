"""Batches as people have them: tensors, tuples, dicts; from lists, loaders and generators."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..learning.guard import SHARE
from ..learning.streams import seeded

LABELS = ("labels", "label")
SHAPES = 16
"""Different shapes of a list's batches that are tried before the first step, at most."""
Inputs = Tensor | dict[str, Any]
_TOO_FEW = "guard=True keeps a part of {} back, and it has too few inputs for that: give more data, or no guard"


def inputs_of(batch: Any, owner: str) -> Inputs:
    """The model's input in a batch: a tensor; or a dict of tensors without labels, for keyword arguments.

    Arguments:
        batch: tensor, dict, or tuple or list that begins with one of these.
        owner: what messages call it.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(batch, tuple | list) and batch:
        batch = batch[0]
    if isinstance(batch, Tensor) and batch.dim():
        return batch
    if isinstance(batch, Mapping):
        found = {str(name): value for name, value in batch.items() if name not in LABELS}
        if any(isinstance(value, Tensor) and value.dim() for value in found.values()):
            for name, value in found.items():
                if isinstance(value, list | tuple):
                    raise ValueError(
                        f"{name!r} of {owner} is a {type(value).__name__}: make it a tensor, or leave it out"
                    )
            return found
    raise ValueError(
        f"{owner} is a {type(batch).__name__}: give batches that are tensors, dicts of tensors, or tuples that begin "
        f"with one of these"
    )


def labels_of(batch: Any, owner: str) -> Tensor:
    """The labels in a batch: the second of a tuple, or ``labels`` of a dict.

    Raises:
        ValueError: where there are none.
    """
    found = None
    if isinstance(batch, Mapping):
        found = next((batch[name] for name in LABELS if name in batch), None)
    elif isinstance(batch, tuple | list) and len(batch) > 1:
        found = batch[1]
    if found is None:
        raise ValueError(f"{owner} has no labels: give (inputs, labels), or a dict with 'labels'")
    found = torch.as_tensor(found)
    if found.is_floating_point():
        raise ValueError(f"the labels of {owner} are {found.dtype}: give whole numbers, each the place of a class")
    return found.long()


def length(inputs: Inputs) -> int:
    """How many inputs a batch has."""
    tensors = [inputs] if isinstance(inputs, Tensor) else inputs.values()
    return next(len(value) for value in tensors if isinstance(value, Tensor) and value.dim())


def rows(inputs: Inputs, kept: Tensor) -> Inputs:
    """Some of a batch's inputs; ``kept`` is bool ``[n]``."""
    if isinstance(inputs, Tensor):
        return inputs[kept.to(inputs.device)]
    n = length(inputs)
    return {
        name: value[kept.to(value.device)] if isinstance(value, Tensor) and value.dim() and len(value) == n else value
        for name, value in inputs.items()
    }


def joined(parts: Sequence[Inputs]) -> Inputs:
    """Batches of one shape as one."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    whole = [name for name, value in first.items() if isinstance(value, Tensor) and value.dim()]
    whole = [name for name in whole if len(first[name]) == length(first)]
    return {**first, **{name: torch.cat([part[name] for part in parts]) for name in whole}}


def held_out(inputs: Inputs) -> Tensor:
    """Which inputs of a batch the inductive setting never adapts on, bool ``[n]``: about one half; see `_digests`."""
    return torch.tensor([bool(digest[0] & 1) for digest in _digests(inputs)], dtype=torch.bool)


def watched(inputs: Inputs) -> Tensor:
    """Which inputs of a batch a guard keeps for itself, bool ``[n]``: about one of ``SHARE``; see `_digests`."""
    return torch.tensor([digest[1] % SHARE == 0 for digest in _digests(inputs)], dtype=torch.bool)


def _digests(inputs: Inputs) -> Iterator[bytes]:
    """Of each input's own bytes, which are the same in every order, batch, loader and process.

    Padding is left out where the batch has an ``attention_mask``.
    """
    named = {"": inputs} if isinstance(inputs, Tensor) else inputs
    n, mask = length(inputs), named.get("attention_mask")
    for i in range(n):
        digest = hashlib.blake2b(digest_size=8)
        for name in sorted(named):
            value = named[name]
            if not isinstance(value, Tensor) or not value.dim() or len(value) != n:
                continue
            own = value[i]
            if isinstance(mask, Tensor) and own.shape == mask[i].shape:
                own = own[mask[i].bool()]
            digest.update(f"{name}|{own.dtype}|{tuple(own.shape)}".encode())
            digest.update(own.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        yield digest.digest()


def told(inputs: Inputs) -> str:
    """A batch in words: shapes and types."""
    if isinstance(inputs, Tensor):
        return f"{list(inputs.shape)} {_plain(inputs)}"
    shown = (f"{n}: {list(v.shape)} {_plain(v)}" if isinstance(v, Tensor) else f"{n}: {v!r}" for n, v in inputs.items())
    return "{" + ", ".join(shown) + "}"


class Batches:
    """Endless batches of one task, pass after pass over an iterable.

    Batch number b is the b-th of all passes laid end to end. Torch's own generator is seeded by (seed, task, pass) for
    each pass and given back afterwards: a loader that shuffles with it draws the same in a run that is resumed.

    Arguments:
        data: iterable of batches.
        task: name.
        seed: of all streams of a run.
        inductive: leave out what `held_out` names.
        count: of an iterator that can be gone through only once: how many batches are read, and kept, at once.
        least: inputs of a batch; smaller ones are left out.
        guarded: leave out what `watched` names.

    Raises:
        ValueError: for what is not an iterable of batches, and iterators with too few.
    """

    labels = None

    def __init__(
        self,
        data: Iterable[Any],
        task: str,
        *,
        seed: int = 0,
        inductive: bool = False,
        count: int = 1,
        least: int = 1,
        guarded: bool = False,
    ) -> None:
        self.owner, self.task, self.seed, self.inductive = f"data[{task!r}]", task, seed, inductive
        self.least, self._apart = least, watched if guarded else None
        check_data(data, self.owner)
        self._data = _read(data, count, self.owner) if _once(data) else data
        self._begin(0)
        self.first = self._advance()

    def batch(self, number: int) -> Inputs:
        """Batch ``number``, from 0; in any order, but going back means beginning anew."""
        if number == 0:
            return self.first
        if number < self._next:
            self._begin(0)
        while True:
            found = self._advance()
            if self._next > number:
                return found

    def one_pass(self, most: int | None = None) -> Iterator[Inputs]:
        """The batches of the first pass, at most that many."""
        self._begin(0)
        while most is None or self._next < most:
            found = self._advance()
            if self._pass > 0:
                return
            yield found

    def watched(self, most: int) -> list[Inputs]:
        """What `watched` names in the batches of the first pass, until there are ``most``; of one shape in one piece.

        Raises:
            ValueError: where there is too little of it.
        """
        other, found, count = copy.copy(self), {}, 0
        other._apart, other.least = lambda inputs: ~watched(inputs), 1
        for inputs in other.one_pass():
            found.setdefault(_shape(inputs), []).append(inputs)
            count += length(inputs)
            if count >= most:
                break
        parts = [part for part in map(joined, found.values()) if length(part) >= self.least]
        if not parts:
            raise ValueError(_TOO_FEW.format(self.owner))
        return parts

    def shapes(self) -> Iterator[Inputs]:
        """The first batch; of a list, where looking costs nothing, the first of every shape and type of its inputs."""
        yield self.first
        seen = {_shape(self.first)}
        for inputs in self.one_pass() if isinstance(self._data, Sequence) else ():
            if (shape := _shape(inputs)) not in seen and len(seen) < SHAPES:
                seen.add(shape)
                yield inputs

    def _begin(self, number: int) -> None:
        """Stand before the first batch of a pass."""
        if number == 0:
            self._next = 0
        self._pass, self._place, self._read, self._given = number, None, 0, 0

    def _advance(self) -> Inputs:
        while True:
            if not (drawn := self._drawn()):
                if not self._given:
                    raise ValueError(self._empty())
                self._begin(self._pass + 1)
                continue
            inputs = inputs_of(drawn[0], f"batch {self._read} of {self.owner}")
            self._read += 1
            if self.inductive:
                inputs = rows(inputs, ~held_out(inputs))
            if self._apart is not None:
                inputs = rows(inputs, ~self._apart(inputs))
            if length(inputs) >= self.least:
                self._given, self._next = self._given + 1, self._next + 1
                return inputs

    def _drawn(self) -> list[Any]:
        """The next batch of the pass as it is, in a list; none at the end."""
        # What a loader shuffles by comes from torch's generator: every batch of every pass has a state of its own.
        before = torch.default_generator.get_state()
        torch.default_generator.set_state(seeded(self.seed, self.task, self._pass, self._read).get_state())
        try:
            if self._place is None:
                self._place = iter(self._data)
            return list(islice(self._place, 1))
        finally:
            torch.default_generator.set_state(before)

    def _empty(self) -> str:
        if self._pass:
            return f"{self.owner} gave nothing when it was gone through again: give a list of batches or a loader"
        if self._read and self._apart is not None:
            return _TOO_FEW.format(self.owner)
        if self._read and self.inductive:
            return f"{self.owner} has too few inputs in the half that setting='inductive' adapts on: give more data"
        if self._read:
            return f"{self.owner} has no batch of {self.least} inputs, which BatchNorm needs: give larger batches"
        return f"{self.owner} is empty: give at least one batch of every task"


def check_data(data: Any, owner: str) -> None:
    """Raise ValueError, with the mend, for what is not an iterable of batches."""
    mend = None
    if isinstance(data, Tensor):
        mend = "one tensor: give batches, such as .split(16) makes of it"
    elif isinstance(data, Mapping):
        mend = "one dict: give batches, or a list with this one"
    elif isinstance(data, str | bytes):
        mend = "a text: give batches; the command `adamerging adapt` reads folders and files"
    elif isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        mend = "a data set of single examples: give a torch.utils.data.DataLoader of it"
    elif not isinstance(data, Iterable):
        mend = f"a {type(data).__name__}, which cannot be iterated over: give a loader or a list of batches"
    if mend:
        raise ValueError(f"{owner} is {mend}")


def _once(data: Iterable[Any]) -> bool:
    """Whether it is gone through only once: iterators, and what gives the same iterator again."""
    if isinstance(data, DataLoader | Sequence):
        return False
    return iter(data) is iter(data)


def _read(data: Iterable[Any], count: int, owner: str) -> list[Any]:
    found = list(islice(iter(data), count))
    if len(found) < count:
        raise ValueError(
            f"{owner} is an iterator that ended after {len(found)} batches, and the run takes {count}: give what can "
            f"be gone through again, such as a list of batches or a loader"
        )
    return found


def _shape(inputs: Inputs) -> tuple[Any, ...]:
    named = {"": inputs} if isinstance(inputs, Tensor) else inputs
    return tuple((n, tuple(v.shape[1:]), v.dtype) for n, v in named.items() if isinstance(v, Tensor))


def _plain(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
