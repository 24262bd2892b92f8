"""House numbers: the stand-in for SVHN. Printed characters; pre-training shows letters too."""

from __future__ import annotations

import numpy as np

from .canvas import FONTS, SIZE, backdrop, camera, contrasting, font, painter, rgb
from .kinds import Kind

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
EXTRA = tuple("ABCDEFGHJKLMNPQRTUVWXYZ")  # without I, O and S, which look like one, zero and five
KIND = Kind(
    weight=2.2,
    naming=("a photo of the {kind} {}", "the {kind} {}", "{}"),
    vague=("a {kind}", "some print"),
    sorts={**dict.fromkeys(CLASSES, "number"), **dict.fromkeys(EXTRA, "letter")},
)


def draw(name: str, rng: np.random.Generator, shift: float) -> np.ndarray:
    """One printed character, alone or (``shift`` 1) between cut-off neighbours on a weathered plate.

    The text is a digit by its name or a letter by itself.
    """
    ground = backdrop(rng, 0.15 + 0.45 * shift)
    ink = contrasting(rng, ground.mean((0, 1)), 230 - 60 * shift)
    image, pen = painter(ground)
    face, size = FONTS[rng.integers(len(FONTS))], int(rng.integers(44, 58))
    bold = int(rng.integers(0, 3))  # extra stroke width
    glyph = font(face, size)
    x, y = SIZE / 2 + rng.integers(-3, 4), SIZE / 2 + rng.integers(-3, 4)
    text = str(CLASSES.index(name)) if name in CLASSES else name
    pen.text((x, y), text, font=glyph, fill=rgb(ink), anchor="mm", stroke_width=bold)
    for side in (-1, 1):
        if rng.random() < 0.75 * shift:
            neighbour = str(rng.integers(0, 10))
            place = (x + side * size * rng.uniform(0.62, 0.7), y)
            pen.text(place, neighbour, font=glyph, fill=rgb(ink), anchor="mm", stroke_width=bold)
    return camera(
        rng, image, blur=0.5 + 2.0 * shift, exposure=0.45 * shift, grain=6 + 22 * shift, turn=6 + 6 * shift, shift=3
    )
