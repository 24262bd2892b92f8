"""Merge checkpoint files into checkpoint files, with memory for about a tensor of every model where possible."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from os.path import realpath
from typing import Any

import pandas as pd
from tqdm import tqdm

from ..doctor.angles import look
from ..doctor.findings import NOTE
from ..methods.registry import recalibrate
from ..runtime.cost import measured
from ..runtime.values import is_number
from ..task_vectors import TaskVectors
from ..vectors.geometry import Geometry, compare
from .align import Options
from .by_tensor import Part, merge_by_tensor, survey
from .checkpoint import writing
from .lazy import Found, Kept, examine, lazy_task_vectors
from .plan import PathLike, Plan, plan_merge


@dataclass(frozen=True)
class Report:
    """What was merged.

    Arguments:
        plan: what was to be done.
        experts: one row per expert, see `geometry.compare`.
        buffers: names of tensors that are not weights, copied from θ0 although an expert has other values.
        masks: names of the tensors copied because all models hold the same numbers there that are not finite.
        tied: name → name of the tensor that it equals in every model; merged once, and written under both.
        statistics: names of the running statistics, which are averaged and must be recalibrated.
        warnings: what looks wrong with the inputs, as sentences.
        seconds: time that it took.
        memory: bytes at the peak beyond what was there before; None where the system does not tell.
    """

    plan: Plan
    experts: pd.DataFrame
    buffers: tuple[str, ...]
    masks: tuple[str, ...]
    tied: Mapping[str, str]
    statistics: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: float
    memory: int | None


def execute_merge(plan: Plan, *, progress: bool = True) -> Report:
    """Do what a plan says: read and check every number, merge, write all outputs or none.

    Arguments:
        plan: of `plan_merge`.
        progress: show progress bars on stderr, where that is a terminal.

    Returns:
        What was merged.

    Raises:
        ValueError: two experts of the same content, or a number that is not finite, in an input or in the result.
    """
    bar = partial(tqdm, leave=False, disable=None if progress else True)

    def work() -> tuple[Found, Geometry]:
        with bar(desc="Checking", total=len(plan.merged)) as seen:
            found, lies = examine(plan.pretrained, plan.experts, seen.update)
        digests = {task: file.digests() for task, file in bar(plan.experts.items(), "Checksums")}
        refuse_twins(digests)
        _refuse_equal(lies)
        hyper, kept = dict(plan.hyper), Kept()
        with bar(desc="Surveying") as seen:
            known = survey(plan.method, _vectors(plan, found, kept, seen.update), hyper)
        parts = merge_by_tensor(plan.method, _vectors(plan, found, kept), known, hyper)
        total = len(plan.outputs) * len(plan.pretrained)
        _write(plan, _metadata(plan, digests), bar(parts, "Merging", total))
        return found, lies

    (found, lies), seconds, memory = measured(work)
    masks, warnings = tuple(sorted(found.masks)), _warnings(plan, lies)
    return Report(plan, compare(lies), found.changed, masks, found.tied, plan.statistics, warnings, seconds, memory)


def _vectors(plan: Plan, found: Found, kept: Kept, on_read: Callable[[], object] = lambda: None) -> TaskVectors:
    return lazy_task_vectors(plan.pretrained, plan.experts, on_read, found, kept)


def refuse_twins(digests: Mapping[str, Mapping[str, str]]) -> None:
    """Raise ValueError where two experts are the same files under other names."""
    seen: dict[tuple[str, ...], str] = {}
    for task, files in digests.items():
        if (first := seen.setdefault(tuple(files.values()), task)) != task:
            raise ValueError(f"experts {first!r} and {task!r} have the same content: give each model once")


def _refuse_equal(lies: Geometry) -> None:
    if twins := [finding.experts for finding in look(lies) if finding.code == "same"]:
        raise ValueError(f"experts {twins[0][0]!r} and {twins[0][1]!r} have the same content: give each model once")


def _warnings(plan: Plan, lies: Geometry) -> tuple[str, ...]:
    """What `adamerging check` says too, except what needs its own pass."""
    warnings = [*plan.warnings, *(str(finding) for finding in look(lies) if finding.level != NOTE)]
    if plan.statistics and plan.method.id != "zero_shot":
        warnings.append(recalibrate(plan.statistics))
    return tuple(warnings)


def _metadata(plan: Plan, digests: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    from .. import __version__

    return {
        "format": "pt",  # without it transformers does not load the file
        "library": f"adamerging_lib {__version__}",
        "method": plan.method.id,
        "hyper": json.dumps(dict(plan.hyper), default=str),
        "pretrained": json.dumps(plan.pretrained.digests()),
        "experts": json.dumps(digests),
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def _write(plan: Plan, metadata: dict[str, str], parts: Iterable[Part]) -> None:
    with ExitStack() as files:
        put = {
            # A link is written through, as a shell does: who made it meant the file to lie where it leads.
            task: files.enter_context(
                writing(realpath(path), plan.pretrained, metadata | ({"task": task} if task else {}))
            )
            for task, path in plan.outputs.items()
        }
        for key, task, tensor in parts:
            put[task](key, tensor)


def merge_files(
    method: str,
    pretrained: PathLike,
    experts: Mapping[str, PathLike],
    out: PathLike,
    *,
    drop: Iterable[str] | float = (),
    strip: Iterable[str] = (),
    cast: bool = False,
    force: bool = False,
    progress: bool = True,
    **hyper: Any,
) -> Report:
    """Merge checkpoint files tensor by tensor, as the command ``adamerging merge`` does.

    It checks everything by `plan_merge` first, and then writes by `execute_merge`.

    Arguments:
        method, pretrained, experts, out, force: as in `plan_merge`.
        drop: patterns of names to leave out of all models and of the result, such as ``classifier.*``; a number is
            the hyper-parameter of that name, which `dare` has.
        strip: prefixes to remove from names where most names have them, such as ``model.``.
        cast: cast the experts' floats to θ0's types.
        progress: show progress bars on stderr, where that is a terminal.
        hyper: the method's keyword arguments.

    Returns:
        What was merged.

    Raises:
        ValueError: names what does not fit or cannot be merged, and what to do.

    Example:
        >>> experts = {"cars": "cars.safetensors", "pets": "pets.safetensors"}
        >>> report = am.merge_files("ties", "base.safetensors", experts, "merged.safetensors", progress=False)
        >>> sorted(am.state.load("merged.safetensors")) == sorted(am.state.load("base.safetensors"))
        True
    """
    if is_number(drop):
        hyper, drop = {**hyper, "drop": drop}, ()
    options = Options.of(drop, strip, cast)
    plan = plan_merge(method, pretrained, experts, out, force=force, options=options, **hyper)
    return execute_merge(plan, progress=progress)
