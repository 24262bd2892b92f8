"""What AdaMerging learns: coefficients over steps, over depth and kind of tensor, at the clamp, and over seeds.

Rows of a record: accuracies as in `measure`; ``condition="path"`` with ``task, step, coefficient`` (task-wise);
``condition="final"`` with ``task, row, block, kind, coefficient`` (layer-wise), one set a method and seed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from adamerging_lib.block_names import block_rows
from adamerging_lib.coefficients import Coefficients, read_authors_file
from adamerging_lib.methods import Fit, run_method
from adamerging_lib.suite import Suite

from . import measure

TASK_WISE = ("task_wise_adamerging", "task_wise_adamerging_pp")
LAYER_WISE = ("layer_wise_adamerging", "layer_wise_adamerging_pp")
PATH_EVERY = 5  # steps between two points of a path that are kept

# What a tensor is, by its name: open_clip, Hugging Face and timm. The first that fits counts.
KINDS = {
    "attention in": r"in_proj_weight$|[qkv]_proj\.weight$|attn\.qkv\.weight$",
    "attention out": r"attn\.out_proj\.weight$|attn\.proj\.weight$",
    "MLP in": r"c_fc\.weight$|mlp\.fc1\.weight$",
    "MLP out": r"c_proj\.weight$|mlp\.fc2\.weight$",
    "LayerNorm": r"(^|[._])(ln|norm|layer_norm|layernorm|layrnorm)[._\d]",
    "bias": r"bias$",
    "embedding, projection": r"",
}


def kind_of(row: str) -> str:
    """The kind of tensor that a row's name tells."""
    return next(kind for kind, pattern in KINDS.items() if re.search(pattern, row))


def coefficients(
    suite: Suite, seeds: Sequence[int], learning: Mapping[str, Any], *, setting: str, device: str
) -> list[dict[str, Any]]:
    """Fit all four variants with the first seed, and layer-wise AdaMerging with every seed.

    Arguments:
        suite: what to merge, and the test images.
        seeds: of the order of images.
        learning: steps, lr and so on.
        setting: ``transductive`` or ``inductive``.
        device: ``cpu``, ``cuda`` or ``auto``.

    Returns:
        Rows of a record.
    """
    options = {"setting": setting, "device": device}
    runs = [(method, seeds[0]) for method in (*TASK_WISE, *LAYER_WISE)] + [(LAYER_WISE[0], s) for s in seeds[1:]]
    rows = []
    for method, seed in runs:
        rows += measure(suite, method, learning=learning, seed=seed, **options)
        fit = run_method(method, suite, **learning, seed=seed, progress=False, **options)
        rows += rows_of(fit, seed)
    return rows


def rows_of(fit: Fit, seed: int) -> list[dict[str, Any]]:
    """A fit's coefficients as rows: the way of a task-wise fit, the end of a layer-wise one."""
    about = {"method": fit.method, "seed": seed}
    if fit.coefficients.granularity != "task":
        return final_rows(fit.coefficients, **about)
    last = len(fit.trajectory) - 1
    steps = sorted({*range(0, last, PATH_EVERY), last})
    return [
        {**about, "condition": "path", "task": task, "step": step, "coefficient": float(fit.trajectory[step, k, 0])}
        for k, task in enumerate(fit.tasks)
        for step in steps
    ]


def final_rows(table: Coefficients, **about: Any) -> list[dict[str, Any]]:
    """Coefficients as rows, each with its tensor's block and kind."""
    blocks = block_rows(table.rows)
    return [
        {
            **about, "condition": "final", "task": task, "row": row, "block": blocks[row], "kind": kind_of(row),
            "coefficient": float(table.values[k, r]),
        }
        for k, task in enumerate(table.tasks)
        for r, row in enumerate(table.rows)
    ]  # fmt: skip


def published_rows(path: str, arch: str = "ViT-B-32") -> pd.DataFrame:
    """The authors' released layer-wise coefficients as rows, from their own file; parsed, never executed.

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
    return pd.DataFrame([row for method, table in tables.items() for row in final_rows(table, method=method, seed=0)])
