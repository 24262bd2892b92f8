"""TALL-masks and Consensus against plain loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loops import lists, moved, vectors_of
from strategies import assert_close, assert_equal, copy, some_checkpoints

from adamerging_lib import TaskVectors, merge

thresholds = st.sampled_from([0.0, 0.2, 0.4, 0.6, 1.5])


def masks(tv: TaskVectors, threshold: float) -> list[list[bool]]:
    """M_k as flat lists: θ0 + Σ T may lie at most |T_k| / λ away from θ_k."""
    vectors = lists(tv)
    sums = [sum(column) for column in zip(*vectors, strict=True)]
    return [[abs(v) > threshold * abs(s - v) for v, s in zip(vector, sums, strict=True)] for vector in vectors]


@given(some_checkpoints((torch.float64,)), thresholds, st.integers(0, 6), st.floats(0, 1.5))
def test_consensus_against_plain_loops(pair, threshold, active, scaling):
    tv = TaskVectors.from_state_dicts(*pair)
    votes = [sum(column) for column in zip(*masks(tv, threshold), strict=True)]
    sums = [sum(column) for column in zip(*lists(tv), strict=True)]
    least = min(active, len(tv.tasks))
    expected = [scaling * s if vote >= least else 0 for s, vote in zip(sums, votes, strict=True)]
    merged = merge("consensus_ta", tv, threshold=threshold, active=active, scaling=scaling)
    assert moved(tv, merged.state_dict()) == pytest.approx(expected, abs=1e-12)


@given(some_checkpoints((torch.float64,)), thresholds)
def test_tall_masks_against_plain_loops(pair, threshold):
    tv = TaskVectors.from_state_dicts(*pair)
    sums = [sum(column) for column in zip(*lists(tv), strict=True)]
    merged = merge("tall_masks", tv, threshold=threshold)
    for task, mask in zip(tv.tasks, masks(tv, threshold), strict=True):
        expected = [s if chosen else 0 for s, chosen in zip(sums, mask, strict=True)]
        assert moved(tv, merged.state_dict(task)) == pytest.approx(expected, abs=1e-12)


@given(some_checkpoints((torch.float64,)), st.floats(0, 1))
def test_no_consensus_asked_for_is_task_arithmetic(pair, scaling):
    tv = TaskVectors.from_state_dicts(*pair)
    expected = merge("task_arithmetic", tv, scaling=scaling).state_dict()
    assert_close(merge("consensus_ta", tv, active=0, scaling=scaling).state_dict(), expected)


@given(some_checkpoints((torch.float64,)), thresholds)
def test_one_task_is_that_expert(pair, threshold):
    pretrained, experts = pair
    tv = TaskVectors.from_state_dicts(pretrained, {"task_0": experts["task_0"]})
    assert_close(merge("tall_masks", tv, threshold=threshold).state_dict("task_0"), experts["task_0"])
    assert_close(merge("consensus_ta", tv, threshold=threshold, scaling=1.0).state_dict(), experts["task_0"])


def test_tasks_apart_are_found_again_and_have_no_consensus():
    """Where no two tasks move the same entry, masks give every expert back, and no entry is needed by two."""
    tv = vectors_of([1.0, 2.0, 0.0, 0.0], [0.0, 0.0, -3.0, 0.0])
    merged = merge("tall_masks", tv)
    assert merged.state_dict("t0")["a"].tolist() == [1, 2, 0, 0]
    assert merged.state_dict("t1")["a"].tolist() == [0, 0, -3, 0]
    assert merge("consensus_ta", tv).state_dict()["a"].tolist() == [0, 0, 0, 0]


def test_catastrophic_and_selfish_entries():
    """At λ = 0.5 the first entry is needed by two tasks, the second by one, the third by none (1 > 0.5 · 2 fails)."""
    tv = vectors_of([1.0, 1.0, 1.0], [1.0, 0.1, 1.0], [0.1, 0.0, 1.0])
    merged = merge("consensus_ta", tv, threshold=0.5, scaling=1.0).state_dict()["a"]
    assert merged.tolist() == pytest.approx([2.1, 0.0, 0.0])
    selfish = merge("consensus_ta", tv, threshold=0.5, scaling=1.0, active=1).state_dict()["a"]
    assert selfish.tolist() == pytest.approx([2.1, 1.1, 0.0])


def test_thresholds_a_task(task_vectors):
    tv, values = task_vectors, {"gamma": 0.6, "alpha": 0.2, "beta": 0.4}
    mixed = merge("tall_masks", tv, threshold=values)
    assert mixed.hyper == {"threshold": values}
    for task, value in values.items():
        assert_equal(mixed.state_dict(task), merge("tall_masks", tv, threshold=value).state_dict(task))
    assert_equal(
        merge("consensus_ta", tv, threshold=dict.fromkeys(tv.tasks, 0.3)).state_dict(),
        merge("consensus_ta", tv, threshold=0.3).state_dict(),
    )


def test_states_are_made_anew_and_hold_no_task_vectors(task_vectors):
    merged = merge("tall_masks", task_vectors)
    first, second = merged.state_dict("beta"), merged.state_dict("beta")
    assert_equal(first, second)
    assert all(first[key] is not second[key] for key in first)
    size = sum(t[0].numel() for t in task_vectors.vectors.values())
    assert merged.task_storage == size / 32 + size / 3
    with pytest.raises(ValueError, match="no weights for task 'delta'"):
        merged.state_dict("delta")


def test_tied_tensors_are_masked_once_and_stay_equal():
    def state(value: float) -> dict[str, torch.Tensor]:
        shared = torch.tensor([value, 1.0])
        return {"embed": shared, "unembed": shared}

    tv = TaskVectors.from_state_dicts(state(0.0), {"one": state(1.0), "other": state(3.0)})
    merged = merge("tall_masks", tv)
    assert merged.task_storage == 2 / 32 + 2 / 2
    assert_equal(merged.state_dict("other"), {"embed": torch.tensor([4.0, 1.0]), "unembed": torch.tensor([4.0, 1.0])})


@given(some_checkpoints((torch.float32, torch.float16)))
def test_zero_task_vector_adds_nothing(pair):
    pretrained, experts = pair
    more = TaskVectors.from_state_dicts(pretrained, {**experts, "idle": copy(pretrained)})
    with_idle, without = merge("tall_masks", more), merge("tall_masks", TaskVectors.from_state_dicts(*pair))
    assert_close(with_idle.state_dict("idle"), pretrained)
    for task in experts:
        assert_close(with_idle.state_dict(task), without.state_dict(task))


@pytest.mark.parametrize("method", ["consensus_ta", "tall_masks"])
def test_bad_thresholds(task_vectors, method):
    with pytest.raises(ValueError, match="names other tasks than were merged: beta, delta, gamma"):
        merge(method, task_vectors, threshold={"alpha": 0.4, "delta": 0.4})
    for bad in (-0.1, float("nan"), True, "0.4"):
        with pytest.raises(ValueError, match="threshold of task 'alpha' is .* give a number of at least 0"):
            merge(method, task_vectors, threshold=bad)


@pytest.mark.parametrize("active", [-1, 1.5, True])
def test_bad_number_of_tasks(task_vectors, active):
    with pytest.raises(ValueError, match=f"active={active} must be a whole number"):
        merge("consensus_ta", task_vectors, active=active)
