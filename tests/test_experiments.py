"""The measuring loop and the diagnostics of experts, on the toy suite."""

import numpy as np
import pandas as pd
import pytest
import torch

from adamerging_lib import TaskVectors, evaluate, merge, records
from adamerging_lib.runtime import places
from adamerging_lib.vectors import geometry as diagnostics
from adamerging_study import experiments, verdicts


def test_measure_gives_a_row_a_task_and_the_unweighted_average(suite):
    rows = experiments.measure(suite, "task_arithmetic", condition="fog", group="seen", seed=3)
    assert [row["task"] for row in rows] == [*suite.tasks, "Average"]
    assert {(row["method"], row["condition"], row["group"], row["seed"]) for row in rows} == {
        ("task_arithmetic", "fog", "seen", 3)
    }
    expected = evaluate(suite, merge("task_arithmetic", suite.task_vectors()))["accuracy"]
    assert [row["accuracy"] for row in rows] == pytest.approx([*expected, expected.mean()])


def test_the_average_tells_what_the_model_costs(suite):
    rows = {method: experiments.measure(suite, method) for method in ("task_arithmetic", "individual")}
    assert not any({"seconds", "memory", "storage"} & row.keys() for row in rows["individual"][:-1])
    assert all(found[-1]["seconds"] > 0 for found in rows.values())
    floats = sum(t.numel() for t in suite.pretrained.values() if t.is_floating_point())
    assert [found[-1]["storage"] for found in rows.values()] == [0, floats]
    slower = [{**row, "seconds": 1e9, "memory": None} for row in rows["individual"]]
    old, new = (records.new("x", "toy", {}, suite, r, [0], "2026-01-01", 0) for r in (rows["individual"], slower))
    assert records.compare(old, new) == []


def test_learning_reaches_adaptive_methods_only(suite):
    for method in ("weight_averaging", "task_wise_adamerging"):
        rows = experiments.measure(suite, method, learning={"steps": 2, "lr": 0.5}, setting="inductive")
        assert {row["setting"] for row in rows} == {"inductive"} and rows[0]["n"] == 15
    moved = experiments.measure(suite, "task_wise_adamerging", learning={"steps": 2, "lr": 0.5})
    still = experiments.measure(suite, "task_wise_adamerging", learning={"steps": 0})
    assert moved[-1]["entropy"] < still[-1]["entropy"]
    with pytest.raises(ValueError, match="step_size"):
        experiments.measure(suite, "task_wise_adamerging", learning={"step_size": 2})
    with pytest.raises(ValueError, match="unknown"):
        experiments.measure(suite, "weight_averageing")


def test_sweep_marks_every_point(suite):
    rows = experiments.sweep(suite, "task_arithmetic", [0.0, 0.25])
    assert {(row["condition"], row["scaling"]) for row in rows} == {("lambda=0.00", 0.0), ("lambda=0.25", 0.25)}
    zero_shot = experiments.measure(suite, "zero_shot")
    assert [row["accuracy"] for row in rows[:4]] == [row["accuracy"] for row in zero_shot]
    with pytest.raises(ValueError, match="repeat"):
        experiments.sweep(suite, "task_arithmetic", [0.3, 0.301])


def test_a_run_compares_itself_with_the_committed_record_and_never_overwrites_it(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(places, "committed", lambda: tmp_path / "committed")
    monkeypatch.setenv("ADAMERGING_RESULTS", str(tmp_path / "fresh"))
    rows = [{"method": "ties", "condition": "clean", "task": "a", "accuracy": 80.0, "n": 10}]

    def finish(accuracy, parameters=None, seeds=(0,), folder="fresh"):
        monkeypatch.setenv("ADAMERGING_RESULTS", str(tmp_path / folder))
        run = experiments.Run("performance", "toy", parameters or {"steps": 5}, seeds=seeds)
        return run.finish(suite, [{**rows[0], "accuracy": accuracy}], tolerance=1.0)

    assert finish(80.0, folder="committed") == ["First record of this run: nothing to compare with."]
    assert finish(80.9) == ["As in the committed record, within the tolerance: holds"]
    verdict, difference = finish(81.1)
    assert verdict == "As in the committed record, within the tolerance: does not hold"
    assert "accuracy was 80, is 81.1" in difference
    for other in ({"parameters": {"steps": 6}}, {"seeds": (1,)}):
        assert finish(80.0, **other) == ["Other parameters than the committed record: not compared."]
    fresh, committed = (records.read(tmp_path / folder / "toy/performance.json") for folder in ("fresh", "committed"))
    assert committed["rows"] == rows and committed["parameters"] == {"steps": 5}
    assert fresh["seeds"] == [1] and fresh["seconds"] >= 0


def flat(tv):
    return torch.cat([v.double().flatten(1) for v in tv.vectors.values()], dim=1)


def test_cosines_agree_with_one_long_vector_a_task(suite):
    tv = suite.task_vectors()
    long = torch.nn.functional.normalize(flat(tv), dim=1)
    frame = diagnostics.cosines(tv)
    np.testing.assert_allclose(frame, long @ long.T, atol=1e-12)
    assert frame.index.tolist() == frame.columns.tolist() == list(tv.tasks)


def test_cosines_of_a_copy_an_opposite_and_nothing(suite):
    base, moved = suite.pretrained, suite.experts["alpha"]
    opposite = {key: 2 * base[key] - moved[key] if base[key].is_floating_point() else base[key] for key in base}
    tv = TaskVectors.from_state_dicts(base, {"a": moved, "same": moved, "against": opposite, "none": base})
    np.testing.assert_allclose(diagnostics.cosines(tv).loc["a"], [1, 1, -1, 0], atol=1e-6)


def test_relative_norms(suite):
    tv = suite.task_vectors()
    base = torch.cat([suite.pretrained[key].double().flatten() for key in tv.vectors])
    np.testing.assert_allclose(diagnostics.relative_norms(tv), flat(tv).norm(dim=1) / base.norm())


@pytest.fixture(scope="module")
def expert_rows(suite):
    return diagnostics.measure_experts(suite, [0.0, 0.3, 1.0])


def test_expert_path_runs_from_zero_shot_to_the_expert(suite, expert_rows):
    path = diagnostics.path_of(pd.DataFrame(expert_rows))
    assert path.index.tolist() == list(suite.tasks) and path.columns.tolist() == [0.0, 0.3, 1.0]
    zero, expert = (experiments.measure(suite, method)[:-1] for method in ("zero_shot", "individual"))
    assert path[0.0].tolist() == [row["accuracy"] for row in zero]
    np.testing.assert_allclose(path[1.0], [row["accuracy"] for row in expert], atol=100 / 30 + 1e-9)


def test_rows_of_experts_are_fit_for_a_record_and_give_the_cosines_back(suite, expert_rows):
    record = records.new("mini_suite", "toy", {}, suite, expert_rows, [0], "2026-01-01T00:00:00", 1.0)
    assert records.compare(record, record) == []
    square = diagnostics.cosines_of(pd.DataFrame(expert_rows))
    pd.testing.assert_frame_equal(square, diagnostics.cosines(suite.task_vectors()), atol=1e-12)


def test_gain_share_and_summary(expert_rows):
    path = pd.DataFrame({0.0: [40.0, 50.0], 0.3: [70.0, 50.0], 1.0: [90.0, 90.0]}, index=["b", "a"])
    assert diagnostics.gain_share(path, 0.3).to_dict() == pytest.approx({"b": 60, "a": 0})
    with pytest.raises(ValueError, match="no α = 0.5"):
        diagnostics.gain_share(path, 0.5)
    rows = pd.DataFrame(expert_rows)
    table = diagnostics.summary(rows)
    assert table.index.tolist() == ["alpha", "beta", "gamma"]
    assert table["expert"].tolist() == [f"{value:.1f}" for value in diagnostics.path_of(rows)[1.0]]
    assert table.loc["alpha", "largest cosine with another"] == "0.03"


def test_expert_verdicts_name_what_fails(expert_rows):
    good = {0.0: 50.0, 0.3: 70.0, 0.5: 85.0, 1.0: 95.0}
    rows = [
        {"method": "expert_path", "condition": f"alpha={a:.2f}", "alpha": a, "task": task, "accuracy": accuracy, "n": 9}
        for a, accuracy in good.items()
        for task in "ab"
    ]
    norm = {"method": "task_vectors", "condition": "relative_norm", "value": 0.1}
    rows += [{**norm, "task": "a"}, {**norm, "task": "b"}]
    rows += [{"method": "task_vectors", "condition": "cosine", "task": "a", "other": "b", "value": 0.05}]
    frame = pd.DataFrame(rows)
    assert {verdict.word for verdict in verdicts.experts(frame)} == {"holds"}
    for column, place, value, start in [
        ("value", rows.index(rows[-1]), -0.3, "Task vectors"),
        ("accuracy", 5, 71.0, "Every expert"),
        ("accuracy", 4, 96.5, "No way"),
    ]:
        broken = frame.copy()
        broken.loc[place, column] = value
        failed = [verdict.check for verdict in verdicts.experts(broken) if verdict.word != "holds"]
        assert len(failed) == 1 and failed[0].startswith(start), failed
