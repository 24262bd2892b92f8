"""Result first: how the page of an experiment is laid out when the book is built.

A notebook runs from its parameters to its verdicts, and is opened in Jupyter in that order. A reader comes for the
result. Two tags say what it is: ``take-away``, a cell of sentences made from numbers of the record, and ``lead``, the
figure or table to see first. The page then begins with them, folds all code, and holds its verdicts once, folded.
"""

from __future__ import annotations

import re

import nbformat
from nbformat import NotebookNode

from .. import rooms

LEAD = "lead"
TAKE_AWAY = "take-away"
HEADING = "## The experiment"
"""Stands before what introduces the experiment, once the result has been shown."""

_CODE = "Show the code"
_LOOKED_UP = re.compile(r"(\{(?:number|intervals?|verdict)\}`\+?)([\w-]+)(?=/)")


def tagged(cell: NotebookNode, tag: str) -> bool:
    """Whether a cell has a tag."""
    return tag in cell.metadata.get("tags", ())


def wanted(notebook: NotebookNode) -> bool:
    """Whether the notebook asks for this layout: one of its cells is its lead."""
    return any(tagged(cell, LEAD) for cell in notebook.cells)


def arrange(notebook: NotebookNode, name: str, run: str | None, profile: str) -> None:
    """Lay the page out, in place: take-away and lead at the top, code and verdicts folded.

    Arguments:
        notebook: whose first cell is the title and nothing else.
        name: its name.
        run: the variant that the page shows; None for the default page.
        profile: the world that it ran on.
    """
    for cell in notebook.cells:
        if cell.cell_type == "code":
            _fold_code(cell)
    title, *rest = notebook.cells
    top = [box for cell in rest if tagged(cell, TAKE_AWAY) if (box := _box(cell, name, run, profile))]
    lead = _lead(rest)
    moved = {id(cell) for cell in lead} | {id(cell) for cell in rest if tagged(cell, TAKE_AWAY)}
    rest = [shown for cell in rest if id(cell) not in moved for shown in _with_verdicts(cell, name, run)]
    rest[0].source = f"{HEADING}\n\n{rest[0].source}"
    notebook.cells = [title, *top, *lead, *rest]


def fold(cell: NotebookNode, tag: str, prompt: str) -> None:
    """Fold a cell, or a part of it, away: ``hide-input``, ``hide-cell``."""
    cell.metadata["tags"] = [*cell.metadata.get("tags", []), tag]
    cell.metadata.setdefault("mystnb", NotebookNode())["code_prompt_show"] = prompt


def _fold_code(cell: NotebookNode) -> None:
    tags = cell.metadata.get("tags", [])
    if "hide-input" in tags:
        return
    if "hide-output" in tags:
        cell.metadata["tags"] = [tag for tag in tags if tag != "hide-output"]
        fold(cell, "hide-cell", "Show the table and its code")
    elif "parameters" in tags:
        fold(cell, "hide-input", "Show the parameters")
    elif _tells_verdicts(cell):
        fold(cell, "hide-cell", "Show the verdicts of this run")
    elif "run.finish(" in cell.source:
        fold(cell, "hide-cell", "Show the lines that a check compares")
    else:
        fold(cell, "hide-input", _CODE)


def _tells_verdicts(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and "claims.verdicts_of(" in cell.source


def _with_verdicts(cell: NotebookNode, name: str, run: str | None) -> list[NotebookNode]:
    """The cell; on a default page the verdicts of all worlds in the place of this one's, which are among them."""
    if run is None and _tells_verdicts(cell):
        return [nbformat.v4.new_markdown_cell(f"```{{worlds}} {name}\n```", id="worlds")]
    return [cell]


def _lead(cells: list[NotebookNode]) -> list[NotebookNode]:
    """The first lead that the page has, and what is said of it in the next cell, where that is a finding."""
    place = next(place for place, cell in enumerate(cells) if tagged(cell, LEAD))
    finding = [cell for cell in cells[place + 1 : place + 2] if cell.cell_type == "markdown" and _is_finding(cell)]
    return [cells[place], *finding]


def _is_finding(cell: NotebookNode) -> bool:
    return tagged(cell, "default-only") and not cell.source.startswith("#")


def _box(cell: NotebookNode, name: str, run: str | None, profile: str) -> NotebookNode | None:
    """The take-away with the numbers of the page's own world; None for a run that the roles cannot look up.

    Roles find records by world, so that a variant of another name would be told the numbers of another run.
    """
    if run not in (None, profile):
        return None
    world = rooms.face(name).world if run is None else profile
    told = _LOOKED_UP.sub(rf"\g<1>{world}", cell.source)
    source = f"::::{{admonition}} In short\n:class: take-away\n{told}\n::::"
    return nbformat.v4.new_markdown_cell(source, id=cell.id)
