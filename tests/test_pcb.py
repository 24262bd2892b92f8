"""PCB-Merging against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loops import lists, moved, vectors_of
from strategies import copy, some_checkpoints

from adamerging_lib import TaskVectors, merge

ratios = st.sampled_from([0.05, 0.1, 0.5, 1.0])
clips = st.sampled_from([0.0, 1e-4, 0.01, 0.2])


def clamp(values: list[float], low: float, high: float) -> list[float]:
    """Values set to those at the shares ``low`` and 1 − ``high`` of the sorted list, as the published code counts."""
    ordered, size = sorted(values), len(values)
    least, most = ordered[min(size - 1, int(size * low))], ordered[max(0, int(size * (1 - high) - 1))]
    return [min(max(v, least), most) for v in values]


def normed(values: list[float]) -> list[float]:
    least, span = min(values), (max(values) - min(values)) or 1
    return [(v - least) / span for v in values]


def loops(tv: TaskVectors, ratio: float, clip: float) -> list[float]:
    vectors = lists(tv)
    sums = [sum(column) for column in zip(*vectors, strict=True)]
    numerator, denominator = [0.0] * len(sums), [0.0] * len(sums)
    for vector in vectors:
        magnitudes = clamp([abs(v) for v in vector], clip, clip)
        strength = [math.exp(len(vectors) * v**2) for v in normed(magnitudes)]
        balance = [b * math.tanh(v * s) for b, v, s in zip(strength, vector, sums, strict=True)]
        weights = normed(clamp(balance, 1 - ratio, 0))
        for i, weight in enumerate(weights):
            numerator[i] += weight * magnitudes[i] * ((vector[i] > 0) - (vector[i] < 0))
            denominator[i] += weight
    return [n / max(d, 1e-12) for n, d in zip(numerator, denominator, strict=True)]


@given(some_checkpoints((torch.float64,)), ratios, clips, st.floats(0, 1.5))
def test_against_plain_loops(pair, ratio, clip, scaling):
    tv = TaskVectors.from_state_dicts(*pair)
    merged = merge("pcb", tv, ratio=ratio, clip=clip, scaling=scaling)
    expected = [scaling * v for v in loops(tv, ratio, clip)]
    assert moved(tv, merged.state_dict()) == pytest.approx(expected, abs=1e-9)


def test_share_of_entries_that_weigh(task_vectors):
    """Of one task, the entries above the quantile move; that at the quantile itself has weight 0."""
    tv = task_vectors.subset(["alpha"])
    size = sum(t[0].numel() for t in tv.vectors.values())
    for ratio in (0.05, 0.2):
        change = moved(tv, merge("pcb", tv, ratio=ratio).state_dict())
        assert sum(v != 0 for v in change) == size - 1 - int(size * (1 - ratio))


def test_an_average_lies_between_the_tasks(task_vectors):
    """Where any task weighs, the merged entry lies within the tasks' own entries."""
    tv = task_vectors
    merged = moved(tv, merge("pcb", tv, scaling=1.0, clip=0.0).state_dict())
    for column, value in zip(zip(*lists(tv), strict=True), merged, strict=True):
        assert value == 0 or min(column) - 1e-6 <= value <= max(column) + 1e-6


def test_entries_against_the_sum_are_dropped():
    # The second entry of t1 is its largest, but the other two tasks outweigh it.
    tv = vectors_of([1.0, 5.0, 0.1, 0.2], [1.0, -6.0, 0.1, 0.3], [1.0, 5.0, 0.2, 0.1])
    merged = merge("pcb", tv, ratio=0.5, scaling=1.0, clip=0.0).state_dict()["a"]
    assert float(merged[1]) == pytest.approx(5)


@given(some_checkpoints((torch.float32, torch.float16)))
def test_zero_task_vector_weighs_nothing(pair):
    """K counts it, nothing else: with one task the weights cancel and so does K."""
    pretrained, experts = pair
    one = {"task_0": experts["task_0"]}
    more = TaskVectors.from_state_dicts(pretrained, {**one, "idle": copy(pretrained)})
    with_idle, without = (merge("pcb", v, ratio=0.5) for v in (more, TaskVectors.from_state_dicts(pretrained, one)))
    chosen = [v != 0 for v in moved(more, without.state_dict())]
    assert [v != 0 for v in moved(more, with_idle.state_dict())] == chosen


@pytest.mark.parametrize("hyper", [{"ratio": 0}, {"ratio": 5}, {"ratio": True}, {"clip": 0.5}, {"clip": -0.1}])
def test_bad_shares(task_vectors, hyper):
    with pytest.raises(ValueError, match=f"{next(iter(hyper))}=.* is out of range"):
        merge("pcb", task_vectors, **hyper)
