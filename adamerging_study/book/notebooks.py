"""Notebooks as files and as programs: read, write, normalise, list and check parameters, execute."""

from __future__ import annotations

import ast
import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import nbformat
import papermill
from nbformat import NotebookNode

from adamerging_lib.runtime.values import Parameter, check


def read(path: str | Path) -> NotebookNode:
    """The notebook at ``path``, in nbformat 4."""
    return nbformat.reads(Path(path).read_text(encoding="utf-8"), as_version=4)


def write(path: str | Path, notebook: NotebookNode) -> None:
    """Write ``notebook`` atomically, as nbformat lays it out."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(nbformat.writes(notebook).rstrip("\n") + "\n", encoding="utf-8")
    part.replace(path)


def normalise(notebook: NotebookNode) -> NotebookNode:
    """A copy without what differs between two runs that found the same: times, paths, random ids, stream chunks.

    Kept are sources, tags, outputs, execution counts and, of papermill's metadata, the parameters of a variant. Two
    executions with the same outputs become equal byte for byte; normalising twice changes nothing more.
    """
    notebook = copy.deepcopy(notebook)
    parameters = notebook.metadata.get("papermill", {}).get("parameters")
    notebook.metadata = NotebookNode(
        kernelspec=NotebookNode(display_name="Python 3", language="python", name="python3"),
        language_info=NotebookNode(name="python"),
    )
    if parameters:
        notebook.metadata["papermill"] = NotebookNode(parameters=parameters)
    for cell in notebook.cells:
        for volatile in ("papermill", "execution", "collapsed", "scrolled"):
            cell.metadata.pop(volatile, None)
        if "tags" in cell.metadata and not cell.metadata.tags:
            del cell.metadata["tags"]
        if "injected-parameters" in cell.metadata.get("tags", ()):
            cell["id"] = "injected-parameters"
        if cell.cell_type == "code":
            cell.outputs = _join_streams(cell.outputs)
    return notebook


def _join_streams(outputs: Iterable[NotebookNode]) -> list[NotebookNode]:
    # Where a kernel cuts its prints into messages depends on the clock.
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last is not None and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def source_digest(path: str | Path) -> str:
    """SHA-256 of what a run of the notebook depends on: its cells' sources and metadata, not their outputs."""
    cells = [[cell.cell_type, cell.source, cell.metadata] for cell in normalise(read(path)).cells]
    return hashlib.sha256(json.dumps(cells, sort_keys=True).encode()).hexdigest()


def code_cells(path: str | Path) -> list[str]:
    """The sources of the notebook's code cells."""
    return [cell.source for cell in read(path).cells if cell.cell_type == "code"]


def parameters(path: str | Path) -> dict[str, Parameter]:
    """The notebook's parameters, from the cell tagged ``parameters``: ``name: type = value  # help``.

    Papermill's own inspection goes by patterns and overlooks ``float | None`` and values over several lines.

    Raises:
        ValueError: there is no such cell, or it holds something other than names with plain values.
    """
    cells = [cell.source for cell in read(path).cells if "parameters" in cell.metadata.get("tags", ())]
    if not cells:
        raise ValueError(f"{path}: no parameters; tag the cell that holds them 'parameters'.")
    lines = cells[0].splitlines()
    found = {}
    for node in ast.parse(cells[0]).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        try:
            default = ast.literal_eval(node.value)
            name = target.id
        except (AttributeError, ValueError) as error:
            raise ValueError(f"{path}: {ast.unparse(node)!r} should be a name with a plain value.") from error
        annotation = getattr(node, "annotation", None)
        rest = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
        kind = ast.unparse(annotation) if annotation else type(default).__name__
        found[name] = Parameter(kind, default, rest.partition("#")[2].strip())
    return found


def execute(path: str | Path, output: str | Path, values: Mapping[str, object] | None = None, *, log: str | Path):
    """Run the notebook at ``path`` in its own folder and write the normalised result to ``output``.

    Arguments:
        path: the notebook, which stays as it is.
        output: where the executed notebook goes, atomically, and only if every cell ran; for another profile than the
            default one, see `of_another_world`.
        values: parameters other than the defaults; checked, see `values.check`.
        log: where papermill keeps the notebook while it runs, and leaves it if a cell fails.

    Raises:
        ValueError: unknown parameters.
        papermill.exceptions.PapermillExecutionError: a cell failed.
    """
    # Papermill itself only warns about a typo.
    values = check(path, parameters(path), values or {})
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    folder, default, template = str(Path(path).parent), parameters(path).get("profile"), read(path)
    if default and values.get("profile", default.default) != default.default:
        template = of_another_world(template)
    papermill.execute_notebook(
        template, str(log), parameters=values, cwd=folder, kernel_name="python3", progress_bar=False
    )
    write(output, normalise(read(log)))


def of_another_world(notebook: NotebookNode) -> NotebookNode:
    """A copy without what is about the default profile's run, or shows images that may not be passed on.

    Those cells are tagged ``default-only``.
    """
    notebook = copy.deepcopy(notebook)
    notebook.cells = [cell for cell in notebook.cells if "default-only" not in cell.metadata.get("tags", ())]
    return notebook
