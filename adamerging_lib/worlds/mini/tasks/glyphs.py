"""Characters: house numbers (the stand-in for SVHN), handwriting (for MNIST), and the letters of pre-training."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from .canvas import FONTS, SIZE, backdrop, camera, contrasting, font, painter, rgb

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = tuple("ABCDEFGHJKLMNPQRTUVWXYZ")  # without I, O and S, which look like one, zero and five


def print_character(name: str, rng: np.random.Generator, shift: float) -> np.ndarray:
    """One printed character, alone or (``shift`` 1) between cut-off neighbours on a weathered plate.

    The text is a digit by its name or a letter by itself.
    """
    ground = backdrop(rng, 0.15 + 0.45 * shift)
    ink = contrasting(rng, ground.mean((0, 1)), 230 - 60 * shift)
    image, pen = painter(ground)
    face, size = FONTS[rng.integers(len(FONTS))], int(rng.integers(44, 58))
    bold = int(rng.integers(0, 3))  # extra stroke width
    glyph = font(face, size)
    x, y = SIZE / 2 + rng.integers(-3, 4), SIZE / 2 + rng.integers(-3, 4)
    text = str(DIGITS.index(name)) if name in DIGITS else name
    pen.text((x, y), text, font=glyph, fill=rgb(ink), anchor="mm", stroke_width=bold)
    for side in (-1, 1):
        if rng.random() < 0.75 * shift:
            neighbour = str(rng.integers(0, 10))
            place = (x + side * size * rng.uniform(0.62, 0.7), y)
            pen.text(place, neighbour, font=glyph, fill=rgb(ink), anchor="mm", stroke_width=bold)
    return camera(
        rng, image, blur=0.5 + 2.0 * shift, exposure=0.45 * shift, grain=6 + 22 * shift, turn=6 + 6 * shift, shift=3
    )


@lru_cache(maxsize=1)
def _handwriting() -> dict[str, np.ndarray]:
    digits = load_digits()
    return {name: digits.images[digits.target == value] / 16 for value, name in enumerate(DIGITS)}


# Shares of scikit-learn's 1,797 scanned digits by split: no scan is in two of them.
SCANS = {"train": (0.0, 0.6), "validation": (0.6, 0.7), "test": (0.7, 1.0)}


def write_digit(name: str, rng: np.random.Generator, shift: float, split: str) -> np.ndarray:
    """One handwritten digit: a scan of the split's own writers' share, enlarged, slanted, white on black."""
    scans = _handwriting()[name]
    low, high = SCANS[split]
    scan = scans[rng.integers(int(len(scans) * low), int(len(scans) * high))]
    big = Image.fromarray((scan * 255).astype(np.uint8)).resize((44, 44), Image.Resampling.BICUBIC)
    page = Image.new("L", (SIZE, SIZE))
    page.paste(big, (10, 10))
    slant = rng.uniform(-0.25, 0.25) * shift
    shear = (1, slant, -slant * 32, 0, 1, 0)
    page = page.transform(page.size, Image.Transform.AFFINE, shear, Image.Resampling.BILINEAR)
    strokes = np.clip((np.asarray(page, np.float32) / 255 - 0.3) * 2.6, 0, 1)
    pixels = np.repeat(strokes[..., None] * 255, 3, 2)
    return camera(rng, pixels, exposure=0.2 * shift, grain=10 * shift, turn=4 + 12 * shift, shift=2 + 4 * shift)
