"""Rules that combine gradients: each against the definition in its paper, written out on the gradients themselves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from adamerging_lib.learning.combine import COMBINERS, combiner, nash_weights, projected_weights, task_weights
from adamerging_lib.learning.streams import seeded

TASKS = ("a", "b", "c", "d")


def gradients(seed: int, tasks: int = 4, size: int = 6, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(tasks, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def direction(name: str, g: torch.Tensor, step: int = 0, **options) -> torch.Tensor:
    return combiner(name, TASKS[: len(g)], **options)(g @ g.T, step) @ g


many = st.builds(
    gradients, st.integers(0, 10_000), st.integers(2, 4), st.integers(4, 9), st.sampled_from([1e-4, 1.0, 1e4])
)


@given(many)
@settings(max_examples=25)
def test_nash_weights_solve_their_equation(g):
    gram = g @ g.T
    scaled = gram / gram.diagonal().mean()
    alpha = nash_weights(scaled)
    assert bool((alpha > 0).all())
    torch.testing.assert_close(scaled @ alpha * alpha, torch.ones_like(alpha), rtol=1e-6, atol=1e-6)
    d = direction("nash_mtl", g)
    assert d.norm().item() == pytest.approx(1.0, rel=1e-6)  # ‖Σ α g‖ = √K, so the published cap of 1 always binds
    shares = combiner("nash_mtl", TASKS[: len(g)])(gram, 0) * (g @ d)  # α_k ⟨g_k, d⟩: the same for every task
    torch.testing.assert_close(shares, shares.mean().expand_as(shares), rtol=1e-6, atol=1e-9)


@given(many, st.sampled_from([0.0, 0.2, 0.4, 0.9]))
@settings(max_examples=20)
def test_cagrad_is_optimal_in_its_ball(g, c):
    """d maximises min_k ⟨g_k, d⟩ over ‖d − ḡ‖ ≤ c‖ḡ‖: equal to the dual's optimum, found by another solver."""
    mean = g.mean(0)
    d = direction("cagrad", g, c=c)
    radius = c * mean.norm()
    assert (d - mean).norm() <= radius * (1 + 1e-4) + 1e-9

    def dual(w):
        mixed = torch.as_tensor(w) @ g
        return ((mixed @ mean + radius * (mixed.norm() + 1e-12)) / mean.norm() ** 2).item()

    inside = {"type": "eq", "fun": lambda w: w.sum() - 1}
    starts = [np.full(len(g), 1 / len(g)), *(0.9 * np.eye(len(g)) + 0.1 / len(g))]
    best = min(minimize(dual, w, bounds=[(0, 1)] * len(g), constraints=inside).fun for w in starts)
    assert ((g @ d).min() / mean.norm() ** 2).item() == pytest.approx(best, rel=1e-3, abs=1e-3)


@given(many)
@settings(max_examples=25)
def test_min_norm_is_the_shortest_point_of_the_hull(g):
    weights = combiner("min_norm", TASKS[: len(g)])(g @ g.T, 0)
    assert weights.sum().item() == pytest.approx(1.0) and bool((weights >= 0).all())
    d = weights @ g
    # First-order optimality on the simplex: no vertex lies below the tangent plane.
    slack = (g @ d).min() / g.square().sum(1).max() - d @ d / g.square().sum(1).max()
    assert slack > -2e-2


def projected(g: torch.Tensor, k: int, order: tuple[int, ...]) -> torch.Tensor:
    """PCGrad's g_k after it has met the others in this order."""
    own = g[k].clone()
    for j in order:
        if j != k and own @ g[j] < 0:
            own = own - (own @ g[j]) / (g[j] @ g[j]) * g[j]
    return own


@given(many)
def test_pcgrad_is_its_algorithm_for_one_of_the_orders(g):
    found = direction("pcgrad", g)
    # Every task draws its own order; few of its projected gradients differ.
    options = []
    for k in range(len(g)):
        outcomes = [projected(g, k, order) for order in itertools.permutations(range(len(g)))]
        options.append(list({tuple((o / g.norm()).round(decimals=9).tolist()): o for o in outcomes}.values()))
    nearest = min((torch.stack(parts).sum(0) - found).norm() for parts in itertools.product(*options))
    assert nearest <= 1e-8 * g.norm()


def test_pcgrad_of_two_tasks_leaves_no_conflict():
    g = torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    d = direction("pcgrad", g)
    torch.testing.assert_close(d, projected(g, 0, (1,)) + projected(g, 1, (0,)))
    assert (g @ d).min() > 0


@given(many)
def test_without_conflict_projections_change_nothing(g):
    g = g.abs()
    for name in ("pcgrad", "wpcgrad"):
        torch.testing.assert_close(direction(name, g), g.sum(0))


@given(st.integers(0, 1000))
def test_wpcgrad_projects_one_member_of_a_conflicting_pair(seed):
    g = torch.tensor([[1.0, 0.2, 0.0], [-1.0, 1.0, 0.0]], dtype=torch.float64)
    first = g[0] - (g[0] @ g[1]) / (g[1] @ g[1]) * g[1] + g[1]
    second = g[0] + g[1] - (g[0] @ g[1]) / (g[0] @ g[0]) * g[0]
    d = direction("wpcgrad", g, seed=seed)
    assert min((d - first).norm(), (d - second).norm()) < 1e-12


def test_wpcgrad_protects_by_priority():
    """Task 0 keeps its gradient with probability p_0 / (p_0 + p_1)."""
    gram = torch.tensor([[1.0, -0.5], [-0.5, 1.0]], dtype=torch.float64)
    kept = []
    for seed in range(2000):
        weights = projected_weights(gram, torch.tensor([3.0, 1.0]), seeded("test", seed))
        assert sorted(weights.tolist()) == [1.0, 1.5]  # the other's gradient is added to the one that yields
        kept.append(weights[0] == 1.5)
    assert np.mean(kept) == pytest.approx(0.75, abs=0.03)


def test_wpcgrad_is_its_walk_for_one_of_the_orders_and_draws():
    """Three gradients in a plane, all in conflict: every pair is met once."""
    g = torch.tensor([[1.0, 0.0], [-0.5, 0.8], [-0.4, -0.9]], dtype=torch.float64)
    possible = []
    for order in itertools.permutations(itertools.combinations(range(3), 2)):
        for turned in itertools.product((False, True), repeat=3):
            now = g.clone()
            for (a, b), turn in zip(order, turned, strict=True):
                a, b = (b, a) if turn else (a, b)
                if now[a] @ g[b] < 0:
                    now[a] -= (now[a] @ g[b]) / (g[b] @ g[b]) * g[b]
            possible.append(now.sum(0))
    drawn = [direction("wpcgrad", g, step=step) for step in range(40)]
    assert all(min((d - p).norm() for p in possible) < 1e-12 for d in drawn)
    assert len({tuple(d.round(decimals=6).tolist()) for d in drawn}) > 4


@pytest.mark.parametrize("name", COMBINERS)
def test_one_task_keeps_its_direction(name):
    g = gradients(0, tasks=1)
    d = direction(name, g)
    torch.testing.assert_close(d / d.norm(), g[0] / g[0].norm())


@pytest.mark.parametrize("name", COMBINERS)
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_unit_of_the_gradients_does_not_matter(name, scale):
    g = gradients(1)
    one, other = direction(name, g), direction(name, g * scale)
    torch.testing.assert_close(other / other.norm(), one / one.norm(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", COMBINERS)
def test_degenerate_gradients_give_a_defined_answer(name):
    rule = combiner(name, TASKS)
    assert torch.equal(rule(torch.zeros(4, 4), 0), torch.ones(4, dtype=torch.float64))
    assert bool(rule(torch.full((4, 4), float("nan")), 0).isnan().all())
    g = gradients(2)
    g[1] = 0
    g[3] = -g[2]
    d = direction(name, g)
    assert bool(d.isfinite().all()) and d.norm() < 10 * g.norm()


@pytest.mark.parametrize("name", ["pcgrad", "wpcgrad"])
def test_chance_is_a_function_of_seed_and_step(name):
    g = gradients(5)
    g = g - 0.9 * g.mean(0)  # in conflict
    before = torch.random.get_rng_state()
    rule = combiner(name, TASKS, seed=3)
    drawn = [rule(g @ g.T, step) for step in range(12)]
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator was used"
    again = combiner(name, TASKS, seed=3)
    assert all(torch.equal(again(g @ g.T, step), drawn[step]) for step in reversed(range(12)))
    assert len({tuple(w.tolist()) for w in drawn}) > 1


def test_bad_arguments():
    for arguments, message in [
        (("graddrop",), "combine 'graddrop' is unknown"),
        (("cagrad", {"c": -1.0}), "c=-1.0 must be a number of at least 0"),
        (("cagrad", {"c": float("nan")}), "c=nan must be"),
        (("pcgrad", {"c": 0.5}), "c=0.5 is CAGrad's radius: leave it out for pcgrad"),
        (("pcgrad", {"priorities": {"a": 1.0}}), "priorities are wPCGrad's: leave them out for pcgrad"),
        (("wpcgrad", {"priorities": {"z": 1.0}}), "priorities name 'z', which is no task; known: a, b, c, d"),
        (("wpcgrad", {"priorities": {"a": 0.0}}), r"priorities\['a'\]=0.0 must be a positive number"),
    ]:
        with pytest.raises(ValueError, match=message):
            combiner(arguments[0], TASKS, **dict(*arguments[1:]))
    assert task_weights({"c": 2}, TASKS, "weights").tolist() == [1.0, 1.0, 2.0, 1.0]
