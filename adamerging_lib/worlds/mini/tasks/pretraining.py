"""What the mini CLIP is pre-trained on: captioned images of an easier and broader world than the tasks.

Broader: twice the concepts of the tasks, letters, plates of any shape and colour, all fonts. Easier: the look
(``shift``) stays below the tasks' range. Captions name the concept only part of the time and otherwise say what kind of
picture it is, as alt texts of the web do; some concepts go by other words than the tasks' class names, traffic signs
are only ever described by shape and colour, handwriting is not there at all.
"""

from __future__ import annotations

import numpy as np

from . import SEED, aerial, glyphs, landcover, scenes, signs, textures, vehicles

NAMED = 0.7  # share of captions that say what is seen
SHIFT = (0.0, 0.45)

# What captions call a concept where that differs from the class name that the task's prompts use. A web-trained CLIP
# meets the same gap: few pages call a field "annual crop land" (EuroSAT) or a road sign by its legal name (GTSRB).
OTHER_WORDS = {
    "village": "cottages", "indoor room": "bedroom", "snow field": "winter land",
    "sedan": "family car", "hatchback": "small car", "lorry": "cargo truck", "convertible": "roadster",
    "circular farmland": "irrigated discs", "dense houses": "suburb", "storage tanks": "white cylinders",
    "harbour": "marina", "railway": "train tracks",
    "annual crop": "ploughed fields", "herbaceous vegetation": "wild grassland", "industrial buildings": "warehouses",
    "pasture": "green meadow", "permanent crop": "orchard", "residential area": "town",
    "woven": "basket", "checkered": "chessboard", "marbled": "swirling stone", "blotchy": "camouflage",
}  # fmt: skip

# kind: (concepts, draw, captions that name, captions that do not)
KINDS = {
    "scenes": (scenes.CLASSES + scenes.EXTRA, scenes.draw,
               ("a photo of a {}", "a landscape with a {}", "a {}", "picture of a {}"), ("a landscape", "a view")),
    "vehicles": (vehicles.CLASSES + vehicles.EXTRA, vehicles.draw,
                 ("a photo of a {}", "a {} from the side", "a {}", "picture of a {}"), ("a vehicle", "a machine")),
    "aerial": (aerial.CLASSES + aerial.EXTRA, aerial.draw,
               ("an aerial photo of a {}", "a {} seen from above", "a {}"), ("an aerial photo", "seen from above")),
    "landcover": (landcover.CLASSES + landcover.EXTRA, landcover.draw,
                  ("a satellite image of {}", "{} from orbit", "{}"), ("a satellite image", "seen from orbit")),
    "characters": (glyphs.DIGITS + glyphs.LETTERS, glyphs.print_character,
                   ("a photo of the {kind} {}", "the {kind} {}", "{}"), ("a {kind}", "some print")),
    "textures": (textures.CLASSES + textures.EXTRA, textures.draw,
                 ("a photo of a {} texture", "a {} surface", "{}", "a {} pattern"), ("a texture", "a surface")),
}  # fmt: skip
WEIGHTS = {
    "scenes": 1.0, "vehicles": 1.3, "aerial": 1.1, "landcover": 0.8, "characters": 2.2, "textures": 1.1, "plates": 1.5,
}  # fmt: skip


def captioned(start: int, stop: int, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Images ``start`` to ``stop`` of the endless pre-training stream: uint8 ``[n, 3, 32, 32]`` and their captions."""
    kinds, weights = list(WEIGHTS), np.array(list(WEIGHTS.values()))
    images = np.empty((stop - start, 32, 32, 3), np.uint8)
    captions = []
    for row, index in enumerate(range(start, stop)):
        rng = np.random.default_rng((SEED, 1000 + seed, index))
        kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
        images[row], caption = _one(kind, rng)
        captions.append(caption)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), captions


def _one(kind, rng):
    shift = rng.uniform(*SHIFT)
    if kind == "plates":
        image, look = signs.random_plate(rng, shift)
        form = ("a photo of a {}", "a {}", "a {} sign")[rng.integers(3)]
        return image, form.format(look) if rng.random() < NAMED else "a sign"
    concepts, draw, naming, vague = KINDS[kind]
    concept = concepts[rng.integers(len(concepts))]
    forms = naming if rng.random() < NAMED else vague
    form = forms[rng.integers(len(forms))]
    wording = OTHER_WORDS.get(concept, concept)
    group = "number" if concept in glyphs.DIGITS else "letter"
    return draw(concept, rng, shift), form.format(wording, kind=group)
