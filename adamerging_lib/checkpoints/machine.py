"""A machine that runs pickles and can do nothing but put containers and references to tensors together.

A pickle is a program that may import and call anything. Here a name stays a name, an instance becomes a `Record` of
what the file says of it, and of all calls only those of `calls` are known, each by something of our own. Any other is
refused, by name.
"""

from __future__ import annotations

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator
from typing import Any, BinaryIO

from .calls import known_call
from .inert import Name, Record, Refused, Storage, key_of, of, storage_of

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
# Instructions that put what follows them on the stack.
_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "GLOBAL", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "INT", "LONG", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BYTEARRAY8",
}  # fmt: skip


def run(stream: BinaryIO, room: int, storages: dict[str, Storage] | None = None) -> Any:
    """Run one pickle, of protocol 1 to 5.

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
    machine = _Machine(room, {} if storages is None else storages)
    for instruction, value in _instructions(_Bounded(stream, room)):
        if instruction == "STOP":
            return machine.stack.pop()
        machine.step(instruction, value)
    raise EOFError("its pickle does not end")


class _Machine:
    """The stack, the marks on it and the memo; every instruction by its own few lines."""

    def __init__(self, room: int, storages: dict[str, Storage]) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}  # a list as long as the largest number in the file would fill the memory
        self.room, self.storages = room, storages
        self.call = known_call(room)

    def step(self, instruction: str, value: Any) -> None:
        stack = self.stack
        match instruction:
            case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE":
                stack.append(_CONSTANTS[instruction])
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_SET":
                stack.append(set())
            case "BINPUT" | "LONG_BINPUT":
                self.memo[value] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[value])
            case "MARK":
                self.marks.append(len(stack))
            case "POP":
                stack.pop()
            case "POP_MARK":
                self.since_mark()
            case "FRAME":  # how many bytes to read at once
                pass
            case _ if instruction in _VALUES:
                stack.append(value)
            case _ if (build := getattr(self, f"do_{instruction.lower()}", None)) is not None:
                build()
            case _:
                raise Refused(f"uses the pickle instruction {instruction}, which no weights need")

    def since_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def do_tuple(self) -> None:
        self.stack.append(tuple(self.since_mark()))

    def do_tuple1(self, count: int = 1) -> None:
        self.stack.append(tuple([self.stack.pop() for _ in range(count)][::-1]))

    def do_tuple2(self) -> None:
        self.do_tuple1(2)

    def do_tuple3(self) -> None:
        self.do_tuple1(3)

    def do_frozenset(self) -> None:
        self.stack.append(frozenset(map(key_of, self.since_mark())))

    def do_append(self) -> None:
        item = self.stack.pop()
        self.extended([item])

    def do_appends(self) -> None:
        items = self.since_mark()
        self.extended(items)

    def extended(self, items: list[Any]) -> None:
        target = self.stack[-1]
        (target.items if type(target) is Record else of(list, target)).extend(items)

    def do_additems(self) -> None:
        items = self.since_mark()
        of(set, self.stack[-1]).update(map(key_of, items))

    def do_setitem(self) -> None:
        item, key = self.stack.pop(), self.stack.pop()
        self.entered([key], [item])

    def do_setitems(self) -> None:
        items = self.since_mark()
        self.entered(items[::2], items[1::2])

    def entered(self, keys: list[Any], items: list[Any]) -> None:
        target = self.stack[-1]
        entries = target.entries if type(target) is Record else of(dict, target)
        entries.update(zip(map(key_of, keys), items, strict=True))

    def do_newobj(self) -> None:
        given, cls = self.stack.pop(), self.stack.pop()
        self.stack.append(Record(of(Name, cls), given=of(tuple, given)))

    def do_newobj_ex(self) -> None:
        named, given, cls = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.stack.append(Record(of(Name, cls), dict(of(dict, named)), given=of(tuple, given)))

    def do_stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(Name(of(str, module), of(str, name)))

    def do_build(self) -> None:
        state = self.stack.pop()
        _build(self.stack[-1], state)

    def do_reduce(self) -> None:
        given, called = self.stack.pop(), self.stack.pop()
        self.stack.append(self.call(called, given))

    def do_binpersid(self) -> None:
        self.stack.append(storage_of(self.stack.pop(), self.room, self.storages))


class _Bounded:
    """A stream that is never asked for more bytes than the file has: memory for them would be taken first."""

    def __init__(self, stream: BinaryIO, room: int) -> None:
        self._read, self._room, self.readline = stream.read, room, stream.readline

    def read(self, count: int) -> bytes:
        if count > self._room:
            raise EOFError(f"{count} bytes in a file of {self._room}")
        return self._read(count)


def _instructions(stream: _Bounded) -> Iterator[tuple[str, Any]]:
    """Instruction by instruction, with what follows it; texts of the oldest protocol are left unread."""
    while code := stream.read(1):
        if (known := pickletools.code2op.get(code.decode("latin-1"))) is None:
            raise ValueError(f"byte {code.hex()} is not a pickle instruction")
        if known.name == "GLOBAL":
            module, name = (stream.readline().decode("utf-8").removesuffix("\n") for _ in range(2))
            # torch.save writes names as Python 2 had them.
            yield known.name, Name(*NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name)))
        elif known.name == "PROTO":
            stream.read(1)
        else:
            told = known.arg and (known.proto or known.name in ("INT", "LONG"))  # of protocol 1, the only texts
            yield known.name, known.arg.reader(stream) if told else None


def _build(target: Any, state: Any) -> None:
    if type(target) in (dict, list):
        return  # the attributes of an OrderedDict, such as the versions of a state dict's modules
    record = of(Record, target)
    for part in state if type(state) is tuple and len(state) == 2 else (state,):
        if type(part) is dict:
            record.attributes.update(part)
        elif part is not None:
            record.state = state
