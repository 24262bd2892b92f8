"""The header of a safetensors file: read once, checked as strictly as safetensors does, and written.

The format: eight bytes with the header's length, the header as JSON, then the numbers, tensor behind tensor.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz, "F4": torch.float4_e2m1fn_x2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
    "C64": torch.complex64, "BOOL": torch.bool,
}  # fmt: skip
"""Types as safetensors calls them; torch keeps two F4 in one entry, so that its last dimension is half as long."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_WITHOUT = {"F6_E2M3", "F6_E3M2"}  # of safetensors; torch has no such numbers
_LONGEST = 100_000_000  # bytes of a header, as in safetensors
_METADATA = "__metadata__"


class Broken(ValueError):
    """A header that no safetensors file has; what is wrong, as words that follow "because"."""


class Short(Broken):
    """A file that ends before its header says."""


class Unreadable(ValueError):
    """Sound, but of numbers that torch has not; names them."""


class Entry(NamedTuple):
    """One tensor: its type as safetensors calls it, its shape in torch, and where its bytes lie in the file."""

    format: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


def read_header(file: BinaryIO) -> tuple[dict[str, str], dict[str, Entry]]:
    """The metadata of a safetensors file and its tensors, in the order in which they lie there.

    Arguments:
        file: the file, open at its beginning.

    Raises:
        Short, Broken: where it is cut short, or no safetensors file at all.
        Unreadable: where it holds numbers that torch has not.
    """
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(start, "little") if len(start := file.read(8)) == 8 else None
    if length is None:
        raise Short(f"it holds {size} bytes, too few for a header")
    if length > _LONGEST:
        raise Broken(f"its header would have {length:,} bytes, more than the {_LONGEST:,} that are allowed")
    if 8 + length > size:
        raise Short(f"it ends within its header, after {size:,} of {8 + length:,} bytes")
    content = _parsed(file.read(length))
    metadata = content.pop(_METADATA, None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Broken("its metadata are not text")
    places = [(*_offsets(key, entry), key) for key, entry in content.items()]
    entries, end = {}, 0
    for begin, stop, key in sorted(places):
        if begin != end:
            raise Broken(f"{key!r} begins at byte {begin:,} where the tensor before it ends at {end:,}")
        entries[key] = _entry(key, content[key], 8 + length + begin, stop - begin)
        end = stop
    if (promised := 8 + length + end) > size:
        raise Short(f"it ends after {size:,} of the {promised:,} bytes that its header promises")
    if promised < size:
        raise Broken(f"it holds {size - promised:,} bytes more than its header names")
    if odd := {entry.format for entry in entries.values()} - DTYPES.keys():
        name = next(key for key, entry in entries.items() if entry.format in odd)
        raise Unreadable(f"{name!r} is of type {entries[name].format}, which torch has not")
    return metadata, entries


def _parsed(text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise Broken("no header begins at its ninth byte")
    try:
        content = json.loads(text.decode("utf-8"))
        tensors = len(content) - (_METADATA in content)
        if any(text.count(b'"%s"' % word) != tensors for word in (b"dtype", b"shape", b"data_offsets")):
            json.loads(text, object_pairs_hook=_unique)  # slower: something may be named twice
    except Broken:
        raise
    except (ValueError, RecursionError) as error:
        raise Broken(f"its header is not JSON ({error})") from error
    if odd := [key for key in content if not key.isascii() and not _encodes(key)]:
        raise Broken(f"{odd[0]!r} is not text")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):  # which of the two counts is anybody's guess
        twice = next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        raise Broken(f"its header names {twice!r} twice")
    return found


def _encodes(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def _natural(values: Any) -> bool:
    if type(values) is not list:
        return False
    for n in values:
        if type(n) is not int or not 0 <= n < 2**63:
            return False
    return True


def _offsets(key: str, entry: Any) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not _natural(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise Broken(f"it does not say where {key!r} lies")
    return offsets[0], offsets[1]


def _entry(key: str, entry: dict[str, Any], start: int, nbytes: int) -> Entry:
    kind, shape = entry.get("dtype"), entry.get("shape")
    if not isinstance(kind, str) or not _natural(shape):
        raise Broken(f"it does not say of what type and shape {key!r} is")
    if kind not in DTYPES:  # its size cannot be checked, nor is it ever read
        if kind not in _WITHOUT and not kind.isalnum() and not kind.replace("_", "").isalnum():
            raise Broken(f"{key!r} is of type {kind!r}")
        return Entry(kind, tuple(shape), start, nbytes)
    if kind == "F4":
        if not shape or shape[-1] % 2:
            raise Unreadable(f"{key!r} holds 4-bit numbers in rows of an odd length, which torch cannot hold")
        shape = [*shape[:-1], shape[-1] // 2]
    if math.prod(shape) * DTYPES[kind].itemsize != nbytes:
        raise Broken(f"{key!r} of shape {shape} and type {kind} would not fill its {nbytes:,} bytes")
    return Entry(kind, tuple(shape), start, nbytes)


def format_of(dtype: torch.dtype) -> str:
    """What safetensors calls a type of torch.

    Raises:
        ValueError: where it has no name for it.
    """
    if dtype not in _NAMES:
        raise ValueError(f"a safetensors file holds no {str(dtype).removeprefix('torch.')}")
    return _NAMES[dtype]


def header_text(layout: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int], int]:
    """What stands before the numbers of a safetensors file.

    Arguments:
        layout: name → tensor of its shape and type, which may be on ``meta``.
        metadata: text to keep beside the tensors.

    Returns:
        The bytes; name → where in the file the tensor begins; where the last one ends.
    """
    # Wide types first, so that every tensor lies at a multiple of its item size.
    header: dict[str, object] = {_METADATA: dict(metadata)}
    places, end = {}, 0
    for key in sorted(layout, key=lambda key: (-layout[key].itemsize, key)):
        tensor = layout[key]
        shape, places[key] = list(tensor.shape), end
        if tensor.dtype == DTYPES["F4"]:
            shape[-1] *= 2
        end += tensor.nbytes
        header[key] = {"dtype": format_of(tensor.dtype), "shape": shape, "data_offsets": [places[key], end]}
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    return len(text).to_bytes(8, "little") + text, {key: start + n for key, n in places.items()}, start + end
