"""``python -m adamerging_lib.figures results/mini/performance.json book/_static/readme.png``: the README's picture."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from .. import records
from .performance import readme

parser = argparse.ArgumentParser(description="Draw the README's picture from a performance record.")
parser.add_argument("record", type=Path, help="for example results/mini/performance.json")
parser.add_argument("picture", type=Path, help="for example book/_static/readme.png")
arguments = parser.parse_args()
readme(pd.DataFrame(records.read(arguments.record)["rows"]), arguments.picture)
