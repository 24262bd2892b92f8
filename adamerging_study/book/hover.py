"""What a figure's marks stand for, in the page: a list that ``hover.js`` reads when the mouse or a key asks for it."""

from __future__ import annotations

import json

import nbformat
from nbformat import NotebookNode

from ..hover import KEY


def add(notebook: NotebookNode, profile: str) -> None:
    """Put the spots of a cell's figures below it, in place.

    Arguments:
        notebook: as the page lays it out.
        profile: the world that it ran on.
    """
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        found = [json.loads(output.metadata.get("image/png", {}).get(KEY, "[]")) for output in _figures(cell)]
        if any(found):
            told = json.dumps({"run": profile, "figures": found}, ensure_ascii=False).replace("</", "<\\/")
            source = f'```{{raw}} html\n<script type="application/json" class="figure-hover">{told}</script>\n```'
            cells.append(nbformat.v4.new_markdown_cell(source, id=f"hover-{cell.id}"[:64]))
    notebook.cells = cells


def _figures(cell: NotebookNode) -> list[NotebookNode]:
    outputs = cell.get("outputs", ()) if cell.cell_type == "code" else ()
    return [output for output in outputs if "image/png" in output.get("data", ())]
