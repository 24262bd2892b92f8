"""Packs of the profile `tiny-hub`: some images of every class of the paper's data sets, drawn once from its files.

A pack lies at ``<assets>/tiny-hub/NAME_jpg128.npz``, in the layout of JPEG files that `packs` describes: 128 pixels
square (the short side brought to 128, as `clip.pixels` does for CLIP, and the centre cut out), quality 95 with colours
at full resolution, which small digits need. Once a pack is there, the hub's files of that set are not needed any more.

About 4,000 training and 2,000 test images per task, each from its own split on the hub: 400 and 200 per class where
there are ten (EuroSAT, SVHN, MNIST), 93 and 47 of GTSRB, 89 and 44 of RESISC45, all 80 and 40 of DTD. By that rule
SUN397 would have 10 of each of its 397 classes for training and Cars 20 of 196; no class has fewer than 25 (if the set
has them: some of Cars have 24), which is about 9,900 and 4,900 images, and 5 and 10 per class for testing. More would
cost room and gain little: the recipe shows these two experts 128,000 views, thirteen of each of SUN397's images.

The draw is seeded, and the same files give the same images; their bytes are those of one version of Pillow.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from tqdm import tqdm

from ...files.checkpoint import check_room
from ...runtime.atomic import atomic
from ...runtime.compat import import_datasets
from ..clip import tasks as clip
from ..clip.pixels import decode, transforms
from ..clip.rows import read_images, read_labels
from ..clip.store import CHUNK, local_files
from .packs import SPLITS
from .tasks import HUB, HUB_TASKS

SIDE, QUALITY, SEED = 128, 95, 0
IMAGES = {"train": 4000, "test": 2000}  # per task, about
LEAST = {"train": 25, "test": 5}  # per class
ROOM = 20_000  # bytes that an image takes at most, on average: photographs take about 10,000


def make_pack(name: str, root: Path) -> Path:
    """The pack of a task, made now unless it is there: all of it or, if it is interrupted, nothing.

    Arguments:
        name: one of ``HUB_TASKS``.
        root: the assets folder; the files lie in ``datasets/<repository>`` below it, as on the hub.

    Raises:
        ValueError: for files that are missing, cut short or of another data set, a class without images, an image that
            cannot be decoded, or a disk without room; the message says which and what to do.
    """
    path = root / HUB / f"{name}_jpg{SIDE}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{name}.lock")):  # another process may be at it: who comes second finds it done
        if not path.is_file():
            _write(path, _drawn(name, root, path))
    return path


def most(split: str, classes: int) -> int:
    """Images per class that a pack takes, where the data set has them."""
    return max(LEAST[split], round(IMAGES[split] / classes))


def draw(labels: np.ndarray, classes: Sequence[str], count: int) -> np.ndarray:
    """Rows of up to ``count`` images of every class, ascending; a seeded draw.

    Arguments:
        labels: of all rows.
        classes: names in label order.
        count: images per class.

    Raises:
        ValueError: naming the classes that have no image.
    """
    if without := [name for label, name in enumerate(classes) if not (labels == label).any()]:
        more = f" and {len(without) - 5} more" if len(without) > 5 else ""
        raise ValueError(f"no image of the class {', '.join(map(repr, without[:5]))}{more}")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SEED)).numpy()
    shuffled = labels[order]
    return np.sort(np.concatenate([order[shuffled == label][:count] for label in range(len(classes))]))


def _drawn(name: str, root: Path, path: Path) -> dict[str, np.ndarray]:
    """The arrays of a pack."""
    try:
        import_datasets()
    except ImportError as error:
        raise ValueError(str(error)) from error
    task = replace(clip.TASKS[HUB_TASKS[name].stand_in], fetch=HUB)
    files = {split: local_files(task, split, root) for split in SPLITS}
    labels = {split: read_labels(files[split], task) for split in SPLITS}
    counts = {split: most(split, len(task.classes)) for split in SPLITS}
    rows = {}
    for split in SPLITS:
        try:
            rows[split] = draw(labels[split], task.classes, counts[split])
        except ValueError as error:
            where = files[split][0].parent
            raise ValueError(f"{where}: the files of {task.id} {split} hold {error}: {clip.mend(task)}") from error
    total = sum(map(len, rows.values()))
    check_room(path, total * ROOM)
    jpegs: list[bytes] = []
    transforms()  # imported here and not by several threads at once
    bar = tqdm(total=total, desc=f"{name}: pack", unit="img", leave=False, disable=None)
    with bar, ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for split in SPLITS:
            source = read_images(files[split], task, rows[split])
            while chunk := list(islice(source, CHUNK)):
                jpegs += pool.map(partial(_jpeg, task=task), chunk)
                bar.update(len(chunk))
    made_from = {"repository": task.repo, "images a class": counts, "seed": SEED, "side": SIDE, "quality": QUALITY}
    return {
        "jpg_bytes": np.frombuffer(b"".join(jpegs), np.uint8),
        "offsets": np.cumsum([0, *map(len, jpegs)]),
        "labels": np.concatenate([labels[split][rows[split]] for split in SPLITS]),
        "is_test": np.repeat(np.array([split == "test" for split in SPLITS], np.uint8), [len(rows[s]) for s in SPLITS]),
        "classnames": np.array(task.classes),
        "made_from": np.array(json.dumps(made_from)),
    }


def _jpeg(item: tuple[str, bytes], task: clip.ClipTask) -> bytes:
    pixels = decode(item, SIDE, task).transpose(1, 2, 0)
    Image.fromarray(pixels).save(buffer := io.BytesIO(), "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    try:
        with atomic(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        raise ValueError(f"{path} could not be written ({error.strerror}): make room and run the same again") from error
