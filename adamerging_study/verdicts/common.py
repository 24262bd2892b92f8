"""What a verdict is: a measured number, the range that it must lie in, and one of three words.

Lines hold no measured number, so that a notebook's stored verdicts compare equal on every machine until one flips.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

HOLDS, FAILS, NOT_RUN = "holds", "does not hold", "not run"


@dataclass(frozen=True)
class Verdict:
    """One check: ``low <= value <= high``; NaN for a value that the record lacks.

    Arguments:
        check: the statement, in words.
        value: points of accuracy, or percent.
        low, high: the range in which the statement holds, ends included.
        digits: shown after the point.
    """

    check: str
    value: float
    low: float = -math.inf
    high: float = math.inf
    digits: int = 1

    @property
    def word(self) -> str:
        """``holds``, ``does not hold`` or ``not run``."""
        if math.isnan(self.value):
            return NOT_RUN
        return HOLDS if self.low <= self.value <= self.high else FAILS

    def __str__(self) -> str:
        return f"{self.check}: {self.word}"


def to_frame(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Verdicts as a table: check, measured, required, verdict."""
    return pd.DataFrame(
        [(v.check, "–" if math.isnan(v.value) else f"{v.value:.{v.digits}f}", _range(v), v.word) for v in verdicts],
        columns=["check", "measured", "required", "verdict"],
    )


def _range(verdict: Verdict) -> str:
    if math.isinf(verdict.high):
        return f"≥ {verdict.low:g}"
    if math.isinf(verdict.low):
        return f"≤ {verdict.high:g}"
    return f"{verdict.low:g} to {verdict.high:g}"


def lookup(values: pd.Series) -> Callable[[str], float]:
    """A method's value, NaN where the record lacks it."""
    return lambda method: float(values.get(method, math.nan))
