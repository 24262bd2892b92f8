"""Variants of the notebooks: run one with other parameters and give it a page of the book.

`runs.yml` says which variants there are, `book/runs/RUN/NAME.ipynb` is the executed page with its records in `NAME/`
beside it, and `_toc.yml` lists the page below the default one. `make rerun` goes through `try`, which enters the run,
hands it to Snakemake and takes it back where that fails, and through `publish`.

    python -m adamerging_study.book.rerun parameters performance
    python -m adamerging_study.book.rerun add performance long steps=1000 seeds=3,4
    python -m adamerging_study.book.rerun try performance long steps=1000 seeds=3,4 --by "snakemake --cores 2"
    python -m adamerging_study.book.rerun publish performance long
    python -m adamerging_study.book.rerun remove performance long
    python -m adamerging_study.book.rerun execute performance out.ipynb --results out --parameters '{"steps": 1000}'
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
import yaml
from papermill.exceptions import PapermillExecutionError

from adamerging_lib.command.line import call, json_object
from adamerging_lib.runtime import annotations, places
from adamerging_lib.runtime.values import Parameter, describe, nearest, parse
from adamerging_lib.worlds.profiles import profile

from .. import claims, rooms
from . import notebooks
from .worlds import DEFAULT, RUNS_FILE, called, heading, variants

# Beside the notebooks, wherever a variant is made.
BUDGETS_FILE = places.committed().parent / "budgets.yml"
TOC_FILE = Path("_toc.yml")
RUN_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


def template(name: str) -> Path:
    """The notebook called ``name``; ValueError with the nearest known name if there is none."""
    known = sorted(path.stem for path in Path("notebooks").glob("*.ipynb"))
    if name not in known:
        raise ValueError(f"There is no notebook {name!r}: {nearest(name, known)}Known notebooks: {', '.join(known)}.")
    return Path("notebooks", f"{name}.ipynb")


def page(name: str, run: str) -> Path:
    """Where run ``run`` of notebook ``name`` has its page; its records lie beside it, in a folder of the same name."""
    if not RUN_NAME.fullmatch(run):
        raise ValueError(f"Run name {run!r} should be lower-case letters, digits, '-' and '_', as in 'long' or 'lr-2'.")
    return Path("book/runs", run, f"{name}.ipynb")


def add(name: str, run: str, pairs: list[str], runs_file: Path = RUNS_FILE) -> dict[str, object]:
    """Enter run ``run`` of notebook ``name`` in ``runs.yml``, checked; an entry of the same name is replaced."""
    page(name, run)
    values = parse(template(name), notebooks.parameters(template(name)), pairs)
    if not values:
        raise ValueError(f"A variant needs at least one parameter. {name} has:\n{listing(name)}")
    filled(name, values, notebooks.parameters(template(name)))  # an unknown profile is refused before it is written
    _put_entry(name, run, values, runs_file)
    return values


def attempt(name: str, run: str, pairs: list[str], command: list[str], runs_file: Path = RUNS_FILE) -> None:
    """Enter a run and make its page; where that fails or is interrupted, everything is as it was before.

    Arguments:
        name: the notebook.
        run: the variant's name.
        pairs: its parameters, each ``name=value``.
        command: makes the page, whose path is added as the last word.
        runs_file: with the entries.

    Raises:
        ValueError: for unusable parameters, and where the command fails.
    """
    with _unless_made(name, run, runs_file):
        print(f"{name}, run {run}: {add(name, run, pairs, runs_file)}", flush=True)
        code = subprocess.call([*command, str(page(name, run))])
        if code:
            raise ValueError(f"{name} did not run (exit code {code}); {runs_file} and {page(name, run)} are as before")


@contextmanager
def _unless_made(name: str, run: str, runs_file: Path) -> Iterator[None]:
    """Put an earlier entry, page and records back where the block fails, or remove what it left."""
    path = page(name, run)
    places = (path, path.with_suffix(""))
    before = load_yaml(runs_file).get("runs", {}).get(run, {}).get(name)
    with tempfile.TemporaryDirectory() as aside:
        _copy(places, [Path(aside, place.name) for place in places])
        try:
            yield
        except BaseException:  # an interruption too
            _put_entry(name, run, before, runs_file)
            _copy([Path(aside, place.name) for place in places], places)
            _prune(path.parents[:2])
            raise


def _copy(sources: Iterable[Path], targets: Iterable[Path]) -> None:
    """Make each target, a file or a folder, what its source is; nothing where there is none."""
    for source, target in zip(sources, targets, strict=True):
        if target.is_dir():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)


def _put_entry(name: str, run: str, values: Mapping[str, object] | None, runs_file: Path) -> None:
    """Give a run its entry, or remove it for None; other entries stay as they are now."""
    text = load_yaml(runs_file)
    entries = text.setdefault("runs", {}).setdefault(run, {})
    entries.pop(name, None) if values is None else entries.update({name: dict(values)})
    if not entries:
        del text["runs"][run]
    _save(runs_file, text)


def _prune(folders: Iterable[Path]) -> None:
    for folder in folders:
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


def filled(name: str, values: Mapping[str, object], known: Mapping[str, Parameter]) -> dict[str, object]:
    """The parameters of a variant, with what its profile goes with where nothing else was given.

    The notebooks' own defaults are sized for the drawn world; what another profile takes stands in ``budgets.yml``:
    steps, the architecture whose published numbers belong beside it, fewer levels. Methods that it has no checkpoints
    for are left out.

    Arguments:
        name: the notebook.
        values: the parameters given.
        known: the notebook's parameters.
    """
    if "profile" not in values or "profile" not in known or values["profile"] == known["profile"].default:
        return dict(values)
    chosen = profile(values["profile"])
    budget = load_yaml(BUDGETS_FILE).get(chosen.name, {})
    own = {**budget.get("all", {}), **budget.get(name, {})}
    own = {key: value for key, value in own.items() if key in known}
    for key in ("methods", "swept"):
        if key in known and set(chosen.without) & set(known[key].default):
            own[key] = [method for method in known[key].default if method not in chosen.without]
    return {**values, **{key: value for key, value in own.items() if key not in values}}


def kept_fits(name: str, values: Mapping[str, object]) -> list[Path]:
    """Files of the kept fits and outcomes that a run may read: of its experiment, and the main comparison's fits.

    Arguments:
        name: the notebook.
        values: the parameters given.
    """
    folder = Path("results", str(values.get("profile", rooms.face(name).world)))
    fits = [path for room in {name, "performance"} for path in folder.glob(f"fits/{room}-*.safetensors")]
    return sorted([*fits, *folder.glob(f"traces/{name}/*.json")])


def listing(name: str) -> str:
    """The parameters of notebook ``name``, one per line."""
    return describe(notebooks.parameters(template(name)))


def publish(name: str, run: str, toc_file: Path = TOC_FILE) -> None:
    """List the page of run ``run`` below the default page of ``name`` in the table of contents."""
    if not page(name, run).exists():
        raise ValueError(f"{page(name, run)} is not there; `make rerun NOTEBOOK={name} RUN={run} P=...` makes it.")
    toc = load_yaml(toc_file)
    toc_add(toc, name, run, variants(name).get(run, DEFAULT))
    _save(toc_file, toc)
    claims.write_words(Path())


def remove(name: str, run: str, toc_file: Path = TOC_FILE, runs_file: Path = RUNS_FILE) -> None:
    """Undo `add` and `publish`: the page, its entry in the contents, its entry in ``runs.yml``."""
    path, toc, text = page(name, run), load_yaml(toc_file), load_yaml(runs_file)
    if name not in text.get("runs", {}).get(run, {}):
        raise ValueError(f"{runs_file} has no run {run!r} of notebook {name!r}.")
    path.unlink(missing_ok=True)
    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    _prune(path.parents[:2])
    toc_remove(toc, name, run)
    _save(toc_file, toc)
    claims.write_words(Path())
    _put_entry(name, run, None, runs_file)


def toc_add(toc: dict, name: str, run: str, profile: str) -> None:
    """Add the page of a run on a profile to ``toc`` (in place), below the default page; once, however often called."""
    entry = {"file": page(name, run).with_suffix("").as_posix(), "title": heading(called(run, profile))}
    sections = _chapter(toc, name).setdefault("sections", [])
    listed = [section["file"] for section in sections]
    if entry["file"] in listed:
        sections[listed.index(entry["file"])] = entry
    else:
        sections.append(entry)


def toc_remove(toc: dict, name: str, run: str) -> None:
    """Remove the page of a run from ``toc`` (in place); a page that is not listed is no error."""
    chapter = _chapter(toc, name)
    address = page(name, run).with_suffix("").as_posix()
    chapter["sections"] = [entry for entry in chapter.get("sections", []) if entry.get("file") != address]
    if not chapter["sections"]:
        del chapter["sections"]


def _chapter(toc: dict, name: str) -> dict:
    for part in toc.get("parts", []):
        for chapter in part["chapters"]:
            if chapter["file"] == f"notebooks/{name}":
                return chapter
    raise ValueError(f"_toc.yml lists no page notebooks/{name}; add the default page first.")


class _Once(yaml.SafeLoader):
    """YAML whose mappings have each name once, where PyYAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [key.value for key, _ in node.value]
        for place, (key, _) in enumerate(node.value):
            if key.value in names[:place]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} is given twice: give it once", key.start_mark
                )
        return super().construct_mapping(node, deep)


def load_yaml(path: Path) -> dict:
    """A file of YAML as a mapping, empty where it holds nothing.

    Raises:
        ValueError: naming the file, where it is not YAML or gives a name twice.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Once) or {}
    except yaml.MarkedYAMLError as error:
        raise ValueError(f"{path}, line {error.problem_mark.line + 1}: {error.problem}") from error


def _save(path: Path, content: dict) -> None:
    # The comment on top of the file stays; PyYAML would drop it.
    comment = re.match(r"(?:#.*\n|\n)*", path.read_text(encoding="utf-8"))[0]
    path.write_text(comment + yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _execute(name: str, output: Path, results: Path, values: dict[str, object], log: Path) -> None:
    os.environ["ADAMERGING_RESULTS"] = str(results.resolve())
    started = time.monotonic()
    print(f"{name}: running", flush=True)
    try:
        notebooks.execute(template(name), output, filled(name, values, notebooks.parameters(template(name))), log=log)
    except PapermillExecutionError as error:
        raise SystemExit(f"{error}\nNotebook {name!r} failed at In [{error.exec_count}]; see {log}.") from error
    print(f"{name}: {output} in {time.monotonic() - started:.0f} s", flush=True)


PROGRAM = "python -m adamerging_study.book.rerun"
app = typer.Typer(
    help="Variants of the notebooks: their parameters, runs and pages.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
Notebook: TypeAlias = Annotated[str, typer.Argument(help="its name, such as performance")]
RunName: TypeAlias = Annotated[str, typer.Argument(metavar="RUN", help="its name, such as long")]
Pairs: TypeAlias = Annotated[list[str] | None, typer.Argument(metavar="NAME=VALUE...", help="its parameters")]


@app.command("parameters", epilog=f"Example:\n  {PROGRAM} parameters performance")
def _show_parameters(notebook: Notebook) -> None:
    """Say which parameters a notebook has."""
    print(listing(notebook))


@app.command("add", epilog=f"Example:\n  {PROGRAM} add performance long steps=1000 seeds=3,4")
def _add(
    notebook: Notebook,
    run: RunName,
    pairs: Pairs = None,
) -> None:
    """Enter a variant in runs.yml."""
    print(f"{notebook}, run {run}: {add(notebook, run, pairs or [])}")


@app.command("try", epilog=f'Example:\n  {PROGRAM} try performance long steps=1000 --by "snakemake --cores 2"')
def _try(
    notebook: Notebook,
    run: RunName,
    pairs: Pairs = None,
    given: Annotated[str, typer.Option(metavar="TEXT", help="more parameters, apart at spaces, as make has them")] = "",
    by: Annotated[str, typer.Option(help="the command that makes a page, whose path is its last word")] = "snakemake",
) -> None:
    """Enter a variant in runs.yml and run it; where that fails, runs.yml and the page are as before."""
    attempt(notebook, run, [*(pairs or []), *annotations.words(given)], shlex.split(by))


@app.command("publish", epilog=f"Example:\n  {PROGRAM} publish performance long")
def _publish(notebook: Notebook, run: RunName) -> None:
    """List the page of a variant in the table of contents."""
    publish(notebook, run)


@app.command("remove", epilog=f"Example:\n  {PROGRAM} remove performance long")
def _remove(notebook: Notebook, run: RunName) -> None:
    """Remove a variant and its page."""
    remove(notebook, run)


@app.command(
    "execute",
    epilog=f"Example:\n  {PROGRAM} execute performance out.ipynb --results out \\\n"
    "    --parameters '{\"steps\": 1000}'",
)
def _execute_notebook(
    notebook: Notebook,
    output: Annotated[Path, typer.Argument(help="the executed notebook")],
    results: Annotated[Path, typer.Option(help="folder that the notebook writes records to")],
    parameters: Annotated[dict, typer.Option(parser=json_object, metavar="JSON", help="an object")] = "{}",
    log: Annotated[Path | None, typer.Option(help="the notebook while it runs; OUTPUT.log.ipynb by default")] = None,
) -> None:
    """Run a notebook with other parameters."""
    _execute(notebook, output, results, parameters, log or output.with_suffix(".log.ipynb"))


def main(arguments: list[str] | None = None) -> int:
    """The command line above; see `command_line.call` for the exit code."""
    return call(app, PROGRAM, arguments)


if __name__ == "__main__":
    sys.exit(main())
