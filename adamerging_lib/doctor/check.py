"""The doctor: base and experts read once, tensor by tensor, and everything said that is wrong with them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from tqdm import tqdm

from ..adapters.expert import AdapterExpert
from ..adapters.source import describe, is_adapter
from ..files.align import Aligned, Options, align, owner_of
from ..files.experts import adapter_notes, adapter_warnings, open_base, open_expert
from ..files.kinds import is_copied, is_statistic, layout_of, quantised
from ..files.lazy import Found, examine
from ..files.plan import check_name
from ..methods.registry import recalibrate
from ..runtime.values import few
from ..state import CheckpointError, StateDict, check_tensors, is_finite, is_merged
from ..task_vectors import weights
from ..vectors.geometry import Geometry, compare
from .advice import Call, advise
from .angles import beside_others, look, strangeness
from .findings import ERROR, LEVELS, NOTE, PRETRAINED, WARNING, Finding
from .report import Report
from .thresholds import COARSE
from .without_base import NO_BASE, look_without_base

Model = str | os.PathLike[str] | StateDict


def check(
    pretrained: Model | None,
    experts: Mapping[str, Model] | Iterable[tuple[str, Model]],
    *,
    drop: Sequence[str] = (),
    strip: Sequence[str] = (),
    cast: bool = False,
    progress: bool = False,
) -> Report:
    """Find out what is wrong with a base and its experts before they are merged, and what to do about it.

    Every weight is read once, one name at a time, so that memory holds only one tensor of every model.

    Arguments:
        pretrained: θ0, as a file, a folder or a state dict; None if it is not at hand.
        experts: name → θ_k: files, folders, adapters (beside θ0) or state dicts; or (name, model) pairs.
        drop, strip, cast: where models do not fit together, see `files.align.Options`.
        progress: show a progress bar on stderr, where that is a terminal.

    Returns:
        The findings: print them, or see `Report`. A faulty model is a finding, not an error.

    Raises:
        ValueError: there are no experts, two have the same name, or a prefix or pattern fits no name.

    Example:
        >>> report = am.check("base.safetensors", {"cars": "cars.safetensors", "again": "cars.safetensors"})
        >>> report.exit_code  # 0: nothing found, 1: warnings, 2: should not be merged
        2
    """
    start, given = time.perf_counter(), Options.of(drop, strip, cast)
    options = given
    named, findings = _named(experts), []
    base = None if pretrained is None else _opened(None, pretrained, None, findings)
    opened = {name: _opened(name, model, base, findings) for name, model in named.items()}
    models = {name: state for name, state in opened.items() if state is not None}
    adapters = {name: state for name, state in models.items() if isinstance(state, AdapterExpert)}
    if adapters:
        findings += [Finding(NOTE, "adapter", tuple(adapters), note) for note in adapter_notes(adapters)]
        findings += [Finding(WARNING, "adapter_odd", (), odd) for odd in adapter_warnings(adapters, base)]
    origin = None
    if pretrained is None and models:
        origin, *others = models  # in the place of θ0
        base, models = models[origin], {name: models[name] for name in others}
    frame, found, tensors, cosines = _about(named, opened), None, pd.DataFrame(columns=_TENSORS), pd.DataFrame()
    if base is not None and models and (fit := _fitting(base, models, options, findings)):
        options, aligned = fit
        if (both := _measured(aligned, findings, progress)) is not None:
            found, tensors = both[0], _tensors(aligned.pretrained, both[1])
            frame, cosines = _judged(origin, found, frame, findings)
            found = found if origin is None else None
    elif pretrained is None:
        findings.append(NO_BASE)
    if len(named) == 1:
        findings.append(Finding(WARNING, "alone", (), "there is one expert, and nothing to merge it with", "give two"))
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    advice = advise(findings, found, _call(pretrained, named, options, given))
    place = None if pretrained is None else _place(pretrained)
    return Report(place, frame, cosines, tensors, tuple(findings), advice, time.perf_counter() - start)


_TENSORS = ("kind", "dtype", "shape", "numbers")


def _judged(
    origin: str | None, found: Geometry, frame: pd.DataFrame, findings: list[Finding]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table of experts with what their geometry says, and their cosines; what is wrong is found."""
    if origin is None:
        # Of tensors that were left out nobody knows how far they moved.
        unknown = ("untrained", "distant") if any(f.code == "not_finite" for f in findings) else ()
        findings += [finding for finding in look(found) if finding.code not in unknown]
        return frame.join(_rows(found)), found.cosines
    told, apart = look_without_base(origin, found)
    findings += told
    return frame.join(apart), pd.DataFrame()


def _named(experts: Mapping[str, Model] | Iterable[tuple[str, Model]]) -> dict[str, Model]:
    pairs = list(experts.items() if isinstance(experts, Mapping) else experts)
    names = [name for name, _ in pairs]
    for name, model in pairs:
        if not isinstance(model, Mapping):
            check_name(name, model)
    if not names:
        raise ValueError("there are no experts to check: give at least one, NAME=FILE")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two experts are named {twice[0]!r}: name every expert differently")
    return dict(pairs)


def _opened(name: str | None, model: Model, base: StateDict | None, findings: list[Finding]) -> StateDict | None:
    """A model as a state dict; None where it cannot be read, which is then found."""
    who = () if name is None else (name,)
    try:
        if isinstance(model, Mapping):
            check_tensors(PRETRAINED if name is None else name, model)
            state = model
        elif name is None:
            state = open_base(model)
        elif base is None and is_adapter(model):
            raise CheckpointError(_without_base(model))
        else:
            state = open_expert(model, base)
        if told := quantised(layout_of(state)):
            raise _Quantised(f"{owner_of(name)} is quantised ({told}), and codes cannot be averaged")
    except _Quantised as error:
        mend = "merge the models as they were before, then quantise the result"
        findings.append(Finding(ERROR, "quantised", who, str(error), mend))
    except (CheckpointError, OSError) as error:
        findings.append(Finding(ERROR, "unreadable", who, f"{owner_of(name)}: {error}"))
    else:
        return state
    return None


def _without_base(model: Model) -> str:
    facts = describe(model)
    named = f", of the base {facts.base}" if facts.base else ""
    return f"an adapter ({facts.kind}{named}) says only what it changes: give the base that it changes as --pretrained"


class _Quantised(Exception):
    pass


def _fitting(
    base: StateDict, models: Mapping[str, StateDict], options: Options, findings: list[Finding]
) -> tuple[Options, Aligned] | None:
    """Models that fit together, with the options that it takes; why others do not is found."""
    try:
        aligned = align(base, models, options)
    except CheckpointError as error:
        bad = tuple(name for name, state in models.items() if not _fits(base, name, state, options))
        bad = () if str(error).startswith(f"{PRETRAINED} ") else bad
        findings.append(Finding(ERROR, "layout", bad, str(error)))
        if (mend := getattr(error, "options", None)) is not None:
            return mend, align(base, models, mend)
        rest = {name: state for name, state in models.items() if name not in bad}
        return (options, align(base, rest, options)) if bad and rest else None
    findings += [Finding(NOTE, "fitted", (), note) for note in aligned.notes]
    return options, aligned


def _fits(base: StateDict, name: str, state: StateDict, options: Options) -> bool:
    try:
        align(base, {name: state}, options)
    except CheckpointError:
        return False
    return True


def _measured(aligned: Aligned, findings: list[Finding], progress: bool) -> tuple[Geometry, Found] | None:
    """The geometry of experts, from one pass; tensors that cannot be merged are found, and left out.

    None where nothing is left that could be merged.
    """
    base, models = aligned.pretrained, aligned.experts
    broken: dict[str, CheckpointError] = {}
    total = len(weights(base))
    with tqdm(desc="Checking", total=total, leave=False, disable=None if progress else True) as bar:
        try:
            seen, found = examine(base, models, bar.update, ranks=True, broken=broken.setdefault)
        except ValueError as error:
            findings.append(Finding(ERROR, "nothing", (), str(error)))
            return None
    for key, error in broken.items():
        whole = is_merged(layout_of(base)[key])
        bad = [name for name, state in models.items() if whole and not is_finite(state[key])]
        named = [name for name in models if repr(name) in str(error)]
        code = "not_finite" if whole and not is_statistic(key) else "statistics_broken" if whole else "quantised"
        findings.append(Finding(ERROR, code, tuple(bad or named), str(error)))
    findings += _coarse({None: base, **models}, weights(base))
    statistics = [key for key, t in layout_of(base).items() if is_statistic(key) and not is_copied(key, t)]
    if statistics:
        findings.append(Finding(WARNING, "statistics", (), recalibrate(statistics)))
    told = {
        "tied": ("equal to another tensor in every model, and merged once", list(seen.tied)),
        "masks": ("copied, since all models hold the same -inf or NaN", sorted(seen.masks)),
        "copied": ("copied from pretrained although an expert has others", list(seen.changed)),
    }
    for code, (what, names) in told.items():
        if names:
            findings.append(Finding(NOTE, code, (), f"{what}: {few(names, 3)}"))
    return (found, seen) if found.parts else None


def _coarse(models: Mapping[str | None, StateDict], names: Sequence[str]) -> list[Finding]:
    """Models whose matrices take few different numbers, by the first 64 entries of up to eight of their matrices."""
    findings, layout = [], layout_of(models[None])
    large = [key for key in names if len(layout[key].shape) == 2 and layout[key].shape[1] >= _NEIGHBOURS]
    some = large[:: max(1, len(large) // 8)]
    for name, state in models.items():
        counts = [len(state[key].reshape(-1)[:_NEIGHBOURS].float().unique()) for key in some]
        if counts and max(counts) <= COARSE and max(counts) > 1:
            findings.append(Finding(
                WARNING, "coarse", () if name is None else (name,),
                f"{owner_of(name)} has at most {max(counts)} different numbers among {_NEIGHBOURS} neighbours, as "
                f"weights have that were quantised to 4 bits and widened again",
                "give it as it was before, for what was rounded off is as long as a task vector",
            ))  # fmt: skip
    return findings


_NEIGHBOURS = 64


def _about(named: Mapping[str, Model], opened: Mapping[str, StateDict | None]) -> pd.DataFrame:
    rows = {}
    for name, model in named.items():
        layout = layout_of(opened[name] or {})
        floats = [tensor for tensor in layout.values() if is_merged(tensor)]
        dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in floats})
        rows[name] = {
            "path": _place(model), "parameters": sum(t.numel() for t in floats), "dtypes": ", ".join(dtypes),
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index")


def _rows(found: Geometry) -> pd.DataFrame:
    frame = compare(found)
    frame.insert(2, "beside_others", beside_others(found))
    frame.loc[frame["norm"] == 0, ["nearest", "cosine"]] = None
    frame["rank"], frame["noise"] = found.effective_ranks
    frame["strange"] = strangeness(found)[0]
    return frame


def _tensors(base: StateDict, seen: Found) -> pd.DataFrame:
    rows = {}
    for key, tensor in layout_of(base).items():
        copied = key in seen.masks or is_copied(key, tensor)
        kind = "copied" if copied else "statistics" if is_statistic(key) else "tied" if key in seen.tied else "merged"
        dtype = str(tensor.dtype).removeprefix("torch.")
        rows[key] = dict(zip(_TENSORS, (kind, dtype, list(tensor.shape), tensor.numel()), strict=True))
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(_TENSORS))


def _place(model: Model) -> str:
    return "a state dict" if isinstance(model, Mapping) else os.fspath(model)


def _call(pretrained: Model | None, named: Mapping[str, Model], options: Options, given: Options) -> Call:
    files = not any(isinstance(model, Mapping) for model in [pretrained, *named.values()])
    experts = {name: _place(model) for name, model in named.items()}
    return Call(None if pretrained is None else _place(pretrained), experts, options, files, given)
