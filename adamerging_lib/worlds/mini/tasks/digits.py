"""Handwritten digits: the stand-in for MNIST. Scans that scikit-learn ships; pre-training never shows handwriting."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from .canvas import SIZE, camera
from .housenumbers import CLASSES as CLASSES

# Shares of scikit-learn's 1,797 scanned digits by split: no scan is in two of them.
SCANS = {"train": (0.0, 0.6), "validation": (0.6, 0.7), "test": (0.7, 1.0)}


@lru_cache(maxsize=1)
def _handwriting() -> dict[str, np.ndarray]:
    digits = load_digits()
    return {name: digits.images[digits.target == value] / 16 for value, name in enumerate(CLASSES)}


def draw(name: str, rng: np.random.Generator, shift: float, split: str) -> np.ndarray:
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
