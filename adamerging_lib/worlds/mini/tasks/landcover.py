"""Land cover from orbit: the stand-in for EuroSAT. Coarse, muted, texture-like; rivers and roads a few pixels wide."""

from __future__ import annotations

import numpy as np

from .canvas import camera, mix, near, noise, turned

CLASSES = (
    "annual crop", "forest land", "herbaceous vegetation", "highway", "industrial buildings",
    "pasture", "permanent crop", "residential area", "river water", "sea or lake",
)  # fmt: skip
EXTRA = ("glacier", "salt flat", "lava field", "mangrove", "sand dunes", "burnt land", "cloud cover", "snow cover")


def draw(name: str, rng: np.random.Generator, shift: float) -> np.ndarray:
    """One image from orbit; ``shift`` 0 is a calibrated summer view, 1 any season through haze and sensor noise."""
    spread = 5 + 13 * shift

    def tint(*colour):
        return near(rng, colour, spread)

    u, v = turned(rng, jitter=6)
    broad, fine = noise(rng, rng.uniform(10, 22)), noise(rng, 5)

    def two(first, second, mask=broad):
        return mix(mask, tint(*first), tint(*second))

    if name == "annual crop":
        patch = ((u // rng.uniform(15, 24)).astype(int) * 3 + (v // rng.uniform(15, 24)).astype(int) * 7) % 4
        palette = np.stack([tint(150, 130, 100), tint(112, 132, 84), tint(178, 152, 112), tint(92, 118, 72)])
        pixels = palette[patch]
    elif name == "forest land":
        pixels = two((30, 62, 46), (54, 86, 62), fine)
    elif name == "herbaceous vegetation":
        pixels = two((92, 106, 74), (146, 138, 98)) + (fine[..., None] - 0.5) * 44
    elif name == "highway":
        pixels = two((108, 120, 86), (150, 140, 108))
        road = abs(u + rng.uniform(-8, 8) + 4 * np.sin(v / 20))
        pixels = mix((road < 4.5) & (road > 1), pixels, tint(182, 182, 188))
    elif name == "industrial buildings":
        pixels = two((122, 122, 124), (160, 150, 140))
        roofs = ((u // 11).astype(int) * 5 + (v // 9).astype(int) * 3) % 3 == 0
        pixels = mix(roofs, pixels, tint(230, 230, 236))
    elif name == "pasture":
        pixels = two((106, 142, 76), (132, 160, 94))
    elif name == "permanent crop":
        pixels = mix((u % 8 < 3.6) & (v % 8 < 3.6), two((126, 112, 80), (156, 138, 102)), tint(62, 84, 46))
    elif name == "residential area":
        pixels = two((108, 114, 98), (142, 132, 120))
        houses = ((u // 5).astype(int) * 5 + (v // 5).astype(int) * 3 + rng.integers(0, 3)) % 3 == 0
        pixels = mix(houses, pixels, tint(186, 116, 104))
        pixels = mix((abs(u % 22) < 2.4) | (abs(v % 26) < 2.4), pixels, tint(168, 168, 168))
    elif name == "river water":
        pixels = two((88, 110, 78), (130, 130, 98))
        middle = u + rng.uniform(6, 12) * np.sin(v / rng.uniform(8, 16) + rng.uniform(0, 6))
        pixels = mix(abs(middle) < rng.uniform(6, 12), pixels, tint(46, 78, 108))
    elif name == "sea or lake":
        pixels = two((22, 48, 94), (36, 66, 118))
    elif name == "glacier":
        pixels = two((196, 214, 226), (236, 242, 246), np.sin(u / 4 + 4 * broad) * 0.5 + 0.5)
    elif name == "salt flat":
        pixels = two((216, 212, 204), (240, 238, 232))
    elif name == "lava field":
        pixels = mix(fine > 0.8, two((30, 26, 26), (58, 50, 48), fine), tint(210, 80, 30))
    elif name == "mangrove":
        pixels = mix(fine > 0.5, tint(40, 84, 96), tint(46, 90, 50))
    elif name == "sand dunes":
        pixels = two((206, 170, 112), (232, 204, 150), np.sin(u / 2.5 + 5 * broad) * 0.5 + 0.5)
    elif name == "burnt land":
        pixels = two((52, 40, 36), (96, 72, 58))
    elif name == "cloud cover":
        pixels = mix(np.clip(broad * 2 - 0.5, 0, 1), tint(90, 110, 90), np.array([245, 246, 248]))
    else:  # snow cover
        pixels = mix(fine > 0.72, tint(232, 236, 242), tint(110, 112, 110))
    haze = rng.uniform(0, 0.5 * shift)
    pixels = pixels * (1 - haze) + np.array([176, 182, 190]) * haze
    return camera(rng, pixels, blur=2.0 * shift, exposure=0.35 * shift, grain=18 * shift)
