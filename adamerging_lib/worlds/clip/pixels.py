"""From an encoded image to the pixels that CLIP takes, before normalisation."""

from __future__ import annotations

import struct
from functools import cache
from types import ModuleType

import numpy as np
from PIL import Image

from ...runtime.compat import import_torchvision
from .tasks import ClipTask, mend

# What Pillow raises for bytes that are not an image, or half of one.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def preprocess(data: bytes, size: int) -> np.ndarray:
    """An encoded image as CLIP takes it: RGB, the short side brought to size by bicubic interpolation, centre cropped.

    Colours come first, as in the loaders that both pools of published experts were trained with; CLIP's own transform
    converts last, which only images with a palette or transparency show. The crop is torchvision's, as in the paper;
    the processor in `transformers` may cut one pixel further up or left.

    Returns:
        uint8 ``[3, size, size]``.
    """
    from datasets import Image as Feature

    image = Feature().decode_example({"bytes": data, "path": None})
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours, without Pillow's warning
    functional = transforms()
    image = functional.resize(image.convert("RGB"), [size], functional.InterpolationMode.BICUBIC)
    return np.ascontiguousarray(np.asarray(functional.center_crop(image, [size, size])).transpose(2, 0, 1))


def decode(item: tuple[str, bytes], size: int, task: ClipTask) -> np.ndarray:
    """`preprocess` of an image and the words for where it stands.

    Raises:
        ValueError: naming the place, where the bytes are not an image.
    """
    where, data = item
    try:
        return preprocess(data, size)
    except _BROKEN as error:
        raise ValueError(f"{where} holds no image that can be decoded ({error}): {mend(task)}") from error


@cache
def transforms() -> ModuleType:
    """torchvision's resizing and cropping."""
    import_torchvision()  # which may need help beside a CPU build of torch
    from torchvision.transforms import functional

    return functional
