"""Measuring: every number against its definition, and the two settings kept apart."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from torch.func import functional_call

import adamerging_lib as am

SHORT = {"steps": 1, "batch_size": 2, "progress": False}


@pytest.fixture(scope="module")
def merged(suite):
    return am.run_method("task_arithmetic", suite)


def scores_of(suite, state, task):
    feature = functional_call(suite.encoder, state, (suite.normalise(suite.test[task].images),))
    return (feature / feature.norm(dim=-1, keepdim=True) @ suite.heads[task].t()).detach().double()


def test_numbers_follow_their_definitions(suite, merged):
    frame = am.evaluate(suite, merged)
    assert list(frame.columns) == [
        "task", "accuracy", "n", "entropy", "loss", "calibration", "setting", "split",
    ]  # fmt: skip
    assert list(frame["task"]) == list(suite.tasks)
    assert set(frame["setting"]) == {"transductive"} and set(frame["split"]) == {"all"}
    for _, row in frame.iterrows():
        p = scores_of(suite, merged.state_dict(), row["task"]).softmax(-1)
        labels = suite.test[row["task"]].labels
        confidence, predicted = p.max(-1)
        assert row["n"] == len(labels) == 30
        assert row["accuracy"] == pytest.approx(100 * (predicted == labels).double().mean().item())
        assert row["entropy"] == pytest.approx(-(p * p.log()).sum(-1).mean().item(), rel=1e-5)
        assert row["loss"] == pytest.approx(-p[range(30), labels].log().mean().item(), rel=1e-5)
        error = 0.0
        for b in range(15):
            inside = (confidence >= b / 15) & (confidence < (b + 1) / 15) if b < 14 else confidence >= 14 / 15
            if inside.any():
                gap = (predicted == labels)[inside].double().mean() - confidence[inside].mean()
                error += inside.double().mean().item() * abs(gap.item())
        assert row["calibration"] == pytest.approx(100 * error, abs=1e-3)


def test_batch_size_does_not_matter(suite, merged):
    whole, parts = am.evaluate(suite, merged), am.evaluate(suite, merged, batch_size=7)
    pd.testing.assert_frame_equal(whole, parts, rtol=1e-4)


def test_task_specific_weights_and_heads(suite):
    individual = am.evaluate(suite, am.run_method("individual", suite))
    for k, task in enumerate(suite.tasks):
        correct = scores_of(suite, suite.experts[task], task).argmax(-1) == suite.test[task].labels
        assert individual["accuracy"][k] == pytest.approx(100 * correct.double().mean().item())
    zero_shot = am.run_method("zero_shot", suite)
    turned = dataclasses.replace(zero_shot, heads={"beta": -suite.heads["beta"]})
    plain, other = am.evaluate(suite, zero_shot), am.evaluate(suite, turned)
    assert other["loss"][1] != plain["loss"][1] and other["loss"][[0, 2]].equals(plain["loss"][[0, 2]])


def test_unseen_tasks_are_measured_too(suite):
    tv = suite.task_vectors().subset(["alpha", "beta"])
    assert list(am.evaluate(suite, am.merge("task_arithmetic", tv))["task"]) == list(suite.tasks)


def test_held_out_half(suite, merged):
    frame = am.evaluate(suite, merged, setting="inductive")
    assert set(frame["split"]) == {"held_out"} and set(frame["n"]) == {15}
    for k, task in enumerate(suite.tasks):
        held_out = am.split_indices(30)[1]
        correct = scores_of(suite, merged.state_dict(), task).argmax(-1) == suite.test[task].labels
        assert frame["accuracy"][k] == pytest.approx(100 * correct[held_out].double().mean().item())
    pd.testing.assert_frame_equal(am.evaluate(suite, merged, split="held_out").drop(columns="setting"),
                                  frame.drop(columns="setting"))  # fmt: skip


def test_settings_are_not_mixed(suite, merged):
    inductive = am.adamerge(suite, setting="inductive", **SHORT)
    assert set(am.evaluate(suite, inductive)["split"]) == {"held_out"}
    transductive = am.adamerge(suite, **SHORT)
    assert set(am.evaluate(suite, transductive)["setting"]) == {"transductive"}
    with pytest.raises(ValueError, match="fitted in the inductive setting"):
        am.evaluate(suite, inductive, setting="transductive")
    with pytest.raises(ValueError, match="fitted in the transductive setting"):
        am.evaluate(suite, transductive, setting="inductive")
    with pytest.raises(ValueError, match="'all' holds the adaptation images"):
        am.evaluate(suite, inductive, split="all")
    with pytest.raises(ValueError, match="setting 'online' is unknown"):
        am.evaluate(suite, merged, setting="online")
    with pytest.raises(ValueError, match="split 'train' is unknown"):
        am.evaluate(suite, merged, split="train")


@pytest.mark.parametrize("n", [2, 3, 30, 1001])
def test_split_is_two_disjoint_halves(n):
    adapt, held_out = am.split_indices(n)
    assert len(adapt) == n // 2 and sorted([*adapt.tolist(), *held_out.tolist()]) == list(range(n))
    assert torch.equal(adapt, am.split_indices(n)[0]) and torch.equal(adapt, adapt.sort().values)
    assert n < 30 or not torch.equal(adapt, am.split_indices(n, seed=1)[0])


def test_one_image_cannot_be_split():
    with pytest.raises(ValueError, match="give at least 2"):
        am.split_indices(1)


def test_average_is_unweighted(suite, merged):
    frame = am.evaluate(suite, merged)
    average = am.with_average(frame).iloc[-1]
    assert average["task"] == "Average" and average["n"] == 90 and average["setting"] == "transductive"
    for column in ("accuracy", "entropy", "loss", "calibration"):
        assert average[column] == pytest.approx(frame[column].mean())


def test_bad_data_is_named(suite, merged):
    def with_beta(**change):
        beta = dataclasses.replace(suite.test["beta"], **change)
        return dataclasses.replace(suite, test={**suite.test, "beta": beta})

    with pytest.raises(ValueError, match="task 'beta' has 30 images and 29 labels"):
        am.evaluate(with_beta(labels=suite.test["beta"].labels[:-1]), merged)
    with pytest.raises(ValueError, match="labels of task 'beta' lie outside its head's 4 classes"):
        am.evaluate(with_beta(labels=torch.full((30,), 4)), merged)
    broken = dataclasses.replace(merged, state={**merged.state, "proj": merged.state["proj"] * float("inf")})
    with pytest.raises(ValueError, match="task_arithmetic gives NaN or Inf logits on task 'alpha'"):
        am.evaluate(suite, broken)
    missing = dataclasses.replace(merged, state={k: t for k, t in merged.state.items() if k != "proj"})
    with pytest.raises(ValueError, match=r"does not fit the encoder: missing \['proj'\]"):
        am.evaluate(suite, missing)


def test_half_precision_weights_are_measured_in_float32(suite, merged):
    half = {key: t.half() if t.is_floating_point() else t for key, t in merged.state.items()}
    frame = am.evaluate(suite, dataclasses.replace(merged, state=half))
    assert frame["loss"].to_numpy() == pytest.approx(am.evaluate(suite, merged)["loss"].to_numpy(), rel=0.02)


def test_confidence_interval_matches_the_bootstrap_over_outcomes():
    outcomes = np.zeros(400)
    outcomes[:300] = 1
    generator = np.random.default_rng(1)
    means = 100 * generator.choice(outcomes, size=(10_000, 400)).mean(axis=1)
    assert am.confidence_interval(75.0, 400) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.3)
    assert am.confidence_interval(75.0, 400) == am.confidence_interval(75.0, 400)
    assert am.confidence_interval(100.0, 50) == (100.0, 100.0)
    wide, narrow = am.confidence_interval(75.0, 100), am.confidence_interval(75.0, 100, level=0.5)
    assert wide[0] < narrow[0] < 75 < narrow[1] < wide[1]


def test_interval_of_an_average_is_narrower_by_the_root_of_the_tasks():
    rows = [{"task": f"t{k}", "accuracy": 75.0, "n": 400} for k in range(4)]
    low, high = am.average_confidence_interval(rows)
    one = am.confidence_interval(75.0, 400)
    assert high - low == pytest.approx((one[1] - one[0]) / 2, rel=0.05)
    assert am.average_confidence_interval(pd.DataFrame(rows)) == (low, high)
    with pytest.raises(ValueError, match="'Average' row"):
        am.average_confidence_interval([*rows, {"task": "Average", "accuracy": 75.0, "n": 1600}])


@pytest.mark.parametrize(
    ("accuracy", "n", "level"), [(101.0, 10, 0.95), (-1.0, 10, 0.95), (50.0, 0, 0.95), (50.0, 10, 1.0)]
)
def test_impossible_intervals(accuracy, n, level):
    with pytest.raises(ValueError, match="accuracy must lie in 0..100"):
        am.confidence_interval(accuracy, n, level=level)
