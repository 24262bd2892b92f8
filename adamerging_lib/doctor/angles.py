"""What lengths and angles of task vectors tell: of another base, stretched, hardly trained, copies of each other.

Every rule is a function of a `Geometry`; where the lines are drawn stands in `thresholds`, with the reasons.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from ..runtime.values import few
from ..vectors.geometry import Geometry, is_matrix
from .findings import ERROR, LEVELS, NOTE, PRETRAINED, WARNING, Finding
from .thresholds import (
    BETTER,
    CONFLICT,
    COPY,
    DISTANT,
    FAR,
    FOREIGN,
    NOISE,
    OPPOSED,
    ROUNDING,
    SHARED,
    SHORT,
    STILL,
    STRANGE,
)


def look(found: Geometry) -> list[Finding]:
    """Everything that lengths and angles tell of a set of experts beside θ0, the gravest first.

    Arguments:
        found: of `vectors.geometry.geometry`.
    """
    findings = _foreign(found)
    strangers = {name for finding in findings if finding.code == "foreign" for name in finding.experts}
    if any(finding.code == "foreign_base" for finding in findings):
        strangers = set(found.tasks)
    for rule in (_copies, _lengths, _shared, _outvoted):
        findings += rule(found, strangers)
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def beside_others(found: Geometry, but: Collection[str] = ()) -> np.ndarray:
    """‖T_k‖ against the median of the others that moved further than rounding ``[K]``; NaN where none did.

    Arguments:
        found: the geometry.
        but: experts that do not count as others.
    """
    norms, moved = found.norms, found.relative
    counted = np.array([moved[k] > ROUNDING and task not in but for k, task in enumerate(found.tasks)])
    ratios = np.full(len(norms), np.nan)
    for k, norm in enumerate(norms):
        others = np.delete(norms, k)[np.delete(counted, k)]
        if len(others):
            ratios[k] = norm / np.median(others)
    return ratios


def strangeness(found: Geometry) -> tuple[np.ndarray, list[list[str]]]:
    """Of each expert: the share of the entries of all matrices that lie in strange ones ``[K]``, and their names."""
    names: list[list[str]] = [[] for _ in found.tasks]
    entries, total = np.zeros(len(found.tasks)), 0
    for key, part in found.parts.items():
        if not is_matrix(part.shape) or not part.base:
            continue
        size = int(np.prod(part.shape))
        total += size
        moved = part.base + 2 * part.along + part.gram.diagonal()  # ‖θ_k‖²
        cosines = (part.base + part.along) / np.sqrt(np.maximum(part.base * moved, np.finfo(float).tiny))
        for k in np.flatnonzero(cosines < STRANGE):
            entries[k] += size
            names[k].append(key)
    return entries / max(total, 1), names


def _foreign(found: Geometry) -> list[Finding]:
    share, names = strangeness(found)
    foreign = tuple(task for task, part in zip(found.tasks, share, strict=True) if part >= FOREIGN)
    if foreign and len(foreign) == len(found.tasks):
        who = "this expert" if len(foreign) == 1 else "all experts"
        return [Finding(
            ERROR, "foreign_base", (),
            f"{PRETRAINED} is not what {who} began from: {share.min():.0%} of the entries or more lie in matrices that "
            f"have nothing in common with its own", "give the checkpoint that the experts were fine-tuned from",
        )]  # fmt: skip
    findings = []
    for task, part, strange in zip(found.tasks, share, names, strict=True):
        if task in foreign:
            findings.append(Finding(
                ERROR, "foreign", (task,),
                f"expert {task!r} began from another base, or has its units in another order: {part:.0%} of its "
                f"entries lie in matrices that have nothing in common with {PRETRAINED}'s",
                "leave it out, or fine-tune it again from this base",
            ))  # fmt: skip
        elif strange:
            findings.append(Finding(
                WARNING, "rewritten", (task,),
                f"expert {task!r} has nothing in common with {PRETRAINED} in {few(strange, 3)}, as if made anew",
                "where that is a head of its own, leave it out of the merge with --drop",
            ))  # fmt: skip
    return findings


def _lengths(found: Geometry, strangers: set[str]) -> list[Finding]:
    findings, counted = [], []
    for k, task in enumerate(found.tasks):
        if task in strangers:
            continue
        if found.norms[k] == 0:
            findings.append(Finding(
                WARNING, "untrained", (task,), f"expert {task!r} equals {PRETRAINED}",
                "it only thins out the others; leave it out",
            ))  # fmt: skip
        elif found.relative[k] > DISTANT:
            far = f"{found.relative[k]:.1f} times as far from {PRETRAINED} as that is from zero"
            said = far if np.isfinite(found.relative[k]) else f"a model, and {PRETRAINED} is all zeros"
            mend = "was it fine-tuned from this checkpoint?"
            findings.append(Finding(WARNING, "distant", (task,), f"expert {task!r} is {said}", mend))
        elif found.relative[k] < ROUNDING and found.effective_ranks[1][k] > NOISE:
            findings.append(Finding(
                WARNING, "rounded", (task,),
                f"expert {task!r} differs from {PRETRAINED} by {found.relative[k]:.2%} in all directions alike, as "
                f"rounding does, not training", "leave it out, or look whether its file is the trained one",
            ))  # fmt: skip
        else:
            counted.append(k)
    return findings + (_pair(found, counted) if len(counted) == 2 else _beside(found, strangers, counted))


def _pair(found: Geometry, pair: Sequence[int]) -> list[Finding]:
    """Of two, the median of the others is the other one: which of them is wrong, nobody can say."""
    short, long = sorted(pair, key=lambda k: found.norms[k])
    if (ratio := found.norms[long] / found.norms[short]) <= FAR:
        return []
    one, other = found.tasks[long], found.tasks[short]
    return [Finding(
        WARNING, "uneven", (one, other), f"expert {one!r} is {ratio:.1f} times as far from {PRETRAINED} as {other!r}",
        "was it stretched, or trained much longer, or is the training of the other one not complete?",
    )]  # fmt: skip


def _beside(found: Geometry, strangers: set[str], counted: Sequence[int]) -> list[Finding]:
    far = [k for k in counted if beside_others(found, strangers)[k] > FAR]
    # Who is short is asked without those that are far: of three, a far one would make both others look short.
    ratios, findings = beside_others(found, strangers | {found.tasks[k] for k in far}), []
    for k in counted:
        task, beside = found.tasks[k], f"times as far from {PRETRAINED} as the others (median)"
        if k in far:
            findings.append(Finding(
                WARNING, "far", (task,), f"expert {task!r} is {ratios[k]:.1f} {beside}",
                "was it stretched, trained much longer, or from another snapshot? Take an earlier checkpoint of it",
            ))  # fmt: skip
        elif ratios[k] < SHORT:
            told, code = ("hardly moved", "still") if ratios[k] < STILL else ("is short", "short")
            findings.append(Finding(
                WARNING, code, (task,), f"expert {task!r} {told}: {ratios[k]:.2g} {beside}",
                "is its training complete, and the file the trained one?",
            ))  # fmt: skip
    return findings


def _copies(found: Geometry, strangers: set[str]) -> list[Finding]:
    cosines, norms, equal = found.cosines.to_numpy(), found.norms, found.equal
    findings = []
    for j, k in zip(*np.triu_indices(len(norms), 1), strict=True):
        one, other = found.tasks[j], found.tasks[k]
        who = f"experts {one!r} and {other!r}"
        if norms[j] and equal[j, k]:
            findings.append(Finding(
                ERROR, "same", (one, other), f"{who} are the same model", f"leave {other!r} out"
            ))  # fmt: skip
        elif strangers & {one, other}:
            continue  # they are alike because they lie on the far side of the same θ0
        elif cosines[j, k] > COPY:
            findings.append(Finding(
                WARNING, "copy", (one, other),
                f"{who} are nearly the same: cosine {cosines[j, k]:.2f} between their task vectors",
                f"leave {other!r} out, or its task counts twice",
            ))  # fmt: skip
        elif cosines[j, k] < OPPOSED:
            findings.append(Finding(
                WARNING, "opposed", (one, other),
                f"{who} undo each other: cosine {cosines[j, k]:.2f} between their task vectors",
                "was one of them trained to forget, or subtracted?",
            ))  # fmt: skip
    return findings


def _shared(found: Geometry, strangers: set[str]) -> list[Finding]:
    gram, cosines = found.total("gram"), found.cosines.to_numpy()
    index = [k for k, task in enumerate(found.tasks) if task not in strangers and gram[k, k] > 0]
    if len(index) < 2 or (seen := common(gram, index)) < SHARED:
        return []
    if (cosines[np.ix_(index, index)] > COPY).all():
        return []  # said of the pairs
    there, best = min((from_there(gram, index, k), k) for k in index)
    if there < BETTER * seen:
        task = found.tasks[best]
        return [Finding(
            ERROR, "exchanged", (task,),
            f"expert {task!r} looks like the base of all: seen from it the others are at right angles (mean cosine "
            f"{there:.2f}), seen from {PRETRAINED} they go the same way ({seen:.2f})",
            f"give {task!r} as --pretrained; what is given as {PRETRAINED} is then an expert, or of no use",
        )]  # fmt: skip
    return [Finding(
        WARNING, "shared", (),
        f"the experts share a good part of their way from {PRETRAINED} (mean cosine {seen:.2f})",
        "was a later checkpoint their common start? Then give that one as --pretrained",
    )]  # fmt: skip


def common(gram: np.ndarray, index: list[int]) -> float:
    """Mean cosine of some task vectors, of their Gram matrix."""
    part = gram[np.ix_(index, index)]
    norms = np.sqrt(part.diagonal())
    values = part / np.maximum(norms[:, None] * norms, np.finfo(float).tiny)
    return float(values[np.triu_indices(len(index), 1)].mean())


def from_there(gram: np.ndarray, index: list[int], origin: int) -> float:
    """Mean cosine of the ways to θ0 and to the other experts, seen from one of the experts."""
    wide = np.zeros((len(gram) + 1,) * 2)  # θ0 comes last, at zero
    wide[:-1, :-1] = gram
    moved = wide - wide[origin] - wide[:, [origin]] + wide[origin, origin]
    return common(moved, [k for k in [*index, len(gram)] if k != origin])


def _outvoted(found: Geometry, strangers: set[str]) -> list[Finding]:
    shares = found.total("against") / found.total("changed").clip(1)
    told = {task: share for task, share in zip(found.tasks, shares, strict=True) if share > CONFLICT}
    return [
        Finding(NOTE, "outvoted", (task,), f"expert {task!r} moves {share:.0%} of its entries against the sum of all")
        for task, share in told.items()
        if task not in strangers
    ]
