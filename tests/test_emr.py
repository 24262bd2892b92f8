"""EMR-Merging against plain loops, with both rescalings."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loops import lists, moved, vectors_of
from strategies import assert_close, some_checkpoints

from adamerging_lib import TaskVectors, merge
from adamerging_lib.methods.emr import RESCALES


def loops(tv: TaskVectors, rescale: str) -> list[list[float]]:
    """θ_k − θ0 as flat lists, entry by entry."""
    vectors = lists(tv)
    columns = list(zip(*vectors, strict=True))
    gamma = [1 if sum(column) > 0 else -1 for column in columns]
    tau = [g * max([abs(v) for v in column if v * g > 0], default=0) for g, column in zip(gamma, columns, strict=True)]
    bounds, start = [], 0
    for t in tv.vectors.values():
        bounds.append((start, start + t[0].numel()))
        start += t[0].numel()
    states = []
    for vector in vectors:
        masked = [u if v * g > 0 else 0.0 for u, v, g in zip(tau, vector, gamma, strict=True)]

        def extent(values: list[float]) -> float:
            if rescale == "global":
                return sum(map(abs, values))
            return sum(sum(map(abs, values[a:b])) / (b - a) for a, b in bounds)

        scaling = extent(vector) / extent(masked) if extent(masked) else 1
        states.append([scaling * v for v in masked])
    return states


@given(some_checkpoints((torch.float64,)), st.sampled_from(RESCALES))
def test_against_plain_loops(pair, rescale):
    tv = TaskVectors.from_state_dicts(*pair)
    merged = merge("emr", tv, rescale=rescale)
    for task, expected in zip(tv.tasks, loops(tv, rescale), strict=True):
        assert moved(tv, merged.state_dict(task)) == pytest.approx(expected, abs=1e-12)


@given(some_checkpoints((torch.float64,)), st.sampled_from(RESCALES))
def test_one_task_is_that_expert(pair, rescale):
    pretrained, experts = pair
    tv = TaskVectors.from_state_dicts(pretrained, {"task_0": experts["task_0"]})
    assert_close(merge("emr", tv, rescale=rescale).state_dict("task_0"), experts["task_0"])


@given(some_checkpoints((torch.float64,)))
def test_global_rescaling_keeps_every_task_vector_s_length(pair):
    tv = TaskVectors.from_state_dicts(*pair)
    merged = merge("emr", tv, rescale="global")
    for task, vector in zip(tv.tasks, lists(tv), strict=True):
        assert sum(map(abs, moved(tv, merged.state_dict(task)))) == pytest.approx(sum(map(abs, vector)))


@given(some_checkpoints((torch.float64,)), st.sampled_from(RESCALES))
def test_scaling_law(pair, rescale):
    tv = TaskVectors.from_state_dicts(*pair)
    longer = merge("emr", tv.replace({key: 4 * t for key, t in tv.vectors.items()}), rescale=rescale)
    once = merge("emr", tv, rescale=rescale)
    for task in tv.tasks:
        expected = [4 * v for v in moved(tv, once.state_dict(task))]
        assert moved(tv, longer.state_dict(task)) == pytest.approx(expected, abs=1e-12)


def test_hand_made():
    """Signs +, −, − (a sum of zero counts as negative); the largest agreeing entries; each task's own mask and size."""
    tv = vectors_of([3.0, 1.0, 2.0], [1.0, -4.0, -2.0])
    merged = merge("emr", tv)
    # τ = (3, −4, −2). Task 0 keeps the first entry: 6/3 of it. Task 1 keeps all: 7/9 of them.
    assert merged.state_dict("t0")["a"].tolist() == pytest.approx([6, 0, 0])
    assert merged.state_dict("t1")["a"].tolist() == pytest.approx([3 * 7 / 9, -4 * 7 / 9, -2 * 7 / 9])
    assert merged.task_storage == 3 / 32 + 1 + 3 / 2


def test_rescalings_weigh_tensors_differently():
    zero = {"matrix": torch.zeros(4), "bias": torch.zeros(1)}
    one = {"matrix": torch.full((4,), 1.0), "bias": torch.tensor([-1.0])}
    other = {"matrix": torch.full((4,), 2.0), "bias": torch.tensor([4.0])}
    tv = TaskVectors.from_state_dicts(zero, {"one": one, "other": other})
    # τ: matrix 2, bias 4. Task one keeps the matrix alone: means 1 + 1 over 2, sums 4 + 1 over 8.
    assert merge("emr", tv).state_dict("one")["matrix"].tolist() == pytest.approx([2 / 2 * 2] * 4)
    assert merge("emr", tv, rescale="global").state_dict("one")["matrix"].tolist() == pytest.approx([5 / 8 * 2] * 4)


def test_a_task_that_agrees_nowhere_gets_the_pretrained_model():
    merged = merge("emr", vectors_of([1.0, -1.0], [-3.0, 3.0]))
    assert merged.state_dict("t0")["a"].tolist() == [0, 0]


def test_bad_rescaling(task_vectors):
    with pytest.raises(ValueError, match="rescale 'layers' is unknown"):
        merge("emr", task_vectors, rescale="layers")
