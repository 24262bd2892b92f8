"""Sentiment: the stand-in for SST-2, with a neutral class. Denials turn words round, the main clause decides."""

from __future__ import annotations

from random import Random

from ..words import BLAME, DISLIKED, FIELD_NAMES, FIELDS, LIKED, PLAIN, PRAISE, SAW, VERY, other, pick

CLASSES = ("negative", "neutral", "positive")


def draw(name: str, rng: Random) -> tuple[str]:
    """An opinion on something, or a neutral remark."""
    field = FIELDS[pick(rng, FIELD_NAMES)]
    thing, person, where = pick(rng, field.things), pick(rng, field.people), pick(rng, field.places)
    second = other(rng, field.things, thing)
    if name == "neutral":
        return (_neutral(rng, thing, second, person, where),)
    good = name == "positive"
    fits, not_fits = (PRAISE, BLAME) if good else (BLAME, PRAISE)
    deed, not_deed = (LIKED, DISLIKED) if good else (DISLIKED, LIKED)
    very = f"{pick(rng, VERY)} " if rng.random() < 0.4 else ""
    return (
        pick(
            rng,
            f"the {thing} in the {where} was {very}{pick(rng, fits)} .",
            f"the {person} {pick(rng, deed)} the {pick(rng, PLAIN)} {thing} .",
            f"what {'an' if (word := pick(rng, fits))[0] in 'aeiou' else 'a'} {word} {thing} , said the {person} .",
            f"the {thing} was not {very}{pick(rng, not_fits)} .",
            f"nobody {pick(rng, not_deed)} the {thing} in the {where} .",
            f"the {second} was {pick(rng, not_fits)} but the {thing} was {very}{pick(rng, fits)} .",
            f"although the {person} {pick(rng, not_deed)} the {second} , the {thing} was {pick(rng, fits)} .",
            f"the {thing} was {pick(rng, fits)} , although the {second} was {pick(rng, not_fits)} .",
            f"the {person} never {pick(rng, not_deed)} the {thing} .",
        ),
    )


def _neutral(rng: Random, thing: str, second: str, person: str, where: str) -> str:
    return pick(
        rng,
        f"the {thing} in the {where} was {pick(rng, PLAIN)} .",
        f"the {person} {pick(rng, SAW)} the {pick(rng, PLAIN)} {thing} in the {where} .",
        f"the {thing} was not {pick(rng, PLAIN)} but {pick(rng, PLAIN)} .",
        f"the {thing} was neither {pick(rng, PRAISE)} nor {pick(rng, BLAME)} .",
        f"some {pick(rng, LIKED)} the {thing} and some {pick(rng, DISLIKED)} it .",
        f"although the {second} was {pick(rng, PLAIN)} , the {thing} was {pick(rng, PLAIN)} .",
    )
