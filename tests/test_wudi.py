"""WUDI: the closed form is the minimum of the published loss, and Adam on the same gradient goes there."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matrices import KEY, assert_others_are_means, counts, draw, moved, of_matrices, seeds, shapes
from strategies import assert_equal

from adamerging_lib import TaskVectors, merge
from adamerging_lib.vectors.spectral import block_matrices, matrices


def loss(tau: torch.Tensor, stack: list[torch.Tensor]) -> torch.Tensor:
    """Σ_k ‖(τ − T_k) T_kᵀ‖² / ‖T_k‖², term by term."""
    return sum(((tau - t) @ t.T).square().sum() / t.square().sum() for t in stack if t.any())


def gradient(tau: torch.Tensor, stack: list[torch.Tensor]) -> torch.Tensor:
    leaf = tau.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(leaf, stack), leaf)
    return found


@given(seeds, shapes, counts)
def test_closed_form_is_the_minimum(seed, shape, tasks):
    stack = draw(seed, shape, tasks)
    tv = of_matrices(*stack)
    state = merge("wudi", tv).state_dict()
    tau = moved(tv, state)
    torch.testing.assert_close(gradient(tau, stack), torch.zeros_like(tau), atol=1e-8, rtol=0)
    assert loss(tau, stack) <= loss(sum(stack), stack) + 1e-9
    assert_others_are_means(tv, state)
    doubled = of_matrices(*[2 * t for t in stack])
    torch.testing.assert_close(moved(doubled, merge("wudi", doubled).state_dict()), 2 * tau)


def test_rank_deficient_takes_the_least_minimiser():
    """One zero task, tasks of rank 2: still a minimum, and nothing outside the rows of the task vectors."""
    a, b, c = draw(4, (6, 6), 3)
    stack = [a[:, :2] @ b[:2], c[:, :2] @ b[2:4], torch.zeros_like(a)]
    tv = of_matrices(*stack)
    tau = moved(tv, merge("wudi", tv).state_dict())
    torch.testing.assert_close(gradient(tau, stack), torch.zeros_like(tau), atol=1e-9, rtol=0)
    rows = torch.linalg.svd(torch.cat(stack))[2][4:]
    torch.testing.assert_close(tau @ rows.T, torch.zeros(6, 2, dtype=tau.dtype))


@given(seeds, shapes)
def test_tasks_whose_rows_are_orthogonal_are_summed(seed, shape):
    """T_i T_jᵀ = 0: no interference, so the loss is zero at the sum."""
    a, b = draw(seed, shape, 2)
    basis = torch.linalg.qr(draw(seed, (shape[1], shape[1]), 1)[0])[0]
    one, other = a @ basis[:, :2] @ basis[:, :2].T, b @ basis[:, 2:] @ basis[:, 2:].T
    tv = of_matrices(one, other)
    for method in ("wudi", "wudi_adam"):
        torch.testing.assert_close(moved(tv, merge(method, tv).state_dict()), one + other, rtol=1e-6, atol=4e-3)
    torch.testing.assert_close(moved(tv, merge("wudi", tv).state_dict()), one + other)


@given(seeds, shapes, counts, st.integers(0, 12))
def test_adam_is_adam_on_the_published_loss(seed, shape, tasks, iterations):
    stack = draw(seed, shape, tasks)
    tv = of_matrices(*stack)
    tau = torch.nn.Parameter(sum(stack))
    optimiser = torch.optim.Adam([tau], lr=1e-2)
    for _ in range(iterations):
        optimiser.zero_grad()
        loss(tau, stack).backward()
        optimiser.step()
    state = merge("wudi_adam", tv, iterations=iterations, lr=1e-2).state_dict()
    # Where the gradient vanishes, Adam divides rounding by rounding: one task, where the sum is the minimum.
    torch.testing.assert_close(moved(tv, state), tau.detach(), rtol=0, atol=1e-7 if tasks > 1 else 0.13)
    assert_others_are_means(tv, state)


def test_adam_ends_at_the_closed_form():
    stack = draw(8, (5, 4), 3)
    tv = of_matrices(*stack)
    closed = moved(tv, merge("wudi", tv).state_dict())
    errors = [
        (moved(tv, merge("wudi_adam", tv, iterations=n, lr=1e-2).state_dict()) - closed).norm().item()
        for n in (0, 100, 3000)
    ]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-4 * errors[0]


def test_more_tasks_than_ranks():
    tv = of_matrices(*draw(2, (2, 3), 7))
    assert bool(torch.isfinite(merge("wudi", tv).state_dict()[KEY]).all())


@pytest.mark.parametrize("method", ["wudi", "wudi_adam"])
def test_the_authors_change_matrices_in_blocks_and_nothing_else(method, task_vectors):
    tv = task_vectors
    port, authors = (merge(method, tv, rule=rule).state_dict() for rule in ("port", "authors"))
    inside = set(block_matrices(tv))
    for key in tv.vectors:
        assert torch.equal(authors[key], port[key] if key in inside else tv.pretrained[key]), key
    outside = set(matrices(tv)) - inside
    assert {"positional_embedding", "proj"} <= outside and len(inside) == 8
    assert not any(torch.equal(port[key], tv.pretrained[key]) for key in outside | {"class_embedding"})
    assert merge(method, tv).hyper["rule"] == "port"


@given(seeds, shapes, counts)
def test_the_authors_treat_a_matrix_as_the_port_does(seed, shape, tasks):
    """Here the one matrix lies in a block; convolution, bias and text projection stay where they were."""
    tv = of_matrices(*draw(seed, shape, tasks))
    port, authors = (merge("wudi", tv, rule=rule).state_dict() for rule in ("port", "authors"))
    assert_equal(authors, {**tv.pretrained, KEY: port[KEY]})


def test_without_blocks_the_authors_rule_takes_every_matrix():
    a, b = draw(3, (5, 4), 2)
    zero = {"first": torch.zeros_like(a), "bias": torch.zeros(3)}
    tv = TaskVectors.from_state_dicts(zero, {"a": {"first": a, "bias": torch.ones(3)}, "b": {**zero, "first": b}})
    port, authors = (merge("wudi", tv, rule=rule).state_dict() for rule in ("port", "authors"))
    assert torch.equal(authors["first"], port["first"]) and bool(authors["first"].any())
    assert not authors["bias"].any() and torch.equal(port["bias"], torch.full((3,), 0.5))


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"rule": "author"}, "rule 'author' is unknown: did you mean 'authors'"),
        ({"iterations": -1}, "iterations=-1 must be a whole number of at least 0"),
        ({"iterations": 2.0}, "iterations=2.0 must be a whole number"),
        ({"lr": 0.0}, "lr=0.0 must be a positive number"),
    ],
)
def test_bad_hyper(task_vectors, hyper, message):
    with pytest.raises(ValueError, match=message):
        merge("wudi_adam", task_vectors, **hyper)
