"""When adaptation works: the experiment on the toy suite; its numbers, tables and figures by hand."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import toy
from matplotlib.colors import to_hex

from adamerging_lib import adamerge, evaluate, records
from adamerging_study import claims
from adamerging_study.book import comparisons
from adamerging_study.judge import NOT_RUN
from adamerging_study.measuring import Run
from adamerging_study.reasons import AFTER, BEFORE, show
from adamerging_study.reasons.measure import measure, narrowed, sharpened
from adamerging_study.reasons.numbers import share_won_back
from adamerging_study.style import task_colours

LEARNING = {"steps": 2, "lr": 0.05, "batch_size": 4, "batches": 1}
# Task → accuracy of its expert, before and after adaptation, and classes.
KNOWN = {"a": (90.0, 50.0, 70.0, 5), "b": (80.0, 60.0, 55.0, 6), "c": (70.0, 69.5, 75.0, 7), "d": (60.0, 40.0, 60.0, 8)}
# Task → by how much its entropy fell, its gain, and its gain by min-norm.
TRADED = {"a": (0.5, 9.0, 4.0), "b": (0.2, 1.0, 2.0), "c": (-0.1, -3.0, 0.0)}


@pytest.fixture(scope="module")
def record():
    varied = {"scales": [0.5, 3.0], "classes": [2], "rules": ["min_norm"]}
    return Run("reasons", "toy", {**LEARNING, **varied}).measure(toy.suite(seed=0))


@pytest.fixture(scope="module")
def frame(record):
    return records.frame(record)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def row(method, task, accuracy, **more):
    about = {"condition": "clean", "seed": 0, "setting": "transductive", "n": 100, "entropy": 1.0}
    return {"method": method, "task": task, "accuracy": accuracy, **about, **more}


def traits_of(task, classes):
    return [
        {"kind": "classes", "task": task, "seed": 0, "value": classes},
        {"kind": "spearman", "method": BEFORE, "task": task, "seed": 0, "value": 0.5, "n": 100},
    ]


def made_record(rows):
    return records.new("reasons", "toy", {}, None, rows, [0], "2026-01-01T00:00:00", 1.0)


def shares():
    rows = []
    for task, (*accuracies, classes) in KNOWN.items():
        rows += [row(m, task, v) for m, v in zip(("individual", BEFORE, AFTER), accuracies, strict=True)]
        rows += [row("zero_shot", task, 10.0), *traits_of(task, classes)]
    return made_record(rows)


def traded():
    """Three tasks; heads at 2 reach 60 throughout; without a, whose expert is the weakest, b and c gain 5 and 3."""
    rows = []
    for task, (fell, gain, other) in TRADED.items():
        rows += [row("individual", task, 90.0 if task == "a" else 95.0), row("zero_shot", task, 9.0)]
        rows += [row(BEFORE, task, 50.0)]
        rows += [row(AFTER, task, 50 + gain, entropy=1 - fell), row(AFTER, task, 50 + other, rule="min_norm")]
        rows += [row(AFTER, task, 60.0, scale=2.0), *traits_of(task, 4)]
    for method, accuracies in {BEFORE: (55.0, 57.0), AFTER: (60.0, 60.0)}.items():
        rows += [row(method, task, v, left_out="a") for task, v in zip("bc", accuracies, strict=True)]
    for method, accuracy in {BEFORE: 40.0, AFTER: 70.0, "individual": 100.0, "zero_shot": 1.0}.items():
        rows += [row(method, task, accuracy, classes=2, narrowed="b", n=20) for task in "abc"]
    for scale in (None, 2.0):
        mean = np.mean([r["accuracy"] for r in rows if r.get("method") == AFTER and r.get("scale") == scale
                        and not {"rule", "left_out", "classes"} & r.keys()])  # fmt: skip
        rows.append(row(AFTER, "Average", float(mean), **({"scale": scale} if scale else {})))
    return made_record(rows)


def values_of(record):
    return {name: values[0] for name, values in claims.numbers_of(record).items()}


def test_shares_won_back_by_hand():
    frame = records.frame(shares())
    table = show.by_task(frame)
    assert table[show.WON].tolist()[:2] == [50.0, -25.0]
    assert pd.isna(table.loc["c", show.WON])  # merging had cost it half a point: nothing to win back
    rho = show.correlations(frame)
    assert rho["classes"] == pytest.approx(0.5)  # of 5, 6, 8 classes with 50, −25, 100
    assert rho["individual"] == pytest.approx(-0.5) and pd.isna(rho["spearman"])
    text = show.told(frame)
    assert text.index[-1] == "ρ with the recovered share (n = 3)"
    assert text.iloc[-1].tolist() == ["0.50", "nan", "-0.50", "-1.00", "nan", "", ""]
    assert text[show.WON].tolist() == ["50", "-25", "–", "100", ""]


def test_the_numbers_are_those_of_the_tables():
    found, rho = values_of(shares()), show.correlations(records.frame(shares()))
    assert found["rho_classes"] == pytest.approx(rho["classes"]) and np.isnan(found["rho_telling"])
    assert found["rho_expert"] == pytest.approx(rho["individual"])
    assert found["lw_over_ta"] == pytest.approx(np.mean([20.0, -5.0, 5.5, 20.0]))
    assert np.isnan([found["scale_change"], found["fewer_classes_won"], found["gain_left_out"]]).all()


def test_a_share_of_next_to_nothing_is_none():
    before, after = np.array([50.0, 49.0]), np.array([60.0, 60.0])
    assert share_won_back(before, after, np.array([70.0, 70.0])).tolist() == [50.0, pytest.approx(100 * 11 / 21)]
    assert np.isnan(share_won_back(before, after, np.array([50.5, 60.0]))).all()


def test_sharper_heads_predict_the_same_and_are_surer(suite):
    merged = adamerge(suite, steps=0)
    plain, sharp = (evaluate(s, merged).set_index("task") for s in (suite, sharpened(suite, 3.0)))
    assert plain["accuracy"].equals(sharp["accuracy"])
    assert (sharp["entropy"] < plain["entropy"]).all()


def test_fewer_classes_are_a_smaller_task(suite):
    task = suite.tasks[0]
    data, part = suite.test[task], narrowed(suite, task, 2)
    kept = data.labels < 2
    assert torch.equal(part.test[task].images, data.images[kept]) and part.test[task].labels.max() == 1
    assert torch.equal(part.heads[task], suite.heads[task][:2]) and part.test[task].classes == data.classes[:2]
    assert all(part.test[other] is suite.test[other] for other in suite.tasks[1:])
    with pytest.raises(ValueError, match="choose from 2 to"):
        narrowed(suite, task, len(data.classes) + 1)


def test_what_is_measured_of_each_intervention(frame, suite):
    assert show.scales(frame).index.tolist() == [0.5, 1.0, 3.0]
    sharp = sharpened(suite, 3.0)
    expected = evaluate(sharp, adamerge(sharp, **LEARNING, progress=False))["accuracy"].mean()
    assert show.scales(frame)[3.0] == pytest.approx(expected)
    task, left = show.narrowed(frame)
    assert task == "gamma" and left.index.tolist() == [2, 5]  # it has the most classes
    assert left["test images"].tolist() == [int((suite.test["gamma"].labels < 2).sum()), 30]
    task, others = show.left_out(frame)
    expert = show.by_task(frame)["individual"]
    assert task == expert.idxmin() and others.index.tolist() == [f"{task} merged too", f"{task} left out"]
    assert set(frame.loc[frame["left_out"] == task, "task"]) == {*suite.tasks, "Average"} - {task}
    combined = adamerge(suite, **LEARNING, combine="min_norm", progress=False)
    plain = show.by_task(frame)[BEFORE]
    gain = evaluate(suite, combined).set_index("task")["accuracy"] - plain
    assert show.traded(frame)["min_norm"].to_dict() == pytest.approx(gain.to_dict())


def test_what_is_learned_is_learned_with_every_seed():
    suite = toy.suite(seed=0)
    varied = {"scales": [2.0], "classes": [2], "rules": ["min_norm"]}
    rows = pd.DataFrame(measure(suite, seeds=[3, 5], **LEARNING, **varied))
    models = rows[rows["kind"].isna() & (rows["task"] == "Average")].fillna({"left_out": "", "rule": ""})
    by_model = models.groupby(["method", "scale", "classes", "left_out", "rule"], dropna=False)["seed"]
    found = {(which[0] == AFTER, which[-1], tuple(seeds)) for which, seeds in by_model}
    assert found == {(True, "", (3, 5)), (False, "", (3,)), (True, "min_norm", (3,))}  # rules with the first seed
    assert len(by_model) == 4 + 1 + 4 + 2 + 1  # all methods, sharper, fewer classes, without the weakest, min-norm
    assert set(rows.loc[rows["kind"].notna(), "seed"]) == {3}
    combined = adamerge(suite, **LEARNING, seed=3, combine="min_norm", progress=False)
    own = rows[(rows["rule"] == "min_norm") & (rows["seed"] == 3) & (rows["task"] != "Average")]
    assert own["entropy"].tolist() == pytest.approx(evaluate(suite, combined)["entropy"].tolist())


def second_seed(made):
    """The record with a second seed of what is learned: 4 points and a tenth of a nat more."""
    learned = [row for row in made["rows"] if row.get("method") == AFTER and "accuracy" in row]
    more = [{**row, "seed": 1, "accuracy": row["accuracy"] + 4, "entropy": row["entropy"] + 0.1} for row in learned]
    return {**made, "rows": [*made["rows"], *more], "seeds": [0, 1]}


def test_tables_have_means_over_seeds():
    frame = records.frame(second_seed(traded()))
    once = records.frame(traded())
    for name in (show.ADDED, "min_norm"):
        assert (show.traded(frame)[name] - show.traded(once)[name]).tolist() == pytest.approx([2.0] * 3)
    assert (show.traded(frame)[show.FELL] - show.traded(once)[show.FELL]).tolist() == pytest.approx([-0.05] * 3)
    assert (show.scales(frame) - show.scales(once)).to_dict() == pytest.approx({1.0: 2.0, 2.0: 2.0})
    assert show.left_out_text(frame).to_numpy().tolist() == [["50.0", "51.0", "1.0"], ["56.0", "62.0", "6.0"]]
    task, left = show.narrowed(frame)
    assert task == "b" and left["test images"].tolist() == [20, 100]
    assert left[AFTER].tolist() == [72.0, 53.0] and left[show.WON].tolist() == pytest.approx([100 * 32 / 60, 300 / 45])
    assert values_of(second_seed(traded()))["min_norm_over_ta"] == pytest.approx(4.0)


def test_traits_and_shares_have_means_over_seeds():
    frame = records.frame(second_seed(shares()))
    assert show.by_task(frame)[show.WON].tolist()[:2] == [55.0, -15.0]
    traits = frame["kind"].notna()
    again = pd.concat([frame, frame[traits].assign(seed=1, value=frame["value"] + 2)], ignore_index=True)
    for trait in ("classes", "spearman"):
        assert (show.by_task(again)[trait] - show.by_task(frame)[trait]).tolist() == pytest.approx([1.0] * 4)
    drawn = show.traits(frame).axes[0].lines[0]
    assert drawn.get_ydata()[0] == 55.0


def test_traits_are_those_of_the_images(frame, suite):
    table = show.by_task(frame)
    assert table["classes"].to_dict() == {task: len(data.classes) for task, data in suite.test.items()}
    assert table["spearman"].between(-1, 1).all() and table["spearman"].nunique() == 3


def test_tasks_traded_off_by_hand():
    frame = records.frame(traded())
    assert show.traded(frame)["min_norm"].tolist() == [4.0, 2.0, 0.0]
    text = show.traded_text(frame)
    assert list(text.columns) == [show.FELL, show.ADDED, "min_norm"]
    assert text.loc["c"].tolist() == ["-0.10", "-3.0", "+0.0"]
    assert text.loc["Average"].tolist() == ["0.20", "+2.3", "+2.0"]
    assert text.loc["tasks that lose"].tolist() == ["", "1", "0"]


def test_interventions_by_hand():
    found, frame = values_of(traded()), records.frame(traded())
    assert found["rho_entropy_fell"] == pytest.approx(1.0) and found["fewer_tasks_lose"] == 1
    assert found["min_norm_over_ta"] == pytest.approx(2.0)
    assert found["min_norm_over_lw"] == pytest.approx(2.0 - 7 / 3)
    assert found["scale_change"] == pytest.approx(60 - (50 + 7 / 3))
    assert show.scales(frame).to_dict() == pytest.approx({1.0: 50 + 7 / 3, 2.0: 60.0})
    assert found["gain_left_out"] == pytest.approx(4.0)  # of b and c, 5 and 3
    assert found["gain_left_out_more"] == pytest.approx(4.0 - -1.0)
    assert show.left_out_text(frame).to_numpy().tolist() == [["50.0", "49.0", "-1.0"], ["56.0", "60.0", "4.0"]]
    # Of two classes 30 of 60 points are won back, of all of them 1 of 45.
    assert found["fewer_classes_won"] == pytest.approx(50 - 100 / 45)
    task, text = show.narrowed(frame)[0], show.narrowed_text(frame)
    assert task == "b" and text["test images"].tolist() == ["20", "100"]
    assert text[show.WON].tolist() == ["50.0", "2.2"]


def test_what_images_are_behind_has_an_interval(record):
    numbers = claims.numbers_of(record)
    missing = {name for name, values in numbers.items() if np.isnan(values).any()}
    assert missing == {"rho_telling", "rho_entropy_fell"} | {name for name in missing if np.isnan(numbers[name][0])}
    assert not np.isnan(numbers["scale_change"]).any() and not np.isnan(numbers["fewer_tasks_lose"]).any()


def test_without_interventions_their_claims_are_not_run(suite):
    record = Run("reasons", "toy", {**LEARNING, "test_images": 6}).measure(suite)
    words = {v.claim.id: v.word for v in claims.verdicts_of(record)}
    assert {id for id, word in words.items() if word == NOT_RUN} >= {"heads", "fewer-classes", "min-norm"}
    assert words["without-the-weakest"] != NOT_RUN
    frame = records.frame(record)
    assert show.narrowed(frame)[0] == "" and show.narrowed_text(frame).empty and len(show.scales(frame)) == 1


def test_traits_are_drawn_against_the_share():
    frame = records.frame(shares())
    table = show.by_task(frame).dropna(subset=[show.WON])
    axes = dict(zip(show.TRAITS, show.traits(frame).axes, strict=False))
    for trait, panel in axes.items():
        drawn = [(line.get_xdata()[0], line.get_ydata()[0]) for line in panel.lines if line.get_marker() == "o"]
        assert drawn == list(zip(table[trait], table[show.WON], strict=True))
        assert [text.get_text() for text in panel.texts] == list(table.index)
    assert axes["individual"].get_title(loc="left") == "ρ = -0.50"
    marks = [line for line in axes["classes"].lines if line.get_marker() == "o"]
    assert [to_hex(line.get_color()) for line in marks] == [colour.lower() for colour in task_colours(3)]
    assert [text.get_text() for text in axes["classes"].get_xticklabels()] == ["5", "8"]


def test_chance_counts_orders_as_extreme():
    # Of the 24 orders of four values, one is the order of y and one its reverse; three swaps of neighbours give 0.8.
    y = pd.Series([1.0, 2.0, 3.0, 4.0])
    assert show.chance(pd.Series([10.0, 20.0, 30.0, 40.0]), y) == pytest.approx(2 / 24)
    assert show.chance(pd.Series([20.0, 10.0, 30.0, 40.0]), y) == pytest.approx(8 / 24)


def test_worlds_side_by_side(tmp_path, monkeypatch):
    frame = show.beside({"one": records.frame(shares()), "two": records.frame(shares())})
    assert frame.columns[:3].tolist() == ["one: expert (%)", "one: gain (points)", "one: recovered share (%)"]
    assert frame.loc["Average"].tolist()[:3] == ["75.0", "+10.1", ""]
    assert frame.loc["b"].tolist()[:3] == ["80.0", "-5.0", "-25"]
    assert frame.iloc[-1].tolist() == ["", "", "ρ = -0.50 (n = 3, p = 1.00)"] * 2
    path = tmp_path / "reasons.json"
    records.write(shares(), path)
    monkeypatch.setattr(claims, "record_of", lambda room, profile: path if profile == "mini" else None)
    assert "| b | 80.0 | −5.0 | −25 |" in comparisons.reasons_beside_text("mini")
    with pytest.raises(ValueError, match="tiny"):
        comparisons.reasons_beside_text("mini", "tiny")
