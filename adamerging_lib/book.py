"""From executed notebooks to the built book: a Sphinx extension, the fresh book's staging, and the offline check.

Jupyter Book reads ``notebooks/`` and ``book/runs/`` with execution off. As an extension this module changes what the
reader sees, never a file: it folds papermill's injected cell away, says which run a variant is, keeps labels unique
over the book, and links every page to its notebook and its parameters.

    python -m adamerging_lib.book stage _build/stage      # the book with the freshly executed notebooks in it
    python -m adamerging_lib.book accept                  # fresh notebooks and records become the committed ones
    python -m adamerging_lib.book check-offline _build/html
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from . import notebooks
from .roles import published_role, verdict_role

SOURCES = ("_config.yml", "_toc.yml", "requirements.lock", "book", "notebooks")
EXECUTED = Path("_build/executed")
FRESH_RESULTS = Path("_build/results")

# ------------------------------------------------------------------------------------------------- what readers see

_LABEL = re.compile(r"^\(([\w.:-]+)\)=\s*$|^:(?:name|label): *([\w.:-]+)\s*$|\$\$ *\(([\w.:-]+)\)\s*$", re.MULTILINE)


def present(notebook: NotebookNode, docname: str) -> NotebookNode:
    """What the reader sees of an executed notebook.

    Arguments:
        notebook: the notebook; left unchanged.
        docname: its address in the book, without suffix: ``notebooks/NAME`` or ``book/runs/RUN/NAME``.

    Returns:
        A copy with a line of links under the title and a target before the parameters; for a variant also a banner
        with run and parameters, labels that end in the run's name, and both parameter cells folded away.

    Raises:
        ValueError: the notebook does not begin with a title, or has no parameters cell.
    """
    notebook, name, run = copy.deepcopy(notebook), Path(docname).name, run_of(docname)
    if run:
        _rename_labels(notebook, run)
    target = f"parameters-of-{name}" + (f"-{run}" if run else "")
    cells = []
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "parameters" in tags:
            cells.append(nbformat.v4.new_markdown_cell(f"({target})=\n**Parameters**", id="parameters-target"))
            if run:
                _fold(cell, "Show the default parameters")
        elif "injected-parameters" in tags:
            _fold(cell, "Show this run's parameters")
        cells.append(cell)
    if len(cells) == len(notebook.cells):
        raise ValueError(f"{docname}: no cell is tagged 'parameters'; tag the one that holds them.")
    notebook.cells = cells
    _add_head(notebook, name, run, target, docname)
    return notebook


def run_of(docname: str) -> str | None:
    """The run whose page ``docname`` is; None for a default page."""
    parts = docname.split("/")
    return parts[2] if parts[:2] == ["book", "runs"] and len(parts) == 4 else None


def _fold(cell: NotebookNode, prompt: str) -> None:
    cell.metadata["tags"] = [*cell.metadata["tags"], "hide-input"]
    cell.metadata.setdefault("mystnb", NotebookNode())["code_prompt_show"] = prompt


def _rename_labels(notebook: NotebookNode, run: str) -> None:
    """Give labels of figures, sections and formulas, and references to them, the run's name as suffix."""
    figures = [cell.metadata.get("mystnb", {}).get("figure", {}) for cell in notebook.cells]
    texts = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    labels = {figure["name"] for figure in figures if "name" in figure}
    labels |= {label for cell in texts for groups in _LABEL.findall(cell.source) for label in groups if label}
    for figure in figures:
        if "name" in figure:
            figure["name"] += f"-{run}"
    if labels:
        names = "|".join(map(re.escape, sorted(labels)))
        use = re.compile(rf"((?<=[`<(#])|(?<=^:name: )|(?<=^:label: ))({names})(?=[`>)]|\s*$)", re.MULTILINE)
        for cell in texts:
            cell.source = use.sub(rf"\2-{run}", cell.source)


def _add_head(notebook: NotebookNode, name: str, run: str | None, target: str, docname: str) -> None:
    first = notebook.cells[0]
    title, _, rest = first.source.partition("\n")
    if first.cell_type != "markdown" or not title.startswith("# "):
        raise ValueError(f"{docname}: the first cell should be Markdown and begin with '# ' and a title.")
    root = "../" * docname.count("/")
    links = [
        f"{{download}}`{name}.ipynb <{name}.ipynb>`",
        f"[parameters](#{target})",
        f"[run it with yours]({root}book/rerun.md)",
    ]
    head = [title]
    if run:
        values = notebook.metadata.get("papermill", {}).get("parameters", {})
        head = [f"{title}, run {run}"]
        links.insert(0, f"[default run]({root}notebooks/{name}.ipynb)")
        told = ", ".join(f"`{key} = {value!r}`" for key, value in values.items())
        head += ["", f":::{{admonition}} Run {run}", ":class: note", f"{told}; all else as in the default run.", ":::"]
    head += ["", ":::{div} notebook-links", " · ".join(links), ":::", ""]
    first.source = "\n".join(head) + rest


def setup(app) -> dict[str, object]:
    """Entry point of the Sphinx extension."""
    app.connect("source-read", _read_source)
    app.add_role("published", published_role)
    app.add_role("verdict", verdict_role)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _read_source(app, docname: str, source: list[str]) -> None:
    if str(app.env.doc2path(docname)).endswith(".ipynb"):
        source[0] = nbformat.writes(present(nbformat.reads(source[0], as_version=4), docname))


# ------------------------------------------------------------------------------------------ fresh and committed runs


def stage(target: str | Path) -> Path:
    """Copy the book's sources to ``target`` and put the freshly executed notebooks in the place of the committed."""
    target = Path(target)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for source in map(Path, SOURCES):
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, target / source)
    for fresh in EXECUTED.glob("*.ipynb"):
        shutil.copy2(fresh, target / "notebooks" / fresh.name)
    return target


def accept() -> list[Path]:
    """Make the fresh notebooks and records the committed ones; the one command that changes them.

    Raises:
        ValueError: nothing was executed, or a notebook was edited after its fresh run.
    """
    fresh = sorted(EXECUTED.glob("*.ipynb"))
    if not fresh:
        raise ValueError(f"{EXECUTED} holds no executed notebook; `make book` makes them.")
    accepted = [Path("notebooks", path.name) for path in fresh]
    for path, committed in zip(fresh, accepted, strict=True):
        if notebooks.source_digest(path) != notebooks.source_digest(committed):
            raise ValueError(f"{committed} was edited after its last run; `make book` runs it again.")
    moved = _moved_records()
    for path, committed in zip(fresh, accepted, strict=True):
        shutil.copy2(path, committed)
    if FRESH_RESULTS.exists():
        shutil.copytree(FRESH_RESULTS, "results", dirs_exist_ok=True)
    # Such a notebook's last cell still speaks of the record that was just replaced: it has to run once more.
    for name in moved:
        (EXECUTED / f"{name}.ipynb").unlink(missing_ok=True)
        print(f"{name}: the record changed; run `make book accept` once more", file=sys.stderr)
    return accepted


def _moved_records() -> list[str]:
    """Experiments whose fresh record has other rows or parameters than the committed one, or none to compare with."""

    def found(path: Path) -> list[object]:
        record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return [record.get(field) for field in ("parameters", "seeds", "rows")]

    fresh = sorted(FRESH_RESULTS.rglob("*.json"))
    return [path.stem for path in fresh if found(path) != found(Path("results", path.relative_to(FRESH_RESULTS)))]


# ---------------------------------------------------------------------------------------------------------- offline


class _Loads(HTMLParser):
    """Collects the addresses that a page loads by itself; links that a reader follows are not among them."""

    passive = {"canonical", "license", "author", "next", "prev", "index", "search", "alternate", "help"}

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "a" or (tag == "link" and self.passive & set((dict(attributes).get("rel") or "").split())):
            return
        for key, value in attributes:
            loads = key in ("src", "href", "srcset", "data", "poster")
            if loads and value and re.match(r"(https?:)?//", value.strip()):
                self.found.append(f"<{tag} {key}={value!r}>")


def network_loads(folder: str | Path) -> list[str]:
    """What the built pages and style sheets below ``folder`` would fetch from the network, one line an address.

    Raises:
        ValueError: there is no page to look at.
    """
    pages = sorted(Path(folder).rglob("*.html"))
    if not pages:
        raise ValueError(f"{folder} holds no HTML page; `make html` builds them.")
    lines = []
    for path in pages:
        loads = _Loads()
        loads.feed(path.read_text(encoding="utf-8"))
        lines += [f"{path}: {load}" for load in loads.found]
    for path in sorted(Path(folder).rglob("*.css")):
        sheet = path.read_text(encoding="utf-8")
        loads = re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s]+)", sheet)
        lines += [f"{path}: {load}" for load in loads]
    return lines


def main(arguments: list[str] | None = None) -> None:
    """The command line above."""
    parser = argparse.ArgumentParser(prog="python -m adamerging_lib.book", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("stage").add_argument("target", type=Path)
    commands.add_parser("accept")
    commands.add_parser("check-offline").add_argument("folder", type=Path)
    given = parser.parse_args(arguments)
    try:
        if given.command == "stage":
            print(stage(given.target))
        elif given.command == "accept":
            print("accepted:", *accept())
        elif lines := network_loads(given.folder):
            sys.exit("\n".join([*lines, f"{len(lines)} loads from the network."]))
        else:
            print(f"{given.folder}: no page loads anything from the network")
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
