"""The robustness experiment: what its rows hold, tables and numbers against plain arithmetic, show."""

import matplotlib

matplotlib.use("Agg")

import dataclasses
from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import toy
from madeup import named

from adamerging_lib import adamerge, evaluate, run_method
from adamerging_lib.evaluation import predictions
from adamerging_lib.published import published
from adamerging_lib.worlds.corruptions import CORRUPTIONS, corrupt
from adamerging_study.claims import WHERE
from adamerging_study.robustness import FACE, numbers, show
from adamerging_study.robustness import measure as study
from adamerging_study.sample import Sample

LEARNING = {"steps": 4, "lr": 0.05, "batch_size": 4, "batches": 1}
METHODS = ["task_arithmetic", "ties", "layer_wise_adamerging", "layer_wise_adamerging_pp"]
TASKS = ["vehicles", "landcover", "aerial", "signs"]
OBJECTIVES = {"Entropy alone": {}, "Diverse predictions": {"diversity": 1.0}}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def one(method, condition, severity, adapted_on, accuracies, **more):
    about = {"method": method, "condition": condition, "severity": severity, "adapted_on": adapted_on, "seed": 0}
    mean = float(np.mean(accuracies))
    pairs = [*zip(TASKS, accuracies, strict=True), ("Average", mean)]
    return [about | {"group": "all", "task": task, "accuracy": float(a), "n": 100} | more for task, a in pairs]


def made_up(gain=8.0, noise_loss=12.0, cure=20.0) -> pd.DataFrame:
    """Task Arithmetic at 60 (clean) and 50; AdaMerging ``gain`` above, but under noise below it on landcover."""
    rows = one("task_arithmetic", "clean", 0, "nothing", [60] * 4)
    rows += one("layer_wise_adamerging", "clean", 0, "clean", [60 + gain] * 4)
    for condition in CORRUPTIONS:
        noisy = condition in ("impulse_noise", "gaussian_noise", "spatter")
        rows += one("task_arithmetic", condition, 3, "nothing", [50] * 4)
        rows += one("layer_wise_adamerging", condition, 3, "clean", [50 + gain - 2] * 4)
        learned = [50 + gain] * 4
        if noisy:
            learned[1] = 50 - noise_loss
        rows += one("layer_wise_adamerging", condition, 3, "corrupted", learned)
        for level in (1, 5):
            rows += one("task_arithmetic", condition, level, "nothing", [60 - 4 * level] * 4)
            rows += one("layer_wise_adamerging", condition, level, "clean", [66 - 4 * level] * 4)
    for objective, end in {"Entropy alone": -noise_loss, "Diverse predictions": cure - noise_loss}.items():
        for step in (0, 5, 10):
            accuracies, share = [50, 50 + end * step / 10, 50, 50], 30 - end * step / 10
            more = {"objective": objective, "step": step, "entropy": 0.6 - 0.03 * step, "share": share}
            rows += one("layer_wise_adamerging", "impulse_noise", 3, "corrupted", accuracies, **more)
    return named(pd.DataFrame(rows))


def found(frame) -> dict[str, float]:
    """The values of all numbers of a made-up frame."""
    sample = Sample(frame, draws=0, where={**WHERE, **dict.fromkeys(FACE.factors)})
    return {name: values[0] for name, values in numbers.numbers(sample).items()}


@pytest.fixture(scope="module")
def frame():
    return made_up()


@pytest.fixture(scope="module")
def measured():
    suite = toy.suite().some_images(20)
    rows = study.robustness(
        suite, METHODS, ["contrast", "impulse_noise"], LEARNING, severity=3, severities=[1], swept=METHODS[:1]
    )
    return suite, pd.DataFrame(rows)


def test_every_method_is_measured_clean_and_under_every_corruption(measured):
    suite, rows = measured
    assert set(rows["task"]) == {*suite.tasks, "Average"}
    count = rows[rows["task"] == "Average"].groupby(["condition", "severity", "adapted_on"]).size().to_dict()
    assert count == {
        ("clean", 0, "nothing"): 2, ("clean", 0, "clean"): 2,
        ("contrast", 1, "nothing"): 1, ("impulse_noise", 1, "nothing"): 1,
        ("contrast", 3, "nothing"): 2, ("contrast", 3, "clean"): 2, ("contrast", 3, "corrupted"): 2,
        ("impulse_noise", 3, "nothing"): 2, ("impulse_noise", 3, "clean"): 2, ("impulse_noise", 3, "corrupted"): 2,
    }  # fmt: skip
    assert (rows.loc[rows["task"] != "Average", "n"] == 20).all()


def test_other_severities_and_steps_between_the_ends_have_the_first_seed_only():
    suite, methods = toy.suite().some_images(10), ["ties", "layer_wise_adamerging"]
    rows = pd.DataFrame(study.measure(
        suite, methods=methods, corruptions=["contrast", "impulse_noise"], severity=3, severities=[1, 3],
        swept=methods, objectives=OBJECTIVES, every=2, seeds=[4, 6], **LEARNING,
    ))  # fmt: skip
    plain, watched = rows[rows["step"].isna()], rows[rows["step"].notna()]
    both, first = [4, 6], [4]
    by_level = plain.groupby(["method", "condition", "severity"])["seed"].unique().map(list).to_dict()
    expected = {("ties", "clean", 0): first, ("layer_wise_adamerging", "clean", 0): both}  # nothing in Ties draws
    for name in ("contrast", "impulse_noise"):
        expected |= {(method, name, level): both if level == 3 else first for method in methods for level in (1, 3)}
    assert by_level == expected
    assert watched.groupby(["objective", "step"])["seed"].unique().map(list).to_dict() == {
        ("Entropy alone", 0): both, ("Entropy alone", 2): first, ("Entropy alone", 4): both,
        ("Diverse predictions", 0): both, ("Diverse predictions", 2): first, ("Diverse predictions", 4): both,
    }  # fmt: skip
    # Each seed draws corruptions of its own, and learns on them.
    shifted = corrupt(suite, "impulse_noise", 3, 6)
    fixed = evaluate(shifted, run_method("ties", suite)).set_index("task")["entropy"]
    adapted = evaluate(shifted, adamerge(shifted, **LEARNING, seed=6, progress=False)).set_index("task")["entropy"]
    noisy = plain[(plain["condition"] == "impulse_noise") & (plain["severity"] == 3) & (plain["seed"] == 6)]
    for on, expected in (("nothing", fixed), ("corrupted", adapted)):
        own = noisy[noisy["adapted_on"] == on].set_index("task")["entropy"].drop("Average")
        assert own.to_dict() == pytest.approx(expected.to_dict())
    end = watched[(watched["seed"] == 6) & (watched["objective"] == "Entropy alone") & (watched["step"] == 4)]
    assert end.set_index("task")["entropy"].drop("Average").to_dict() == pytest.approx(adapted.to_dict(), abs=1e-5)


def test_learned_on_the_corrupted_images_themselves_or_on_clean_ones(measured):
    suite, rows = measured
    shifted = corrupt(suite, "impulse_noise", 3)
    for adapted_on, source in (("clean", suite), ("corrupted", shifted)):
        fit = adamerge(source, **LEARNING, progress=False)
        expected = evaluate(shifted, fit).set_index("task")["accuracy"]
        own = rows.query("condition == 'impulse_noise' and method == 'layer_wise_adamerging'")
        own = own[own["adapted_on"] == adapted_on].set_index("task")["accuracy"]
        assert own.drop("Average").to_dict() == pytest.approx(expected.to_dict())


def test_swept_methods_must_be_methods():
    with pytest.raises(ValueError, match=r"\['ties'\]"):
        study.robustness(toy.suite(), ["task_arithmetic"], [], LEARNING, severity=3, swept=["ties"])


def test_a_draw_of_images_is_the_same_under_every_corruption():
    suite = toy.suite()
    few = suite.some_images(7, seed=1)
    shifted = corrupt(suite, "contrast", 1).some_images(7, seed=1)
    for task in suite.tasks:
        assert len(few.test[task]) == 7 and few.test[task].labels.equal(shifted.test[task].labels)
        whole = {image.numpy().tobytes() for image in suite.test[task].images}
        assert {image.numpy().tobytes() for image in few.test[task].images} <= whole
    assert not few.test["alpha"].images.equal(suite.some_images(7, seed=2).test["alpha"].images)
    assert suite.some_images(None) is suite and len(suite.some_images(1000).test["alpha"]) == 30
    with pytest.raises(ValueError, match="0 test images per task"):
        suite.some_images(0)


def test_failure_looks_at_the_fit_as_it_was_after_each_step():
    suite = toy.suite()
    rows = pd.DataFrame(study.failure(suite, "impulse_noise", OBJECTIVES, LEARNING, severity=5, every=3))
    assert rows["step"].unique().tolist() == [0, 3, 4] and rows["objective"].unique().tolist() == list(OBJECTIVES)
    shifted = corrupt(suite, "impulse_noise", 5)
    for steps, own in rows[rows["objective"] == "Entropy alone"].groupby("step"):
        fit = adamerge(shifted, **LEARNING | {"steps": steps}, progress=False)
        again = evaluate(shifted, fit).set_index("task")
        own = own.set_index("task")
        for column in ("accuracy", "entropy"):
            assert own[column].drop("Average").to_dict() == pytest.approx(again[column].to_dict(), abs=1e-5)
    cured = adamerge(shifted, **LEARNING, objective={"diversity": 1.0}, progress=False)
    last = rows[(rows["objective"] == "Diverse predictions") & (rows["step"] == 4)].set_index("task")["accuracy"]
    assert last.drop("Average").to_dict() == pytest.approx(
        evaluate(shifted, cured).set_index("task")["accuracy"].to_dict()
    )


def test_share_is_that_of_the_class_predicted_most_often():
    suite = toy.suite()
    model = run_method("task_arithmetic", suite)
    open_ = study.watch(suite, model).set_index("task")
    for task, scores, _ in predictions(suite, model):
        counts = Counter(scores.argmax(-1).tolist())
        assert open_.loc[task, "share"] == pytest.approx(100 * max(counts.values()) / 30)
    biases = {task: 1000.0 * (torch.arange(len(head)) == 2) for task, head in suite.heads.items()}
    collapsed = study.watch(suite, dataclasses.replace(model, biases=biases)).set_index("task")
    for task, data in suite.test.items():
        assert collapsed.loc[task, "share"] == 100 and collapsed.loc[task, "entropy"] < 1e-6
        assert collapsed.loc[task, "accuracy"] == pytest.approx(100 * (data.labels == 2).double().mean().item())


def test_averages_of_both_settings(frame):
    paper, clean = show.averages(frame), show.averages(frame, "clean")
    assert paper.index.tolist() == clean.index.tolist() == ["clean", *CORRUPTIONS]
    assert paper.columns.tolist() == ["task_arithmetic", "layer_wise_adamerging"]
    assert paper.loc["contrast"].tolist() == [50, 58] and clean.loc["contrast"].tolist() == [50, 56]
    assert paper.loc["spatter", "layer_wise_adamerging"] == pytest.approx((58 * 3 + 38) / 4)
    assert paper.loc["clean"].equals(clean.loc["clean"])
    second = frame.assign(seed=1, accuracy=frame["accuracy"] + 2)
    both = show.averages(pd.concat([frame, second], ignore_index=True))
    assert both.loc["clean", "task_arithmetic"] == pytest.approx(61)


def test_the_comparison_is_at_the_severity_where_most_was_measured(frame):
    assert numbers.severity(frame[frame["step"].isna()]) == 3
    fixed = frame[frame["method"] == "task_arithmetic"]
    more = fixed[fixed["severity"] == 3].assign(method="ties")
    assert numbers.severity(pd.concat([fixed, more])) == 3 and numbers.severity(fixed) == 5
    assert numbers.severity(fixed[fixed["condition"] == "clean"]) == 0


def test_table_by_corruption_has_the_published_numbers_beside(frame):
    table = show.by_corruption(frame, "ViT-B-32")
    assert table.index.tolist()[:2] == ["clean", "motion blur"] and table.index[-1] == "JPEG compression"
    assert table.loc["contrast", ("measured", "gain")] == "+8.0"
    theirs = "published, ViT-B/32"
    printed = published("robustness", arch="ViT-B-32").query("task == 'Average'")
    shown = table[theirs, "Layer-wise AdaMerging"].astype(float).tolist()
    assert shown == printed.loc[printed["method_id"] == "layer_wise_adamerging", "accuracy"].tolist()
    assert table.loc["impulse noise", (theirs, "gain")] == "+6.7"
    assert show.by_corruption(frame, "ViT-B-16").columns.get_level_values(0)[-1] == "published, ViT-B/16"
    fixed = show.by_corruption(frame[frame["method"] == "task_arithmetic"], "ViT-B-32")
    assert fixed.columns.tolist() == [("measured", "Task Arithmetic"), (theirs, "Task Arithmetic")]


def test_tables_by_task_hold_the_papers_setting(frame):
    table = show.by_task(frame)
    assert table.columns.tolist() == [*TASKS, "Average"] and len(table) == 16
    assert table.loc[("impulse noise", "Layer-wise AdaMerging"), "landcover"] == "38.0"
    printed = show.published_by_task("ViT-B-32")
    assert printed.shape == (16, 5)
    assert printed.loc[("spatter", "AdaMerging")].tolist() == "69.9 43.6 75.4 89.4 69.6".split()
    assert printed.loc[("pixelate", "Task Arithmetic")].tolist()[:2] == ["2.78", "41.5"]


def test_settings_are_compared_corruption_by_corruption(frame):
    table = show.settings(frame)
    assert table.loc["contrast"].tolist() == ["56.0", "58.0", "+2.0"]
    assert table.loc["spatter", "difference"] == "-3.0"
    assert table.loc["mean", "difference"] == f"{(4 * 2 - 3 * 3) / 7:+.1f}"


def test_cures_are_told_on_the_task_that_fails(frame):
    assert show.failing_task(frame) == "landcover"
    table = show.cures(frame)
    assert table.index.tolist() == ["start", "Entropy alone", "Diverse predictions"]
    assert table["accuracy", "landcover"].tolist() == ["50.0", "38.0", "58.0"]
    assert table["accuracy", "Average"].tolist() == ["50.0", "47.0", "52.0"]
    assert table["landcover", "entropy (nats)"].tolist() == ["0.60", "0.30", "0.30"]
    assert table["landcover", "most predicted class"].tolist() == ["30 %", "42 %", "22 %"]


def test_numbers_are_differences_of_averages_at_the_severity_of_the_comparison(frame):
    values = found(frame)
    assert values["gain_clean"] == values["gain_contrast"] == values["gain_motion_blur"] == 8
    noisy = (3 * 8 - 12) / 4  # 12 below on one task of four
    assert [values[f"gain_{name}"] for name in ("impulse_noise", "gaussian_noise", "spatter")] == [noisy] * 3
    assert values["gain_average"] == pytest.approx((4 * 8 + 3 * noisy) / 7)
    assert values["clean_over_ta"] == 6
    assert values["corrupted_over_clean"] == pytest.approx(values["gain_average"] - 6)


def test_gains_of_a_role_are_those_of_its_task_in_any_world(frame):
    values = found(frame)
    assert values["eurosat_gain_spatter"] == -12 and values["eurosat_gain_contrast"] == 8
    assert values["resisc45_gain_spatter"] == 8
    tiny = frame.assign(task=frame["task"].replace({"landcover": "eurosat", "aerial": "resisc45"}))
    assert found(tiny) == pytest.approx(values, nan_ok=True)
    assert np.isnan(found(frame[frame["task"] != "landcover"])["eurosat_gain_spatter"])


def test_numbers_of_the_failure_are_of_the_task_that_loses_most(frame):
    values = found(frame)
    assert values["worst_task_change"] == -12
    assert values["entropy_change"] == pytest.approx(-0.3) and values["share_change"] == 12
    assert values["diverse_over_plain_there"] == 20 and values["diverse_over_plain"] == 5
    assert values["gain_diverse"] == 2  # at the end 58 on one task of four, Task Arithmetic at 50
    assert np.isnan(values["pull_over_plain"]) and np.isnan(values["reliable_over_plain_there"])
    assert found(made_up(cure=-9))["diverse_over_plain_there"] == -9
    risen = found(made_up(noise_loss=-5))
    assert risen["worst_task_change"] == 0  # of the tasks that did not move
    elsewhere = frame["condition"].where(frame["step"].isna(), "contrast")  # claims are about impulse noise
    assert np.isnan(found(frame.assign(condition=elsewhere))["worst_task_change"])


def test_the_task_that_fails_is_the_same_in_tables_and_numbers():
    rows = made_up()
    signs = (rows["task"] == "signs") & (rows["objective"] == "Entropy alone") & (rows["step"] == 10)
    rows.loc[signs, ["accuracy", "entropy"]] = [30, 0.1]
    assert show.failing_task(rows) == "signs"
    values = found(rows)
    assert values["worst_task_change"] == -20 and values["entropy_change"] == pytest.approx(0.1 - 0.6)


def test_numbers_that_were_not_run_are_missing(frame):
    few = found(frame[frame["condition"].isin(["clean", "contrast"])])
    assert few["gain_clean"] == few["gain_contrast"] == 8 and few["clean_over_ta"] == 6
    missing = {name for name, value in few.items() if np.isnan(value)}
    assert {"gain_average", "gain_spatter", "worst_task_change", "entropy_change", "gain_diverse"} <= missing
    clean = found(frame[frame["condition"] == "clean"].drop(columns=["step", "objective", "share"]))
    assert {name for name, value in clean.items() if not np.isnan(value)} == {"gain_clean"}
    fixed = found(frame[frame["method"] == "task_arithmetic"])
    assert all(np.isnan(value) for value in fixed.values())


def test_examples_show_the_pictures_unscaled():
    rng = np.random.default_rng(0)
    images = {c: {t: rng.integers(0, 256, (3, 8, 8), dtype=np.uint8) for t in "ab"} for c in ("clean", "motion_blur")}
    figure = show.examples(images)
    np.testing.assert_array_equal(figure.axes[3].images[0].get_array(), images["motion_blur"]["b"].transpose(1, 2, 0))
    assert [axes.get_ylabel() for axes in figure.axes] == ["clean", "", "motion blur", ""]
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "", ""]


def test_severity_figure_has_a_panel_a_corruption_from_clean_to_worst(frame):
    figure = show.over_severity(frame, ["task_arithmetic", "layer_wise_adamerging"])
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == show.names(CORRUPTIONS)
    fixed, learned = shown[0].lines
    assert fixed.get_xdata().tolist() == [0, 1, 3, 5] and fixed.get_ydata().tolist() == [60, 56, 50, 40]
    assert learned.get_ydata().tolist() == [68, 62, 56, 46]
    alone = show.over_severity(frame[frame["condition"].isin(["clean", "contrast"])], ["task_arithmetic"])
    assert [axes.get_title(loc="left") for axes in alone.axes if axes.get_visible()] == ["contrast"]


@pytest.fixture(scope="module")
def two_seeds(frame):
    """A second seed 2 points above and 0.2 nats below, at the severity of the comparison and at the ends of the fit."""
    measured = frame["severity"].isin([0, 3]) & (frame["step"].isna() | frame["step"].isin([0, 10]))
    second = frame[measured].assign(seed=1, accuracy=frame["accuracy"] + 2, entropy=frame["entropy"] - 0.2)
    return pd.concat([frame, second], ignore_index=True)


def test_severity_figure_has_means_over_seeds_where_there_are_several(two_seeds):
    fixed, learned = show.over_severity(two_seeds, ["task_arithmetic", "layer_wise_adamerging"]).axes[0].lines
    assert fixed.get_xdata().tolist() == [0, 1, 3, 5] and fixed.get_ydata().tolist() == [61, 56, 51, 40]
    assert learned.get_ydata().tolist() == [69, 62, 57, 46]


def test_failure_figure_has_means_over_seeds_at_both_ends(two_seeds):
    entropy, accuracy, _ = show.failure(two_seeds, "landcover").axes
    assert accuracy.lines[0].get_xdata().tolist() == [0, 5, 10]
    assert [line.get_ydata().tolist() for line in accuracy.lines] == [[51, 44, 39], [51, 54, 59]]
    np.testing.assert_allclose(entropy.lines[0].get_ydata(), [0.5, 0.45, 0.2])


def test_tables_of_corruptions_have_means_over_seeds(two_seeds, frame):
    assert show.cures(two_seeds)["accuracy", "landcover"].tolist() == ["51.0", "39.0", "59.0"]
    assert show.cures(two_seeds)["landcover", "entropy (nats)"].tolist() == ["0.50", "0.20", "0.20"]
    assert show.settings(two_seeds).loc["contrast"].tolist() == ["57.0", "59.0", "+2.0"]
    assert show.by_task(two_seeds).loc[("impulse noise", "Layer-wise AdaMerging"), "landcover"] == "39.0"
    assert numbers.severity(two_seeds[two_seeds["step"].isna()]) == 3
    assert found(two_seeds) == pytest.approx(found(frame), nan_ok=True)  # all of them are differences


def test_failure_figure_draws_the_steps(frame):
    entropy, accuracy, share = show.failure(frame, "landcover").axes
    assert accuracy.get_title(loc="left") == "landcover: accuracy (%)"
    assert [line.get_ydata().tolist() for line in accuracy.lines] == [[50, 44, 38], [50, 54, 58]]
    np.testing.assert_allclose(entropy.lines[0].get_ydata(), [0.6, 0.45, 0.3])
    assert share.lines[1].get_ydata().tolist() == [30, 26, 22]
    assert [line.get_label() for line in entropy.lines] == list(OBJECTIVES)
