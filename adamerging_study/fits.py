"""Kept fits: learned coefficients of long runs, read where parameters and data agree, and tested by replay.

A fit of the paper's recipe takes minutes on a core, and what it finds is small: coefficients. They lie in
``results/PROFILE/fits/NAME.safetensors``: every step of the first 25, every 50th after them, and the last; with the
parameters of the fit and digests of all data that it saw. Of Model Tinting the tinted heads are kept too.
`measuring.fit` takes a kept fit in the place of a new one where both agree, and anyone who doubts it can replay it: the
first steps, computed anew, must lead along the kept path.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from adamerging_lib.coefficients import Coefficients
from adamerging_lib.merged import Fit
from adamerging_lib.methods import run_method
from adamerging_lib.methods.adamerging import METHOD_IDS
from adamerging_lib.methods.adamerging import RECIPES as ADAMERGING
from adamerging_lib.methods.tinting import RECIPES as TINTING
from adamerging_lib.runtime import places
from adamerging_lib.runtime.cache import fingerprint_suite
from adamerging_lib.state import load, load_metadata, save
from adamerging_lib.suite import Suite

FIRST, EVERY = 25, 50
LENGTH = {
    **dict.fromkeys(METHOD_IDS.values(), ("steps", ADAMERGING)),
    **dict.fromkeys(("tint", "tint_pp"), ("epochs", TINTING)),
}
"""Method whose fits are kept → what its steps are called, and the recipes that say how many."""
TOLERANCE = {"cpu": 0.01, "gpu": 0.1}
"""How far a replayed coefficient may lie from the kept one after `REPLAYED` steps, as a share of the learning rate (a
step of Adam moves it by about as much). Fits made on another processor with another version of torch moved none by more
than 3e-5 of it. Of those made on a GPU a few move by whole steps, see `replay`, the others by up to 0.02."""
REPLAYED = 5
HISTORY = ("loss", "kept", "agreement")
SCHEMA = 1


@dataclass(frozen=True)
class Kept:
    """One kept fit.

    Arguments:
        method: its id.
        hyper: all hyper-parameters, as in `Fit.hyper`.
        tasks, rows, granularity: of its coefficients.
        data: digests of checkpoints, heads and images, see `digests`.
        steps: which steps are kept, ascending, from 0 to the last.
        path: coefficients as used after each of them, ``[steps kept, K, R]``.
        about: what else is known of the run: seconds, device, versions.
        parts: what a method learned beside coefficients, see `_parts`.
    """

    method: str
    hyper: Mapping[str, Any]
    tasks: tuple[str, ...]
    rows: tuple[str, ...]
    granularity: str
    data: Mapping[str, str]
    steps: tuple[int, ...]
    path: Tensor
    about: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """A fit that an experiment reads where it is kept.

    Arguments:
        name: of its file, unique in its experiment.
        method: its id.
        options: keyword arguments of the method.
        part: the suite of a profile → the one that it is made on.
    """

    name: str
    method: str
    options: Mapping[str, Any]
    part: Callable[[Suite], Suite]


def learned(methods: Iterable[str]) -> list[str]:
    """Those of some methods whose fits are kept: the forms of AdaMerging and of Tinting."""
    return [method for method in methods if method in LENGTH]


def folder(profile: str) -> Path:
    """Where a profile's fits are kept."""
    return places.committed() / profile / "fits"


def digests(suite: Suite) -> dict[str, str]:
    """Digests of everything of a suite that a fit depends on, except the names of the encoder's classes."""
    return {name: digest for name, digest in fingerprint_suite(suite).items() if name != "encoder"}


def shorten(fit: Fit, suite: Suite, about: Mapping[str, Any] | None = None) -> Kept:
    """What is kept of a whole fit on a suite."""
    last = len(fit.trajectory) - 1
    steps = sorted({*range(min(FIRST, last) + 1), *range(0, last, EVERY), last})
    table = fit.coefficients
    return Kept(
        fit.method, dict(fit.hyper), fit.tasks, tuple(table.rows), table.granularity, digests(suite), tuple(steps),
        fit.trajectory[steps].clone(), dict(about or {}), _parts(fit),
    )  # fmt: skip


def write(kept: Kept, path: Path) -> None:
    """Write a kept fit, all or nothing."""
    told = {
        "schema": SCHEMA, "method": kept.method, "hyper": dict(kept.hyper), "tasks": kept.tasks, "rows": kept.rows,
        "granularity": kept.granularity, "data": dict(kept.data), "steps": kept.steps, "about": dict(kept.about),
    }  # fmt: skip
    save(path, {"path": kept.path, **kept.parts}, {"kept fit": json.dumps(told, sort_keys=True)})


def read(path: Path) -> Kept:
    """A kept fit.

    Raises:
        ValueError: naming the file, where it is none, or of another schema.
    """
    told = json.loads(load_metadata(path).get("kept fit", "{}"))
    if told.pop("schema", None) != SCHEMA:
        raise ValueError(f"{path} holds no kept fit of schema {SCHEMA}: take it out, or fit it anew")
    parts = load(path)
    tensor = parts.pop("path")
    for name in ("tasks", "rows", "steps"):
        told[name] = tuple(told[name])
    if tensor.shape != (len(told["steps"]), len(told["tasks"]), len(told["rows"])):
        raise ValueError(f"{path}: coefficients have shape {tuple(tensor.shape)}, unlike its steps, tasks and rows")
    return Kept(**told, path=tensor, parts=parts)


def resolved(suite: Suite, method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All hyper-parameters of a fit, as `Fit.hyper` has them, without making it.

    Arguments:
        suite: of the fit.
        method: one of those in ``LENGTH``.
        options: its keyword arguments.
    """
    name, recipes = LENGTH[method]
    total = options.get(name)
    total = recipes[options.get("recipe", "paper")][name] if total is None else total
    return {**_unmoved(suite, method, options).hyper, name: total}


def find(suite: Suite, method: str, options: Mapping[str, Any]) -> Kept | None:
    """The kept fit of a method on a suite with these options; None where no file agrees in parameters and data.

    Arguments:
        suite: whose profile names the folder.
        method: its id.
        options: its keyword arguments.
    """
    paths = sorted(folder(suite.profile).glob("*.safetensors")) if method in LENGTH else []
    about = (method, options.get("seed", 0))
    known = [kept for path in paths if ((kept := read(path)).method, kept.hyper["seed"]) == about]
    if not known:
        return None
    hyper = json.loads(json.dumps(resolved(suite, method, options)))
    known = [kept for kept in known if kept.hyper == hyper and set(kept.tasks) == set(suite.tasks)]
    if not known:
        return None
    data = digests(suite)
    return next((kept for kept in known if kept.data == data), None)


def model(kept: Kept, suite: Suite) -> Fit:
    """The fit that was kept: merged weights, coefficients, and a trajectory that is NaN at steps not kept.

    Arguments:
        kept: of this suite, see `find`.
        suite: whose checkpoints are merged.
    """
    unmoved = _end(kept, suite)
    path = torch.full((kept.steps[-1] + 1, *kept.path.shape[1:]), torch.nan)
    path[list(kept.steps)] = kept.path
    seconds = core_seconds(kept)
    return replace(unmoved, hyper=dict(kept.hyper), trajectory=path, seconds=seconds)


def replay(kept: Kept, suite: Suite, steps: int = REPLAYED) -> float:
    """How far a kept path and its first steps computed anew lie apart at most.

    Of a fit made on a GPU one coefficient in a hundred does not count: where a gradient is nearly zero its sign is
    chance, and Adam's first steps follow the sign alone.

    Arguments:
        kept: of this suite.
        suite: its data.
        steps: how many, at most 25 and as many as were made.
    """
    steps = min(steps, FIRST, kept.steps[-1])
    name, _ = LENGTH[kept.method]
    again = run_method(kept.method, suite, cache=False, **{**_options(kept), name: steps}, progress=False)
    apart = (again.trajectory - kept.path[: steps + 1]).abs().flatten(1)
    return float(apart.quantile(1.0 if _made_on(kept) == "cpu" else 0.99, dim=1).max())


def core_seconds(kept: Kept) -> float | None:
    """Seconds of one core that a fit took; None where it was made on a GPU."""
    return kept.about.get("cpu_seconds", kept.about.get("seconds")) if _made_on(kept) == "cpu" else None


def tolerance(kept: Kept) -> float:
    """How far the first steps of a fit, computed anew, may lie from the kept path."""
    return TOLERANCE["cpu" if _made_on(kept) == "cpu" else "gpu"] * kept.hyper["lr"]


def _made_on(kept: Kept) -> str:
    return kept.about.get("environment", kept.about).get("device", "cpu")


def _parts(fit: Fit) -> dict[str, Tensor]:
    """Tinted heads and biases by task; means over each epoch of loss, kept share and agreement ``[epochs, 3]``."""
    parts = {f"head {task}": weight for task, weight in (fit.heads or {}).items()}
    parts |= {f"bias {task}": bias for task, bias in (fit.biases or {}).items()}
    if fit.history is not None and "epoch" in fit.history:
        epochs = fit.history.groupby("epoch")[list(HISTORY)].mean()
        parts["history"] = torch.tensor(epochs.to_numpy(), dtype=torch.float64)
    return parts


def _end(kept: Kept, suite: Suite) -> Fit:
    """The model at the last step, without its trajectory."""
    if "history" not in kept.parts:
        return replace(_unmoved(suite, kept.method, {**_options(kept), "init": kept.path[-1]}), history=None)
    tv, last = suite.task_vectors(), kept.path[-1]
    own = {
        name: {task: kept.parts[f"{name} {task}"] for task in kept.tasks if f"{name} {task}" in kept.parts}
        for name in ("head", "bias")
    }
    history = pd.DataFrame(kept.parts["history"].numpy(), columns=list(HISTORY)).rename_axis("epoch").reset_index()
    return Fit(
        state=tv.merge(last, "tensor"), method=kept.method, hyper={}, tasks=kept.tasks,
        coefficients=Coefficients(last, kept.tasks, kept.rows, "tensor"), heads=own["head"] or None,
        biases=own["bias"] or None, history=history,
    )  # fmt: skip


def _options(kept: Kept) -> dict[str, Any]:
    """The keyword arguments that make a fit again, read off its hyper-parameters."""
    return {name: value for name, value in kept.hyper.items() if name not in ("granularity", "vectors", "filter")}


def _unmoved(suite: Suite, method: str, options: Mapping[str, Any]) -> Fit:
    """The method before its first step: its hyper-parameters, and the merge of where it starts."""
    given = {name: value for name, value in options.items() if name not in ("progress", "device")}
    name, _ = LENGTH[method]
    return run_method(method, suite, cache=False, **{**given, name: 0}, progress=False)
