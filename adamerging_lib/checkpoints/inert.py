"""What a pickle is read as: names, records, storages and tensors that are never looked up, made or called."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

# What torch calls the storages of a type; newer types have none, and their storages are bytes.
_DTYPES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128, "Untyped": torch.uint8,
}  # fmt: skip
_LARGEST_KEY = 1000  # parts of a tuple that is a key


class Refused(ValueError):
    """A pickle that wants more than to give its content."""


class Unusable(Refused):
    """A pickle of tensors that no state dict of plain numbers can hold; it says what to save instead."""


class Name(NamedTuple):
    """A class or function that the file names; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Record:
    """What the file calls an instance of a class, or the result of a call that only makes one.

    Arguments:
        name: the class's or function's name.
        attributes: of the instance.
        given: what it was made from.
        entries: of an instance of a kind of dict.
        items: of an instance of a kind of list.
        state: what the instance would set itself from, where that is not a set of attributes.
    """

    name: Name
    attributes: dict[Any, Any] = field(default_factory=dict, repr=False)
    given: tuple[Any, ...] = field(default=(), repr=False)
    entries: dict[Any, Any] = field(default_factory=dict, repr=False)
    items: list[Any] = field(default_factory=list, repr=False)
    state: Any = field(default=None, repr=False)


class Storage(NamedTuple):
    """Numbers in the file, under a key."""

    dtype: torch.dtype
    key: str
    count: int

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize


class Stored(NamedTuple):
    """A tensor in the file: a view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def of(kind: type, value: Any) -> Any:
    """The value, if it is exactly of a kind; TypeError else."""
    if type(value) is not kind:
        found = f"an instance of {value.name}" if isinstance(value, Record) else f"a {type(value).__name__}"
        raise TypeError(f"{found} where a {kind.__name__} belongs")
    return value


def key_of(value: Any) -> Any:
    """The value, if it can be a key at no risk; Refused else."""
    # Tuples within tuples can be made so that the hash of one takes for ever.
    waiting, seen = [value], 0
    while waiting:
        part = waiting.pop()
        seen += 1
        if type(part) in (tuple, frozenset):
            waiting.extend(part)
            if seen + len(waiting) > _LARGEST_KEY:
                raise Refused(f"has a {type(value).__name__} of more than {_LARGEST_KEY} parts as a key")
        elif type(part) not in (str, int, bool, float, complex, bytes, type(None), Name, Record, Stored, Storage):
            raise Refused(f"has a {type(part).__name__} as a key, which Python cannot make")
    return value


def storage_of(given: Any, room: int, storages: dict[str, Storage]) -> Name | Storage:
    """What torch.save puts in the place of numbers, or of a class with its source code.

    Arguments:
        given: the reference.
        room: bytes that the file has.
        storages: those that were referred to before, by their key.
    """
    kind, *rest = of(tuple, given)
    if kind == "module":  # torch before 1.6 saved the source code of every class too
        return of(Name, rest[0])
    if kind != "storage":
        raise TypeError("a reference to something that is not a storage")
    cls, key, _, count, *view = rest
    name = str(of(Name, cls)).removeprefix("torch.").removeprefix("storage.").removeprefix("cuda.")
    name = name.removesuffix("Storage")
    if name not in _DTYPES or (view and view[0] is not None):
        raise Unusable(f"holds numbers of {cls}: save plain floating-point tensors")
    storage = Storage(_DTYPES[name], of(str, key), of(int, count))
    if not 0 <= storage.nbytes <= room:
        raise ValueError(f"storage {key} of {count} numbers in a file of {room} bytes")
    return storages.setdefault(storage.key, storage)
