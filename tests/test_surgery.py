"""Representation Surgery against the published loop, on any base, and where it must do nothing."""

from __future__ import annotations

import dataclasses
import os
import sys

import pytest
import torch
import toy
from strategies import assert_equal
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

import adamerging_lib as am
from adamerging_lib.learning.streams import Stream, seeded
from adamerging_lib.methods import registry, run, run_method, surgery
from adamerging_lib.methods.registry import find
from adamerging_lib.methods.surgery import RECIPES
from adamerging_lib.suite import split_indices

SHORT = {"rank": 3, "steps": 4, "lr": 0.02, "batch_size": 5, "batches": 2, "progress": False}
BASE = {"recipe": "mini", "steps": 2, "batch_size": 4}


def fit(suite, **hyper):
    return run_method("surgery", suite, cache=False, **{**SHORT, **hyper})


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("base", ["task_arithmetic", "individual"])
def test_adapters_equal_the_published_loop(normalise, base):
    """One task after another, features anew in every update, torch's layers, L1Loss and Adam."""
    suite = toy.suite(seed=3, dtype=torch.float64)
    merged = run_method("task_arithmetic" if base != "individual" else base, suite)
    found = fit(suite, normalise=normalise, base=base)

    def encode(state, images):
        feature = functional_call(suite.encoder, dict(state), (images,)).detach()
        return feature / feature.norm(dim=-1, keepdim=True) if normalise else feature

    for task in suite.tasks:
        down, up = nn.Linear(8, 3, bias=False, dtype=torch.float64), nn.Linear(3, 8, bias=False, dtype=torch.float64)
        start = torch.empty(3, 8).uniform_(-(8**-0.5), 8**-0.5, generator=seeded("surgery", 0, task))
        down.weight.data, up.weight.data = start.double(), torch.zeros(8, 3, dtype=torch.float64)
        adam = torch.optim.Adam([down.weight, up.weight], lr=0.02)
        stream = Stream(suite.test[task].images, size=5, task=task, seed=0)
        for step in range(8):
            images = suite.normalise(stream.batch(step)).double()
            feature = encode(merged.state_dict(task), images)
            loss = nn.L1Loss()(feature - up(F.relu(down(feature))), encode(suite.experts[task], images))
            assert found.history[task][step] == pytest.approx(loss.item(), rel=1e-9, abs=1e-12)
            adam.zero_grad()
            loss.backward()
            adam.step()
        torch.testing.assert_close(found.extra[f"down|{task}"], down.weight.detach(), rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(found.extra[f"up|{task}"], up.weight.detach(), rtol=1e-8, atol=1e-10)
        images = suite.normalise(suite.test[task].images).double()
        feature = encode(merged.state_dict(task), images)
        expected = F.normalize((feature - up(F.relu(down(feature)))).detach(), dim=-1)
        state = found.state_dict(task)
        torch.testing.assert_close(found.features(suite.encoder, state, images, task).detach(), expected)


@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("steps", [1, 3])
def test_zero_gradients_are_those_of_older_torch(steps, batches):
    """One Adam for all tasks, whose gradients of zero move the adapters of tasks that wait."""
    suite = toy.suite(seed=3, dtype=torch.float64)
    found = fit(suite, steps=steps, batches=batches, zero_gradients=True)
    encode = lambda state, images: functional_call(suite.encoder, dict(state), (images,)).detach()  # noqa: E731
    merged, layers = run_method("task_arithmetic", suite).state_dict(), {}
    for task in suite.tasks:
        down, up = nn.Linear(8, 3, bias=False, dtype=torch.float64), nn.Linear(3, 8, bias=False, dtype=torch.float64)
        start = torch.empty(3, 8).uniform_(-(8**-0.5), 8**-0.5, generator=seeded("surgery", 0, task))
        down.weight.data, up.weight.data = start.double(), torch.zeros(8, 3, dtype=torch.float64)
        layers[task] = down, up
    adam = torch.optim.Adam([layer.weight for pair in layers.values() for layer in pair], lr=0.02)
    streams = {task: Stream(suite.test[task].images, size=5, task=task, seed=0) for task in suite.tasks}
    for step in range(steps):
        for task, (down, up) in layers.items():
            for batch in range(batches):
                images = suite.normalise(streams[task].batch(step * batches + batch)).double()
                feature = encode(merged, images)
                loss = nn.L1Loss()(feature - up(F.relu(down(feature))), encode(suite.experts[task], images))
                adam.zero_grad(set_to_none=False)
                loss.backward()
                adam.step()
    plain = fit(suite, steps=steps, batches=batches)
    for task, (down, up) in layers.items():
        torch.testing.assert_close(found.extra[f"down|{task}"], down.weight.detach(), rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(found.extra[f"up|{task}"], up.weight.detach(), rtol=1e-8, atol=1e-10)
        waited = steps > 1 or task != suite.tasks[-1]  # of one round, nobody comes after the last task
        assert torch.equal(plain.extra[f"up|{task}"], found.extra[f"up|{task}"]) != waited


def test_published_recipe_is_the_default(suite):
    assert RECIPES["paper"] == {"steps": 500, "lr": 1e-3, "batch_size": 16, "batches": 2}
    found = surgery(suite, steps=0, progress=False)
    assert found.hyper == {
        "base": "task_arithmetic", "base_hyper": {}, "rank": 16, "normalise": False, "zero_gradients": False,
        **RECIPES["paper"], "steps": 0, "seed": 0, "setting": "transductive",
    }  # fmt: skip
    assert found.task_storage == 2 * 16 * 8
    assert find("surgery").task_specific == "2 · rank · dim"


def test_without_a_step_and_for_other_tasks_it_is_the_base(suite):
    base = run_method("task_arithmetic", suite)
    images = suite.normalise(suite.test["alpha"].images)
    expected = base.features(suite.encoder, base.state_dict(), images)
    start, found = fit(suite, steps=0), fit(suite)
    assert len(start.history) == 0 and len(found.history) == 8
    for merged, task in ((start, "alpha"), (found, "delta"), (found, None)):
        features = merged.features(suite.encoder, merged.state_dict(), images, task)
        torch.testing.assert_close(features, expected, rtol=0, atol=0)
    adapted = found.features(suite.encoder, found.state_dict(), images, "alpha")
    assert not torch.allclose(adapted, expected)
    torch.testing.assert_close(adapted.norm(dim=-1), torch.ones(30))


def test_an_unseen_task_keeps_the_bases_measure(suite):
    seen = dataclasses.replace(suite, experts={task: suite.experts[task] for task in suite.tasks[:2]})
    frame = am.evaluate(suite, fit(seen)).set_index("task")
    base = am.evaluate(suite, run_method("task_arithmetic", seen)).set_index("task")
    assert frame.loc["gamma", "entropy"] == base.loc["gamma", "entropy"]
    assert frame.loc["alpha", "entropy"] != base.loc["alpha", "entropy"]


def test_nothing_to_mend_leaves_the_individual_models_as_they_are(suite):
    found = fit(suite, base="individual", rank=2)
    assert (found.history["loss"] == 0).all()
    assert not any(found.extra[f"up|{task}"].any() for task in suite.tasks)
    for task in suite.tasks:
        assert_equal(found.state_dict(task), dict(suite.experts[task]))


@pytest.mark.parametrize("normalise", [False, True])
def test_distance_falls(suite, normalise):
    history = fit(suite, steps=60, rank=8, batch_size=30, normalise=normalise).history
    assert list(history) == ["step", "loss", *suite.tasks]
    assert all(history[task].iloc[-1] < 0.9 * history[task].iloc[0] for task in suite.tasks)
    torch.testing.assert_close(torch.tensor(history[[*suite.tasks]].sum(axis=1)), torch.tensor(history["loss"]))


def test_order_of_tasks_does_not_matter(suite):
    turned = dataclasses.replace(suite, experts={task: suite.experts[task] for task in suite.tasks[::-1]})
    one, other = fit(suite), fit(turned)
    for name, t in one.extra.items():
        torch.testing.assert_close(other.extra[name], t)


def test_neither_labels_nor_held_out_images_are_read():
    suite = toy.suite(seed=2)
    _, held_out = split_indices(30)

    def scrambled(data):
        images = data.images.clone()
        images[held_out] = 0
        return am.TaskData(images, torch.full_like(data.labels, -1), data.classes)

    other = dataclasses.replace(suite, test={task: scrambled(data) for task, data in suite.test.items()})
    hyper = {"setting": "inductive", "base": "layer_wise_adamerging", "base_hyper": BASE}
    one, two = fit(suite, **hyper), fit(other, **hyper)
    assert_equal(dict(one.extra), dict(two.extra))
    assert_equal(one.state_dict(), two.state_dict())
    assert one.hyper["setting"] == "inductive"
    assert am.evaluate(suite, one)["split"].eq("held_out").all()


def test_a_base_that_learns_is_fitted_once_and_kept(suite):
    hyper = {"seed": 3, "setting": "inductive", "progress": False}
    base = run_method("layer_wise_adamerging", suite, **BASE, **hyper)
    folder = os.environ["ADAMERGING_CACHE"]
    before = {name for name in os.listdir(folder) if name.endswith(".safetensors")}
    found = run_method("surgery", suite, **{**SHORT, **hyper}, base="layer_wise_adamerging", base_hyper=BASE)
    (new,) = {name for name in os.listdir(folder) if name.endswith(".safetensors")} - before
    assert new.startswith("surgery-")
    assert_equal(found.state_dict(), base.state_dict())
    torch.testing.assert_close(found.coefficients.values, base.coefficients.values)


def test_its_kept_fit_depends_on_the_bases_code_and_images(suite, monkeypatch):
    seen = {}

    def note_code(*functions):
        seen["code"] = functions
        return "code"

    def note_suite(suite, *, training=False):
        seen["training"] = training
        return {}

    monkeypatch.setattr(run, "fingerprint_code", note_code)
    monkeypatch.setattr(run, "fingerprint_suite", note_suite)
    run_method("surgery", suite, base="ties", **SHORT)
    assert find("ties").function in seen["code"] and find("surgery").function in seen["code"]
    assert seen["training"] is False
    monkeypatch.setitem(registry._METHODS, "ties", dataclasses.replace(find("ties"), trains=True))
    run_method("surgery", suite, base="ties", **{**SHORT, "seed": 1})
    assert seen["training"] is True


def test_what_the_base_keeps_per_task_stays(suite):
    found = fit(suite, base="tint", base_hyper={"epochs": 2, "batch_size": 4})
    tint = run_method("tint", suite, epochs=2, batch_size=4, progress=False)
    for task in suite.tasks:
        assert torch.equal(found.heads[task], tint.heads[task])
    assert found.task_storage == tint.task_storage + 2 * 3 * 8


def test_storage_of_masks_is_added(suite, monkeypatch):
    base = dataclasses.replace(run_method("task_arithmetic", suite), storage=10.0)
    monkeypatch.setattr(sys.modules[surgery.__module__], "run_method", lambda *args, **hyper: base)
    assert surgery(suite, **SHORT).task_storage == 10.0 + 2 * 3 * 8


@pytest.mark.parametrize(("hyper", "message"), [
    ({"base": "task_arithmetics"}, "did you mean 'task_arithmetic'"),
    ({"base_hyper": {"lam": 1}}, "task_arithmetic has no hyper-parameter 'lam'; known: scaling"),
    ({"base": "wemoe", "base_hyper": {"steps": 0}}, "base 'wemoe' has adapters or routers of its own"),
    ({"base": "layer_wise_adamerging", "base_hyper": {**BASE, "setting": "inductive"}}, "not fitted in the trans"),
    ({"rank": 0}, "rank=0 must be a whole number of at least 1"),
    ({"setting": "online"}, "setting 'online' is unknown"),
    ({"batches": 0}, "batches=0 must be a whole number"),
], ids=str)  # fmt: skip
def test_bad_arguments(suite, hyper, message):
    with pytest.raises(ValueError, match=message):
        fit(suite, **hyper)


def test_distances_that_are_nan_name_their_task(suite):
    tables = sys.modules[surgery.__module__].feature_table

    def broken(suite, state, task, which, *, device):
        return tables(suite, state, task, which, device=device) * (float("nan") if task == "beta" else 1)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(ValueError, match="distance of beta is NaN at step 0"):
        patch.setattr(sys.modules[surgery.__module__], "feature_table", broken)
        fit(suite)
