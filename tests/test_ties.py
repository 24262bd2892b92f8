"""Ties-Merging against plain Python loops, and what AdaMerging++ takes from it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_close, assert_equal, copy, some_checkpoints

from adamerging_lib import TaskVectors, merge, ties_split
from adamerging_lib.methods.ties import PAPER_EXACT_KEEP, REDUCTIONS, survey
from adamerging_lib.vectors.select import kept_above, kth_smallest

keeps = st.sampled_from([0.05, 0.2, 0.258, 0.5, 0.9, 1.0])


def vectors_of(*rows, names=("a",), splits=None):
    """Task vectors over θ0 = 0 from plain lists."""
    pretrained = {"a": torch.zeros(len(rows[0]))}
    return TaskVectors.from_state_dicts(pretrained, {f"t{k}": {"a": torch.tensor(row)} for k, row in enumerate(rows)})


def loops(tv: TaskVectors, keep: float) -> list[list[float]]:
    """Φ(T_k) as flat lists, entry by entry."""
    flat = [[v for t in tv.vectors.values() for v in t[k].reshape(-1).tolist()] for k in range(len(tv.tasks))]
    trimmed = []
    for vector in flat:
        size = len(vector)
        rank = size - int(keep * size)
        cut = sorted(abs(v) for v in vector)[rank - 1] if rank else 0.0
        trimmed.append([v if abs(v) >= cut else 0.0 for v in vector])
    sums = [sum(column) for column in zip(*trimmed, strict=True)]
    signs = [(s > 0) - (s < 0) for s in sums]
    majority = (sum(signs) > 0) - (sum(signs) < 0)
    signs = [s or majority for s in signs]

    def agrees(value: float, sign: int) -> bool:
        return value > 0 if sign > 0 else value < 0

    return [[v if agrees(v, s) else 0.0 for v, s in zip(vector, signs, strict=True)] for vector in trimmed]


def reduce(columns: list[list[float]], reduction: str) -> list[float]:
    if reduction == "sum":
        return [sum(column) for column in columns]
    if reduction == "mean":
        return [sum(column) / max(1, sum(v != 0 for v in column)) for column in columns]
    return [max(column, key=abs) for column in columns]


@given(some_checkpoints((torch.float64,)), keeps, st.sampled_from(REDUCTIONS), st.floats(0, 1.5))
def test_against_plain_loops(pair, keep, reduction, scaling):
    tv = TaskVectors.from_state_dicts(*pair)
    split = loops(tv, keep)
    tau = reduce([list(column) for column in zip(*split, strict=True)], reduction)
    merged = merge("ties", tv, keep=keep, reduction=reduction, scaling=scaling).state_dict()
    flat = torch.cat([(merged[key] - tv.pretrained[key]).reshape(-1) for key in tv.vectors])
    torch.testing.assert_close(flat, scaling * torch.tensor(tau, dtype=torch.float64), atol=1e-12, rtol=1e-12)
    phi = ties_split(tv, keep)
    for k, expected in enumerate(split):
        ours = torch.cat([t[k].reshape(-1) for t in phi.vectors.values()])
        assert (ours + 0.0).tolist() == expected  # exact: entries are only kept or dropped


@given(some_checkpoints((torch.float64,)), keeps, st.floats(0, 1))
def test_split_sums_to_ties_in_sum_form(pair, keep, scaling):
    tv = TaskVectors.from_state_dicts(*pair)
    through_split = ties_split(tv, keep).merge(torch.full((len(tv.tasks), 1), scaling, dtype=torch.float64), "task")
    assert_close(through_split, merge("ties", tv, keep=keep, scaling=scaling).state_dict())


@given(some_checkpoints((torch.float64,)), keeps, st.sampled_from(REDUCTIONS))
def test_order_of_tasks_does_not_matter(pair, keep, reduction):
    tv = TaskVectors.from_state_dicts(*pair)
    turned = merge("ties", tv.subset(tv.tasks[::-1]), keep=keep, reduction=reduction)
    assert_close(turned.state_dict(), merge("ties", tv, keep=keep, reduction=reduction).state_dict())


@given(some_checkpoints((torch.float32, torch.float16)), st.sampled_from(REDUCTIONS))
def test_zero_task_vector_contributes_nothing(pair, reduction):
    pretrained, experts = pair
    tv = TaskVectors.from_state_dicts(pretrained, experts)
    more = TaskVectors.from_state_dicts(pretrained, {**experts, "idle": copy(pretrained)})
    with_idle, without = (merge("ties", v, reduction=reduction).state_dict() for v in (more, tv))
    assert_close(with_idle, without)


@given(some_checkpoints((torch.float64,)), st.sampled_from(REDUCTIONS))
def test_one_task_kept_whole_is_that_expert(pair, reduction):
    pretrained, experts = pair
    tv = TaskVectors.from_state_dicts(pretrained, {"task_0": experts["task_0"]})
    merged = merge("ties", tv, keep=1.0, reduction=reduction, scaling=1.0)
    assert_close(merged.state_dict(), experts["task_0"])


@given(some_checkpoints((torch.float32, torch.bfloat16)))
def test_inputs_are_not_mutated(pair):
    tv = TaskVectors.from_state_dicts(*pair)
    before, pretrained = copy(tv.vectors), copy(tv.pretrained)
    for reduction in REDUCTIONS:
        merge("ties", tv, reduction=reduction)
    ties_split(tv)
    assert_equal(dict(tv.vectors), before)
    assert_equal(dict(tv.pretrained), pretrained)


def test_trim_is_global_over_tensors_and_keeps_the_threshold_and_ties():
    zero = {"a": torch.zeros(3), "b": torch.zeros(2, 2), "c": torch.zeros(3)}
    vector = {"a": [10.0, -9.0, 8.0], "b": [[0.1, 0.2], [0.3, 7.0]], "c": [1.0, 1.0, 1.0]}
    tv = TaskVectors.from_state_dicts(zero, {"t": {key: torch.tensor(values) for key, values in vector.items()}})
    # d = 10, ⌊0.2·10⌋ = 2: the 8th smallest is 8, so the published rule keeps 3 entries, all of the first tensor.
    assert [survey(tv, keep=keep)[0] for keep in (0.2, 0.4, 1.0)] == [[8.0], [1.0], [0.0]]
    kept = [ties_split(tv, keep).vectors[key].count_nonzero().item() for keep in (0.2, 0.4) for key in zero]
    assert kept == [3, 0, 0, 3, 1, 3]  # at 0.4, 4 + 1 entries and two more ties at 1


@given(some_checkpoints((torch.float64, torch.float32)), st.floats(0, 1), st.sampled_from([0.0, 1e-300, 1e-30, 1e30]))
def test_kth_smallest_is_what_sorting_gives(pair, share, scale):
    tv = TaskVectors.from_state_dicts(*pair)
    tv = tv.replace({key: scale * t if key == "scale" else (8 * t).round() for key, t in tv.vectors.items()})
    flat = torch.cat([t.reshape(len(t), -1) for t in tv.vectors.values()], 1)
    size = flat.shape[1]
    rank = max(1, round(share * size))
    assert kth_smallest(tv, rank) == flat.kthvalue(rank).values.tolist()
    keep = 1 - rank / size
    if keep > 0:
        assert kept_above(tv, keep) == flat.abs().kthvalue(size - int(keep * size)).values.tolist()
    with pytest.raises(ValueError, match=f"rank {size + 1} is out of range"):
        kth_smallest(tv, size + 1)


def test_hand_made_election():
    tv = vectors_of([1.0, 2.0, -3.0, 1.0], [2.0, -5.0, 1.0, -1.0], [4.0, 1.0, -1.0, 0.0])
    # Sums 7, −2, −3, 0; signs +, −, −, 0 sum to −1, so the undecided entry counts as negative.
    phi = ties_split(tv, 1.0).vectors["a"]
    assert (phi + 0.0).tolist() == [[1, 0, -3, 0], [2, -5, 0, -1], [4, 0, -1, 0]]
    expected = {"sum": [7, -5, -4, -1], "mean": [7 / 3, -5, -2, -1], "max": [4, -5, -3, -1]}
    for reduction, tau in expected.items():
        merged = merge("ties", tv, keep=1.0, reduction=reduction, scaling=1.0).state_dict()
        torch.testing.assert_close(merged["a"], torch.tensor(tau, dtype=torch.float32))


def test_majority_is_positive_or_undecided():
    positive = ties_split(vectors_of([1.0, 2.0, 3.0], [-1.0, 2.0, 3.0]), 1.0).vectors["a"]
    assert (positive + 0.0).tolist() == [[1, 2, 3], [0, 2, 3]]
    # The signs themselves sum to zero: the undecided entry keeps sign 0, treated as negative, as published.
    undecided = vectors_of([1.0, 2.0, -3.0], [-1.0, 2.0, -3.0])
    assert (ties_split(undecided, 1.0).vectors["a"] + 0.0).tolist() == [[0, 2, -3], [-1, 2, -3]]
    assert merge("ties", undecided, keep=1.0, reduction="max", scaling=1.0).state_dict()["a"][0] == 0


@pytest.mark.parametrize("keep", [0, -0.1, 20, 1.01, True, "0.2", float("nan")])
def test_bad_keep(task_vectors, keep):
    with pytest.raises(ValueError, match=r"is not a share in \(0, 1\]: 20 % is 0.2"):
        merge("ties", task_vectors, keep=keep)


def test_bad_reduction(task_vectors):
    with pytest.raises(ValueError, match="reduction 'median' is unknown"):
        merge("ties", task_vectors, reduction="median")


def test_paper_exact_keep_undoes_the_text_tower():
    """20 % of the whole pickled model, whose text tower never moves, counted on the vision tower."""
    whole = {"ViT-B-32": 113_448_705, "ViT-B-16": 111_792_129, "ViT-L-14": 342_562_049}
    vision = {"ViT-B-32": 87_849_216, "ViT-B-16": 86_192_640, "ViT-L-14": 303_966_208}
    assert {arch: round(0.2 * whole[arch] / vision[arch], 3) for arch in whole} == PAPER_EXACT_KEEP
