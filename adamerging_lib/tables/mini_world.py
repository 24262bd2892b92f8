"""Tables of the mini world: how its zoo was trained, and how good its checkpoints are."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from .common import AVERAGE, labelled


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
