"""Tasks and experts of a world: the way to each expert on the toy suite, numbers, tables and figures by hand."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from adamerging_lib import methods, records
from adamerging_lib.vectors import geometry
from adamerging_lib.worlds.mini.tasks import TASKS
from adamerging_study import claims, measuring, outcomes
from adamerging_study.measuring import Run
from adamerging_study.mini_suite import show

GOOD = {0.0: 50, 0.3: 70, 0.5: 85, 1.0: 95}


@pytest.fixture(scope="module")
def frame(suite):
    return records.frame(Run("mini_suite", "toy", {"alphas": [0.0, 0.3, 1.0]}).measure(suite))


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def made_up(paths=None, cosine=0.05, n=100):
    """Two experts, each with its accuracy at some α."""
    paths = paths or {"b": GOOD, "a": {**GOOD, 0.5: 75}}
    rows = [
        {"method": "expert_path", "condition": "clean", "alpha": alpha, "task": task, "accuracy": float(accuracy),
         "n": n, "right": outcomes.pack(np.arange(n) < accuracy * n / 100)}
        for task, path in paths.items()
        for alpha, accuracy in path.items()
    ]  # fmt: skip
    about = {"method": "task_vectors", "task": "b"}
    rows += [{**about, "kind": "relative_norm", "task": task, "value": 0.1} for task in paths]
    rows.append({**about, "kind": "cosine", "other": "a", "value": cosine})
    return records.new("mini_suite", "toy", {}, None, rows, [], "2026-01-01", 0.0)


def words(record):
    return {verdict.claim.id: verdict.word for verdict in claims.verdicts_of(record)}


def test_expert_path_runs_from_zero_shot_to_the_expert(suite, frame):
    path = show.path_of(frame)
    assert path.index.tolist() == list(suite.tasks) and path.columns.tolist() == [0.0, 0.3, 1.0]
    zero, expert = (measuring.measure(suite, method)[:-1] for method in ("zero_shot", "individual"))
    assert path[0.0].tolist() == [row["accuracy"] for row in zero]
    np.testing.assert_allclose(path[1.0], [row["accuracy"] for row in expert], atol=100 / 30 + 1e-9)


def test_rows_give_cosines_and_norms_back(suite, frame):
    tv = suite.task_vectors()
    pd.testing.assert_frame_equal(show.cosines_of(frame), geometry.cosines(tv), atol=1e-12)
    norms = frame[frame["kind"] == "relative_norm"].set_index("task")["value"]
    assert norms.to_dict() == pytest.approx(geometry.relative_norms(tv).to_dict())


def test_numbers_by_hand():
    numbers = {name: values[0] for name, values in claims.numbers_of(made_up(cosine=-0.3)).items()}
    shares = {"b": 100 * 35 / 45, "a": 100 * 25 / 45}
    assert numbers == pytest.approx({
        "largest_cosine": 0.3, "halfway_mean": sum(shares.values()) / 2, "halfway_least": shares["a"], "least_step": 5,
    })  # fmt: skip


def test_an_expert_without_gain_has_none_of_it():
    record = made_up({"b": GOOD, "a": {0.0: 60, 0.5: 70, 1.0: 60}})
    assert claims.numbers_of(record)["halfway_least"][0] == 0


@pytest.mark.parametrize(
    "change, failing",
    [
        ({}, []),
        ({"cosine": -0.3}, ["right-angles"]),
        ({"paths": {"b": {0.0: 50, 0.5: 94, 1.0: 95}, "a": {0.0: 50, 0.5: 65, 1.0: 99}}}, ["halfway-every"]),
        ({"paths": {"b": GOOD, "a": {0.0: 10, 0.3: 80, 0.5: 50, 1.0: 60}}}, ["no-fall"]),
    ],
)
def test_claims_name_what_fails(change, failing):
    found = words(made_up(**change, n=2000))
    assert [name for name, word in found.items() if word == "does not hold"] == failing
    assert [name for name, word in found.items() if word == "holds"] == [name for name in found if name not in failing]


def test_few_images_leave_claims_on_accuracies_undecided():
    found = words(made_up({"b": GOOD, "a": {**GOOD, 0.5: 72}}, n=100))
    assert found["halfway-every"] == "undecided" and found["right-angles"] == "holds"


def test_without_the_middle_only_steps_are_judged():
    path = {0.0: 50, 1.0: 95}
    found = words(made_up({"a": path, "b": path}))
    assert {name for name, word in found.items() if word == "not run"} == {"halfway", "halfway-every"}
    assert found["no-fall"] == "holds"


def test_gain_share_and_summary(frame):
    path = pd.DataFrame({0.0: [40.0, 50.0], 0.3: [70.0, 50.0], 1.0: [90.0, 90.0]}, index=["b", "a"])
    assert show.gain_share(path, 0.3).to_dict() == pytest.approx({"b": 60, "a": 0})
    with pytest.raises(ValueError, match="0.5"):
        show.gain_share(path, 0.5)
    table = show.summary(frame)
    assert table.index.tolist() == ["alpha", "beta", "gamma"]
    assert table["expert"].tolist() == [f"{value:.1f}" for value in show.path_of(frame)[1.0]]
    line = show.summary(records.frame(made_up())).loc["a"]
    assert line.tolist() == ["50.0", "95.0", "44 %", "0.100", "0.05"]


def test_tasks_name_whose_place_they_take(suite):
    table = show.tasks(suite)
    assert table.loc["beta"].tolist() == ["beta", "4", "25.0 %", "30"]


def test_prompts_are_those_of_the_tasks():
    table = show.prompts({"digits": TASKS["digits"]})
    assert table.loc["digits", "prompts"].split(" · ") == list(TASKS["digits"].templates)
    assert table.loc["digits", "class names"].split(", ") == list(TASKS["digits"].classes)


def test_manifest_tables():
    accuracies = {"zero_shot": {"a": 40.0, "b": 50.04}, "individual": {"a": 95.0, "b": 96.0}}
    stages = {"encoder": {"width": 128}, "pre-training": {"steps": 100, "lr": 5e-4}, "joint": {"steps": 20, "lr": 1e-5}}
    manifest = {"recipe": stages, "accuracies": accuracies}
    frame = show.recipe(manifest)
    assert frame.index.tolist() == ["width", "steps", "lr"] and frame.columns.tolist() == list(stages)
    assert frame.loc["lr", "pre-training"] == "0.0005" and pd.isna(frame.loc["lr", "encoder"])
    frame = show.zoo_accuracies(manifest, methods()["label"])
    assert frame.loc["Pretrained"].to_dict() == {"a": "40.0", "b": "50.0", "Average": "45.0"}
    assert frame.loc["Individual", "Average"] == "95.5"


def test_cosine_map_leaves_the_diagonal_out():
    axes = show.cosines(records.frame(made_up(cosine=0.04))).axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.04", "0.04"]


def test_expert_paths_have_a_panel_per_task():
    axes = show.expert_paths(records.frame(made_up({"b": GOOD, "a": {0.0: 10, 1.0: 90}, "c": GOOD}))).axes
    assert [panel.get_title(loc="left") for panel in axes if panel.get_visible()] == ["b", "a", "c"]
    assert [panel.get_visible() for panel in axes] == [True, True, True, False]
    np.testing.assert_allclose(axes[0].lines[-1].get_xydata(), list(GOOD.items()))


def test_contact_sheet_shows_the_images_unscaled():
    rng = np.random.default_rng(0)
    images = {task: rng.integers(0, 256, (5, 3, 8, 8), dtype=np.uint8) for task in ("a", "b")}
    figure = show.contact_sheet(images)
    strip = figure.axes[1].images[0].get_array()
    np.testing.assert_array_equal(strip[:, 10:18], images["b"][1].transpose(1, 2, 0))
    assert [axes.get_ylabel() for axes in figure.axes] == ["a", "b"]
