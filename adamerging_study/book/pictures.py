"""Pictures that are files of the repository, drawn from a record or from what Snakemake prints:

python -m adamerging_study.book.pictures results/mini/performance.json book/_static/readme.png
snakemake --dag default variants | python -m adamerging_study.book.pictures - book/_static/workflow.png
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from adamerging_lib import records

from ..performance.show import readme
from .workflow import workflow


def main(arguments: Sequence[str]) -> None:
    """Draw one picture: from a performance record, or from Snakemake's graph on standard input where it is ``-``."""
    if len(arguments) != 2:
        sys.exit(__doc__)
    source, picture = arguments
    if source == "-":
        # No version of matplotlib in the file, so that only a changed graph changes it.
        workflow(sys.stdin.read()).savefig(picture, metadata={"Software": None})
    else:
        readme(records.frame(records.read(source)), picture)


if __name__ == "__main__":
    main(sys.argv[1:])
