"""Pages drawn again from their committed records: new words, tables or figures without measuring anything.

A page on photographs, or of the paper's scale, cannot be run where its checkpoints are not; what it shows follows from
its record all the same. The tests draw every page so and compare.

    python -m adamerging_study.book.redraw performance          # the default page
    python -m adamerging_study.book.redraw performance --run tiny
"""

from __future__ import annotations

import copy
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import nbformat
import typer
from nbclient import NotebookClient
from nbformat import NotebookNode

from adamerging_lib.command.line import call
from adamerging_study.rooms import face, rooms

from . import notebooks
from .made_by import keeps
from .rerun import RUNS_FILE, filled, load_yaml, page, template

# Run before the notebook's own cells: loading gives next to nothing, measuring the record.
PRELUDE = """
import types
import torch
import adamerging_lib as am
from adamerging_lib.suite import TaskData
from adamerging_lib.worlds import corruptions
from adamerging_lib.worlds.mini.tasks import SIZES, TASKS as DRAWN
from adamerging_lib.worlds.text.tasks import TASKS as TEXTS
from adamerging_study import measuring

kept = am.records.read({record!r})
KNOWN = {{**DRAWN, **TEXTS}}
suite = types.SimpleNamespace(assets=kept["assets"])
suite.some_images = lambda *_: suite


def load_suite(profile, tasks=None):
    blank = torch.zeros(SIZES["test"], 3, 1, 1, dtype=torch.uint8), torch.zeros(SIZES["test"], dtype=torch.int64)
    suite.tasks = tuple(tasks or am.profile(profile).tasks)
    suite.test = {{name: TaskData(*blank, KNOWN[name].classes if name in KNOWN else ("",)) for name in suite.tasks}}
    return suite


def measure(run, suite):
    told, known = run.record(suite, [])["parameters"], kept["parameters"]
    if differing := [name for name in told if name in known and told[name] != known[name]]:
        raise ValueError(f"the record was measured with another {{', '.join(differing)}}: run the notebook")
    return kept


am.load_suite = load_suite
measuring.Run.measure = measure
measuring.Run.replay = lambda *_: ""
corruptions.corrupt = lambda suite, *_, **__: suite
"""


def redrawn(notebook: NotebookNode, record: Path, folder: Path) -> NotebookNode:
    """A copy of a notebook, executed on its record; cells that need the suite itself keep what they showed.

    Arguments:
        notebook: with its parameters.
        record: that it then shows.
        folder: in which it is run.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    again = copy.deepcopy(notebook)
    again.cells.insert(0, nbformat.v4.new_code_cell(PRELUDE.format(record=str(record.resolve()))))
    NotebookClient(again, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    del again.cells[0]
    for cell, before in zip(again.cells, notebook.cells, strict=True):
        if cell.cell_type == "code":
            cell.execution_count = cell.execution_count and cell.execution_count - 1
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = cell.execution_count
            if keeps(cell):
                cell.outputs = before.get("outputs", [])
    return notebooks.normalise(again)


PROGRAM = "python -m adamerging_study.book.redraw"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def _redraw(
    notebook: Annotated[str, typer.Argument(help="its name, such as performance")],
    run: Annotated[str | None, typer.Option(help="a variant of runs.yml; else the default page")] = None,
    record: Annotated[Path | None, typer.Option(help="default: the committed one")] = None,
) -> None:
    """Draw a page again from its record."""
    if notebook not in rooms():
        raise ValueError(f"{notebook!r} is not an experiment: there is no record to draw it from")
    if run is None:
        path, kept = template(notebook), record or Path("results", face(notebook).world, f"{notebook}.json")
        source = notebooks.read(path)
    else:
        path, values = page(notebook, run), load_yaml(RUNS_FILE)["runs"][run][notebook]
        values = filled(notebook, values, notebooks.parameters(template(notebook)))
        source = notebooks.with_parameters(template(notebook), values)
        kept = record or path.with_suffix("") / values.get("profile", "mini") / f"{notebook}.json"
    with tempfile.TemporaryDirectory() as folder:  # for the record that a page writes in the end
        os.environ["ADAMERGING_RESULTS"] = folder
        drawn = redrawn(source, kept, template(notebook).parent)
    notebooks.write(path, drawn)
    print(f"{path}: drawn again from {kept}")


if __name__ == "__main__":
    sys.exit(call(app, PROGRAM))
