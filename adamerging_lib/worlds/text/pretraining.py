"""What the encoder is pre-trained on: an endless stream of lines from an easier and broader world than the tasks'.

Broader: what things are and what words mean, answers beside questions, remarks of all fields. Easier: people and places
mostly fit their field, and some lines say what the tasks only ask: a field's name ahead of a sentence, stars behind an
opinion, "likewise" or "so" between two sentences, as the text of the web does now and then. No line is made of a text
that is among a task's tests.
"""

from __future__ import annotations

from random import Random

from .tasks import SEED, SHARES, TASKS, Text, place
from .words import (
    ADVERBS,
    CITIES,
    FIELD_NAMES,
    FIELDS,
    KINDS,
    MONTHS,
    NUMBERS,
    OPPOSITES,
    SYNONYMS,
    a,
    participle,
    pick,
    plural,
)

NAMED = 0.5  # share of lines that say what a task asks
LINKED = 0.8  # the same of two sentences: how they hang together is hardest to guess
STRAY = 0.2  # share of people and places that are another field's; the task has more
_STARS = {"negative": "one star", "neutral": "three stars", "positive": "five stars"}
# One word each: of several, those that are not masked would tell the others.
_LINKS = {
    "entailment": ("so", "thus"), "neutral": ("perhaps", "maybe"), "contradiction": ("yet", "wrongly"),
    "same": ("namely", "likewise"), "different": ("while", "however"),
}  # fmt: skip


def lines(start: int, stop: int, seed: int = 0) -> list[Text]:
    """Lines ``start`` to ``stop`` of the stream, of one sentence or of two.

    Arguments:
        start, stop: which lines.
        seed: of another stream.
    """
    made, kinds, weights = [], list(_KINDS), [weight for _, weight in _KINDS.values()]
    for index in range(start, stop):
        rng = Random(f"{SEED}|pre-training {seed}|{index}")
        make, _ = _KINDS[rng.choices(kinds, weights)[0]]
        made.append(make(rng))
    return made


def _unseen(task: str, rng: Random, **options: float) -> tuple[str, Text]:
    """A class of a task and a text of it that is in no test."""
    generator = TASKS[task].generator
    name = pick(rng, generator.CLASSES)
    while place(text := generator.draw(name, rng, **options)) >= SHARES["test"][0]:
        pass
    return name, text


def _field(rng: Random) -> Text:
    name, (sentence,) = _unseen("topics", rng, stray=STRAY)
    return (f"{name} : {sentence}" if rng.random() < NAMED else sentence,)


def _fact(rng: Random) -> Text:
    """People, things and places of one field in one line."""
    field = FIELDS[pick(rng, FIELD_NAMES)]
    person, second, deed, thing, where = (
        pick(rng, part) for part in (field.people, field.people, field.deeds, field.things, field.places)
    )
    return (
        pick(
            rng,
            f"the {person} works in the {where} in {pick(rng, CITIES)} .",
            f"every {person} knows the {thing} and the {pick(rng, field.things)} .",
            f"the {person} met the {second} in the {where} in {pick(rng, MONTHS)} .",
            f"they {deed} {pick(rng, NUMBERS)} {plural(thing)} {pick(rng, ADVERBS)} .",
        ),
    )


def _opinion(rng: Random) -> Text:
    name, (sentence,) = _unseen("sentiment", rng)
    return (sentence, f"{_STARS[name]} .") if rng.random() < NAMED else (sentence,)


def _question(rng: Random) -> Text:
    name, (sentence,) = _unseen("questions", rng)
    return (sentence, f"{_answer(name, rng)} .") if rng.random() < NAMED else (sentence,)


def _answer(name: str, rng: Random) -> str:
    field = FIELDS[pick(rng, FIELD_NAMES)]
    person, thing, where = pick(rng, field.people), pick(rng, field.things), pick(rng, field.places)
    return {
        "person": f"the {person}", "place": f"in {pick(rng, CITIES)}",
        "time": pick(rng, f"in {pick(rng, MONTHS)}", pick(rng, ADVERBS[:3])), "number": pick(rng, NUMBERS),
        "reason": f"because of the {thing}", "thing": pick(rng, f"the {thing}", f"the {thing} in the {where}"),
    }[name]  # fmt: skip


def _pair(task: str, rng: Random, **options: bool) -> Text:
    name, (first, second) = _unseen(task, rng, **options)
    return (first, f"{pick(rng, _LINKS[name])} {second}" if rng.random() < LINKED else second)


def _grammar(rng: Random) -> Text:
    name, (sentence,) = _unseen("acceptability", rng)
    if name == "acceptable":
        return (sentence,)
    return (sentence, "this is wrong .") if rng.random() < NAMED else _fact(rng)


def _meaning(rng: Random) -> Text:
    kind, field = pick(rng, tuple(KINDS)), pick(rng, FIELD_NAMES)
    noun, pair, verbs = pick(rng, KINDS[kind]), pick(rng, OPPOSITES), pick(rng, SYNONYMS)
    one, two = rng.sample(pair, 2)
    start, end = rng.sample(verbs, 2)
    return (
        pick(
            rng,
            f"{a(noun)} is {a(kind)} .",
            f"{plural(noun)} and {plural(pick(rng, KINDS[kind]))} are {plural(kind)} .",
            f"what is {one} is not {two} .",
            f"who {start} it has also {participle(end)} it .",
            f"{a(pick(rng, FIELDS[field].things))} is a word of {field} .",
        ),
    )


_KINDS = {
    "field": (_field, 2.0),
    "fact": (_fact, 1.0),
    "opinion": (_opinion, 1.5),
    "question": (_question, 1.2),
    "entailment": (lambda rng: _pair("entailment", rng), 2.0),
    "paraphrase": (lambda rng: _pair("paraphrase", rng, deny=False), 3.0),
    "grammar": (_grammar, 1.2),
    "meaning": (_meaning, 1.0),
}
