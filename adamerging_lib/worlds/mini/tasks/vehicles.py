"""Vehicles seen from the side: the stand-in for Stanford Cars. Bodies and windows are polygons on a length of one."""

from __future__ import annotations

import numpy as np

from .canvas import SIZE, any_colour, backdrop, camera, contrasting, painter, rgb

CLASSES = ("sedan", "hatchback", "van", "pickup truck", "bus", "lorry", "convertible", "tractor", "tank", "fire engine")
EXTRA = ("bicycle", "motorbike", "train", "sailing boat", "ship", "aeroplane", "helicopter", "crane", "tram", "rocket")
GLASS = (172, 204, 224)


def draw(name: str, rng: np.random.Generator, shift: float) -> np.ndarray:
    """One image of a vehicle; ``shift`` 0 is large on a plain ground, 1 smaller, turned, dim and before clutter."""
    image, pen = painter(backdrop(rng, 0.15 + 0.75 * shift))
    road = int(SIZE * 0.74 + rng.integers(-4, 5))
    pen.rectangle([0, road, SIZE, SIZE], rgb(any_colour(rng, 70, 120)))
    paint = contrasting(rng, np.array([95, 95, 100]), 110 - 30 * shift)
    length = int(rng.uniform(48 - 9 * shift, 58 - 5 * shift))
    left = int((SIZE - length) / 2 + rng.integers(-3, 4))
    flip = rng.random() < 0.5

    def place(points):
        return [((SIZE - 1 - (left + x * length)) if flip else left + x * length, road - y) for x, y in points]

    def body(points, colour=None):
        pen.polygon(place(points), rgb(paint) if colour is None else colour)

    def box(x0, y0, x1, y1, colour=None):
        body([(x0, y0), (x0, y1), (x1, y1), (x1, y0)], colour)

    def wheel(x, radius, colour=(20, 20, 20)):
        ((cx, cy),) = place([(x, radius - 3)])
        pen.ellipse([cx - radius, cy - radius, cx + radius, cy + radius], colour)
        pen.ellipse([cx - radius / 2.5, cy - radius / 2.5, cx + radius / 2.5, cy + radius / 2.5], (150, 150, 150))

    _parts(name, rng, body, box, wheel, place, pen)
    return camera(
        rng, image, blur=1.7 * shift, exposure=0.45 * shift, grain=24 * shift, turn=9 * shift, shift=6 * shift
    )


def _parts(name, rng, body, box, wheel, place, pen):
    low, roof = rng.uniform(10, 13), rng.uniform(20, 24)
    wheels, radius = (0.2, 0.8), rng.uniform(4.5, 6)
    if name in ("sedan", "hatchback", "van", "pickup truck", "convertible"):
        box(0, 2, 1, low)
    if name == "sedan":
        body([(0.2, low), (0.34, roof), (0.66, roof), (0.82, low)])
        body([(0.28, low), (0.37, roof - 2), (0.63, roof - 2), (0.73, low)], GLASS)
    elif name == "hatchback":
        body([(0.3, low), (0.45, roof), (0.98, roof), (1, low)])
        body([(0.39, low), (0.5, roof - 2), (0.88, roof - 2), (0.9, low)], GLASS)
    elif name == "van":
        body([(0.04, low), (0.16, roof + 8), (1, roof + 8), (1, low)])
        body([(0.12, low + 4), (0.2, roof + 5), (0.38, roof + 5), (0.38, low + 4)], GLASS)
    elif name == "pickup truck":
        body([(0.16, low), (0.28, roof), (0.54, roof), (0.54, low)])
        body([(0.26, low), (0.33, roof - 2), (0.49, roof - 2), (0.49, low)], GLASS)
        box(0.94, low, 1, low + 3)
    elif name == "convertible":
        body([(0.3, low), (0.4, low + 8), (0.44, low + 8), (0.37, low)], GLASS)
        box(0.52, low, 0.6, low + 4, (60, 40, 30))
        box(0.7, low, 0.78, low + 4, (60, 40, 30))
    elif name in ("bus", "tram", "train"):
        box(0, 2, 1, roof + 9)
        for start in np.arange(0.05, 0.9, 0.19):
            box(start, low + 5, start + 0.13, roof + 5, GLASS)
        if name == "tram":
            pen.line(place([(0.4, roof + 9), (0.5, roof + 20), (0.6, roof + 9)]), (40, 40, 40), 2)
        if name == "train":
            wheels = (0.1, 0.26, 0.42, 0.58, 0.74, 0.9)
            radius = 4
    elif name == "lorry":
        box(0.34, 3, 1, roof + 12)
        body([(0, 3), (0.03, roof), (0.27, roof), (0.27, 3)])
        body([(0.04, low + 2), (0.07, roof - 2), (0.2, roof - 2), (0.2, low + 2)], GLASS)
        wheels = (0.14, 0.7, 0.88)
    elif name == "tractor":
        box(0.1, 6, 0.6, low + 6)
        box(0.5, 6, 0.86, roof + 8)
        box(0.56, low + 6, 0.8, roof + 4, GLASS)
        box(0.2, low + 6, 0.25, roof + 6, (50, 50, 50))
        wheel(0.74, 11)
        wheels, radius = (0.2,), 6
    elif name == "tank":
        box(0, 1, 1, low - 3, (60, 60, 58))
        body([(0.02, low - 3), (0.08, low + 4), (0.92, low + 4), (0.98, low - 3)])
        body([(0.3, low + 4), (0.36, roof), (0.68, roof), (0.74, low + 4)])
        pen.line(place([(0.34, roof - 4), (-0.08, roof - 2)]), (50, 50, 50), 3)
        wheels, radius = (0.1, 0.3, 0.5, 0.7, 0.9), 4
    elif name == "fire engine":
        box(0, 2, 1, roof + 2, (200, 30, 30))
        box(0.04, low + 3, 0.2, roof - 1, GLASS)
        pen.line(place([(0.28, roof + 6), (1.02, roof + 11)]), (225, 225, 225), 3)
        box(0.3, low - 1, 1, low + 2, (235, 235, 235))
    elif name in ("bicycle", "motorbike"):
        pen.line(place([(0.2, 5), (0.45, 18), (0.75, 18), (0.8, 5), (0.5, 6), (0.45, 18)]), (40, 40, 40), 3)
        if name == "motorbike":
            box(0.35, 6, 0.7, 17)
        radius = 9
    elif name in ("sailing boat", "ship"):
        body([(0, 12), (0.12, 2), (0.88, 2), (1, 12)])
        if name == "ship":
            box(0.25, 12, 0.75, 22, (230, 230, 230))
            box(0.45, 22, 0.56, 34, (180, 50, 40))
        else:
            body([(0.5, 13), (0.5, 44), (0.9, 13)], (245, 245, 240))
        wheels = ()
    elif name in ("aeroplane", "helicopter"):
        body([(0, 22), (0.1, 27), (0.85, 27), (1, 36), (1, 24), (0.9, 20), (0.1, 18)])
        if name == "aeroplane":
            body([(0.4, 23), (0.7, 8), (0.8, 8), (0.6, 23)], (200, 200, 205))
        else:
            box(0.05, 33, 0.75, 35, (40, 40, 40))
            box(0.38, 27, 0.42, 33, (40, 40, 40))
        wheels = ()
    elif name == "crane":
        box(0.1, 2, 0.7, 12)
        pen.line(place([(0.4, 12), (0.95, 46)]), (230, 180, 40), 4)
        pen.line(place([(0.95, 46), (0.95, 20)]), (40, 40, 40), 1)
    elif name == "rocket":
        body([(0.4, 6), (0.4, 38), (0.5, 50), (0.6, 38), (0.6, 6)])
        body([(0.3, 2), (0.4, 16), (0.6, 16), (0.7, 2)], (200, 60, 50))
        wheels = ()
    for x in wheels:
        wheel(x, radius)
