"""Pictures that are files of the repository, drawn from a record or from what Snakemake prints:

python -m adamerging_study.figures results/mini/performance.json book/_static/readme.png
snakemake --dag default variants | python -m adamerging_study.figures - book/_static/workflow.png
"""

from __future__ import annotations

import argparse
import sys

import pandas as pd

from adamerging_lib import records

from .performance import readme
from .workflow import workflow

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("source", help="a performance record, or - for Snakemake's graph on standard input")
parser.add_argument("picture", help="for example book/_static/readme.png")
arguments = parser.parse_args()
if arguments.source == "-":
    # No version of matplotlib in the file, so that only a changed graph changes it.
    workflow(sys.stdin.read()).savefig(arguments.picture, metadata={"Software": None})
else:
    readme(pd.DataFrame(records.read(arguments.source)["rows"]), arguments.picture)
