"""Preprocessing: CLIP's resize and crop, to the pixel."""

from __future__ import annotations

import io

import hubfiles
import numpy as np
import pytest
import torch
from PIL import Image

from adamerging_lib.runtime.compat import import_open_clip
from adamerging_lib.suite import normalise
from adamerging_lib.worlds.clip.pixels import preprocess

open_clip = import_open_clip()
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
SHAPES = [(64, 64), (28, 28), (224, 224), (500, 333), (333, 500), (37, 900), (900, 37), (225, 229), (1, 3), (448, 226)]


def transform(size: int):
    return open_clip.image_transform(size, is_train=False, mean=MEAN, std=STD)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [224, 33])
def test_pixels_are_those_of_clips_own_transform(shape, size):
    image = hubfiles.picture(3, *shape)
    drawn = preprocess(hubfiles.encoded(image), size)
    assert drawn.dtype == np.uint8 and drawn.shape == (3, size, size)
    mine = normalise(torch.from_numpy(drawn)[None], MEAN, STD)[0]
    torch.testing.assert_close(mine, transform(size)(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode, format", [
    ("L", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("P", "GIF"), ("CMYK", "JPEG"), ("LA", "PNG"), ("1", "PNG"),
    ("RGB", "JPEG"), ("L", "JPEG"), ("RGB", "WEBP"), ("RGB", "BMP"),
])  # fmt: skip
def test_every_kind_of_image_becomes_rgb_first(mode, format):
    data = hubfiles.encoded(hubfiles.picture(5, 60, 45, mode), format)
    opened = Image.open(io.BytesIO(data))
    assert opened.mode in (mode, "P", "RGB")
    expected = transform(32)(opened.convert("RGB"))
    mine = normalise(torch.from_numpy(preprocess(data, 32))[None], MEAN, STD)[0]
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-6)


def test_a_palette_with_transparency_keeps_its_colours_and_warns_of_nothing():
    image = hubfiles.picture(6, 40, 40, "P")
    plain = preprocess(hubfiles.encoded(image), 20)
    transparent = preprocess(hubfiles.encoded(image, transparency=bytes(range(256))), 20)
    assert np.array_equal(plain, transparent)


def test_orientation_of_photographs_is_followed_as_datasets_does():
    image = hubfiles.picture(7, 40, 30)
    exif = Image.Exif()
    exif[Image.ExifTags.Base.Orientation] = 6  # turned by a quarter
    turned = preprocess(hubfiles.encoded(image, exif=exif.tobytes()), 20)
    assert np.array_equal(turned, preprocess(hubfiles.encoded(image.rotate(-90, expand=True)), 20))
