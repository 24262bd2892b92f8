"""Merging adapters into one adapter: exactly, of the summed rank, or cut to a rank with the error stated."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ..coefficients import Coefficients
from ..files.align import Options
from ..files.by_tensor import merge_by_tensor, survey
from ..files.lazy import examine, lazy_task_vectors
from ..files.merge import refuse_twins
from ..files.names import dropped
from ..files.plan import PathLike, Plan, plan_merge
from ..methods.registry import Method, find
from ..runtime.places import given
from ..runtime.values import few
from ..state import accumulation_dtype, is_finite, is_merged
from ..task_vectors import TaskVectors, weights
from ..vectors.elementwise import OnDemand
from .expert import AdapterExpert, Product
from .folder import WEIGHTS, Parts, write_folder
from .low_rank import cut, cut_matrix, stacked


@dataclass(frozen=True)
class AdapterReport:
    """A merged adapter.

    Arguments:
        folder: that was written.
        modules: one row per changed tensor of the base: ``rank`` of the sum, ``kept``, and ``error``,
            ‖ΔW − kept‖ / ‖ΔW‖ (Frobenius), which is 0 where nothing was cut.
        error: the same over all of them.
        whole: names of the tensors that it replaces.
        warnings: what looks wrong with the inputs, as sentences.
    """

    folder: Path
    modules: pd.DataFrame
    error: float
    whole: tuple[str, ...]
    warnings: tuple[str, ...]


def merge_to_adapter(
    method: str,
    pretrained: PathLike,
    experts: Mapping[str, PathLike],
    out: PathLike,
    *,
    rank: int | None = None,
    force: bool = False,
    options: Options | None = None,
    **hyper: Any,
) -> AdapterReport:
    """Merge LoRA adapters of one base into one LoRA adapter, which peft loads.

    A linear method gives Σ_k λ_k s_k B_k A_k, whose rank is the sum of the ranks; any other method merges whole
    matrices and needs a rank.

    Arguments:
        method: id of a method that needs nothing but checkpoints and makes one model.
        pretrained: file of θ0.
        experts: task name → folder of an adapter, or (name, folder) pairs.
        out: folder to write.
        rank: truncate every module to this rank, by singular values; default: no truncation.
        force: replace an adapter that is already in ``out``.
        options: what to leave out where adapters have their own tensors, such as heads: ``Options.of(drop=[…])``.
        hyper: the method's keyword arguments.

    Raises:
        ValueError: names what does not fit, and what to do.

    Example:
        >>> adapters = {"cars": "cars_lora", "pets": "pets_lora"}
        >>> report = am.merge_to_adapter("task_arithmetic", "base.safetensors", adapters, "both_lora", scaling=0.5)
        >>> sorted(path.name for path in Path("both_lora").iterdir())
        ['adapter_config.json', 'adapter_model.safetensors']
    """
    out = given(out)
    if options and options.strip:
        raise ValueError("--strip renames the base, and a merged adapter must keep its names: leave one of them out")
    if out.suffix == ".safetensors" or out.is_file():
        raise ValueError(f"an adapter is a folder: give one to write, such as {out.with_suffix('')}, instead of {out}")
    if rank is not None and rank < 1:
        raise ValueError(f"rank {rank} should be 1 or more")
    found = find(method)
    if found.task_id:
        raise ValueError(f"{method} keeps one model per task, which no adapter is: merge without --adapter")
    plan = plan_merge(method, pretrained, experts, out / WEIGHTS, force=force, options=options, **hyper)
    adapters = _adapters(plan)
    refuse_twins({task: expert.digests() for task, expert in adapters.items()})
    # A method that counts blocks must see the names of all merged tensors.
    names = [key for key in plan.pretrained.layout if key in plan.merged]
    linear = found.linear(**plan.hyper) if callable(found.linear) else found.linear
    if linear:
        scales = linear_coefficients(found, tuple(adapters), names, plan.hyper)
        parts, rows = _sum(plan.pretrained, adapters, scales, rank)
    elif rank is None:
        raise ValueError(
            f"{method} does not add up adapters, so that its result has no low rank: cut it to one with --rank R "
            f"(rank=R), or take task_arithmetic, weight_averaging or lines"
        )
    else:
        parts, rows = _cut_merge(plan, adapters, rank)
    return _written(
        out, parts, rows, plan.pretrained, adapters, {"method": method, "hyper": dict(plan.hyper)}, plan.warnings
    )


def save_adapter(
    folder: PathLike,
    experts: Mapping[str, AdapterExpert],
    coefficients: Coefficients,
    *,
    rank: int | None = None,
    drop: Sequence[str] = (),
) -> AdapterReport:
    """Write θ0 + Σ_k λ_k T_k of adapters as one adapter, with given λ, such as those AdaMerging learned.

    Arguments:
        folder: where to write; an adapter that is already there is replaced.
        experts: task name → `load_adapter`, all of one base.
        coefficients: λ, of the tasks' names and of the rows that the base's task vectors have.
        rank: see `merge_to_adapter`.
        drop: patterns of tensors to leave out, such as ``classifier.*``, which each task keeps for itself.

    Returns:
        What was written.

    Raises:
        ValueError: names the tasks or rows that do not fit.

    Example:
        >>> experts = {name: am.load_adapter(f"{name}_lora", base="base.safetensors") for name in ("cars", "pets")}
        >>> half = am.Coefficients(torch.full((2, 1), 0.5), ("cars", "pets"), ("all",), "task")
        >>> report = am.save_adapter("half_lora", experts, half)
    """
    base = next(iter(experts.values())).base
    by_name = coefficients.granularity == "tensor"  # tied tensors have one row, of the first
    names = [key for key in weights(base) if not by_name or key in coefficients.rows]
    rows = TaskVectors(tuple(experts), base, dict.fromkeys(names)).rows(coefficients.granularity)
    values = coefficients.aligned(tuple(experts), rows.names).double()
    scales = {key: values[:, rows.index[key]] for key in names}
    changed = _keys(base, experts)
    left_out = dropped(changed, drop)
    scales = {key: values for key, values in scales.items() if key not in left_out}
    if lacking := [key for key in changed if key not in scales and key not in left_out]:
        raise ValueError(
            f"no coefficient is given for {few(lacking)}, which the adapters change: give one, or leave it out (drop=)"
        )
    parts, table = _sum(base, experts, scales, rank)
    warnings = tuple(warning for expert in experts.values() for warning in expert.warnings)
    what = {"coefficients": coefficients.granularity}
    return _written(given(folder), parts, table, base, experts, what, warnings)


def linear_coefficients(
    method: Method, tasks: tuple[str, ...], keys: list[str], hyper: Mapping[str, Any]
) -> dict[str, Tensor]:
    """λ ``[K]`` of every tensor, of a linear method: what it makes of K task vectors that are the unit vectors.

    Arguments:
        method: a linear one.
        tasks: K names.
        keys: names of tensors, all that the method may count (blocks, say).
        hyper: its hyper-parameters.
    """
    k = len(tasks)
    unit = torch.eye(k, dtype=torch.float64)
    tv = TaskVectors(tasks, {key: torch.zeros(k, dtype=torch.float64) for key in keys}, dict.fromkeys(keys, unit))
    return dict(method.function(tv, **hyper).state_dict())


def _adapters(plan: Plan) -> dict[str, AdapterExpert]:
    models = {task: getattr(expert, "state", expert) for task, expert in plan.experts.items()}
    for task, expert in models.items():
        if not isinstance(expert, AdapterExpert):
            raise ValueError(
                f"expert {task!r} is a whole model, and --adapter writes merged adapters: give its adapter, or merge "
                f"without --adapter"
            )
    return models


def _keys(base: Mapping[str, Tensor], experts: Mapping[str, AdapterExpert]) -> list[str]:
    """Names of the base that an adapter changes by itself, tied twins apart: peft ties them itself."""
    changed = {key for expert in experts.values() for key in expert.changes if key not in expert.tied}
    return [key for key in base if key in changed]


def _product(key: str, experts: Mapping[str, AdapterExpert]) -> Product | None:
    """The form of a tensor's low-rank change; None where an adapter has it whole."""
    changes = [expert.changes[key] for expert in experts.values() if key in expert.changes]
    if any(change.whole and not _is_copy(change.whole) for change in changes):
        return None
    return next((product for change in changes for product in change.products), None)


def _is_copy(name: str) -> bool:
    return name.endswith(".base_layer.weight")  # of an embedding; peft saves it beside the factors


def _sum(
    base: Mapping[str, Tensor],
    experts: Mapping[str, AdapterExpert],
    scales: Mapping[str, Tensor],
    rank: int | None,
) -> tuple[Parts, list[tuple[str, int, Tensor, int]]]:
    parts, rows = Parts(), []
    for key in (key for key in _keys(base, experts) if key in scales):
        weights = dict(zip(experts, scales[key].tolist(), strict=True))
        form = _product(key, experts)
        if form is None:
            parts.whole[key] = _merged_whole(base[key], key, experts, weights)
            continue
        factors = stacked(
            [
                (weights[task] * b, a)
                for task, expert in experts.items()
                for product in (expert.changes[key].products if key in expert.changes else ())
                for b, a in [product.factors(expert.source.tensors, torch.float64)]
            ]
        )
        full = kept = factors[0].shape[1]
        s = torch.zeros(0)
        if rank is not None:
            kept = min(rank, full)
            cut_to, s = cut(factors, rank)
            factors = cut_to if kept < full else factors
        parts.factors[key] = (form, factors)
        rows.append((key, full, s, kept))
    return parts, rows


def _merged_whole(base: Tensor, key: str, experts: Mapping[str, AdapterExpert], weights: Mapping[str, float]) -> Tensor:
    """θ0 + Σ_k λ_k T_k of a tensor that is not a product, rounded once."""
    total = base.detach().double()
    for task, expert in experts.items():
        if (t := expert.difference(key)) is not None:
            total = total + weights[task] * t.double()
    return total.to(base.dtype)


def _cut_merge(
    plan: Plan, adapters: Mapping[str, AdapterExpert], rank: int
) -> tuple[Parts, list[tuple[str, int, Tensor, int]]]:
    """Merge by any method with θ0 widened, so that differences are not rounded, and cut them."""
    found, _ = examine(plan.pretrained, plan.experts)
    tv = lazy_task_vectors(plan.pretrained, plan.experts, found=found)
    start = tv.pretrained
    base = OnDemand(start, lambda key: _wide(start[key]))
    tv = replace(tv, pretrained=base)
    hyper, keys = dict(plan.hyper), set(_keys(plan.pretrained, adapters))
    parts, rows = Parts(), []
    for key, _, merged in merge_by_tensor(plan.method, tv, survey(plan.method, tv, hyper), hyper):
        if key not in keys:
            continue
        form = _product(key, adapters)
        if form is None:
            parts.whole[key] = merged.to(plan.pretrained.layout[key].dtype)
            continue
        delta = (merged - base[key]).flatten(1)
        factors, s = cut_matrix(delta.T if form.transposed else delta, rank)
        parts.factors[key] = (form, factors)
        rows.append((key, int((s > 0).sum()), s, rank))
    return parts, rows


def _wide(t: Tensor) -> Tensor:
    return t.to(accumulation_dtype(t.dtype)) if is_merged(t) else t


def _written(
    out: Path,
    parts: Parts,
    rows: list[tuple[str, int, Tensor, int]],
    base: Mapping[str, Tensor],
    experts: Mapping[str, AdapterExpert],
    what: Mapping[str, Any],
    warnings: tuple[str, ...],
) -> AdapterReport:
    if not (parts.factors or parts.whole):
        raise ValueError(f"none of {few(list(experts))} changes a tensor of the base: there is no adapter to write")
    _check_finite(parts)
    lost = {key: float(s[kept:].square().sum()) for key, _, s, kept in rows}
    whole = {key: float(s.square().sum()) for key, _, s, _ in rows}
    table = pd.DataFrame(
        {
            "rank": [full for _, full, _, _ in rows],
            "kept": [kept for *_, kept in rows],
            "error": [_relative(lost[key], whole[key]) for key in lost],
        },
        index=pd.Index(list(lost), name="tensor"),
    )
    total = _relative(sum(lost.values()), sum(whole.values()))
    from .. import __version__

    note = {"library": f"adamerging_lib {__version__}", "merged": json.dumps(dict(what), default=str)}
    write_folder(out, parts, base, experts, note)
    return AdapterReport(out, table, total, tuple(parts.whole), warnings)


def _check_finite(parts: Parts) -> None:
    tensors = [(key, t) for key, (_, pair) in parts.factors.items() for t in pair] + list(parts.whole.items())
    if bad := [key for key, t in tensors if is_merged(t) and not is_finite(t)]:
        raise ValueError(f"{bad[0]!r} holds NaN or Inf once merged: an adapter is broken; inspect them one by one")


def _relative(lost: float, whole: float) -> float:
    return math.sqrt(lost / whole) if whole else 0.0
