"""Numbers of one record together with how sure they are: paired draws over images, and over seeds."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from . import outcomes

AVERAGE = "Average"
"""The task of a row that holds the unweighted mean over tasks."""

# Never what tells two rows apart, so an error about rows that look alike does not name them.
_MEASURED = {outcomes.FIELD, "accuracy", "entropy", "loss", "calibration", "seconds", "memory", "storage"}
_CHUNK = 100


class Sample:
    """The rows of one record, answering look-ups with arrays ``[1 + draws]``: the value, then bootstrap draws of it.

    Arithmetic on such arrays gives the draws of any derived number: differences, minima (`np.minimum`), the best point
    of a sweep (`np.maximum.reduce`); `interval` reads a 95 % interval off the result.

    **Images.** Draw b takes the n images of a task with replacement, image i c_bi times, c_b ~ Multinomial(n, 1/n):

        acc_b = 100/n · Σ_i c_bi · right_i

    Rows of one task with equal n were measured on the same images in the same order (or on corrupted versions of
    them), and share c: methods, conditions and seeds are compared image by image. Tasks are resampled separately and
    are not exchanged for others: an interval speaks of these tasks. c depends on seed, task and n alone, so numbers
    of two samples of equal ``seed`` and ``draws`` are paired as well.

    **Seeds.** Where rows of S > 1 seeds match, the value is the mean over seeds, ā, and its draw

        a_b = 1/S · Σ_s acc_sb + Σ_s e_bs · acc_s,   e_bs = (g_bs − ḡ_b) / √(S (S − 1)) / √(χ²_b / (S − 1))

    with g_bs standard normal, χ²_b of S − 1 degrees of freedom, and acc_s the seed's accuracy on all images, as
    measured. Given the data, the second sum is distributed as s/√S · t(S − 1) with s the standard deviation over
    seeds: the usual small-sample interval of a mean. All rows of one set of seeds share e, so that a difference of two
    methods has the t interval of its S differences. With S = 1 there is no second sum: the interval then says nothing
    about other seeds.

    Seeds that misclassify different images differ also by chance of the images. With v the variance of that part for
    one seed, the draws of the images spread ā by v/S and s²/S holds v/S again: counted twice, on the safe side, and
    little where seeds agree image by image. (Seeds enter by acc_s, not acc_sb, which would count it a third time.)

    Rows without outcomes (`outcomes.FIELD`) have NaN for draws, rows that do not exist NaN for the value too;
    arithmetic carries both along.

    Arguments:
        rows: a data frame, or one mapping per row; with ``accuracy`` in percent.
        draws: bootstrap draws; 0 for values alone.
        seed: of all draws.
        where: columns that every look-up asks for unless it names them itself, such as ``condition="clean"``.

    Raises:
        ValueError: from a look-up, where several rows per task and seed match.
    """

    def __init__(
        self,
        rows: pd.DataFrame | Iterable[Mapping[str, Any]],
        draws: int = 2000,
        seed: int = 0,
        where: Mapping[str, Any] | None = None,
    ):
        self.frame = (rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))).reset_index(drop=True)
        self.draws, self.seed, self.where = draws, seed, dict(where or {})
        self._seeds, self._tasks, self._n = self._plain("seed"), self._plain("task"), self._plain("n")
        self._right, self._accuracies = self._plain(outcomes.FIELD), self._numbers("accuracy")
        self._columns: dict[str, tuple[np.ndarray, dict[Hashable, int]]] = {}
        self._seed_weights: dict[tuple, np.ndarray] = {}
        self._hits: dict[tuple[str, int], dict[int, np.ndarray]] = {}

    def accuracy(self, method: str, task: str = AVERAGE, **columns: Any) -> np.ndarray:
        """Accuracy of a method on one task, percent, mean over the seeds that match, ``[1 + draws]``.

        Arguments:
            method: its id.
            task: its name; ``Average`` for what `average` gives.
            columns: further columns of the rows, see `rows`.
        """
        if task == AVERAGE:
            return self.average(method, **columns)
        return self._mean_accuracy(self._matching(method=method, task=task, **columns))

    def average(self, method: str, **columns: Any) -> np.ndarray:
        """Unweighted mean over tasks of a method's accuracy, percent, then mean over seeds, ``[1 + draws]``.

        The tasks are those of the rows that match. Where only an ``Average`` row does, its value has no draws.
        """
        matching = self._matching(method=method, **columns)
        of_a_task = matching[~self._mask("task", AVERAGE)[matching]]
        return self._mean_accuracy(of_a_task) if len(of_a_task) else self.value("accuracy", method=method, **columns)

    def value(self, field: str, **columns: Any) -> np.ndarray:
        """Another measured field, mean over seeds, ``[1 + draws]`` with NaN for draws: there are no outcomes behind it.

        Arguments:
            field: ``entropy``, ``coefficient``, ``value``, …
            columns: of the rows, see `rows`; name ``task="Average"`` for the mean over tasks.
        """
        matching = self._matching(**columns)
        values = self._numbers(field) if len(matching) else np.empty(0)
        matching = matching[~np.isnan(values[matching])]
        by_seed = self._by_seed(matching)
        return self.point(np.mean([values[rows].mean() for rows in by_seed.values()]) if by_seed else np.nan)

    def each(self, field: str, by: str, **columns: Any) -> dict[Any, np.ndarray]:
        """One look-up per value of a column, in the order of the rows: value → ``[1 + draws]``.

        ``each("accuracy", by="scaling", method="ties")`` is a sweep over λ of averages, ``each("accuracy", by="task",
        method="ties")`` the accuracy task by task; other fields are looked up as in `value`.

        Arguments:
            field: ``accuracy`` (needs ``method``), or another measured field.
            by: the column; rows that lack it, and rows of ``Average`` with ``by="task"``, are left out.
            columns: of the rows, see `rows`.
        """
        matching = self._matching(**{**columns, by: ...})
        keys = self.frame[by].iloc[matching].dropna().unique().tolist() if by in self.frame else []
        look_up = self.accuracy if field == "accuracy" else lambda **which: self.value(field, **which)
        return {key: look_up(**{**columns, by: key}) for key in keys if (by, key) != ("task", AVERAGE)}

    def point(self, number: float) -> np.ndarray:
        """A number that has no outcomes behind it, such as a rank correlation of two columns, as ``[1 + draws]``."""
        return np.concatenate([[float(number)], np.full(self.draws, np.nan)])

    def rows(self, **columns: Any) -> pd.DataFrame:
        """The rows that match, for numbers that need more than one field (to be handed on by `point`).

        Arguments:
            columns: column → the value asked for; a list, tuple or set asks for any of its values, None for rows that
                lack the column, ``...`` for any row. Columns not named are asked for as in ``where``.
        """
        return self.frame.iloc[self._matching(**columns)]

    def _matching(self, **columns: Any) -> np.ndarray:
        """Positions of the rows that match, in the order of ``frame``."""
        mask = np.ones(len(self.frame), bool)
        for column, wanted in {**self.where, **columns}.items():
            if wanted is not ...:
                wanted = wanted if isinstance(wanted, (list, tuple, set, frozenset)) else [wanted]
                mask &= np.logical_or.reduce([self._mask(column, value) for value in wanted])
        return np.flatnonzero(mask)

    def _plain(self, column: str) -> list[Any]:
        """A column as plain values, whole numbers as int (gaps elsewhere make pandas read them as float), else None."""
        values = self.frame[column].tolist() if column in self.frame else [None] * len(self.frame)
        values = [None if pd.isna(value) else value for value in values]
        return [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]

    def _numbers(self, column: str) -> np.ndarray:
        """A column as float64, NaN where a row lacks it."""
        if column not in self.frame:
            return np.full(len(self.frame), np.nan)
        return pd.to_numeric(self.frame[column]).to_numpy(float, na_value=np.nan)

    def _mask(self, column: str, value: Hashable) -> np.ndarray:
        if column not in self.frame:
            return np.full(len(self.frame), value is None)
        if column not in self._columns:
            codes, values = pd.factorize(self.frame[column].astype(object))
            self._columns[column] = codes, {known: code for code, known in enumerate(values)}
        codes, known = self._columns[column]
        return codes == (-1 if value is None else known.get(value, -2))

    def _mean_accuracy(self, matching: np.ndarray) -> np.ndarray:
        by_seed = self._by_seed(matching)
        if not by_seed:
            return self.point(np.nan)
        points = np.array([self._accuracies[rows].mean() for rows in by_seed.values()])
        images = [np.mean([self._row_draws(row) for row in rows], axis=0) for rows in by_seed.values()]
        draws = np.mean(images, axis=0) + self._spread_of_seeds(tuple(by_seed)) @ points
        return np.concatenate([[points.mean()], draws])

    def _by_seed(self, matching: np.ndarray) -> dict[Any, np.ndarray]:
        """Seed → positions of its rows, one per task."""
        found: dict[Any, dict[Any, int]] = {}
        for row in matching.tolist():
            earlier = found.setdefault(self._seeds[row], {}).setdefault(self._tasks[row], row)
            if earlier != row:
                raise ValueError(self._alike(earlier, row))
        return {seed: np.array(list(found[seed].values())) for seed in sorted(found, key=str)}

    def _alike(self, *rows: int) -> str:
        pair = self.frame.iloc[list(rows)]
        differ = [c for c in pair if c not in _MEASURED and pair[c].astype(str).nunique() > 1]
        who = {column: pair[column].iat[0] for column in ("method", "task", "seed") if column in pair}
        return f"two rows match {who}: name one value of {differ or 'a column that tells them apart'}"

    def _row_draws(self, row: int) -> np.ndarray:
        """Accuracy of one row on the resampled images, percent, ``[draws]``; NaN where it has no outcomes."""
        if self._right[row] is None:
            return np.full(self.draws, np.nan)
        images = self._tasks[row], self._n[row]
        if images not in self._hits:
            self._hits[images] = self._hits_of(*images)
        return 100 * self._hits[images][row].astype(float) / images[1]

    def _hits_of(self, task: str, n: int) -> dict[int, np.ndarray]:
        """Right answers among the resampled images, float32 ``[draws]``, for all rows on one set of images at once."""
        measured = enumerate(zip(self._tasks, self._n, self._right, strict=True))
        rows = [row for row, (*images, right) in measured if images == [task, n] and right is not None]
        right = np.stack([self._outcomes(row) for row in rows], axis=1).astype(np.float32)  # [n, rows]
        counts = image_counts(task, n, self.draws, self.seed)
        # float32 holds whole numbers up to 2^24, more than any n. In parts, because two bytes per count grow to four.
        parts = [counts[i : i + _CHUNK].astype(np.float32) @ right for i in range(0, self.draws, _CHUNK)]
        hits = np.concatenate([*parts, np.empty((0, len(rows)), np.float32)])
        return dict(zip(rows, np.ascontiguousarray(hits.T), strict=True))

    def _outcomes(self, row: int) -> np.ndarray:
        n, accuracy = self._n[row], self._accuracies[row]
        right = outcomes.unpack(self._right[row], n)
        if not abs(right.sum() - accuracy * n / 100) < 0.5:
            raise ValueError(
                f"row {row} has an accuracy of {accuracy} %, but {right.sum()} of {n} outcomes are right: "
                "run the experiment again"
            )
        return right

    def _spread_of_seeds(self, seeds: tuple) -> np.ndarray:
        if seeds not in self._seed_weights:
            self._seed_weights[seeds] = seed_weights(seeds, self.draws, self.seed)
        return self._seed_weights[seeds]


def image_counts(task: str, n: int, draws: int, seed: int) -> np.ndarray:
    """How often each image of a task is taken in each draw, c ~ Multinomial(n, 1/n), uint16 ``[draws, n]``.

    The same task, n and seed give the same counts in every process.
    """
    generator = np.random.default_rng([seed, n, zlib.crc32(task.encode())])
    counts = np.empty((draws, n), np.uint16)
    for draw in counts:
        draw[:] = np.bincount(generator.integers(n, size=n), minlength=n)
    return counts


def seed_weights(seeds: Collection[Hashable], draws: int, seed: int) -> np.ndarray:
    """Weights e ``[draws, S]`` that sum to 0 over S seeds; Σ_s e_s x_s is distributed as t(S − 1) · s/√S.

    e_s = (g_s − ḡ) / √(S (S − 1)) / √(χ² / (S − 1)), g standard normal, χ² of S − 1 degrees of freedom; 0 for S = 1.
    s is the standard deviation of x with S − 1 in its denominator.
    """
    count = len(seeds)
    if count == 1:
        return np.zeros((draws, 1))
    generator = np.random.default_rng([seed, count, zlib.crc32(repr(sorted(seeds, key=str)).encode())])
    normal = generator.standard_normal((draws, count))
    centred = normal - normal.mean(axis=1, keepdims=True)
    scale = np.sqrt(generator.chisquare(count - 1, size=(draws, 1)) / (count - 1))
    return centred / np.sqrt(count * (count - 1)) / scale


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, element by element; NaN where the whole is 0, so that no interval is claimed for it."""
    part, whole = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)


def positive(values: np.ndarray) -> np.ndarray:
    """1 where a number is above 0, 0 where it is not, NaN where it is NaN; their sum counts, and stays *not run*."""
    return np.where(np.isnan(values), np.nan, np.round(values, 9) > 0)


def rank_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's ρ over the first axis, draw by draw: the correlation of ranks, ties sharing their mean rank.

    Arguments:
        x, y: ``[items, 1 + draws]``, such as one accuracy per task.

    Returns:
        ``[1 + draws]``, NaN where an item is NaN or all items of x or of y are equal.
    """
    x, y = (ranks - ranks.mean(axis=0) for ranks in (rankdata(x, axis=0), rankdata(y, axis=0)))
    return ratio((x * y).sum(axis=0), np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0)))


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float | None, float | None]:
    """(point, low, high) of an array of `Sample`: its first element, and the percentiles (1 ∓ level)/2 of the others.

    Arguments:
        values: ``[1 + draws]``.
        level: of the interval, inside (0, 1).

    Returns:
        low and high are None where there are no draws, or one of them is NaN.
    """
    if not 0 < level < 1:
        raise ValueError(f"level {level} lies outside (0, 1): 0.95 is usual")
    point, draws = float(values[0]), np.asarray(values[1:], float)
    if not len(draws) or np.isnan(draws).any():
        return point, None, None
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return point, float(low), float(high)
