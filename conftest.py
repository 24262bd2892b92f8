"""Notebooks under nbval write no committed record and begin with an empty cache of fits."""

from __future__ import annotations

import os
import subprocess
import tempfile


def pytest_configure(config) -> None:
    if hasattr(config, "workerinput"):
        return  # pytest-xdist's workers inherit what the main process set, and so share one cache
    if config.getoption("--nbval", default=False) or config.getoption("--nbval-lax", default=False):
        # Kernels inherit the environment; an autouse fixture would come too late for them.
        folder = tempfile.TemporaryDirectory(prefix="adamerging-")
        config.add_cleanup(folder.cleanup)
        os.environ["ADAMERGING_CACHE"] = os.path.join(folder.name, "fits")
        os.environ["ADAMERGING_RESULTS"] = os.path.join(folder.name, "results")
        os.environ["ADAMERGING_COMPARE"] = "1"  # a run that differs from its committed record fails
        # Kept evaluations are read, except for one in twenty: others with every commit.
        os.environ.setdefault("ADAMERGING_EVALUATE", f"some:{_commit()}")


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "no repository"
