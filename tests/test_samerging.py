"""SAMerging against a loop over autograd, two gradients per step; and this study's recipe against `adamerge`."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import toy
from strategies import assert_equal
from torch.func import functional_call
from torch.nn import functional as F

import adamerging_lib as am
from adamerging_lib.learning.imitation import distillation_loss
from adamerging_lib.learning.streams import Stream
from adamerging_lib.methods.components import RECIPE

SHORT = {"steps": 7, "lr": 0.05, "batch_size": 4, "progress": False}


@pytest.fixture(scope="module")
def exact_suite():
    return toy.suite(seed=1, dtype=torch.float64)


def logits(suite, state, task, images):
    feature = functional_call(suite.encoder, state, (suite.normalise(images).double(),))
    return feature / feature.norm(dim=-1, keepdim=True) @ suite.heads[task].t()


def distances(suite, raw, number, rho):
    """Σ_k KL(expert ‖ merged) at temperature 2 on one step's batches; its gradient at raw, or where ρ leads."""
    at = raw.detach().clone().requires_grad_()
    tv, total = suite.task_vectors(), torch.zeros((), dtype=raw.dtype)
    state = dict(tv.pretrained)
    for row, (key, t) in enumerate(tv.vectors.items()):
        lengths = t.flatten(1).norm(dim=1).view(-1, *[1] * (t.dim() - 1))
        state[key] = tv.pretrained[key] + (at[:, row].view(lengths.shape) * t / lengths).sum(0)
    for task in suite.tasks:
        images = Stream(suite.test[task].images, size=4, task=task, seed=0).batch(number)
        theirs = (logits(suite, suite.experts[task], task, images) / 2).softmax(-1)
        own = (logits(suite, state, task, images) / 2).softmax(-1)
        total = total + (theirs * (theirs / own).log()).sum(-1).mean()
    (gradient,) = torch.autograd.grad(total, at, allow_unused=True)
    if not rho:
        return total.detach(), gradient
    step = rho * raw**2 * gradient / max(float((raw * gradient).norm()), 1e-300)
    return total.detach(), distances(suite, raw + step, number, 0.0)[1]


@pytest.mark.parametrize("rho", [0.07, 2.0])
def test_descent_is_two_gradients_per_step_and_momentum(exact_suite, rho):
    fit = am.run_method("samerging", exact_suite, cache=False, rho=rho, **SHORT)
    raw = torch.zeros_like(fit.coefficients.values)
    sgd = torch.optim.SGD([raw], lr=SHORT["lr"], momentum=0.99, weight_decay=5e-4)
    for step in range(SHORT["steps"]):
        total, raw.grad = distances(exact_suite, raw, step, rho)
        assert fit.history["loss"][step] == pytest.approx(total.item(), rel=1e-8)
        sgd.step()
    torch.testing.assert_close(fit.coefficients.values, raw, rtol=1e-7, atol=1e-9)
    assert not torch.allclose(
        raw, am.run_method("samerging", exact_suite, cache=False, rho=1e-9, **SHORT).trajectory[-1]
    )


def test_it_resumes_to_the_same_bits(suite, tmp_path):
    whole = am.run_method("samerging", suite, cache=False, **SHORT)
    path = tmp_path / "run.safetensors"
    am.run_method("samerging", suite, cache=False, checkpoint=path, **{**SHORT, "steps": 4})
    again = am.run_method("samerging", suite, cache=False, checkpoint=path, **SHORT)
    assert_equal(again.state_dict(), whole.state_dict())
    assert torch.equal(again.trajectory, whole.trajectory)


def test_a_tensor_that_no_task_moves_stays(suite):
    key = next(key for key in suite.pretrained if key.endswith("weight"))
    experts = {task: {**state, key: suite.pretrained[key]} for task, state in suite.experts.items()}
    fit = am.run_method("samerging", dataclasses.replace(suite, experts=experts), cache=False, **SHORT)
    assert torch.equal(fit.state_dict()[key], suite.pretrained[key])
    with pytest.raises(ValueError, match="rho"):
        am.run_method("samerging", suite, rho=0.0, **SHORT)


def test_distillation_at_temperature_one_is_cross_entropy_less_what_the_expert_is_unsure():
    generator = torch.Generator().manual_seed(0)
    own, taught = torch.randn(6, 4, generator=generator), torch.randn(6, 4, generator=generator)
    padded = F.pad(taught, (0, 2), value=-torch.inf)  # as where another task has more classes
    soft = taught.softmax(-1)
    expected = F.cross_entropy(own, soft) - (-(soft * soft.log()).sum(-1)).mean()
    torch.testing.assert_close(distillation_loss(1.0)(own, padded, 2), 2 * expected)
    assert float(distillation_loss(3.0)(taught, padded, 1)) == pytest.approx(0, abs=1e-6)


def test_this_studys_recipe_is_adamerge_with_four_choices(suite):
    short = {"steps": 3, "images": 12, "seed": 4, "progress": False}
    fit = am.run_method("component_adamerging", suite, cache=False, **short)
    same = am.adamerge(suite, vectors="tsv", granularity="component", objective="imitation", **{**RECIPE, **short})
    assert_equal(fit.state_dict(), same.state_dict())
    assert fit.method == "component_adamerging" and fit.hyper == same.hyper and fit.hyper["lr"] == 0.03
    watched = am.run_method("component_adamerging", suite, cache=False, guard=True, **short)
    assert watched.guard is not None
