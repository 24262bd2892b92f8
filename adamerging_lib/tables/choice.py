"""Which method to take, by what one has besides the checkpoints: read off the registry."""

from __future__ import annotations

import pandas as pd

from ..methods import methods
from ..methods.registry import NEEDS, find
from .common import BOUNDS


def choice() -> pd.DataFrame:
    """Merging methods grouped by what they need, whether inference must know the task, and how they are called."""
    rows = []
    known = methods().drop(index=list(BOUNDS))
    for needs in NEEDS:
        for task_id in (False, True):
            group = known[(known["needs"] == needs) & (known["task_id"] == task_id)]
            if len(group):
                files = all(find(method).takes == "task_vectors" for method in group.index)
                rows.append({
                    "besides the checkpoints": needs,
                    "comes out": "a model a task" if task_id else "one model",
                    "call": "adamerging merge" if files else "am.run_method",
                    "methods": ", ".join(group.index),
                })  # fmt: skip
    return pd.DataFrame(rows)
