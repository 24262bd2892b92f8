"""Below figures and tables: the cell or directive, the records, and the command that makes them again."""

from __future__ import annotations

import re
from collections.abc import Iterable

import nbformat
from nbformat import NotebookNode

from .. import rooms

SHOWN = ("image/png", "text/html")
"""Kinds of output that are a figure or a table."""


def keeps(cell: NotebookNode) -> bool:
    """Whether a code cell shows the suite itself, or replays a fit: no record can draw it again."""
    return ".images" in cell.source or "run.replay(" in cell.source


def add(notebook: NotebookNode, name: str, run: str | None, profile: str) -> None:
    """Put the notes below the figures and tables of a page, in place; none where there is no record.

    Arguments:
        notebook: as the page lays it out.
        name: its name.
        run: the variant that the page shows; None for the default page.
        profile: the world that it ran on.
    """
    if name not in rooms.rooms():
        return
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if _shows(cell):
            cells.append(nbformat.v4.new_markdown_cell(_note(cell, name, run, profile), id=f"made-by-{cell.id}"[:64]))
    notebook.cells = cells


def _shows(cell: NotebookNode) -> bool:
    """Whether a cell shows a figure or a table that is not folded away with it."""
    if cell.cell_type != "code" or "hide-cell" in cell.metadata.get("tags", ()):
        return False
    return any(kind in output.get("data", ()) for output in cell.get("outputs", ()) for kind in SHOWN)


def _note(cell: NotebookNode, name: str, run: str | None, profile: str) -> str:
    path = f"book/runs/{run}/{name}.ipynb" if run else f"notebooks/{name}.ipynb"
    record = f"book/runs/{run}/{name}/{profile}/{name}.json" if run else f"results/{rooms.face(name).world}/{name}.json"
    # An id that an editor drew tells a reader nothing; Jupyter shows the number beside the cell.
    drawn = re.fullmatch("[0-9a-f]{8}", cell.id) and cell.execution_count
    called = f"[{cell.execution_count}]" if drawn else cell.id
    what = f"Cell `{called}` of `{path}`"
    if keeps(cell):
        told = f"{what}, which shows the data themselves. To run it: {{doc}}`/book/rerun`."
    else:
        again = f"python -m adamerging_study.book.redraw {name}" + (f" --run {run}" if run else "")
        told = (
            f"{what}, from `{record}`. Drawn again without measuring: `{again}`. "
            "Measured anew: {doc}`/book/rerun`."
        )
    return _folded(told)


def generated(files: Iterable[str], anew: str = "{doc}`/book/rerun`") -> str:
    """The note below a figure or table that is made when the pages are built.

    Arguments:
        files: what it is made from, from the repository's root.
        anew: how these are measured anew, in MyST.
    """
    told = ", ".join(f"`{file}`" for file in files)
    return _folded(f"Made with the page, from {told}. Again without measuring: `make html`. Measured anew: {anew}.")


def _folded(told: str) -> str:
    return f":::{{dropdown}} Made by\n:class-container: made-by\n{told}\n:::\n"
