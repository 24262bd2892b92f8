"""Kept outcomes: what a model that was learned gives on the test images, beside the first losses of its path.

`fits` keeps coefficients, as long as they are few. One whose every weight was learned, or of a grid of hundreds,
is kept by its outcome: ``results/PROFILE/traces/EXPERIMENT/NAME.json`` holds the parameters, digests of all data, the
losses of the first 25 steps, and the rows of the evaluation. A run takes it in the place of a new fit where parameters
and data agree. In case of doubt, compute the first steps again, whose losses must be the kept ones, or all of it:

    python -m adamerging_study.traces make mini           # what is missing; stop it at any time, run it again
    python -m adamerging_study.traces check mini          # the first steps of each
    python -m adamerging_study.traces again mini gain tsv_m-tensor-imitation-32-0    # one, whole, compared
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from tqdm import tqdm

from adamerging_lib import load_suite
from adamerging_lib.command.line import call
from adamerging_lib.runtime import places
from adamerging_lib.runtime.atomic import atomic
from adamerging_lib.runtime.environment import environment
from adamerging_lib.suite import Suite

from .rooms import part, rooms

PROGRAM = "python -m adamerging_study.traces"
FIRST, REPLAYED = 25, 5
TOLERANCE = 1e-3
"""Nats by which a loss of the first steps, computed anew, may differ from the kept one. Of six cells, two threads
instead of one moved none by more than 2e-6 (the kept digits are 1e-6 apart); a learning rate a tenth higher moved each
by 1.6e-2 or more."""
SCHEMA = 1

Losses = np.ndarray
"""Of each task before each step, nats, ``[steps, K]``."""
Learn = Callable[[Suite, Mapping[str, Any], int | None], tuple[Losses, list[dict[str, Any]] | None]]
"""(suite, parameters of a cell, how many steps or None for all) → losses, and the rows of a whole run."""


@dataclass(frozen=True)
class Trace:
    """The outcome of one model that was learned.

    Arguments:
        about: all its parameters.
        data: digests of checkpoints, heads and images.
        losses: of the first steps, task by task, nats.
        rows: of a record, without what tells cells apart.
        made: seconds of the processor, and where.
    """

    about: Mapping[str, Any]
    data: Mapping[str, str]
    losses: list[list[float]]
    rows: list[dict[str, Any]]
    made: Mapping[str, Any] = field(default_factory=dict)


def folder(profile: str, experiment: str) -> Path:
    """Where an experiment's outcomes are kept."""
    return places.committed() / profile / "traces" / experiment


def read(path: Path) -> Trace:
    """A kept outcome.

    Raises:
        ValueError: naming the file, where it is of another schema.
    """
    told = json.loads(path.read_text(encoding="utf-8"))
    if told.pop("schema", None) != SCHEMA:
        raise ValueError(f"{path} holds no kept outcome of schema {SCHEMA}: take it out, and `{PROGRAM} make` again")
    return Trace(**told)


def write(trace: Trace, path: Path) -> None:
    """Write a kept outcome, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        text = json.dumps({"schema": SCHEMA, **vars(trace)}, sort_keys=True)
        temporary.write_text(text + "\n", encoding="utf-8")


def find(profile: str, experiment: str, name: str, about: Mapping[str, Any], data: Mapping[str, str]) -> Trace | None:
    """The kept outcome of this name, where its parameters and data are these; else None."""
    path = folder(profile, experiment) / f"{name}.json"
    if not path.is_file():
        return None
    kept = read(path)
    return kept if (kept.about, kept.data) == (json.loads(json.dumps(about)), dict(data)) else None


def make(learn: Learn, suite: Suite, about: Mapping[str, Any], data: Mapping[str, str]) -> Trace:
    """Learn one model, whole."""
    begun = time.process_time()
    losses, rows = learn(suite, about, None)
    made = {"cpu_seconds": round(time.process_time() - begun, 1), "environment": environment(torch.device("cpu"))}
    return Trace(dict(about), dict(data), np.round(losses[:FIRST], 6).tolist(), rows, made)


def apart(kept: Trace, learn: Learn, suite: Suite, steps: int = REPLAYED) -> float:
    """How far the losses of the first steps, computed anew, lie from the kept ones at most, nats."""
    steps = min(steps, len(kept.losses))
    losses, _ = learn(suite, kept.about, steps)
    return float(np.abs(losses[:steps] - np.asarray(kept.losses[:steps])).max())


def keeping() -> list[str]:
    """The experiments that keep outcomes: their ``measure`` has cells to learn."""
    return [room for room in rooms() if hasattr(part(room, "measure"), "cells")]


def cells(profile: str, experiment: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, parameters) of all that an experiment keeps on a profile."""
    from .refit import parameters  # it reads the notebook, which needs nbformat

    yield from part(experiment, "measure").cells(**parameters(profile, experiment))


World = Annotated[str, typer.Argument(help="a profile, such as mini")]
Experiment = Annotated[str, typer.Argument(help="its name")]
Some = Annotated[str | None, typer.Argument(help="only the outcomes of this experiment")]
app = typer.Typer(add_completion=False, help="Kept outcomes of models that were learned: make, check, repeat them.")


@app.command("make")
def _make(
    profile: World,
    experiment: Some = None,
    only: Annotated[str, typer.Option(help="a regular expression that the name must match, such as '-0$'")] = "",
    threads: int = 1,
) -> None:
    """Learn what is missing, one after another; stop it at any time, and run it again to go on."""
    torch.set_num_threads(threads)
    suite = load_suite(profile)
    for name in [experiment] if experiment else keeping():
        room = part(name, "measure")
        data, wanted = room.digests(suite), [cell for cell in cells(profile, name) if re.search(only, cell[0])]
        for cell, about in (bar := tqdm(wanted, desc=name, unit="model", file=sys.stderr)):
            bar.set_postfix_str(cell)
            if find(profile, name, cell, about, data) is None:
                write(make(room.learn, suite, about, data), folder(profile, name) / f"{cell}.json")


@app.command("check")
def _check(profile: World, experiment: Some = None, threads: int = 1) -> int:
    """Compute the first steps of each anew; 1 where one has other losses."""
    torch.set_num_threads(threads)
    suite, failed = load_suite(profile), []
    for name in [experiment] if experiment else keeping():
        room, paths = part(name, "measure"), sorted(folder(profile, name).glob("*.json"))
        for path in tqdm(paths, desc=name, unit="model", file=sys.stderr):
            if not (distance := apart(read(path), room.learn, suite)) <= TOLERANCE:
                failed.append(f"{path.name}: losses are {distance:.1e} nats away, above {TOLERANCE:.0e}")
    print(*failed or ["all lead along their path"], sep="\n")
    return 1 if failed else 0


@app.command("again")
def _again(profile: World, experiment: Experiment, name: str, threads: int = 1) -> None:
    """Learn one model whole, and print its averages beside the kept ones."""
    torch.set_num_threads(threads)
    suite, room = load_suite(profile), part(experiment, "measure")
    kept = read(folder(profile, experiment) / f"{name}.json")
    new = make(room.learn, suite, kept.about, kept.data)
    for which, trace in (("kept", kept), ("anew", new)):
        print(which, f"{trace.rows[-1]['accuracy']:.2f} percent, {trace.made['cpu_seconds']} seconds of one core")


if __name__ == "__main__":
    sys.exit(call(app, PROGRAM))
