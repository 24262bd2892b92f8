"""Kept fits: learned coefficients of long runs, read where parameters and data agree, and tested by replay.

A fit of the paper's recipe takes minutes on a core, and what it finds is small: coefficients. They lie in
``results/PROFILE/fits/NAME.safetensors``: every step of the first 25, every 25th after them, and the last; with the
parameters of the fit and digests of all data that it saw. `measuring.fit` takes a kept fit in the place of a new one
where both agree, and whoever doubts it replays it: the first steps, computed anew, must lead along the kept path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adamerging_lib.merged import Fit
from adamerging_lib.methods import run_method
from adamerging_lib.methods.adamerging import METHOD_IDS, RECIPES
from adamerging_lib.runtime import places
from adamerging_lib.runtime.cache import fingerprint_suite
from adamerging_lib.state import load, load_metadata, save
from adamerging_lib.suite import Suite

FIRST, EVERY = 25, 25
TOLERANCE = 1e-5
"""How far a replayed coefficient may lie from the kept one after `REPLAYED` steps. One published step moves it by 1e-3;
on the machine that made the first fits, two threads instead of one moved none by more than 1e-7."""
REPLAYED = 5
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


def folder(profile: str) -> Path:
    """Where a profile's fits are kept."""
    return places.committed() / profile / "fits"


def digests(suite: Suite) -> dict[str, str]:
    """Digests of everything of a suite that a fit depends on, but for the names of the encoder's classes."""
    return {name: digest for name, digest in fingerprint_suite(suite).items() if name != "encoder"}


def shorten(fit: Fit, suite: Suite, about: Mapping[str, Any] | None = None) -> Kept:
    """What is kept of a whole fit on a suite."""
    last = len(fit.trajectory) - 1
    steps = sorted({*range(min(FIRST, last) + 1), *range(0, last, EVERY), last})
    table = fit.coefficients
    return Kept(
        fit.method, dict(fit.hyper), fit.tasks, tuple(table.rows), table.granularity, digests(suite), tuple(steps),
        fit.trajectory[steps].clone(), dict(about or {}),
    )  # fmt: skip


def write(kept: Kept, path: Path) -> None:
    """Write a kept fit, all or nothing."""
    told = {
        "schema": SCHEMA, "method": kept.method, "hyper": dict(kept.hyper), "tasks": kept.tasks, "rows": kept.rows,
        "granularity": kept.granularity, "data": dict(kept.data), "steps": kept.steps, "about": dict(kept.about),
    }  # fmt: skip
    save(path, {"path": kept.path}, {"kept fit": json.dumps(told, sort_keys=True)})


def read(path: Path) -> Kept:
    """A kept fit.

    Raises:
        ValueError: naming the file, where it is none, or of another schema.
    """
    told = json.loads(load_metadata(path).get("kept fit", "{}"))
    if told.pop("schema", None) != SCHEMA:
        raise ValueError(f"{path} holds no kept fit of schema {SCHEMA}: take it out, or fit it anew")
    tensor = load(path)["path"]
    for name in ("tasks", "rows", "steps"):
        told[name] = tuple(told[name])
    if tensor.shape != (len(told["steps"]), len(told["tasks"]), len(told["rows"])):
        raise ValueError(f"{path}: coefficients have shape {tuple(tensor.shape)}, unlike its steps, tasks and rows")
    return Kept(**told, path=tensor)


def resolved(suite: Suite, method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All hyper-parameters of a fit, as `Fit.hyper` has them, without making it.

    Arguments:
        suite: of the fit.
        method: one of the four forms of AdaMerging.
        options: its keyword arguments.
    """
    steps = options.get("steps")
    steps = RECIPES[options.get("recipe", "paper")]["steps"] if steps is None else steps
    return {**_unmoved(suite, method, options).hyper, "steps": steps}


def find(suite: Suite, method: str, options: Mapping[str, Any]) -> Kept | None:
    """The kept fit of a method on a suite with these options; None where no file agrees in parameters and data.

    Arguments:
        suite: whose profile names the folder.
        method: its id.
        options: its keyword arguments.
    """
    paths = sorted(folder(suite.profile).glob("*.safetensors")) if method in METHOD_IDS.values() else []
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
    unmoved = _unmoved(suite, kept.method, {**_options(kept), "init": kept.path[-1]})
    path = torch.full((kept.steps[-1] + 1, *kept.path.shape[1:]), torch.nan)
    path[list(kept.steps)] = kept.path
    seconds = kept.about.get("seconds")
    return replace(unmoved, hyper=dict(kept.hyper), trajectory=path, history=None, seconds=seconds)


def replay(kept: Kept, suite: Suite, steps: int = REPLAYED) -> float:
    """The largest difference between a kept path and its first steps computed anew.

    Arguments:
        kept: of this suite.
        suite: its data.
        steps: how many, at most 25 and as many as were made.
    """
    steps = min(steps, FIRST, kept.steps[-1])
    again = run_method(kept.method, suite, cache=False, **{**_options(kept), "steps": steps}, progress=False)
    return float((again.trajectory - kept.path[: steps + 1]).abs().max())


def _options(kept: Kept) -> dict[str, Any]:
    """The keyword arguments that make a fit again, read off its hyper-parameters."""
    return {name: value for name, value in kept.hyper.items() if name not in ("granularity", "vectors")}


def _unmoved(suite: Suite, method: str, options: Mapping[str, Any]) -> Fit:
    """The method before its first step: its hyper-parameters, and the merge of where it starts."""
    given = {name: value for name, value in options.items() if name not in ("progress", "device")}
    return run_method(method, suite, cache=False, **{**given, "steps": 0}, progress=False)
