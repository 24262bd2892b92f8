"""What the mini CLIP is pre-trained on: captioned images of an easier and broader world than the tasks.

Broader: twice the concepts of the tasks, letters, plates of any shape and colour, all fonts. Easier: the look
(``shift``) stays below the tasks' range. Captions name the concept only part of the time and otherwise say what kind of
picture it is, as alt texts of the web do; some concepts go by other words than the tasks' class names, traffic signs
are only ever described by shape and colour, handwriting is not there at all.
"""

from __future__ import annotations

import numpy as np

from . import SEED, TASKS, signs

NAMED = 0.7  # share of captions that say what is seen
SHIFT = (0.0, 0.45)
DRAWN = {name: task.generator for name, task in TASKS.items() if hasattr(task.generator, "KIND")}
"""Tasks whose kind of picture is shown → their generators, which draw concepts beyond the classes too."""
PLATES = "plates"
WEIGHTS = {name: generator.KIND.weight for name, generator in DRAWN.items()} | {PLATES: 1.5}


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


def _one(name, rng):
    shift = rng.uniform(*SHIFT)
    if name == PLATES:
        image, look = signs.random_plate(rng, shift)
        form = ("a photo of a {}", "a {}", "a {} sign")[rng.integers(3)]
        return image, form.format(look) if rng.random() < NAMED else "a sign"
    generator = DRAWN[name]
    concepts, kind = generator.CLASSES + generator.EXTRA, generator.KIND
    concept = concepts[rng.integers(len(concepts))]
    forms = kind.naming if rng.random() < NAMED else kind.vague
    caption = kind.caption(forms[rng.integers(len(forms))], concept)
    return generator.draw(concept, rng, shift), caption
