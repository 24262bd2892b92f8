"""The measuring loop, on the toy suite."""

import pytest

from adamerging_lib import evaluate, merge, records
from adamerging_lib.runtime import places
from adamerging_study import experiments


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
