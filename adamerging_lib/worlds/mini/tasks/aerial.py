"""Aerial scenes from low altitude: the stand-in for RESISC45. Objects seen from above, at any heading."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .canvas import SIZE, any_colour, camera, mix, near, noise, painter, rgb, turned

CLASSES = (
    "circular farmland", "crop rows", "road intersection", "runway", "baseball field", "river bend",
    "dense houses", "storage tanks", "harbour", "roundabout", "swimming pool", "railway",
)  # fmt: skip
EXTRA = ("car park", "solar panels", "tennis court", "stadium", "golf course", "windmills", "greenhouses", "quarry")


def draw(name: str, rng: np.random.Generator, shift: float) -> np.ndarray:
    """One image from above; ``shift`` 0 is a clear day, 1 other soils and seasons, haze and sensor noise."""
    spread = 8 + 24 * shift

    def tint(*colour):
        return near(rng, colour, spread)

    u, v = turned(rng, jitter=8)
    ground = tint(115, 125, 85) + (noise(rng, 10)[..., None] - 0.5) * (30 + 36 * shift)
    image, pen = painter(_fields(name, rng, ground, u, v, tint))
    _objects(name, rng, pen, tint)
    if shift:
        image = Image.blend(
            image, Image.new("RGB", image.size, rgb(any_colour(rng, 110, 230))), rng.uniform(0, 0.5 * shift)
        )
    return camera(rng, image, blur=1.9 * shift, exposure=0.4 * shift, grain=24 * shift)


def _fields(name, rng, ground, u, v, tint):
    """What is drawn by turned coordinates."""
    if name == "crop rows":
        return mix(np.sin(u * 2 * np.pi / rng.uniform(7, 11)) > 0, tint(90, 132, 60), tint(152, 130, 90))
    if name == "road intersection":
        ground = mix((abs(u) < 5) | (abs(v) < 5), ground, tint(120, 120, 125))
        return mix((abs(u) < 0.8) | (abs(v) < 0.8), ground, np.array([232, 232, 225]))
    if name == "runway":
        ground = mix(abs(u) < rng.uniform(9, 12), ground, tint(80, 80, 86))
        return mix((abs(u) < 1.4) & (v % 12 < 6), ground, np.array([242, 242, 240]))
    if name == "river bend":
        middle = u + rng.uniform(8, 12) * np.sin(v / rng.uniform(7, 11) + rng.uniform(0, 6))
        return mix(abs(middle) < rng.uniform(5, 8), ground, tint(48, 90, 124))
    if name == "railway":
        ground = mix(abs(u) < 8, ground, tint(132, 120, 108))
        ground = mix((abs(u) < 7) & (v % 6 < 2.4), ground, tint(70, 56, 46))
        return mix((abs(abs(u) - 4) < 1), ground, np.array([205, 205, 210]))
    if name == "roundabout":
        radius = np.hypot(u, v)
        ground = mix((abs(u) < 4) | (abs(v) < 4) | (radius < 18), ground, tint(122, 122, 126))
        return mix(radius < 9, ground, tint(70, 140, 70))
    if name == "car park":
        ground = mix(np.ones_like(u), ground, tint(96, 96, 100))
        return mix((u % 12 < 8) & (v % 7 < 5) & (noise(rng, 7) > 0.45), ground, any_colour(rng, 60, 250))
    if name == "solar panels":
        return mix((u % 12 < 8.5) & (v % 24 < 21), ground, tint(30, 42, 92))
    if name == "greenhouses":
        return mix((u % 16 < 12) & (abs(v) < 26), ground, tint(226, 234, 236))
    if name == "golf course":
        ground = mix(smooth_blob(rng, 0.5), tint(70, 130, 60), tint(120, 180, 90))
        return mix(smooth_blob(rng, 0.74), ground, tint(236, 220, 170))
    if name == "quarry":
        return mix((np.hypot(u, v) // 5) % 2, tint(176, 150, 120), tint(140, 118, 96))
    return ground


def smooth_blob(rng, threshold):
    """A blobby region: smooth noise over a threshold."""
    return noise(rng, 24, 1) > threshold


def _objects(name, rng, pen, tint):
    """What is drawn by a pen."""
    x, y = (int(value) for value in rng.integers(22, 43, 2))
    if name == "circular farmland":
        size = int(rng.integers(17, 24))
        for left in range(int(rng.integers(-size, 0)), SIZE, size):
            for top in range(int(rng.integers(-size, 0)), SIZE, size):
                colour = tint(70, 142, 60) if rng.random() < 0.6 else tint(172, 150, 100)
                pen.ellipse([left + 1, top + 1, left + size - 2, top + size - 2], rgb(colour))
    elif name == "baseball field":
        radius, start = int(rng.integers(22, 30)), int(rng.integers(0, 360))
        pen.pieslice([x - radius, y - radius, x + radius, y + radius], start, start + 95, rgb(tint(66, 152, 70)))
        radius = radius * 0.55
        pen.pieslice([x - radius, y - radius, x + radius, y + radius], start, start + 95, rgb(tint(196, 140, 92)))
    elif name == "dense houses":
        size = int(rng.integers(9, 13))
        for left in range(0, SIZE, size):
            for top in range(0, SIZE, size):
                colour = tint(176, 108, 90) if rng.random() < 0.65 else tint(146, 146, 146)
                pen.rectangle([left + 1, top + 1, left + size - 4, top + size - 4], rgb(colour))
    elif name == "storage tanks":
        for _ in range(rng.integers(5, 10)):
            left, top = rng.integers(8, SIZE - 8, 2)
            radius = rng.integers(5, 9)
            pen.ellipse([left - radius + 3, top - radius + 3, left + radius + 3, top + radius + 3], (45, 45, 45))
            pen.ellipse([left - radius, top - radius, left + radius, top + radius], rgb(tint(226, 226, 226)))
    elif name == "harbour":
        pen.rectangle([0, 0, SIZE, SIZE], rgb(tint(40, 82, 124)))
        for top in range(int(rng.integers(2, 10)), SIZE, 16):
            pen.rectangle([0, top, SIZE, top + 3], rgb(tint(156, 150, 140)))
            for left in range(int(rng.integers(0, 5)), SIZE, 8):
                if rng.random() < 0.75:
                    pen.rectangle([left, top + 5, left + 4, top + 12], (238, 238, 238))
    elif name == "swimming pool":
        for _ in range(rng.integers(1, 3)):
            left, top = rng.integers(8, 34, 2)
            pen.rectangle([left - 4, top - 4, left + 24, top + 18], rgb(tint(214, 206, 190)))
            pen.rectangle([left, top, left + 20, top + 14], rgb(tint(60, 180, 214)))
    elif name == "tennis court":
        pen.rectangle([x - 18, y - 11, x + 18, y + 11], rgb(tint(60, 110, 160)))
        pen.rectangle([x - 14, y - 7, x + 14, y + 7], outline=(240, 240, 240))
        pen.line([(x, y - 7), (x, y + 7)], (240, 240, 240), 1)
    elif name == "stadium":
        pen.ellipse([x - 24, y - 18, x + 24, y + 18], rgb(tint(190, 80, 60)))
        pen.ellipse([x - 16, y - 11, x + 16, y + 11], rgb(tint(80, 160, 70)))
    elif name == "windmills":
        for _ in range(3):
            left, top, start = rng.integers(8, SIZE - 8), rng.integers(8, SIZE - 8), rng.uniform(0, 2)
            for angle in start + np.array([0, 2.09, 4.19]):
                pen.line([(left, top), (left + 9 * np.cos(angle), top + 9 * np.sin(angle))], (245, 245, 245), 2)
