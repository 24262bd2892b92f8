"""Tables of what AdaMerging learned, from rows of the coefficients record."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from .common import AVERAGE, label


def final(rows: pd.DataFrame, method: str, seed: int | None = None) -> pd.DataFrame:
    """Layer-wise coefficients of one method: its rows of the record, of the first seed unless another is asked for."""
    own = rows[(rows["method"] == method) & (rows["condition"] == "final")]
    return own[own["seed"] == (own["seed"].iloc[0] if seed is None and len(own) else seed)]


def depth(rows: pd.DataFrame, method: str) -> pd.DataFrame:
    """Mean coefficient over tasks: kinds of tensor × transformer blocks, in the order of the network."""
    own = final(rows, method)
    own = own[own["block"].str.startswith("block_")]
    frame = own.pivot_table(index="kind", columns="block", values="coefficient", sort=False)
    return frame.rename(columns=lambda block: int(block.removeprefix("block_")))


def deep_minus_shallow(rows: pd.DataFrame, method: str) -> pd.Series:
    """Mean coefficient of the deeper half of the blocks minus that of the shallower half, by kind and over all."""
    frame = depth(rows, method)
    half = frame.shape[1] // 2
    step = frame.iloc[:, -half:].mean(axis=1) - frame.iloc[:, :half].mean(axis=1)
    own = final(rows, method)
    own = own[own["block"].str.startswith("block_")]
    place = own["block"].str.removeprefix("block_").astype(int)
    deep, shallow = own[place >= place.max() + 1 - half], own[place < half]
    return pd.concat([step, pd.Series({"all tensors": deep["coefficient"].mean() - shallow["coefficient"].mean()})])


def spread(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a layer-wise method: mean, spread, and the shares that lie at the ends of the clamp, as text."""
    lines = {}
    for method in rows.loc[rows["condition"] == "final", "method"].unique():
        values = final(rows, method)["coefficient"]
        lines[label(method)] = {
            "coefficients": str(len(values)),
            "mean": f"{values.mean():.2f}",
            "standard deviation": f"{values.std():.2f}",
            "exactly 0": f"{100 * (values == 0).mean():.1f} %",
            "exactly 1": f"{100 * (values == 1).mean():.1f} %",
        }
    return pd.DataFrame(lines).T


def by_kind(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean coefficient by kind of tensor in the shallow and the deep half of the blocks, methods across, as text."""
    parts = {}
    for method in rows.loc[rows["condition"] == "final", "method"].unique():
        frame = depth(rows, method)
        half = frame.shape[1] // 2
        halves = {"shallow half": frame.iloc[:, :half].mean(axis=1), "deep half": frame.iloc[:, -half:].mean(axis=1)}
        parts[label(method)] = pd.DataFrame(halves).map("{:.2f}".format)
    return pd.concat(parts, axis=1).rename_axis(index=None)


def seeds(rows: pd.DataFrame, method: str) -> pd.DataFrame:
    """Accuracy and likeness of one method's fits: correlation and mean distance to the first seed's coefficients."""
    average = rows[(rows["method"] == method) & (rows["task"] == AVERAGE)].set_index("seed")["accuracy"]
    tables = {seed: final(rows, method, seed)["coefficient"].to_numpy() for seed in average.index}
    first = tables[average.index[0]]
    return pd.DataFrame(
        {
            seed: {
                "average accuracy": f"{average[seed]:.1f}",
                "correlation with the first": f"{np.corrcoef(first, own)[0, 1]:.2f}",
                "mean distance to the first": f"{np.abs(own - first).mean():.3f}",
            }
            for seed, own in tables.items()
        }
    ).T.rename_axis(index="seed")


def least_correlation(rows: pd.DataFrame, method: str) -> float:
    """The smallest correlation between the coefficients of any two seeds; NaN for a single seed."""
    own = rows[(rows["method"] == method) & (rows["condition"] == "final")]
    tables = [group["coefficient"].to_numpy() for _, group in own.groupby("seed", sort=False)]
    return min((np.corrcoef(a, b)[0, 1] for a, b in itertools.combinations(tables, 2)), default=float("nan"))
