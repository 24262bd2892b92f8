"""Pieces of MyST text that pages made at build time are put together from."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..judge import FAILS, HOLDS, NOT_RUN, UNDECIDED, Verdict, digits

_COLOURS = {HOLDS: "success", FAILS: "danger", UNDECIDED: "warning", NOT_RUN: "light"}


def badge_colour(word: str) -> str:
    """The colour of sphinx-design that a verdict's word has."""
    return _COLOURS[word]


def badge(word: str) -> str:
    """A verdict's word as a badge of sphinx-design."""
    return f"{{bdg-{badge_colour(word)}}}`{word}`"


def table(rows: Iterable[Iterable[object]], header: Iterable[str]) -> str:
    """A Markdown table in the look of the notebooks' data frames.

    Pipes and line ends in cells are made harmless; negative numbers get the minus sign that they have in prose.
    """
    lines = [[_cell(cell) for cell in row] for row in [list(header), *rows]]
    lines.insert(1, ["---"] * len(lines[0]))
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"::::{{table}}\n:class: dataframe\n\n{body}\n::::\n"


def _cell(content: object) -> str:
    text = str(content).replace("|", "\\|").replace("\n", " ")
    return re.sub(r"(?<!\w)-(?=\d)", "−", text)


def measured(verdict: Verdict | None) -> str:
    """A verdict as its badge, and below it what was measured, with its 95 % interval where there is one.

    An asterisk marks a word that rests on the point value alone; None is a claim without a record.
    """
    if verdict is None or verdict.word == NOT_RUN:
        return badge(NOT_RUN)
    form = f".{digits(verdict)}f"
    mark = r"\*" if verdict.point_only else ""
    told = f"{badge(verdict.word)}<br>{verdict.point:{form}}{mark}"
    if verdict.interval is not None:
        low, high = verdict.interval
        told += f" <small>({low:{form}} to {high:{form}})</small>"
    return told
