"""Numbers that papers printed, as data: always marked *published*, never mixed with measured ones.

``tables.csv`` holds Tables 1 to 7 of the AdaMerging paper and ``figure1.csv`` the four values of Figure 1's caption,
both as printed, slips included; ``slips.csv`` lists the slips, so that nobody repairs a number silently.
``leaderboard.csv`` holds average accuracies over the eight tasks from many papers, each with its checkpoint pool.
"""

from __future__ import annotations

from importlib.resources import files

import pandas as pd

from ..runtime.values import nearest

ARCHITECTURES = {"ViT-B-32": "ViT-B/32", "ViT-B-16": "ViT-B/16", "ViT-L-14": "ViT-L/14"}
"""Architecture names as in the data → as in prose."""

METHOD_IDS = {
    "Individual": "individual",
    "Traditional MTL": "traditional_mtl",
    "Weight Averaging": "weight_averaging",
    "Fisher Merging": "fisher",
    "RegMean": "regmean",
    "Task Arithmetic": "task_arithmetic",
    "Ties-Merging": "ties",
    "Task-wise AdaMerging": "task_wise_adamerging",
    "Task-wise AdaMerging++": "task_wise_adamerging_pp",
    "Layer-wise AdaMerging": "layer_wise_adamerging",
    "Layer-wise AdaMerging++": "layer_wise_adamerging_pp",
    # Unless a table says otherwise, the paper means the layer-wise version (Section 4.1).
    "AdaMerging": "layer_wise_adamerging",
    "AdaMerging++": "layer_wise_adamerging_pp",
}
"""Method names as printed → ids of the method registry."""

POOLS = {
    "P1": "the task-vectors checkpoints (open_clip), as in the AdaMerging paper",
    "P2": "FusionBench's checkpoints (Hugging Face)",
    "P3": "the TALL-masks checkpoints, whose DTD training data held the test images",
}
"""Checkpoint pool → what it is. Averages of two pools belong to other experts and are never set side by side."""


def published(experiment: str | None = None, arch: str | None = None, table: int | None = None) -> pd.DataFrame:
    """Return the published accuracies of Tables 1 to 7, one row per number.

    Arguments:
        experiment: keep only ``performance``, ``generalization-1``, ``generalization-2`` or ``robustness``.
        arch: keep only ``ViT-B-32``, ``ViT-B-16`` or ``ViT-L-14``.
        table: keep only one table of the paper, 1 to 7.

    Returns:
        Columns ``table, arch, experiment, condition, method, method_id, group, task, accuracy`` (percent, as printed)
        in the paper's order; ``task`` holds the printed ``Average`` too.

    Raises:
        ValueError: a value that no published row has.

    Source: Yang et al., AdaMerging, ICLR 2024, Tables 1 to 7.

    Example:
        >>> table = am.published("performance", arch="ViT-B-32")
        >>> table.query("method_id == 'layer_wise_adamerging' and task == 'Average'")["accuracy"].item()
        80.1
    """
    rows = _read("tables.csv")
    rows.insert(rows.columns.get_loc("method") + 1, "method_id", rows["method"].map(METHOD_IDS))
    for column, wanted in {"experiment": experiment, "arch": arch, "table": table}.items():
        if wanted is not None:
            _check(column, wanted, rows[column].unique().tolist())
            rows = rows[rows[column] == wanted]
    return rows.reset_index(drop=True)


def figure1() -> pd.DataFrame:
    """The values that Figure 1's caption states (ViT-B/32, eight tasks): ``method, method_id, scaling, accuracy``.

    ``scaling`` is NaN for methods that have none. The figure's curves were never published as numbers.
    """
    rows = _read("figure1.csv")
    rows.insert(1, "method_id", rows["method"].map(METHOD_IDS))
    return rows


def leaderboard(pool: str, arch: str | None = None) -> pd.DataFrame:
    """Published average accuracies over the eight tasks, of one checkpoint pool; there is no call that mixes pools.

    Arguments:
        pool: ``P1``, ``P2`` or ``P3``, see `POOLS`.
        arch: keep ``ViT-B-32``, ``ViT-B-16`` or ``ViT-L-14``.

    Returns:
        Columns ``method, method_id`` (empty where the library has none), ``pool, arch, accuracy`` (percent, as
        printed), ``needs`` (beyond checkpoints, as published: validation counts as labels), ``extra`` (what is kept
        beyond one encoder and the zero-shot heads), ``source, note``. A method that several papers report has several
        rows, the first source being the one that its authors or the AdaMerging paper give.

    Raises:
        ValueError: a value that no published row has.
    """
    rows = _read("leaderboard.csv", keep_default_na=False)
    for column, wanted in {"pool": pool, "arch": arch}.items():
        if wanted is not None or column == "pool":
            _check(column, wanted, rows[column].unique().tolist())
            rows = rows[rows[column] == wanted]
    return rows.reset_index(drop=True)


def pool_averages(pool: str) -> pd.DataFrame:
    """Published averages of one checkpoint pool, the first source of each method: method ids × architectures."""
    rows = leaderboard(pool)
    rows = rows[rows["method_id"] != ""]
    source = rows.groupby("method_id")[["method", "source"]].transform("first")
    rows = rows[(rows["method"] == source["method"]) & (rows["source"] == source["source"])]
    frame = rows.pivot(index="method_id", columns="arch", values="accuracy")
    return frame.reindex(columns=list(ARCHITECTURES)).rename(columns=ARCHITECTURES)


def slips() -> pd.DataFrame:
    """Known slips of the paper: where, what is printed, what its own numbers give, and a note.

    Rows about an average that its columns do not give also name ``experiment, condition, method, group`` of the row.
    """
    return _read("slips.csv", dtype=str).fillna("")


def _read(name: str, **options) -> pd.DataFrame:
    with files(__package__).joinpath(name).open(encoding="utf-8") as file:
        return pd.read_csv(file, **options)


def _check(column: str, wanted: object, known: list) -> None:
    if wanted not in known:
        hint = nearest(wanted, known)
        raise ValueError(f"No published row has {column} {wanted!r}: {hint}Known: {', '.join(map(str, known))}.")
