"""Batches from folders of images and files of texts, ready for `adapt`; with labels where there are some."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..runtime.compat import import_timm
from ..runtime.values import few

PathLike = str | os.PathLike[str]
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm")
TEXTS = (".txt", ".csv", ".tsv", ".json", ".jsonl")
LABEL = ("label", "labels")
COLUMNS = (
    ("text", "text_pair"), ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"),
    ("question", "sentence"), ("text",), ("sentence",),
)  # fmt: skip
"""Columns of a text, or of a pair, that are taken where none are named; the first of these that are there."""


class Images(Dataset):
    """Images below a folder, in the order of their names; labels by the names of its sub-folders, where it has some.

    Arguments:
        folder: of images, or of one folder of images per class.
        transform: PIL image → tensor.
    """

    def __init__(self, folder: PathLike, transform: Callable[[Any], Tensor]) -> None:
        self.folder, self.transform = Path(folder), transform
        if not self.folder.is_dir():
            raise ValueError(f"no folder of images at {folder}: check the path")
        found = (p for p in self.folder.rglob("*") if p.suffix.lower() in IMAGES and p.is_file())
        self.paths = sorted(p for p in found if not p.name.startswith("."))
        if not self.paths:
            raise ValueError(f"{folder} holds no image ({', '.join(IMAGES)}): name a folder that does")
        tops = [path.relative_to(self.folder).parts for path in self.paths]
        classed = all(len(parts) > 1 for parts in tops)
        self.classes = tuple(sorted({parts[0] for parts in tops})) if classed else ()
        self.labels = [self.classes.index(parts[0]) for parts in tops] if classed else None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Tensor | tuple[Tensor, int]:
        from PIL import Image

        try:
            with Image.open(self.paths[i]) as image:
                found = self.transform(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            raise ValueError(f"{self.paths[i]} is not an image that can be read ({error}): remove it") from error
        return found if self.labels is None else (found, self.labels[i])


def image_batches(
    folder: PathLike, model: nn.Module | Callable[[Any], Tensor], *, batch_size: int = 16, shuffle: bool = True
) -> DataLoader:
    """Return batches of the images below a folder, with labels where each class has a sub-folder.

    Arguments:
        folder: folder of images, with sub-folders of any depth.
        model: a timm model, whose own preprocessing is used; or a function, PIL image → tensor.
        batch_size: images per batch.
        shuffle: in each pass.

    Returns:
        A loader of tensors ``[n, 3, h, w]``, or of these with labels ``[n]``.

    Raises:
        ValueError: for a folder without images.

    Example:
        >>> to_tensor = lambda image: torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255
        >>> images, labels = next(iter(am.image_batches("photos", to_tensor, batch_size=4)))
        >>> images.shape
        torch.Size([4, 3, 8, 8])
    """
    transform = timm_transform(model) if isinstance(model, nn.Module) else model
    return DataLoader(Images(folder, transform), batch_size, shuffle=shuffle)


def timm_transform(model: nn.Module) -> Callable[[Any], Tensor]:
    """The preprocessing of a timm model, as for evaluation."""
    import_timm()
    from timm.data import create_transform, resolve_model_data_config

    if not hasattr(model, "pretrained_cfg"):
        raise ValueError(f"a {type(model).__name__} is not a timm model: give a function, PIL image → tensor, instead")
    return create_transform(**resolve_model_data_config(model), is_training=False)


class Texts(Dataset):
    """The lines or rows of a file: (text or pair, label or None) each.

    Arguments:
        file: ``.txt`` with one text per line, ``.csv`` or ``.tsv`` with names of columns in the first line, ``.json``
            with a list of objects, or ``.jsonl`` with one object per line.
        columns: of the text, or of the pair; default: see ``COLUMNS``.
        labels: name → number, where labels are names.
        labelled: whether labels are read, where there is a column ``label`` or ``labels``.
    """

    def __init__(
        self,
        file: PathLike,
        columns: Sequence[str] | None = None,
        labels: Mapping[str, int] | None = None,
        labelled: bool = True,
    ) -> None:
        self.file = Path(file)
        rows = _rows(self.file)
        if not rows:
            raise ValueError(f"{file} holds no text: name a file that does")
        self.columns = _columns(rows[0], columns, self.file)
        label = next((name for name in LABEL if name in rows[0]), None) if labelled else None
        self.texts = [tuple(self._text(row, name, i) for name in self.columns) for i, row in enumerate(rows)]
        self.labels = None
        if label is not None:
            self.labels = [self._label(row, label, i, labels or {}) for i, row in enumerate(rows)]

    def _text(self, row: Mapping[str, Any], name: str, i: int) -> str:
        if not isinstance(found := row.get(name), str):
            raise ValueError(f"row {i + 1} of {self.file} has no text under {name!r}: fill it in or drop it")
        return found

    def _label(self, row: Mapping[str, Any], name: str, i: int, labels: Mapping[str, int]) -> int:
        found = row.get(name)
        if isinstance(found, str) and found in labels:
            return labels[found]
        if isinstance(found, int) or (isinstance(found, str) and found.strip().isdecimal()):
            return int(found)
        known = f" or one of {', '.join(labels)}" if labels else ""
        raise ValueError(f"row {i + 1} of {self.file} has the label {found!r}: give a whole number{known}")

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, i: int) -> tuple[tuple[str, ...], int | None]:
        return self.texts[i], None if self.labels is None else self.labels[i]


def text_batches(
    file: PathLike,
    tokenizer: Callable[..., Mapping[str, Tensor]],
    *,
    columns: Sequence[str] | None = None,
    labels: Mapping[str, int] | None = None,
    labelled: bool = True,
    batch_size: int = 16,
    shuffle: bool = True,
) -> DataLoader:
    """Return batches of the texts in a file, tokenised and padded, with labels where the file has a column of them.

    Arguments:
        file, columns, labels, labelled: see `Texts`.
        tokenizer: a tokenizer of Hugging Face.
        batch_size: texts per batch.
        shuffle: in each pass.

    Returns:
        A loader of dicts of tensors, with ``labels`` where there are some.

    Raises:
        ValueError: for a file without texts.

    Example:
        >>> def tokenizer(texts, pairs=None, **options):  # yours is AutoTokenizer.from_pretrained(folder)
        ...     return {"input_ids": torch.tensor([[len(text)] for text in texts])}
        >>> labels = {"bad": 0, "good": 1}
        >>> batch = next(iter(am.text_batches("reviews.csv", tokenizer, labels=labels, batch_size=2)))
        >>> sorted(batch)
        ['input_ids', 'labels']
    """

    def collate(rows: list[tuple[tuple[str, ...], int | None]]) -> dict[str, Tensor]:
        texts = [list(part) for part in zip(*(text for text, _ in rows), strict=True)]
        found = dict(tokenizer(*texts, padding=True, truncation=True, return_tensors="pt"))
        return found if rows[0][1] is None else found | {"labels": torch.tensor([label for _, label in rows])}

    return DataLoader(Texts(file, columns, labels, labelled), batch_size, shuffle=shuffle, collate_fn=collate)


def _rows(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        raise ValueError(f"no file of texts at {file}: check the path")
    kind = file.suffix.lower()
    if kind not in TEXTS:
        raise ValueError(f"{file} should be one of {', '.join(TEXTS)}: rename or convert it")
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            if kind in (".csv", ".tsv"):
                return list(csv.DictReader(lines, delimiter="\t" if kind == ".tsv" else ","))
            text = lines.read()
        if kind == ".txt":
            return [{"text": line} for line in text.splitlines() if line.strip()]
        found = (
            json.loads(text) if kind == ".json" else [json.loads(line) for line in text.splitlines() if line.strip()]
        )
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise ValueError(f"{file} cannot be read as {kind} in UTF-8: {error}") from error
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise ValueError(f'{file} should hold objects such as {{"text": "…"}}, in a list or one per line')
    return found


def _columns(row: Mapping[str, Any], asked: Sequence[str] | None, file: Path) -> tuple[str, ...]:
    if asked:
        if missing := [name for name in asked if name not in row]:
            raise ValueError(f"{file} has no column {missing[0]!r}; it has {few(list(map(str, row)))}")
        if len(asked) > 2:
            raise ValueError(f"columns {', '.join(asked)} are more than a text or a pair: name one or two")
        return tuple(asked)
    if known := next((names for names in COLUMNS if all(name in row for name in names)), None):
        return known
    others = [name for name in row if name not in LABEL]
    if len(others) == 1:
        return (others[0],)
    raise ValueError(f"which column of {file} is the text? It has {few(list(map(str, row)))}: name it with --columns A")
