"""Image sets as packs: one ``.npz`` file per set, with arrays or with JPEG bytes; nothing in it is executed.

A pack lies in the assets' folder (``$ADAMERGING_ASSETS``) or in its ``tiny`` folder, in one of two layouts. Both
hold ``classnames``, text ``[classes]`` in label order, and labels are whole numbers from 0.

* ``NAME.npz``: ``train_images`` and ``test_images``, uint8 ``[n, height, width, 3]`` (or 1 channel: grey), and
  ``train_labels`` and ``test_labels`` ``[n]``.
* ``NAME_jpgN.npz``: ``jpg_bytes``, uint8, all files one after the other; ``offsets`` ``[n + 1]``, file i being
  ``jpg_bytes[offsets[i]:offsets[i + 1]]``; ``labels`` ``[n]``; ``is_test`` ``[n]``, 1 for test and 0 for training.
  N says how large the images are and is for people only.

After NAME may follow more words, such as ``resisc45_14class_jpg128.npz``.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...runtime.values import one_of
from ...suite import TaskData

FOLDER = "tiny"  # below the assets' root, beside `models` and `datasets` of the clip profiles
SPLITS = ("train", "test")
_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
_JPEGS = ("jpg_bytes", "offsets", "labels", "is_test")


def find_npz(name: str, root: Path) -> Path | None:
    """The one ``.npz`` file of a name in the root or its ``tiny`` folder; None where there is none.

    Raises:
        ValueError: where several files have the name.
    """
    pattern = re.compile(rf"{re.escape(name)}(_\w+)?\.npz", re.IGNORECASE)
    folders = [folder for folder in (root, root / FOLDER) if folder.is_dir()]
    found = sorted(path for folder in folders for path in folder.iterdir() if pattern.fullmatch(path.name))
    if len(found) > 1:
        names = ", ".join(path.relative_to(root).as_posix() for path in found)
        raise ValueError(f"{root} has several files of the name {name!r} ({names}): keep one")
    return found[0] if found else None


@contextmanager
def opened(path: Path) -> Iterator[Mapping[str, np.ndarray]]:
    """A ``.npz`` file whose arrays are read when asked for; nothing in it is unpickled.

    Raises:
        ValueError: naming the file, where it is none, or an array of it cannot be read.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            yield archive
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a readable .npz file ({error}): it may be cut short, copy it again") from error


def read_pack(path: Path, split: str, size: int) -> TaskData:
    """The images of one split, ``size`` by ``size`` pixels, and their labels.

    What lies beyond the centre square is cut off, and the square brought to size by Pillow's bicubic filter.

    Arguments:
        path: the pack.
        split: ``train`` or ``test``.
        size: pixels per side.

    Raises:
        ValueError: naming the pack and what does not fit its layout.
    """
    one_of("split", split, SPLITS)
    with opened(path) as pack:
        layout = _JPEGS if "jpg_bytes" in pack else _ARRAYS
        wanted = [name for name in layout if layout is _JPEGS or name.startswith(split)] + ["classnames"]
        read = {name: pack[name] for name in wanted if name in pack}
    if missing := [name for name in wanted if name not in read]:
        raise ValueError(f"{path} lacks {', '.join(missing)}; {__name__} describes the layout of packs")
    classes = tuple(str(name) for name in read["classnames"])
    images, labels = _jpegs(read, split, path) if layout is _JPEGS else _arrays(read, split, path)
    if labels.dtype.kind not in "iu" or not len(labels) or labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(f"{path}: {split} labels must be whole numbers from 0 to {len(classes) - 1}, at least one")
    pixels = np.empty((len(labels), 3, size, size), np.uint8)
    for place, image in enumerate(images):
        pixels[place] = _fitted(image, size).transpose(2, 0, 1)
    return TaskData(torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64)), classes)


def _arrays(pack: Mapping[str, np.ndarray], split: str, path: Path) -> tuple[Iterator[Image.Image], np.ndarray]:
    images, labels = pack[f"{split}_images"], pack[f"{split}_labels"]
    if (
        images.dtype != np.uint8
        or images.ndim != 4
        or images.shape[3] not in (1, 3)
        or labels.shape != images.shape[:1]
    ):
        raise ValueError(
            f"{path}: {split}_images must be uint8 [n, height, width, 3 or 1] with n labels, and are {images.dtype} "
            f"{list(images.shape)} with labels {list(labels.shape)}"
        )
    return (Image.fromarray(image[..., 0] if image.shape[2] == 1 else image) for image in images), labels


def _jpegs(pack: Mapping[str, np.ndarray], split: str, path: Path) -> tuple[Iterator[Image.Image], np.ndarray]:
    data, offsets, labels, is_test = (pack[name] for name in _JPEGS)
    count = len(labels)
    whole = (
        offsets.shape == (count + 1,) and not offsets[0] and offsets[-1] == len(data) and (np.diff(offsets) > 0).all()
    )
    if data.dtype != np.uint8 or not whole or is_test.shape != (count,) or not np.isin(is_test, (0, 1)).all():
        raise ValueError(
            f"{path}: offsets must rise from 0 to the length of jpg_bytes (uint8), one more than the {count} labels, "
            f"and is_test be 0 or 1 for each label"
        )
    chosen = np.flatnonzero(is_test == (split == "test"))

    def decoded() -> Iterator[Image.Image]:
        for place in chosen:
            file = io.BytesIO(data[offsets[place] : offsets[place + 1]].tobytes())
            try:
                yield Image.open(file, formats=("JPEG",)).convert("RGB")
            except (OSError, SyntaxError, Image.DecompressionBombError) as error:
                raise ValueError(
                    f"{path}: image {place} is not a readable JPEG ({error}): make the pack again"
                ) from error

    return decoded(), labels[chosen]


def _fitted(image: Image.Image, size: int) -> np.ndarray:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.convert("RGB").crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))
