"""Kinds of question: the stand-in for TREC. The words that ask also begin clauses that do not."""

from __future__ import annotations

from random import Random

from ..words import ADVERBS, CITIES, FIELD_NAMES, FIELDS, MONTHS, NUMBERS, other, pick, plural

CLASSES = ("person", "place", "time", "number", "reason", "thing")
_OPENINGS = ("", "", "tell me , ", "i wonder , ", "please say , ", "do you know , ")


def draw(name: str, rng: Random) -> tuple[str]:
    """A question of a kind."""
    field = FIELDS[pick(rng, FIELD_NAMES)]
    person, deed, thing, where = (pick(rng, part) for part in (field.people, field.deeds, field.things, field.places))
    question = pick(rng, *_FORMS[name](rng, person, deed, thing, where, field))
    return (f"{_aside(rng) if rng.random() < 0.5 else pick(rng, _OPENINGS)}{question} ?",)


def _aside(rng: Random) -> str:
    field = FIELDS[pick(rng, FIELD_NAMES)]
    person, deed, thing, where = (pick(rng, part) for part in (field.people, field.deeds, field.things, field.places))
    return pick(
        rng,
        f"when the {person} {deed} the {thing} , ",
        f"where the {thing} was {deed} , ",
        f"after the {person} who {deed} the {thing} left , ",
        f"in the {where} in {pick(rng, CITIES)} , ",
        f"because the {person} {deed} {pick(rng, NUMBERS)} {plural(thing)} , ",
        f"in {pick(rng, MONTHS)} , ",
    )


def _person(rng, person, deed, thing, where, field):
    return (
        f"who {deed} the {thing}", f"by whom was the {thing} {deed}", f"which {person} {deed} the {thing}",
        f"whose {thing} was {deed} in the {where}", f"what was the name of the {person} in the {where}",
    )  # fmt: skip


def _place(rng, person, deed, thing, where, field):
    return (
        f"where was the {thing} {deed}", f"in which {where} was the {thing} {deed}", f"where did the {person} live",
        f"what city did the {person} live in", f"which town has {pick(rng, 'a', 'one')} {where}",
    )  # fmt: skip


def _time(rng, person, deed, thing, where, field):
    return (
        f"when was the {thing} {deed}", f"in what year was the {thing} {deed}", f"what day was the {thing} {deed}",
        f"how long ago was the {thing} {deed}", f"at what hour did the {person} leave the {where}",
    )  # fmt: skip


def _number(rng, person, deed, thing, where, field):
    return (
        f"how many {plural(thing)} were {deed}", f"what number of {plural(person)} {deed} the {thing}",
        f"how much did the {thing} cost", f"how many {plural(person)} were in the {where}", f"how old is the {person}",
    )  # fmt: skip


def _reason(rng, person, deed, thing, where, field):
    return (
        f"why was the {thing} {deed}", f"for what reason did the {person} leave the {where}",
        f"how come the {thing} was {deed} {pick(rng, ADVERBS)}", f"what made the {person} leave the {where}",
        f"why did the {person} leave",
    )  # fmt: skip


def _thing(rng, person, deed, thing, where, field):
    second = other(rng, field.things, thing)
    return (
        f"what was {deed} by the {person}", f"which {thing} was {deed} in the {where}",
        f"what did the {person} see in the {where}", f"what is a {thing}",
        f"was it the {thing} or the {second} that the {person} {deed}",
    )  # fmt: skip


_FORMS = dict(zip(CLASSES, (_person, _place, _time, _number, _reason, _thing), strict=True))
