"""Textures: the stand-in for DTD. Two colours over a periodic or cellular field in turned, warped coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import COLUMNS, ROWS, SIZE, any_colour, camera, contrasting, entry, mix, noise, smooth, turned
from .kinds import Kind

CLASSES = (
    "striped", "dotted", "checkered", "marbled", "grid", "zigzag", "cracked", "woven", "spiral", "bubbly",
    "honeycombed", "blotchy",
)  # fmt: skip
EXTRA = (
    "wavy", "scaly", "rayed", "concentric", "brick", "stained", "sprinkled", "herringbone", "smooth", "crystalline",
)  # fmt: skip
KIND = Kind(
    weight=1.1,
    naming=("a photo of a {} texture", "a {} surface", "{}", "a {} pattern"),
    vague=("a texture", "a surface"),
    other_words={
        "woven": "basket", "checkered": "chessboard", "marbled": "swirling stone", "blotchy": "camouflage",
    },
)  # fmt: skip


@dataclass(frozen=True)
class Plane:
    """What a texture is spread over.

    Arguments:
        rng: its draws.
        u, v: turned, warped coordinates, ``[SIZE, SIZE]``.
        p: the period, in canvas pixels.
    """

    rng: np.random.Generator
    u: np.ndarray
    v: np.ndarray
    p: float

    def radius(self) -> np.ndarray:
        """Distances to the centre."""
        return np.hypot(self.u, self.v)

    def angle(self) -> np.ndarray:
        """Directions from the centre, in radians."""
        return np.arctan2(self.v, self.u)

    def waves(self, phase: np.ndarray) -> np.ndarray:
        """Waves of the plane's period along a phase, in [−1, 1]."""
        return np.sin(2 * np.pi * phase / self.p)

    def staggered(self, row: np.ndarray) -> np.ndarray:
        """Places within a period, every second row moved by half of one."""
        return (self.u + (row % 2) * self.p / 2) % self.p

    def cells(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Distances to the nearest and the second nearest of random points."""
        points = self.rng.uniform(0, SIZE, (count, 2)).astype(np.float32)
        squares = (COLUMNS[..., None] - points[:, 0]) ** 2 + (ROWS[..., None] - points[:, 1]) ** 2
        nearest = np.sqrt(np.partition(squares, 1, axis=-1)[..., :2])
        return nearest[..., 0], nearest[..., 1]


def draw(name: str, rng: np.random.Generator, shift: float) -> np.ndarray:
    """One texture; ``shift`` 0 is flat and high in contrast, 1 warped, uneven, faint and grainy."""
    first = any_colour(rng)
    second = contrasting(rng, first, 210 - 110 * shift)
    u, v = turned(rng)
    warp = (noise(rng, 22) - 0.5) * (2 + 12 * shift)
    field = _TEXTURES[name](Plane(rng, u + warp, v + warp[::-1], rng.uniform(9, 15)))
    pixels = mix(field, first, second) * (1 + shift * 0.5 * (noise(rng, 40, 1)[..., None] - 0.5))
    return camera(rng, pixels, blur=1.6 * shift, exposure=0.35 * shift, grain=24 * shift)


_TEXTURES = {}


@entry(_TEXTURES, "striped")
def _striped(plane):
    return plane.waves(plane.u) > 0


@entry(_TEXTURES, "dotted")
def _dotted(plane):
    u, v, p = plane.u, plane.v, plane.p
    return (u % p - p / 2) ** 2 + (v % p - p / 2) ** 2 < (p * 0.32) ** 2


def _board(plane):
    return (plane.u // plane.p + plane.v // plane.p) % 2 == 0


@entry(_TEXTURES, "checkered")
def _checkered(plane):
    return _board(plane)


@entry(_TEXTURES, "marbled")
def _marbled(plane):
    return np.sin(plane.u / 5 + 7 * noise(plane.rng, 22)) * 0.5 + 0.5


@entry(_TEXTURES, "grid")
def _grid(plane):
    u, v, p = plane.u, plane.v, plane.p
    return (u % p < p * 0.26) | (v % p < p * 0.26)


@entry(_TEXTURES, "zigzag")
def _zigzag(plane):
    return plane.waves(plane.u + abs(plane.v % (2 * plane.p) - plane.p)) > 0


@entry(_TEXTURES, "cracked")
def _cracked(plane):
    first, second = plane.cells(14)
    return second - first < 2.4


@entry(_TEXTURES, "woven")
def _woven(plane):
    return np.where(_board(plane), abs(plane.waves(plane.u)), abs(plane.waves(plane.v)))


@entry(_TEXTURES, "spiral")
def _spiral(plane):
    return np.sin(plane.radius() * 2 * np.pi / plane.p + plane.angle()) > 0


@entry(_TEXTURES, "bubbly")
def _bubbly(plane):
    first, _ = plane.cells(16)
    return (abs(first - 5.5) < 1.6) | (first < 1.5)


@entry(_TEXTURES, "honeycombed")
def _honeycombed(plane):
    v, p = plane.v, plane.p
    x, y = plane.staggered(v // (p * 0.87)) - p / 2, v % (p * 0.87) - p * 0.43
    return np.hypot(x, y) > p * 0.4


@entry(_TEXTURES, "blotchy")
def _blotchy(plane):
    return noise(plane.rng, 15, 1) > 0.55


@entry(_TEXTURES, "wavy")
def _wavy(plane):
    return plane.waves(plane.u + 4 * np.sin(plane.v / 5)) > 0


@entry(_TEXTURES, "scaly")
def _scaly(plane):
    v, p = plane.v, plane.p
    return np.hypot(plane.staggered(v // (p * 0.5)) - p / 2, v % (p * 0.5)) % p < p * 0.42


@entry(_TEXTURES, "rayed")
def _rayed(plane):
    return np.sin(plane.angle() * 9) > 0


@entry(_TEXTURES, "concentric")
def _concentric(plane):
    return np.sin(plane.radius() * 2 * np.pi / plane.p) > 0


@entry(_TEXTURES, "brick")
def _brick(plane):
    v, p = plane.v, plane.p
    return (v % (p * 0.6) < 1.6) | (plane.staggered(v // (p * 0.6)) < 1.6)


@entry(_TEXTURES, "stained")
def _stained(plane):
    return smooth((noise(plane.rng, 26, 1) > 0.72).astype(np.float32), 1.5)


@entry(_TEXTURES, "sprinkled")
def _sprinkled(plane):
    return noise(plane.rng, 4, 1) > 0.8


@entry(_TEXTURES, "herringbone")
def _herringbone(plane):
    u, v = plane.u, plane.v
    return plane.waves(u + np.where((v // plane.p) % 2 == 0, v, -v)) > 0


@entry(_TEXTURES, "smooth")
def _smooth(plane):
    return noise(plane.rng, 60, 1)


@entry(_TEXTURES, "crystalline")
def _crystalline(plane):
    first, second = plane.cells(18)
    return np.clip((second - first) / 9, 0, 1)
