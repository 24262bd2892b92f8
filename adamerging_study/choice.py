"""Which method to take, by what one has besides the checkpoints: read off the registry."""

from __future__ import annotations

import pandas as pd

from adamerging_lib.methods import methods
from adamerging_lib.methods.registry import find
from adamerging_lib.published.competitions import BOUNDS, GIVES, NEEDS


def choice() -> pd.DataFrame:
    """Merging methods grouped by what they need, the kind of model that results, and how they are called."""
    rows = []
    known = [find(id) for id in methods().index if id not in BOUNDS]
    for needs in NEEDS:
        for gives in GIVES:
            group = [method for method in known if (method.needs, method.gives) == (needs, gives)]
            if group:
                files = all(method.takes == "task_vectors" for method in group)
                rows.append({
                    "besides the checkpoints": needs,
                    "result": gives,
                    "call": "adamerging merge" if files else "am.run_method",
                    "methods": ", ".join(method.id for method in group),
                })  # fmt: skip
    return pd.DataFrame(rows)
