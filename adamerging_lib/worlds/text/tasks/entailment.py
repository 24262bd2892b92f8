"""Entailment: the stand-in for MNLI. Does the first sentence say that the second is true, or false, or neither?"""

from __future__ import annotations

from random import Random

from ..words import ACTS, KINDS, NUMBERS, OPPOSITES, SITES, other, pick, plural

CLASSES = ("entailment", "neutral", "contradiction")
PARENTS = {kind: plural(kind) for kind in KINDS}


def draw(name: str, rng: Random) -> tuple[str, str]:
    """A premise and a hypothesis."""
    kind = pick(rng, tuple(KINDS))
    noun = pick(rng, KINDS[kind])
    pair, act, site = pick(rng, OPPOSITES), pick(rng, ACTS), pick(rng, tuple(SITES))
    look, verb, spot = pick(rng, pair), pick(rng, act), pick(rng, SITES[site])
    facts = {
        "count": pick(rng, NUMBERS), "look": look, "noun": plural(noun), "verb": verb, "spot": f"in the {spot}",
    }  # fmt: skip
    unsaid = pick(rng, "look", "spot") if name == "neutral" else pick(rng, "look", "spot", "")
    premise = {key: value for key, value in facts.items() if key != unsaid}
    claim = dict(premise)
    for key in ("look", "spot"):  # a hypothesis says less
        if key in claim and rng.random() < 0.4:
            del claim[key]
    claim["count"] = pick(rng, "some", facts["count"])
    if rng.random() < 0.4:
        claim["noun"] = PARENTS[kind]
    if name == "neutral":
        claim[unsaid] = facts[unsaid]
    if name == "contradiction":
        claim |= _false(rng, premise, claim, look, other(rng, pair, look), other(rng, act, verb))
    return _say(premise), _say(claim)


def _false(rng, premise, claim, look, not_look, not_verb):
    ways = [{"verb": not_verb}, {"count": "no"}, {"verb": f"never {claim['verb']}"}]
    if "look" in premise:
        ways += [{"look": not_look}]
    return pick(rng, ways)


def _say(facts: dict[str, str]) -> str:
    order = ("count", "look", "noun", "verb", "spot")
    return " ".join(facts[key] for key in order if key in facts) + " ."
