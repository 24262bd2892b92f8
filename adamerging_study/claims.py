"""The papers' quantitative claims, tested over records: ``claims.yml`` holds them, this file gives the verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean as mean
from typing import Any

import yaml
from simpleeval import EvalWithCompoundTypes, InvalidExpression

from adamerging_lib import records
from adamerging_lib.published import ROLES
from adamerging_lib.runtime import places
from adamerging_lib.worlds.profiles import PROFILES

from .verdicts import FAILS, HOLDS, NOT_RUN, Verdict

FILE = Path("claims.yml")
FIELDS = {"id", "claim", "where", "published", "unit", "record", "value", "at_least", "at_most", "page", "why"}


@dataclass(frozen=True)
class Claim:
    """One claim of a paper.

    Arguments:
        id: short name, unique.
        claim: what the paper says, in our words.
        where: paper and section, table or figure.
        published: the number that the paper gives, as text; empty where it gives none.
        unit: of the measured value.
        record: experiment whose record tests it.
        value: expression over that record's rows, see `evaluate`.
        low, high: the range of the value in which we say that the claim holds, ends included.
        page: page of the book that proves it, from the root, without suffix.
        why: profile → the reason for a failure, as far as it is known.
    """

    id: str
    claim: str
    where: str
    published: str
    unit: str
    record: str
    value: str
    low: float
    high: float
    page: str
    why: Mapping[str, str] = field(default_factory=dict)

    @property
    def required(self) -> str:
        """The range in words."""
        if math.isinf(self.high):
            return f"≥ {self.low:g}"
        return f"≤ {self.high:g}" if math.isinf(self.low) else f"{self.low:g} to {self.high:g}"


def read(path: Path = FILE) -> list[Claim]:
    """The claims of a file.

    Raises:
        ValueError: for a field that is unknown or missing, an id given twice, or a claim without a range; with the id.
    """
    claims: dict[str, Claim] = {}
    for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
        name = entry.get("id", entry)
        if unknown := entry.keys() - FIELDS:
            raise ValueError(
                f"{path.name}: claim {name!r} has unknown fields {sorted(unknown)}; known: {sorted(FIELDS)}"
            )
        if missing := {"id", "claim", "where", "record", "value", "page"} - entry.keys():
            raise ValueError(f"{path.name}: claim {name!r} lacks {sorted(missing)}")
        if not {"at_least", "at_most"} & entry.keys():
            raise ValueError(f"{path.name}: claim {name!r} says neither at_least nor at_most: when does it hold?")
        if name in claims:
            raise ValueError(f"{path.name}: two claims are called {name!r}")
        claims[name] = Claim(
            name, entry["claim"], entry["where"], str(entry.get("published", "")), entry.get("unit", "points"),
            entry["record"], str(entry["value"]), float(entry.get("at_least", -math.inf)),
            float(entry.get("at_most", math.inf)), entry["page"], entry.get("why", {}),
        )  # fmt: skip
    return list(claims.values())


def evaluate(expression: str, rows: Sequence[Mapping[str, Any]]) -> float:
    """The value of an expression over rows of a record; NaN where rows that it needs are not there.

    The expression is arithmetic over ``mean``, ``least``, ``most`` and ``count``: each takes a field and which rows, as
    in ``mean('accuracy', method='ties') - 3``. A list asks for any of its values, ``None`` for rows without the field.
    ``task='Average'`` is implied for ``accuracy`` where no task is named; ``average('ties')`` is the mean accuracy of a
    method under the condition ``clean``, in the papers' transductive setting.

    Raises:
        ValueError: for an expression that is none.
    """

    def found(field: str, **which: Any) -> list[float]:
        if field == "accuracy" and "task" not in which:
            which["task"] = "Average"
        wanted = {key: value if isinstance(value, (list, tuple)) else [value] for key, value in which.items()}
        return [
            row[field]
            for row in rows
            if row.get(field) is not None and all(row.get(key) in values for key, values in wanted.items())
        ]

    def over(reduce):
        return lambda field, **which: reduce(values) if (values := found(field, **which)) else math.nan

    functions = {
        "mean": over(mean),
        "least": over(min),
        "most": over(max),
        "average": lambda method, condition="clean", **which: over(mean)(
            "accuracy", method=method, condition=condition, **{"setting": ["transductive", None], **which}
        ),
        "count": lambda field, **which: len(found(field, **which)),
        "abs": abs,
        "min": lambda *values: math.nan if any(map(math.isnan, values)) else min(values),
        "max": lambda *values: math.nan if any(map(math.isnan, values)) else max(values),
    }
    try:
        return float(EvalWithCompoundTypes(functions=functions, names={"None": None}).eval(expression))
    except ZeroDivisionError:
        return math.nan
    except (InvalidExpression, SyntaxError, TypeError) as error:
        raise ValueError(f"{expression!r} is no expression over a record: {error}") from error


def record_of(experiment: str, profile: str) -> Path | None:
    """The record of an experiment on a profile: this build's, the committed one, or that of the run of its name."""
    name = f"{profile}/{experiment}.json"
    runs = places.committed().parent / "book" / "runs"
    paths = [places.results() / name, places.committed() / name, runs / profile / experiment / name]
    return next((path for path in paths if path.is_file()), None)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Rows of a record; conditions such as ``without digits, landcover`` name the paper's data sets instead."""
    rows = records.read(path)["rows"]
    for row in rows:
        if str(row.get("condition")).startswith("without "):
            tasks = row["condition"].removeprefix("without ").split(", ")
            row["condition"] = f"without {', '.join(ROLES.get(task, task) for task in tasks)}"
    return rows


def verdict(claim: Claim, profile: str) -> Verdict:
    """The verdict of a profile's record on a claim; *not run* where there is no such record or row."""
    path = record_of(claim.record, profile)
    value = evaluate(claim.value, rows_of(path)) if path else math.nan
    return Verdict(claim.claim, value, claim.low, claim.high, digits=2 if abs(value) < 1 else 1)


def count(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many claims hold, do not hold, and were not run."""
    return {word: sum(v.word == word for v in verdicts) for word in (HOLDS, FAILS, NOT_RUN)}


def profiles(claims: Sequence[Claim]) -> list[str]:
    """Profiles of which a claim has a record, in the library's order; a variant of one only where that has none."""
    found = [name for name in PROFILES if any(record_of(claim.record, name) for claim in claims)]
    return [name for name in found if PROFILES[name].base not in found]
