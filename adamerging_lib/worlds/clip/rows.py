"""Labels and encoded images in the files of a data set, as the hub holds them: parquet, or WebDataset's tar.

Read by pyarrow itself: `datasets` would first copy every file into a cache of its own, which doubles the disk that
SUN397 needs. What the columns mean is read by `datasets` all the same, from the schema that it wrote into the files.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ...runtime.compat import import_datasets
from ...runtime.values import few
from .tasks import ClipTask, mend

BATCH = 64  # encoded images read at a time


def plain_name(name: str) -> str:
    """A class name reduced to its lower-case letters and digits, by which names are compared."""
    return "".join(character for character in name.casefold() if character.isalnum())


def count_rows(files: Sequence[Path], task: ClipTask) -> int:
    """Rows of some files together, from their indices alone.

    Raises:
        ValueError: for a file that is broken or lacks a column.
        ImportError: where the extra ``clip`` is not installed.
    """
    import_datasets()
    return sum(_rows(path, task) for path in files)


def read_labels(files: Sequence[Path], task: ClipTask) -> np.ndarray:
    """Labels of all rows of some files, one after the other.

    Where a file names the classes of its labels, they are matched with the task's by name, whatever their order; where
    it does not, its numbers are taken as they are.

    Returns:
        int64 ``[n]``, indices into ``task.classes``.

    Raises:
        ValueError: for a file that is broken, lacks a column, names other classes, or holds a label out of range.
    """
    return np.concatenate([_labels(path, task) for path in files])


def read_images(files: Sequence[Path], task: ClipTask, rows: Sequence[int]) -> Iterator[tuple[str, bytes]]:
    """Encoded images of some rows, in their order.

    Arguments:
        files: as for `read_labels`.
        rows: numbers of rows over all files, ascending.

    Returns:
        Where the image stands, for people, and its bytes.
    """
    wanted, start = np.asarray(rows, dtype=np.int64), 0
    for path in files:
        count = _rows(path, task)
        inside = wanted[(wanted >= start) & (wanted < start + count)] - start
        if len(inside):
            read = _tar_images if path.suffix == ".tar" else _parquet_images
            for row, data in read(path, task, inside):
                if not data:
                    raise ValueError(f"{path}: row {row} holds no image but a path to one: {mend(task)}")
                yield f"row {row} of {path}", data
        start += count


def _labels(path: Path, task: ClipTask) -> np.ndarray:
    with _readable(path, task):
        if path.suffix == ".tar":
            found, names = _tar_labels(path, task), None
        else:
            found, names = _parquet_labels(path, task)
    order = _order(path, task, names)
    if len(wrong := np.flatnonzero((found < 0) | (found >= len(order)))):
        raise ValueError(
            f"{path}: row {wrong[0]} has label {found[wrong[0]]}, but {task.id} has labels 0 to {len(order) - 1}: "
            f"{mend(task)}"
        )
    return order[found]


def _order(path: Path, task: ClipTask, names: Sequence[str] | None) -> np.ndarray:
    """The file's label → ours."""
    classes = task.classes
    if names is None or list(names) == [str(number) for number in range(len(classes))]:  # numbers, not names
        return np.arange(len(classes))
    ours, theirs = ({plain_name(name): n for n, name in enumerate(many)} for many in (classes, names))
    unknown = [name for name in names if plain_name(name) not in ours]
    missing = [name for name in classes if plain_name(name) not in theirs]
    if unknown or missing:
        raise ValueError(
            f"{path} does not have the {len(classes)} classes of {task.id}: missing {_named(missing)}, unknown "
            f"{_named(unknown)} (capitals, spaces and punctuation do not count): is it a file of {task.repo}? "
            f"{mend(task)}"
        )
    return np.array([ours[plain_name(name)] for name in names])


def _named(names: Sequence[str]) -> str:
    return few([repr(name) for name in names])


@contextmanager
def _readable(path: Path, task: ClipTask) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, tarfile.TarError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read ({(str(error) or repr(error)).splitlines()[0]}); if it was copied or downloaded, "
            f"it may be cut short, or a pointer of Git LFS: {mend(task)}"
        ) from error


def _parquet(path: Path, task: ClipTask):
    from pyarrow import parquet

    file = parquet.ParquetFile(path)
    for column in (task.image, task.label):
        if column not in file.schema_arrow.names:
            raise ValueError(
                f"{path} has no column {column!r} but {', '.join(file.schema_arrow.names)}: is it a file of "
                f"{task.repo}? {mend(task)}"
            )
    return file


def _parquet_labels(path: Path, task: ClipTask) -> tuple[np.ndarray, Sequence[str] | None]:
    from datasets import ClassLabel, Features

    with _parquet(path, task) as file:
        feature = Features.from_arrow_schema(file.schema_arrow)[task.label]
        column = file.read([task.label]).column(0)
    if column.null_count:
        raise ValueError(f"{path} has {column.null_count} rows without a label: {mend(task)}")
    found = column.to_numpy()
    if found.dtype.kind not in "biu":
        raise ValueError(f"{path}: its labels are {column.type}, not whole numbers: is it a file of {task.repo}?")
    return found.astype(np.int64), feature.names if isinstance(feature, ClassLabel) else None


def _parquet_images(path: Path, task: ClipTask, rows: np.ndarray) -> Iterator[tuple[int, bytes | None]]:
    wanted, start = set(rows.tolist()), 0
    with _readable(path, task), _parquet(path, task) as file:
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if wanted.isdisjoint(range(start, start + count)):  # a group's bytes are read only for a row in it
                start += count
                continue
            for batch in file.iter_batches(BATCH, row_groups=[group], columns=[task.image]):
                column = batch.column(0)
                for offset in range(len(batch)):
                    if start + offset in wanted:
                        cell = column[offset].as_py()
                        yield start + offset, cell["bytes"] if isinstance(cell, dict) else cell
                start += len(batch)


def _tar_labels(path: Path, task: ClipTask) -> np.ndarray:
    keys = {extension: [key for key, _ in _members(path, extension)] for extension in (task.image, task.label)}
    if keys[task.image] != keys[task.label]:
        odd = set(keys[task.image]).symmetric_difference(keys[task.label])
        raise ValueError(
            f"{path}: {len(keys[task.image])} .{task.image} and {len(keys[task.label])} .{task.label} files do not "
            f"pair up ({_named(sorted(odd))}): {mend(task)}"
        )
    try:
        return np.array([int(data) for _, data in _members(path, task.label)], np.int64)
    except ValueError as error:
        raise ValueError(f"{path}: one of its labels is not a whole number ({error}): {mend(task)}") from error


def _tar_images(path: Path, task: ClipTask, rows: np.ndarray) -> Iterator[tuple[int, bytes]]:
    wanted = set(rows.tolist())
    with _readable(path, task):
        yield from ((row, data) for row, (_, data) in enumerate(_members(path, task.image)) if row in wanted)


def _members(path: Path, extension: str) -> Iterator[tuple[str, bytes]]:
    """Name without extension, and content, of the files of one kind in the archive's order: one per row."""
    with tarfile.open(path) as archive:
        for member in archive:
            key, _, found = Path(member.name).name.partition(".")
            if member.isfile() and found == extension:
                yield key, archive.extractfile(member).read()


def _rows(path: Path, task: ClipTask) -> int:
    with _readable(path, task):
        if path.suffix == ".tar":
            return sum(1 for _ in _members(path, task.label))
        with _parquet(path, task) as file:
            return file.metadata.num_rows
