"""Vehicles seen from the side: the stand-in for Stanford Cars. Bodies and windows are polygons on a length of one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import ImageDraw

from .canvas import SIZE, Colour, any_colour, backdrop, camera, contrasting, entry, painter, rgb
from .kinds import Kind

CLASSES = ("sedan", "hatchback", "van", "pickup truck", "bus", "lorry", "convertible", "tractor", "tank", "fire engine")
EXTRA = ("bicycle", "motorbike", "train", "sailing boat", "ship", "aeroplane", "helicopter", "crane", "tram", "rocket")
KIND = Kind(
    weight=1.3,
    naming=("a photo of a {}", "a {} from the side", "a {}", "picture of a {}"),
    vague=("a vehicle", "a machine"),
    other_words={
        "sedan": "family car", "hatchback": "small car", "lorry": "cargo truck", "convertible": "roadster",
    },
)  # fmt: skip
GLASS = (172, 204, 224)
DARK = (40, 40, 40)


@dataclass(frozen=True)
class Side:
    """A place on the road where a vehicle is drawn: x from 0 to 1 along its length, y in canvas pixels above the road.

    Arguments:
        pen: draws on the canvas.
        left, road, length: where the vehicle is, in canvas pixels.
        flip: whether it looks the other way.
        paint: its colour.
        low, roof: heights of the bonnet and of the roof.
        radius: of its wheels.
    """

    pen: ImageDraw.ImageDraw
    left: int
    road: int
    length: int
    flip: bool
    paint: Colour
    low: float
    roof: float
    radius: float

    def place(self, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        """Points of the vehicle on the canvas."""
        across = [self.left + x * self.length for x, _ in points]
        return [(SIZE - 1 - x if self.flip else x, self.road - y) for x, (_, y) in zip(across, points, strict=True)]

    def body(self, points: list[tuple[float, float]], colour: Colour | None = None) -> None:
        """A filled polygon, in the vehicle's own colour by default."""
        self.pen.polygon(self.place(points), self.paint if colour is None else colour)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour | None = None) -> None:
        """A filled rectangle."""
        self.body([(x0, y0), (x0, y1), (x1, y1), (x1, y0)], colour)

    def line(self, points: list[tuple[float, float]], colour: Colour, width: int) -> None:
        """A line through points."""
        self.pen.line(self.place(points), colour, width)

    def wheels(self, *places: float, radius: float | None = None) -> None:
        """Wheels with hubs."""
        r = self.radius if radius is None else radius
        for x, y in self.place([(place, r - 3) for place in places]):
            self.pen.ellipse([x - r, y - r, x + r, y + r], (20, 20, 20))
            self.pen.ellipse([x - r / 2.5, y - r / 2.5, x + r / 2.5, y + r / 2.5], (150, 150, 150))


def draw(name: str, rng: np.random.Generator, shift: float) -> np.ndarray:
    """One image of a vehicle; ``shift`` 0 is large on a plain ground, 1 smaller, turned, dim and before clutter."""
    image, pen = painter(backdrop(rng, 0.15 + 0.75 * shift))
    road = int(SIZE * 0.74 + rng.integers(-4, 5))
    pen.rectangle([0, road, SIZE, SIZE], rgb(any_colour(rng, 70, 120)))
    paint = rgb(contrasting(rng, np.array([95, 95, 100]), 110 - 30 * shift))
    length = int(rng.uniform(48 - 9 * shift, 58 - 5 * shift))
    left = int((SIZE - length) / 2 + rng.integers(-3, 4))
    flip = rng.random() < 0.5
    low, roof, radius = rng.uniform(10, 13), rng.uniform(20, 24), rng.uniform(4.5, 6)
    _VEHICLES[name](Side(pen, left, road, length, flip, paint, low, roof, radius))
    return camera(
        rng, image, blur=1.7 * shift, exposure=0.45 * shift, grain=24 * shift, turn=9 * shift, shift=6 * shift
    )


_VEHICLES = {}


def _car(side, cabin, window):
    """What all cars have: a chassis, a cabin, a window, two wheels."""
    side.box(0, 2, 1, side.low)
    side.body(cabin)
    side.body(window, GLASS)
    side.wheels(0.2, 0.8)


@entry(_VEHICLES, "sedan")
def _sedan(side):
    low, roof = side.low, side.roof
    _car(
        side,
        [(0.2, low), (0.34, roof), (0.66, roof), (0.82, low)],
        [(0.28, low), (0.37, roof - 2), (0.63, roof - 2), (0.73, low)],
    )


@entry(_VEHICLES, "hatchback")
def _hatchback(side):
    low, roof = side.low, side.roof
    _car(
        side,
        [(0.3, low), (0.45, roof), (0.98, roof), (1, low)],
        [(0.39, low), (0.5, roof - 2), (0.88, roof - 2), (0.9, low)],
    )


@entry(_VEHICLES, "van")
def _van(side):
    low, roof = side.low, side.roof
    _car(
        side,
        [(0.04, low), (0.16, roof + 8), (1, roof + 8), (1, low)],
        [(0.12, low + 4), (0.2, roof + 5), (0.38, roof + 5), (0.38, low + 4)],
    )


@entry(_VEHICLES, "pickup truck")
def _pickup_truck(side):
    low, roof = side.low, side.roof
    _car(
        side,
        [(0.16, low), (0.28, roof), (0.54, roof), (0.54, low)],
        [(0.26, low), (0.33, roof - 2), (0.49, roof - 2), (0.49, low)],
    )
    side.box(0.94, low, 1, low + 3)


@entry(_VEHICLES, "convertible")
def _convertible(side):
    low = side.low
    side.box(0, 2, 1, low)
    side.body([(0.3, low), (0.4, low + 8), (0.44, low + 8), (0.37, low)], GLASS)
    side.box(0.52, low, 0.6, low + 4, (60, 40, 30))
    side.box(0.7, low, 0.78, low + 4, (60, 40, 30))
    side.wheels(0.2, 0.8)


def _carriage(side):
    """A long box with a row of windows."""
    side.box(0, 2, 1, side.roof + 9)
    for start in np.arange(0.05, 0.9, 0.19):
        side.box(start, side.low + 5, start + 0.13, side.roof + 5, GLASS)


@entry(_VEHICLES, "bus")
def _bus(side):
    _carriage(side)
    side.wheels(0.2, 0.8)


@entry(_VEHICLES, "tram")
def _tram(side):
    _carriage(side)
    side.line([(0.4, side.roof + 9), (0.5, side.roof + 20), (0.6, side.roof + 9)], DARK, 2)
    side.wheels(0.2, 0.8)


@entry(_VEHICLES, "train")
def _train(side):
    _carriage(side)
    side.wheels(0.1, 0.26, 0.42, 0.58, 0.74, 0.9, radius=4)


@entry(_VEHICLES, "lorry")
def _lorry(side):
    low, roof = side.low, side.roof
    side.box(0.34, 3, 1, roof + 12)
    side.body([(0, 3), (0.03, roof), (0.27, roof), (0.27, 3)])
    side.body([(0.04, low + 2), (0.07, roof - 2), (0.2, roof - 2), (0.2, low + 2)], GLASS)
    side.wheels(0.14, 0.7, 0.88)


@entry(_VEHICLES, "tractor")
def _tractor(side):
    low, roof = side.low, side.roof
    side.box(0.1, 6, 0.6, low + 6)
    side.box(0.5, 6, 0.86, roof + 8)
    side.box(0.56, low + 6, 0.8, roof + 4, GLASS)
    side.box(0.2, low + 6, 0.25, roof + 6, (50, 50, 50))
    side.wheels(0.74, radius=11)
    side.wheels(0.2, radius=6)


@entry(_VEHICLES, "tank")
def _tank(side):
    low, roof = side.low, side.roof
    side.box(0, 1, 1, low - 3, (60, 60, 58))
    side.body([(0.02, low - 3), (0.08, low + 4), (0.92, low + 4), (0.98, low - 3)])
    side.body([(0.3, low + 4), (0.36, roof), (0.68, roof), (0.74, low + 4)])
    side.line([(0.34, roof - 4), (-0.08, roof - 2)], (50, 50, 50), 3)
    side.wheels(0.1, 0.3, 0.5, 0.7, 0.9, radius=4)


@entry(_VEHICLES, "fire engine")
def _fire_engine(side):
    low, roof = side.low, side.roof
    side.box(0, 2, 1, roof + 2, (200, 30, 30))
    side.box(0.04, low + 3, 0.2, roof - 1, GLASS)
    side.line([(0.28, roof + 6), (1.02, roof + 11)], (225, 225, 225), 3)
    side.box(0.3, low - 1, 1, low + 2, (235, 235, 235))
    side.wheels(0.2, 0.8)


def _frame(side):
    side.line([(0.2, 5), (0.45, 18), (0.75, 18), (0.8, 5), (0.5, 6), (0.45, 18)], DARK, 3)


@entry(_VEHICLES, "bicycle")
def _bicycle(side):
    _frame(side)
    side.wheels(0.2, 0.8, radius=9)


@entry(_VEHICLES, "motorbike")
def _motorbike(side):
    _frame(side)
    side.box(0.35, 6, 0.7, 17)
    side.wheels(0.2, 0.8, radius=9)


def _hull(side):
    side.body([(0, 12), (0.12, 2), (0.88, 2), (1, 12)])


@entry(_VEHICLES, "sailing boat")
def _sailing_boat(side):
    _hull(side)
    side.body([(0.5, 13), (0.5, 44), (0.9, 13)], (245, 245, 240))


@entry(_VEHICLES, "ship")
def _ship(side):
    _hull(side)
    side.box(0.25, 12, 0.75, 22, (230, 230, 230))
    side.box(0.45, 22, 0.56, 34, (180, 50, 40))


def _fuselage(side):
    side.body([(0, 22), (0.1, 27), (0.85, 27), (1, 36), (1, 24), (0.9, 20), (0.1, 18)])


@entry(_VEHICLES, "aeroplane")
def _aeroplane(side):
    _fuselage(side)
    side.body([(0.4, 23), (0.7, 8), (0.8, 8), (0.6, 23)], (200, 200, 205))


@entry(_VEHICLES, "helicopter")
def _helicopter(side):
    _fuselage(side)
    side.box(0.05, 33, 0.75, 35, DARK)
    side.box(0.38, 27, 0.42, 33, DARK)


@entry(_VEHICLES, "crane")
def _crane(side):
    side.box(0.1, 2, 0.7, 12)
    side.line([(0.4, 12), (0.95, 46)], (230, 180, 40), 4)
    side.line([(0.95, 46), (0.95, 20)], DARK, 1)
    side.wheels(0.2, 0.8)


@entry(_VEHICLES, "rocket")
def _rocket(side):
    side.body([(0.4, 6), (0.4, 38), (0.5, 50), (0.6, 38), (0.6, 6)])
    side.body([(0.3, 2), (0.4, 16), (0.6, 16), (0.7, 2)], (200, 60, 50))
