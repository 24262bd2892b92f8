"""All calls of a pickle that are known, and what stands in for each; everything else is refused by its name."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from ..files.header import DTYPES
from .inert import Name, Record, Refused, Storage, Stored, Unusable, key_of, of

_EXPANDED = 1 << 28  # bytes beyond those of the file that tensors of repeated numbers may come to
_TELLING = {"torch", "numpy", "pip", "setuptools", "pkg_resources"}  # whose unknown calls are told
_MOST_DIMENSIONS = 64  # of a tensor of torch
_TYPES = {str(dtype): dtype for dtype in DTYPES.values()}


def known_call(room: int) -> Callable[[Any, Any], Any]:
    """A function (what is called, what is given to it) that stands in for all calls of one pickle.

    Arguments:
        room: bytes that the file has.
    """
    left = room + _EXPANDED

    def tensor(_: Name, storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Stored:
        nonlocal left
        stored = _tensor(storage, offset, shape, stride)
        if any(type(part) is dict and (part.get("conj") or part.get("neg")) for part in rest[2:3]):
            raise Unusable("holds a tensor that is conjugated or negated only when it is read: save a .clone() of it")
        count = math.prod(stored.shape)
        if count > stored.storage.count:  # a few bytes would stand for more than the memory
            left -= count * stored.storage.dtype.itemsize
            if left < 0:
                raise Unusable(
                    f"holds expanded tensors, such as one of shape {stored.shape} in a storage of "
                    f"{stored.storage.count} numbers, that come to more than {(room + _EXPANDED) / 1e9:.1f} GB: save "
                    f"the part that is not repeated"
                )
        return stored

    def newer(_: Name, storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Stored:
        dtype = _TYPES.get(str(rest[2])) if len(rest) > 2 else None
        storage = of(Storage, storage)
        if dtype is None:
            raise Unusable(f"holds numbers of {rest[2] if len(rest) > 2 else 'an unknown type'}: save floating point")
        if storage.dtype == torch.uint8:
            storage = storage._replace(dtype=dtype, count=storage.count // dtype.itemsize)
        return tensor(_, storage, offset, shape, stride, *rest[:2], *rest[3:4])

    own = {
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_tensor_v3": newer,
    }

    def call(called: Any, given: Any) -> Any:
        name = str(called) if type(called) is Name else ""
        if name == "torch._tensor._rebuild_from_type_v2":  # a tensor with attributes, or of a class of its own
            made, _, parts, *_ = of(tuple, given)
            return call(made, parts)
        if name in _UNUSABLE:
            raise Unusable(f"holds {_UNUSABLE[name]}")
        function = own.get(name) or _CALLS.get(name)
        if function is None and type(called) is Name and _is_member(called, given):
            function = _inert
        if function is None:
            raise Refused(f"wants to call {called if type(called) is Name else 'something that it made itself'}")
        return function(called, *of(tuple, given))

    return call


def _is_member(called: Name, given: Any) -> bool:
    """Whether a call can be a member of an enumeration: a class of somebody's own, made from one plain value.

    It is never made. But what Python and torch can do themselves is what harm is done with, and is to be told.
    """
    module = called.module.partition(".")[0]
    foreign = module not in sys.stdlib_module_names and module not in _TELLING or module == "__main__"
    named = called.name.rpartition(".")[2][:1].isupper()
    plain = type(given) is tuple and len(given) == 1 and type(given[0]) in (str, int, float, bool, type(None))
    return foreign and named and plain


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any) -> Stored:
    count, offset = of(Storage, storage).count, of(int, offset)
    shape, stride = (tuple(of(int, n) for n in of(tuple, v)) for v in (shape, stride))
    if len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"a tensor of {len(shape)} dimensions")
    last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    if min((offset, *shape, *stride)) < 0 or (0 not in shape and last >= count):
        raise ValueError(f"a tensor of shape {shape} beyond its storage of {count} numbers")
    return Stored(storage, offset, shape, stride)


def _data(_: Name, data: Any, *__: Any) -> Stored:
    return of(Stored, data)


def _mapping(_: Name, pairs: Any = ()) -> dict[Any, Any]:
    return {key_of(key): value for key, value in (pairs.items() if type(pairs) is dict else pairs)}


def _default(_: Name, factory: Any = None, pairs: Any = ()) -> dict[Any, Any]:
    return _mapping(_, pairs)


def _set(_: Name, items: Iterable[Any] = ()) -> frozenset[Any]:
    return frozenset(map(key_of, items))


def _list(_: Name, items: Any = (), *__: Any) -> list[Any]:
    return list(items) if type(items) in (tuple, list) else of(list, items)


def _bytes(name: Name, *given: Any) -> bytes | Record:
    # Of protocol 2, bytes are text of the same numbers.
    if len(given) == 2 and type(given[0]) is str and given[1] in ("latin1", "latin-1"):
        return given[0].encode("latin-1")
    if not given or (len(given) == 1 and type(given[0]) in (bytes, bytearray)):
        return bytes(*given)
    return Record(name, given=given)


def _inert(name: Name, *given: Any) -> Record:
    return Record(name, given=given)


_TENSORS = {
    "torch._utils._rebuild_parameter": _data,
    "torch._utils._rebuild_parameter_with_state": _data,
    "torch.Size": lambda _, sizes=(): of(tuple, sizes),
}
_CONTAINERS = {
    "collections.OrderedDict": _mapping,
    "collections.Counter": _mapping,
    "collections.defaultdict": _default,
    "collections.deque": _list,
    "builtins.set": _set,
    "builtins.frozenset": _set,
    "builtins.list": _list,
    "builtins.dict": _mapping,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "_codecs.encode": _bytes,
}
# Calls that only make a value: it becomes a record of what it would have been made from.
_VALUES = (
    "torch.device", "torch.serialization._get_layout",
    # Enumerations among the settings of image transforms.
    "torchvision.transforms.functional.InterpolationMode", "PIL.Image.Resampling",
    "builtins.complex", "builtins.slice", "builtins.range", "builtins.object",
    "copyreg._reconstructor", "copyreg.__newobj__", "types.SimpleNamespace", "argparse.Namespace",
    *(f"{module}.{kind}" for module in ("pathlib", "pathlib._local")
      for kind in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")),
    *(f"datetime.{kind}" for kind in ("datetime", "date", "time", "timedelta", "timezone")),
    "decimal.Decimal", "fractions.Fraction", "uuid.UUID",
    *(f"{module}.{function}" for module in ("numpy.core", "numpy._core")
      for function in ("multiarray.scalar", "multiarray._reconstruct", "numeric._frombuffer")),
    "numpy.dtype", "numpy.ndarray",
    *(f"numpy.random._pickle.{kind}_ctor" for kind in ("__randomstate", "__generator", "__bit_generator")),
    *(f"numpy.random.{module}.__pyx_unpickle_SeedSequence" for module in ("bit_generator", "_bit_generator")),
    "typing.Union", "_operator.getitem", "operator.getitem",  # types of settings, such as Optional[int]
)  # fmt: skip
_CALLS: Mapping[str, Callable[..., Any]] = {**dict.fromkeys(_VALUES, _inert), **_TENSORS, **_CONTAINERS}
_PLAIN = "save a dense tensor of floating-point numbers"
_UNUSABLE = {
    "torch._utils._rebuild_sparse_tensor": f"a sparse tensor: {_PLAIN}, as to_dense() gives it",
    "torch._utils._rebuild_sparse_csr_tensor": f"a sparse tensor: {_PLAIN}, as to_dense() gives it",
    "torch._utils._rebuild_nested_tensor": f"a nested tensor: {_PLAIN}, as to_padded_tensor() gives it",
    "torch._utils._rebuild_qtensor": f"a quantised tensor: {_PLAIN}, as dequantize() gives it",
    "torch._utils._rebuild_meta_tensor_no_storage":
        "a tensor without its numbers (of the device 'meta'): load the model's weights before it is saved",
    "torch._utils._rebuild_wrapper_subclass": f"a tensor of a class of its own: {_PLAIN}",
    **dict.fromkeys(
        ("torch._utils._rebuild_device_tensor_from_numpy", "torch._utils._rebuild_device_tensor_from_cpu_tensor"),
        f"a tensor of another kind of device: {_PLAIN}, as cpu() gives it",
    ),
}  # fmt: skip
