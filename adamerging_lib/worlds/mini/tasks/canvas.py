"""What all generators share: a 64-pixel canvas, smooth noise, colours, rotated coordinates, and the camera."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy import ndimage

SIZE = 64  # drawn at twice the size and reduced, which anti-aliases every edge
OUT = 32
ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE].astype(np.float32)

# Matplotlib ships these files in its wheel, so the glyphs are the same on every machine.
FONTS = (
    "DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-Oblique.ttf", "DejaVuSans-BoldOblique.ttf",
    "DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSerif-Italic.ttf", "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf", "STIXGeneral.ttf", "STIXGeneralBol.ttf", "cmr10.ttf", "cmss10.ttf", "cmtt10.ttf",
)  # fmt: skip

Colour = tuple[int, int, int]


def entry(table: dict[str, Callable], name: str) -> Callable[[Callable], Callable]:
    """Decorator that enters a function into a generator's table: it draws the concept of this name."""

    def enter(function: Callable) -> Callable:
        table[name] = function
        return function

    return enter


@lru_cache(maxsize=512)
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A bundled font at a size in canvas pixels."""
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts/ttf", name), size)


def any_colour(rng: np.random.Generator, low: int = 20, high: int = 235) -> np.ndarray:
    """A uniform RGB colour, float ``[3]``."""
    return rng.uniform(low, high, 3)


def near(rng: np.random.Generator, colour: tuple[float, float, float], spread: float) -> np.ndarray:
    """A colour around a given one, normal with the given standard deviation, float ``[3]``."""
    return np.clip(np.asarray(colour) + rng.normal(0, spread, 3), 0, 255)


def contrasting(rng: np.random.Generator, other: np.ndarray, distance: float) -> np.ndarray:
    """A uniform colour at least ``distance`` (L1) away from another."""
    while True:
        colour = any_colour(rng, 0, 255)
        if abs(colour - other).sum() >= distance:
            return colour


def rgb(colour: np.ndarray) -> Colour:
    """An array as the integer tuple that PIL wants."""
    return int(colour[0]), int(colour[1]), int(colour[2])


def noise(rng: np.random.Generator, scale: float, octaves: int = 2) -> np.ndarray:
    """Smooth value noise in [0, 1], ``[SIZE, SIZE]``; ``scale`` is the largest feature in canvas pixels."""
    total = np.zeros((SIZE, SIZE), np.float32)
    for octave in range(octaves):
        cells = max(2, int(SIZE / (scale / 2**octave)) + 2)
        grid = Image.fromarray(rng.random((cells, cells), np.float32))
        total += np.asarray(grid.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) * 0.5**octave
    total -= total.min()
    return total / (total.max() + 1e-6)


def mix(mask: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Colours blended by a mask in [0, 1]: 0 gives the first, 1 the second; float ``[SIZE, SIZE, 3]``."""
    weight = np.asarray(mask, np.float32)[..., None]
    return first * (1 - weight) + second * weight


def turned(rng: np.random.Generator, angle: float | None = None, jitter: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (u, v) of the canvas turned by an angle (random when None) about a jittered centre."""
    theta = rng.uniform(0, np.pi) if angle is None else angle
    x = COLUMNS - SIZE / 2 + rng.uniform(-jitter, jitter)
    y = ROWS - SIZE / 2 + rng.uniform(-jitter, jitter)
    return x * np.cos(theta) + y * np.sin(theta), y * np.cos(theta) - x * np.sin(theta)


def painter(array: np.ndarray) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A float canvas as a PIL image with its pen."""
    image = Image.fromarray(np.clip(array, 0, 255).astype(np.uint8))
    return image, ImageDraw.Draw(image)


def backdrop(rng: np.random.Generator, strength: float) -> np.ndarray:
    """A cluttered background: two colours over smooth noise; ``strength`` 0 is plain."""
    first, second = any_colour(rng), any_colour(rng)
    return mix(noise(rng, rng.uniform(12, 40)) * strength, first, second)


def camera(
    rng: np.random.Generator,
    canvas: Image.Image | np.ndarray,
    *,
    blur: float = 0.0,
    exposure: float = 0.0,
    grain: float = 0.0,
    turn: float = 0.0,
    shift: float = 0.0,
) -> np.ndarray:
    """A canvas as the 32 × 32 photograph that the model sees, uint8 ``[32, 32, 3]``.

    Arguments:
        blur: largest Gaussian radius in canvas pixels.
        exposure: largest relative change of brightness and contrast.
        grain: standard deviation of the sensor noise in grey levels.
        turn: largest rotation in degrees.
        shift: largest translation in canvas pixels.
    """
    if isinstance(canvas, np.ndarray):
        canvas = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    if turn or shift:
        fill = canvas.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
        offset = (int(rng.uniform(-shift, shift)), int(rng.uniform(-shift, shift)))
        canvas = canvas.rotate(rng.uniform(-turn, turn), Image.Resampling.BILINEAR, translate=offset, fillcolor=fill)
    radius = rng.uniform(0, blur)
    if radius > 0.3:
        canvas = canvas.filter(ImageFilter.GaussianBlur(radius))
    pixels = np.asarray(canvas.resize((OUT, OUT), Image.Resampling.BOX), np.float32)
    if exposure:
        pixels = (pixels - 128) * (1 + rng.uniform(-exposure, exposure)) + 128 * (1 + rng.uniform(-exposure, exposure))
    if grain:
        pixels = pixels + rng.standard_normal(pixels.shape, np.float32) * (grain * rng.random())
    return np.clip(pixels, 0, 255).astype(np.uint8)


def smooth(field: np.ndarray, radius: float) -> np.ndarray:
    """Gaussian smoothing of a field, for soft edges."""
    return ndimage.gaussian_filter(field, radius)
