"""ACTMat, SWUDI, SVC and ACE: closed forms and filters against their definitions, by plain SVDs and loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matrices import KEY, assert_others_are_means, counts, draw, moved, of_matrices, seeds, shapes

from adamerging_lib import merge
from adamerging_lib.methods.ace import gamma
from adamerging_lib.methods.svc import BASES
from adamerging_study.gain.measure import distance, mixture


@given(seeds, shapes, counts)
def test_actmat_is_regmean_with_the_task_vectors_as_inputs(seed, shape, tasks):
    """The minimiser of Σ_k ‖(τ − T_k) T_kᵀ‖², without weights: its gradient is zero there."""
    stack = draw(seed, shape, tasks)
    tv = of_matrices(*stack)
    state = merge("actmat", tv).state_dict()
    tau = moved(tv, state)
    slope = sum(2 * (tau - t) @ t.T @ t for t in stack)
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-7, rtol=0)
    assert_others_are_means(tv, state)


def test_actmat_is_wudi_where_norms_are_equal_and_follows_the_longer_elsewhere():
    stack = [t / t.norm() for t in draw(3, (5, 8), 2)]
    tv = of_matrices(*stack)
    torch.testing.assert_close(moved(tv, merge("actmat", tv).state_dict()), moved(tv, merge("wudi", tv).state_dict()))
    tall = [torch.randn(8, 4, generator=torch.Generator().manual_seed(k), dtype=torch.float64) for k in range(2)]
    long = of_matrices(100 * tall[0], tall[1])
    torch.testing.assert_close(moved(long, merge("actmat", long).state_dict()), 100 * tall[0], rtol=0.02, atol=2)


def plain_swudi(stack: list[torch.Tensor], time: float, kept: int) -> torch.Tensor:
    """As the authors' code has it: eigenvectors one by one, from the sum, in the place of the first ``kept``."""
    weights = [1 / t.square().sum() for t in stack]
    c = sum(w * t.T @ t for w, t in zip(weights, stack, strict=True))
    d = sum(w * t @ t.T @ t for w, t in zip(weights, stack, strict=True))
    values, vectors = torch.linalg.eigh(c)
    start = sum(stack)
    tau = start.clone()
    for rank, i in enumerate(reversed(range(len(values)))):
        if rank < kept and values[i] > 1e-12:
            h, q = 1 - math.exp(-time * values[i]), vectors[:, i : i + 1]
            tau = tau - h * start @ q @ q.T + h / values[i] * d @ q @ q.T
    return tau


@given(seeds, shapes, counts, st.sampled_from([0.1, 3.0, 1300.0]), st.sampled_from([0.3, 0.65, 1.0]))
def test_swudi_against_a_loop_over_eigenvectors(seed, shape, tasks, time, share):
    stack = draw(seed, shape, tasks)
    tv = of_matrices(*stack)
    state = merge("swudi", tv, time=time, share=share).state_dict()
    expected = plain_swudi(stack, time, math.ceil(share * shape[1]))
    torch.testing.assert_close(moved(tv, state), expected, rtol=1e-6, atol=1e-8)
    assert_others_are_means(tv, state)


@given(seeds, shapes, counts)
def test_without_a_filter_swudi_is_wudi(seed, shape, tasks):
    tv = of_matrices(*draw(seed, shape, tasks))
    tau = moved(tv, merge("swudi", tv, time=math.inf, share=1.0).state_dict())
    torch.testing.assert_close(tau, moved(tv, merge("wudi", tv).state_dict()), rtol=1e-6, atol=1e-7)
    none = moved(tv, merge("swudi", tv, time=1e-12, share=1.0).state_dict())
    torch.testing.assert_close(none, tv.vectors[KEY].sum(0))


def test_swudi_is_gradient_descent_stopped_early():
    """Small steps on WUDI's loss from the sum, as many as the time asks for."""
    stack = draw(8, (5, 8), 3)
    tv, time, steps = of_matrices(*stack), 2.0, 4000
    tau = sum(stack)
    for _ in range(steps):
        slope = sum((tau - t) @ t.T @ t / t.square().sum() for t in stack)
        tau = tau - time / steps * slope
    found = moved(tv, merge("swudi", tv, time=time, share=1.0).state_dict())
    torch.testing.assert_close(found, tau, rtol=1e-3, atol=2e-3)


@given(seeds, shapes, counts)
def test_swudi_a_keeps_as_many_directions_as_the_spectrum_has(seed, shape, tasks):
    stack = draw(seed, shape, tasks)
    tv = of_matrices(*stack)
    weighted = sum(t.T @ t / t.square().sum() for t in stack)
    values = torch.linalg.eigvalsh(weighted).clamp(min=0)
    values = torch.where(values > 1e-12, values, 0)
    kept = math.ceil(values.sqrt().sum() ** 2 / values.sum() - 1e-9)
    found = moved(tv, merge("swudi_a", tv).state_dict())
    torch.testing.assert_close(found, plain_swudi(stack, math.inf, kept), rtol=1e-6, atol=1e-8)


@given(seeds, shapes, counts, st.sampled_from([0.0, 0.25, 1.0]))
def test_the_control_of_swudi_lies_on_the_line_from_the_sum_to_wudi(seed, shape, tasks, share):
    tv = of_matrices(*draw(seed, shape, tasks))
    merged = mixture(tv, share)
    state = merged.state_dict()
    total, closed = tv.vectors[KEY].sum(0), moved(tv, merge("wudi", tv).state_dict())
    torch.testing.assert_close(moved(tv, state), (1 - share) * total + share * closed, rtol=1e-6, atol=1e-7)
    assert_others_are_means(tv, state)
    if tasks > 1:  # of one task, both ends are its task vector
        assert distance(merged, mixture(tv, 0), mixture(tv, 1), [KEY]) == pytest.approx(share, abs=1e-5)


@pytest.mark.parametrize("hyper", [{"time": 0}, {"time": -1.0}, {"share": 0.0}, {"share": 1.5}])
def test_unusable_filters_are_refused(task_vectors, hyper):
    with pytest.raises(ValueError, match=next(iter(hyper))):
        merge("swudi", task_vectors, **hyper)


@given(seeds, shapes, counts, st.sampled_from(BASES), st.sampled_from([None, 0.4]))
def test_svc_against_a_loop_over_left_vectors(seed, shape, tasks, base, alpha):
    stack = draw(seed, shape, tasks)
    tv = of_matrices(*stack)
    before = merge(base, tv).state_dict()
    state = merge("svc", tv, base=base, **({} if alpha is None else {"alpha": alpha})).state_dict()
    least = alpha or (1.0 if base == "tsv_m" else 1 / tasks)
    u, s, vh = torch.linalg.svd(moved(tv, before), full_matrices=False)
    expected = torch.zeros_like(stack[0])
    for r in range(len(s)):
        if s[r] < 1e-9:
            continue
        row = u[:, r] @ moved(tv, before)
        quotients = [row @ (u[:, r] @ t) / ((u[:, r] @ t) @ (u[:, r] @ t)) for t in stack]
        eta = sum(max(least, float(q)) for q in quotients) / tasks
        expected += s[r] / eta * torch.outer(u[:, r], vh[r])
    torch.testing.assert_close(moved(tv, state), expected, rtol=1e-5, atol=1e-7)
    for key in tv.vectors:
        if key != KEY:
            torch.testing.assert_close(state[key], before[key])


@given(seeds, shapes)
def test_svc_finds_what_equal_tasks_have_been_scaled_by(seed, shape):
    """K copies of one task, summed or scaled: every quotient is λK, so what comes out is the task itself."""
    (t,) = draw(seed, shape, 1)
    tv = of_matrices(t, t, t, t)
    torch.testing.assert_close(moved(tv, merge("svc", tv, base="task_arithmetic").state_dict()), t)


def test_svc_of_an_unknown_base_or_a_useless_alpha_is_refused(task_vectors):
    with pytest.raises(ValueError, match="base"):
        merge("svc", task_vectors, base="iso_c")
    with pytest.raises(ValueError, match="alpha"):
        merge("svc", task_vectors, alpha=0.0)


def plain_ace(stack: list[torch.Tensor], eps: float) -> torch.Tensor:
    """Step by step, as the authors' code goes about it."""
    logs = torch.stack([t.square().sum().log() for t in stack])
    uneven = len(stack) > 1 and bool(logs.var() / logs.mean() ** 2 > 0.3)
    centred = [t - t.mean(0, keepdim=True) for t in stack]
    grams = [x.T @ x for x in centred]
    traces = [g.trace() for g in grams]
    small = [eps / tr if uneven else torch.tensor(eps, dtype=t.dtype) for tr, t in zip(traces, stack, strict=True)]
    grams = [g / tr if uneven else g for g, tr in zip(grams, traces, strict=True)]
    prior = torch.ones(len(grams[0]), 1, dtype=logs.dtype) @ sum(grams).mean(0, keepdim=True)
    if uneven:
        prior = prior / logs.exp().mean()
    ridged = [g + e * torch.eye(len(g), dtype=g.dtype) for g, e in zip(grams, small, strict=True)]
    tau = sum(x @ g for x, g in zip(centred, ridged, strict=True)) @ torch.linalg.inv(sum(ridged) + prior)
    if uneven:
        mean = sum(ridged) / len(stack)
        residual = sum(t @ (g - mean) for t, g in zip(stack, grams, strict=True))
        u, s, vh = torch.linalg.svd(residual + tau, full_matrices=False)
        lifted = int(0.3 * len(s))
        tau = tau + (s[:lifted].mean() * (u[:, :lifted] @ vh[:lifted]) if lifted else 0)
    return tau


@given(seeds, shapes, counts, st.sampled_from([1e-5, 1e-2]), st.sampled_from([1.0, 0.16, 30.0]))
def test_ace_against_its_steps(seed, shape, tasks, eps, stretched):
    """With ‖T_k‖ near 1 (0.16) or one expert stretched the gate opens, elsewhere it stays shut."""
    stack = draw(seed, shape, tasks)
    stack = [stretched * stack[0], *stack[1:]] if stretched > 1 else [stretched * t for t in stack]
    tv = of_matrices(*stack)
    state = merge("ace", tv, eps=eps).state_dict()
    torch.testing.assert_close(moved(tv, state), plain_ace(stack, eps), rtol=1e-4, atol=1e-5)
    assert_others_are_means(tv, state)


def test_ace_opens_its_gate_for_uneven_energies_only():
    assert gamma(torch.tensor([50.0, 52.0, 49.0])) < 1e-3
    assert gamma(torch.tensor([1e-4, 1e4])) > 0.3
    assert gamma(torch.tensor([5.0])) == gamma(torch.tensor([0.0, 5.0])) == 0


def test_ace_without_a_ridge_is_refused(task_vectors):
    with pytest.raises(ValueError, match="eps"):
        merge("ace", task_vectors, eps=0)
