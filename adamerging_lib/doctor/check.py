"""The doctor: base and experts read once, tensor by tensor, and everything said that is wrong with them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping

import pandas as pd
from tqdm import tqdm

from ..files.experts import open_base, open_expert
from ..files.kinds import is_copied, is_statistic, layout_of, quantised
from ..files.lazy import lazy_task_vectors
from ..state import CheckpointError, StateDict, check_state_dicts, is_finite, is_merged
from ..vectors.geometry import Geometry, compare, geometry
from .advice import Call, advise
from .angles import beside_others, look, strangeness
from .findings import ERROR, LEVELS, PRETRAINED, Finding
from .report import Report
from .without_base import NO_BASE, look_without_base

Model = str | os.PathLike[str] | StateDict


def check(
    pretrained: Model | None,
    experts: Mapping[str, Model] | Iterable[tuple[str, Model]],
    *,
    progress: bool = False,
) -> Report:
    """Say what is wrong with a base and its experts before they are merged, and what to do.

    Every tensor is read once, of one name at a time, so that the memory is that of one tensor of every model.

    Arguments:
        pretrained: θ0, as a file, a folder or a state dict; None where it is not at hand.
        experts: name → θ_k: files, folders, adapters (beside θ0) or state dicts; or (name, model) pairs.
        progress: show a progress bar on stderr, where that is a terminal.

    Returns:
        What was found: print it, or see `Report`. What is wrong with a model is a finding, not an error.

    Raises:
        ValueError: no experts, or two of one name.
    """
    start = time.perf_counter()
    named = _named(experts)
    findings: list[Finding] = []
    base = None if pretrained is None else _opened(None, pretrained, None, findings)
    opened = {name: _opened(name, model, base, findings) for name, model in named.items()}
    models = {name: state for name, state in opened.items() if state is not None}
    frame, found, tensors = _about(named, models), None, pd.DataFrame(columns=_TENSORS)
    if pretrained is None and models:
        origin, *others = models
        fit = _fitting(models[origin], {name: models[name] for name in others}, findings)
        if fit:
            apart, told = look_without_base(origin, _measured(models[origin], fit, findings, progress))
            findings += apart
            frame, tensors = frame.join(told), _tensors(models[origin])
        else:
            findings.append(NO_BASE)
    elif base is not None and (fit := _fitting(base, models, findings)):
        found, tensors = _measured(base, fit, findings, progress), _tensors(base)
        findings += look(found)
        frame = frame.join(_rows(found))
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    advice = advise(findings, found, _call(pretrained, named))
    cosines = pd.DataFrame() if found is None else found.cosines
    return Report(
        None if pretrained is None else _place(pretrained), frame, cosines, tensors, tuple(findings), advice,
        time.perf_counter() - start,
    )  # fmt: skip


_TENSORS = ("kind", "dtype", "shape", "numbers")


def _named(experts: Mapping[str, Model] | Iterable[tuple[str, Model]]) -> dict[str, Model]:
    pairs = list(experts.items() if isinstance(experts, Mapping) else experts)
    names = [name for name, _ in pairs]
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
            state = model
        elif name is None:
            state = open_base(model)
        else:
            state = open_expert(model, base)
        if told := quantised(layout_of(state)):
            owner = PRETRAINED if name is None else f"{name!r}"
            raise _Quantised(f"{owner} is quantised ({told}), and codes cannot be averaged")
    except _Quantised as error:
        mend = "merge the models as they were before, then quantise the result"
        findings.append(Finding(ERROR, "quantised", who, str(error), mend))
    except (CheckpointError, OSError) as error:
        findings.append(Finding(ERROR, "unreadable", who, str(error)))
    else:
        return state
    return None


class _Quantised(Exception):
    pass


def _fitting(base: StateDict, models: Mapping[str, StateDict], findings: list[Finding]) -> dict[str, StateDict]:
    """The models that can be merged with a base by their headers; why others cannot is found."""
    fit = {}
    for name, state in models.items():
        try:
            check_state_dicts(layout_of(base), {name: layout_of(state)})
        except CheckpointError as error:
            findings.append(Finding(ERROR, "layout", (name,), str(error)))
        else:
            fit[name] = state
    return fit


def _measured(
    base: StateDict, models: Mapping[str, StateDict], findings: list[Finding], progress: bool
) -> Geometry:
    """The geometry of experts, from one pass; tensors that are not finite are found, and left out."""
    with tqdm(desc="Checking", total=len(base), leave=False, disable=None if progress else True) as bar:
        tv = lazy_task_vectors(base, models, bar.update)
        broken: dict[str, CheckpointError] = {}
        found = geometry(tv, ranks=True, broken=broken.setdefault)
    for key, error in broken.items():
        bad = tuple(name for name, state in models.items() if not is_finite(state[key]))
        findings.append(Finding(ERROR, "not_finite", bad, str(error)))
    return found


def _about(named: Mapping[str, Model], models: Mapping[str, StateDict]) -> pd.DataFrame:
    rows = {}
    for name, model in named.items():
        layout = layout_of(models[name]) if name in models else {}
        floats = [tensor for tensor in layout.values() if is_merged(tensor)]
        dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in floats})
        rows[name] = {
            "path": _place(model), "parameters": sum(t.numel() for t in floats), "dtypes": ", ".join(dtypes),
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index")


def _rows(found: Geometry) -> pd.DataFrame:
    frame = compare(found)
    frame.insert(2, "beside_others", beside_others(found))
    frame["rank"], frame["noise"] = found.effective_ranks
    frame["strange"] = strangeness(found)[0]
    return frame


def _tensors(base: StateDict) -> pd.DataFrame:
    rows = {}
    for key, tensor in layout_of(base).items():
        kind = "statistics" if is_statistic(key) else "copied" if is_copied(key, tensor) else "merged"
        dtype = str(tensor.dtype).removeprefix("torch.")
        rows[key] = dict(zip(_TENSORS, (kind, dtype, list(tensor.shape), tensor.numel()), strict=True))
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(_TENSORS))


def _place(model: Model) -> str:
    return "a state dict" if isinstance(model, Mapping) else os.fspath(model)


def _call(pretrained: Model | None, named: Mapping[str, Model]) -> Call:
    everything = [pretrained, *named.values()]
    files = not any(isinstance(model, Mapping) for model in everything)
    return Call(
        None if pretrained is None else _place(pretrained), {name: _place(m) for name, m in named.items()}, files=files
    )
