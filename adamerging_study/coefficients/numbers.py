"""How far learned coefficients lie apart: between tasks, tensors, shallow and deep blocks, and seeds."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from ..sample import Sample
from . import LAYER_WISE, TASK_WISE

SHORT = dict(zip((*TASK_WISE, *LAYER_WISE), ("tw", "twpp", "lw", "lwpp"), strict=True))
"""Method → how the names of numbers call it."""
MATRICES = ("attention in", "attention out", "MLP in", "MLP out")
"""Roles of tensors that are weight matrices of a block."""


def numbers(sample: Sample) -> dict[str, np.ndarray]:
    """Differences between coefficients, of fits with the first seed.

    ``tasks_apart_METHOD``: largest minus smallest of a task-wise fit. Of a layer-wise one, ``tensors_apart_METHOD``:
    standard deviation over tensors of the mean over tasks; ``deeper_METHOD``: mean over the deeper half of the blocks
    minus that over the shallower half; ``deeper_matrices_METHOD``: the same of weight matrices, the mean over their
    roles. ``seeds_alike``: the least correlation between the layer-wise coefficients of two seeds; ``seeds_apart``: the
    points between the best and the worst seed's average accuracy.
    """
    about = {"condition": None, "row": ..., "block": ..., "role": ..., "step": ...}
    found = {}
    for method in TASK_WISE:
        rows = sample.rows(kind="path", method=method, **about)
        found[f"tasks_apart_{SHORT[method]}"] = sample.point(_apart(rows))
    for method in LAYER_WISE:
        rows = sample.rows(kind="final", method=method, **about)
        for name, value in _over_tensors(rows, method).items():
            found[f"{name}_{SHORT[method]}"] = sample.point(value)
    fits = sample.rows(kind="final", method=LAYER_WISE[0], **about)
    found["seeds_alike"] = sample.point(_least_correlation(fits))
    averages = list(sample.each("accuracy", by="seed", method=LAYER_WISE[0]).values())
    apart = np.max(averages, axis=0) - np.min(averages, axis=0) if len(averages) > 1 else sample.point(np.nan)
    found["seeds_apart"] = apart
    return found


def final(rows: pd.DataFrame, method: str, seed: int | None = None) -> pd.DataFrame:
    """Layer-wise coefficients of one method: its rows of the record, of the first seed unless another is asked for."""
    fits = rows[(rows["method"] == method) & (rows["kind"] == "final")]
    return fits[fits["seed"] == (fits["seed"].iloc[0] if seed is None and len(fits) else seed)]


def depth(rows: pd.DataFrame, method: str) -> pd.DataFrame:
    """Mean coefficient over tasks: roles of tensors × transformer blocks, in the order of the network."""
    return in_blocks(rows, method).pivot_table(index="role", columns="block", values="coefficient", sort=False)


def in_blocks(rows: pd.DataFrame, method: str) -> pd.DataFrame:
    """As `final`, of tensors inside transformer blocks, with the number of the block in ``block``."""
    tensors = final(rows, method)
    tensors = tensors[tensors["block"].str.startswith("block_", na=False)]
    return tensors.assign(block=tensors["block"].str.removeprefix("block_").astype(int))


def halves(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The shallower and the deeper half of the columns of `depth`; of an odd number, without the middle one."""
    half = frame.shape[1] // 2
    return frame.iloc[:, :half], frame.iloc[:, frame.shape[1] - half :]


def _apart(path: pd.DataFrame) -> float:
    last = path.loc[path["step"] == path["step"].max(), "coefficient"] if len(path) else pd.Series(dtype=float)
    return last.max() - last.min()


def _over_tensors(rows: pd.DataFrame, method: str) -> dict[str, float]:
    if not len(rows):
        return dict.fromkeys(("tensors_apart", "deeper", "deeper_matrices"), np.nan)
    shallow, deep = halves(depth(rows, method))
    by_role = deep.mean(axis=1) - shallow.mean(axis=1)
    tensors = in_blocks(rows, method)
    sides = [tensors.loc[tensors["block"].isin(side.columns), "coefficient"].mean() for side in (shallow, deep)]
    return {
        "tensors_apart": final(rows, method).groupby("row")["coefficient"].mean().std(),
        "deeper": sides[1] - sides[0],
        "deeper_matrices": by_role.reindex(MATRICES).mean(),
    }


def _least_correlation(fits: pd.DataFrame) -> float:
    """The smallest correlation between the coefficients of any two seeds; NaN for a single seed."""
    tables = [group["coefficient"].to_numpy() for _, group in fits.groupby("seed", sort=False)]
    return min((np.corrcoef(a, b)[0, 1] for a, b in itertools.combinations(tables, 2)), default=np.nan)
