"""What the subcommands of ``adamerging`` do with files and methods, and what they say of it."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..adapters.merge import AdapterReport, merge_to_adapter
from ..adapters.names import refusal
from ..adapters.source import AdapterFacts, describe, is_adapter, open_adapter
from ..checkpoints import convert
from ..files.align import Options
from ..files.checkpoint import CheckpointFile
from ..files.kinds import is_mask
from ..files.merge import Report, execute_merge
from ..files.plan import Plan, plan_merge
from ..methods.registry import NEEDS, find, hyper_parameters, methods
from ..runtime.places import given
from ..runtime.text import table as as_table
from ..runtime.values import describe as described
from ..runtime.values import few, one_of, parse
from ..state import CheckpointError, StateDict, is_finite, is_merged
from ..worlds.clip.hub import size
from .check import named


def merge_experts(
    method: str,
    pretrained: str,
    experts: Sequence[str],
    out: str,
    pairs: Sequence[str],
    *,
    options: Options | None = None,
    dry_run: bool = False,
    force: bool = False,
    adapter: bool = False,
    rank: int | None = None,
) -> None:
    """Merge checkpoint files by a method, and say what was done.

    Arguments:
        method: its id.
        pretrained: file.
        experts: ``name=file`` each.
        out: file, or folder where the method keeps one model per task.
        pairs: ``name=value`` each, hyper-parameters.
        options: what is left out, renamed or cast where the models do not fit together.
        dry_run: only say what would be done.
        force: replace outputs that exist.
        adapter: write one LoRA adapter instead of a model.
        rank: of that adapter.

    Raises:
        ValueError: saying what to mend.
    """
    hyper = parse(method, hyper_parameters(find(method)), pairs)
    if adapter:
        if dry_run:
            raise ValueError("--dry-run is for merges into models: leave out one of --dry-run and --adapter")
        written = {"rank": rank, "force": force, "options": options}
        report = merge_to_adapter(method, pretrained, named(experts), out, **written, **hyper)
        for warning in report.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        print(_adapter_result(report))
        return
    if rank is not None:
        raise ValueError("--rank is the rank of a merged adapter: add --adapter, which writes one")
    plan = plan_merge(method, pretrained, named(experts), out, force=force, options=options, **hyper)
    print(_told(plan), flush=True)
    if dry_run:
        print(_promised(plan))
        return
    report = execute_merge(plan)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(_result(report))
    memory = "" if report.memory is None else f", {size(report.memory)} of memory at the peak"
    print(f"in {report.seconds:.1f} s{memory}", file=sys.stderr)


def _told(plan: Plan) -> str:
    settings = ", ".join(f"{name}={value!r}" for name, value in plan.hyper.items()) or "no hyper-parameters"
    layout = plan.pretrained.layout
    dtypes = sorted({str(layout[key].dtype).removeprefix("torch.") for key in plan.merged})
    averaged = len(plan.statistics)
    copied = len(layout) - len(plan.merged) - averaged
    lines = [
        f"{plan.method.label} ({plan.method.id}) of {_count(len(plan.experts), 'expert')}: {settings}",
        f"{_count(len(plan.merged), 'tensor')}, {plan.parameters:,} parameters, {', '.join(dtypes)}"
        + (f"; {_count(copied, 'buffer')} copied from pretrained" if copied else "")
        + (f"; {_count(averaged, 'running statistic')} averaged" if averaged else ""),
        *plan.notes,
    ]
    return "\n".join(lines)


def _promised(plan: Plan) -> str:
    how = "tensor by tensor" if plan.method.streams else "with all models loaded, which this method requires"
    lines = ["dry run: nothing was written; numbers will be checked when they are read", f"would merge {how},"]
    lines[-1] += f" with up to about {size(plan.memory)} of memory beyond the program's own"
    for path in plan.outputs.values():
        lines.append(f"would {'replace' if path in plan.replaces else 'write'} {path}, {size(plan.size)}")
    return "\n".join(lines)


def _result(report: Report) -> str:
    frame = report.experts
    table = pd.DataFrame(
        {
            "distance": frame["norm"].map("{:.3g}".format),
            "relative": frame["relative"].map(lambda share: f"{share:.2%}" if math.isfinite(share) else "-"),
            "changed": frame["changed"].map("{:.1%}".format),
            "conflict": frame["conflict"].map("{:.1%}".format),
        },
        index=frame.index.rename("expert"),
    )
    if len(frame) > 1:
        table["nearest"] = [f"{c:.2f} {n}" for c, n in zip(frame["cosine"], frame["nearest"], strict=True)]
    lines = ["", as_table(table), ""]
    lines.append("distance: norm of expert - pretrained; relative: to the norm of pretrained;")
    lines.append("changed: entries that differ; conflict: of these, moved against the sum of all")
    if len(frame) > 1:
        lines[-1] += ";"
        lines.append("nearest: largest cosine with another expert's difference from pretrained")
    for what, names in (
        ("copied from pretrained although an expert differs", report.buffers),
        ("copied, NaN or Inf alike in all models", report.masks),
        ("tied in all models, merged once", [f"{name} to {home}" for name, home in report.tied.items()]),
    ):
        if names:
            lines.append(f"{what}: {few(list(names))}")
    lines += [f"wrote {path}, {size(path.stat().st_size)}" for path in report.plan.outputs.values()]
    return "\n".join(lines)


def _adapter_result(report: AdapterReport) -> str:
    table = report.modules
    lines = []
    if (table["kept"] < table["rank"]).any() or report.error:
        shown = table.assign(error=table["error"].map("{:.2%}".format))
        lines += [as_table(shown), "", "error: what the cut to the rank lost of a change, relative to its norm"]
    ranks = sorted(set(table["kept"]))
    which = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}" if ranks else "no factors"
    lines.append(
        f"{_count(len(table), 'tensor')} with factors, {which}; {len(report.whole)} whole; error {report.error:.2%}"
    )
    parts = sum(path.stat().st_size for path in report.folder.glob("adapter_*"))
    return "\n".join([*lines, f"wrote the adapter {report.folder}, {size(parts)}"])


def convert_checkpoint(source: str, target: str, **options: Any) -> None:
    """Write a published checkpoint as a safetensors file, and say what it was; see `checkpoints.convert`."""
    done = convert(source, target, **options)
    where = f"{done.key!r} of {done.source}" if done.key else str(done.source)
    print(f"{where} is {done.what}" + "".join(f", {name} {value}" for name, value in sorted(done.facts.items())))
    if done.dropped:
        entries = f"{len(done.dropped)} {'entry' if len(done.dropped) == 1 else 'entries'}"
        more = f" and {len(done.dropped) - 10} more, which the file's metadata name" if len(done.dropped) > 10 else ""
        print(f"dropped {entries}: {', '.join(done.dropped[:10])}{more}")
    print(f"wrote {done.target}, {_count(done.tensors, 'tensor')}, {done.numbers:,} numbers")


def list_methods(needs: str | None = None) -> None:
    """Say which methods there are; those that need ``needs`` beyond checkpoints, where it is given."""
    table = methods()
    if needs is not None:
        one_of("--needs", needs, NEEDS)
        table = table[table["needs"] == needs]
    command = [
        "no" if (m := find(id)).takes != "task_vectors" else "by tensor" if m.streams else "loads all"
        for id in table.index
    ]
    shown = table[["label", "needs", "task_specific", "source"]].rename(columns={"task_specific": "a task keeps"})
    shown.insert(2, "merge command", command)
    print(as_table(shown))


def describe_method(id: str) -> None:
    """Say what a method does, and which hyper-parameters it has; ValueError, with the nearest, where there is none."""
    method = find(id)
    print(f"{method.id}: {method.label} ({method.source}); needs {method.needs}; a task keeps {method.task_specific}\n")
    print(inspect.getdoc(getattr(method.function, "func", method.function)))
    print(f"\nHyper-parameters, with their defaults:\n{described(hyper_parameters(method)) or '  none'}")


def inspect_file(path: str, tensors: bool = False) -> None:
    """Say what is in a checkpoint file, each tensor too if wanted; CheckpointError where a number is NaN or Inf."""
    path = given(path)
    if is_adapter(path):
        file = open_adapter(path)
        print(_adapter(describe(path)))
        _inspect(file.path, file.layout, file.tensors, file.metadata, tensors)
    else:
        file = CheckpointFile(path, part=True)
        if problem := refusal(file.layout, str(file.path)):
            print(problem)
        _inspect(file.path, file.layout, file, file.metadata, tensors)


def _adapter(facts: AdapterFacts) -> str:
    ranks = sorted(set(facts.ranks.values()))
    lines = [f"{facts.path}: an adapter, not a model: {facts.kind}"]
    if facts.base:
        lines.append(f"  of the base {facts.base}")
    if ranks:
        scales = sorted(set(facts.scales.values()))
        lines.append(
            f"  {_count(len(facts.ranks), 'module')} with factors of rank {_span(ranks)}, scale {_span(scales)}: "
            f"{few(list(facts.ranks))}"
        )
    if facts.saved:
        lines.append(f"  {_count(len(facts.saved), 'tensor')} whole: {few(list(facts.saved))}")
    mend = "to merge it: adamerging merge --pretrained BASE --expert NAME=" + str(facts.path.parent)
    return "\n".join([*lines, f"  {facts.problem or mend}"])


def _span(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"


def _inspect(
    path: Path, layout: StateDict, stored: StateDict, metadata: Mapping[str, str], tensors: bool = False
) -> None:
    layout = pd.DataFrame(
        [(key, str(t.dtype).removeprefix("torch."), list(t.shape), t.numel(), t.nbytes) for key, t in layout.items()],
        columns=["tensor", "dtype", "shape", "numbers", "bytes"],
    )
    numbers, total = layout["numbers"].sum(), size(layout["bytes"].sum())
    print(f"{path}: {_count(len(layout), 'tensor')}, {numbers:,} numbers, {total}")
    for name, value in sorted(metadata.items()):
        print(f"  {name}: {value}")
    print(as_table(layout.groupby("dtype").agg(tensors=("tensor", "count"), numbers=("numbers", "sum"))))
    if tensors:
        print(as_table(layout[["tensor", "dtype", "shape"]].set_index("tensor")))
    odd = [key for key in stored if is_merged(t := stored[key]) and not is_finite(t)]
    masks = [key for key in odd if is_mask(stored[key])]
    if bad := [key for key in odd if key not in masks]:
        raise CheckpointError(f"NaN or Inf in {', '.join(bad)}: the checkpoint is broken, save it again")
    print(
        f"all numbers are finite, except for -inf as in masks: {', '.join(masks)}"
        if masks
        else "all numbers are finite"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"
