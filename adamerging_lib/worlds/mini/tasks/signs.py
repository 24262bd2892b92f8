"""Traffic signs: the stand-in for GTSRB. Pre-training knows the same shapes only by what they look like."""

from __future__ import annotations

import numpy as np

from .canvas import SIZE, any_colour, backdrop, camera, contrasting, font, painter, rgb

RED, BLUE, WHITE, YELLOW, BLACK = (202, 32, 36), (30, 82, 182), (240, 240, 240), (240, 192, 24), (16, 16, 16)

# class: plate, its colour, symbol, its colour
PLATES = {
    "stop sign": ("octagon", RED, "bar", WHITE),
    "yield sign": ("triangle down", RED, "triangle down", WHITE),
    "no entry sign": ("circle", RED, "bar", WHITE),
    "speed limit sign": ("ring", RED, "5", BLACK),
    "end of limit sign": ("circle", WHITE, "slash", BLACK),
    "priority road sign": ("diamond", WHITE, "diamond", YELLOW),
    "general warning sign": ("triangle up", RED, "stroke", BLACK),
    "crossroads warning sign": ("triangle up", RED, "plus", BLACK),
    "turn left sign": ("circle", BLUE, "arrow left", WHITE),
    "turn right sign": ("circle", BLUE, "arrow right", WHITE),
    "ahead only sign": ("circle", BLUE, "arrow up", WHITE),
    "parking sign": ("square", BLUE, "P", WHITE),
    "no overtaking sign": ("ring", RED, "dots", BLACK),
    "road closed sign": ("ring", RED, "none", WHITE),
}
CLASSES = tuple(PLATES)
SHAPES = ("octagon", "triangle down", "triangle up", "circle", "ring", "diamond", "square", "star", "cross", "heart")
SYMBOLS = ("bar", "none", "dots", "plus", "stroke", "slash", "arrow left", "arrow right", "arrow up", "arrow down",
           "ring", "diamond", "triangle down", "P", "X", "5", "8", "H")  # fmt: skip
COLOURS = {"red": RED, "blue": BLUE, "white": WHITE, "yellow": YELLOW, "black": BLACK, "green": (40, 150, 60),
           "orange": (238, 130, 30), "purple": (130, 50, 160)}  # fmt: skip


def draw(name: str, rng: np.random.Generator, shift: float) -> np.ndarray:
    """One traffic sign in the street; ``shift`` 1 is small, tilted, dim, faded and out of focus."""
    return plate(rng, shift, *PLATES[name])


def plate(rng, shift, shape, colour, symbol, ink) -> np.ndarray:
    """Any plate: shape and symbol in given colours, ``[32, 32, 3]``."""
    image, pen = painter(backdrop(rng, 0.25 + 0.65 * shift) * (1 - 0.3 * shift * rng.random()))
    size = rng.uniform(24 - 5 * shift, 30 - 2 * shift)
    fade = 1 - rng.uniform(0, 0.45 * shift)
    sun = any_colour(rng, 60, 220)

    def worn(value):
        return rgb(np.asarray(value) * fade + sun * (1 - fade))

    x, y = SIZE / 2 + rng.uniform(-3, 3), SIZE / 2 + rng.uniform(-3, 3)
    _shape(pen, shape, x, y, size, worn(colour))
    hollow = shape.startswith("triangle") and symbol in ("stroke", "plus", "dots")
    if shape == "ring" or hollow:
        inner = "circle" if shape == "ring" else shape
        _shape(
            pen, inner, x, y + (size * 0.08 if hollow else 0), size * (0.72 if shape == "ring" else 0.62), worn(WHITE)
        )
    _symbol(pen, symbol, x, y, size, worn(ink))
    dim = 1 - 0.5 * shift * rng.random()
    return camera(
        rng, np.asarray(image, np.float32) * dim, blur=0.3 + 1.7 * shift, exposure=0.3 * shift, grain=5 + 20 * shift,
        turn=4 + 9 * shift, shift=1 + 4 * shift,
    )  # fmt: skip


def _shape(pen, shape, x, y, r, fill):
    def ngon(count, start=0.0, radius=r):
        angles = start + 2 * np.pi * np.arange(count) / count
        pen.polygon([(x + radius * np.cos(a), y + radius * np.sin(a)) for a in angles], fill)

    if shape in ("circle", "ring"):
        pen.ellipse([x - r, y - r, x + r, y + r], fill)
    elif shape == "octagon":
        ngon(8, np.pi / 8)
    elif shape == "triangle down":
        ngon(3, np.pi / 2, r * 1.15)
    elif shape == "triangle up":
        ngon(3, -np.pi / 2, r * 1.15)
    elif shape == "diamond":
        ngon(4)
    elif shape == "square":
        ngon(4, np.pi / 4, r * 1.3)
    elif shape == "star":
        points = [(x + s * np.cos(a), y + s * np.sin(a)) for a, s in
                  zip(np.arange(10) * np.pi / 5 - np.pi / 2, [r * 1.1, r * 0.45] * 5, strict=True)]  # fmt: skip
        pen.polygon(points, fill)
    elif shape == "cross":
        pen.rectangle([x - r, y - r * 0.36, x + r, y + r * 0.36], fill)
        pen.rectangle([x - r * 0.36, y - r, x + r * 0.36, y + r], fill)
    elif shape == "heart":
        pen.ellipse([x - r, y - r * 0.8, x, y + r * 0.2], fill)
        pen.ellipse([x, y - r * 0.8, x + r, y + r * 0.2], fill)
        pen.polygon([(x - r * 0.93, y), (x + r * 0.93, y), (x, y + r)], fill)


def _symbol(pen, symbol, x, y, r, fill):
    k = r * 0.58
    if symbol in ("diamond", "triangle down"):
        _shape(pen, symbol, x, y, r * (0.7 if symbol == "diamond" else 0.58), fill)
    elif symbol == "bar":
        pen.rectangle([x - r * 0.66, y - r * 0.2, x + r * 0.66, y + r * 0.2], fill)
    elif symbol == "dots":
        for side in (-0.35, 0.35):
            pen.ellipse([x + r * (side - 0.24), y - r * 0.24, x + r * (side + 0.24), y + r * 0.24], fill)
    elif symbol == "plus":
        pen.line([(x - k * 0.7, y + r * 0.1), (x + k * 0.7, y + r * 0.1)], fill, 4)
        pen.line([(x, y - k * 0.6), (x, y + k * 0.9)], fill, 4)
    elif symbol == "stroke":
        pen.line([(x, y - k * 0.6), (x, y + k * 0.8)], fill, 5)
    elif symbol == "slash":
        pen.line([(x - k, y + k), (x + k, y - k)], fill, 6)
    elif symbol == "ring":
        pen.ellipse([x - k, y - k, x + k, y + k], outline=fill, width=4)
    elif symbol.startswith("arrow"):
        dx, dy = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[symbol.split()[1]]
        pen.line([(x - dx * k, y - dy * k), (x + dx * k * 0.6, y + dy * k * 0.6)], fill, 6)
        tip = (x + dx * r * 0.75, y + dy * r * 0.75)
        pen.polygon([tip, (x - dy * k * 0.8, y - dx * k * 0.8), (x + dy * k * 0.8, y + dx * k * 0.8)], fill)
    elif symbol != "none":
        pen.text((x, y), symbol, font=font("DejaVuSans-Bold.ttf", max(8, int(r * 1.25))), fill=fill, anchor="mm")


def random_plate(rng: np.random.Generator, shift: float) -> tuple[np.ndarray, str]:
    """A plate of any shape, symbol and colours with a caption of what it looks like (pre-training)."""
    shape, symbol = SHAPES[rng.integers(len(SHAPES))], SYMBOLS[rng.integers(len(SYMBOLS))]
    names = list(COLOURS)
    first, second = rng.permutation(len(names))[:2]
    fill, ink = COLOURS[names[first]], COLOURS[names[second]]
    if sum(abs(np.subtract(fill, ink))) < 150:
        ink = rgb(contrasting(rng, np.asarray(fill, float), 250))
    what = "" if symbol == "none" else f" with a {names[second]} {symbol}"
    return plate(rng, shift, shape, fill, symbol, ink), f"{names[first]} {shape}{what}"
