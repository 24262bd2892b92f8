"""The budget experiment on the toy suite, its tables and sentences against made-up rows."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from adamerging_lib import adamerge, evaluate
from adamerging_study import tables, verdicts
from adamerging_study.experiments import at_step
from adamerging_study.experiments import budget as study
from adamerging_study.figures import budget as figures
from adamerging_study.verdicts import FAILS, HOLDS, NOT_RUN

BASE = {"steps": 3, "lr": 0.01, "batch_size": 4, "batches": 1}
LEVELS = {"images": [8, None], "granularity": ["task", "block", "tensor"], "range of λ": [True, False, "sigmoid"],
          "lr": [0.001, 0.1], "diversity": [0.5, 1.0], "seed": [0, 1]}  # fmt: skip


@pytest.fixture(scope="module")
def frame():
    import toy

    return pd.DataFrame(study.budget(toy.suite(seed=0), LEVELS, BASE, steps_shown=[0, 2, 4], task_counts=[2, 3]))


def test_every_level_is_measured(frame):
    assert list(tables.budget.levels(frame, "range of λ").index) == ["clamp", "free", "sigmoid"]
    assert list(tables.budget.levels(frame, "images").index) == ["8", "all"]
    assert list(tables.budget.by_task_count(frame).columns) == [2, 3]
    ablation = tables.budget.ablation(frame)
    assert len(ablation) == sum(map(len, LEVELS.values()))
    assert tables.budget.levels(frame, "granularity")["tensor"] == tables.budget.base(frame)


def test_the_long_run_is_read_along_its_way(frame, suite):
    short = adamerge(suite, **{**BASE, "steps": 2}, progress=False)
    fit = adamerge(suite, **{**BASE, "steps": 4}, progress=False)
    for key, t in at_step(suite, fit, 2).state_dict().items():
        torch.testing.assert_close(t, short.state_dict()[key])
    expected = evaluate(suite, short)["accuracy"].mean()
    assert tables.budget.levels(frame, "steps")["2"] == pytest.approx(expected)


def test_diversity_is_a_term_of_the_objective(frame, suite):
    assert tables.budget.levels(frame, "diversity").index.to_list() == ["0.5", "1"]
    fit = adamerge(suite, **BASE, objective={"diversity": 1.0}, progress=False)
    expected = evaluate(suite, fit)["accuracy"].mean()
    assert tables.budget.levels(frame, "diversity")["1"] == pytest.approx(expected)


def test_subset_takes_everything_along(suite):
    part = study.subset(suite, ["gamma", "alpha"])
    assert part.tasks == ("gamma", "alpha") and list(part.test) == ["gamma", "alpha"] and part.joint is None


def test_unknown_factor(suite):
    with pytest.raises(ValueError, match="factor 'momentum' is unknown; choose from lr, batch size"):
        study.budget(suite, {"momentum": [1]}, BASE)


def test_figures(frame):
    assert figures.over_steps(frame, 0.15).axes and figures.one_at_a_time(frame).axes and figures.over_tasks(frame).axes


def made_up():
    def rows(factor, values, method="layer_wise_adamerging"):
        return [
            {"factor": factor, "level": level, "task": "Average", "accuracy": value, "method": method, "n": 10}
            for level, value in values.items()
        ]

    found = rows("base", {"base": 66.0}) + rows("steps", {"0": 60.0, "50": 68.5, "100": 69.0, "200": 68.0})
    found += rows("lr", {"0.001": 62.0, "0.01": 66.0}) + rows("images", {"8": 60.0, "32": 65.5, "all": 66.0})
    found += rows("diversity", {"0.1": 60.0, "1": 66.5})
    found += rows("granularity", {"task": 63.0, "block": 65.0, "tensor": 66.0}) + rows("seed", {"0": 66.0, "1": 60.0})
    for method, values in {
        "layer_wise_adamerging": {"2": 90.0, "8": 66.0}, "task_arithmetic": {"2": 88.0, "8": 60.0},
        "individual": {"2": 95.0, "8": 95.0},
    }.items():  # fmt: skip
        found += rows("tasks", values, method)
    return pd.DataFrame(found)


def test_verdicts():
    words = [v.word for v in verdicts.budget(made_up())]
    assert words == [FAILS, HOLDS, HOLDS, HOLDS, HOLDS, FAILS, HOLDS, HOLDS]
    none = verdicts.budget(made_up().query("factor == 'base'"))
    assert {v.word for v in none} == {NOT_RUN}


def test_advice_in_three_sentences():
    steps, images, grain = tables.budget.advice(made_up())
    assert steps.startswith("Take 50 steps") and "(+9.0 points over λ = 0.3)" in steps
    short = made_up()
    short = short[(short["factor"] != "steps") | short["level"].isin(["0", "50"])]
    assert tables.budget.advice(short)[0].startswith("Take 50 steps or more: no earlier look")
    assert images == "Within a point of the best come 32 unlabelled images a task, of those tried (8, 32, all)."
    assert "One coefficient a tensor did best (66.0 percent), one a task worst (63.0)." == grain
