"""Around the book's build: fresh and committed runs, the checks of built pages and of prose, the PDF.

python -m adamerging_study.book.build stage _build/stage     # the book with the freshly executed notebooks in it
python -m adamerging_study.book.build accept                 # fresh notebooks and records become the committed ones
python -m adamerging_study.book.build check-offline _build/html
python -m adamerging_study.book.build check-prose            # numbers that somebody typed into a page of findings
python -m adamerging_study.book.build pdf _build/singlehtml _build/book.pdf
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Annotated

import typer

from adamerging_lib.command.line import call

from .. import claims
from . import notebooks

SOURCES = ("_config.yml", "_toc.yml", "requirements.lock", "book", "notebooks")
EXECUTED = Path("_build/executed")
FRESH_RESULTS = Path("_build/results")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

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
    for path, committed in zip(fresh, accepted, strict=True):
        shutil.copy2(path, committed)
    if FRESH_RESULTS.exists():
        shutil.copytree(FRESH_RESULTS, "results", dirs_exist_ok=True)
        claims.write_words(Path())
    return accepted


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
    """What the built pages and style sheets below ``folder`` would fetch from the network, one address per line.

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


# ------------------------------------------------------------------------------------------------- prose, and the PDF

_CODE = re.compile(r"^(`{3,}|:{3,}\{code).*?^\1|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])[+−-]?\d+(?:\.\d+)(?![\w.])|(?<![\w.])\d+(?= ?(?:%|percent|points?\b))")
_ALLOWED = re.compile(r"^% typed numbers: (.*?)(?: \(|$)", re.MULTILINE)


def typed_numbers(text: str) -> list[str]:
    """Decimals, percentages and points of a page's prose that no role looked up; code and formulas do not count.

    A line ``% typed numbers: 0.3 85 (why)``, a comment of MyST, allows numbers that no record holds: thresholds, say.
    """
    allowed = {number for line in _ALLOWED.findall(text) for number in line.split()}
    prose = _CODE.sub(lambda match: "\n" * match[0].count("\n"), re.sub(r"^%.*$", "", text, flags=re.MULTILINE))
    return [
        f"{number}: {line}:{match[0]}"
        for number, line in enumerate(prose.splitlines(), start=1)
        for match in _NUMBER.finditer(line)
        if match[0] not in allowed
    ]


def check_prose(folder: Path = Path("book")) -> list[str]:
    """`typed_numbers` of all pages of prose, each with its place."""
    pages = sorted(path for path in folder.glob("*.md"))
    return [f"{page}:{found}" for page in pages for found in typed_numbers(page.read_text(encoding="utf-8"))]


def pdf(pages: Path, output: Path) -> None:
    """Print the single-page build of the book by a headless browser.

    Raises:
        ValueError: there is no such build, no browser, or the browser printed nothing.
    """
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise ValueError(f"the PDF needs a browser: install one of {', '.join(BROWSERS)}")
    index = pages / "book" / "index.html"
    if not index.is_file():
        raise ValueError(f"{index} is not there: build the book with --builder singlehtml first")
    # Sphinx writes addresses for the top folder although the root page lies in one below.
    single = shutil.copy2(index, pages / "all.html")
    output.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            f"--user-data-dir={profile}", "--virtual-time-budget=20000", "--no-pdf-header-footer",
            f"--print-to-pdf={output.resolve()}", Path(single).resolve().as_uri(),
        ]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if not output.is_file() or not output.read_bytes().startswith(b"%PDF"):
        raise ValueError(f"{browser} printed no PDF:\n{result.stderr[-2000:]}")


# -------------------------------------------------------------------------------------------------- the command line

PROGRAM = "python -m adamerging_study.book.build"
app = typer.Typer(help="Around the book's build.", add_completion=False, pretty_exceptions_enable=False)


@app.command("stage", epilog=f"Example:\n  {PROGRAM} stage _build/stage")
def _stage(target: Annotated[Path, typer.Argument(help="folder to make")]) -> None:
    """Copy the book, with the freshly executed notebooks in it."""
    print(stage(target))


@app.command("accept", epilog=f"Example:\n  {PROGRAM} accept")
def _accept() -> None:
    """Make fresh notebooks and records the committed ones."""
    print("accepted:", *accept())


@app.command("check-offline", epilog=f"Example:\n  {PROGRAM} check-offline _build/html")
def _check_offline(folder: Annotated[Path, typer.Argument(help="built pages")]) -> None:
    """Check that no built page loads anything from the network."""
    if lines := network_loads(folder):
        sys.exit("\n".join([*lines, f"{len(lines)} loads from the network."]))
    print(f"{folder}: no page loads anything from the network")


@app.command("check-prose", epilog=f"Example:\n  {PROGRAM} check-prose")
def _check_prose() -> None:
    """Check that nobody typed a number into a page of findings."""
    if lines := check_prose():
        mend = "numbers typed by hand; look them up by a role or glue, or allow them with `% typed numbers:`"
        sys.exit("\n".join([*lines, f"{len(lines)} {mend}"]))
    print("book: no page holds a number typed by hand")


@app.command("pdf", epilog=f"Example:\n  {PROGRAM} pdf _build/singlehtml _build/book.pdf")
def _pdf(
    pages: Annotated[Path, typer.Argument(help="the single-page build of the book")],
    output: Annotated[Path, typer.Argument(help="file to write")],
) -> None:
    """Print the book."""
    pdf(pages, output)
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")


def main(arguments: list[str] | None = None) -> int:
    """The command line above; see `command_line.call` for the exit code."""
    return call(app, PROGRAM, arguments)


if __name__ == "__main__":
    sys.exit(main())
