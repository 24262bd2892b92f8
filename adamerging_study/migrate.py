"""Lift records of schema 1 to schema 2: columns in the place of phrases, and what each method is called and needs.

    python -m adamerging_study.migrate results/mini/*.json book/runs/*/*/*/*.json

Numbers stay as they are. What a record of schema 1 lacks, which images were classified correctly, stays missing: its
differences have no intervals until the experiment runs again.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from adamerging_lib import records
from adamerging_lib.methods import methods

from .tinting import PILOT, VARIANTS

Row = dict[str, Any]

# Rows that measure no images said in `condition` what they measured; that is their `kind`.
KINDS = (
    "bin", "spearman", "path", "final", "cosine", "sign_conflict", "overlap", "transfer", "alone", "pair", "zero_shot",
    "classes", "relative_norm",
)  # fmt: skip
# Parameter of the budget notebook → the name that its levels had.
_BUDGET = {
    "lrs": "lr", "batch_sizes": "batch size", "images": "images", "granularities": "granularity",
    "ranges": "range of λ", "starts": "start", "diversities": "diversity",
}  # fmt: skip
# Measured columns of schema 1 that only some experiments have.
FURTHER = ("coefficient", "share", "value", "baseline", "ratio", "low", "high")


def migrated(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of schema 1 as one of schema 2.

    Raises:
        ValueError: for a record of another schema, or a condition that is none of those that schema 1 had.
    """
    if record.get("schema") != 1:
        raise ValueError(f"has schema {record.get('schema')!r}, only schema 1 is lifted")
    lift = _BY_EXPERIMENT.get(record["experiment"], _kinds)
    rows = [lift(dict(row)) for row in record["rows"]]
    known, used = methods().to_dict("index"), dict.fromkeys(row["method"] for row in rows if row.get("method"))
    about = {name: {key: known[name][key] for key in records.ABOUT_METHODS} for name in used if name in known}
    parameters, seeds = record["parameters"], record["seeds"]
    if record["experiment"] == "budget":
        parameters, seeds = _budget_parameters(parameters, seeds)
    further = [field for field in FURTHER if any(field in row for row in rows)]
    head = {key: value for key, value in record.items() if key not in ("schema", "rows")}
    lifted = {
        "schema": records.SCHEMA, **head, "parameters": parameters, "seeds": seeds, "methods": about,
        "measured": [*records.MEASURED, *further], "rows": rows,
    }  # fmt: skip
    records.check(lifted)
    return lifted


def _kinds(row: Row) -> Row:
    if row.get("condition") in KINDS:
        row["kind"] = row.pop("condition")
    return row


def _phrase(pattern: str, column: str, value: Callable[[str], Any] = str) -> Callable[[Row], Row]:
    """Turn a condition that fits a pattern into a column; the images were clean."""

    def lift(row: Row) -> Row:
        if found := re.fullmatch(pattern, row.get("condition", "")):
            row["condition"] = "clean"
            row.setdefault(column, value(found[1]))
        return _kinds(row)

    return lift


def _similarity(row: Row) -> Row:
    row = _kinds(row)
    if "accuracy" in row:
        row["condition"] = "clean"
    return row


def _coefficients(row: Row) -> Row:
    if "kind" in row:
        row["role"] = row.pop("kind")
    return _kinds(row)


def _tinting(row: Row) -> Row:
    if row.get("condition") in (*VARIANTS, PILOT):
        row["variant"], row["condition"] = row["condition"], "clean"
    return row


def _reasons(row: Row) -> Row:
    if "combine" in row:
        row["rule"] = row.pop("combine")
    if any(column in row for column in ("scale", "narrowed", "left_out", "rule")):
        row["condition"] = "clean"
    return _kinds(row)


def _budget(row: Row) -> Row:
    if row.get("factor") == "base":
        del row["factor"], row["level"]
    return _kinds(row)


def _budget_parameters(parameters: Mapping[str, Any], seeds: Sequence[int]) -> tuple[Row, list[int]]:
    """Levels by factor as the notebook's parameters, orders of images among the seeds."""
    given = {name: value for name, value in parameters.items() if name != "levels"}
    levels = {name: parameters["levels"][factor] for name, factor in _BUDGET.items()}
    levels["images"] = [count or 0 for count in levels["images"]]
    levels["ranges"] = [{True: "clamp", False: "free"}.get(value, value) for value in levels["ranges"]]
    return given | levels, list(dict.fromkeys([*seeds, *parameters["levels"]["seed"]]))


_BY_EXPERIMENT: dict[str, Callable[[Row], Row]] = {
    "budget": _budget,
    "performance": _phrase(r"lambda=([\d.]+)", "scaling", float),
    "generalisation": _phrase(r"without (.+)", "unseen"),
    "mini_suite": _phrase(r"alpha=([\d.]+)", "alpha", float),
    "coefficients": _coefficients,
    "similarity": _similarity,
    "tinting": _tinting,
    "reasons": _reasons,
}


def main(paths: Sequence[str]) -> None:
    """Lift the files given, in place; those of schema 2 are left alone."""
    if not paths:
        sys.exit(__doc__)
    for path in map(Path, paths):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.get("schema") == records.SCHEMA:
            print(f"{path}: is of schema {records.SCHEMA} already")
            continue
        try:
            records.write(migrated(record), path)
        except ValueError as error:
            sys.exit(f"{path}: {error}")
        print(f"{path}: lifted")


if __name__ == "__main__":
    main(sys.argv[1:])
