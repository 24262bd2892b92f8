"""Data sets in the files that the Hugging Face Hub holds, with few small pictures, written by `datasets` itself."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Pillow

from adamerging_lib.worlds.clip.tasks import ClipTask, hub_split


def picture(seed: int = 0, width: int = 40, height: int = 30, mode: str = "RGB") -> Pillow.Image:
    """A coarse random pattern, smooth enough to survive JPEG."""
    rng = np.random.default_rng(seed)
    coarse = Pillow.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return coarse.resize((width, height), Pillow.Resampling.BILINEAR).convert(mode)


def encoded(image: Pillow.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def pictures(count: int, seed: int = 0, **shape) -> list[bytes]:
    return [encoded(picture(seed + number, **shape)) for number in range(count)]


def write_split(
    root: Path,
    task: ClipTask,
    split: str,
    images: Sequence[bytes],
    labels: Sequence[int],
    *,
    names: Sequence[str] | None = None,
    shards: int = 1,
    label: object = None,
    rows_a_group: int = 3,
) -> list[Path]:
    """Write a split below an assets folder, in the repository's layout.

    Arguments:
        names: of the classes, in the order of ``labels``; the task's own by default.
        label: the feature of the label column, instead of class names.

    Returns:
        The files.
    """
    home = Path(root) / "datasets" / task.repo
    pattern = task.files.format(split=hub_split(task, split))
    bounds = np.linspace(0, len(images), shards + 1).astype(int)
    files = []
    for number, (start, stop) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        shard = number if pattern.endswith(".tar") else f"{number:05d}-of-{shards:05d}"
        path = home / pattern.replace("*", str(shard))
        path.parent.mkdir(parents=True, exist_ok=True)
        part = slice(start, stop)
        if pattern.endswith(".tar"):
            _write_tar(path, images[part], labels[part], start, (task.image, task.label))
        else:
            feature = label or ClassLabel(names=list(names or task.classes))
            columns = {task.image: [{"bytes": b, "path": f"{n}.png"} for n, b in enumerate(images[part])]}
            columns |= {task.label: list(labels[part]), "image_id": [str(n) for n in range(start, stop)]}
            features = Features({task.image: Image(), task.label: feature, "image_id": Value("string")})
            Dataset.from_dict(columns, features=features).to_parquet(path, batch_size=rows_a_group)
        files.append(path)
    return files


def _write_tar(path: Path, images: Sequence[bytes], labels: Sequence[int], start: int, kinds: tuple[str, str]) -> None:
    with tarfile.open(path, "w") as archive:
        for number, (image, label) in enumerate(zip(images, labels, strict=True), start):
            for kind, data in zip(kinds, (image, str(label).encode()), strict=True):
                entry = tarfile.TarInfo(f"s{number:07d}.{kind}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
