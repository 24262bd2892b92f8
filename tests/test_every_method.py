"""What holds for every registered method, whoever wrote it: a new method is tested here by being registered."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import torch
import toy
from short import EVERY, run
from strategies import assert_equal, copy

import adamerging_lib as am
from adamerging_lib.methods import registry
from adamerging_lib.methods.run import pack, unpack

MERGING = [id for id in EVERY if id not in ("zero_shot", "individual", "traditional_mtl")]


def scores(suite: am.Suite, merged: am.Merged) -> dict[str, torch.Tensor]:
    """What a user sees of a merged model: logits of a few images per task."""
    parts = {}
    with torch.inference_mode():
        for task in suite.tasks:
            images = suite.normalise(suite.test[task].images[:6])
            unit = merged.features(suite.encoder, merged.state_dict(task), images, task)
            head = (merged.heads or suite.heads)[task]
            parts[task] = unit @ head.T + (0 if merged.biases is None else merged.biases[task])
    return parts


@pytest.mark.parametrize("method", EVERY)
def test_result_is_whole(method, suite):
    """Keys, shapes and dtypes of θ0 for every task, finite numbers, measurable, and packed without loss."""
    merged = run(method, suite)
    assert merged.method == method and merged.tasks == suite.tasks
    for task in suite.tasks:
        state = merged.state_dict(task)
        assert list(state) == list(suite.pretrained)
        for key, t in suite.pretrained.items():
            assert state[key].shape == t.shape and state[key].dtype == t.dtype, key
            assert bool(torch.isfinite(state[key]).all()), key
        assert torch.equal(state["position_ids"], suite.pretrained["position_ids"])
    frame = am.evaluate(suite, merged)
    assert len(frame) == len(suite.tasks) and frame["accuracy"].between(0, 100).all()
    again = unpack(*pack(merged))
    assert again.task_storage == merged.task_storage >= 0
    for task in suite.tasks:
        assert_equal(again.state_dict(task), merged.state_dict(task))
        torch.testing.assert_close(scores(suite, again)[task], scores(suite, merged)[task], rtol=0, atol=0)


@pytest.mark.parametrize("method", EVERY)
def test_registry_row_is_true(method, suite):
    """What the registry says of storage and of the task's identity is what the result shows."""
    row, merged = registry.find(method), run(method, suite)
    assert (merged.task_storage > 0) == (row.task_specific != "nothing")
    states = [merged.state_dict(task) for task in suite.tasks]
    differ = any(not torch.equal(a, b) for s in states[1:] for a, b in zip(states[0].values(), s.values(), strict=True))
    assert not (differ and row.static), "weights differ between tasks, the registry says static"
    assert not (differ and not row.task_id), "weights differ between tasks, the registry says no task id"


@pytest.mark.parametrize("method", EVERY)
def test_inputs_are_left_alone_and_a_run_repeats(method):
    suite, twin = toy.suite(seed=3), toy.suite(seed=3)
    template, before = copy(suite.encoder.state_dict()), torch.random.get_rng_state()
    first = run(method, suite)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator was used"
    assert_equal(dict(suite.pretrained), dict(twin.pretrained))
    for task in suite.tasks:
        assert_equal(dict(suite.experts[task]), dict(twin.experts[task]))
        assert torch.equal(suite.heads[task], twin.heads[task])
        assert torch.equal(suite.test[task].images, twin.test[task].images)
    assert_equal(dict(suite.encoder.state_dict()), template)
    second = run(method, twin)
    for task in suite.tasks:
        torch.testing.assert_close(scores(twin, second)[task], scores(suite, first)[task], rtol=0, atol=0)


@pytest.mark.parametrize("method", MERGING)
def test_one_task(method):
    suite = toy.suite(seed=1, tasks=("alpha",))
    merged = run(method, suite)
    assert all(bool(torch.isfinite(part).all()) for part in scores(suite, merged).values())


@pytest.mark.parametrize("method", [m for m in MERGING if registry.find(m).needs == "nothing"])
def test_zero_task_vectors_give_the_pretrained_model(method):
    suite = toy.suite(seed=1)
    suite = dataclasses.replace(suite, experts={task: copy(suite.pretrained) for task in suite.tasks})
    merged = run(method, suite)
    for task in suite.tasks:
        for key, t in merged.state_dict(task).items():
            torch.testing.assert_close(t, suite.pretrained[key], msg=key)


@pytest.mark.parametrize("method", [m for m in MERGING if registry.find(m).needs == "nothing"])
def test_order_of_tasks_does_not_matter(method, suite):
    turned = dataclasses.replace(suite, experts={task: suite.experts[task] for task in suite.tasks[::-1]})
    one, other = run(method, suite), run(method, turned)
    for task in suite.tasks:
        for key, t in one.state_dict(task).items():
            torch.testing.assert_close(other.state_dict(task)[key], t, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize("method", MERGING)
def test_half_precision_checkpoints(method):
    suite = toy.suite(seed=2, dtype=torch.bfloat16)
    merged = run(method, suite)
    for task in suite.tasks:
        assert all(t.dtype == suite.pretrained[key].dtype for key, t in merged.state_dict(task).items())


@pytest.mark.parametrize("method", EVERY)
def test_docstring_in_the_house_form(method):
    function = registry.find(method).function
    text = inspect.getdoc(getattr(function, "func", function))
    for section in ("Arguments:", "Source:") if method in MERGING else ("Arguments:",):
        assert section in text, f"{method}'s docstring has no {section!r}"
    options = [n for n, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY]
    hidden = [n for n in options if n not in getattr(function, "keywords", {}) and f"{n}" not in text]
    assert not hidden, f"{method}'s docstring says nothing of {hidden}"


FROM_EXPERTS = [id for id in MERGING if registry.find(id).needs != "labels" or id == "supermerge"]


@pytest.fixture(scope="module")
def normed():
    return toy.with_statistics(toy.suite(seed=1, encoder=toy.NormedViT()))


@pytest.mark.parametrize("method", FROM_EXPERTS)
def test_statistics_are_averaged_by_every_method(method, normed):
    """Sums of task vectors would make the variance 1 + λ (0.1 + 0.2 + 0.3 − 3), below zero."""
    merged = run(method, normed)
    for task in normed.tasks:
        state = merged.state_dict(task)
        assert torch.allclose(state["conv1.1.running_var"], torch.tensor(0.2))
        assert torch.equal(state["conv1.1.running_mean"], torch.full((16,), 2.0))
        assert torch.equal(state["conv1.1.num_batches_tracked"], torch.tensor(0))
    assert merged.coefficients is None or not any("running" in row for row in merged.coefficients.rows)
