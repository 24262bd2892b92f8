"""Which method to take for a set of experts, by which command, and what to expect of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import Any

import pandas as pd

from ..files.align import Options
from ..methods.registry import find, methods
from ..published.competitions import BOUNDS, ONE
from ..runtime.text import paragraph, table
from ..vectors.geometry import Geometry
from .findings import ERROR, PRETRAINED, Finding, of

CLEAN, STRETCHED = "clean", "one expert stretched"
"""Cases that `evidence` tells of: experts as they are, or one of them with its task vector times ten."""

SPECTRAL = ("wudi", "wudi_adam", "swudi", "swudi_a", "actmat", "ace", "svc", "tsv_m", "iso_c", "iso_cts")
"""Methods that treat matrices and average all other tensors."""

MATRICES = 0.5
"""Share of entries in matrices, below which methods on matrices would average most of a model."""

LONG = 24.0
"""Hours of one core above which methods on matrices are not recommended."""

_SPEED = 1.5e10  # operations per second of one core: eight ViT-B/32 take wudi four minutes
_KNOWN = ("task_arithmetic", "ties")  # what a reader has heard of, beside what is recommended
_SPLIT = " \\\n  "
_ENDS = ("zero_shot", "individual")


@dataclass(frozen=True)
class Advice:
    """What to do with a set of experts.

    Arguments:
        method: id of the method to take; None where nothing should be merged.
        why: the reasons, as sentences.
        command: to run in a shell, or the call from Python where the experts are not files; None without a method.
        expect: what came out elsewhere, as sentences.
        without: experts that the command leaves out.
        options: of the command, without which the models do not fit together.
        evidence: ``world``, ``case``, ``method``, ``accuracy`` (percent, mean over the tasks) of the methods named.
    """

    method: str | None
    why: str
    command: str | None = None
    expect: str = ""
    without: tuple[str, ...] = ()
    options: str = ""
    evidence: pd.DataFrame = field(default_factory=pd.DataFrame)

    def plain(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        told = {name: getattr(self, name) or None for name in ("method", "why", "command", "expect", "options")}
        return told | {"without": list(self.without), "evidence": self.evidence.to_dict("records")}

    def text(self, exit_code: int) -> str:
        """As text for people.

        Arguments:
            exit_code: of the report.
        """
        if self.method is None:
            what = "do not merge these" if exit_code == 2 else "do not merge these yet"
            lines = [f"What to do: {what}", paragraph(self.why, "  ")]
            lines += ["", *("  " + line for line in self.command.splitlines())] if self.command else []
            return "\n".join(lines)
        blocks = [paragraph(f"What to do: {self._what(exit_code)}"), paragraph(self.why, "  "), ""]
        blocks += ["  " + line for line in (self.command or "").splitlines()]
        if len(self.evidence):
            blocks += ["", *("  " + line for line in table(_wide(self.evidence)).splitlines()), ""]
            blocks.append(paragraph(self.expect, "  "))
        return "\n".join(blocks)

    def _what(self, exit_code: int) -> str:
        if self.options:
            return f"these fit with {self.options}; merge them so, by {self.method}"
        if self.without:
            first = "do not merge these as they are: mend them, or leave out" if exit_code == 2 else "leave out"
            return f"{first} {', '.join(map(repr, self.without))}, and merge the others by {self.method}"
        return f"merge them by {self.method}"


def evidence() -> pd.DataFrame:
    """Average accuracies (percent) of data-free methods over eight tasks, as this project measured them.

    Returns:
        Columns ``world``, ``case`` (one of the cases of this module), ``method``, ``accuracy``; written from the
        records of the leaderboards and of `check` by the study, which tests that they agree.
    """
    with files(__package__).joinpath("evidence.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def advise(findings: Sequence[Finding], found: Geometry | None, call: Call) -> Advice:
    """The method to take for experts, or why none.

    Arguments:
        findings: of these experts.
        found: their geometry; None where it is not known.
        call: what was given.
    """
    errors = [finding for finding in findings if finding.level == ERROR]
    if exchanged := of(errors, "exchanged"):
        return Advice(None, "Exchange the two, and check again.", call.exchanged(next(iter(exchanged))))
    if any(not finding.experts for finding in errors if finding.code != "layout"):
        return Advice(None, f"Mend first what is said of {PRETRAINED}, then check again.")
    if call.pretrained is None:
        base = next(iter(of(findings, "no_base")), None)
        command = call.exchanged(base) if base else call.again("BASE", list(call.experts))
        return Advice(None, f"Without {PRETRAINED} nobody knows what an expert learned: check again with it.", command)
    # An expert can be left out, where a person does not mend it; of two that are the same, the second.
    without = of(findings, "untrained", "rounded")
    mended = "layout" if call.options != call.given else None  # then the options of the command let it go on
    for finding in findings:
        if (finding.level == ERROR and finding.code != mended) or finding.code == "copy":
            without |= set(finding.experts[1:] if finding.code in ("same", "copy") else finding.experts)
    kept = [name for name in call.experts if name not in without]
    told = tuple(name for name in call.experts if name in without)
    if len(kept) < 2 or found is None:
        left = ", ".join(map(repr, kept)) or "none"
        needed = "A merge needs two experts at least that are whole, trained, different, and of one base"
        return Advice(None, f"{needed}; left: {left}.", without=told)
    case = STRETCHED if of(findings, "far", "uneven") - without else CLEAN
    known, candidates = evidence(), _candidates(found)
    ordered, best = _ordered(known, case, candidates), _ordered(known, CLEAN, candidates)[0]
    named = [*_ENDS, best, *ordered[:2], *_KNOWN]
    shown = known[known["method"].isin(named) & known["case"].isin([CLEAN, case])]
    why = _why(ordered, case, found)
    if len(of(findings, "adapter") & set(kept)) == len(kept):
        why += " With --adapter, methods that are linear in task vectors write one adapter in the place of a model."
    options = call.options.command if mended else ""
    return Advice(ordered[0], why, call.merge(ordered[0], kept), _expect(known, ordered[0], case), told, options, shown)


@dataclass(frozen=True)
class Call:
    """What `check` was given, from which the call of a merge follows.

    Arguments:
        pretrained: where θ0 is; None where it was not given.
        experts: name → where it is.
        options: with which the models fit together.
        files: whether all of them are files; else the call is one from Python.
        given: the options as they were given, with which they may not fit.
    """

    pretrained: str | None
    experts: Mapping[str, str]
    options: Options = field(default_factory=Options)
    files: bool = True
    given: Options = field(default_factory=Options)

    def merge(self, method: str, experts: Sequence[str]) -> str:
        """The call that merges some of the experts, to be copied whole.

        Arguments:
            method: its id.
            experts: their names.
        """
        if not self.files:
            gone = [name for name in self.experts if name not in experts]
            lines = [f"for name in {gone}:\n    experts.pop(name)"] if gone else []
            more = f", {self.options.python}" if self.options.python else ""
            lines.append(f"vectors = am.TaskVectors.from_state_dicts(pretrained, experts{more})")
            return "\n".join([*lines, f"merged = am.merge({method!r}, vectors)"])
        lines = [f"adamerging merge --method {method}", *self._models(str(self.pretrained), experts)]
        return _SPLIT.join([*lines, f"--out {shlex.quote(_free('merged.safetensors'))}"])

    def again(self, pretrained: str, experts: Sequence[str], more: Sequence[str] = ()) -> str | None:
        """The call that checks some of the experts beside another base; None where these are not files.

        Arguments:
            pretrained: where that base is.
            experts: their names.
            more: ``name=file`` of further experts.
        """
        if not self.files:
            return None
        lines = ["adamerging check", *self._models(pretrained, experts)]
        return _SPLIT.join([*lines, *(f"--expert {shlex.quote(pair)}" for pair in more)])

    def exchanged(self, expert: str) -> str | None:
        """The call that checks again with one of the experts as the base, and what was the base as an expert."""
        was = [] if self.pretrained is None else [f"{expert}={self.pretrained}"]
        return self.again(self.experts[expert], [name for name in self.experts if name != expert], was)

    def _models(self, pretrained: str, experts: Sequence[str]) -> list[str]:
        lines = [f"--pretrained {shlex.quote(pretrained)}"]
        lines += [f"--expert {shlex.quote(f'{name}={self.experts[name]}')}" for name in experts]
        return [*lines, self.options.command] if self.options.command else lines


def _free(name: str) -> str:
    """The name of a file that does not exist yet, near the one wanted."""
    path, number = Path(name), 2
    while path.exists():
        path, number = Path(name).with_stem(f"{Path(name).stem}-{number}"), number + 1
    return str(path)


def _candidates(found: Geometry) -> list[str]:
    """Data-free methods that give one model, tensor by tensor, and suit the shapes of the tensors."""
    free = [id for id in methods().index if id not in BOUNDS]
    free = [id for id in free if (m := find(id)).needs == "nothing" and m.gives == ONE and m.streams]
    if _in_matrices(found) < MATRICES or spectral_hours(found) > LONG:
        return [id for id in free if id not in SPECTRAL]
    return free


def _ordered(known: pd.DataFrame, case: str, candidates: Sequence[str]) -> list[str]:
    """Candidates from best to worst on average, of those measured in every world that the case was measured in."""
    rows = known[(known["case"] == case) & known["method"].isin(candidates)]
    by = rows.groupby("method")
    means = by["accuracy"].mean()[by["world"].nunique() == rows["world"].nunique()]
    return means.sort_values(ascending=False).index.tolist()


def _in_matrices(found: Geometry) -> float:
    """The share of all entries that lie in matrices."""
    sizes = {key: prod(part.shape) for key, part in found.parts.items()}
    inside = sum(size for key, size in sizes.items() if len(found.parts[key].shape) == 2)
    return inside / max(1, sum(sizes.values()))


def spectral_hours(found: Geometry) -> float:
    """About how many hours of one core methods on matrices take: an eigendecomposition per matrix, and products."""
    shapes = [part.shape for part in found.parts.values() if len(part.shape) == 2]
    work = sum(10.0 * n**3 + 2.0 * len(found.tasks) * m * n**2 for m, n in shapes)
    return work / _SPEED / 3600


def _why(ordered: Sequence[str], case: str, found: Geometry) -> str:
    reasons = []
    condition = " with one expert stretched" if case == STRETCHED else ""
    reasons.append(
        f"Of the methods that need nothing but checkpoints, give one model and were measured in all of this project's "
        f"worlds{condition}, {ordered[0]} was best on average, then {ordered[1]}. Measure what you merge."
    )
    if _in_matrices(found) < MATRICES:
        reasons.append(
            "Methods on matrices (wudi, tsv_m) are left aside: most of this model's numbers lie in convolutions and "
            "vectors, which they only average. The evidence is of transformers."
        )
    elif (hours := spectral_hours(found)) > LONG:
        reasons.append(f"Methods on matrices (wudi, tsv_m) are left aside: they take some {hours:.0f} hours here.")
    elif hours > 0.1:
        reasons.append(f"Expect about {hours:.1f} hours of one core.")
    return " ".join(reasons)


def _expect(known: pd.DataFrame, method: str, case: str) -> str:
    told, at = [], known.set_index(["world", "case", "method"])["accuracy"]
    for world in known.loc[known["case"] == case, "world"].unique():
        low, high = (at[world, CLEAN, end] for end in _ENDS)
        share = 100 * (at[world, case, method] - low) / (high - low)
        told.append(f"{share:.0f} % on {world} (from {low:.1f} to {at[world, case, method]:.1f}, experts {high:.1f})")
    return (
        f"What to expect: of what the experts gain over their base, one model by {method} kept {' and '.join(told)}. "
        f"Your models are another world: measure. With unlabelled images of your tasks more is possible: "
        f"adamerging methods --needs 'unlabelled test images'"
    )


def _wide(known: pd.DataFrame) -> pd.DataFrame:
    """World (and case) × methods, as text, the ends left and right."""
    labels = {_ENDS[0]: "pretrained", _ENDS[1]: "experts"}
    rows = known["world"] + known["case"].map(lambda case: "" if case == CLEAN else f", {case}")
    frame = known.assign(row=rows).pivot(index="row", columns="method", values="accuracy")
    frame = frame.reindex(rows.unique())
    means = frame.drop(columns=list(_ENDS), errors="ignore").mean().sort_values()
    ordered = [id for id in (_ENDS[0], *means.index, _ENDS[1]) if id in frame]
    frame = frame[ordered].rename(columns=labels).rename_axis(index="accuracy, %", columns=None)
    return frame.map(lambda value: "–" if pd.isna(value) else f"{value:.1f}")
