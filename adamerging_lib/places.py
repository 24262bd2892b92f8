"""Where records lie: the committed ones, and those that the present run writes."""

from __future__ import annotations

import os
from pathlib import Path


def committed() -> Path:
    """The folder of the committed records: ``results`` of the checkout, else of the current folder."""
    root = Path(__file__).resolve().parents[1]
    return (root if (root / "pyproject.toml").is_file() else Path.cwd()) / "results"


def results() -> Path:
    """The folder that a run writes its records to: $ADAMERGING_RESULTS, else `committed`.

    `make book`, `make rerun` and the tests set the variable, so that only `make accept` changes committed records.
    """
    given = os.environ.get("ADAMERGING_RESULTS")
    return Path(given) if given else committed()
