"""Which method to take, by what one has besides the checkpoints: read off the registry."""

from __future__ import annotations

import pandas as pd

from adamerging_lib.methods import methods
from adamerging_lib.methods.registry import NEEDS, find

from .common import BOUNDS
from .leaderboard import ONE, PARTS, kind


def choice() -> pd.DataFrame:
    """Merging methods grouped by what they need, the kind of model that comes out, and how they are called."""
    rows = []
    known = methods().drop(index=list(BOUNDS))
    for needs in NEEDS:
        for comes in (ONE, PARTS):
            group = [method for method in known.index[known["needs"] == needs] if kind(method) == comes]
            if group:
                files = all(find(method).takes == "task_vectors" for method in group)
                rows.append({
                    "besides the checkpoints": needs,
                    "comes out": comes,
                    "call": "adamerging merge" if files else "am.run_method",
                    "methods": ", ".join(group),
                })  # fmt: skip
    return pd.DataFrame(rows)
