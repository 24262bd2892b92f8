"""What can be said of experts when the model that they began from is not at hand."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..vectors.geometry import Geometry
from .angles import common, strangeness
from .findings import ERROR, NOTE, PRETRAINED, WARNING, Finding
from .thresholds import FOREIGN, SHARED

RIGHT_ANGLES = 0.2
"""Mean cosine below which the others look like experts, seen from one of the models: honest ones have up to 0.14."""

NO_BASE = Finding(
    WARNING, "no_base", (), f"Neither task vectors nor their conflicts are known without {PRETRAINED}",
    "give --pretrained",
)  # fmt: skip


def look_without_base(origin: str, found: Geometry) -> tuple[list[Finding], pd.DataFrame]:
    """What distances between experts tell without θ0.

    Arguments:
        origin: name of the expert that the others are measured from.
        found: their geometry, with that expert in the place of θ0.

    Returns:
        Findings, and a frame with one row per expert: ``nearest`` the closest other one, and how far ``apart`` they
        are, as a share of the expert's own length.
    """
    names = (origin, *found.tasks)
    gram = np.zeros((len(names),) * 2)
    gram[1:, 1:] = found.total("gram")
    square = np.maximum(gram.diagonal()[:, None] + gram.diagonal() - 2 * gram, 0)
    base = float(found.total("base"))
    lengths = np.sqrt(np.maximum(np.concatenate([[base], base + 2 * found.total("along") + gram.diagonal()[1:]]), 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = np.sqrt(square) / lengths[:, None]
    np.fill_diagonal(apart, np.inf)
    nearest = apart.argmin(axis=1)
    frame = pd.DataFrame(
        {"nearest": [names[k] for k in nearest], "apart": apart[range(len(names)), nearest]}, index=list(names)
    )
    findings = _same(names, found) + _strange(names, found)
    strange = {name for finding in findings if finding.code == "foreign" for name in finding.experts}
    index = [k for k, name in enumerate(names) if name not in strange]
    return findings + _base_among(names, gram, index), frame


def _same(names: tuple[str, ...], found: Geometry) -> list[Finding]:
    equal = np.zeros((len(names),) * 2, dtype=bool)
    equal[1:, 1:] = found.equal
    equal[0, 1:] = found.norms == 0
    pairs = [(names[j], names[k]) for j, k in zip(*np.triu_indices(len(names), 1), strict=True) if equal[j, k]]
    return [
        Finding(ERROR, "same", (a, b), f"experts {a!r} and {b!r} are the same model", f"leave {b!r} out")
        for a, b in pairs
    ]


def _strange(names: tuple[str, ...], found: Geometry) -> list[Finding]:
    share = strangeness(found)[0]
    odd = [name for name, part in zip(found.tasks, share, strict=True) if part >= FOREIGN]
    if len(odd) == len(found.tasks) > 1:
        odd = [names[0]]  # the others may agree among each other
    said = "has most matrices unlike the others': it began from another base"
    return [Finding(ERROR, "foreign", (name,), f"expert {name!r} {said}", "leave it out") for name in odd]


def _base_among(names: tuple[str, ...], gram: np.ndarray, index: list[int]) -> list[Finding]:
    """Whether one of the models looks like the base: three at least are needed for two ways to be compared."""
    if len(index) < 3:
        return [NO_BASE]
    seen = {k: common(_from(gram, k), [j for j in index if j != k]) for k in index}
    best = min(seen, key=seen.get)
    if seen[best] < RIGHT_ANGLES and min(value for k, value in seen.items() if k != best) > SHARED:
        return [Finding(
            WARNING, "no_base", (names[best],),
            f"expert {names[best]!r} looks like the base of the others: seen from it they are at right angles "
            f"(mean cosine {seen[best]:.2f})", f"give {names[best]!r} as --pretrained",
        )]  # fmt: skip
    note = Finding(NOTE, "no_base_among", (), f"none of these looks like the base of the others (mean cosines from "
                   f"{seen[best]:.2f} up)")  # fmt: skip
    return [NO_BASE, note]


def _from(gram: np.ndarray, origin: int) -> np.ndarray:
    return gram - gram[origin] - gram[:, [origin]] + gram[origin, origin]
