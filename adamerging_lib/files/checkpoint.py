"""Checkpoints as files, one tensor at a time: read without being loaded, written without being held."""

from __future__ import annotations

import os
import shlex
import shutil
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from ..runtime.atomic import atomic
from ..state import CheckpointError, sha256, unreadable
from .header import DTYPES, Broken, Entry, Short, Unreadable, header_text, read_header
from .located import INDEX, Located, locate
from .signatures import foreign, is_pickled

_MAPPED = 1 << 20  # bytes from which on a tensor is mapped, not read


class CheckpointFile(Mapping[str, Tensor]):
    """A checkpoint on disk, as a state dict whose tensors are read anew each time they are asked for.

    Arguments:
        path: a ``.safetensors`` file, the ``.safetensors.index.json`` of one in several files, or a folder with
            either, as `located.locate` finds it. An index decides for every name which file counts; what it does not
            name is not part of the checkpoint.
        part: whether one of several files may be taken for itself.

    Raises:
        CheckpointError: naming the file and the mend, where it is missing, cut short, or of another format.
    """

    def __init__(self, path: str | os.PathLike[str], *, part: bool = False) -> None:
        located = locate(path, part=part)
        self.path, self.files = located.path, tuple(located.files)
        self.layout: dict[str, Tensor] = {}
        """Tensor name → tensor on ``meta``: shape and dtype."""
        self.formats: dict[str, str] = {}
        """Tensor name → dtype as safetensors calls it."""
        self.metadata: dict[str, str] = {}
        self._shards: dict[str, _Shard] = {}
        for file, names in located.files.items():
            _check_kind(file, located)
            shard = _Shard(file)
            self.metadata |= shard.metadata
            for key in _counting(shard, names, self.path):
                if key in self._shards:
                    raise CheckpointError(
                        f"{key!r} lies in {self._shards[key].path} and in {file.name}, and no index says which of them "
                        f"counts: fetch the {INDEX} of {file.parent}, or remove the file that is not part of it"
                    )
                entry = shard.entries[key]
                self.layout[key] = torch.empty(entry.shape, dtype=DTYPES[entry.format], device="meta")
                self.formats[key] = entry.format
                self._shards[key] = shard

    def __getitem__(self, key: str) -> Tensor:
        return self._shards[key].tensor(key)

    def __contains__(self, key: object) -> bool:  # Mapping's own would read the tensor
        return key in self.layout

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout)

    def __len__(self) -> int:
        return len(self.layout)

    def digests(self) -> dict[str, str]:
        """File name → SHA-256, of the file or of its parts."""
        return {file.name: sha256(file) for file in self.files}


def _counting(shard: _Shard, names: tuple[str, ...] | None, index: Path) -> Iterable[str]:
    """The tensors of a file that count, in the order of `state.load`: sums over tensors then run alike."""
    if names is None:
        return shard.entries
    if missing := [name for name in names if name not in shard.entries]:
        raise CheckpointError(f"{shard.path} lacks {missing[0]!r}, which {index} promises: fetch both again")
    counting = set(names)
    return [key for key in shard.entries if key in counting]


class _Shard:
    """One safetensors file: its header is read once, its tensors from where the header says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _told(path), open(path, "rb") as file:
            self._state = _identity(os.fstat(file.fileno()))
            self.metadata, self.entries = read_header(file)
        self._open: int | None = None

    def tensor(self, key: str) -> Tensor:
        entry = self.entries[key]
        flat = self._mapped(entry) if entry.nbytes >= _MAPPED else None
        return (self._read(entry) if flat is None else flat).view(entry.shape)

    def _mapped(self, entry: Entry) -> Tensor | None:
        """Numbers within the file: what is resident is what is looked at, and goes with the tensor."""
        if entry.start % DTYPES[entry.format].itemsize:
            return None  # no numbers can begin there
        self._check(os.stat(self.path))
        try:
            mapped = torch.from_file(str(self.path), shared=False, size=self._state[0], dtype=torch.uint8)
        except RuntimeError:  # a file larger than what the system lets a process have
            return None
        return mapped[entry.start : entry.start + entry.nbytes].view(DTYPES[entry.format])

    def _read(self, entry: Entry) -> Tensor:
        if self._open is None:  # kept: opening takes longer than reading a small tensor
            self._open = os.open(self.path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._open)
            self._check(os.fstat(self._open))
        if not entry.nbytes:
            return torch.empty(0, dtype=DTYPES[entry.format])
        data, done = bytearray(entry.nbytes), 0
        while done < entry.nbytes:  # the system gives two gigabytes at most at a time
            if not (count := os.preadv(self._open, [memoryview(data)[done:]], entry.start + done)):
                raise self._changed()
            done += count
        return torch.frombuffer(data, dtype=DTYPES[entry.format])

    def _check(self, found: os.stat_result) -> None:
        if _identity(found) != self._state:
            raise self._changed()

    def _changed(self) -> CheckpointError:
        return CheckpointError(f"{self.path} was changed while it was read: run this again when it is whole")


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Errors of a header, as errors that name the file and what to do."""
    try:
        yield
    except Short as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file: {error}, as a download that was cut short: fetch it again, "
            f"whole, or save it again"
        ) from error
    except Unreadable as error:
        raise CheckpointError(
            f"{path}: {error}: take the model as it was before it was quantised, or save it in bfloat16"
        ) from error
    except (Broken, OSError) as error:
        raise unreadable(path, error) from error


def _check_kind(file: Path, located: Located) -> None:
    """Raise CheckpointError where a file of a checkpoint is of another kind than safetensors."""
    if is_pickled(file):
        place = located.path
        if not all(map(is_pickled, located.files)):
            raise CheckpointError(
                f"{place} is of files of two formats, {file.name} is a pickle: fetch one format whole"
            )
        if len(located.files) > 1 or place != file:
            place = place if place.name.endswith(INDEX) else place.parent
            target = located.path.with_name("model.safetensors")
        elif (target := place.with_suffix(".safetensors")) == place:
            target = place.with_name(f"{place.stem}-converted.safetensors")
        raise CheckpointError(
            f"{place} is a pickle, and reading one can run code that somebody hid in it. Convert it once, which runs "
            f"nothing of it:\n  adamerging convert --kind state_dict {shlex.quote(str(place))} "
            f"{shlex.quote(str(target))}\n(without --kind, an image encoder of CLIP becomes its vision tower)"
        )
    if words := foreign(file):
        raise CheckpointError(f"{file} {words}")


@contextmanager
def writing(
    path: str | os.PathLike[str], like: CheckpointFile | Mapping[str, Tensor], metadata: Mapping[str, str]
) -> Iterator[Callable[[str, Tensor], None]]:
    """Write a safetensors file tensor by tensor; it takes its name only if the block succeeds.

    Arguments:
        path: target; its folder is made.
        like: names, shapes and dtypes of the tensors: a checkpoint, or name → tensor, which may be on ``meta``.
        metadata: text to keep beside them.

    Returns:
        A function (name, tensor) that writes one tensor; every name once, in any order.
    """
    layout = like.layout if isinstance(like, CheckpointFile) else like
    start, places, end = header_text(layout, metadata)
    left = set(places)
    with atomic(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(start)

            def put(key: str, tensor: Tensor) -> None:
                expected = layout[key]
                if (tensor.shape, tensor.dtype) != (expected.shape, expected.dtype):
                    raise ValueError(
                        f"{key!r} came out as {tensor.dtype} {list(tensor.shape)} instead of {expected.dtype} "
                        f"{list(expected.shape)}: this is an error of the method"
                    )
                left.remove(key)
                file.seek(places[key])
                file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)

            yield put
            file.truncate(end)
        if left:
            raise ValueError(f"nothing was written for {sorted(left)[:5]}")
        _Shard(temporary)  # it can be read


def check_free(path: Path, force: bool) -> None:
    """Raise ValueError where something is called ``path`` already, a link to nowhere too, unless it is replaced."""
    if not force and (path.exists() or path.is_symlink()):
        what = "exists" if path.exists() else f"is a link to {os.readlink(path)}, which is not there"
        raise ValueError(f"{path} {what}: choose another file, or replace it with --force (force=True)")


def check_room(path: str | os.PathLike[str], needed: int) -> None:
    """Raise ValueError where the disk that ``path`` is or would be on has fewer bytes free than needed."""
    there = next(place for place in Path(path).absolute().parents if place.exists())
    if needed > (free := shutil.disk_usage(there).free):
        raise ValueError(f"{path} needs {needed / 1e9:.2f} GB and the disk has {free / 1e9:.2f} GB: make room first")
