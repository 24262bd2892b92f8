"""Fisher merging against one backward pass per image and class."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import toy
from strategies import assert_close, copy
from torch.func import functional_call

import adamerging_lib as am
from adamerging_lib.methods.fisher import _drawn_classes, _eigenvectors, fisher
from adamerging_lib.probing.activations import training_images

QUIET = {"images": 6, "progress": False}


@pytest.fixture(scope="module")
def exact_suite():
    return toy.suite(seed=4, dtype=torch.float64, n=12)


def information(suite, task: str, images: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """F = mean over images of Σ_c p_c (∂ log p_c / ∂θ)², by autograd, one image and one class at a time."""
    state = {key: t.clone() for key, t in suite.experts[task].items()}
    leaves = {key: t.requires_grad_() for key, t in state.items() if t.is_floating_point()}
    total = {key: torch.zeros_like(t) for key, t in leaves.items()}
    drawn = training_images(suite, images, seed)[task]
    for image in suite.normalise(drawn).double():
        feature = functional_call(suite.encoder, state, (image[None],))[0]
        p = (suite.heads[task] @ (feature / feature.norm())).softmax(0)
        for c in range(len(p)):
            grads = torch.autograd.grad(p[c].log(), list(leaves.values()), retain_graph=True)
            for key, g in zip(leaves, grads, strict=True):
                total[key] += p[c].detach() * g**2 / len(drawn)
    return total


def weighted_mean(suite, informations, weights) -> dict[str, torch.Tensor]:
    state = copy(suite.pretrained)
    for key in informations[0]:
        f = [w * information[key] for w, information in zip(weights, informations, strict=True)]
        top = sum(part * suite.experts[task][key] for part, task in zip(f, suite.tasks, strict=True))
        state[key] = top / sum(f)
    return state


def with_floor(information, floor):
    return {key: t + floor for key, t in information.items()}


@pytest.mark.parametrize("floor", [1e-6, 1e-2])
@pytest.mark.parametrize("normalise", [True, False])
def test_against_a_backward_pass_an_image_and_class(exact_suite, normalise, floor):
    raw = [information(exact_suite, task, 6) for task in exact_suite.tasks]
    norms = [sum(float((t**2).sum()) for t in part.values()) ** 0.5 for part in raw]
    weights = [1 / (norm + floor) if normalise else 1.0 for norm in norms]
    expected = weighted_mean(exact_suite, [with_floor(part, floor) for part in raw], weights)
    merged = fisher(exact_suite, coverage=1, normalise=normalise, floor=floor, **QUIET)
    assert_close(merged.state_dict(), expected, rtol=1e-8, atol=1e-10)


def test_coverage_bounds_what_is_left_out(exact_suite):
    exact = fisher(exact_suite, coverage=1, **QUIET).state_dict()

    def distance(coverage):
        state = fisher(exact_suite, coverage=coverage, **QUIET).state_dict()
        return sum(float((state[key] - t).norm() ** 2) for key, t in exact.items() if t.is_floating_point()) ** 0.5

    assert distance(1 - 1e-9) < 1e-4 < distance(0.3)
    p = torch.rand(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(-1)
    h = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    for coverage in (0.5, 0.9, 1.0):
        which, directions = _eigenvectors(p, coverage)
        kept = torch.zeros_like(h).index_add_(0, which, directions[:, :, None] * directions[:, None, :])
        share = float(kept.diagonal(dim1=1, dim2=2).sum() / h.diagonal(dim1=1, dim2=2).sum())
        assert coverage - 1e-9 <= share <= 1 + 1e-9
        left = torch.linalg.eigvalsh(h - kept)
        assert float(left.min()) > -1e-12, "what is left out is a sum of squares too"
    torch.testing.assert_close(kept, h)


def test_classes_drawn_have_the_whole_sum_as_expectation(exact_suite):
    p = torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.05, 0.9]], dtype=torch.float64)
    which, directions = _drawn_classes(p, 40_000, torch.Generator().manual_seed(0))
    mean = torch.zeros(2, 3, 3, dtype=torch.float64)
    mean.index_add_(0, which, directions[:, :, None] * directions[:, None, :])
    torch.testing.assert_close(mean, torch.diag_embed(p) - p[:, :, None] * p[:, None, :], atol=0.01, rtol=0)
    exact = fisher(exact_suite, coverage=1, **QUIET).state_dict()
    few, many = (fisher(exact_suite, mc_samples=n, **QUIET).state_dict() for n in (1, 100))
    error = [sum(float((s[k] - t).double().norm() ** 2) for k, t in exact.items()) for s in (few, many)]
    assert error[1] < 0.1 * error[0]


def test_one_task_is_its_expert_and_equal_experts_are_kept(exact_suite):
    alone = toy.suite(seed=1, tasks=("alpha",), dtype=torch.float64)
    assert_close(fisher(alone, **QUIET).state_dict(), dict(alone.experts["alpha"]))
    same = exact_suite.experts["beta"]
    equal = dataclasses.replace(exact_suite, experts=dict.fromkeys(exact_suite.tasks, same))
    assert_close(fisher(equal, **QUIET).state_dict(), dict(same))


def test_a_large_floor_is_the_average(exact_suite):
    averaged = am.run_method("weight_averaging", exact_suite).state_dict()
    merged = fisher(exact_suite, floor=1e12, normalise=False, **QUIET).state_dict()
    assert_close(merged, averaged, rtol=1e-6, atol=1e-6)


def test_without_a_floor_what_no_gradient_reaches_is_averaged(exact_suite):
    """Keys' biases cancel in the softmax: their Fisher information is zero up to rounding, or exactly so unused."""
    heads = {task: torch.zeros_like(head) for task, head in exact_suite.heads.items()}
    merged = fisher(dataclasses.replace(exact_suite, heads=heads), floor=0.0, **QUIET).state_dict()
    assert_close(merged, am.run_method("weight_averaging", exact_suite).state_dict())


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"mc_samples": -1}, "mc_samples=-1 must be a whole number"),
        ({"coverage": 0.0}, "coverage=0.0 must be a positive number"),
        ({"coverage": 1.5}, r"coverage=1.5 is a share: it must lie in \(0, 1\]"),
        ({"floor": -1.0}, "floor=-1.0 must be a positive number"),
        ({"floor": "small"}, "floor='small' must be a positive number"),
        ({"images": 0}, "images=0 must be a whole number"),
    ],
)
def test_bad_values(suite, hyper, message):
    with pytest.raises(ValueError, match=message):
        fisher(suite, **{**QUIET, **hyper})
