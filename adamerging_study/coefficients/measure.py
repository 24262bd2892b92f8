"""The measurement behind Figures 4, 5 and 7 to 10, and the authors' own coefficients beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from adamerging_lib.coefficients import Coefficients, read_authors_file
from adamerging_lib.layers import ROLES, block_rows, role
from adamerging_lib.merged import Fit
from adamerging_lib.methods import methods
from adamerging_lib.suite import Suite

from .. import measuring
from . import LAYER_WISE, TASK_WISE

PATH_EVERY = 5  # steps between two points of a path that are kept

# What a tensor does → the role under which its coefficients are summed up.
SUMMED = dict.fromkeys(ROLES, "embedding, projection") | {
    **{name: name for name in ("attention in", "attention out", "MLP in", "MLP out", "bias")},
    "norm": "LayerNorm",
}


def role_of(row: str) -> str:
    """What a tensor does, told by its name."""
    return SUMMED[role(row)]


def measure(
    suite: Suite,
    *,
    seeds: Sequence[int],
    test_images: int = 0,
    setting: str = "transductive",
    device: str = "cpu",
    **learning: Any,
) -> list[dict[str, Any]]:
    """Fit all four variants with the first seed, and layer-wise AdaMerging with every seed.

    Arguments:
        suite: what to merge, and the test images.
        seeds: of the order of images.
        test_images: drawn per task; 0 for all.
        setting, device: as in `measuring.measure`.
        learning: steps, lr and so on.

    Returns:
        Rows of a record.
    """
    suite, options = suite.some_images(test_images or None), {"setting": setting, "device": device}
    runs = [(method, seeds[0]) for method in (*TASK_WISE, *LAYER_WISE)] + [(LAYER_WISE[0], s) for s in seeds[1:]]
    rows = []
    for method, seed in runs:
        rows += measuring.measure(suite, method, learning=learning, seed=seed, **options)
        rows += rows_of(measuring.fit(suite, method, learning=learning, seed=seed, **options), seed)  # from the cache
    return rows


def rows_of(fit: Fit, seed: int) -> list[dict[str, Any]]:
    """A fit's coefficients as rows: the way of a task-wise fit, the end of a layer-wise one."""
    about = {"method": fit.method, "seed": seed}
    if fit.coefficients.granularity != "task":
        return final_rows(fit.coefficients, **about)
    last = len(fit.trajectory) - 1
    steps = [step for step in sorted({*range(0, last, PATH_EVERY), last}) if not fit.trajectory[step].isnan().any()]
    return [
        {**about, "kind": "path", "task": task, "step": step, "coefficient": float(fit.trajectory[step, k, 0])}
        for k, task in enumerate(fit.tasks)
        for step in steps
    ]


def final_rows(table: Coefficients, **about: Any) -> list[dict[str, Any]]:
    """Coefficients as rows, each with its tensor's block and role."""
    blocks = block_rows(table.rows)
    return [
        {
            **about, "kind": "final", "task": task, "row": row, "block": blocks[row], "role": role_of(row),
            "coefficient": float(table.values[k, r]),
        }
        for k, task in enumerate(table.tasks)
        for r, row in enumerate(table.rows)
    ]  # fmt: skip


def published_rows(path: str, arch: str = "ViT-B-32") -> pd.DataFrame:
    """The authors' released layer-wise coefficients as a frame of rows, from their own file; parsed, never executed.

    Arguments:
        path: their ``merging_cofficient.py``.
        arch: ``ViT-B-32``, ``ViT-B-16`` or ``ViT-L-14``.

    Raises:
        ValueError: where the file is missing or holds no layer-wise table of that architecture.
    """
    tables = {
        LAYER_WISE["pp" in "".join(key).lower() or "++" in "".join(key)]: table
        for key, table in read_authors_file(path).items()
        if arch in key and table.granularity == "tensor"
    }
    if not tables:
        raise ValueError(f"{path} holds no layer-wise table of {arch}: give the authors' merging_cofficient.py")
    rows = [row for method, table in tables.items() for row in final_rows(table, method=method, seed=0)]
    return pd.DataFrame(rows).assign(label=lambda rows: rows["method"].map(methods()["label"]))
