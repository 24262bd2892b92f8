"""Tables of a world: its tasks; of the mini one also how its zoo was trained, and how good its checkpoints are."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from adamerging_lib.suite import Suite
from adamerging_lib.worlds.roles import ROLES

from .common import AVERAGE, labelled


def tasks(suite: Suite) -> pd.DataFrame:
    """Each task: the paper's data set whose place it takes, its classes and test images, as text."""
    lines = {
        task: {
            "stands in for": ROLES.get(task, task),
            "classes": str(len(data.classes)),
            "chance": f"{100 / len(data.classes):.1f} %",
            "test images": f"{len(data):,}",
        }
        for task, data in suite.test.items()
    }
    return pd.DataFrame(lines).T


def recipe(manifest: Mapping[str, Mapping]) -> pd.DataFrame:
    """How a zoo was trained: settings × stages, as text, in the manifest's order."""
    stages = {stage: {key: str(value) for key, value in part.items()} for stage, part in manifest["recipe"].items()}
    order = list(dict.fromkeys(key for part in stages.values() for key in part))
    return pd.DataFrame(stages, dtype=object).reindex(order)


def zoo_accuracies(manifest: Mapping[str, Mapping]) -> pd.DataFrame:
    """Accuracies (percent) that a zoo's manifest states: methods × tasks, and their unweighted average, as text."""
    frame = pd.DataFrame(manifest["accuracies"]).T
    frame[AVERAGE] = frame.mean(axis=1)
    return labelled(frame.map("{:.1f}".format))
