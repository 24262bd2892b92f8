"""DARE: what is dropped, what is left, and that it changes nothing on average."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loops import lists, moved
from strategies import assert_close, assert_equal, some_checkpoints

from adamerging_lib import TaskVectors, merge
from adamerging_lib.methods.dare import dropped
from adamerging_study import measuring

drops = st.sampled_from([0.0, 0.1, 0.5, 0.9])


@pytest.fixture(scope="module")
def wide():
    """Two tasks over one long vector of ones: entries left can be counted."""
    pretrained = {"a": torch.zeros(40_000), "b": torch.zeros(100, 100)}
    return TaskVectors.from_state_dicts(
        pretrained, {task: {key: t + 1 for key, t in pretrained.items()} for task in ("one", "other")}
    )


@given(some_checkpoints((torch.float64,)), drops, st.integers(0, 5), st.floats(0, 1.5))
def test_against_plain_loops(pair, drop, seed, scaling):
    """Given what was left of each task, the merged vector is its sum, entry by entry."""
    tv = TaskVectors.from_state_dicts(*pair)
    left = lists(tv.replace(dict(dropped(tv, drop, seed).vectors)))
    for own, kept in zip(lists(tv), left, strict=True):
        assert all(v == 0 or v == pytest.approx(t / (1 - drop)) for t, v in zip(own, kept, strict=True))
    merged = merge("dare", tv, drop=drop, seed=seed, scaling=scaling)
    assert moved(tv, merged.state_dict()) == pytest.approx([scaling * sum(v) for v in zip(*left, strict=True)])


@given(some_checkpoints((torch.float32,)), st.integers(0, 5), st.sampled_from(["task_arithmetic", "ties"]))
def test_without_dropping_it_is_the_base(pair, seed, base):
    tv = TaskVectors.from_state_dicts(*pair)
    assert_close(merge("dare", tv, drop=0.0, base=base, seed=seed).state_dict(), merge(base, tv).state_dict())


def test_ties_of_the_dropped_vectors(task_vectors):
    tv = task_vectors
    ties = merge("ties", tv.replace(dict(dropped(tv, 0.5, 3).vectors)), keep=0.3, scaling=0.7).state_dict()
    dare = merge("dare", tv, base="ties", drop=0.5, seed=3, keep=0.3, scaling=0.7)
    assert_equal(dare.state_dict(), ties)
    assert dare.hyper == {"drop": 0.5, "base": "ties", "scaling": 0.7, "seed": 3, "keep": 0.3}


@pytest.mark.parametrize("drop", [0.2, 0.5, 0.9])
def test_share_dropped(wide, drop):
    for _, left in dropped(wide, drop, seed=0).vectors.items():
        share = (left == 0).double().mean(dim=tuple(range(1, left.dim())))
        error = (drop * (1 - drop) / left[0].numel()) ** 0.5
        assert bool((share - drop).abs().lt(5 * error).all())


def test_tasks_and_tensors_are_dropped_by_themselves(wide):
    """Where two masks were one, both would be left in a share 1 − p instead of (1 − p)²."""
    for _, left in dropped(wide, 0.5, seed=0).vectors.items():
        both = float((left != 0).all(0).double().mean())
        assert both == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / left[0].numel()) ** 0.5)
    a, b = (left[0].reshape(-1)[:10_000] != 0 for _, left in dropped(wide, 0.5, seed=0).vectors.items())
    assert float((a & b).double().mean()) == pytest.approx(0.25, abs=0.025)


def test_unbiased_over_seeds(task_vectors):
    """The mean over seeds is Task Arithmetic within its standard error, p / (1 − p) Σ_k T_k² / seeds."""
    tv, drop, seeds, key = task_vectors, 0.5, 400, "transformer.resblocks.0.mlp.c_fc.weight"
    tv = TaskVectors(tv.tasks, {key: tv.pretrained[key]}, {key: tv.vectors[key]})
    runs = torch.stack(
        [merge("dare", tv, drop=drop, scaling=1.0, seed=s).state_dict()[key].double() for s in range(seeds)]
    )
    expected = merge("task_arithmetic", tv, scaling=1.0).state_dict()[key]
    variance = drop / (1 - drop) * tv.vectors[key].double().square().sum(0)
    score = (runs.mean(0) - expected) / (variance / seeds).sqrt()
    assert float(score.square().mean()) == pytest.approx(1, abs=0.25)
    assert float(runs.var(0).mean() / variance.mean()) == pytest.approx(1, abs=0.05)


def test_masks_depend_on_seed_and_names_alone(task_vectors):
    tv, key = task_vectors, "ln_post.bias"
    whole = dict(dropped(tv, 0.5, 0).vectors)
    few = tv.subset(["gamma", "alpha"])
    alone = TaskVectors(few.tasks, {key: few.pretrained[key]}, {key: few.vectors[key]})
    assert torch.equal(dict(dropped(alone, 0.5, 0).vectors)[key], whole[key][[2, 0]])
    assert not torch.equal(dict(dropped(tv, 0.5, 1).vectors)[key], whole[key])


def test_measuring_over_seeds_reaches_it(suite):
    first, second, again = (measuring.measure(suite, "dare", seed=seed, drop=0.9)[-1] for seed in (0, 1, 0))
    assert first["entropy"] == again["entropy"] != second["entropy"]


@pytest.mark.parametrize("drop", [1, 1.0, -0.1, True, "0.5", float("nan")])
def test_bad_drop(task_vectors, drop):
    with pytest.raises(ValueError, match=r"is not a share in \[0, 1\): 90 % is 0.9"):
        merge("dare", task_vectors, drop=drop)


def test_bad_base(task_vectors):
    with pytest.raises(ValueError, match="base 'fisher' is unknown"):
        merge("dare", task_vectors, base="fisher")
