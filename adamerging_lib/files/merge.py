"""Merge checkpoint files into checkpoint files, with memory for about a tensor of every model where possible."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from ..runtime.cost import measured
from ..state import is_finite, is_merged
from ..vectors.geometry import compare
from .by_tensor import Part, merge_by_tensor, survey
from .checkpoint import writing
from .lazy import lazy_task_vectors
from .plan import PathLike, Plan, plan_merge


@dataclass(frozen=True)
class Report:
    """What was merged.

    Arguments:
        plan: what was to be done.
        experts: one row per expert, see `geometry.compare`.
        buffers: names of the integer and bool tensors copied from θ0 although an expert has other values.
        warnings: what looks wrong with the inputs, as sentences.
        seconds: time that it took.
        memory: bytes at the peak beyond what was there before; None where the system does not tell.
    """

    plan: Plan
    experts: pd.DataFrame
    buffers: tuple[str, ...]
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

    def work() -> tuple[pd.DataFrame, tuple[str, ...]]:
        parts = _merged(plan, bar)
        first = next(parts)  # what the method refuses, it refuses here, before gigabytes are read
        digests = {task: file.digests() for task, file in bar(plan.experts.items(), "Checksums")}
        _refuse_twins(digests)
        with bar(desc="Comparing", total=len(plan.merged)) as seen:
            frame = compare(lazy_task_vectors(plan.pretrained, plan.experts, seen.update))
        total = len(plan.outputs) * len(plan.pretrained)
        _write(plan, _metadata(plan, digests), bar(chain([first], parts), "Merging", total))
        return frame, _changed_buffers(plan)

    (frame, buffers), seconds, memory = measured(work)
    return Report(plan, frame, buffers, _warnings(frame), seconds, memory)


def _merged(plan: Plan, bar: Callable[..., tqdm]) -> Iterator[Part]:
    hyper = dict(plan.hyper)
    with bar(desc="Surveying") as seen:
        known = survey(plan.method, lazy_task_vectors(plan.pretrained, plan.experts, seen.update), hyper)
    yield from merge_by_tensor(plan.method, lazy_task_vectors(plan.pretrained, plan.experts), known, hyper)


def _refuse_twins(digests: Mapping[str, Mapping[str, str]]) -> None:
    seen: dict[tuple[str, ...], str] = {}
    for task, files in digests.items():
        if (first := seen.setdefault(tuple(files.values()), task)) != task:
            raise ValueError(f"experts {first!r} and {task!r} have the same content: give each model once")


def _changed_buffers(plan: Plan) -> tuple[str, ...]:
    names = plan.pretrained.layout.keys() - plan.merged
    files = plan.experts.values()
    return tuple(sorted(n for n in names if any(not torch.equal(plan.pretrained[n], file[n]) for file in files)))


def _warnings(frame: pd.DataFrame) -> tuple[str, ...]:
    warnings = []
    for task, row in frame.iterrows():
        if row["norm"] == 0:
            warnings.append(f"expert {task!r} equals pretrained: it only thins out the others; leave it out")
        elif row["relative"] > 1:
            warnings.append(
                f"expert {task!r} is {row['relative']:.1f} times as far from pretrained as pretrained is from zero: "
                f"was it fine-tuned from this checkpoint?"
            )
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
            task: files.enter_context(writing(path, plan.pretrained, metadata | ({"task": task} if task else {})))
            for task, path in plan.outputs.items()
        }
        for key, task, tensor in parts:
            if is_merged(tensor) and not is_finite(tensor):
                raise ValueError(f"{key!r} holds NaN or Inf once merged, in {tensor.dtype}: take a smaller scaling")
            put[task](key, tensor)


def merge_files(
    method: str,
    pretrained: PathLike,
    experts: Mapping[str, PathLike],
    out: PathLike,
    *,
    force: bool = False,
    progress: bool = True,
    **hyper: Any,
) -> Report:
    """`plan_merge` and `execute_merge` in one: the command ``adamerging merge`` for Python."""
    plan = plan_merge(method, pretrained, experts, out, force=force, **hyper)
    return execute_merge(plan, progress=progress)
