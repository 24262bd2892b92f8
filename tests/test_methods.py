"""The registry, the simple methods against their formulas, and the one calling convention."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_close, assert_equal, some_checkpoints

import adamerging_lib as am
from adamerging_lib.learning.objective import Objective
from adamerging_lib.methods import registry
from adamerging_lib.methods.run import pack, unpack
from adamerging_lib.published.competitions import BOUNDS, NEEDS, competitions

PERFORMANCE = (
    "zero_shot", "individual", "traditional_mtl", "weight_averaging", "task_arithmetic", "ties",
    "task_wise_adamerging", "task_wise_adamerging_pp", "layer_wise_adamerging", "layer_wise_adamerging_pp",
)  # fmt: skip
SHORT = {"recipe": "mini", "steps": 2, "batch_size": 4, "progress": False}


@given(some_checkpoints((torch.float64,)))
def test_weight_averaging_is_the_mean_of_all_experts(pair):
    pretrained, experts = pair
    tv = am.TaskVectors.from_state_dicts(pretrained, experts)
    mean = {key: torch.stack([e[key] for e in experts.values()]).mean(0) for key in tv.vectors}
    assert_close(am.merge("weight_averaging", tv).state_dict(), {**pretrained, **mean})


@given(some_checkpoints((torch.float64,)), st.floats(-1, 2))
def test_task_arithmetic_is_its_formula(pair, scaling):
    pretrained, experts = pair
    tv = am.TaskVectors.from_state_dicts(pretrained, experts)
    expected = {
        key: pretrained[key] + scaling * sum(e[key] - pretrained[key] for e in experts.values()) for key in tv.vectors
    }
    assert_close(am.merge("task_arithmetic", tv, scaling=scaling).state_dict(), {**pretrained, **expected})


@given(some_checkpoints((torch.float64,)))
def test_weight_averaging_is_task_arithmetic_at_one_over_k(pair):
    tv = am.TaskVectors.from_state_dicts(*pair)
    averaged = am.merge("weight_averaging", tv).state_dict()
    assert_close(averaged, am.merge("task_arithmetic", tv, scaling=1 / len(tv.tasks)).state_dict())


@given(some_checkpoints((torch.float32, torch.float16)))
def test_zero_shot_is_the_pretrained_model(pair):
    tv = am.TaskVectors.from_state_dicts(*pair)
    merged = am.merge("zero_shot", tv).state_dict()
    assert_equal(merged, pair[0])
    assert all(merged[key].data_ptr() != t.data_ptr() for key, t in pair[0].items())


def test_reference_points_are_the_suite_own_checkpoints(suite):
    individual = am.run_method("individual", suite)
    for task in suite.tasks:
        assert_equal(individual.state_dict(task), dict(suite.experts[task]))
    assert_equal(am.run_method("traditional_mtl", suite).state_dict(), dict(suite.joint))


def test_task_specific_weights_need_a_known_task(suite):
    individual = am.run_method("individual", suite)
    with pytest.raises(ValueError, match="needs a task; one of alpha, beta, gamma"):
        individual.state_dict()
    with pytest.raises(ValueError, match="has no weights for task 'delta'"):
        individual.state_dict("delta")
    shared = am.run_method("task_arithmetic", suite)
    assert_equal(shared.state_dict("delta"), shared.state_dict())


def test_profile_without_joint_training(suite):
    with pytest.raises(ValueError, match="profile 'toy' has no joint-training model"):
        am.run_method("traditional_mtl", dataclasses.replace(suite, joint=None))


def test_table_of_methods():
    table = am.methods()
    assert set(PERFORMANCE) <= set(table.index) and table.index.name == "id"
    assert list(table.columns) == ["label", "needs", "task_specific", "task_id", "static", "source"]
    assert (table != "").all().all() and table["label"].is_unique and set(table["needs"]) <= set(NEEDS)
    assert table.loc["layer_wise_adamerging_pp", "label"] == "Layer-wise AdaMerging++"
    assert table.loc["individual", "task_specific"] != "nothing"


def test_methods_are_listed_by_competition_and_within_one_by_name():
    """A new method needs no place in a list: its row says where it belongs."""
    found = [registry.find(id) for id in am.methods().index]
    assert tuple(method.id for method in found[: len(BOUNDS)]) == BOUNDS
    places = [competitions().index(method.competition) for method in found]
    assert places == sorted(places)
    for competition in competitions()[1:]:
        labels = [method.label.casefold() for method in found if method.competition == competition]
        assert labels == sorted(labels)
    assert registry.find("surgery").competition == "from unlabelled test images, parts for each task"
    assert registry.find("ties").competition == "from checkpoints alone, one model for all tasks"


def test_unknown_method_suggests_the_nearest(task_vectors, suite):
    with pytest.raises(ValueError, match="'task_arithmetics' is unknown: did you mean 'task_arithmetic'"):
        am.merge("task_arithmetics", task_vectors)
    with pytest.raises(ValueError, match="'zzz' is unknown: Known methods: .*ties"):
        am.run_method("zzz", suite)


def test_unknown_hyper_parameter_lists_the_known(task_vectors, suite):
    with pytest.raises(ValueError, match="no hyper-parameter 'scale'; known: keep, reduction, scaling"):
        am.merge("ties", task_vectors, scale=0.3)
    with pytest.raises(ValueError, match="zero_shot has no hyper-parameter 'steps'; known: none"):
        am.run_method("zero_shot", suite, steps=3)
    # The id says granularity and vectors; an override would file the result under the wrong name.
    with pytest.raises(ValueError, match="has no hyper-parameter 'granularity'; known: recipe, steps"):
        am.run_method("layer_wise_adamerging", suite, granularity="task")


def test_methods_that_need_a_suite_say_so(task_vectors):
    with pytest.raises(ValueError, match="layer_wise_adamerging needs unlabelled test images"):
        am.merge("layer_wise_adamerging", task_vectors)


def test_ids_are_registered_once():
    with pytest.raises(ValueError, match="'ties' is registered twice"):
        registry.register("ties", label="", needs="nothing", source="")(lambda tv: None)
    with pytest.raises(ValueError, match="needs 'luck': say one of nothing, unlabelled training images"):
        registry.register("new", label="", needs="luck", source="")


def test_fits_come_back_from_the_cache_bit_for_bit(suite, monkeypatch):
    first = am.run_method("layer_wise_adamerging_pp", suite, **SHORT)

    def never(*args, **kwargs):
        raise AssertionError("computed again")

    monkeypatch.setattr(Objective, "losses_and_gradient", never)
    again = am.run_method("layer_wise_adamerging_pp", suite, **SHORT)
    assert_equal(again.state_dict(), first.state_dict())
    assert torch.equal(again.coefficients.values, first.coefficients.values)
    assert torch.equal(again.trajectory, first.trajectory)
    assert again.history.equals(first.history) and again.hyper == dict(first.hyper) and again.tasks == first.tasks
    # What it cost is what the run cost that made it.
    assert again.seconds == first.seconds > 0 and again.memory == first.memory
    # Another parameter, other images, heads, experts, or cache=False: none may find that fit.
    part = dataclasses.replace(suite.test["beta"], images=suite.test["beta"].images.flip(0))
    others = [
        (suite, {"seed": 1}),
        (suite, {"cache": False}),
        (suite, {"init": first.coefficients}),
        (dataclasses.replace(suite, test={**suite.test, "beta": part}), {}),
        (dataclasses.replace(suite, heads={**suite.heads, "beta": -suite.heads["beta"]}), {}),
        (dataclasses.replace(suite, pretrained=suite.joint), {}),
        (dataclasses.replace(suite, experts={**suite.experts, "beta": suite.joint}), {}),
        (dataclasses.replace(suite, mean=(0.0, 0.0, 0.0)), {}),
    ]
    for other, hyper in others:
        with pytest.raises(AssertionError, match="computed again"):
            am.run_method("layer_wise_adamerging_pp", other, **SHORT, **hyper)


def test_what_is_shown_on_the_way_does_not_change_the_key(suite, monkeypatch, tmp_path):
    am.run_method("task_wise_adamerging", suite, **SHORT)
    monkeypatch.setattr(Objective, "losses_and_gradient", None)
    am.run_method("task_wise_adamerging", suite, **{**SHORT, "progress": True, "checkpoint": tmp_path / "c"})
    # The default spelt out is the same fit.
    am.run_method("task_wise_adamerging", suite, **SHORT, seed=0)


def test_callback_is_called_even_where_a_fit_is_kept(suite):
    am.run_method("task_wise_adamerging", suite, **SHORT)
    seen = []
    am.run_method("task_wise_adamerging", suite, **SHORT, callback=lambda step, coefficients: seen.append(step))
    assert seen == [1, 2]


def test_pack_keeps_heads_and_task_states(suite):
    merged = am.Merged(None, "m", {"a": 1}, suite.tasks, task_states=suite.experts, heads=suite.heads)
    back = unpack(*pack(merged))
    assert_equal(dict(back.heads), dict(suite.heads))
    for task in suite.tasks:
        assert_equal(back.state_dict(task), dict(suite.experts[task]))


def test_merged_needs_weights():
    with pytest.raises(ValueError, match="either a shared state or task_states"):
        am.Merged(None, "m", {}, ("a",))


def test_import_is_light():
    code = "import sys, adamerging_lib; print([m for m in ('open_clip', 'torchvision', 'timm') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
