"""The generalisation experiment: what is hidden and measured, numbers against plain arithmetic, tables, the figure."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import toy
from madeup import named

from adamerging_lib import evaluate, merge, run_method
from adamerging_lib.published import published
from adamerging_study import outcomes
from adamerging_study.generalisation import measure as study
from adamerging_study.generalisation import numbers, show
from adamerging_study.sample import Sample

LEARNING = {"steps": 3, "lr": 0.05, "batch_size": 4, "batches": 1}
FIRST, SECOND = "digits, landcover", "aerial, housenumbers"
UNSEEN = {
    "zero_shot": 40.0,
    "task_arithmetic": 50.0,
    "ties": 52.0,
    "weight_averaging": 49.0,
    "layer_wise_adamerging": 58.0,
    "layer_wise_adamerging_pp": 60.0,
    "iso_c": 55.0,
}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def made_up(**levels) -> pd.DataFrame:
    """Two splits; every method 20 points better on seen tasks than on unseen ones, 4 worse in the second split."""
    rows = []
    for split in (FIRST, SECOND):
        for method, level in {**UNSEEN, **levels}.items():
            level -= 4 * (split == SECOND)
            for group, tasks, mean in (("unseen", split.split(", "), level), ("seen", ["scenes", "signs"], level + 20)):
                for task, accuracy in [*zip(tasks, (mean - 1, mean + 1), strict=True), ("Average", mean)]:
                    about = {"method": method, "condition": "clean", "unseen": split, "group": group, "seed": 0}
                    rows.append({**about, "task": task, "accuracy": accuracy, "n": 100})
    return named(pd.DataFrame(rows))


def found(frame) -> dict[str, float]:
    """The values of all numbers of a made-up frame."""
    sample = Sample(frame, draws=0, where={"condition": "clean", "unseen": None})
    return {name: values[0] for name, values in numbers.numbers(sample).items()}


@pytest.fixture(scope="module")
def frame():
    return made_up()


def test_unseen_tasks_take_no_part_in_merging_and_are_measured_all_the_same():
    suite = toy.suite()
    methods = ["zero_shot", "task_arithmetic", "layer_wise_adamerging"]
    rows = pd.DataFrame(study.measure(suite, splits=[["beta"], ["gamma", "alpha"]], methods=methods, **LEARNING))
    groups = rows[rows["method"] == "zero_shot"].groupby(["unseen", "group"])["task"].agg(list).to_dict()
    assert groups == {
        ("beta", "seen"): ["alpha", "gamma", "Average"],
        ("beta", "unseen"): ["beta", "Average"],
        ("gamma, alpha", "seen"): ["beta", "Average"],
        ("gamma, alpha", "unseen"): ["alpha", "gamma", "Average"],
    }
    expected = evaluate(suite, merge("task_arithmetic", suite.task_vectors().subset(["alpha", "gamma"])))
    own = rows[(rows["method"] == "task_arithmetic") & (rows["unseen"] == "beta")]
    own = own[own["task"] != "Average"].set_index("task")["accuracy"]
    assert own.to_dict() == pytest.approx(expected.set_index("task")["accuracy"].to_dict())


def test_methods_that_learn_run_with_every_seed_in_every_split():
    suite, methods = toy.suite(), ["tsv_m", "layer_wise_adamerging"]
    options = {"splits": [["beta"], ["gamma"]], "methods": methods, **LEARNING}
    rows = pd.DataFrame(study.measure(suite, seeds=[3, 5], **options))
    assert rows.groupby(["unseen", "method"])["seed"].unique().map(list).to_dict() == {
        (split, method): [3, 5] if method == "layer_wise_adamerging" else [3]
        for split in ("beta", "gamma") for method in methods
    }  # fmt: skip
    for seed in (3, 5):
        alone = pd.DataFrame(study.measure(suite, seeds=[seed], **options))
        own = rows[(rows["method"] == "layer_wise_adamerging") & (rows["seed"] == seed)]
        assert own["loss"].tolist() == alone.loc[alone["method"] == "layer_wise_adamerging", "loss"].tolist()


def test_tables_take_means_over_seeds(frame):
    learned = frame["method"] == "layer_wise_adamerging"
    second = frame[learned].assign(seed=1, accuracy=frame["accuracy"] + 3)
    both = pd.concat([frame, second], ignore_index=True)
    assert show.gains(both).loc["layer_wise_adamerging", (FIRST, "unseen")] == 58 + 1.5 - 40
    assert show.unseen_tasks(both).loc["Layer-wise AdaMerging"].tolist()[:2] == ["58.5", "60.5"]
    assert show.unseen_tasks(both).loc["Ties-Merging"].equals(show.unseen_tasks(frame).loc["Ties-Merging"])
    assert found(both)["lw_over_ta_unseen_1"] == 9.5


def test_adaptation_sees_no_image_of_an_unseen_task():
    suite = toy.suite()
    part = study.hide(suite, ["beta"])
    assert part.tasks == ("alpha", "gamma") and list(part.test) == list(suite.test) and part.joint is None
    fit = run_method("layer_wise_adamerging", part, **LEARNING, progress=False)
    assert fit.tasks == ("alpha", "gamma")
    blank = suite.test["beta"].images.clone().zero_()
    changed = toy.suite()
    changed.test["beta"].images.copy_(blank)
    again = run_method("layer_wise_adamerging", study.hide(changed, ["beta"]), **LEARNING, progress=False)
    assert fit.coefficients.values.equal(again.coefficients.values)


def test_splits_without_sense_are_refused():
    suite = toy.suite()
    with pytest.raises(ValueError, match="'delta'"):
        study.hide(suite, ["delta"])
    for unseen in ([], list(suite.tasks)):
        with pytest.raises(ValueError, match=f"{len(unseen)} of 3"):
            study.hide(suite, unseen)


def test_all_splits_are_all_pairs():
    pairs = study.all_splits([str(i) for i in range(8)])
    assert len(pairs) == 28 and len({frozenset(pair) for pair in pairs}) == 28
    assert pairs[0] == ["0", "1"]


def test_no_split_means_all_pairs():
    rows = study.measure(toy.suite(), splits=[], methods=["zero_shot"], test_images=4)
    assert {row["unseen"] for row in rows} == {"alpha, beta", "alpha, gamma", "beta, gamma"}
    assert {row["n"] for row in rows if row["task"] != "Average"} == {4}


def test_published_averages_go_beside_the_split_that_stands_in_for_them(frame):
    theirs, first, second = "published, ViT-B/32", f"without {FIRST}", f"without {SECOND}"
    table = show.by_split(frame, "ViT-B-32")
    assert table.loc["Layer-wise AdaMerging", (first, "unseen")] == "58.0"
    assert table.loc["Layer-wise AdaMerging", (first, f"unseen, {theirs}")] == "70.0"
    assert table.loc["Ties-Merging", (second, f"seen, {theirs}")] == "71.8"
    # The paper prints 51.1 there; its own columns give 48.6 (published slips).
    assert table.loc["Task Arithmetic", (second, f"unseen, {theirs}")] == "48.6"
    assert pd.isna(table.loc["Pretrained", (first, f"unseen, {theirs}")])
    printed = published("generalization-1", arch="ViT-B-32").query("task == 'Average' and group == 'seen'")
    shown = table[first, f"seen, {theirs}"].dropna().astype(float).tolist()
    assert shown == pytest.approx(printed["accuracy"].tolist(), abs=0.06)
    other = frame.assign(unseen=frame["unseen"].replace(FIRST, "digits, signs"))
    assert show.published_averages("digits, signs", "ViT-B-32") is None
    assert (first, f"unseen, {theirs}") not in show.by_split(other, "ViT-B-32")


def test_gains_are_over_the_pretrained_encoder(frame):
    gains = show.gains(frame)
    assert "zero_shot" not in gains.index
    assert gains.loc["ties", (FIRST, "unseen")] == gains.loc["ties", (SECOND, "seen")] == 12
    table = show.over_splits(frame)
    assert table.loc["Ties-Merging"].tolist() == ["+12.0", "+12.0", "2 of 2", "0 of 2"]
    assert table.loc["Layer-wise AdaMerging++", "best on unseen tasks"] == "2 of 2"
    with pytest.raises(ValueError, match="'zero_shot'"):
        show.gains(frame[frame["method"] != "zero_shot"])


def test_unseen_tasks_one_by_one(frame):
    table = show.unseen_tasks(frame)
    first, second = f"without {FIRST}", f"without {SECOND}"
    assert table.columns.tolist() == [
        (first, "digits"), (first, "landcover"), (second, "aerial"), (second, "housenumbers"),
    ]  # fmt: skip
    assert table.loc["Ties-Merging"].tolist() == ["51.0", "53.0", "47.0", "49.0"]


def test_numbers_of_a_split_are_differences_of_its_averages(frame):
    values = found(frame)
    for split in "12":
        for group in ("seen", "unseen"):
            gaps = {name: values[f"{name}_{group}_{split}"] for name in ("lw_over_ta", "lwpp_over_ties")}
            assert gaps == {"lw_over_ta": 8, "lwpp_over_ties": 8}
            # Ties-Merging, at 52, is the better of the two.
            assert values[f"lw_over_both_{group}_{split}"] == 6 and values[f"lwpp_over_both_{group}_{split}"] == 8
    assert found(made_up(task_arithmetic=53.0))["lw_over_both_seen_1"] == 5


def test_a_split_is_known_by_the_papers_names_in_any_order(frame):
    tiny = frame.assign(unseen=frame["unseen"].replace({FIRST: "eurosat, mnist", SECOND: "cifar10, resisc45"}))
    assert found(tiny) == found(frame)
    other = found(frame.assign(unseen=frame["unseen"].replace(FIRST, "digits, signs")))
    assert np.isnan(other["lw_over_ta_unseen_1"]) and other["lw_over_ta_unseen_2"] == 8


def test_numbers_over_all_splits(frame):
    values = found(frame)
    assert values["merged_over_floor"] == 49 - 40  # Weight Averaging
    assert values["learned_over_newer"] == 60 - 55  # Iso-C is the only newer method
    once = (frame["unseen"] == SECOND) & (frame["method"] == "ties")
    assert found(frame.assign(accuracy=frame["accuracy"].mask(once, 30)))["merged_over_floor"] == -6
    assert found(made_up(iso_c=63.0))["learned_over_newer"] == -3
    few = found(frame[frame["method"].isin(["task_arithmetic", "layer_wise_adamerging"])])
    assert few.pop("lw_over_ta_seen_1") == 8
    assert np.isnan(few["merged_over_floor"]) and np.isnan(few["learned_over_newer"])
    assert np.isnan(few["lw_over_both_unseen_2"]) and np.isnan(few["lwpp_over_ties_unseen_1"])


def test_a_better_method_of_two_is_chosen_draw_by_draw():
    """Of two methods that are right on different images the better one is another in every draw."""
    right = np.arange(100) < 60
    rows = [
        {"method": method, "condition": "clean", "unseen": FIRST, "group": "unseen", "seed": 0, "task": "digits",
         "accuracy": 60.0, "n": 100, "right": outcomes.pack(images)}
        for method, images in {
            "task_arithmetic": right, "ties": right[::-1], "layer_wise_adamerging": right,
        }.items()
    ]  # fmt: skip
    values = numbers.numbers(Sample(rows, draws=50, where={"condition": "clean", "unseen": None}))
    assert (values["lw_over_ta_unseen_1"] == 0).all()
    assert (values["lw_over_both_unseen_1"] <= 0).all() and (values["lw_over_both_unseen_1"] < 0).any()


def test_figure_shows_gains_of_both_groups(frame):
    seen, unseen = show.gain_over_floor(frame).axes
    names = [tick.get_text() for tick in seen.get_yticklabels()]
    assert names[-1] == "Layer-wise AdaMerging++" and "Pretrained" not in names and len(names) == 6
    assert [bar.get_width() for bar in unseen.patches] == pytest.approx(sorted(v - 40 for v in UNSEEN.values())[1:])
    marks = [line for line in unseen.lines if line.get_marker() in show.MARKS]
    assert [line.get_label() for line in marks] == [f"without {FIRST}", f"without {SECOND}"]
    np.testing.assert_allclose(marks[0].get_xdata(), sorted(v - 40 for v in UNSEEN.values())[1:])


def test_many_splits_share_one_mark(frame):
    many = pd.concat([frame.assign(unseen=frame["unseen"] + f" {i}") for i in range(3)], ignore_index=True)
    figure = show.gain_over_floor(many)
    assert not figure.legends and len([line for line in figure.axes[1].lines if line.get_marker() == "o"]) == 6
