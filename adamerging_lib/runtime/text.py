"""Text for a terminal: tables and paragraphs."""

from __future__ import annotations

import textwrap

import pandas as pd

WIDTH = 100
"""Columns that a terminal is taken to have."""


def table(frame: pd.DataFrame) -> str:
    """The index and columns of texts as lines, texts to the left and numbers to the right."""
    columns = []
    for name, values in frame.reset_index().items():
        cells = [str(name), *map(str, values)]
        side = str.rjust if all(cell[:1].isdigit() or cell == "–" for cell in cells[1:]) else str.ljust
        columns.append([side(cell, max(map(len, cells))) for cell in cells])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def paragraph(text: str, indent: str = "", first: str | None = None) -> str:
    """Text in lines of at most ``WIDTH`` columns; what is one word, such as a path, stays one.

    Arguments:
        text: what to say; its own lines after the first, such as a command's, are kept as they are.
        indent: before every line.
        first: before the first line instead.
    """
    head, *rest = text.split("\n")
    told = textwrap.fill(
        head, WIDTH, initial_indent=indent if first is None else first, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return "\n".join([told, *(indent + line for line in rest)])
