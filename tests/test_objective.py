"""AdaMerging's options: each against autograd through the merge, and what it promises over a whole descent."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import toy
from strategies import assert_equal
from torch.func import functional_call
from torch.nn import functional as F

import adamerging_lib as am
from adamerging_lib.learning.model import suite_source
from adamerging_lib.learning.objective import CLAMPS, Objective, entropy_loss, label_loss
from adamerging_lib.learning.streams import task_streams
from adamerging_lib.methods.adamerging import loss_terms

SHORT = {"steps": 6, "lr": 0.05, "batch_size": 4, "batches": 2, "progress": False}
CPU = torch.device("cpu")
SQUASH = {True: lambda w: w.clamp(0, 1), False: lambda w: w, "tanh": torch.tanh, "sigmoid": torch.sigmoid}


@pytest.fixture(scope="module")
def exact_suite():
    return toy.suite(seed=1, dtype=torch.float64)


def objective_of(suite, clamp=True, start=None, **terms):
    tv = suite.task_vectors()
    return Objective.of(suite_source(suite), tv, tv.rows("tensor"), clamp=clamp, device=CPU, start=start, **terms)


def written_out(suite, objective, raw, images, labels, batches, *, filter=None, diversity=0.0, supervised=False):
    """L_k ``[K]`` with a graph through clamp, merge, encoder and head, a loop over batches and images."""
    tv, used = objective.tv, SQUASH[objective.clamp](raw)
    state = dict(tv.pretrained)
    for key, t in tv.vectors.items():
        lam = used[:, objective.rows.index[key]]
        state[key] = tv.pretrained[key] + sum(lam[k] * t[k] for k in range(len(tv.tasks)))
    losses, size = [], len(images) // len(tv.tasks)
    for k, task in enumerate(tv.tasks):
        total = 0.0
        for b in range(batches):
            place = range(k * size + b * size // batches, k * size + (b + 1) * size // batches)
            feature = functional_call(suite.encoder, state, (suite.normalise(images[place]).double(),))
            p = (feature / feature.norm(dim=-1, keepdim=True) @ suite.heads[task].t()).softmax(-1)
            if supervised:
                total = total - p[range(len(p)), labels[place]].log().mean()
                continue
            entropies = [-(row * row.log()).sum() for row in p]
            limit = math.inf if filter is None else filter * math.log(p.shape[1])
            if kept := [h for h in entropies if h < limit]:
                total = total + sum(kept) / len(kept)
            total = total + diversity * (p.mean(0) * p.mean(0).log()).sum()
        losses.append(torch.as_tensor(total, dtype=torch.float64))
    return torch.stack(losses)


def sample(suite, n=8):
    images = torch.cat([suite.test[task].images[:n] for task in suite.tasks])
    return images, torch.cat([suite.test[task].labels[:n] for task in suite.tasks])


def random_raw(suite, seed=3):
    shape = len(suite.tasks), len(suite.task_vectors().rows("tensor").names)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 0.5


@pytest.mark.parametrize("clamp", CLAMPS)
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"filter": 0.8},
        {"diversity": 0.7},
        {"pull": 0.3},
        {"weights": {"alpha": 2.0, "gamma": 0.25}},
        {"filter": 0.9, "diversity": 0.5, "pull": 0.1, "weights": {"beta": 3}},
    ],
    ids=lambda given: "+".join(given) or "published",
)
def test_every_term_equals_autograd_through_the_merge(exact_suite, clamp, given):
    raw, (images, labels) = random_raw(exact_suite), sample(exact_suite)
    start = torch.full_like(raw, 0.3)
    objective = objective_of(
        exact_suite, clamp, start, **loss_terms(given, None, exact_suite.tasks, seed=0, device=CPU)
    )
    values, gradient = objective.losses_and_gradient(raw, images, batches=2)
    leaf = raw.clone().requires_grad_()
    terms = {name: given[name] for name in ("filter", "diversity") if name in given}
    expected = written_out(exact_suite, objective, leaf, images, labels, 2, **terms)
    torch.testing.assert_close(values, expected.detach(), rtol=1e-9, atol=1e-10)
    weights = torch.tensor([given.get("weights", {}).get(task, 1.0) for task in exact_suite.tasks]).double()
    total = (weights * expected).sum() + given.get("pull", 0.0) * (SQUASH[clamp](leaf) - start).square().sum()
    torch.testing.assert_close(gradient, torch.autograd.grad(total, leaf)[0], rtol=1e-6, atol=1e-9)
    assert gradient.abs().max() > 1e-3


def test_the_filter_leaves_some_and_may_leave_none(exact_suite):
    scores = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
    entropies = torch.distributions.Categorical(logits=scores).entropy()
    limit = 0.6 * math.log(4)
    assert 0 < (entropies < limit).sum() < 12
    means = [part[part < limit].mean() for part in entropies.split(6)]
    torch.testing.assert_close(entropy_loss(filter=0.6)(scores, None, 2), sum(means))
    nothing = torch.zeros(6, 4, dtype=torch.float64, requires_grad=True)
    value = entropy_loss(filter=0.4)(nothing, None, 1)
    assert value == 0 and not torch.autograd.grad(value, nothing)[0].any()


def test_diversity_survives_classes_that_underflow():
    scores = torch.tensor([[200.0, 0.0, -200.0]] * 4, requires_grad=True)
    value = entropy_loss(diversity=1.0)(scores, None, 1)
    assert value == 0 and bool(torch.autograd.grad(value, scores)[0].isfinite().all())


def test_diversity_rewards_spread_predictions():
    one, each = torch.zeros(4, 4), 50 * torch.eye(4)
    one[:, 0] = 50
    loss = entropy_loss(diversity=1.0)
    assert loss(one, None, 1).item() == pytest.approx(0, abs=1e-6)
    assert loss(each, None, 1).item() == pytest.approx(-math.log(4), abs=1e-6)


def test_a_prior_wants_predictions_as_diverse_as_the_experts():
    """Σ over batches of mean H(p) + w KL(mean p ‖ mean p_k), written out; columns of other tasks do not count."""
    generator = torch.Generator().manual_seed(0)
    scores, taught = (3 * torch.randn(8, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = 0.0
    for p, q in zip(scores.softmax(-1).split(4), taught.softmax(-1).split(4), strict=True):
        own, wanted = p.mean(0), q.mean(0)
        expected += -(p * p.log()).sum(-1).mean() + 0.7 * (own * (own / wanted).log()).sum()
    padded = torch.nn.functional.pad(taught, (0, 3), value=-math.inf)
    found = entropy_loss(diversity=0.7, prior=True)(scores, padded, 2)
    torch.testing.assert_close(found, expected)
    one = torch.zeros(4, 4)
    one[:, 0] = 50  # where the expert finds one class only, so may the merged model
    assert entropy_loss(diversity=1.0, prior=True)(one, one, 1).item() == pytest.approx(0, abs=1e-6)


def test_a_prior_reaches_the_fit_and_is_refused_alone(suite):
    short = {"steps": 3, "lr": 0.1, "batch_size": 4, "batches": 2, "progress": False}
    with_prior = am.adamerge(suite, objective={"diversity": 1.0, "prior": "experts"}, **short)
    without = am.adamerge(suite, objective={"diversity": 1.0}, **short)
    assert not torch.equal(with_prior.trajectory, without.trajectory)
    assert with_prior.hyper["objective"] == {"diversity": 1.0, "prior": "experts"}
    with pytest.raises(ValueError, match="give 'diversity' too"):
        am.adamerge(suite, objective={"prior": "experts"}, **short)
    with pytest.raises(ValueError, match="prior"):
        am.adamerge(suite, objective={"diversity": 1.0, "prior": "uniform"}, **short)


@pytest.mark.parametrize("clamp", ["tanh", True])
def test_label_loss_equals_autograd_through_the_merge(exact_suite, clamp):
    raw, (images, labels) = random_raw(exact_suite), sample(exact_suite)
    objective = objective_of(exact_suite, clamp, loss=label_loss)
    values, gradient = objective.losses_and_gradient(raw, images, 2, labels=labels)
    leaf = raw.clone().requires_grad_()
    expected = written_out(exact_suite, objective, leaf, images, labels, 2, supervised=True)
    torch.testing.assert_close(values, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), leaf)[0], rtol=1e-6, atol=1e-9)


# Combined gradients


def test_combining_sees_the_tasks_own_gradients(exact_suite):
    """A rule gets their Gram matrix, and its weights take effect on them."""
    raw, (images, labels) = random_raw(exact_suite), sample(exact_suite)
    wanted = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    seen = []

    def rule(gram, step):
        seen.append((gram, step))
        return wanted

    objective = objective_of(exact_suite, "sigmoid", combine=rule)
    values, gradient = objective.losses_and_gradient(raw, images, 2, step=7)
    leaf = raw.clone().requires_grad_()
    losses = written_out(exact_suite, objective, leaf, images, labels, 2)
    jacobian = torch.stack([torch.autograd.grad(loss, leaf, retain_graph=True)[0].flatten() for loss in losses])
    torch.testing.assert_close(values, losses.detach())
    torch.testing.assert_close(seen[0][0], jacobian @ jacobian.T, rtol=1e-6, atol=1e-12)
    assert seen[0][1] == 7
    torch.testing.assert_close(gradient.flatten(), wanted @ jacobian, rtol=1e-6, atol=1e-9)


def test_weights_of_one_are_the_sum(exact_suite):
    raw, (images, _) = random_raw(exact_suite), sample(exact_suite)
    one = objective_of(exact_suite).losses_and_gradient(raw, images, 2)
    other = objective_of(exact_suite, combine=lambda gram, step: torch.ones(3)).losses_and_gradient(raw, images, 2)
    torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rule", ["pcgrad", "wpcgrad", "cagrad", "nash_mtl", "min_norm"])
def test_a_descent_with_combined_gradients_repeats_and_differs_from_the_sum(suite, rule):
    plain, one, two = (am.adamerge(suite, combine=c, **SHORT) for c in (None, rule, rule))
    assert torch.equal(one.trajectory, two.trajectory)
    assert one.hyper["combine"] == rule and "combine" not in plain.hyper
    # The toy's gradients hardly conflict, so projections may change nothing; the other rules reweigh always.
    if rule not in ("pcgrad", "wpcgrad"):
        assert (one.trajectory[-1] - plain.trajectory[-1]).abs().max() > 1e-4
    assert one.history["loss"].iloc[-1] < one.history["loss"].iloc[0]


def test_priorities_of_wpcgrad_are_no_loss_weights(suite):
    weights = {"alpha": 3.0}
    assert "weights" not in loss_terms({"weights": weights}, "wpcgrad", suite.tasks, seed=0, device=CPU)
    scaled = loss_terms({"weights": weights}, "pcgrad", suite.tasks, seed=0, device=CPU)
    assert scaled["weights"].tolist() == [3.0, 1.0, 1.0]


def test_a_killed_run_with_chance_in_its_rule_resumes_bit_for_bit(suite, tmp_path):
    class Killed(Exception):
        pass

    def kill(done, coefficients):
        if done == 4:
            raise Killed

    options = {"combine": "wpcgrad", "clamp": "tanh", "objective": {"pull": 0.1, "filter": 0.9}}
    hyper = {**SHORT, **options, "lr": 0.2}
    whole = am.adamerge(suite, **hyper)
    path = tmp_path / "fit.safetensors"
    am.adamerge(suite, checkpoint=path, **{**hyper, "steps": 2})
    with pytest.raises(Killed):
        am.adamerge(suite, checkpoint=path, callback=kill, **hyper)
    resumed = am.adamerge(suite, checkpoint=path, **hyper)
    assert torch.equal(resumed.trajectory, whole.trajectory) and resumed.history.equals(whole.history)
    with pytest.raises(ValueError, match='objective: {"filter": 0.9, "pull": 0.1} there, null here'):
        am.adamerge(suite, checkpoint=path, **{**hyper, "objective": None})


# Soft clamps


@pytest.mark.parametrize(("clamp", "low"), [("tanh", -1), ("sigmoid", 0)])
def test_soft_clamps_start_at_init_and_stay_inside(suite, clamp, low):
    fit = am.adamerge(suite, clamp=clamp, **{**SHORT, "steps": 30, "lr": 0.5})
    torch.testing.assert_close(fit.trajectory[0], torch.full_like(fit.trajectory[0], 0.3))
    assert fit.trajectory.min() > low and fit.trajectory.max() < 1
    assert fit.trajectory[-1].min() < fit.trajectory[0].min() - 0.1
    assert fit.hyper["clamp"] == clamp
    with pytest.raises(ValueError, match=rf"clamp='{clamp}' keeps λ inside \({low}, 1\): start there, not at 1..1"):
        am.adamerge(suite, clamp=clamp, init=1.0, **SHORT)


# The pull and the weights over a descent


def test_a_strong_pull_keeps_the_start(suite):
    hyper = {**SHORT, "steps": 30, "lr": 0.01}
    free = am.adamerge(suite, **hyper)
    held = am.adamerge(suite, objective={"pull": 1e3}, **hyper)
    assert (held.trajectory - 0.3).abs().max() < 0.1 * (free.trajectory[-1] - 0.3).abs().max()


def test_history_is_the_whole_objective(suite):
    given = {"weights": {"beta": 2.0}, "pull": 0.5}
    fit = am.adamerge(suite, objective=given, **SHORT)
    per_task = 2 * fit.history[list(suite.tasks)].to_numpy()  # two batches
    moved = (fit.trajectory[:-1] - fit.trajectory[0]).square().sum((1, 2)).numpy()
    expected = per_task @ [1.0, 2.0, 1.0] + 0.5 * moved
    assert fit.history["loss"].to_numpy() == pytest.approx(expected, rel=1e-5)
    assert moved[-1] > 0


# Pools of images


def test_pools_are_fixed_nested_and_all_that_is_used(suite):
    def pool(n):
        streams = task_streams(suite, suite.tasks, size=n, seed=5, setting="transductive", device=CPU, images=n)
        return [s.indices(0) for s in streams]

    pools = {n: pool(n) for n in (8, 16, 30)}
    for small, large, whole in zip(*pools.values(), strict=True):
        assert len(small) == 8 and set(small.tolist()) < set(large.tolist()) < set(whole.tolist()) == set(range(30))
    blind = {}
    for task, pool in zip(suite.tasks, pools[8], strict=True):
        images = torch.zeros_like(suite.test[task].images)
        images[pool] = suite.test[task].images[pool]
        blind[task] = dataclasses.replace(suite.test[task], images=images)
    hyper = {**SHORT, "images": 8, "seed": 5}
    fit = am.adamerge(suite, **hyper)
    assert_equal(am.adamerge(dataclasses.replace(suite, test=blind), **hyper).state_dict(), fit.state_dict())
    assert fit.hyper["images"] == 8


def test_pools_of_the_inductive_setting_lie_in_its_half(suite):
    for task, stream in zip(
        suite.tasks,
        task_streams(suite, suite.tasks, size=4, seed=0, setting="inductive", device=CPU, images=8),
        strict=True,
    ):
        assert set(stream.indices(0).tolist()) <= set(am.split_indices(len(suite.test[task]))[0].tolist())


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"images": 31}, "images=31, but task 'alpha' has 30"),
        ({"images": 0}, "images=0 must be a whole number of at least 1"),
        ({"clamp": "softplus"}, "clamp='softplus' is unknown"),
        ({"combine": "mgda"}, "combine 'mgda' is unknown"),
        ({"objective": {"fliter": 0.4}}, "no 'fliter'; known: filter"),
        ({"objective": {"filter": 40}}, r"objective\['filter'\]=40 is a share of log C: give one of at most 1"),
        ({"objective": {"diversity": -1.0}}, r"objective\['diversity'\]=-1.0 must be a positive number"),
        ({"objective": {"weights": {"delta": 1.0}}}, "'delta', which is no task; known: alpha"),
        ({"objective": {"weights": {"beta": 0}}}, r"weights\['beta'\]=0 must be a positive number"),
    ],
)
def test_bad_arguments(suite, hyper, message):
    with pytest.raises(ValueError, match=message):
        am.adamerge(suite, **{**SHORT, **hyper})


def test_options_reach_the_cache_key(suite):
    """Plain values all through: a fit with options is kept and found again, apart from the one without."""
    hyper = {"recipe": "mini", "steps": 2, "batch_size": 4, "progress": False}
    options = {"objective": {"filter": 0.9, "weights": {"alpha": 2.0}}, "combine": "cagrad", "images": 8}
    one, two = (am.run_method("layer_wise_adamerging", suite, **hyper, **options) for _ in range(2))
    assert torch.equal(one.trajectory, two.trajectory) and one.hyper == two.hyper
    assert not torch.equal(am.run_method("layer_wise_adamerging", suite, **hyper).trajectory, one.trajectory)


def test_nan_is_named_with_combined_gradients_too(suite):
    broken = dataclasses.replace(suite, heads={**suite.heads, "beta": suite.heads["beta"] * float("nan")})
    for rule in ("cagrad", "nash_mtl", "pcgrad"):
        with pytest.raises(ValueError, match="entropy of beta is NaN at step 0"):
            am.adamerge(broken, combine=rule, **SHORT)


def test_label_loss_is_cross_entropy():
    scores, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])
    expected = F.cross_entropy(scores[:3], labels[:3]) + F.cross_entropy(scores[3:], labels[3:])
    torch.testing.assert_close(label_loss(scores, labels, 2), expected)
