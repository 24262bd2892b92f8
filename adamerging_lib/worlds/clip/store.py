"""Images of the hub's data sets, decoded and preprocessed once into a file that is mapped into memory from then on.

A store is a folder in the cache: ``images.npy`` (uint8 ``[n, 3, size, size]``, 150 kB per image at 224 px), in the same
order ``labels.npy`` and, once all are there, ``store.json``. Its name holds a digest of what it was made from: the task
and its class order, split, size, draw, and of every source file its name, its length and its last mebibyte, where
parquet has its index. A file that was changed further ahead and kept its length would go unnoticed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from ...files.checkpoint import check_room
from ...runtime.atomic import atomic
from ...runtime.cache import folder as cache_folder
from ...runtime.fingerprints import attach
from ...suite import TaskData
from .pixels import decode, transforms
from .rows import count_rows, read_images, read_labels
from .tasks import ClipTask, mend, size_note, split_files

FORMAT = 1  # raised whenever the same source would give other images
CHUNK = 256  # images between two points that a killed preparation can go on from
_LAST = 1 << 20

_log = logging.getLogger(__name__)


def task_images(
    task: ClipTask,
    split: str,
    root: str | os.PathLike[str],
    *,
    size: int = 224,
    count: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> TaskData:
    """Images and labels of a split, from its store, which is prepared where there is none yet.

    Arguments:
        task: one of ``TASKS``.
        split: ``train``, ``test``, or one of the task's corrupted ones, such as ``motion_blur``.
        root: the assets folder; the files lie in ``datasets/<repository>`` below it, as in the repository.
        size: of the images, pixels.
        count: number of images of a seeded draw, the only ones decoded; all where there are no more. The same draw as
            `Suite.some_images` makes of all of them.
        seed: of the draw.
        progress: a bar on terminals.

    Returns:
        Images mapped from disk, not read into memory.

    Raises:
        ValueError: for files that are missing, cut short or of another data set, a label out of range, an image that
            cannot be decoded, or a disk without room; the message says which and what to do. What was prepared before
            is kept, and the next call goes on from there.
    """
    if size < 1 or (count is not None and count < 1):
        raise ValueError(f"size {size} and count {count}: both must be at least 1")
    files = local_files(task, split, root)
    total = count_rows(files, task)
    if not total:
        raise ValueError(f"{files[0].parent}: the files of {task.id} {split} hold no rows: {mend(task)}")
    rows = torch.arange(total)
    if count is not None and count < total:
        # In ascending order, so that the source files are read once, front to back.
        rows = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count].sort().values
    drawn = {} if len(rows) == total else {"count": count, "seed": seed}
    identity = {
        "format": FORMAT, "task": task.id, "classes": task.classes, "split": split, "size": size, **drawn,
        "source": [_identity(path) for path in files],
    }  # fmt: skip
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    store = cache_folder() / "stores" / f"{task.id}-{split}-{size}-{key[:16]}"
    if not (store / "store.json").is_file():
        store.mkdir(parents=True, exist_ok=True)
        with FileLock(store / "lock"):  # notebooks side by side: who comes second waits and reads
            if not (store / "store.json").is_file():
                if note := size_note(task, split, total):
                    _log.info(note)
                _prepare(store, files, task, rows.numpy(), size, f"{task.id} {split}", progress, identity)
    return _open(store, task)


def local_files(task: ClipTask, split: str, root: str | os.PathLike[str]) -> list[Path]:
    """The files of a split below the assets folder.

    Raises:
        ValueError: where there are none, or one of several is missing.
    """
    home = Path(root) / "datasets" / task.repo
    names = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
    found = split_files(names, task, split)
    if not found:
        pattern = task.files.format(split=task.splits.get(split, split))
        raise ValueError(
            f"no images of {task.id} {split}: {home} has no {pattern} (files of the data set {task.repo} on the "
            f"Hugging Face Hub): put them there, or {mend(task)}"
        )
    return [home / name for name in found]


def _identity(path: Path) -> list[str | int]:
    length = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, length - _LAST))
        return [path.name, length, hashlib.sha256(file.read()).hexdigest()]


def _prepare(
    store: Path, files: Sequence[Path], task: ClipTask, rows: np.ndarray, size: int, name: str, progress: bool,
    identity: dict,
) -> None:  # fmt: skip
    labels = torch.from_numpy(read_labels(files, task)[rows])  # wrong labels are found before hours of decoding
    images, shape = store / "images.npy", (len(rows), 3, size, size)
    header, row = _header(shape), 3 * size * size
    done = _done(images, header, row)
    needed = len(header) + (len(rows) - done) * row + 2 * labels.nbytes
    check_room(images, needed)
    _tell(
        f"{name}: preparing {len(rows) - done:,} images of {size} px, {needed / 1e9:.2f} GB of the "
        f"{shutil.disk_usage(store).free / 1e9:.0f} GB free in {store}",
        progress,
    )
    # What state.fingerprint would find in the finished tensors, for cache keys. Taken while the bytes pass by: later it
    # would mean reading gigabytes again, in every notebook.
    digests = {names: hashlib.sha256(f"{names[0]}|{torch.uint8}|{shape}|".encode()) for names in _FINGERPRINTS}

    def take(block: bytes | memoryview) -> None:
        for digest in digests.values():
            digest.update(block)

    if done:  # a digest cannot be stored half-way, so what an earlier call wrote goes through it again
        with open(images, "rb") as file:
            file.seek(len(header))
            for _ in range(done // CHUNK):
                take(file.read(CHUNK * row))
    with open(images, "r+b" if done else "wb", buffering=0) as file:  # a buffer would fail a second time on closing
        if not done:
            _write(file, header, done, len(rows))
        file.truncate(len(header) + done * row)  # what a kill left of an unfinished chunk
        file.seek(0, os.SEEK_END)
        source = read_images(files, task, rows[done:])
        transforms()  # imported here and not by several threads at once
        bar = tqdm(total=len(rows), initial=done, desc=name, unit="img", disable=None if progress else True)
        # Threads, not processes: Pillow lets go of Python's lock while it decodes and resizes, and nothing is copied.
        with bar, ThreadPoolExecutor(torch.get_num_threads()) as pool:
            while chunk := list(islice(source, CHUNK)):
                block = np.stack(list(pool.map(partial(decode, size=size, task=task), chunk))).data.cast("B")
                _write(file, block, done, len(rows))
                take(block)
                done += len(chunk)
                bar.update(len(chunk))
    label = f"labels|{labels.dtype}|{tuple(labels.shape)}|".encode()
    digests["images", "labels"].update(label + labels.numpy().tobytes())
    with atomic(store / "labels.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, labels.numpy())
    versions = {library: importlib.metadata.version(library) for library in ("pillow", "torchvision", "datasets")}
    record = {
        "fingerprints": {" ".join(names): digest.hexdigest() for names, digest in digests.items()},
        "made with": versions,
        "made from": identity,
    }
    # Last of all: where this file is, the others are whole.
    with atomic(store / "store.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


_FINGERPRINTS = (("",), ("images", "labels"))  # names under which cache.fingerprint_suite asks for them


def _header(shape: tuple[int, ...]) -> bytes:
    # By hand: numpy's open_memmap makes a file of full length at once, and `_done` reads the progress from the length.
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _done(path: Path, header: bytes, row: int) -> int:
    """Images in an unfinished file, in whole chunks."""
    if not path.is_file():
        return 0
    with open(path, "rb") as file:
        if file.read(len(header)) != header:  # of another shape, or cut short inside the header
            return 0
    return (path.stat().st_size - len(header)) // (CHUNK * row) * CHUNK


def _write(file: io.FileIO, data: bytes | memoryview, done: int, total: int) -> None:
    left = memoryview(data)
    try:
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())  # or a power cut could leave the length of a chunk without its bytes
    except OSError as error:
        raise ValueError(
            f"writing {file.name} stopped after {done:,} of {total:,} images ({error.strerror}): make room and run the "
            f"same again, it goes on from there; or delete the folder"
        ) from error


def _tell(text: str, progress: bool) -> None:
    _log.info(text)
    if progress and sys.stderr.isatty():  # a bar's company; in a notebook it would stand on the page
        tqdm.write(text, file=sys.stderr)


def _open(store: Path, task: ClipTask) -> TaskData:
    try:
        record = json.loads((store / "store.json").read_text(encoding="utf-8"))
        # Copy on write: torch warns of arrays that it must not write to, and nothing here does.
        array = np.load(store / "images.npy", mmap_mode="c")
        labels = torch.from_numpy(np.load(store / "labels.npy"))
        images: Tensor = torch.from_numpy(array)
        tensors = {("",): {"": images}, ("images", "labels"): {"images": images, "labels": labels}}
        for names, together in tensors.items():
            attach(together, record["fingerprints"][" ".join(names)])
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"the store {store} is broken ({error}): delete the folder, and it is made anew") from error
    return TaskData(images, labels, task.classes)
