"""Kept evaluations: what a model gives on all images, read where a twentieth of them, evaluated anew, gives the same.

An experiment makes hundreds of models, and most of its time goes into running each on 8,000 images. So a run keeps,
beside its record, what each model gave on all images, and on every twentieth, its *probe*:
``results/PROFILE/evaluations/EXPERIMENT.json``. A later run makes every model anew and evaluates it on its probe. Where
method, hyper-parameters and images are those of a kept evaluation, and mean entropy and loss of each task agree to
`TOLERANCE`, the rest is read; everywhere else all images are evaluated.

``ADAMERGING_EVALUATE=all`` evaluates all images of every model. ``ADAMERGING_EVALUATE=some:TEXT`` does so for one model
in twenty, which ones depends on the text, and fails where what is kept differs: the tests set it to the commit.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from adamerging_lib.evaluation import measured, measured_on, predictions
from adamerging_lib.merged import Merged
from adamerging_lib.runtime import fingerprints, places
from adamerging_lib.runtime.atomic import atomic
from adamerging_lib.state import fingerprint
from adamerging_lib.suite import Suite, split_indices

from . import outcomes

EVERY = 20
"""One image in so many is evaluated anew."""
TOLERANCE = 2e-4
"""Nats by which mean entropy and loss of a task's probe may differ. On the drawn world other sizes of batches move them
by 1e-7; one task's coefficient in Task Arithmetic, moved by 0.0003, by 5e-4 or more."""
ALLOWED = {"accuracy": 0.3, "share": 0.3, "calibration": 0.3, "entropy": 1e-3, "loss": 1e-3, "n": 0}
"""How far a kept column and the same computed anew may differ, for the few images on the border of two classes."""
WHICH = "ADAMERGING_EVALUATE"
SCHEMA = 1

Measure = Callable[[Tensor, Tensor], Mapping[str, Any]]
"""(logits ``[n, classes]``, labels ``[n]``) of a task → columns of its row."""


@dataclass(frozen=True)
class Entry:
    """What a model gave.

    Arguments:
        about: method, hyper-parameters, images, split, and what was measured.
        rows: one per task, outcomes packed.
        probe: task → mean entropy and loss on the probe, nats.
    """

    about: Mapping[str, Any]
    rows: list[dict[str, Any]]
    probe: Mapping[str, list[float]]

    def distance(self, probe: Mapping[str, list[float]]) -> float:
        """How far two probes of the same tasks lie apart at most, nats."""
        if self.probe.keys() != probe.keys():
            return float("inf")
        return max(float(np.abs(np.subtract(self.probe[task], probe[task])).max()) for task in probe)


@dataclass(frozen=True)
class Evaluations:
    """Those of one run: what was kept before, and what this run has used.

    Arguments:
        known: kept ones.
        used: filled by `evaluate`, each entry once.
    """

    known: list[Entry] = field(default_factory=list)
    used: list[Entry] = field(default_factory=list)

    def find(self, about: Mapping[str, Any], probe: Mapping[str, list[float]]) -> Entry | None:
        """The kept evaluation of this model: the nearest of those within the tolerance."""
        same = [entry for entry in (*self.used, *self.known) if entry.about == about]
        nearest = min(same, key=lambda entry: entry.distance(probe), default=None)
        return nearest if nearest is not None and nearest.distance(probe) <= TOLERANCE else None


_CURRENT: ContextVar[Evaluations | None] = ContextVar("evaluations", default=None)


def place(profile: str, experiment: str) -> Path:
    """Where a run's evaluations lie, below `places.committed` and `places.results`."""
    return Path(profile, "evaluations", f"{experiment}.json")


def begin(profile: str, experiment: str) -> Evaluations:
    """The evaluations of a run that begins: those kept of its experiment, or none where all images are asked for.

    Raises:
        ValueError: for an unknown value of ``ADAMERGING_EVALUATE``, or a kept file of another schema.
    """
    which = os.environ.get(WHICH, "")
    if which and which != "all" and not which.startswith("some:"):
        raise ValueError(f"{WHICH}={which} is neither 'all' nor 'some:' and a text: choose one, or leave it out")
    if which == "all":
        return Evaluations()
    return Evaluations(read(places.committed() / place(profile, experiment)))


@contextmanager
def using(evaluations: Evaluations) -> Iterator[None]:
    """Within the block `evaluate` reads from these evaluations, and adds to them."""
    token = _CURRENT.set(evaluations)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def evaluate(
    suite: Suite, merged: Merged, *, setting: str | None = None, device: str = "cpu", measure: Measure = measured
) -> pd.DataFrame:
    """As `adamerging_lib.evaluate` with outcomes, from a kept evaluation where its probe agrees.

    Arguments:
        suite, merged, setting, device: as there.
        measure: what else than accuracy, entropy, loss and calibration is measured of a task's predictions.

    Returns:
        One row per task: task, the columns of ``measure``, setting, split, and ``right``, bool ``[n]``.

    Raises:
        ValueError: where a kept evaluation that is evaluated anew differs.
    """
    setting, split = measured_on(merged, setting)
    where = {"setting": setting, "split": split}
    now = _CURRENT.get()
    if now is None:
        return _frame(_rows(suite, merged, measure, split, device), **where)
    about = {**_about(suite, merged), "split": split, "measure": measure.__name__}
    probe = {
        task: [found["entropy"], found["loss"]]
        for task, scores, labels in predictions(_few(suite, split), merged, device=device)
        for found in [measured(scores, labels)]
    }
    entry = now.find(about, probe)
    if entry is not None and _doubted(entry):
        _check(entry, _rows(suite, merged, measure, split, device))
    if entry is None:
        entry = Entry(about, _rows(suite, merged, measure, split, device), probe)
    if entry not in now.used:
        now.used.append(entry)
    return _frame(entry.rows, **where)


def read(path: Path) -> list[Entry]:
    """Kept evaluations; none where there is no file.

    Raises:
        ValueError: naming the file, where it is of another schema.
    """
    if not path.is_file():
        return []
    told = json.loads(path.read_text(encoding="utf-8"))
    if told.get("schema") != SCHEMA:
        raise ValueError(f"{path} holds no kept evaluations of schema {SCHEMA}: take it out; `make accept` writes it")
    return [Entry(**entry) for entry in told["entries"]]


def write(entries: list[Entry], path: Path) -> None:
    """Write evaluations, all or nothing, one per line."""
    lines = [json.dumps(vars(entry), sort_keys=True) for entry in entries]
    with atomic(path) as temporary:
        temporary.write_text(f'{{"schema": {SCHEMA}, "entries": [\n' + ",\n".join(lines) + "\n]}\n", encoding="utf-8")


def _about(suite: Suite, merged: Merged) -> dict[str, Any]:
    heads = {**suite.heads, **(merged.heads or {})}
    images = {
        task: fingerprints.fingerprint({"images": data.images, "labels": data.labels})
        for task, data in suite.test.items()
    }
    data = {"heads": fingerprint({task: heads[task] for task in suite.test}), **images}
    return json.loads(json.dumps({"method": merged.method, "hyper": dict(merged.hyper), "data": data}))


def _rows(suite: Suite, merged: Merged, measure: Measure, split: str, device: str) -> list[dict[str, Any]]:
    return [
        {"task": task, **measure(scores, labels), outcomes.FIELD: outcomes.pack((scores.argmax(-1) == labels).numpy())}
        for task, scores, labels in predictions(suite, merged, split=split, device=device)
    ]


def _doubted(entry: Entry) -> bool:
    """Whether it is among those evaluated anew although they are kept."""
    which, colon, text = os.environ.get(WHICH, "").partition(":")
    if which != "some" or not colon:
        return False
    told = json.dumps([text, entry.about, entry.probe], sort_keys=True)
    return int(hashlib.sha256(told.encode()).hexdigest(), 16) % EVERY == 0


def _check(entry: Entry, rows: list[dict[str, Any]]) -> None:
    for kept, new in zip(entry.rows, rows, strict=True):
        for name, allowed in ALLOWED.items():
            if name in new and not abs(kept[name] - new[name]) <= allowed:
                raise ValueError(
                    f"the kept evaluation of {entry.about['method']} has {name} {kept[name]:.4f} on {new['task']!r}, "
                    f"evaluated anew {new[name]:.4f}: run with {WHICH}=all, then `make accept`"
                )


def _frame(rows: list[dict[str, Any]], **where: str) -> pd.DataFrame:
    frame = pd.DataFrame(rows).drop(columns=outcomes.FIELD).assign(**where)
    frame[outcomes.FIELD] = [outcomes.unpack(row[outcomes.FIELD], row["n"]) for row in rows]
    return frame


def _few(suite: Suite, split: str) -> Suite:
    """Every twentieth of the images that are evaluated."""
    few = {}
    for task, data in suite.test.items():
        index = torch.arange(len(data)) if split == "all" else split_indices(len(data))[1]
        few[task] = replace(data, images=data.images[index[::EVERY]], labels=data.labels[index[::EVERY]])
    return replace(suite, test=few)
