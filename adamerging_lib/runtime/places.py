"""Where records lie, the committed ones and those that this run writes, and where files for all checkouts lie."""

from __future__ import annotations

import os
from pathlib import Path


def given(path: str | os.PathLike[str]) -> Path:
    """A path as a person gave it, ``~`` at its start being the home folder; a shell leaves it behind an ``=``."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~name without such a user: a file's own name, then
        return Path(path)


def committed() -> Path:
    """The folder of the committed records: ``results`` of the checkout, else of the current folder."""
    root = Path(__file__).resolve().parents[2]
    return (root if (root / "pyproject.toml").is_file() else Path.cwd()) / "results"


def results() -> Path:
    """The folder that a run writes its records to: $ADAMERGING_RESULTS, else ``_build/results`` beside `committed`.

    So that no run changes a committed record: only `make accept` does, and `make refit` what is below ``fits``.
    """
    folder = os.environ.get("ADAMERGING_RESULTS")
    return Path(folder) if folder else committed().parent / "_build" / "results"


def assets() -> Path:
    """The folder of models and data sets: $ADAMERGING_ASSETS, else ``adamerging/assets`` of the user's cache folder."""
    if folder := os.environ.get("ADAMERGING_ASSETS"):
        return given(folder)
    return _user_cache() / "assets"


def zoo() -> Path:
    """The folder of models trained on this machine: ``adamerging/zoo`` of the user's cache folder."""
    return _user_cache() / "zoo"


def _user_cache() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "adamerging"
