"""A machine that runs pickles and can do nothing but put containers and references to tensors together.

A pickle is a program that may import and call anything. Here a name stays a name, an instance becomes a `Record` of its
attributes, and of all calls only those below are known, each by something of our own. Any other is refused, by name.
"""

from __future__ import annotations

import math
import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

import torch

_DTYPES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool,
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class Refused(ValueError):
    """A pickle that wants more than to give its content."""


class Name(NamedTuple):
    """A class or function that the file names; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Record:
    """What the file calls an instance of a class: the class's name and the instance's attributes."""

    name: Name
    attributes: dict[str, Any] = field(default_factory=dict, repr=False)


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


def run(stream: BinaryIO, room: int, storages: dict[str, Storage] | None = None) -> Any:
    """Run one pickle.

    Arguments:
        stream: where it begins; afterwards, where it ended.
        room: bytes that the file has: a storage that promises more is a lie.
        storages: gets every storage that is referred to, by its key.

    Returns:
        Containers, numbers, texts, a `Record` for every instance, a `Stored` for every tensor.

    Raises:
        Refused: where it wants to call anything, or uses an instruction that no weights need.
        ValueError, LookupError, TypeError, EOFError: where it is broken.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}  # a list as long as the largest number in the file would fill the memory
    storages = {} if storages is None else storages

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for instruction, value in _instructions(stream):
        match instruction:
            case "STOP":
                return stack.pop()
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "GLOBAL":
                stack.append(value)
            case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE":
                stack.append(_CONSTANTS[instruction])
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "BINPUT" | "LONG_BINPUT":
                memo[value] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[value])
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple([stack.pop() for _ in range(int(instruction[-1]))][::-1]))
            case "APPEND":
                item = stack.pop()
                _of(list, stack[-1]).append(item)
            case "APPENDS":
                items = since_mark()
                _of(list, stack[-1]).extend(items)
            case "SETITEM":
                item, key = stack.pop(), stack.pop()
                _of(dict, stack[-1])[_key(key)] = item
            case "SETITEMS":
                items = since_mark()
                _of(dict, stack[-1]).update(zip(map(_key, items[::2]), items[1::2], strict=True))
            case "NEWOBJ":
                stack.pop()  # what the class is made from; modules and transforms are made from nothing
                stack.append(Record(_of(Name, stack.pop())))
            case "BUILD":
                state = stack.pop()
                _build(stack[-1], state)
            case "REDUCE":
                given, called = stack.pop(), stack.pop()
                stack.append(_call(called, given))
            case "BINPERSID":
                stack.append(_refer(stack.pop(), room, storages))
            case _:
                raise Refused(f"uses the pickle instruction {instruction}, which no weights need")
    raise EOFError("its pickle does not end")


def _instructions(stream: BinaryIO) -> Iterator[tuple[str, Any]]:
    """Instruction by instruction, with what follows it; text of the oldest protocol is left unread."""
    while code := stream.read(1):
        if (known := pickletools.code2op.get(code.decode("latin-1"))) is None:
            raise ValueError(f"byte {code.hex()} is no pickle instruction")
        if known.name == "GLOBAL":
            module, name = (stream.readline().decode("utf-8").removesuffix("\n") for _ in range(2))
            # torch.save writes names as Python 2 had them.
            yield known.name, Name(*NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name)))
        elif known.name == "PROTO":
            stream.read(1)
        else:
            yield known.name, known.arg.reader(stream) if known.arg and known.proto else None


def _of(kind: type, value: Any) -> Any:
    """The value, if it is exactly of a kind."""
    if type(value) is not kind:
        found = f"an instance of {value.name}" if isinstance(value, Record) else f"a {type(value).__name__}"
        raise TypeError(f"{found} where a {kind.__name__} belongs")
    return value


def _key(value: Any) -> str | int:
    # Tuples within tuples can be made so that the hash of one takes for ever.
    if type(value) not in (str, int, bool):
        raise TypeError(f"a {type(value).__name__} as a key")
    return value


def _build(target: Any, state: Any) -> None:
    if type(target) is dict:
        return  # the attributes of an OrderedDict, such as the versions of a state dict's modules
    attributes = _of(Record, target).attributes
    for part in state if type(state) is tuple else (state,):
        if part is not None:
            attributes.update(_of(dict, part))


def _call(called: Any, given: Any) -> Any:
    function = _CALLS.get(str(called)) if type(called) is Name else None
    if function is None:
        raise Refused(f"wants to call {called if type(called) is Name else 'something that it made itself'}")
    return function(called, *_of(tuple, given))


def _refer(given: Any, room: int, storages: dict[str, Storage]) -> Name | Storage:
    kind, *rest = _of(tuple, given)
    if kind == "module":  # torch before 1.6 saved the source code of every class too
        return _of(Name, rest[0])
    if kind != "storage":
        raise TypeError("a reference to something that is no storage")
    cls, key, _, count, *view = rest
    name = str(_of(Name, cls)).removeprefix("torch.").removeprefix("cuda.").removesuffix("Storage")
    if name not in _DTYPES or (view and view[0] is not None):
        raise Refused(f"holds numbers of {cls}: save plain floating-point tensors")
    storage = Storage(_DTYPES[name], _of(str, key), _of(int, count))
    if not 0 <= storage.nbytes <= room:
        raise ValueError(f"storage {key} of {count} numbers in a file of {room} bytes")
    return storages.setdefault(storage.key, storage)


def _tensor(_: Name, storage: Any, offset: Any, shape: Any, stride: Any, *__: Any) -> Stored:
    count, offset = _of(Storage, storage).count, _of(int, offset)
    shape, stride = (tuple(_of(int, n) for n in _of(tuple, v)) for v in (shape, stride))
    last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    if min((offset, *shape, *stride)) < 0 or (0 not in shape and last >= count):
        raise ValueError(f"a tensor of shape {shape} beyond its storage of {count} numbers")
    if math.prod(shape) > count:  # a few bytes would stand for more than the memory
        raise ValueError(f"a tensor of shape {shape} in a storage of {count} numbers")
    return Stored(storage, offset, shape, stride)


def _data(_: Name, data: Any, *__: Any) -> Stored:
    return _of(Stored, data)


def _mapping(_: Name, pairs: Any = ()) -> dict[str | int, Any]:
    return {_key(key): value for key, value in pairs}


def _set(_: Name, items: Iterable[Any] = ()) -> frozenset[str | int]:
    return frozenset(map(_key, items))


def _inert(name: Name, *given: Any) -> Record:
    return Record(name, {"given": given})


# All that can be called, with what stands in for it.
_CALLS: Mapping[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _data,
    "torch._utils._rebuild_parameter_with_state": _data,
    "collections.OrderedDict": _mapping,
    "builtins.set": _set,
    "torch.Size": lambda _, sizes: _of(tuple, sizes),
    "torch.device": _inert,
    # Enumerations among the settings of image transforms.
    "torchvision.transforms.functional.InterpolationMode": _inert,
    "PIL.Image.Resampling": _inert,
}
