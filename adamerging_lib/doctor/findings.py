"""What is found in a set of experts: how bad it is, whom it concerns, what is wrong, and what mends it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

ERROR, WARNING, NOTE = "error", "warning", "note"
LEVELS = (ERROR, WARNING, NOTE)
"""Cannot be merged, or makes no sense merged; worth a look before; good to know."""

PRETRAINED = "pretrained"
"""How θ0 is called in messages."""


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Arguments:
        level: one of ``LEVELS``.
        code: its kind, one word or two; stable, for programs.
        experts: whom it concerns; empty for the set as a whole, or for θ0.
        message: what is wrong, one sentence without its full stop.
        mend: what to do about it; empty for a note that asks for nothing.
    """

    level: str
    code: str
    experts: tuple[str, ...]
    message: str
    mend: str = ""

    def __str__(self) -> str:
        return self.message + (f": {self.mend}" if self.mend else "")


def worst(findings: Iterable[Finding]) -> str | None:
    """The gravest level among findings; None where there is none."""
    found = {finding.level for finding in findings}
    return next((level for level in LEVELS if level in found), None)


def exit_code(findings: Iterable[Finding]) -> int:
    """0 where nothing is wrong, 1 after warnings, 2 after errors."""
    return {ERROR: 2, WARNING: 1}.get(worst(findings), 0)


def of(findings: Iterable[Finding], *codes: str) -> set[str]:
    """The experts that findings of some kinds concern."""
    return {expert for finding in findings if finding.code in codes for expert in finding.experts}
