"""Entropy against loss: bins and correlations against plain loops, the experiment, numbers and figures by hand."""

from __future__ import annotations

import math
import statistics

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from adamerging_lib import evaluate, methods, records, run_method
from adamerging_study import claims
from adamerging_study.entropy_loss import show
from adamerging_study.entropy_loss.measure import binned, measure
from adamerging_study.measuring import Run
from adamerging_study.style import colour

METHODS = ("task_arithmetic", "layer_wise_adamerging", "individual")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def made_up(rho=(0.9, 0.3, 0.8), losses=((1, 2, 3), (3, 2, 1), (1, 1, 2)), left_out=()):
    """Rows of two tasks and their pool, three bins each; ``left_out`` bins hold no image of task a."""
    rows = []
    for method, value, line in zip(METHODS, rho, losses, strict=True):
        for task, shift in (("a", 0.0), ("b", -0.1), ("all", -0.05)):
            about = {"method": method, "seed": 0, "task": task}
            rows += [
                {**about, "kind": "bin", "bin": number, "loss": float(loss), "n": 10}
                for number, loss in zip((0, 5, 10), line, strict=True)
                if not (task == "a" and number in left_out)
            ]
            rows.append({**about, "kind": "spearman", "value": value + shift, "n": 30})
    known = methods().to_dict("index")
    return records.new("entropy_loss", "toy", {}, None, rows, [0], "2026-01-01", 0.0, methods=known)


def test_bins_are_open_on_the_left_and_the_last_has_no_end():
    uncertainty = torch.tensor([0.0, 0.05, 0.1, 0.1001, 0.95, 1.0, 1.001, 7.0], dtype=torch.float64)
    loss = torch.arange(8, dtype=torch.float64)
    found = {row["bin"]: (row["n"], row["loss"]) for row in binned(uncertainty, loss)}
    assert found == {0: (3, 1.0), 1: (1, 3.0), 9: (2, 4.5), 10: (2, 6.5)}


def test_bars_are_half_intervals_of_the_means():
    rows = records.frame(made_up())
    known = rows["kind"].eq("bin") & rows["bin"].ne(10)
    rows.loc[known, "deviation"] = 2.0
    halves = show.half_widths(rows, METHODS[0]).loc["a"]
    assert halves[0] == halves[5] == pytest.approx(1.96 * 2 / 10**0.5) and np.isnan(halves[10])
    bars = show.loss_by_entropy(rows).axes[0].collections
    (_, (x, top)) = bars[0].get_segments()[1]
    assert len(bars) == 3 and (x, top) == (5, pytest.approx(2 + 1.96 * 2 / 10**0.5))
    assert show.half_widths(records.frame(made_up()), METHODS[0]).isna().all(axis=None)


def test_bins_against_a_loop():
    generator = torch.Generator().manual_seed(0)
    uncertainty, loss = torch.rand(2, 500, generator=generator, dtype=torch.float64) * 1.5
    for row in binned(uncertainty, loss):
        low, high = row["bin"] / 10, (row["bin"] + 1) / 10 if row["bin"] < 10 else math.inf
        inside = [v for e, v in zip(uncertainty.tolist(), loss.tolist(), strict=True) if low < e <= high]
        assert row["n"] == len(inside) and row["loss"] == pytest.approx(sum(inside) / len(inside))
        assert row["deviation"] == pytest.approx(statistics.stdev(inside))


@pytest.mark.parametrize("setting, images", [("transductive", 30), ("inductive", 15)])
def test_bins_of_a_toy_hold_all_images_and_their_loss(suite, setting, images):
    options = {"before": METHODS[0], "after": METHODS[1], "steps": 1, "batch_size": 4, "setting": setting}
    frame = records.frame(Run("entropy_loss", "toy", options).measure(suite))
    assert list(frame["method"].unique()) == list(METHODS)
    bins = frame[frame["kind"] == "bin"]
    counts = bins.groupby(["method", "task"])["n"].sum()
    assert (counts.drop("all", level="task") == images).all()
    assert (counts.xs("all", level="task") == 3 * images).all()
    split = "held_out" if setting == "inductive" else "all"
    expected = evaluate(suite, run_method(METHODS[0], suite), setting=setting, split=split).set_index("task")["loss"]
    for task, part in bins[bins["method"] == METHODS[0]].groupby("task"):
        loss = expected.mean() if task == "all" else expected[task]
        assert (part["loss"] * part["n"]).sum() / part["n"].sum() == pytest.approx(loss)


def test_what_adapts_is_fitted_with_every_seed(suite):
    options = {"before": METHODS[0], "after": METHODS[1], "steps": 2, "lr": 0.05, "batch_size": 4}
    rows = pd.DataFrame(measure(suite, seeds=[3, 5], **options))
    assert rows.groupby("method")["seed"].unique().map(list).to_dict() == {
        METHODS[0]: [3], METHODS[1]: [3, 5], METHODS[2]: [3],
    }  # fmt: skip
    for seed in (3, 5):
        alone = pd.DataFrame(measure(suite, seeds=[seed], **options))
        bins, own = (part[(part["method"] == METHODS[1]) & (part["seed"] == seed)]["loss"] for part in (alone, rows))
        assert own.dropna().tolist() == bins.dropna().tolist()


def two_seeds(**options):
    """The made-up record, and a second seed of adaptation: losses 1 nat above, ρ 0.2 above, bin 0 without an image."""
    made = made_up(**options)
    learned = [row for row in made["rows"] if row["method"] == METHODS[1] and row.get("bin") != 0]
    risen = [{field: row[field] + by for field, by in (("loss", 1), ("value", 0.2)) if field in row} for row in learned]
    more = [{**row, "seed": 1, **changed} for row, changed in zip(learned, risen, strict=True)]
    return {**made, "rows": [*made["rows"], *more], "seeds": [0, 1]}


def test_tables_and_figures_have_means_over_seeds():
    frame = records.frame(two_seeds())
    assert show.bins(frame, METHODS[1]).loc["b"].tolist() == [3, 2.5, 1.5]
    pooled = show.pooled(frame)
    assert pooled["Layer-wise AdaMerging"].tolist() == ["3.00 (20 %)", "2.50 (40 %)", "1.50 (40 %)"]
    assert pooled["Task Arithmetic"].tolist() == ["1.00 (33 %)", "2.00 (33 %)", "3.00 (33 %)"]
    assert show.spearman_text(frame).loc["Layer-wise AdaMerging"].tolist() == ["0.35", "0.40", "0.30"]
    (after,) = [line for line in show.loss_by_entropy(frame).axes[0].lines if "Layer-wise" in line.get_label()]
    np.testing.assert_allclose(after.get_xydata(), [(0, 3), (5, 2.5), (10, 1.5)])
    (panel, _) = show.loss_by_entropy_and_task(frame).axes
    np.testing.assert_allclose(panel.lines[1].get_ydata(), [3, 2.5, 1.5])
    marks = next(line for line in show.correlations(frame).axes[0].lines if "Layer-wise" in line.get_label())
    assert marks.get_xdata().tolist() == pytest.approx([0.4, 0.3, 0.35])


def test_steps_between_bins_are_those_of_one_seed():
    """Seed 0 falls over bins 0, 5, 10; seed 1 rises from 5 to 10: three of nine steps, task by task and pooled."""
    made = two_seeds()
    for row in made["rows"]:
        if row["seed"] == 1 and row.get("bin") == 10:
            row["loss"] = 9.0
    found = {name: values[0] for name, values in claims.numbers_of(made).items()}
    assert found["rising_after"] == pytest.approx(100 * 3 / 9) and found["rising_before"] == 100
    assert found["spearman_after"] == pytest.approx(0.35) and found["spearman_after_least"] == pytest.approx(0.3)


def test_numbers_by_hand():
    numbers = {name: values[0] for name, values in claims.numbers_of(made_up()).items()}
    assert numbers == pytest.approx({
        "spearman_before": 0.85, "spearman_before_least": 0.8, "rising_before": 100,
        "spearman_after": 0.25, "spearman_after_least": 0.2, "rising_after": 0,
        "spearman_gain": -0.6, "loss_middle_over_low": 1, "loss_high_over_low": 2,
    })  # fmt: skip


def test_a_step_over_an_empty_bin_is_one_step():
    """Losses rise from bin 0 to 10; where bin 5 of a task is empty, its two steps are one, and none of them falls."""
    numbers = claims.numbers_of(made_up(losses=((1, 2, 3), (1, 3, 2), (1, 1, 1)), left_out=(5,)))
    assert numbers["rising_before"][0] == 100
    assert numbers["rising_after"][0] == pytest.approx(100 * 3 / 5)  # a rises once, b and all once and fall once


def test_claims_follow_the_rows():
    verdicts = {verdict.claim.id: verdict.word for verdict in claims.verdicts_of(made_up())}
    assert {name for name, word in verdicts.items() if word == "does not hold"} == {
        "spearman-after", "correlation-kept", "rising-after",
    }  # fmt: skip
    assert "not run" not in verdicts.values()


def test_without_adaptation_what_it_does_is_not_judged():
    record = made_up()
    record["rows"] = [row for row in record["rows"] if row["method"] != METHODS[1]]
    words = {verdict.claim.id: verdict.word for verdict in claims.verdicts_of(record)}
    assert {name for name, word in words.items() if word == "not run"} == {
        "spearman-after", "spearman-tasks-after", "correlation-kept", "rising-after",
    }  # fmt: skip


def test_tables_by_hand():
    frame = records.frame(made_up(left_out=(5,)))
    text = show.spearman_text(frame)
    assert text.columns.tolist() == ["all", "a", "b"]
    assert text.loc["Layer-wise AdaMerging"].tolist() == ["0.25", "0.30", "0.20"]
    assert show.bins(frame, METHODS[1]).loc["b"].tolist() == [3, 2, 1]
    assert np.isnan(show.bins(frame, METHODS[1]).loc["a", 5])
    assert show.pooled(frame).loc["> 1", "Task Arithmetic"] == "3.00 (33 %)"
    assert show.pooled(frame).index.tolist() == ["0.0–0.1", "0.5–0.6", "> 1"]


def test_lines_are_the_bins():
    frame = records.frame(made_up(left_out=(5,)))
    figure = show.loss_by_entropy(frame)
    pooled = figure.axes[0]
    assert figure.legends and pooled.get_legend() is None  # beside the lines, not over them
    drawn = {line.get_label(): line for line in pooled.lines}
    np.testing.assert_allclose(drawn["Layer-wise AdaMerging"].get_xydata(), [(0, 3), (5, 2), (10, 1)])
    assert drawn["Individual"].get_color() == colour("individual")
    panels = {axes.get_title(loc="left"): axes for axes in show.loss_by_entropy_and_task(frame).axes}
    assert set(panels) == {"a", "b"}
    np.testing.assert_allclose(panels["a"].lines[0].get_xydata(), [(0, 1), (10, 3)])
    np.testing.assert_allclose(panels["b"].lines[1].get_xydata(), [(0, 3), (5, 2), (10, 1)])


def test_marks_are_the_correlations():
    axes = show.correlations(records.frame(made_up())).axes[0]
    names = dict(zip(axes.get_yticks(), (tick.get_text() for tick in axes.get_yticklabels()), strict=True))
    after = next(line for line in axes.lines if line.get_label() == "Layer-wise AdaMerging")
    drawn = {names[round(y)]: x for x, y in after.get_xydata()}
    assert drawn == pytest.approx({"a": 0.3, "b": 0.2, "all images": 0.25})


def test_intervals_of_correlations_cover_what_was_drawn():
    """Of 400 samples of 200 pairs with a known rank correlation, about 95 % have it inside."""
    generator = np.random.default_rng(0)
    r = 0.7
    truth = 6 / np.pi * np.arcsin(r / 2)  # Spearman's correlation of two normal variables with Pearson's r
    x = generator.normal(size=(400, 200))
    y = r * x + np.sqrt(1 - r**2) * generator.normal(size=x.shape)
    found = np.array([spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)])
    low, high = show.around(found, np.full(400, 200))
    assert 0.92 < np.mean((low <= truth) & (truth <= high)) < 0.98
    assert [end.tolist() for end in show.around([1.0, 0.5], [99, 3])] == [[1.0, 0.5], [1.0, 0.5]]
