"""What the leaderboard found, by name: averages, every difference of two methods, and the best of each competition."""

from __future__ import annotations

from functools import reduce
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd

from adamerging_lib.published.competitions import BOUNDS, GIVES, NEEDS, ONE, PARTS

from ..frames import AVERAGE, averages, labels
from ..judge import read
from ..sample import Sample

OVER = "_over_"
SHORT = {ONE: "one", PARTS: "parts"}
"""What comes out → how the names of numbers call it."""
_IMAGES = ("unlabelled training images", "unlabelled test images")


def numbers(sample: Sample) -> dict[str, np.ndarray]:
    """``METHOD_average`` (percent) and ``A_over_B`` (points) of all methods in the record, or named by a claim.

    ``NEEDS_one_average`` and ``NEEDS_parts_average`` are those of the best method of a competition, in percent;
    ``methods`` counts the merging methods; ``free_beyond_ties``, ``images_beyond_free`` and ``parts_beyond_one`` are
    leads of the best of their kind, without labels, in points.
    """
    run = sample.frame["method"].unique().tolist()
    at = {method: sample.average(method) for method in dict.fromkeys([*run, *_claimed()])}
    found = {f"{method}_average": values for method, values in at.items()}
    found |= {f"{high}{OVER}{low}": at[high] - at[low] for high, low in permutations(at, 2)}
    found["methods"] = sample.point(sum(method not in BOUNDS for method in run))

    def best(needs: tuple[str, ...], gives: str, but: str | None = None) -> np.ndarray:
        merging = _merging(sample.frame)
        chosen = merging.index[merging["needs"].isin(needs) & (merging["gives"] == gives) & (merging.index != but)]
        return reduce(np.maximum, [at[method] for method in chosen]) if len(chosen) else sample.point(np.nan)

    for needs in NEEDS:
        for gives in GIVES:
            found[f"{key(needs, gives)}_average"] = best((needs,), gives)
    free, images = best(("nothing",), ONE), best(_IMAGES, ONE)
    found["free_beyond_ties"] = best(("nothing",), ONE, but="ties") - at["ties"]
    found["images_beyond_free"] = images - free
    found["parts_beyond_one"] = best(("nothing", *_IMAGES), PARTS) - np.maximum(free, images)
    return found


def words(rows: pd.DataFrame) -> dict[str, str]:
    """``NEEDS_one_best`` and ``NEEDS_parts_best``: the name of the best method of every competition that was held."""
    merging, average, label = _merging(rows), averages(rows), labels(rows)
    found = {}
    for (needs, gives), part in merging.groupby(["needs", "gives"]):
        best = min(part.index, key=lambda method: (-average[method], label[method]))
        found[f"{key(needs, gives)}_best"] = label[best]
    return found


def _merging(rows: pd.DataFrame) -> pd.DataFrame:
    """``needs`` and ``gives`` of the merging methods in the rows, by id."""
    about = rows[rows["task"] == AVERAGE].drop_duplicates("method").set_index("method")[["needs", "gives"]]
    return about.drop(index=list(BOUNDS), errors="ignore")


def key(needs: str, gives: str) -> str:
    """How the names of numbers call a competition: ``unlabelled_test_images_one``."""
    return f"{needs.replace(' ', '_')}_{SHORT[gives]}"


def _claimed() -> list[str]:
    """Methods that the claims compare: a record without one of them has their numbers too, as *not run*."""
    claims = read(Path(__file__).with_name("claims.yml"))
    return [method for claim in claims if OVER in claim.value for method in claim.value.split(OVER)]
