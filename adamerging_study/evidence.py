"""The facts that `adamerging check` shows beside its advice: a table shipped with the library, taken from records.

    python -m adamerging_study.evidence

writes it anew; `make accept` does the same, and a test compares it with the records.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from adamerging_lib import doctor, records
from adamerging_lib.doctor.advice import CLEAN, STRETCHED
from adamerging_lib.runtime.atomic import atomic

from .check import STRETCHED as THREEFOLD
from .sample import AVERAGE

WORLDS = {
    "the drawn world": "results/mini/leaderboard.json",
    "photographs": "book/runs/tiny/leaderboard/tiny/leaderboard.json",
    "text": "book/runs/mini-text/leaderboard/mini-text/leaderboard.json",
}
CHECK = "results/mini/check.json"
FILE = Path(doctor.__file__).with_name("evidence.csv")


def evidence(root: Path = Path()) -> pd.DataFrame:
    """Average accuracy (percent, two digits) of every method that needs nothing, by world and case.

    Arguments:
        root: of the checkout whose records are read.
    """
    parts = []
    for world, path in WORLDS.items():
        rows = records.frame(records.read(root / path))
        rows = rows[(rows["task"] == AVERAGE) & (rows["needs"] == "nothing")]
        parts.append(rows.assign(world=world, case=CLEAN)[_COLUMNS])
    rows = records.frame(records.read(root / CHECK))
    rows = rows[(rows["task"] == AVERAGE) & (rows["fault"] == THREEFOLD)]
    means = rows.groupby("method", sort=False)["accuracy"].mean().reset_index()
    parts.append(means.assign(world=next(iter(WORLDS)), case=STRETCHED)[_COLUMNS])
    return pd.concat(parts, ignore_index=True).round({"accuracy": 2})


_COLUMNS = ["world", "case", "method", "accuracy"]


def write(root: Path = Path(), file: Path = FILE) -> None:
    """Write the table that the library ships."""
    with atomic(file) as temporary:
        evidence(root).to_csv(temporary, index=False, float_format="%.2f")


if __name__ == "__main__":
    write()
