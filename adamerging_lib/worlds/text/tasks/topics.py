"""Topics: the stand-in for AG News. The topic is that of the thing spoken of; people and places mislead."""

from __future__ import annotations

from random import Random

from ..words import ADVERBS, FIELD_NAMES, FIELDS, PLAIN, SAW, other, participle, pick

CLASSES = FIELD_NAMES
STRAY = 0.7  # share of people and places that are another field's


def draw(name: str, rng: Random, stray: float = STRAY) -> tuple[str]:
    """A sentence on something of a field.

    Arguments:
        name: the field.
        rng: what is drawn from.
        stray: share of people and places that are of another field.
    """
    field = FIELDS[name]

    def some(kind: str) -> str:
        source = FIELDS[other(rng, FIELD_NAMES, name)] if rng.random() < stray else field
        return pick(rng, getattr(source, kind))

    person, second, where = some("people"), some("people"), some("places")
    deed = pick(rng, field.deeds) if rng.random() < 0.6 else pick(rng, SAW)
    done, thing = participle(deed), pick(rng, field.things)
    if rng.random() < 0.5:
        thing = f"{pick(rng, PLAIN)} {thing}"
    return (
        pick(
            rng,
            f"the {person} {deed} the {thing} in the {where} {pick(rng, ADVERBS)} .",
            f"in the {where} the {person} {deed} the {thing} .",
            f"the {thing} was {done} by the {person} in the {where} .",
            f"the {person} and the {second} talked about the {thing} in the {where} .",
            f"while the {second} waited in the {where} , the {person} {deed} the {thing} .",
            f"the {person} told the {second} that the {thing} was {done} .",
            f"the {thing} that the {person} {deed} was near the {where} .",
        ),
    )
