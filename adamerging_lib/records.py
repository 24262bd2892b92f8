"""Run records: the JSON files that tables, figures and claims read."""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .published.competitions import gives
from .runtime.atomic import atomic

if TYPE_CHECKING:
    from .suite import Suite

SCHEMA = 2
FIELDS = (
    "schema", "experiment", "profile", "parameters", "seeds", "environment", "assets", "started", "seconds", "methods",
    "measured", "rows",
)  # fmt: skip

# What a run costs differs from one to the next.
COST = ("seconds", "memory")
MEASURED = ("accuracy", "entropy", "loss", "calibration", "right", "storage", *COST)
"""What `evaluate` and the methods themselves give. Every field that is not measured, but n, says which row it is."""
ABOUT_METHODS = ("label", "needs", "task_specific", "task_id", "static")
"""What a record keeps of each of its methods, see `methods`: so that who reads it need not import them."""

_MACHINE_PATH = re.compile(r"^(?:/|~|[A-Za-z]:[\\/])[^/\\]*[\\/]")


def with_average(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame of `evaluate` with a last row ``Average``: unweighted means over tasks, n summed.

    Example:
        >>> frame = pd.DataFrame({"task": ["cars", "pets"], "accuracy": [90.0, 70.0], "n": [100, 100]})
        >>> print(am.with_average(frame).to_string(index=False))
           task  accuracy   n
           cars      90.0 100
           pets      70.0 100
        Average      80.0 200
    """
    mean = {
        column: (frame[column].sum() if column == "n" else frame[column].mean())
        if pd.api.types.is_numeric_dtype(frame[column])
        else frame[column].iloc[0]
        for column in frame.columns
    }
    return pd.concat([frame, pd.DataFrame([{**mean, "task": "Average"}])], ignore_index=True)


def confidence_interval(
    accuracy: float, n: int, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Return the bootstrap interval of one accuracy over its test images, in percent.

    Resampling n outcomes, of which a share p̂ is right, draws exactly Binomial(n, p̂)/n, so no outcomes are needed.

    Arguments:
        accuracy: percent, 0 to 100.
        n: test images.

    Returns:
        (low, high), percent.

    Example:
        >>> low, high = am.confidence_interval(80.0, 1000)
        >>> round(low), round(high)
        (78, 82)
    """
    return average_confidence_interval([{"accuracy": accuracy, "n": n}], level=level, resamples=resamples, seed=seed)


def average_confidence_interval(
    rows: pd.DataFrame | list[Mapping[str, float]],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the bootstrap interval of the unweighted mean accuracy over tasks, images resampled within each task.

    Arguments:
        rows: one per task with ``accuracy`` (percent) and ``n``; no ``Average`` row.

    Returns:
        (low, high), percent.

    Example:
        >>> low, high = am.average_confidence_interval([{"accuracy": 90.0, "n": 1000}, {"accuracy": 70.0, "n": 1000}])
        >>> low < 80 < high
        True
    """
    frame = pd.DataFrame(rows)
    if "task" in frame and "Average" in set(frame["task"]):
        raise ValueError("the rows hold an 'Average' row: drop it, the interval is of the mean over tasks")
    p, n = frame["accuracy"].to_numpy(float) / 100, frame["n"].to_numpy(int)
    if not len(p) or ((p < 0) | (p > 1)).any() or (n < 1).any() or not 0 < level < 1:
        raise ValueError("accuracy must lie in 0..100 percent, n must be at least 1, level inside (0, 1)")
    means = (np.random.default_rng(seed).binomial(n, p, size=(resamples, len(p))) / n).mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2]) * 100
    return float(low), float(high)


def rows_of(frame: pd.DataFrame, *, average: bool = True, **identity: Any) -> list[dict[str, Any]]:
    """Rows of a record from a frame of `evaluate`, with the ``Average`` row, each marked with ``identity``.

    Arguments:
        frame: one row per task.
        average: add the unweighted mean over tasks.
        identity: what the rows are about: method, condition, group, seed, scaling, …
    """
    frame = with_average(frame) if average else frame
    return [{**identity, **{k: _native(v) for k, v in row.items()}} for row in frame.to_dict("records")]


def new(
    experiment: str,
    profile: str,
    parameters: Mapping[str, Any],
    suite: Suite | None,
    rows: Iterable[Mapping[str, Any]],
    seeds: Iterable[int],
    started: dt.datetime | str,
    seconds: float,
    *,
    environment: Mapping[str, Any] | None = None,
    methods: Mapping[str, Mapping[str, Any]] | None = None,
    measured: Iterable[str] = MEASURED,
) -> dict[str, Any]:
    """A record of one run.

    Arguments:
        experiment: its name, the file's stem.
        profile: ``mini``, ``tiny``, …
        parameters: plain values of the run.
        suite: its assets are recorded; None where the run used no checkpoints.
        rows: one mapping per measurement.
        seeds: all seeds used.
        started: time of the start; an aware or naive datetime, or ISO text.
        seconds: wall-clock time.
        environment: what it ran with, see `runtime.environment`; empty where nothing was run.
        methods: method id → what ``ABOUT_METHODS`` names, of every method in the rows; others are left out.
        measured: the fields of rows that hold measurements; every other one, but n, says which row it is.

    Raises:
        ValueError: for values that are not plain finite JSON, or that hold a path of this machine.
    """
    record = {
        "schema": SCHEMA,
        "experiment": experiment,
        "profile": profile,
        "parameters": dict(parameters),
        "seeds": [int(seed) for seed in seeds],
        "environment": dict(environment or {}),
        "assets": dict(suite.assets) if suite is not None else {},
        "started": started if isinstance(started, str) else started.isoformat(timespec="seconds"),
        "seconds": round(float(seconds), 1),
        "methods": {},
        "measured": list(measured),
        "rows": [{key: _native(value) for key, value in row.items()} for row in rows],
    }
    known = methods or {}
    for name in dict.fromkeys(row["method"] for row in record["rows"] if row.get("method") in known):
        record["methods"][name] = {key: _native(known[name][key]) for key in ABOUT_METHODS}
    check(record)
    return record


def check(record: Mapping[str, Any], where: str = "record") -> None:
    """Raise ValueError unless a record has this schema, plain finite values, and no path of a machine."""
    if not isinstance(record, Mapping) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, Mapping) else type(record).__name__
        mend = "`python -m adamerging_study.migrate FILE` lifts it" if found == 1 else "run the experiment again"
        raise ValueError(f"{where} has schema {found!r}, this version reads {SCHEMA}: {mend}")
    if difference := set(FIELDS) ^ record.keys():
        raise ValueError(f"{where} lacks or adds the fields {sorted(difference)}: run the experiment again")
    if not isinstance(record["rows"], list) or not all(isinstance(row, Mapping) for row in record["rows"]):
        raise ValueError(f"{where}: 'rows' must be a list of mappings")
    _check_values(record, where)


def write(record: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Check and write a record, all or nothing; one row per line, so that a diff shows what moved."""
    check(record, os.path.basename(path))
    head = {key: value for key, value in record.items() if key != "rows"}
    text = json.dumps(head, indent=1, ensure_ascii=False, allow_nan=False).removesuffix("\n}")
    lines = ",\n".join("  " + json.dumps(row, ensure_ascii=False, allow_nan=False) for row in record["rows"])
    with atomic(path) as temporary:
        temporary.write_text(f'{text},\n "rows": [\n{lines}\n ]\n}}\n', encoding="utf-8")


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a record.

    Raises:
        ValueError: naming the file, where it is missing, broken, or of another schema.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"no record at {path}: run the experiment that writes it") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): run the experiment again") from error
    check(record, str(path))
    return record


def frame(record: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of a record as a data frame, with ``label``, ``needs`` and ``gives`` of each row's method.

    ``gives`` is the kind of model that comes out, see `competitions`.
    """
    rows = pd.DataFrame(record["rows"])
    if "method" in rows:
        about = {
            name: {**known, "gives": gives(known["static"], known["task_specific"])}
            for name, known in record["methods"].items()
        }
        for field in ("label", "needs", "gives"):
            rows[field] = rows["method"].map({name: known[field] for name, known in about.items()})
    return rows


def compare(old: Mapping[str, Any], new: Mapping[str, Any], tolerance: float | Mapping[str, float] = 1.0) -> list[str]:
    """Differences between two records of one experiment, as sentences; an empty list where they agree.

    Environment, assets, start and duration may differ. Rows are matched by what they are about, not by their order.

    Arguments:
        old: the record to compare with.
        new: the record in question.
        tolerance: allowed absolute difference, of accuracy in points, or by field; fields not named are not compared.
    """
    tolerance = tolerance if isinstance(tolerance, Mapping) else {"accuracy": tolerance}
    differences = [
        f"{field}: {old[field]!r} before, {new[field]!r} now"
        for field in ("experiment", "profile", "parameters", "seeds")
        if old[field] != new[field]
    ]
    measured = {*old["measured"], *new["measured"], "n"}
    before = _by_identity(old["rows"], measured, "old", differences)
    now = _by_identity(new["rows"], measured, "new", differences)
    differences += [f"row is gone: {name}" for name in before if name not in now]
    differences += [f"row is new: {name}" for name in now if name not in before]
    for name in (name for name in before if name in now):
        a, b = before[name], now[name]
        if a.get("n") != b.get("n"):
            differences.append(f"{name}: n was {a.get('n')}, is {b.get('n')}")
        for field, allowed in tolerance.items():
            if (field in a) != (field in b):
                differences.append(f"{name}: {field} is in one record only")
            elif field in a and (a[field] is None) != (b[field] is None):
                differences.append(f"{name}: {field} was {a[field]}, is {b[field]}")
            elif a.get(field) is not None and abs(a[field] - b[field]) > allowed:
                differences.append(f"{name}: {field} was {a[field]:.4g}, is {b[field]:.4g}, allowed ±{allowed:g}")
    return differences


def _by_identity(
    rows: list[Mapping[str, Any]], measured: set[str], which: str, differences: list[str]
) -> dict[str, Mapping[str, Any]]:
    table: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        name = ", ".join(f"{k}={v}" for k, v in sorted(row.items()) if k not in measured)
        if name in table:
            differences.append(f"row twice in the {which} record: {name}")
        table[name] = row
    return table


def _native(value: Any) -> Any:
    """numpy scalars as plain Python."""
    return value.item() if hasattr(value, "item") else value


def _check_values(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{where}: key {key!r} is not text")
            if key != "right" or not isinstance(inner, str):  # packed outcomes: base64 begins with slashes now and then
                _check_values(inner, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            _check_values(inner, f"{where}[{index}]")
    elif isinstance(value, str):
        if _MACHINE_PATH.match(value):
            raise ValueError(f"{where} holds a path of this machine, {value!r}: record a name instead")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}: a record holds finite numbers; leave the field out or use None")
    elif not (value is None or isinstance(value, (bool, int))):
        raise ValueError(f"{where} is a {type(value).__name__}: a record holds plain JSON values")
