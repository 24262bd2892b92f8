"""Correct or wrong, image by image, as one short text in a record's row."""

from __future__ import annotations

import base64
import binascii

import numpy as np

FIELD = "right"
"""The row's field that holds the text."""


def pack(right: np.ndarray) -> str:
    """Outcomes as text: eight images per byte, first image in the highest bit, bytes in base64.

    Arguments:
        right: bool ``[n]``, whether each image is classified correctly, in the order of the task's test images.

    Raises:
        ValueError: for anything but a vector of bools.
    """
    right = np.asarray(right)
    if right.ndim != 1 or right.dtype != bool:
        raise ValueError(f"outcomes have shape {right.shape} and type {right.dtype}: give a bool vector, one per image")
    return base64.b64encode(np.packbits(right).tobytes()).decode("ascii")


def unpack(text: str, n: int) -> np.ndarray:
    """Outcomes from text, bool ``[n]``; the inverse of `pack`.

    Arguments:
        text: what `pack` wrote.
        n: number of images; the text alone does not tell it, because the last byte is filled up with zeros.

    Raises:
        ValueError: for text that is not base64, or that does not hold n outcomes.
    """
    try:
        packed = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except binascii.Error as error:
        raise ValueError(f"outcomes {text[:20]!r}… are not base64 ({error}): run the experiment again") from error
    if len(packed) != -(-n // 8):
        raise ValueError(f"outcomes of {n} images take {-(-n // 8)} bytes, not {len(packed)}: run the experiment again")
    return np.unpackbits(packed, count=n).astype(bool)
