"""Similarity of task vectors: sign conflicts against plain loops, the experiment on the toy suite."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from adamerging_lib import TaskVectors, evaluate, merge
from adamerging_study import tables, verdicts
from adamerging_study.experiments.similarity import sign_conflicts, similarity
from adamerging_study.figures import similarity as figures


def vectors(*rows):
    zero = {"a": torch.zeros(len(rows[0]))}
    return TaskVectors.from_state_dicts(zero, {f"t{k}": {"a": torch.tensor(row)} for k, row in enumerate(rows)})


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


@pytest.fixture(scope="module")
def frame():
    import toy

    return pd.DataFrame(similarity(toy.suite(seed=0)))


def test_accuracies_are_those_of_evaluate(frame, suite):
    gains = tables.similarity.transfer(frame)
    zero = evaluate(suite, merge("zero_shot", suite.task_vectors())).set_index("task")["accuracy"]
    own = frame[(frame["condition"] == "transfer") & (frame["task"] == "beta") & (frame["other"] == "alpha")]
    assert gains.loc["alpha", "beta"] == pytest.approx(own["accuracy"].item() - zero["beta"])
    pair = merge("task_arithmetic", suite.task_vectors().subset(["alpha", "gamma"]), scaling=0.5)
    expected = evaluate(suite, pair).set_index("task")["accuracy"]
    found = frame[(frame["condition"] == "pair") & (frame["task"] == "alpha") & (frame["other"] == "gamma")]
    assert found["accuracy"].item() == expected["alpha"]


def test_tables_figures_and_verdicts(frame):
    assert len(tables.similarity.pairs(frame)) == 6
    for draw in (figures.conflicts, figures.transfers, figures.costs, figures.predictors):
        assert draw(frame).axes
    assert len(verdicts.similarity(frame)) == 6
