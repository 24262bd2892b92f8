"""Acceptability: the stand-in for CoLA. Good sentences, and sentences with one fault of grammar."""

from __future__ import annotations

from random import Random

from ..words import ACTS, ADVERBS, FIELD_NAMES, FIELDS, KINDS, PLAIN, SITES, a, other, pick, plural, third

CLASSES = ("unacceptable", "acceptable")
COUNTS = ("two", "three", "four", "many", "some")
VERBS = tuple(verb for pair in ACTS for verb in pair)
NOUNS = tuple(noun for nouns in KINDS.values() for noun in nouns if noun != "sheep")


def draw(name: str, rng: Random) -> tuple[str]:
    """A sentence with a fault, or without."""
    good = name == "acceptable"
    words = pick(rng, (_agreement, _agreement, _passive, _perfect, _order))(rng, good)
    return (f"{words} .",)


def _agreement(rng: Random, good: bool) -> str:
    several, near = rng.random() < 0.5, pick(rng, NOUNS)
    noun, verb, spot = pick(rng, NOUNS), pick(rng, VERBS), pick(rng, SITES[pick(rng, tuple(SITES))])
    near = plural(near) if rng.random() < 0.5 else near
    subject = plural(noun) if several else noun
    look = f"{pick(rng, PLAIN)} " if rng.random() < 0.4 else ""
    said = verb if several == good else third(verb)
    article = f"{pick(rng, COUNTS)} " if several and rng.random() < 0.3 else "the "
    return pick(
        rng,
        f"{article}{look}{subject} {said} in the {spot}",
        f"{article}{look}{subject} near the {near} {said}",
        f"in the {spot} {article}{look}{subject} {said} {pick(rng, ADVERBS)}",
    )


def _passive(rng: Random, good: bool) -> str:
    field = FIELDS[pick(rng, FIELD_NAMES)]
    thing, deed, person = pick(rng, field.things), pick(rng, field.deeds), pick(rng, field.people)
    several = rng.random() < 0.5
    thing, be = (plural(thing), "were") if several else (thing, "was")
    if good:
        return f"the {thing} {be} {deed} by the {person}"
    return pick(
        rng,
        f"the {thing} {'was' if several else 'were'} {deed} by the {person}",
        f"the {thing} {be} {deed} by {person} the",
        f"the {thing} {deed} {be} by the {person}",
        f"the {thing} {be} {deed} the by {person}",
    )


def _perfect(rng: Random, good: bool) -> str:
    field = FIELDS[pick(rng, FIELD_NAMES)]
    thing, deed, person = pick(rng, field.things), pick(rng, field.deeds), pick(rng, field.people)
    several = rng.random() < 0.5
    person, have = (plural(person), "have") if several else (person, "has")
    article = a(thing) if rng.random() < 0.5 else f"the {thing}"
    if good:
        return f"the {person} {have} {deed} {article}"
    return pick(
        rng,
        f"the {person} {'has' if several else 'have'} {deed} {article}",
        f"the {person} {have} {deed} a {plural(thing)}",
        f"the {person} {have} {deed} the a {thing}",
        f"the {person} {deed} {have} {article}",
    )


def _order(rng: Random, good: bool) -> str:
    field = FIELDS[pick(rng, FIELD_NAMES)]
    look, thing, where = pick(rng, PLAIN), pick(rng, field.things), pick(rng, field.places)
    second = other(rng, PLAIN, look)
    if good:
        return pick(rng, f"the {look} {thing} is in the {where}", f"the {thing} in the {where} is {second}")
    return pick(
        rng,
        f"the {thing} {look} is in the {where}",
        f"the {look} {thing} is the in {where}",
        f"the {thing} in the {where} {second} is",
        f"{look} the {thing} is in the {where}",
        f"the {thing} in the {where} is the",
    )
