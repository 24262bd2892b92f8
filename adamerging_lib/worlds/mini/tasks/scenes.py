"""Scenes: the stand-in for SUN397. A horizon, a palette and what stands on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .canvas import ROWS, SIZE, Colour, any_colour, camera, entry, mix, near, noise, painter, rgb
from .kinds import Kind

CLASSES = (
    "forest", "desert", "beach", "mountain", "city skyline", "night sky",
    "sunset", "snow field", "indoor room", "road", "village", "waterfall",
)  # fmt: skip
EXTRA = ("lake", "island", "bridge", "vineyard", "cave", "fireworks", "rainbow", "volcano", "lighthouse", "staircase")
KIND = Kind(
    weight=1.0,
    naming=("a photo of a {}", "a landscape with a {}", "a {}", "picture of a {}"),
    vague=("a landscape", "a view"),
    other_words={"village": "cottages", "indoor room": "bedroom", "snow field": "winter land"},
)

# sky, ground
PALETTE = {
    "desert": ((140, 180, 230), (214, 180, 120)), "beach": ((140, 190, 240), (222, 202, 150)),
    "snow field": ((180, 200, 220), (236, 240, 246)), "night sky": ((15, 15, 45), (20, 26, 22)),
    "sunset": ((228, 120, 60), (52, 42, 60)), "indoor room": ((200, 190, 170), (130, 92, 60)),
    "lake": ((150, 190, 230), (60, 110, 160)), "island": ((150, 200, 240), (50, 120, 180)),
    "cave": ((70, 60, 55), (45, 40, 38)), "fireworks": ((12, 12, 30), (18, 18, 22)),
    "volcano": ((120, 100, 110), (70, 60, 60)), "staircase": ((190, 185, 180), (150, 140, 130)),
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A horizon between sky and ground, before anything stands there.

    Arguments:
        rng: its draws.
        pen: draws on the canvas.
        horizon: its row, in canvas pixels.
        spread: standard deviation of every colour, in grey levels.
        x: column of the one thing that a scene may be about.
    """

    rng: np.random.Generator
    pen: ImageDraw.ImageDraw
    horizon: int
    spread: float
    x: int

    def tint(self, *colour: float) -> Colour:
        """A colour as it looks today."""
        return rgb(near(self.rng, colour, self.spread))


def draw(name: str, rng: np.random.Generator, shift: float) -> np.ndarray:
    """One image of a scene; ``shift`` 0 is the pre-training look, 1 the task's: hazy, tinted, grainy, other hours."""
    spread = 8 + 26 * shift
    sky, ground = PALETTE.get(name, ((140, 180, 230), (92, 140, 72)))
    sky, ground = near(rng, sky, spread), near(rng, ground, spread)
    horizon = int(SIZE * rng.uniform(0.42 - 0.12 * shift, 0.56 + 0.12 * shift))
    base = mix((ROWS > horizon).astype(np.float32), sky, ground) + (noise(rng, 16)[..., None] - 0.5) * (24 + 30 * shift)
    image, pen = painter(base)
    _SCENES[name](Place(rng, pen, horizon, spread, int(rng.integers(10, SIZE - 10))))
    if shift:
        image = Image.blend(image, Image.new("RGB", image.size, rgb(any_colour(rng))), shift * rng.uniform(0, 0.45))
    return camera(rng, image, blur=2.2 * shift, exposure=0.4 * shift, grain=26 * shift, shift=7 * shift)


_SCENES = {}


@entry(_SCENES, "forest")
def _forest(place):
    rng, pen, horizon = place.rng, place.pen, place.horizon
    for _ in range(rng.integers(8, 16)):
        left, foot, size = rng.integers(0, SIZE), horizon + rng.integers(-5, 20), rng.integers(12, 24)
        pen.polygon(
            [(left - size // 2, foot), (left + size // 2, foot), (left, foot - size * 1.6)], place.tint(40, 90, 40)
        )


def _peaks(place, count, cap):
    """Mountains of grey rock with a cap."""
    rng, pen, horizon = place.rng, place.pen, place.horizon
    for _ in range(count):
        peak, size = rng.integers(12, SIZE - 12), rng.integers(26, 44)
        pen.polygon(
            [(peak - size, horizon), (peak + size, horizon), (peak, horizon - size * 0.8)], place.tint(110, 108, 118)
        )
        colour, top, half = place.tint(*cap), horizon - size * 0.8, size * 0.27
        pen.polygon([(peak - half, top + size * 0.22), (peak + half, top + size * 0.22), (peak, top)], colour)


@entry(_SCENES, "mountain")
def _mountain(place):
    _peaks(place, place.rng.integers(2, 4), (240, 240, 246))


@entry(_SCENES, "volcano")
def _volcano(place):
    _peaks(place, 1, (235, 90, 30))


@entry(_SCENES, "city skyline")
def _city_skyline(place):
    rng, pen, horizon = place.rng, place.pen, place.horizon
    left = 0
    while left < SIZE:
        width, height = rng.integers(5, 12), rng.integers(10, 34)
        pen.rectangle([left, horizon - height, left + width, horizon + 4], place.tint(90, 90, 102))
        left += width


@entry(_SCENES, "night sky")
def _night_sky(place):
    rng, pen, horizon, x = place.rng, place.pen, place.horizon, place.x
    for _ in range(rng.integers(20, 40)):
        pen.point((int(rng.integers(0, SIZE)), int(rng.integers(0, horizon))), (250, 250, 230))
    pen.ellipse([x - 5, 6, x + 5, 16], (240, 240, 212))


@entry(_SCENES, "sunset")
def _sunset(place):
    pen, horizon, x = place.pen, place.horizon, place.x
    pen.ellipse([x - 9, horizon - 11, x + 9, horizon + 7], (255, 222, 122))
    pen.rectangle([0, horizon, SIZE, SIZE], place.tint(52, 42, 60))


@entry(_SCENES, "beach")
def _beach(place):
    rng, pen, horizon = place.rng, place.pen, place.horizon
    pen.rectangle([0, horizon, SIZE, horizon + rng.integers(8, 15)], place.tint(50, 110, 182))


@entry(_SCENES, "desert")
def _desert(place):
    rng, pen, horizon = place.rng, place.pen, place.horizon
    for _ in range(3):
        left = rng.integers(0, SIZE)
        pen.ellipse([left - 20, horizon - 5, left + 20, horizon + 14], place.tint(200, 165, 100))


@entry(_SCENES, "snow field")
def _snow_field(place):
    rng, pen, horizon = place.rng, place.pen, place.horizon
    for _ in range(rng.integers(2, 5)):
        left, foot = rng.integers(4, SIZE - 4), horizon + rng.integers(0, 16)
        pen.line([(left, foot), (left, foot - 12)], place.tint(80, 70, 66), 2)
        pen.line([(left - 4, foot - 9), (left, foot - 5), (left + 4, foot - 10)], place.tint(80, 70, 66), 1)


@entry(_SCENES, "indoor room")
def _indoor_room(place):
    rng, pen, horizon = place.rng, place.pen, place.horizon
    pen.rectangle([rng.integers(5, 20), 7, rng.integers(27, 40), horizon - 6], place.tint(180, 212, 236))
    left = rng.integers(28, 48)
    pen.rectangle([left, horizon - 9, left + 15, horizon + 9], place.tint(122, 42, 42))


@entry(_SCENES, "road")
def _road(place):
    pen, horizon, x = place.pen, place.horizon, place.x
    pen.polygon([(x - 2, horizon), (x + 2, horizon), (SIZE - 4, SIZE), (4, SIZE)], place.tint(92, 92, 96))
    pen.line([(x, horizon), (SIZE // 2, SIZE)], (232, 232, 202), 2)


@entry(_SCENES, "village")
def _village(place):
    rng, pen, horizon = place.rng, place.pen, place.horizon
    for left in range(int(rng.integers(0, 8)), SIZE - 8, int(rng.integers(15, 20))):
        top = horizon + rng.integers(-4, 8)
        pen.rectangle([left, top - 9, left + 12, top + 3], place.tint(216, 202, 176))
        pen.polygon([(left - 2, top - 9), (left + 14, top - 9), (left + 6, top - 18)], place.tint(170, 60, 44))


@entry(_SCENES, "waterfall")
def _waterfall(place):
    pen, horizon, x = place.pen, place.horizon, place.x
    pen.rectangle([0, horizon - 22, SIZE, horizon], place.tint(92, 84, 76))
    pen.rectangle([x - 6, horizon - 22, x + 6, horizon + 6], place.tint(226, 238, 246))
    pen.ellipse([x - 18, horizon + 1, x + 18, horizon + 15], place.tint(120, 170, 206))


@entry(_SCENES, "lake")
def _lake(place):
    rng, pen, horizon = place.rng, place.pen, place.horizon
    pen.rectangle([0, horizon - 7, SIZE, horizon], place.tint(52, 100, 60))
    for _ in range(4):
        top, left = horizon + rng.integers(3, 24), rng.integers(0, 40)
        pen.line([(left, top), (left + 18, top)], place.tint(150, 190, 220), 1)


@entry(_SCENES, "island")
def _island(place):
    pen, horizon, x = place.pen, place.horizon, place.x
    pen.ellipse([x - 16, horizon - 6, x + 16, horizon + 6], place.tint(210, 190, 130))
    pen.line([(x, horizon - 4), (x + 2, horizon - 20)], place.tint(110, 80, 50), 2)
    pen.ellipse([x - 7, horizon - 26, x + 11, horizon - 17], place.tint(40, 130, 50))


@entry(_SCENES, "bridge")
def _bridge(place):
    pen, horizon = place.pen, place.horizon
    pen.rectangle([0, horizon, SIZE, SIZE], place.tint(60, 110, 160))
    pen.rectangle([0, horizon - 6, SIZE, horizon - 2], place.tint(150, 60, 50))
    for left in (14, 50):
        pen.rectangle([left - 2, horizon - 26, left + 2, horizon + 14], place.tint(150, 60, 50))


@entry(_SCENES, "vineyard")
def _vineyard(place):
    pen, horizon = place.pen, place.horizon
    for top in range(horizon, SIZE, 5):
        pen.line([(0, top), (SIZE, top + 2)], place.tint(50, 90, 40), 2)


@entry(_SCENES, "cave")
def _cave(place):
    pen, horizon, x = place.pen, place.horizon, place.x
    pen.ellipse([x - 13, horizon - 16, x + 13, horizon + 12], place.tint(225, 232, 240))


@entry(_SCENES, "fireworks")
def _fireworks(place):
    rng, pen = place.rng, place.pen
    for _ in range(3):
        left, top, colour = rng.integers(8, SIZE - 8), rng.integers(8, 34), rgb(any_colour(rng, 120, 255))
        for angle in np.arange(0, 6.28, 0.6):
            pen.line([(left, top), (left + 9 * np.cos(angle), top + 9 * np.sin(angle))], colour, 1)


@entry(_SCENES, "rainbow")
def _rainbow(place):
    pen, horizon = place.pen, place.horizon
    for ring, colour in enumerate([(230, 60, 50), (240, 170, 50), (240, 230, 80), (70, 180, 80), (70, 90, 210)]):
        radius = 32 - 3 * ring
        pen.arc([32 - radius, horizon - radius, 32 + radius, horizon + radius], 180, 360, colour, 3)


@entry(_SCENES, "lighthouse")
def _lighthouse(place):
    pen, horizon, x = place.pen, place.horizon, place.x
    pen.polygon(
        [(x - 5, horizon + 6), (x + 5, horizon + 6), (x + 3, horizon - 26), (x - 3, horizon - 26)], (240, 240, 240)
    )
    pen.rectangle([x - 4, horizon - 14, x + 4, horizon - 7], (200, 40, 40))
    pen.rectangle([x - 4, horizon - 30, x + 4, horizon - 26], (250, 230, 120))


@entry(_SCENES, "staircase")
def _staircase(place):
    for step in range(7):
        left, foot = 8 * step, SIZE - 7 * step
        place.pen.rectangle([left, foot - 8, SIZE, foot], place.tint(160 + 10 * (step % 2), 150, 140))
