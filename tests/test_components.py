"""Coefficients per singular component: TSV-M's sum taken apart, its merge, its gradient, and descent on it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_close, some_checkpoints
from torch.nn.functional import cross_entropy

import adamerging_lib as am
from adamerging_lib.evaluation import predictions
from adamerging_lib.forward import compute_state, features, logits
from adamerging_lib.learning.imitation import imitation_loss, taught_streams
from adamerging_lib.learning.streams import task_streams
from adamerging_lib.vectors.components import Components, tsv_split, tsv_start
from adamerging_lib.vectors.spectral import matrices

seeds = st.integers(0, 99)
CPU = torch.device("cpu")
SHORT = {"vectors": "tsv", "steps": 8, "lr": 0.05, "batch_size": 4, "batches": 1, "progress": False}


@given(some_checkpoints((torch.float64,)))
def test_the_parts_add_up_to_tsv_m(checkpoints):
    tv = am.TaskVectors.from_state_dicts(*checkpoints)
    parts = tsv_split(tv)
    assert {key for key, t in parts.vectors.items() if isinstance(t, Components)} == set(matrices(tv))
    expected = am.merge("tsv_m", tv).state
    for granularity in ("tensor", "component"):
        start = tsv_start(parts, parts.rows(granularity))
        assert_close(parts.merge(start, granularity), expected, rtol=1e-9, atol=1e-9)


@given(some_checkpoints((torch.float64,)), seeds)
def test_merge_and_gradient_are_those_of_the_sum_written_out(checkpoints, seed):
    parts = tsv_split(am.TaskVectors.from_state_dicts(*checkpoints))
    rows = parts.rows("component")
    generator = torch.Generator().manual_seed(seed)
    c = torch.randn(len(parts.tasks), len(rows.names), generator=generator, dtype=torch.float64, requires_grad=True)
    total, grads, merged = 0.0, {}, parts.merge(c, "component")
    for key, t in parts.vectors.items():
        at = rows.index[key]
        if isinstance(t, Components):
            b = t.b.view(len(t.b), len(parts.tasks), t.pieces)
            a = t.a.view(len(parts.tasks), t.pieces, -1)
            change = torch.einsum("kj,mkj,kjn->mn", c[:, at], b, a).view(t.shape)
        else:
            change = torch.einsum("k,k...->...", c[:, at], t)
        torch.testing.assert_close(merged[key], parts.pretrained[key] + change.detach(), rtol=1e-9, atol=1e-9)
        grads[key] = torch.randn(change.shape, generator=generator, dtype=torch.float64)
        total = total + (change * grads[key]).sum()
    (expected,) = torch.autograd.grad(total, c)
    torch.testing.assert_close(parts.coefficient_gradient(grads, "component"), expected, rtol=1e-9, atol=1e-9)


@given(some_checkpoints((torch.float64,)))
def test_vectors_that_were_not_taken_apart_have_one_component(checkpoints):
    tv = am.TaskVectors.from_state_dicts(*checkpoints)
    assert tv.rows("component") == tv.rows("tensor")


@pytest.mark.parametrize("granularity", ["task", "block", "module"])
def test_rows_that_hold_matrices_and_others_are_refused(suite, granularity):
    with pytest.raises(ValueError, match="take granularity 'tensor' or 'component'"):
        am.adamerge(suite, granularity=granularity, **SHORT)
    free = am.adamerge(suite, granularity=granularity, init=0.5, **{**SHORT, "steps": 1})
    assert free.hyper["init"] == 0.5


@pytest.mark.parametrize("granularity", ["tensor", "component"])
def test_descent_begins_at_tsv_m_and_is_free_of_bounds(suite, granularity):
    fit = am.adamerge(suite, granularity=granularity, **SHORT)
    assert fit.method == f"{granularity}_adamerging_tsv"
    assert fit.hyper["init"] == "TSV-M" and fit.hyper["clamp"] is False
    start = am.adamerge(suite, granularity=granularity, **{**SHORT, "steps": 0})
    assert_close(start.state, am.run_method("tsv_m", suite).state, rtol=1e-5, atol=1e-6)
    assert fit.trajectory[-1].max() > 1 and fit.history["loss"].iloc[-1] < fit.history["loss"].iloc[0]
    assert fit.coefficients.values.shape == (len(suite.tasks), len(fit.coefficients.rows))


def test_coefficients_per_component_are_saved_and_read(suite, tmp_path):
    fit = am.adamerge(suite, granularity="component", **{**SHORT, "steps": 1})
    fit.coefficients.save(tmp_path / "c.json")
    again = am.Coefficients.load(tmp_path / "c.json")
    assert again.rows == fit.coefficients.rows and any(row.endswith("[0]") for row in again.rows)
    rows = tsv_split(suite.task_vectors()).rows("component").names
    torch.testing.assert_close(again.aligned(suite.tasks, rows), fit.coefficients.values)


def test_imitation_is_cross_entropy_with_the_expert_on_the_same_images(suite):
    streams = task_streams(suite, suite.tasks, size=5, seed=0, setting="transductive", device=CPU)
    taught = taught_streams(suite, streams, CPU)
    fit = am.adamerge(suite, objective="imitation", steps=1, batch_size=5, batches=1, lr=0.01, progress=False)
    start = compute_state(am.run_method("task_arithmetic", suite, scaling=0.3).state, CPU)
    for task, stream, plain in zip(suite.tasks, taught, streams, strict=True):
        images = suite.normalise(stream.batch(0))
        assert torch.equal(stream.batch(0), plain.batch(0)) and plain.labels is None
        head = suite.heads[task]
        told = logits(features(suite.encoder, compute_state(suite.experts[task], CPU), images), head)
        scores = logits(features(suite.encoder, start, images), head)
        expected = cross_entropy(scores, told.softmax(-1))
        found = imitation_loss(scores, stream.batch_labels(0), 1)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        assert fit.history[task].iloc[0] == pytest.approx(float(expected), rel=1e-4)


def test_imitation_comes_near_the_experts(suite):
    options = {"objective": "imitation", "lr": 0.05, "batch_size": 8, "batches": 1, "progress": False}
    experts = {task: scores for task, scores, _ in predictions(suite, am.run_method("individual", suite))}

    def away(fit):
        return sum(cross_entropy(s, experts[task].softmax(-1)) for task, s, _ in predictions(suite, fit))

    fit = am.adamerge(suite, steps=60, **options)
    assert fit.hyper["objective"] == "imitation"
    assert away(fit) < 0.97 * away(am.adamerge(suite, steps=0, **options))


def test_an_unknown_objective_is_named(suite):
    with pytest.raises(ValueError, match="objective.*'imitate'"):
        am.adamerge(suite, objective="imitate", steps=0)


@given(st.integers(1, 4), st.integers(1, 6), seeds)
def test_columns_beyond_the_classes_of_a_task_do_not_count(more, classes, seed):
    if classes == 1:
        return  # one output is a regression
    generator = torch.Generator().manual_seed(seed)
    scores, told = torch.randn(2, 7, classes, generator=generator, dtype=torch.float64)
    filled = torch.cat([told, torch.full((7, more), -torch.inf, dtype=torch.float64)], 1)
    assert imitation_loss(scores, filled, 2) == imitation_loss(scores, told, 2)
