"""The measuring loop on the toy suite, and a run from a notebook's parameters to its record."""

import numpy as np
import pytest
import torch

from adamerging_lib import evaluate, merge, records, run_method
from adamerging_lib.runtime import places
from adamerging_study import fits, measuring, outcomes, rooms
from adamerging_study.measuring import COMPARE, Run
from adamerging_study.rooms import Face


def test_measure_gives_a_row_per_task_and_the_unweighted_average(suite):
    rows = measuring.measure(suite, "task_arithmetic", condition="fog", group="seen", seed=3, about={"unseen": "x"})
    assert [row["task"] for row in rows] == [*suite.tasks, "Average"]
    assert {(row["method"], row["condition"], row["group"], row["seed"], row["unseen"]) for row in rows} == {
        ("task_arithmetic", "fog", "seen", 3, "x")
    }
    expected = evaluate(suite, merge("task_arithmetic", suite.task_vectors()))["accuracy"]
    assert [row["accuracy"] for row in rows] == pytest.approx([*expected, expected.mean()])


def test_rows_keep_which_images_were_right_but_not_of_the_average(suite):
    rows = measuring.measure(suite, "task_arithmetic")
    frame = evaluate(suite, merge("task_arithmetic", suite.task_vectors()), outcomes=True)
    for row, right in zip(rows, frame["right"], strict=False):
        np.testing.assert_array_equal(outcomes.unpack(row["right"], row["n"]), right)
    assert "right" not in rows[-1]


def test_the_average_tells_what_the_model_costs(suite):
    rows = {method: measuring.measure(suite, method) for method in ("task_arithmetic", "individual")}
    assert not any({"seconds", "memory", "storage"} & row.keys() for row in rows["individual"][:-1])
    assert all(found[-1]["seconds"] > 0 for found in rows.values())
    floats = sum(t.numel() for t in suite.pretrained.values() if t.is_floating_point())
    assert [found[-1]["storage"] for found in rows.values()] == [0, floats]
    slower = [{**row, "seconds": 1e9, "memory": None} for row in rows["individual"]]
    old, new = (records.new("x", "toy", {}, suite, r, [0], "2026-01-01", 0) for r in (rows["individual"], slower))
    assert records.compare(old, new) == []


def test_learning_reaches_adaptive_methods_only(suite):
    for method in ("weight_averaging", "task_wise_adamerging"):
        rows = measuring.measure(suite, method, learning={"steps": 2, "lr": 0.5}, setting="inductive")
        assert {row["setting"] for row in rows} == {"inductive"} and rows[0]["n"] == 15
    moved = measuring.measure(suite, "task_wise_adamerging", learning={"steps": 2, "lr": 0.5})
    still = measuring.measure(suite, "task_wise_adamerging", learning={"steps": 0})
    assert moved[-1]["entropy"] < still[-1]["entropy"]
    with pytest.raises(ValueError, match="step_size"):
        measuring.measure(suite, "task_wise_adamerging", learning={"step_size": 2})
    with pytest.raises(ValueError, match="weight_averageing"):
        measuring.measure(suite, "weight_averageing")


def test_sweep_marks_every_point(suite):
    rows = measuring.sweep(suite, "task_arithmetic", [0.0, 0.25])
    assert {(row["condition"], row["scaling"]) for row in rows} == {("clean", 0.0), ("clean", 0.25)}
    zero_shot = measuring.measure(suite, "zero_shot")
    assert [row["accuracy"] for row in rows[:4]] == [row["accuracy"] for row in zero_shot]
    with pytest.raises(ValueError, match="0.3, 0.3"):
        measuring.sweep(suite, "task_arithmetic", [0.3, 0.3])


def test_seeds_serve_what_learns_or_draws():
    assert measuring.seeds_of("layer_wise_adamerging", [3, 5]) == measuring.seeds_of("dare", [3, 5]) == [3, 5]
    assert measuring.seeds_of("ties", [3, 5]) == [3]
    with pytest.raises(ValueError, match="tyes"):
        measuring.seeds_of("tyes", [3])


def test_a_step_of_a_fit_is_the_model_that_it_had_then(suite):
    options = {"lr": 0.05, "batch_size": 2, "batches": 1, "progress": False}
    fit = run_method("layer_wise_adamerging", suite, cache=False, steps=60, **options)
    early = run_method("layer_wise_adamerging", suite, cache=False, steps=3, **options)
    kept = fits.model(fits.shorten(fit, suite), suite)
    for known in (fit, kept):
        found = measuring.at_step(suite, known, 3)
        assert all(torch.equal(found.state[name], value) for name, value in early.state.items())
        assert found.hyper["steps"] == 3
    measuring.at_step(suite, fit, 30)
    with pytest.raises(ValueError, match="step 30 .* one up to 25, at every 50th, or at 60, the last"):
        measuring.at_step(suite, kept, 30)


def test_rank_correlation():
    up, line = torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([1.0, 3.0, 2.0, 4.0])
    assert measuring.rank_correlation(up, line) == pytest.approx(0.8)  # 1 − 6·2 / (4·15)
    assert measuring.rank_correlation(up, up.exp()) == pytest.approx(1)  # of ranks
    for constant in ((up, torch.ones(4)), (torch.ones(4), up)):
        assert measuring.rank_correlation(*constant) is None


def values(**parameters):
    """Globals of a notebook whose first cell annotates its parameters; papermill then overrides ``steps``."""
    given = {"profile": "toy", "reference": "ViT-B-32", "steps": 5, "seed": 3, "threads": 1, "device": "cpu"}
    given |= parameters
    return {"__annotations__": dict.fromkeys(given, "str"), **given, "steps": 7, "other": 1}


def test_begin_reads_the_annotated_names():
    run = measuring.begin("performance", values())
    assert (run.experiment, run.profile) == ("performance", "toy")
    assert run.options == {"steps": 7, "seed": 3, "device": "cpu"}  # not what is shown only, threads or profile
    assert run.seeds == [3] and run.loaded == {}


def test_begin_tells_loading_from_measuring(monkeypatch, suite):
    monkeypatch.setattr(rooms, "face", lambda name: Face("why?", shown=("reference",), loads=("profile", "tasks")))
    run = measuring.begin("performance", values(tasks=["a"], seeds=[3, 4]))
    assert run.options == {"steps": 7, "seed": 3, "seeds": [3, 4], "device": "cpu"} and run.loaded == {"tasks": ["a"]}
    record = run.record(suite, [])
    assert record["parameters"] == {"tasks": ["a"], "steps": 7} and record["seeds"] == [3, 4]


def test_begin_refuses_what_is_no_notebook_of_an_experiment():
    with pytest.raises(ValueError, match="'performence'"):
        measuring.begin("performence", values())
    with pytest.raises(ValueError, match="profile"):
        measuring.begin("performance", {"profile": "toy", "steps": 5})


def test_begin_refuses_a_profile_that_the_experiment_is_not_about():
    with pytest.raises(ValueError, match="text runs on mini-text, not on 'mini': take 'performance'"):
        measuring.begin("text", values(profile="mini"))


def test_a_record_tells_what_its_methods_need(suite):
    options = {"methods": ["zero_shot", "ties"], "test_images": 6}
    record = Run("performance", "toy", options).measure(suite)
    assert record["methods"]["ties"]["label"] == "Ties-Merging" and set(record["methods"]) == {"zero_shot", "ties"}
    assert record["parameters"] == options and {row["n"] for row in record["rows"]} == {6, 18}
    assert records.frame(record)["needs"].notna().all()


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A committed record of one run, and a folder for this one's."""
    monkeypatch.setattr(places, "committed", lambda: tmp_path / "committed")
    monkeypatch.setenv("ADAMERGING_RESULTS", str(tmp_path / "fresh"))
    records.write(made(80.0), tmp_path / "committed/toy/performance.json")
    return tmp_path


def made(accuracy, steps=5, seed=0):
    rows = [{"method": "ties", "condition": "clean", "task": "a", "accuracy": accuracy, "n": 10, "seed": seed}]
    return Run("performance", "toy", {"steps": steps, "seed": seed}).record(None, rows)


def finish(record):
    return Run("performance", "toy", record["parameters"]).finish(record)


def test_a_run_never_overwrites_the_committed_record(folders):
    told = finish(made(80.5))
    fresh, committed = (records.read(folders / place / "toy/performance.json") for place in ("fresh", "committed"))
    assert [record["rows"][0]["accuracy"] for record in (fresh, committed)] == [80.5, 80.0]
    assert told[0] == "Record: toy/performance.json, in $ADAMERGING_RESULTS" and str(folders) not in "".join(told)


def test_under_test_a_run_must_agree_with_the_committed_record(folders, monkeypatch):
    monkeypatch.setenv(COMPARE, "1")
    finish(made(80.9))
    with pytest.raises(ValueError, match="81.1"):
        finish(made(81.1))
    for other in ({"steps": 6}, {"seed": 1}):  # another run: nothing to compare with
        finish(made(99.0, **other))
    (folders / "committed/toy/performance.json").unlink()
    finish(made(99.0))


def test_without_the_test_a_run_may_find_something_else(folders, monkeypatch):
    monkeypatch.delenv(COMPARE, raising=False)
    finish(made(99.0))


def test_verdict_lines_hold_no_measured_number():
    lines = [measuring.said(verdict) for verdict in measuring.verdicts_of(made(80.0))]
    assert lines == [measuring.said(verdict) for verdict in measuring.verdicts_of(made(80.3))]
    assert "Layer-wise AdaMerging is above Ties-Merging: not run" in lines
