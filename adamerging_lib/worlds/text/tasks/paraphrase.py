"""Paraphrase: the stand-in for MRPC and QQP. Do two sentences say the same? Who did what to what decides."""

from __future__ import annotations

from random import Random

from ..words import ADVERBS, NEIGHBOURS, OBJECTS, PLAIN, SYNONYMS, other, participle, pick

CLASSES = ("different", "same")


def draw(name: str, rng: Random) -> tuple[str, str]:
    """Two sentences on who did what."""
    group = pick(rng, SYNONYMS)
    first = {
        "who": pick(rng, NEIGHBOURS), "did": pick(rng, group), "what": pick(rng, OBJECTS),
        "when": pick(rng, ADVERBS) if rng.random() < 0.5 else "",
        "look": pick(rng, PLAIN) if rng.random() < 0.4 else "",
    }  # fmt: skip
    second = dict(first)
    if rng.random() < 0.6:
        second["did"] = other(rng, group, first["did"])
    if name == "different":
        changes = {
            "who": lambda: other(rng, NEIGHBOURS, first["who"]),
            "did": lambda: pick(rng, other(rng, SYNONYMS, group)),
            "what": lambda: other(rng, OBJECTS, first["what"]),
        }
        key = pick(rng, tuple(changes))
        second[key] = changes[key]()
    return _say(rng, first), _say(rng, second)


def _say(rng: Random, facts: dict[str, str]) -> str:
    what = f"the {facts['look']} {facts['what']}" if facts["look"] else f"the {facts['what']}"
    when = f" {facts['when']}" if facts["when"] else ""
    done = participle(facts["did"])
    return pick(
        rng,
        f"the {facts['who']} {facts['did']} {what}{when} .",
        f"{what} was {done} by the {facts['who']}{when} .",
        f"it was the {facts['who']} who {facts['did']} {what}{when} .",
    )
