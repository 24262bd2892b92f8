"""Checkpoints as files, one tensor at a time: read without being loaded, written without being held."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..runtime.atomic import atomic
from ..state import CheckpointError, sha256, unreadable

_INDEX = ".safetensors.index.json"
_PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")


class CheckpointFile(Mapping[str, Tensor]):
    """A checkpoint on disk, as a state dict whose tensors are read anew each time they are asked for.

    Arguments:
        path: a ``.safetensors`` file, the ``.safetensors.index.json`` of one in several files, or a folder with
            either as ``model``.

    Raises:
        CheckpointError: naming the file and the mend, where it is missing, cut short, or of another format.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = _located(Path(path))
        shards = _shards(self.path) if self.path.name.endswith(_INDEX) else {self.path: None}
        self.files = tuple(shards)
        self.layout: dict[str, Tensor] = {}
        """Tensor name → tensor on ``meta``: shape and dtype."""
        self.formats: dict[str, str] = {}
        """Tensor name → dtype as safetensors calls it."""
        self.metadata: dict[str, str] = {}
        self._file: dict[str, Path] = {}
        for file, expected in shards.items():
            with _opened(file) as handle:
                self.metadata |= handle.metadata() or {}
                if missing := set(expected or ()) - set(handle.keys()):
                    raise CheckpointError(f"{file} lacks {sorted(missing)[0]!r}, which {self.path} promises")
                # In the order of `state.load`: sums over tensors then run alike.
                for key in getattr(handle, "offset_keys", handle.keys)():
                    self.layout[key] = handle.get_tensor(key).to("meta")  # mapped, not read
                    self.formats[key] = handle.get_slice(key).get_dtype()
                    self._file[key] = file

    def __getitem__(self, key: str) -> Tensor:
        # Opened each time: closing gives the mapped pages back, so what is resident is one tensor, not the file.
        with _opened(self._file[key]) as handle:
            return handle.get_tensor(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout)

    def __len__(self) -> int:
        return len(self.layout)

    def digests(self) -> dict[str, str]:
        """File name → SHA-256, of the file or of its parts."""
        return {file.name: sha256(file) for file in self.files}


@contextmanager
def writing(
    path: str | os.PathLike[str], like: CheckpointFile, metadata: Mapping[str, str]
) -> Iterator[Callable[[str, Tensor], None]]:
    """Write a safetensors file tensor by tensor; it takes its name only if the block succeeds.

    Arguments:
        path: target; its folder is made.
        like: names, shapes and dtypes of the tensors.
        metadata: text to keep beside them.

    Returns:
        A function (name, tensor) that writes one tensor; every name once, in any order.
    """
    # The format: eight bytes with the header's length, the header as JSON, then the numbers. Wide types first, so that
    # every tensor lies at a multiple of its item size.
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    places, end = {}, 0
    for key in sorted(like, key=lambda key: (-like.layout[key].itemsize, key)):
        places[key] = end
        end += like.layout[key].nbytes
        offsets = [places[key], end]
        header[key] = {"dtype": like.formats[key], "shape": list(like.layout[key].shape), "data_offsets": offsets}
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    start, left = 8 + len(text), set(places)
    with atomic(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)

            def put(key: str, tensor: Tensor) -> None:
                expected = like.layout[key]
                if (tensor.shape, tensor.dtype) != (expected.shape, expected.dtype):
                    raise ValueError(
                        f"{key!r} came out as {tensor.dtype} {list(tensor.shape)} instead of {expected.dtype} "
                        f"{list(expected.shape)}: this is an error of the method"
                    )
                left.remove(key)
                file.seek(start + places[key])
                file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)

            yield put
            file.truncate(start + end)
        if left:
            raise ValueError(f"nothing was written for {sorted(left)[:5]}")
        with _opened(temporary):
            pass


def check_room(path: str | os.PathLike[str], needed: int) -> None:
    """Raise ValueError where the disk that ``path`` is or would be on has fewer bytes free than needed."""
    there = next(place for place in Path(path).absolute().parents if place.exists())
    if needed > (free := shutil.disk_usage(there).free):
        raise ValueError(f"{path} needs {needed / 1e9:.2f} GB and the disk has {free / 1e9:.2f} GB: make room first")


def _located(path: Path) -> Path:
    if path.is_dir():
        for name in ("model.safetensors", f"model{_INDEX}"):
            if (path / name).is_file():
                return path / name
        raise CheckpointError(f"{path} is a folder without model.safetensors: name the file")
    if path.suffix in _PICKLED:
        target = shlex.quote(str(path.with_suffix(".safetensors")))
        raise CheckpointError(
            f"{path} is a pickle, and reading one can run code that somebody hid in it. Convert it once, which runs "
            f"nothing of it:\n  adamerging convert --kind state_dict {shlex.quote(str(path))} {target}\n"
            f"(without --kind, an image encoder of CLIP becomes its vision tower)"
        )
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: check the path")
    return path


def _shards(index: Path) -> dict[Path, list[str]]:
    """File → names of its tensors, of a checkpoint in several files."""
    try:
        where = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards: dict[Path, list[str]] = {}
        for key, name in where.items():
            shards.setdefault(index.parent / name, []).append(key)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is no index of a checkpoint: it needs a 'weight_map'") from error
    if missing := [path.name for path in shards if not path.is_file()]:
        raise CheckpointError(f"{index} names {missing[0]}, which is not beside it: fetch all its parts")
    return shards


@contextmanager
def _opened(path: Path) -> Iterator:
    try:
        with safe_open(path, framework="pt") as handle:
            yield handle
    except (SafetensorError, OSError) as error:
        raise unreadable(path, error) from error
