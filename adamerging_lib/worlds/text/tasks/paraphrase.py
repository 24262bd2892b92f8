"""Paraphrase: the stand-in for MRPC and QQP. Two sentences tell of one deed in other words; one of them may deny it."""

from __future__ import annotations

from random import Random

from ..words import ADVERBS, NEIGHBOURS, OBJECTS, PLAIN, SYNONYMS, other, participle, pick

CLASSES = ("different", "same")
Deed = dict[str, str]


def draw(name: str, rng: Random, deny: bool = True) -> tuple[str, str]:
    """Two sentences on who did what.

    Arguments:
        name: the class.
        rng: what is drawn from.
        deny: sentences that differ tell of one deed, done and not done; otherwise of two deeds.
    """
    group = pick(rng, SYNONYMS)
    first = {
        "who": pick(rng, NEIGHBOURS), "did": pick(rng, group), "what": pick(rng, OBJECTS),
        "when": pick(rng, ADVERBS) if rng.random() < 0.5 else "",
        "look": pick(rng, PLAIN) if rng.random() < 0.4 else "",
    }  # fmt: skip
    second = dict(first)
    if rng.random() < 0.6:
        second["did"] = other(rng, group, first["did"])
    if deny:
        done = rng.random() < 0.5
        return _told(rng, first, done), _told(rng, second, done == (name == "same"))
    if name == "different":
        _change(rng, second, group)
    return _told(rng, first, True), _told(rng, second, True)


def _change(rng: Random, deed: Deed, group: tuple[str, ...]) -> None:
    changes = {
        "who": lambda: other(rng, NEIGHBOURS, deed["who"]),
        "did": lambda: pick(rng, other(rng, SYNONYMS, group)),
        "what": lambda: other(rng, OBJECTS, deed["what"]),
    }
    for key in rng.sample(tuple(changes), pick(rng, 2, 2, 3)):
        deed[key] = changes[key]()


def _told(rng: Random, deed: Deed, done: bool) -> str:
    who, did, participle_ = f"the {deed['who']}", deed["did"], participle(deed["did"])
    what = f"the {deed['look']} {deed['what']}" if deed["look"] else f"the {deed['what']}"
    when = f" {deed['when']}" if deed["when"] else ""
    if done:
        return pick(
            rng,
            f"{who} {did} {what}{when} .",
            f"{what} was {participle_} by {who}{when} .",
            f"it was {who} who {did} {what}{when} .",
        )
    return pick(
        rng,
        f"{who} never {did} {what}{when} .",
        f"{what} was not {participle_} by {who}{when} .",
        f"{what} was never {participle_} by {who}{when} .",
    )
