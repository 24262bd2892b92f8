"""Aerial scenes from low altitude: the stand-in for RESISC45. Objects seen from above, at any heading."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .canvas import SIZE, any_colour, camera, entry, mix, near, noise, painter, rgb, turned
from .kinds import Kind

CLASSES = (
    "circular farmland", "crop rows", "road intersection", "runway", "baseball field", "river bend",
    "dense houses", "storage tanks", "harbour", "roundabout", "swimming pool", "railway",
)  # fmt: skip
EXTRA = ("car park", "solar panels", "tennis court", "stadium", "golf course", "windmills", "greenhouses", "quarry")
KIND = Kind(
    weight=1.1,
    naming=("an aerial photo of a {}", "a {} seen from above", "a {}"),
    vague=("an aerial photo", "seen from above"),
    other_words={
        "circular farmland": "irrigated discs", "dense houses": "suburb", "storage tanks": "white cylinders",
        "harbour": "marina", "railway": "train tracks",
    },
)  # fmt: skip


@dataclass(frozen=True)
class Ground:
    """The ground seen from above, before anything is on it.

    Arguments:
        rng: its draws.
        spread: standard deviation of every colour, in grey levels.
        u, v: turned coordinates, ``[SIZE, SIZE]``.
    """

    rng: np.random.Generator
    spread: float
    u: np.ndarray
    v: np.ndarray

    def tint(self, *colour: float) -> np.ndarray:
        """A colour as it looks today."""
        return near(self.rng, colour, self.spread)

    def paint(self, *colour: float) -> tuple[int, int, int]:
        """The same for a pen."""
        return rgb(self.tint(*colour))

    def blob(self, threshold: float) -> np.ndarray:
        """A blobby region: smooth noise over a threshold."""
        return noise(self.rng, 24, 1) > threshold


def draw(name: str, rng: np.random.Generator, shift: float) -> np.ndarray:
    """One image from above; ``shift`` 0 is a clear day, 1 other soils and seasons, haze and sensor noise."""
    u, v = turned(rng, jitter=8)
    ground = Ground(rng, 8 + 24 * shift, u, v)
    pixels = ground.tint(115, 125, 85) + (noise(rng, 10)[..., None] - 0.5) * (30 + 36 * shift)
    if name in _FIELDS:
        pixels = _FIELDS[name](ground, pixels)
    image, pen = painter(pixels)
    x, y = (int(value) for value in rng.integers(22, 43, 2))
    if name not in _FIELDS:
        _OBJECTS[name](ground, pen, x, y)
    if shift:
        image = Image.blend(
            image, Image.new("RGB", image.size, rgb(any_colour(rng, 110, 230))), rng.uniform(0, 0.5 * shift)
        )
    return camera(rng, image, blur=1.9 * shift, exposure=0.4 * shift, grain=24 * shift)


_FIELDS, _OBJECTS = {}, {}  # what is drawn by turned coordinates, and what by a pen


@entry(_FIELDS, "crop rows")
def _crop_rows(ground, pixels):
    rows = np.sin(ground.u * 2 * np.pi / ground.rng.uniform(7, 11)) > 0
    return mix(rows, ground.tint(90, 132, 60), ground.tint(152, 130, 90))


@entry(_FIELDS, "road intersection")
def _road_intersection(ground, pixels):
    u, v = ground.u, ground.v
    pixels = mix((abs(u) < 5) | (abs(v) < 5), pixels, ground.tint(120, 120, 125))
    return mix((abs(u) < 0.8) | (abs(v) < 0.8), pixels, np.array([232, 232, 225]))


@entry(_FIELDS, "runway")
def _runway(ground, pixels):
    u, v = ground.u, ground.v
    pixels = mix(abs(u) < ground.rng.uniform(9, 12), pixels, ground.tint(80, 80, 86))
    return mix((abs(u) < 1.4) & (v % 12 < 6), pixels, np.array([242, 242, 240]))


@entry(_FIELDS, "river bend")
def _river_bend(ground, pixels):
    rng, u, v = ground.rng, ground.u, ground.v
    middle = u + rng.uniform(8, 12) * np.sin(v / rng.uniform(7, 11) + rng.uniform(0, 6))
    return mix(abs(middle) < rng.uniform(5, 8), pixels, ground.tint(48, 90, 124))


@entry(_FIELDS, "railway")
def _railway(ground, pixels):
    u, v = ground.u, ground.v
    pixels = mix(abs(u) < 8, pixels, ground.tint(132, 120, 108))
    pixels = mix((abs(u) < 7) & (v % 6 < 2.4), pixels, ground.tint(70, 56, 46))
    return mix((abs(abs(u) - 4) < 1), pixels, np.array([205, 205, 210]))


@entry(_FIELDS, "roundabout")
def _roundabout(ground, pixels):
    u, v = ground.u, ground.v
    radius = np.hypot(u, v)
    pixels = mix((abs(u) < 4) | (abs(v) < 4) | (radius < 18), pixels, ground.tint(122, 122, 126))
    return mix(radius < 9, pixels, ground.tint(70, 140, 70))


@entry(_FIELDS, "car park")
def _car_park(ground, pixels):
    rng, u, v = ground.rng, ground.u, ground.v
    pixels = mix(np.ones_like(u), pixels, ground.tint(96, 96, 100))
    return mix((u % 12 < 8) & (v % 7 < 5) & (noise(rng, 7) > 0.45), pixels, any_colour(rng, 60, 250))


@entry(_FIELDS, "solar panels")
def _solar_panels(ground, pixels):
    u, v = ground.u, ground.v
    return mix((u % 12 < 8.5) & (v % 24 < 21), pixels, ground.tint(30, 42, 92))


@entry(_FIELDS, "greenhouses")
def _greenhouses(ground, pixels):
    u, v = ground.u, ground.v
    return mix((u % 16 < 12) & (abs(v) < 26), pixels, ground.tint(226, 234, 236))


@entry(_FIELDS, "golf course")
def _golf_course(ground, pixels):
    pixels = mix(ground.blob(0.5), ground.tint(70, 130, 60), ground.tint(120, 180, 90))
    return mix(ground.blob(0.74), pixels, ground.tint(236, 220, 170))


@entry(_FIELDS, "quarry")
def _quarry(ground, pixels):
    u, v = ground.u, ground.v
    return mix((np.hypot(u, v) // 5) % 2, ground.tint(176, 150, 120), ground.tint(140, 118, 96))


@entry(_OBJECTS, "circular farmland")
def _circular_farmland(ground, pen, x, y):
    rng = ground.rng
    size = int(rng.integers(17, 24))
    for left in range(int(rng.integers(-size, 0)), SIZE, size):
        for top in range(int(rng.integers(-size, 0)), SIZE, size):
            colour = ground.paint(70, 142, 60) if rng.random() < 0.6 else ground.paint(172, 150, 100)
            pen.ellipse([left + 1, top + 1, left + size - 2, top + size - 2], colour)


@entry(_OBJECTS, "baseball field")
def _baseball_field(ground, pen, x, y):
    rng = ground.rng
    radius, start = int(rng.integers(22, 30)), int(rng.integers(0, 360))
    pen.pieslice([x - radius, y - radius, x + radius, y + radius], start, start + 95, ground.paint(66, 152, 70))
    radius = radius * 0.55
    pen.pieslice([x - radius, y - radius, x + radius, y + radius], start, start + 95, ground.paint(196, 140, 92))


@entry(_OBJECTS, "dense houses")
def _dense_houses(ground, pen, x, y):
    rng = ground.rng
    size = int(rng.integers(9, 13))
    for left in range(0, SIZE, size):
        for top in range(0, SIZE, size):
            colour = ground.paint(176, 108, 90) if rng.random() < 0.65 else ground.paint(146, 146, 146)
            pen.rectangle([left + 1, top + 1, left + size - 4, top + size - 4], colour)


@entry(_OBJECTS, "storage tanks")
def _storage_tanks(ground, pen, x, y):
    rng = ground.rng
    for _ in range(rng.integers(5, 10)):
        left, top = rng.integers(8, SIZE - 8, 2)
        radius = rng.integers(5, 9)
        pen.ellipse([left - radius + 3, top - radius + 3, left + radius + 3, top + radius + 3], (45, 45, 45))
        pen.ellipse([left - radius, top - radius, left + radius, top + radius], ground.paint(226, 226, 226))


@entry(_OBJECTS, "harbour")
def _harbour(ground, pen, x, y):
    rng = ground.rng
    pen.rectangle([0, 0, SIZE, SIZE], ground.paint(40, 82, 124))
    for top in range(int(rng.integers(2, 10)), SIZE, 16):
        pen.rectangle([0, top, SIZE, top + 3], ground.paint(156, 150, 140))
        for left in range(int(rng.integers(0, 5)), SIZE, 8):
            if rng.random() < 0.75:
                pen.rectangle([left, top + 5, left + 4, top + 12], (238, 238, 238))


@entry(_OBJECTS, "swimming pool")
def _swimming_pool(ground, pen, x, y):
    rng = ground.rng
    for _ in range(rng.integers(1, 3)):
        left, top = rng.integers(8, 34, 2)
        pen.rectangle([left - 4, top - 4, left + 24, top + 18], ground.paint(214, 206, 190))
        pen.rectangle([left, top, left + 20, top + 14], ground.paint(60, 180, 214))


@entry(_OBJECTS, "tennis court")
def _tennis_court(ground, pen, x, y):
    pen.rectangle([x - 18, y - 11, x + 18, y + 11], ground.paint(60, 110, 160))
    pen.rectangle([x - 14, y - 7, x + 14, y + 7], outline=(240, 240, 240))
    pen.line([(x, y - 7), (x, y + 7)], (240, 240, 240), 1)


@entry(_OBJECTS, "stadium")
def _stadium(ground, pen, x, y):
    pen.ellipse([x - 24, y - 18, x + 24, y + 18], ground.paint(190, 80, 60))
    pen.ellipse([x - 16, y - 11, x + 16, y + 11], ground.paint(80, 160, 70))


@entry(_OBJECTS, "windmills")
def _windmills(ground, pen, x, y):
    rng = ground.rng
    for _ in range(3):
        left, top, start = rng.integers(8, SIZE - 8), rng.integers(8, SIZE - 8), rng.uniform(0, 2)
        for angle in start + np.array([0, 2.09, 4.19]):
            pen.line([(left, top), (left + 9 * np.cos(angle), top + 9 * np.sin(angle))], (245, 245, 245), 2)
