"""Pictures that are files of the repository, drawn from a record or from what Snakemake prints:

python -m adamerging_study.book.pictures results/mini/performance.json book/_static/readme.png
snakemake --dag default variants | python -m adamerging_study.book.pictures - book/_static/workflow.png
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from adamerging_lib import records
from adamerging_lib.command.line import call

from ..performance.show import readme
from .workflow import workflow

PROGRAM = "python -m adamerging_study.book.pictures"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(
    epilog="Examples:\n"
    f"  {PROGRAM} results/mini/performance.json readme.png\n"
    f"  snakemake --dag default | {PROGRAM} - workflow.png"
)
def draw(
    source: Annotated[str, typer.Argument(help="a performance record, or - for Snakemake's graph on standard input")],
    picture: Annotated[str, typer.Argument(help="file to write, such as book/_static/readme.png")],
) -> None:
    """Draw a picture that is a file of the repository."""
    if source == "-":
        # No version of matplotlib in the file, so that only a changed graph changes it.
        workflow(sys.stdin.read()).savefig(picture, metadata={"Software": None})
    else:
        readme(records.frame(records.read(source)), picture)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line above; see `line.call` for the exit code."""
    return call(app, PROGRAM, arguments)


if __name__ == "__main__":
    sys.exit(main())
