"""Claims with their thresholds, and the one judge: four words, read off a 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from .sample import interval

HOLDS, FAILS, UNDECIDED, NOT_RUN = "holds", "does not hold", "undecided", "not run"
WORDS = (HOLDS, FAILS, UNDECIDED, NOT_RUN)
POINT_ONLY = "point value only"
SPEAKERS = ("paper", "study")

_REQUIRED = {"id", "claim", "by", "value"}
_FIELDS = _REQUIRED | {"where", "published", "unit", "at_least", "at_most", "exact", "only", "why"}
_MOST = 4  # digits of a number in a table
# Averages that are equal on paper differ in their last bits; no threshold is finer.
_DIGITS = 9


@dataclass(frozen=True)
class Claim:
    """One claim: a named number of its experiment, and the range in which the claim holds.

    Arguments:
        id: short name, unique in its file.
        claim: what is claimed, in words.
        by: ``paper`` or ``study``: who says so.
        where: paper and section, table or figure; may be empty for the study's own.
        value: name of the number among those of the experiment.
        low, high: the range, infinite where only one end is asked for.
        published: the number that the paper gives, as text; empty where it gives none.
        unit: of the number.
        exact: nothing random is behind the number (a count, a size in bytes): its value alone decides.
        only: profiles that the claim is about; empty for all.
        why: profile → the reason why the claim does not hold there, as far as it is known.
    """

    id: str
    claim: str
    by: str
    where: str
    value: str
    low: float
    high: float
    published: str = ""
    unit: str = "points"
    exact: bool = False
    only: tuple[str, ...] = ()
    why: Mapping[str, str] = field(default_factory=dict)

    @property
    def required(self) -> str:
        """The range in words."""
        if math.isinf(self.high):
            return f"≥ {self.low:g}"
        return f"≤ {self.high:g}" if math.isinf(self.low) else f"{self.low:g} to {self.high:g}"

    def concerns(self, profile: str) -> bool:
        """Whether the claim is about a profile's world."""
        return not self.only or profile in self.only


@dataclass(frozen=True)
class Verdict:
    """The judge's word on a claim, and the numbers it was read off.

    Arguments:
        claim: the claim.
        word: ``holds``, ``does not hold``, ``undecided`` or ``not run``.
        point: the measured value; NaN where it was not run.
        low, high: ends of the 95 % interval; None where the record holds no outcomes, and for exact numbers.
    """

    claim: Claim
    word: str
    point: float
    low: float | None = None
    high: float | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval, None where there is none."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def point_only(self) -> bool:
        """Whether an interval should stand here and is missing, so that the word is the point value's alone."""
        return self.word != NOT_RUN and self.interval is None and not self.claim.exact

    def __str__(self) -> str:
        return f"{self.word} ({POINT_ONLY})" if self.point_only else self.word


def read(path: Path) -> list[Claim]:
    """The claims of an experiment's ``claims.yml``, in its order.

    Raises:
        ValueError: naming file and claim, for a field that is unknown, missing or of the wrong kind, an id given twice,
            a paper's claim that does not say where, or a claim without a range.
    """
    entries = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    if not isinstance(entries, list):
        raise ValueError(f"{path}: holds a {type(entries).__name__}, where a list of claims is asked for")
    claims: dict[str, Claim] = {}
    for place, entry in enumerate(entries, 1):
        name = entry.get("id") if isinstance(entry, Mapping) else None
        try:
            claim = _claim(entry)
        except ValueError as error:
            raise ValueError(f"{path}: claim {name or f'number {place}'!r}: {error}") from error
        if name in claims:
            raise ValueError(f"{path}: two claims are called {name!r}: give one of them another id")
        claims[claim.id] = claim
    return list(claims.values())


def judge(claim: Claim, numbers: Mapping[str, np.ndarray]) -> Verdict:
    """The verdict on a claim.

    *holds*: the whole 95 % interval lies inside the range. *does not hold*: none of it does. *undecided*: an end of the
    range lies in the interval, its ends included (an interval from 0 to 0 does not decide ``at_least: 0``). *not run*:
    the number is NaN. Without an interval the point value decides, and the verdict is marked as `Verdict.point_only`; a
    tie with an end of the range does not hold then. An exact claim's value decides, ends of the range included.

    Arguments:
        claim: the claim.
        numbers: those of its experiment: name → ``[1 + draws]``, see `Sample`.

    Raises:
        ValueError: where the claim's number is not among them, or a number said to be exact has draws.
    """
    if claim.value not in numbers:
        raise ValueError(f"claim {claim.id!r} asks for the number {claim.value!r}; there are {sorted(numbers)}")
    point, low, high = interval(numbers[claim.value])
    if math.isnan(point):
        return Verdict(claim, NOT_RUN, point)
    if low is None or high is None:
        value = round(point, _DIGITS)
        inside = claim.low <= value <= claim.high if claim.exact else claim.low < value < claim.high
        return Verdict(claim, HOLDS if inside else FAILS, point)
    if claim.exact:
        raise ValueError(f"claim {claim.id!r} is called exact, but {claim.value!r} has draws: leave out 'exact'")
    return Verdict(claim, _word(claim, round(low, _DIGITS), round(high, _DIGITS)), point, low, high)


def count(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """How many claims got each word; those judged by their point value only are counted apart."""
    words = [*WORDS, *(f"{word} ({POINT_ONLY})" for word in (HOLDS, FAILS))]
    said = [str(verdict) for verdict in verdicts]
    return {word: said.count(word) for word in words}


def to_frame(verdicts: Iterable[Verdict]) -> pd.DataFrame:
    """Verdicts as a table of text: claim, by, measured, 95 % interval, required, verdict."""
    return pd.DataFrame(
        [(v.claim.claim, v.claim.by, *_measured(v), v.claim.required, str(v)) for v in verdicts],
        columns=["claim", "by", "measured", "95 % interval", "required", "verdict"],
    )


def digits(verdict: Verdict) -> int:
    """Digits behind the point to print a verdict's numbers with: more where the claim's bound would be printed too."""
    found, bounds = 2 if abs(verdict.point) < 1 else 1, (verdict.claim.low, verdict.claim.high)
    ends = [end for end in (verdict.point, *(verdict.interval or ())) if end not in bounds]
    while found < _MOST and any(round(end, found) in bounds for end in ends):
        found += 1
    return found


def _word(claim: Claim, low: float, high: float) -> str:
    if claim.low < low and high < claim.high:
        return HOLDS
    return FAILS if high < claim.low or low > claim.high else UNDECIDED


def _measured(verdict: Verdict) -> tuple[str, str]:
    if verdict.word == NOT_RUN:
        return "–", "–"
    form = f".{digits(verdict)}f"
    ends = "–" if verdict.interval is None else " to ".join(f"{end:{form}}" for end in verdict.interval)
    return f"{verdict.point:{form}}", ends


def _claim(entry: Any) -> Claim:
    if not isinstance(entry, Mapping):
        raise ValueError(f"is {entry!r}, where fields such as 'id: …' are asked for")
    if unknown := entry.keys() - _FIELDS:
        raise ValueError(f"has unknown fields {sorted(map(str, unknown))}; known: {sorted(_FIELDS)}")
    if missing := _REQUIRED - entry.keys():
        raise ValueError(f"lacks {sorted(missing)}")
    for name in ("id", "claim", "value", "where", "published", "unit"):
        text = entry.get(name, "")
        if not isinstance(text, str) or (name in _REQUIRED and not text):
            raise ValueError(f"{name!r} is {text!r}, where text is asked for: write it in quotes")
    if not entry["value"].isidentifier():
        raise ValueError(f"'value' is {entry['value']!r}, where the name of a number is asked for, not an expression")
    if entry["by"] not in SPEAKERS:
        raise ValueError(f"'by' is {entry['by']!r}; use {' or '.join(SPEAKERS)}")
    if entry["by"] == "paper" and not entry.get("where"):
        raise ValueError("lacks 'where': name the paper and its section, table or figure")
    if not isinstance(entry.get("exact", False), bool):
        raise ValueError(f"'exact' is {entry['exact']!r}; use true or leave it out")
    why = entry.get("why", {})
    if not isinstance(why, Mapping) or not all(isinstance(reason, str) for reason in why.values()):
        raise ValueError("'why' maps profiles to reasons, as in 'mini: …'")
    only = entry.get("only", [])
    if not isinstance(only, list) or not all(isinstance(profile, str) for profile in only):
        raise ValueError(f"'only' is {only!r}, where a list of profiles is asked for, as in '[mini]'")
    low, high = _range(entry)
    return Claim(
        entry["id"], entry["claim"], entry["by"], entry.get("where", ""), entry["value"], low, high,
        entry.get("published", ""), entry.get("unit", "points"), entry.get("exact", False), tuple(only), dict(why),
    )  # fmt: skip


def _range(entry: Mapping[str, Any]) -> tuple[float, float]:
    ends = {name: entry[name] for name in ("at_least", "at_most") if name in entry}
    if not ends:
        raise ValueError("says neither 'at_least' nor 'at_most': when does it hold?")
    for name, end in ends.items():
        if isinstance(end, bool) or not isinstance(end, (int, float)) or not math.isfinite(end):
            raise ValueError(f"{name!r} is {end!r}, where a finite number is asked for")
    low, high = float(ends.get("at_least", -math.inf)), float(ends.get("at_most", math.inf))
    if low > high:
        raise ValueError(f"at_least {low:g} lies above at_most {high:g}: no number can hold")
    return low, high
