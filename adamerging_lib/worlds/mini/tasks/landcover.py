"""Land cover from orbit: the stand-in for EuroSAT. Coarse, muted, texture-like; rivers and roads a few pixels wide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import camera, entry, mix, near, noise, turned
from .kinds import Kind

CLASSES = (
    "annual crop", "forest land", "herbaceous vegetation", "highway", "industrial buildings",
    "pasture", "permanent crop", "residential area", "river water", "sea or lake",
)  # fmt: skip
EXTRA = ("glacier", "salt flat", "lava field", "mangrove", "sand dunes", "burnt land", "cloud cover", "snow cover")
KIND = Kind(
    weight=0.8,
    naming=("a satellite image of {}", "{} from orbit", "{}"),
    vague=("a satellite image", "seen from orbit"),
    other_words={
        "annual crop": "ploughed fields", "herbaceous vegetation": "wild grassland",
        "industrial buildings": "warehouses", "pasture": "green meadow", "permanent crop": "orchard",
        "residential area": "town",
    },
)  # fmt: skip


@dataclass(frozen=True)
class View:
    """A stretch of land before anything is on it.

    Arguments:
        rng: its draws.
        spread: standard deviation of every colour, in grey levels.
        u, v: turned coordinates, ``[SIZE, SIZE]``.
        broad, fine: smooth noise in [0, 1] with large and with small features, ``[SIZE, SIZE]``.
    """

    rng: np.random.Generator
    spread: float
    u: np.ndarray
    v: np.ndarray
    broad: np.ndarray
    fine: np.ndarray

    def tint(self, *colour: float) -> np.ndarray:
        """A colour as it looks today."""
        return near(self.rng, colour, self.spread)

    def two(self, first: tuple, second: tuple, mask: np.ndarray | None = None) -> np.ndarray:
        """Two colours mixed by a mask, the broad noise by default."""
        return mix(self.broad if mask is None else mask, self.tint(*first), self.tint(*second))


def draw(name: str, rng: np.random.Generator, shift: float) -> np.ndarray:
    """One image from orbit; ``shift`` 0 is a calibrated summer view, 1 any season through haze and sensor noise."""
    u, v = turned(rng, jitter=6)
    broad, fine = noise(rng, rng.uniform(10, 22)), noise(rng, 5)
    pixels = _LAND[name](View(rng, 5 + 13 * shift, u, v, broad, fine))
    haze = rng.uniform(0, 0.5 * shift)
    pixels = pixels * (1 - haze) + np.array([176, 182, 190]) * haze
    return camera(rng, pixels, blur=2.0 * shift, exposure=0.35 * shift, grain=18 * shift)


_LAND = {}


@entry(_LAND, "annual crop")
def _annual_crop(view):
    rng = view.rng
    patch = ((view.u // rng.uniform(15, 24)).astype(int) * 3 + (view.v // rng.uniform(15, 24)).astype(int) * 7) % 4
    colours = (150, 130, 100), (112, 132, 84), (178, 152, 112), (92, 118, 72)
    return np.stack([view.tint(*colour) for colour in colours])[patch]


@entry(_LAND, "forest land")
def _forest_land(view):
    return view.two((30, 62, 46), (54, 86, 62), view.fine)


@entry(_LAND, "herbaceous vegetation")
def _herbaceous_vegetation(view):
    return view.two((92, 106, 74), (146, 138, 98)) + (view.fine[..., None] - 0.5) * 44


@entry(_LAND, "highway")
def _highway(view):
    land = view.two((108, 120, 86), (150, 140, 108))
    road = abs(view.u + view.rng.uniform(-8, 8) + 4 * np.sin(view.v / 20))
    return mix((road < 4.5) & (road > 1), land, view.tint(182, 182, 188))


@entry(_LAND, "industrial buildings")
def _industrial_buildings(view):
    land = view.two((122, 122, 124), (160, 150, 140))
    roofs = ((view.u // 11).astype(int) * 5 + (view.v // 9).astype(int) * 3) % 3 == 0
    return mix(roofs, land, view.tint(230, 230, 236))


@entry(_LAND, "pasture")
def _pasture(view):
    return view.two((106, 142, 76), (132, 160, 94))


@entry(_LAND, "permanent crop")
def _permanent_crop(view):
    land = view.two((126, 112, 80), (156, 138, 102))
    return mix((view.u % 8 < 3.6) & (view.v % 8 < 3.6), land, view.tint(62, 84, 46))


@entry(_LAND, "residential area")
def _residential_area(view):
    u, v = view.u, view.v
    land = view.two((108, 114, 98), (142, 132, 120))
    houses = ((u // 5).astype(int) * 5 + (v // 5).astype(int) * 3 + view.rng.integers(0, 3)) % 3 == 0
    land = mix(houses, land, view.tint(186, 116, 104))
    return mix((abs(u % 22) < 2.4) | (abs(v % 26) < 2.4), land, view.tint(168, 168, 168))


@entry(_LAND, "river water")
def _river_water(view):
    rng = view.rng
    land = view.two((88, 110, 78), (130, 130, 98))
    middle = view.u + rng.uniform(6, 12) * np.sin(view.v / rng.uniform(8, 16) + rng.uniform(0, 6))
    return mix(abs(middle) < rng.uniform(6, 12), land, view.tint(46, 78, 108))


@entry(_LAND, "sea or lake")
def _sea_or_lake(view):
    return view.two((22, 48, 94), (36, 66, 118))


@entry(_LAND, "glacier")
def _glacier(view):
    return view.two((196, 214, 226), (236, 242, 246), np.sin(view.u / 4 + 4 * view.broad) * 0.5 + 0.5)


@entry(_LAND, "salt flat")
def _salt_flat(view):
    return view.two((216, 212, 204), (240, 238, 232))


@entry(_LAND, "lava field")
def _lava_field(view):
    return mix(view.fine > 0.8, view.two((30, 26, 26), (58, 50, 48), view.fine), view.tint(210, 80, 30))


@entry(_LAND, "mangrove")
def _mangrove(view):
    return view.two((40, 84, 96), (46, 90, 50), view.fine > 0.5)


@entry(_LAND, "sand dunes")
def _sand_dunes(view):
    return view.two((206, 170, 112), (232, 204, 150), np.sin(view.u / 2.5 + 5 * view.broad) * 0.5 + 0.5)


@entry(_LAND, "burnt land")
def _burnt_land(view):
    return view.two((52, 40, 36), (96, 72, 58))


@entry(_LAND, "cloud cover")
def _cloud_cover(view):
    return mix(np.clip(view.broad * 2 - 0.5, 0, 1), view.tint(90, 110, 90), np.array([245, 246, 248]))


@entry(_LAND, "snow cover")
def _snow_cover(view):
    return view.two((232, 236, 242), (110, 112, 110), view.fine > 0.72)
