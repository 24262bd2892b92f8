"""Kept outcomes: found where parameters and data agree and nowhere else, and the first losses tell what changed."""

from __future__ import annotations

import dataclasses
import random
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from adamerging_lib import load_suite
from adamerging_lib.learning import imitation
from adamerging_lib.runtime import places
from adamerging_study import claims, traces
from adamerging_study.gain import FACE, GRAINS, OBJECTIVES, STARTS, WEIGHTS
from adamerging_study.gain import measure as gain
from adamerging_study.gain.learn import adapted, loss_of
from adamerging_study.gain.numbers import numbers
from adamerging_study.gain.show import beside
from adamerging_study.rooms import part
from adamerging_study.sample import Sample

ROOT = Path(__file__).resolve().parents[1]
ABOUT = {
    "start": "tsv_m", "grain": "component", "objective": "imitation", "images": 4, "setting": "inductive", "seed": 3,
    "steps": 8, "lr": 0.05, "batch_size": 4,
}  # fmt: skip
KEPT = sorted((ROOT / "results").glob("*/traces/*/*.json"))


@pytest.fixture
def kept(suite, tmp_path, monkeypatch):
    """One outcome on the toy suite, kept in a checkout of the test's own."""
    monkeypatch.setattr(places, "committed", lambda: tmp_path)
    trace = traces.make(gain.learn, suite, ABOUT, gain.digests(suite))
    traces.write(trace, traces.folder(suite.profile, "gain") / "one.json")
    return trace


def test_it_is_found_as_it_was_made(suite, kept):
    found = traces.find(suite.profile, "gain", "one", ABOUT, gain.digests(suite))
    assert found == kept and len(kept.losses) == 8 and kept.rows[-1]["task"] == "Average"


@pytest.mark.parametrize("change", [{"steps": 9}, {"lr": 0.02}, {"seed": 4}, {"objective": "diverse"}], ids=str)
def test_other_parameters_are_another_outcome(suite, kept, change):
    assert traces.find(suite.profile, "gain", "one", {**ABOUT, **change}, gain.digests(suite)) is None


def test_other_data_is_another_outcome(suite, kept):
    task = suite.tasks[0]
    darker = dataclasses.replace(suite.test[task], images=suite.test[task].images // 2)
    other = dataclasses.replace(suite, test={**suite.test, task: darker})
    assert traces.find(suite.profile, "gain", "one", ABOUT, gain.digests(other)) is None


def test_the_first_steps_computed_anew_agree(suite, kept):
    assert traces.apart(kept, gain.learn, suite) <= 1e-6


def test_one_altered_loss_is_seen(suite, kept):
    losses = [list(step) for step in kept.losses]
    losses[2][0] += 2 * traces.TOLERANCE
    assert traces.apart(dataclasses.replace(kept, losses=losses), gain.learn, suite) > traces.TOLERANCE


def test_another_loss_in_the_code_is_seen(suite, kept, monkeypatch):
    """Imitation at temperature 2: what a refactoring would break unseen."""
    other = lambda scores, taught, batches: imitation.imitation_loss(scores / 2, taught, batches)  # noqa: E731
    monkeypatch.setattr("adamerging_study.gain.learn.imitation_loss", other)
    assert traces.apart(kept, gain.learn, suite) > traces.TOLERANCE


def test_a_file_of_another_schema_is_refused(tmp_path):
    path = tmp_path / "odd.json"
    path.write_text('{"schema": 0}')
    with pytest.raises(ValueError, match="odd.json holds no kept outcome of schema 1"):
        traces.read(path)


def test_a_killed_list_goes_on(suite, kept, monkeypatch):
    """What is there is not made again."""
    monkeypatch.setattr(traces, "load_suite", lambda profile: suite)
    monkeypatch.setattr(traces, "cells", lambda profile, experiment: [("one", ABOUT), ("two", {**ABOUT, "seed": 4})])
    made = []
    monkeypatch.setattr(traces, "make", lambda learn, suite, about, data: made.append(about) or kept)
    traces._make("toy", "gain")
    assert [about["seed"] for about in made] == [4]
    assert (traces.folder("toy", "gain") / "two.json").is_file()


# ------------------------------------------------------------------------------------------------ the cells of the grid


@pytest.mark.parametrize("grain", ["tensor", "component", WEIGHTS])
def test_no_steps_leave_the_start(suite, grain):
    """Whatever is learned: before the first step the model is TSV-M's."""
    from adamerging_lib.methods import run_method

    merged, losses = adapted(suite, {**ABOUT, "grain": grain}, 0)
    start = run_method("tsv_m", suite)
    assert losses.shape == (0, len(suite.tasks))
    for key, value in start.state.items():
        assert (merged.state[key] - value).abs().max() <= 1e-5, key


@pytest.mark.parametrize("start", STARTS)
def test_every_start_begins_at_its_method(suite, start):
    """Per tensor, and with imitation, whose loss at the first step is that of the merged model itself."""
    from adamerging_lib.methods import run_method

    merged, _ = adapted(suite, {**ABOUT, "start": start, "grain": "tensor"}, 0)
    expected = run_method(start, suite).state
    assert all((merged.state[key] - value).abs().max() <= 1e-5 for key, value in expected.items())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_goes_down(suite, objective):
    """On a pool of one batch, which every step sees again."""
    about = {**ABOUT, "objective": objective, "grain": WEIGHTS, "lr": 1e-3, "steps": 12}
    _, losses = adapted(suite, about)
    total = losses.sum(1)
    assert total[-1] < total[0]


def test_the_experts_answers_are_what_imitation_sees(suite):
    """Hard imitation's loss is the cross-entropy with the class an expert predicts; brute force on one batch."""
    import torch

    scores, taught = torch.randn(5, 3), torch.randn(5, 4)
    hard = loss_of("hard_imitation")(scores, taught, 1)
    assert torch.allclose(hard, -scores.log_softmax(-1)[range(5), taught[:, :3].argmax(-1)].mean())
    sure = loss_of("sure_imitation")(scores, scores.clone(), 1)
    soft = loss_of("imitation")(scores, scores.clone(), 1)
    assert torch.allclose(sure, soft)  # where both agree everywhere, the filter keeps all


def test_cells_are_named_once_and_meet_in_tsv():
    grid = {"grains": list(GRAINS), "objectives": ["entropy", "imitation"], "images": [2, 8], "tensor_lr": 0.1}
    grid |= {"by_images": ["imitation"], "starts": list(STARTS), "from_starts": ["imitation"], "at_images": 8}
    found = list(gain.cells(**grid, seeds=[0, 1], steps=3, component_lr=0.01, weights_lr=1e-4, batch_size=2))
    names = [name for name, _ in found]
    assert len(set(names)) == len(names) == 2 * (6 + 3 + 4)
    assert {about["lr"] for name, about in found if "weights" in name} == {1e-4}


GRID = {
    "grains": ["tensor", "component"], "objectives": ["imitation"], "images": [4], "by_images": ["imitation"],
    "starts": ["tsv_m"], "from_starts": [], "at_images": 4, "tensor_lr": 0.1, "component_lr": 0.05, "weights_lr": 1e-4,
    "batch_size": 4, "steps": 3, "seeds": [0, 1],
}  # fmt: skip


def test_the_recipe_is_measured_where_images_are_corrupted_and_experts_absent(suite):
    """Beside AdaMerging's choices, each from its own start; numbers are differences of the rows' averages."""
    absent = suite.tasks[0]
    rows = gain.measure(suite, methods=["tsv_m"], corruptions=["contrast"], severity=2, unseen=[[absent]], **GRID)
    frame = pd.DataFrame(rows).assign(needs="nothing", gives="one model")
    asked = {**claims.WHERE, **dict.fromkeys(FACE.factors)}
    found = numbers(Sample(frame, draws=20, where=asked))
    average = frame[frame["task"] == "Average"]

    def mean(method, **which):
        part = average[average["method"] == method]
        for column, value in which.items():
            part = part[part[column] == value]
        return part["accuracy"].mean()

    hard = {"condition": "contrast"}
    assert found["recipe_over_start_contrast"][0] == pytest.approx(
        mean("adapted", grain="component", **hard) - mean("tsv_m", **hard)
    )
    gone = {"unseen": absent, "group": "unseen"}
    assert found["choices_over_start_unseen_1"][0] == pytest.approx(
        mean("adapted", start="task_arithmetic", **gone) - mean("task_arithmetic", **gone)
    )
    only = frame[(frame["unseen"] == absent) & (frame["task"] != "Average")]
    assert set(only[only["group"] == "unseen"]["task"]) == {absent}
    assert set(only[only["group"] == "seen"]["task"]) == set(suite.tasks) - {absent}
    # Clean images, and all experts, have the numbers that they had without the rest.
    bare = pd.DataFrame(gain.measure(suite, methods=["tsv_m"], **GRID)).assign(needs="nothing", gives="one model")
    bare = numbers(Sample(bare, draws=20, where=asked))
    assert found["recipe_over_start_corrupted"][0] == found["recipe_over_start_contrast"][0]
    assert np.isnan(bare["recipe_over_start_corrupted"][0])
    assert found["component_imitation_4"] == pytest.approx(bare["component_imitation_4"])
    assert found["tsv_m_average"] == pytest.approx(bare["tsv_m_average"])


def test_swudi_is_compared_with_the_best_mixture_and_told_how_far_it_lies(suite):
    """The ends of the line are measured, but are no mixtures; the table lists all of them, best first."""
    methods = ["tsv_m", "wudi", "swudi", "swudi_a"]
    rows = gain.measure(
        suite, methods=methods, mixed=[0, 0.3, 0.6], **{**GRID, "images": [], "objectives": [], "starts": []}
    )
    frame = pd.DataFrame(rows).assign(needs="nothing", gives="one model", label=lambda rows: rows["method"])
    found = numbers(Sample(frame, draws=20, where={**claims.WHERE, **dict.fromkeys(FACE.factors)}))
    average = frame[frame["task"] == "Average"]
    share = average[average["method"] == "mixed"].set_index("mixed")["accuracy"]
    best, swudi = share[[0.3, 0.6]].max(), average.set_index("method")["accuracy"]["swudi"]
    assert found["swudi_over_mixed"][0] == pytest.approx(swudi - best) and found["best_mixed"][0] == pytest.approx(best)
    assert found["mixed_0"][0] == pytest.approx(share[0]) and found["mixed_60"][0] == pytest.approx(share[0.6])
    assert found["wudi_distance"][0] == pytest.approx(1, abs=1e-4) and 0 < found["swudi_distance"][0] < 1
    table = beside(frame)
    told = table["accuracy (%)"].str.split(" ").str[0].astype(float)
    assert told.is_monotonic_decreasing and len(table) == len(methods) + 3
    assert told["60 % WUDI, the rest plain sum"] == pytest.approx(share[0.6], abs=0.051)
    assert told["plain sum (Task Arithmetic, λ = 1)"] == pytest.approx(share[0], abs=0.051)


def test_corrupted_images_are_learned_from_and_drawn_anew_for_each_seed(suite):
    names = dict(gain.cells(corruptions=["contrast"], severity=2, **GRID))
    about = names["tsv_m-component-imitation-4-contrast-1"]
    clean = {key: value for key, value in about.items() if key not in ("condition", "severity")}
    (losses, _), (other, _) = gain.learn(suite, about, 1), gain.learn(suite, clean, 1)
    assert np.abs(losses - other).max() > 1e-4


# ------------------------------------------------------------------------------------------------- those that are kept


def _sample(count: int) -> list[Path]:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    own = [path for path in KEPT if path.parents[2].name in ("mini", "mini-text")]
    return random.Random(commit).sample(own, min(count, len(own)))


@pytest.mark.parametrize("path", _sample(4), ids=lambda path: f"{path.parents[2].name}-{path.stem}")
def test_a_sample_of_the_kept_ones_begins_as_kept(path):
    suite, room = load_suite(path.parents[2].name), part(path.parent.name, "measure")
    trace = traces.read(path)
    assert trace.data == room.digests(suite)
    assert traces.apart(trace, room.learn, suite) <= traces.TOLERANCE


@pytest.mark.parametrize(("profile", "experiment"), sorted({(p.parents[2].name, p.parent.name) for p in KEPT}))
def test_every_kept_one_is_wanted(profile, experiment):
    """No file is left over of a grid that was changed."""
    wanted = dict(traces.cells(profile, experiment))
    own = {path.stem: traces.read(path) for path in traces.folder(profile, experiment).glob("*.json")}
    assert own.keys() == wanted.keys()
    assert all(trace.about == wanted[name] for name, trace in own.items())


def test_every_experiment_that_keeps_outcomes_is_made_and_checked():
    assert set(traces.keeping()) == {path.parent.name for path in KEPT}
