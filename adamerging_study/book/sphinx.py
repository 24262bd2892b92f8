"""What the reader sees of an executed notebook: a Sphinx extension.

Jupyter Book reads ``notebooks/`` and ``book/runs/`` with execution off. As an extension this module changes what the
reader sees, never a file: it folds papermill's injected cell away, says which run a variant is, keeps labels unique
over the book, and links every page to its notebook, its parameters and the other runs of its experiment.
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from . import alts, contents, directives, hover, made_by, notebooks, result_first, tips
from .edition import Edition, edition, footer, repository
from .play import page as play
from .roles import interval_role, intervals_role, measured_role, number_role, published_role, verdict_role
from .worlds import DEFAULT, called, heading, links, run_of

_LABEL = re.compile(r"^\(([\w.:-]+)\)=\s*$|^:(?:name|label): *([\w.:-]+)\s*$|\$\$ *\(([\w.:-]+)\)\s*$", re.MULTILINE)

CITED = "book/report"
"""The page that says how to cite the study."""


def present(notebook: NotebookNode, docname: str) -> NotebookNode:
    """What the reader sees of an executed notebook.

    Arguments:
        notebook: the notebook; left unchanged.
        docname: its address in the book, without suffix: ``notebooks/NAME`` or ``book/runs/RUN/NAME``.

    Returns:
        A copy with links under the title, to the other runs too, and a target before the parameters. On a default
        page there is what was claimed and measured in every world; on a variant's there are a banner with run and
        parameters, labels that end in the run's name, both parameter cells folded away, and its averages beside those
        of the default run. Pages of experiments begin with their result, see `result_first`, say below each figure and
        table what made it, see `made_by`, and in a figure's alternative text what it shows, see `alts`.

    Raises:
        ValueError: the notebook does not begin with a title, has no parameters cell, or a finding asks for a number
            that its record does not have.
    """
    notebook, name, run = copy.deepcopy(notebook), Path(docname).name, run_of(docname)
    if run:
        _rename_labels(notebook, run)
    target = f"parameters-of-{name}" + (f"-{run}" if run else "")
    early = result_first.wanted(notebook)
    cells = []
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "parameters" in tags:
            if run:
                result_first.fold(cell, "hide-input", "Show the default parameters")
            elif not early:
                cells.append(nbformat.v4.new_markdown_cell(f"```{{worlds}} {name}\n```", id="worlds"))
            cells.append(nbformat.v4.new_markdown_cell(f"({target})=\n**Parameters**", id="parameters-target"))
        elif "injected-parameters" in tags:
            result_first.fold(cell, "hide-input", "Show this run's parameters")
        cells.append(cell)
    if len(cells) == len(notebook.cells):
        raise ValueError(f"{docname}: no cell is tagged 'parameters'; tag the one that holds them.")
    notebook.cells = cells
    if run:
        beside = f"```{{run-comparison}} {name} {run}\n```"
        notebook.cells.append(nbformat.v4.new_markdown_cell(beside, id="beside-the-default"))
    profile = notebook.metadata.get("papermill", {}).get("parameters", {}).get("profile", DEFAULT)
    notebook.cells[:1] = _head(notebook, name, run, target, docname)
    alts.add(notebook, name, run, profile)
    if early:
        result_first.arrange(notebook, name, run, profile)
    made_by.add(notebook, name, run, profile)
    hover.add(notebook, profile)
    return notebook


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


def _head(notebook: NotebookNode, name: str, run: str | None, target: str, docname: str) -> list[NotebookNode]:
    """The first cell as two: the title with links below it, and what introduces the page, after a run's banner."""
    first = notebook.cells[0]
    title, _, rest = first.source.partition("\n")
    if first.cell_type != "markdown" or not title.startswith("# "):
        raise ValueError(f"{docname}: the first cell should be Markdown and begin with '# ' and a title.")
    root = "../" * docname.count("/")
    told = [
        f"{{download}}`{name}.ipynb <{name}.ipynb>`",
        f"[parameters](#{target})",
        f"[run it with yours]({root}book/rerun.md)",
    ]
    if run:
        values = notebook.metadata.get("papermill", {}).get("parameters", {})
        world = called(run, values.get("profile", DEFAULT))
        title = f"{title} {heading(world)}" if title.endswith("?") else f"{title}: {world}"
        rest = f"{_banner(run, values)}\n{rest}"
    lines = [" · ".join(told), links(name, run)]
    head = [title, "", ":::{div} notebook-links", *(f"{line}\n" for line in lines if line), ":::"]
    first.source = "\n".join(head)
    return [first, nbformat.v4.new_markdown_cell(rest.strip(), id="introduction")]


def _banner(run: str, values: Mapping[str, object]) -> str:
    told = ", ".join(f"`{key} = {value!r}`" for key, value in values.items())
    told = f"{told}; all else as in the default run."
    if Path("book", f"{run}.md").is_file():
        told += f" What was found: {{doc}}`/book/{run}`."
    return f":::{{admonition}} Run {run}\n:class: note\n{told}\n:::\n"


def setup(app) -> dict[str, object]:
    """Entry point of the Sphinx extension."""
    app.connect("source-read", _read_source)
    app.connect("doctree-resolved", tips.add)
    app.connect("config-inited", _add_buttons)
    app.connect("html-page-context", partial(_add_foot, edition()))
    app.connect("build-finished", _write_claims)
    app.connect("html-page-context", play.add_scripts)
    app.connect("html-page-context", _without_thebe, priority=900)
    app.connect("build-finished", play.write_data)
    app.add_role("number", number_role)
    app.add_role("interval", interval_role)
    app.add_role("intervals", intervals_role)
    app.add_role("measured", measured_role)
    app.add_role("published", published_role)
    app.add_role("verdict", verdict_role)
    directives.setup(app)
    contents.setup(app)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _write_claims(app, exception: Exception | None) -> None:
    """`claims.json` beside the pages: all claims and verdicts for programs, and the edition that they are of."""
    if exception is None and app.builder.format == "html":
        found = {"edition": edition().to_dict(), "claims": directives.claims_data()}
        told = json.dumps(found, indent=1, ensure_ascii=False)
        Path(app.outdir, "claims.json").write_text(told + "\n", encoding="utf-8")


def _add_buttons(app, config) -> None:
    """Buttons to source, issues and Binder, where the build is told the repository's address."""
    if address := repository():
        config.html_theme_options |= {
            "repository_url": address,
            "repository_branch": os.environ.get("GITHUB_REF_NAME", "main"),
            "use_repository_button": True,
            "use_issues_button": True,
            "launch_buttons": {"notebook_interface": "jupyterlab", "binderhub_url": "https://mybinder.org"},
        }


def _add_foot(found: Edition, app, docname: str, template: str, context: dict, doctree) -> None:
    """At the foot of every page: the edition, and the way to the section that says how to cite it."""
    cited = None
    if CITED in app.env.found_docs:
        page = "" if app.builder.name == "singlehtml" else app.builder.get_relative_uri(docname, CITED)
        cited = f"{page}#how-to-cite"
    context["theme_extra_footer"] = footer(found, cited)


def _without_thebe(app, docname: str, template: str, context: dict, doctree) -> None:
    """No script of Thebe, which nothing here starts: Jupyter Book adds one twice, and the second is an error."""
    scripts = context.get("script_files", [])
    context["script_files"] = [script for script in scripts if "thebe" not in f"{script} {script.attributes}".lower()]


def _read_source(app, docname: str, source: list[str]) -> None:
    if str(app.env.doc2path(docname)).endswith(".ipynb"):
        source[0] = nbformat.writes(present(notebooks.parse(source[0], app.env.doc2path(docname)), docname))
