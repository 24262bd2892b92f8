"""All claims over all records: which record tells, what its room's numbers are, and what the judge says."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adamerging_lib import records
from adamerging_lib.runtime import places
from adamerging_lib.runtime.atomic import atomic

from . import rooms
from .judge import Claim, Verdict, judge, read
from .sample import Sample

WHERE = {"condition": "clean", "setting": ["transductive", None]}
"""What numbers ask for unless they name it: clean images, in the papers' setting, and no factor of the room varied."""


def claims_of(room: str) -> list[Claim]:
    """The claims of an experiment, in the order of its ``claims.yml``."""
    path = rooms.HERE / room / "claims.yml"
    return _read(path, path.stat().st_mtime_ns)


def numbers_of(record: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Every number that the record's experiment has a name for, ``[1 + draws]`` each, see `Sample`."""
    room = record["experiment"]
    where = {**WHERE, **dict.fromkeys(rooms.face(room).factors)}
    return rooms.part(room, "numbers").numbers(Sample(records.frame(record), where=where))


def verdicts_of(record: Mapping[str, Any]) -> list[Verdict]:
    """The verdicts of a record on its experiment's claims, those left out that are about other profiles."""
    numbers = numbers_of(record)
    claims = [c for c in claims_of(record["experiment"]) if c.concerns(record["profile"])]
    return [judge(claim, numbers) for claim in claims]


def words_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Every word that the record's experiment has a name for, such as the best method's; none in most rooms."""
    words = getattr(rooms.part(record["experiment"], "numbers"), "words", None)
    return words(records.frame(record)) if words else {}


def numbers_at(path: Path) -> dict[str, np.ndarray]:
    """As `numbers_of`, of the record in a file; kept until the file changes."""
    return _numbers(path, path.stat().st_mtime_ns)


def verdicts_at(path: Path) -> list[Verdict]:
    """As `verdicts_of`, of the record in a file; kept until the file changes."""
    return _verdicts(path, path.stat().st_mtime_ns)


def record_of(experiment: str, profile: str) -> Path | None:
    """The record of an experiment on a profile: this build's, the committed one, or that of the run of its name."""
    name = f"{profile}/{experiment}.json"
    runs = places.committed().parent / "book" / "runs"
    paths = [places.results() / name, places.committed() / name, runs / profile / experiment / name]
    return next((path for path in paths if path.is_file()), None)


def every() -> list[tuple[str, Claim]]:
    """Every claim of every experiment, with its room."""
    return [(room, claim) for room in rooms.rooms() for claim in claims_of(room)]


def by_papers() -> list[tuple[str, Claim]]:
    """The claims of papers, with their rooms."""
    return [(room, claim) for room, claim in every() if claim.by == "paper"]


def profiles(bases: Mapping[str, str]) -> list[str]:
    """Profiles that some experiment has a record of; a changed world only where the one that it changes has none.

    Arguments:
        bases: profile → the one that it changes a setting of, or empty; in the order wanted.
    """
    found = [name for name in bases if any(record_of(room, name) for room in rooms.rooms())]
    return [name for name in found if bases[name] not in found]


def verdict(room: str, id: str, profile: str) -> Verdict | None:
    """The verdict of a profile's record on one claim; None where there is no such record or claim."""
    path = record_of(room, profile)
    return next((v for v in verdicts_at(path) if v.claim.id == id), None) if path else None


def words(root: Path) -> list[dict[str, str]]:
    """Every word on every committed record of a checkout: record (from its root), claim, word."""
    paths = [*sorted((root / "results").glob("*/*.json")), *sorted((root / "book/runs").glob("*/*/*/*.json"))]
    return [
        {"record": path.relative_to(root).as_posix(), "claim": verdict.claim.id, "word": str(verdict)}
        for path in paths
        for verdict in verdicts_at(path.resolve())
    ]


def write_words(root: Path) -> None:
    """Write `words` to ``results/verdicts.csv``, so that a diff shows each verdict that changes."""
    with atomic(root / "results/verdicts.csv") as temporary:
        pd.DataFrame(words(root), columns=["record", "claim", "word"]).to_csv(temporary, index=False)


# A sample of two thousand draws takes a second; pages and tests ask for the same records again and again.
@functools.lru_cache(maxsize=64)
def _numbers(path: Path, stamp: int) -> dict[str, np.ndarray]:
    return numbers_of(records.read(path))


@functools.lru_cache(maxsize=64)
def _verdicts(path: Path, stamp: int) -> list[Verdict]:
    return verdicts_of(records.read(path))


@functools.lru_cache(maxsize=64)
def _read(path: Path, stamp: int) -> list[Claim]:
    return read(path)
