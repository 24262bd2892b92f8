"""Textures: the stand-in for DTD. Two colours over a periodic or cellular field in turned, warped coordinates."""

from __future__ import annotations

import numpy as np

from .canvas import COLUMNS, ROWS, SIZE, any_colour, camera, contrasting, mix, noise, smooth, turned

CLASSES = (
    "striped", "dotted", "checkered", "marbled", "grid", "zigzag", "cracked", "woven", "spiral", "bubbly",
    "honeycombed", "blotchy",
)  # fmt: skip
EXTRA = (
    "wavy", "scaly", "rayed", "concentric", "brick", "stained", "sprinkled", "herringbone", "smooth", "crystalline",
)  # fmt: skip


def draw(name: str, rng: np.random.Generator, shift: float) -> np.ndarray:
    """One texture; ``shift`` 0 is flat and high in contrast, 1 warped, uneven, faint and grainy."""
    first = any_colour(rng)
    second = contrasting(rng, first, 210 - 110 * shift)
    u, v = turned(rng)
    warp = (noise(rng, 22) - 0.5) * (2 + 12 * shift)
    field = _field(name, rng, u + warp, v + warp[::-1], rng.uniform(9, 15))
    pixels = mix(field, first, second) * (1 + shift * 0.5 * (noise(rng, 40, 1)[..., None] - 0.5))
    return camera(rng, pixels, blur=1.6 * shift, exposure=0.35 * shift, grain=24 * shift)


def _cells(rng, count):
    """Distances to the nearest and the second nearest of random points."""
    points = rng.uniform(0, SIZE, (count, 2)).astype(np.float32)
    squares = (COLUMNS[..., None] - points[:, 0]) ** 2 + (ROWS[..., None] - points[:, 1]) ** 2
    nearest = np.sqrt(np.partition(squares, 1, axis=-1)[..., :2])
    return nearest[..., 0], nearest[..., 1]


def _field(name, rng, u, v, p):
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    if name == "striped":
        return np.sin(2 * np.pi * u / p) > 0
    if name == "dotted":
        return (u % p - p / 2) ** 2 + (v % p - p / 2) ** 2 < (p * 0.32) ** 2
    if name == "checkered":
        return (u // p + v // p) % 2 == 0
    if name == "marbled":
        return np.sin(u / 5 + 7 * noise(rng, 22)) * 0.5 + 0.5
    if name == "grid":
        return (u % p < p * 0.26) | (v % p < p * 0.26)
    if name == "zigzag":
        return np.sin(2 * np.pi * (u + abs(v % (2 * p) - p)) / p) > 0
    if name == "cracked":
        first, second = _cells(rng, 14)
        return second - first < 2.4
    if name == "woven":
        return np.where((u // p + v // p) % 2 == 0, abs(np.sin(2 * np.pi * u / p)), abs(np.sin(2 * np.pi * v / p)))
    if name == "spiral":
        return np.sin(radius * 2 * np.pi / p + angle) > 0
    if name == "bubbly":
        first, _ = _cells(rng, 16)
        return (abs(first - 5.5) < 1.6) | (first < 1.5)
    if name == "honeycombed":
        row = v // (p * 0.87)
        x, y = (u + (row % 2) * p / 2) % p - p / 2, v % (p * 0.87) - p * 0.43
        return np.hypot(x, y) > p * 0.4
    if name == "blotchy":
        return noise(rng, 15, 1) > 0.55
    if name == "wavy":
        return np.sin(2 * np.pi * (u + 4 * np.sin(v / 5)) / p) > 0
    if name == "scaly":
        row = v // (p * 0.5)
        return np.hypot((u + (row % 2) * p / 2) % p - p / 2, v % (p * 0.5)) % p < p * 0.42
    if name == "rayed":
        return np.sin(angle * 9) > 0
    if name == "concentric":
        return np.sin(radius * 2 * np.pi / p) > 0
    if name == "brick":
        row = v // (p * 0.6)
        return (v % (p * 0.6) < 1.6) | ((u + (row % 2) * p / 2) % p < 1.6)
    if name == "stained":
        return smooth((noise(rng, 26, 1) > 0.72).astype(np.float32), 1.5)
    if name == "sprinkled":
        return noise(rng, 4, 1) > 0.8
    if name == "herringbone":
        return np.sin(2 * np.pi * (u + np.where((v // p) % 2 == 0, v, -v)) / p) > 0
    if name == "smooth":
        return noise(rng, 60, 1)
    first, second = _cells(rng, 18)  # crystalline
    return np.clip((second - first) / 9, 0, 1)
