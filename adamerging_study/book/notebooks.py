"""Notebooks as files and as programs: read, write, normalise, list and check parameters, execute."""

from __future__ import annotations

import ast
import copy
import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import nbformat
import papermill
from nbformat import NotebookNode
from papermill.parameterize import parameterize_notebook

from adamerging_lib.runtime.values import Parameter, check

KERNEL = "python3"


_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MEND = "save it anew from Jupyter, or take back an older one"


def read(path: str | Path) -> NotebookNode:
    """The notebook at ``path``; see `parse`."""
    try:
        return parse(Path(path).read_text(encoding="utf-8"), path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a notebook, which is text in UTF-8 ({error}): {_MEND}") from error


def parse(text: str, name: str | Path) -> NotebookNode:
    """A notebook from its text, in nbformat 4.5, whose cells have ids: those that lack one are called by their place.

    Arguments:
        text: as it stands in the file.
        name: of the file, for errors.

    Raises:
        ValueError: where the text is not a notebook.
    """
    try:
        told = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name} is not a notebook: it does not hold JSON ({error}); {_MEND}") from error
    if not isinstance(told, dict) or not isinstance(told.get("nbformat"), int):
        raise ValueError(f"{name} is not a notebook: it lacks nbformat, the number of its format; {_MEND}")
    try:
        with warnings.catch_warnings(action="ignore"):  # about ids that are missing or repeated, which follow
            notebook = nbformat.reads(text, as_version=4)
            notebook.nbformat_minor = max(notebook.nbformat_minor, 5)
            _identify(notebook, told)
            nbformat.validate(notebook)
    except Exception as error:  # of a dozen types, by how the file is broken
        problem = str(error).strip().partition("\n")[0]
        raise ValueError(f"{name} is not a valid notebook ({type(error).__name__}: {problem}); {_MEND}") from error
    return notebook


def _identify(notebook: NotebookNode, told: Mapping) -> None:
    """Give cells the ids that the file says, and others that follow from their places; nbformat draws at random."""
    said = [cell.get("id") for cell in told.get("cells", [])]
    said += [None] * (len(notebook.cells) - len(said))
    taken = {id for id in said if isinstance(id, str)}
    seen: set[str] = set()
    for place, (cell, id) in enumerate(zip(notebook.cells, said, strict=True)):
        if not (isinstance(id, str) and _ID.fullmatch(id)) or id in seen:
            free = (name for tail in range(len(said) + 1) if (name := f"cell-{place}" + "-x" * tail) not in taken)
            id = next(free)
            taken.add(id)
        seen.add(id)
        cell["id"] = id


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
    """The sources of the notebook's code cells, as Python alone: magics are calls.

    Raises:
        ValueError: for a cell that is not Python.
    """
    return [_python(cell.source, path) for cell in read(path).cells if cell.cell_type == "code"]


def _python(source: str, path: str | Path) -> str:
    """A cell's source without what only IPython reads, in as many lines; a magic of the whole cell leaves its body."""
    from IPython.core.inputtransformer2 import TransformerManager  # half a second, for few

    rest = re.sub(r"\A(\s*)%%.*", r"\1", source)
    error: SyntaxError | None = None
    for make in (lambda: source, lambda: TransformerManager().transform_cell(rest),
                 lambda: TransformerManager().transform_cell(source)):  # fmt: skip
        try:
            ast.parse(text := make())
            return text
        except SyntaxError as found:
            error = error or found
    raise ValueError(f"{path}: a cell is not Python (line {error.lineno}: {error.msg}): {source.strip()[:60]!r}")


def parameters(path: str | Path) -> dict[str, Parameter]:
    """The notebook's parameters, from the cell tagged ``parameters``: ``name: type = value  # help``.

    Papermill's own inspection goes by patterns and overlooks ``float | None`` and values over several lines.

    Raises:
        ValueError: there is no such cell or more than one, or it holds something other than names with plain values,
            each once. Magics are passed over.
    """
    cells = [cell.source for cell in read(path).cells if "parameters" in cell.metadata.get("tags", ())]
    if not cells:
        raise ValueError(f"{path}: no parameters; tag the cell that holds them 'parameters'.")
    if len(cells) > 1:
        raise ValueError(f"{path}: {len(cells)} cells are tagged 'parameters': put the parameters into one of them.")
    source = _python(cells[0], path)
    lines = source.splitlines()
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Expr) and ast.unparse(node).startswith("get_ipython()."):
            continue
        targets = getattr(node, "targets", [])
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        try:
            default = ast.literal_eval(node.value)
            (name,) = (target.id for target in targets)
        except (AttributeError, ValueError) as error:
            raise ValueError(f"{path}: {ast.unparse(node)!r} should be a name with a plain value.") from error
        if name in found:
            raise ValueError(f"{path}: the parameter {name!r} is set twice: set it once.")
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
        ValueError: unknown parameters, or a notebook of another language.
        papermill.exceptions.PapermillExecutionError: a cell failed.
    """
    # Papermill itself only warns about a typo, and about some names that are none.
    template = with_parameters(path, check(path, parameters(path), values or {}))
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    target = str(log).replace("{", "{{").replace("}", "}}")  # papermill fills in what stands in braces
    papermill.execute_notebook(
        template, target, cwd=str(Path(path).parent), kernel_name=KERNEL, language="python", progress_bar=False
    )
    write(output, normalise(read(log)))


def with_parameters(path: str | Path, values: Mapping[str, object]) -> NotebookNode:
    """The notebook at ``path`` as it is run with other parameters, checked before: see `execute`.

    Raises:
        ValueError: for a notebook of another language than Python.
    """
    notebook, default = read(path), parameters(path).get("profile")
    if (language := _language(notebook)) != "python":
        mend = "open it in Jupyter, choose a kernel of Python, and save it"
        raise ValueError(f"{path} is a notebook of {language}, and is run by Python: {mend}")
    if default and values.get("profile", default.default) != default.default:
        notebook = of_another_world(notebook)
    if not values:
        return notebook
    notebook.metadata.setdefault("papermill", NotebookNode())  # what papermill's own reader sees to
    for cell in notebook.cells:
        cell.metadata.setdefault("tags", [])
    return parameterize_notebook(notebook, dict(values), kernel_name=KERNEL, language="python")


def _language(notebook: NotebookNode) -> str:
    """``python``, also where the notebook says nothing; else the language, or the kernel that is none of Python's."""
    kernel = notebook.metadata.get("kernelspec", {})
    named = notebook.metadata.get("language_info", {}).get("name") or kernel.get("language")
    if not named:
        names = [name for name in (kernel.get("name"), kernel.get("display_name")) if name]
        named = next((name for name in names if "python" in name.lower()), names[0] if names else "python")
    return "python" if "python" in named.lower() else named


def of_another_world(notebook: NotebookNode) -> NotebookNode:
    """A copy without what is about the default profile's run, or shows images that may not be passed on.

    Those cells are tagged ``default-only``.
    """
    notebook = copy.deepcopy(notebook)
    notebook.cells = [cell for cell in notebook.cells if "default-only" not in cell.metadata.get("tags", ())]
    return notebook
