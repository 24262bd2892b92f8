"""Similarity of task vectors: sign conflicts against plain loops, tables, figures and numbers by hand."""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from adamerging_lib import TaskVectors, evaluate, merge, records
from adamerging_study import claims, outcomes
from adamerging_study.measuring import Run
from adamerging_study.similarity import show
from adamerging_study.similarity.measure import sign_conflicts


def vectors(*rows):
    zero = {"a": torch.zeros(len(rows[0]))}
    return TaskVectors.from_state_dicts(zero, {f"t{k}": {"a": torch.tensor(row)} for k, row in enumerate(rows)})


@pytest.fixture(scope="module")
def record(suite):
    return Run("similarity", "toy", {"scaling": 0.5, "keep": 0.2}).measure(suite)


@pytest.fixture(scope="module")
def frame(record):
    return records.frame(record)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


# Three tasks; every accuracy is of 100 images, cosines and conflicts are of unordered pairs.
TASKS = "abc"
COSINES = {("a", "b"): 0.1, ("a", "c"): -0.3, ("b", "c"): 0.2}
ZERO = {"a": 50, "b": 60, "c": 40}
TRANSFER = {("a", "b"): 55, ("a", "c"): 50, ("b", "a"): 40, ("b", "c"): 30, ("c", "a"): 39, ("c", "b"): 41}
ALONE = {"a": 90, "b": 80, "c": 70}
COST = {("a", "b"): 5, ("a", "c"): 8, ("b", "a"): 1, ("b", "c"): -2, ("c", "a"): 3, ("c", "b"): 4}


def made_up(n=100):
    def images(kind, task, accuracy, **about):
        right = outcomes.pack(np.arange(n) < accuracy * n / 100)
        about = {"kind": kind, "condition": "clean", "task": task, **about}
        return {**about, "accuracy": float(accuracy), "n": n, "right": right}

    rows = []
    for (task, other), cosine in COSINES.items():
        rows += [
            {"kind": kind, "task": task, "other": other, "value": value}
            for kind, value in (("cosine", cosine), ("sign_conflict", 50 - 20 * cosine), ("overlap", 25 + 10 * cosine))
        ]
    rows += [images("transfer", task, accuracy, other=other) for (task, other), accuracy in TRANSFER.items()]
    rows += [images("transfer", task, 95, other=task) for task in TASKS]
    rows += [images("zero_shot", task, accuracy) for task, accuracy in ZERO.items()]
    rows += [images("alone", task, accuracy) for task, accuracy in ALONE.items()]
    rows += [images("pair", task, ALONE[task] - cost, other=other) for (task, other), cost in COST.items()]
    return records.new("similarity", "toy", {}, None, rows, [], "2026-01-01", 0.0)


def by_hand(measure):
    return spearmanr([measure.get(pair, measure.get(pair[::-1])) for pair in COST], list(COST.values())).statistic


def test_conflicts_by_hand():
    tv = vectors([1.0, -2.0, 3.0, 0.0], [1.0, 2.0, -3.0, 5.0])
    assert sign_conflicts(tv, keep=1.0) == {("t0", "t1"): (pytest.approx(200 / 3), pytest.approx(100.0))}


def test_conflicts_count_only_large_entries():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 400, generator=generator).tolist()
    tv = vectors(*rows)
    for (i, j), (conflict, overlap) in sign_conflicts(tv, keep=0.25).items():
        a, b = rows[int(i[1])], rows[int(j[1])]
        cuts = [sorted(map(abs, row))[400 - 100 - 1] for row in (a, b)]
        both = [(x, y) for x, y in zip(a, b, strict=True) if abs(x) >= cuts[0] and abs(y) >= cuts[1]]
        assert conflict == pytest.approx(100 * sum(x * y < 0 for x, y in both) / len(both), abs=0.01)
        assert overlap == pytest.approx(100 * len(both) / 101, abs=0.01)


def test_accuracies_are_those_of_evaluate(frame, suite):
    gains = show.transfer(frame)
    zero = evaluate(suite, merge("zero_shot", suite.task_vectors())).set_index("task")["accuracy"]
    transfers = frame[frame["kind"] == "transfer"].set_index(["task", "other"])["accuracy"]
    assert gains.loc["alpha", "beta"] == pytest.approx(transfers["beta", "alpha"] - zero["beta"])
    pair = merge("task_arithmetic", suite.task_vectors().subset(["alpha", "gamma"]), scaling=0.5)
    expected = evaluate(suite, pair).set_index("task")["accuracy"]
    found = frame[frame["kind"] == "pair"].set_index(["task", "other"])["accuracy"]
    assert (found["alpha", "gamma"], found["gamma", "alpha"]) == (expected["alpha"], expected["gamma"])


def test_numbers_by_hand():
    numbers = claims.numbers_of(made_up())
    values = {name: found[0] for name, found in numbers.items()}
    assert values == {
        "experts_that_hurt": pytest.approx(100 * 3 / 6),  # (b, a), (b, c) and (c, a)
        "pair_cost": pytest.approx(19 / 6),
        "mean_cosine": pytest.approx(0.2),
        "mean_sign_conflict": pytest.approx(50.0),
        "cost_by_cosine": pytest.approx(by_hand(COSINES)),
        "cost_by_sign_conflict": pytest.approx(-by_hand(COSINES)),
    }


def test_what_images_are_behind_has_an_interval_and_what_vectors_are_has_none():
    verdicts = {verdict.claim.id: verdict for verdict in claims.verdicts_of(made_up())}
    with_interval = {name for name, verdict in verdicts.items() if verdict.interval}
    assert with_interval == {"experts-hurt", "pair-costs", "similar-cheaper", "conflicts-dearer"}
    low, high = verdicts["pair-costs"].interval
    assert low < 19 / 6 < high
    assert not any(verdict.point_only for verdict in verdicts.values())


def test_a_record_without_pairs_is_not_judged_on_them():
    record = made_up()
    record["rows"] = [row for row in record["rows"] if row["kind"] not in ("pair", "cosine")]
    words = {verdict.claim.id: verdict.word for verdict in claims.verdicts_of(record)}
    assert {name for name, word in words.items() if word == "not run"} == {
        "similarity-right-angles", "pair-costs", "similar-cheaper", "conflicts-dearer",
    }  # fmt: skip


def test_tables_by_hand():
    frame = records.frame(made_up())
    pairs = show.pairs(frame)
    assert sorted(pairs.index) == sorted(itertools.permutations(TASKS, 2))
    for pair, line in pairs.iterrows():
        cosine = COSINES.get(pair, COSINES.get(pair[::-1]))
        assert line["cosine"] == cosine and line["cost"] == COST[pair]
        assert line["transfer"] == TRANSFER[pair] - ZERO[pair[0]]
    table = show.prediction(frame)
    assert table.loc[show.MEASURES["cosine"], "ρ over pairs"] == pytest.approx(by_hand(COSINES))
    # Within a, partner b is more similar and costs less; within b and c, the more similar one.
    assert table.loc[show.MEASURES["cosine"], "mean ρ within a task"] == pytest.approx((-1 - 1 + 1) / 3)


@pytest.mark.parametrize(
    "draw, table",
    [
        (show.conflicts, lambda rows: show.square(rows, "sign_conflict")),
        (show.transfers, show.transfer),
        (show.costs, lambda rows: -show.cost(rows)),
    ],
)
def test_matrices_show_their_tables_rounded(draw, table):
    frame = records.frame(made_up())
    axes, expected = draw(frame).axes[0], table(frame)
    shown = [text.get_text() for text in axes.texts]
    assert shown == [f"{value + 0.0:.0f}" for value in expected.round(0).to_numpy().ravel() if not np.isnan(value)]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == list(TASKS)


def test_predictors_are_drawn_pair_by_pair():
    frame = records.frame(made_up())
    pairs = show.pairs(frame)
    for axes, measure in zip(show.predictors(frame).axes, show.MEASURES, strict=True):
        drawn = {line.get_label(): line.get_xydata() for line in axes.lines}
        for task in TASKS:
            np.testing.assert_allclose(drawn[task], pairs.loc[task, [measure, "cost"]])
        dearest = pairs["cost"].nlargest(show.NAMED).index
        assert {text.get_text() for text in axes.texts} == {f"{task} + {other}" for task, other in dearest}


def test_rows_of_the_toy_are_of_every_pair(frame, suite):
    assert len(show.pairs(frame)) == 6
    counts = frame.groupby("kind")["task"].count()
    assert counts.to_dict() == {
        "cosine": 3, "sign_conflict": 3, "overlap": 3, "transfer": 9, "zero_shot": 3, "alone": 3, "pair": 6,
    }  # fmt: skip
    assert pd.isna(frame.loc[frame["kind"] == "cosine", "condition"]).all()
