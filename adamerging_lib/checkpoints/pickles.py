"""Files of ``torch.save``, of either format and with whole modules in them, read without executing anything of them.

Why not ``torch.load(weights_only=True, mmap=True)`` under ``safe_globals``, with an inert class for every name that
``get_unsafe_globals_in_checkpoint`` finds? It was tried with torch 2.13.0 on the 385 files that the tests of
checkpoints write and on 42 more, made so that torch takes their outer form. The genuine encoders and heads come out
alike. But

* whole modules in the format before torch 1.6 cannot be read: names are found in zip files only (6 files);
* calls of eval, exec, open and others come back as an object, and the file is not refused (14 files);
* tuples within tuples as a key, in a set or in pairs take more than the 10 s of CPU time that were allowed (3 files);
* a tensor of 2^60 numbers over a storage of 4, with strides of 0, is accepted, and so are storages that promise 4 GB or
  -1 numbers (5 files);
* a compressed program of 1 MB is unpacked to 1 GB, more than memory and time allowed (1 file);
* a flipped bit among the numbers is not noticed: nothing checks the checksum (1 file).
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..state import CheckpointError
from .inert import Record, Refused, Storage, Stored, Unusable
from .machine import run

_PROTOCOL = b"\x80"  # the instruction that begins every pickle of protocol 2 or later
_MAGIC = 0x1950A86A20F9469CFC6C  # begins the files of torch before 1.6

# What broken files raise here and in zipfile.
_BROKEN = (ValueError, LookupError, TypeError, ArithmeticError, EOFError, OSError, RuntimeError, MemoryError,
           zipfile.BadZipFile)  # fmt: skip


class PickledFile:
    """A file of ``torch.save``, as what was saved in it.

    Arguments:
        path: the file.

    Raises:
        CheckpointError: naming the file and the mend: it is not such a file, is cut short, or wants to call something.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise CheckpointError(f"no checkpoint at {self.path}: check the path")
        self._size = self.path.stat().st_size
        self._archive: zipfile.ZipFile | None = None  # of the zip format; kept open, its directory is read once
        self._members: dict[str, str] = {}  # name below the archive's one folder → name
        self._offsets: dict[str, int] = {}  # of the older format: storage key → where it begins
        self._last: tuple[Storage, bytearray] | None = None  # the last storage that tensors share
        try:
            with open(self.path, "rb") as file:
                start = file.read(2)
                file.seek(0)
                self.content: Any = self._zip() if start == b"PK" else self._legacy(file, start)
                """Containers, numbers, texts, a `Record` for every instance, a `Stored` for every tensor."""
        except CheckpointError:
            raise
        except Unusable as error:
            raise CheckpointError(f"{self.path} {error}") from error
        except Refused as error:
            raise CheckpointError(
                f"{self.path} {error}: nothing of it was executed, and the file is refused. Take the checkpoint from "
                f"its publisher; if it is yours, save the model's state dict alone"
            ) from error
        except _BROKEN as error:
            raise self._broken(error) from error

    def tensor(self, stored: Stored) -> Tensor:
        """Read one tensor, into memory of its own."""
        storage = stored.storage
        whole = math.prod(stored.shape) == storage.count
        if self._last is not None and self._last[0] == storage:
            data = self._last[1]
        else:
            data = self._numbers(storage)
            self._last = None if whole else (storage, data)
        flat = torch.frombuffer(data, dtype=storage.dtype) if data else torch.empty(0, dtype=storage.dtype)
        view = flat.as_strided(stored.shape, stored.stride, stored.offset)
        return view if self._last is None else view.clone(memory_format=torch.contiguous_format)

    def _numbers(self, storage: Storage) -> bytearray:
        try:
            data = self._part(storage) if self._archive is None else bytearray(self._member(f"data/{storage.key}"))
            if len(data) < storage.nbytes:
                raise ValueError(f"storage {storage.key} holds {len(data)} bytes instead of {storage.nbytes}")
        except _BROKEN as error:
            raise self._broken(error) from error
        return data if len(data) == storage.nbytes else data[: storage.nbytes]

    def _broken(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"{self.path} is not a readable file of torch.save ({type(error).__name__}: {error}); if it was copied or "
            f"downloaded, it may be cut short: fetch it again, else save it again"
        )

    def _zip(self) -> Any:
        self._archive = zipfile.ZipFile(self.path)
        names = self._archive.namelist()
        self._members = {name.partition("/")[2]: name for name in names}
        if len(self._members) < len(names):  # readers differ in which of them they take
            raise ValueError("its archive holds two files of one name")
        if "constants.pkl" in self._members:
            raise CheckpointError(f"{self.path} is a TorchScript program, not weights: save its state dict")
        if "byteorder" in self._members and self._member("byteorder") != b"little":
            raise CheckpointError(f"{self.path} was saved by a big-endian machine: save it again on another one")
        return run(io.BytesIO(self._member("data.pkl")), self._size)

    def _member(self, name: str) -> bytes:
        info = self._archive.getinfo(self._members[name])
        # What unpacks to more than the file holds was made to fill the memory.
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > self._size:
            raise ValueError(f"{name} is compressed, which torch.save never does")
        return self._archive.read(info)  # with its checksum

    def _legacy(self, file: BinaryIO, start: bytes) -> Any:
        if start[:1] != _PROTOCOL:
            raise ValueError("it has neither of torch.save's formats")
        if (found := run(file, self._size)) != _MAGIC:
            raise CheckpointError(
                f"{self.path} is a pickle, but none of torch.save: it holds {_kind(found)}. Load it where it comes "
                f"from, and save its tensors with safetensors.torch.save_file"
            )
        run(file, self._size)  # the format's version
        system = run(file, self._size)
        if not system["little_endian"]:
            raise CheckpointError(f"{self.path} was saved by a big-endian machine: save it again on another one")
        storages: dict[str, Storage] = {}
        content = run(file, self._size, storages)
        for key in run(file, self._size):
            count = int.from_bytes(file.read(8), "little")
            if count != storages[key].count:
                raise ValueError(f"storage {key} holds {count} numbers instead of {storages[key].count}")
            self._offsets[key] = file.tell()
            file.seek(storages[key].nbytes, os.SEEK_CUR)
        if file.tell() > self._size:
            raise EOFError("it ends before its last tensor")
        return content

    def _part(self, storage: Storage) -> bytearray:
        with open(self.path, "rb") as file:
            file.seek(self._offsets[storage.key])
            return bytearray(file.read(storage.nbytes))


def _kind(content: Any) -> str:
    return str(content.name) if isinstance(content, Record) else f"a {type(content).__name__}"


class StoredTensors(Mapping[str, Tensor]):
    """Name → tensor of a pickled file, each read anew when it is asked for."""

    def __init__(self, file: PickledFile, tensors: Mapping[str, Stored]) -> None:
        self._file, self._tensors = file, tensors
        self.layout = {
            key: torch.empty(stored.shape, dtype=stored.storage.dtype, device="meta") for key, stored in tensors.items()
        }
        """Tensor name → tensor on ``meta``: shape and dtype."""

    def __getitem__(self, key: str) -> Tensor:
        return self._file.tensor(self._tensors[key])

    def __contains__(self, key: object) -> bool:  # Mapping's own would read the tensor
        return key in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
