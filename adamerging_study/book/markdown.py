"""Pieces of MyST text that pages made at build time are put together from."""

from __future__ import annotations

from collections.abc import Iterable

from .. import verdicts

BADGES = {verdicts.HOLDS: "success", verdicts.FAILS: "danger", verdicts.NOT_RUN: "secondary"}


def badge(word: str) -> str:
    """A verdict as a badge of sphinx-design."""
    return f"{{bdg-{BADGES[word]}}}`{word}`"


def table(rows: Iterable[Iterable[object]], header: Iterable[str]) -> str:
    """A Markdown table in the look of the notebooks' data frames; pipes and line ends in cells are made harmless."""
    lines = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in [list(header), *rows]]
    lines.insert(1, ["---"] * len(lines[0]))
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"::::{{table}}\n:class: dataframe\n\n{body}\n::::\n"


def measured(verdict: verdicts.Verdict) -> str:
    """A verdict as its badge, and below it what was measured, where anything was."""
    told = badge(verdict.word)
    return told if verdict.word == verdicts.NOT_RUN else f"{told}<br>{verdict.value:.{verdict.digits}f}"
