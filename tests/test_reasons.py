"""When adaptation works: the experiment on the toy suite, its tables by hand."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from adamerging_lib import adamerge, evaluate
from adamerging_study import tables, verdicts
from adamerging_study.experiments.reasons import AFTER, BEFORE, narrowed, reasons, sharpened
from adamerging_study.figures import reasons as figures
from adamerging_study.verdicts.reasons import _rho

LEARNING = {"steps": 2, "lr": 0.05, "batch_size": 4, "batches": 1}


@pytest.fixture(scope="module")
def frame():
    import toy

    return pd.DataFrame(reasons(toy.suite(seed=0), LEARNING, scales=[0.5, 3.0], classes=[2], rules=["min_norm"]))


def row(method, task, accuracy, condition="clean", **more):
    return {"method": method, "task": task, "accuracy": accuracy, "condition": condition, **more}


def test_shares_won_back_by_hand():
    rows = []
    known = {"a": (90.0, 50.0, 70.0), "b": (80.0, 60.0, 55.0), "c": (70.0, 69.5, 75.0), "d": (60.0, 40.0, 60.0)}
    for place, (task, accuracies) in enumerate(known.items()):
        rows += [row(m, task, v) for m, v in zip(("individual", BEFORE, AFTER), accuracies, strict=True)]
        rows += [row("zero_shot", task, 10.0), {"condition": "classes", "task": task, "value": 5 + place}]
        rows.append({"condition": "spearman", "task": task, "value": 0.5})
    table = tables.reasons.by_task(pd.DataFrame(rows))
    assert table[tables.reasons.WON].tolist()[:2] == [50.0, -25.0]
    assert pd.isna(table.loc["c", tables.reasons.WON])  # merging had cost it half a point: nothing to win back
    rho = tables.reasons.correlations(pd.DataFrame(rows))
    assert rho["classes"] == pytest.approx(0.5)  # of 5, 6, 8 classes with 50, −25, 100
    assert rho["individual"] == pytest.approx(-0.5) and pd.isna(rho["spearman"])


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


def test_tables_figures_and_verdicts(frame):
    assert tables.reasons.scales(frame).index.tolist() == [0.5, 1.0, 3.0]
    task, left = tables.reasons.narrowed(frame)
    assert task in set(frame["task"]) and left.index[0] == 2 and len(left) == 2
    assert tables.reasons.told(frame).index[-1] == "ρ with the share won back"
    assert tables.reasons.narrowed_text(frame).shape == (2, 5)
    assert figures.traits(frame).axes
    task, others = tables.reasons.left_out(frame)
    weakest = frame[(frame["method"] == "individual") & (frame["condition"] == "clean")].set_index("task")["accuracy"]
    assert task == weakest.drop("Average").idxmin() and others.shape == (2, 3)
    assert set(frame.loc[frame["left_out"] == task, "task"]) == set(weakest.index) - {task}
    text = tables.reasons.traded_text(frame)
    assert list(text.columns) == [tables.reasons.FELL, tables.reasons.ADDED, "min_norm"]
    assert len(verdicts.reasons(frame)) == 8


def test_tasks_traded_off_by_hand():
    rows = []
    for task, (fell, gain, other) in {"a": (0.5, 9.0, 4.0), "b": (0.2, 1.0, 2.0), "c": (-0.1, -3.0, 0.0)}.items():
        rows += [row("individual", task, 95.0), row("zero_shot", task, 9.0), row(BEFORE, task, 50.0, entropy=1.0)]
        rows += [row(AFTER, task, 50 + gain, entropy=1 - fell)]
        rows += [row(AFTER, task, 50 + other, "combined by min_norm", combine="min_norm", entropy=0.9)]
        rows += [row(AFTER, task, 60.0, "head x2", scale=2.0)]
    frame = pd.DataFrame(rows)
    assert tables.reasons.traded(frame)["min_norm"].tolist() == [4.0, 2.0, 0.0]
    text = tables.reasons.traded_text(frame)
    assert text.loc["c"].tolist() == ["-0.10", "-3.0", "+0.0"] and text.loc["Average"].tolist() == [
        "0.20",
        "+2.3",
        "+2.0",
    ]
    assert text.loc["tasks that lose"].tolist() == ["", "1", "0"]
    assert _rho(tables.reasons.traded(frame)) == pytest.approx(1.0)


def test_without_interventions_their_verdicts_are_not_run(suite):
    rows = pd.DataFrame(reasons(suite, LEARNING, images=6))
    words = [v.word for v in verdicts.reasons(rows)]
    assert words[3:5] == [verdicts.NOT_RUN] * 2 and words[7] == verdicts.NOT_RUN
    assert tables.reasons.narrowed(rows)[0] == "" and len(tables.reasons.scales(rows)) == 1
