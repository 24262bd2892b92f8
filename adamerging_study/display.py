"""How notebooks show a data frame or sentences: plain HTML without random ids, and text outside a browser."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Table:
    """A data frame with a caption; columns named published are marked cell by cell."""

    frame: pd.DataFrame
    caption: str
    index: bool = True

    def _repr_html_(self) -> str:
        cells = self.frame.copy()
        for place, column in enumerate(self.frame.columns):
            mark = '<span class="published">{}</span>' if "published" in " ".join(np.atleast_1d(column)) else "{}"
            cells.isetitem(place, [_cell(value, mark) for value in self.frame.iloc[:, place]])
        table = cells.to_html(border=0, index=self.index, escape=False)
        return table.replace("\n  <thead>", f"\n  <caption>{html.escape(self.caption)}</caption>\n  <thead>", 1)

    def __repr__(self) -> str:
        return f"{self.caption}\n{self.frame.to_string(na_rep='–', index=self.index)}"


@dataclass(frozen=True)
class Sentences:
    """Sentences computed from a record, shown as a list."""

    lines: Sequence[str]

    def _repr_html_(self) -> str:
        items = "\n".join(f"<li>{html.escape(line)}</li>" for line in self.lines)
        return f"<ul>\n{items}\n</ul>"

    def __repr__(self) -> str:
        return "\n".join(self.lines)


def _cell(value: object, mark: str) -> str:
    if pd.isna(value):
        return "–"
    text = mark.format(html.escape(str(value)))
    return re.sub(r" (± [\d.]+)", r"<br><small>\1</small>", text)  # narrow columns, for telephones
