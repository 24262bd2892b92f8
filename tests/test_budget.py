"""The budget experiment on the toy suite; its numbers, tables, sentences and figures against made-up rows."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import toy
from madeup import named

from adamerging_lib import adamerge, evaluate
from adamerging_study import claims, measuring, migrate
from adamerging_study.budget import FACE, METHOD, show
from adamerging_study.budget.measure import measure
from adamerging_study.claims import WHERE
from adamerging_study.judge import FAILS, HOLDS, NOT_RUN
from adamerging_study.measuring import Run
from adamerging_study.sample import Sample, interval
from adamerging_study.style import colour

BASE = {"steps": 3, "lr": 0.01, "batch_size": 4, "batches": 1}
LEVELS = {"images": [8, 0], "granularities": ["task", "block", "tensor"], "ranges": ["clamp", "free", "sigmoid"],
          "lrs": [0.001, 0.1], "diversities": [0.5, 1.0], "seeds": [0, 1]}  # fmt: skip


@pytest.fixture(scope="module")
def record():
    run = Run("budget", "toy", {**BASE, **LEVELS, "steps_shown": [0, 2, 4], "task_counts": [2, 3]})
    return run.measure(toy.suite(seed=0))


@pytest.fixture(scope="module")
def frame(record):
    return measuring.records.frame(record)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def average(suite, **hyper):
    return evaluate(suite, adamerge(suite, **{**BASE, **hyper}, progress=False))["accuracy"].mean()


def test_every_level_is_measured(frame):
    assert show.settings(frame) == ["lr", "images", "granularity", "range of λ", "diversity", "seed"]
    assert list(show.levels(frame, "range of λ").index) == ["clamp", "free", "sigmoid"]
    assert list(show.levels(frame, "images").index) == ["8", "all"]
    assert list(show.by_task_count(frame).columns) == [2, 3]
    assert len(show.ablation(frame)) == sum(map(len, LEVELS.values()))


def test_levels_are_fits_of_their_own(frame, suite):
    fits = {
        ("images", "8"): {"images": 8}, ("range of λ", "free"): {"clamp": False}, ("lr", "0.1"): {"lr": 0.1},
        ("diversity", "1"): {"objective": {"diversity": 1.0}}, ("granularity", "block"): {"granularity": "block"},
        ("granularity", "task"): {"granularity": "task"}, ("seed", "1"): {"seed": 1},
    }  # fmt: skip
    found = {(factor, level): show.levels(frame, factor)[level] for factor, level in fits}
    assert found == pytest.approx({name: average(suite, **hyper) for name, hyper in fits.items()})
    assert show.base(frame) == pytest.approx(average(suite))
    assert show.levels(frame, "granularity")["tensor"] == show.base(frame)


def test_the_long_run_is_read_along_its_way(frame, suite):
    short = adamerge(suite, **{**BASE, "steps": 2}, progress=False)
    fit = adamerge(suite, **{**BASE, "steps": 4}, progress=False)
    for key, t in measuring.at_step(suite, fit, 2).state_dict().items():
        torch.testing.assert_close(t, short.state_dict()[key])
    assert show.levels(frame, "steps").to_dict() == pytest.approx({str(n): average(suite, steps=n) for n in (0, 2, 4)})


def test_tasks_are_added_in_the_suites_order(frame, suite):
    two = suite.subset(suite.tasks[:2])
    own = frame[(frame["factor"] == "tasks") & (frame["level"] == "2")]
    assert set(own["task"]) == {*suite.tasks[:2], "Average"}
    assert show.by_task_count(frame).loc["layer_wise_adamerging", 2] == pytest.approx(average(two))


def test_inductive_looks_are_measured_on_the_other_half(suite):
    rows = measure(suite, setting="inductive", steps_shown=[2], granularities=["block"], **BASE)
    assert {row["split"] for row in rows} == {"held_out"} and {row["factor"] for row in rows[4:]} == {
        "granularity", "steps",
    }  # fmt: skip


def test_subset_takes_everything_along(suite):
    part = suite.subset(["gamma", "alpha"])
    assert part.tasks == ("gamma", "alpha") and list(part.test) == ["gamma", "alpha"] and part.joint is None
    assert part.heads["gamma"] is suite.heads["gamma"] and list(part.training()) == ["gamma", "alpha"]
    with pytest.raises(ValueError, match="'delta'"):
        suite.subset(["alpha", "delta"])


def test_an_unknown_parameter_is_refused(suite):
    with pytest.raises(ValueError, match="momenta"):
        measure(suite, momenta=[1], **BASE)


def test_what_images_are_behind_has_an_interval(record):
    """All numbers but those whose levels were not asked for here."""
    numbers = claims.numbers_of(record)
    missing = {"images_32_over_all", "batch_8_distance", "start_0_2_distance"}
    assert {name for name, values in numbers.items() if np.isnan(values).any()} == missing


def made_up():
    """A record of one task, so that the average is its accuracy."""

    def rows(factor, values, method="layer_wise_adamerging", **more):
        return [
            {"factor": factor, "level": level, "task": task, "accuracy": value, "method": method, "n": 10,
             "condition": "clean", "seed": 0, "setting": "transductive", **more}
            for level, value in values.items()
            for task in ("a", "Average")
        ]  # fmt: skip

    found = rows(None, {None: 66.0}, seconds=20.0)
    found += rows("steps", {"0": 60.0, "50": 68.5, "100": 69.0, "200": 68.0})
    found += rows("lr", {"0.001": 62.0, "0.01": 66.0}) + rows("images", {"8": 60.0, "32": 65.5, "all": 66.0})
    found += rows("diversity", {"0.1": 60.0, "1": 66.5}) + rows("batch size", {"8": 65.75})
    found += rows("granularity", {"task": 63.0, "block": 65.0, "tensor": 66.0}) + rows("start", {"0.2": 66.25})
    found += rows("seed", {"0": 66.0, "1": 60.0})
    for method, values in {
        "layer_wise_adamerging": {"2": 90.0, "8": 66.0, "10": 62.0},
        "task_arithmetic": {"2": 88.0, "8": 60.0, "10": 59.0},
        "individual": {"2": 95.0, "8": 95.0, "10": 94.0},
    }.items():  # fmt: skip
        found += rows("tasks", values, method)
    return named(pd.DataFrame(found))


def made_record(frame):
    rows = [row.dropna().to_dict() for _, row in frame.drop(columns=["label", "needs"]).iterrows()]
    return measuring.records.new("budget", "toy", {}, None, rows, [0], "2026-01-01T00:00:00", 1.0)


def test_numbers_by_hand():
    found = {name: values[0] for name, values in claims.numbers_of(made_record(made_up())).items()}
    assert found == pytest.approx({
        "base_average": 66.0, "base_gain": 6.0, "diversity_gain": 6.5, "diversity_over_base": 0.5,
        "tensor_over_task": 3.0, "block_between": 1.0, "images_32_over_all": -0.5, "batch_8_distance": 0.25,
        "start_0_2_distance": 0.25, "seed_deviation": np.std([66, 60], ddof=1), "late_gain": -1.0,
        "after_0_steps": 60.0, "after_50_steps": 68.5, "after_100_steps": 69.0, "after_200_steps": 68.0,
        "lw_over_ta_least": 2.0, "ta_loss_growth": 28.0,
    })  # fmt: skip


def test_claims_follow_the_numbers():
    words = {v.claim.id: v.word for v in claims.verdicts_of(made_record(made_up()))}
    assert {id for id, word in words.items() if word == FAILS} == {"late-steps", "spread-over-seeds"}
    assert set(words.values()) == {HOLDS, FAILS}
    alone = made_up().query("factor.isna()").drop(columns=["factor", "level"])
    assert {v.word for v in claims.verdicts_of(made_record(alone))} == {NOT_RUN}


def test_advice_in_four_sentences():
    steps, rates, images, grain = show.advice(made_up())
    assert steps.startswith("Take 50 steps") and "within 200" in steps and "(+9.0 points over λ = 0.3)" in steps
    short = made_up()
    short = short[(short["factor"] != "steps") | short["level"].isin(["0", "50"])]
    assert show.advice(short)[0].startswith("Take 50 steps or more: no earlier look")
    assert rates == "Of the rates tried, 0.01 did best at the base run's number of steps (66.0 percent)."
    assert images == "Within a point of the best come 32 unlabelled images per task, of those tried (8, 32, all)."
    assert "One coefficient per tensor did best (66.0 percent), one per task worst (63.0)." == grain


@pytest.mark.parametrize("factor", ["steps", "lr", "images", "granularity", "tasks"])
def test_a_factor_that_is_left_out_is_not_spoken_of(factor):
    rows = made_up().query("factor != @factor")
    assert len(show.advice(rows)) == (4 if factor == "tasks" else 3)
    assert factor not in set(show.ablation(rows)["factor"])


def test_the_ablation_is_set_against_the_base_run():
    table = show.ablation(made_up().query("factor.isna() or factor == 'lr'"))
    assert table[["factor", "level", "against the base run"]].to_numpy().tolist() == [
        ["lr", "0.001", "-4.0"], ["lr", "0.01", "+0.0"],
    ]  # fmt: skip
    half = 196 * np.sqrt(0.62 * 0.38 / 10)  # of ten images
    assert float(table["average accuracy"][0].removeprefix("62.0 ± ")) == pytest.approx(half, rel=0.15)


def test_steps_are_drawn_with_the_seconds_they_take():
    axes = show.over_steps(made_up(), 50).axes[0]
    (line,) = axes.lines
    assert line.get_xdata().tolist() == [0, 50, 100, 200] and line.get_ydata().tolist() == [60.0, 68.5, 69.0, 68.0]
    (top,) = axes.child_axes
    axes.figure.draw_without_rendering()
    assert np.array(top.get_xlim()) == pytest.approx(0.4 * np.array(axes.get_xlim()))  # 20 s for 50 steps
    unknown = show.over_steps(made_up().drop(columns="seconds"), 50).axes[0]
    assert not unknown.child_axes


def test_steps_and_tasks_have_bars_of_paired_differences(frame):
    start, *later = bars_of(show.over_steps(frame, 50).axes[0])
    assert np.ptp(start) == 0 and later and max(map(np.ptp, later)) > 0
    sample = Sample(frame, where={**WHERE, **dict.fromkeys(FACE.factors)})
    asked = {"factor": "tasks", "level": frame.loc[frame["factor"] == "tasks", "level"].iloc[0]}
    learned, fixed = (sample.average(method, **asked) for method in (METHOD, "task_arithmetic"))
    point, low, high = interval(learned - fixed)
    ends = [learned[0] + low - point, learned[0] + high - point]
    assert any(np.allclose(bar, ends) for bar in bars_of(show.over_tasks(frame).axes[0]))
    bare = frame.drop(columns="right")
    assert not bars_of(show.over_steps(bare, 50).axes[0]) and not bars_of(show.over_tasks(bare).axes[0])


def bars_of(axes):
    return [segment[:, 1] for bars in axes.collections for segment in bars.get_segments()]


def test_levels_are_drawn_beside_the_base_run():
    rows = made_up()
    axes = show.one_at_a_time(rows).axes[0]
    base, dots = axes.lines
    assert set(base.get_xdata()) == {66.0}
    names = dict(zip(axes.get_yticks(), (text.get_text() for text in axes.get_yticklabels()), strict=True))
    drawn = [(names[y], x) for x, y in zip(*dots.get_data(), strict=True)]
    assert drawn == [pair for factor in show.settings(rows) for pair in show.levels(rows, factor).items()]
    assert [text.get_text() for text in axes.texts] == show.settings(rows)
    heights = [text.get_position()[1] for text in axes.texts]
    assert heights == sorted(heights) and heights[0] > axes.get_ylim()[1]
    nothing = show.one_at_a_time(rows.query("factor.isna()")).axes[0]
    assert not len(nothing.lines[1].get_xdata())


def test_bars_are_of_the_difference_to_the_base_run(frame):
    axes = show.one_at_a_time(frame).axes[0]
    bars = {line.get_ydata()[0]: np.ptp(line.get_xdata()) for line in axes.lines[1:-1]}
    named = dict(zip(axes.get_yticks(), (text.get_text() for text in axes.get_yticklabels()), strict=True))
    assert bars.keys() == named.keys()
    assert [width for y, width in bars.items() if named[y] == "tensor"] == [0.0]  # the base run itself
    assert max(bars.values()) > 0


def test_tasks_are_drawn_by_their_number_not_as_text():
    axes = show.over_tasks(made_up()).axes[0]
    lines = {line.get_color(): line for line in axes.lines}
    assert lines[colour("task_arithmetic")].get_xdata().tolist() == [2, 8, 10]
    assert lines[colour("task_arithmetic")].get_ydata().tolist() == [88.0, 60.0, 59.0]
    told = [text.get_text() for text in axes.get_legend().get_texts()]
    assert told == ["Layer-wise AdaMerging", "Task Arithmetic", "Individual"]


def test_old_records_are_lifted():
    assert migrate._budget({"factor": "base", "level": "base", "accuracy": 1.0}) == {"accuracy": 1.0}
    levels = {"lr": [0.1], "batch size": [], "images": [8, None], "granularity": ["task"], "start": [],
              "range of λ": [True, False, "sigmoid"], "diversity": [], "seed": [0, 1]}  # fmt: skip
    parameters, seeds = migrate._budget_parameters({"steps": 5, "levels": levels}, [0])
    assert parameters["images"] == [8, 0] and parameters["ranges"] == ["clamp", "free", "sigmoid"]
    assert seeds == [0, 1] and "levels" not in parameters and parameters["steps"] == 5
