"""RegMean and RegMean++ against least squares on inputs computed by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import toy
from byhand import block, embedded
from strategies import assert_close

import adamerging_lib as am
from adamerging_lib.methods.regmean import NormalEquations, regmean, regmean_pp
from adamerging_lib.probing.activations import training_images

QUIET = {"images": 25, "progress": False}
PREFIXES = ("transformer.resblocks.0.", "transformer.resblocks.1.")
MAPS = ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


@pytest.fixture(scope="module")
def exact_suite():
    return toy.suite(seed=4, dtype=torch.float64)


@pytest.fixture(scope="module")
def averaged(exact_suite):
    return am.run_method("weight_averaging", exact_suite, cache=False).state_dict()


def least_squares(inputs, weights, off_diagonal: float) -> torch.Tensor:
    """argmin_W Σ_k ‖X_k W − X_k W_k‖² / n_k, or the stationary point with shrunk Gram matrices."""
    if off_diagonal == 1:
        rows = torch.cat([x / len(x) ** 0.5 for x in inputs])
        aims = torch.cat([x @ w.t() / len(x) ** 0.5 for x, w in zip(inputs, weights, strict=True)])
        return torch.linalg.lstsq(rows, aims).solution.t()
    shrink = torch.full((inputs[0].shape[1],) * 2, off_diagonal, dtype=torch.float64).fill_diagonal_(1)
    grams = [shrink * (x.t() @ x) / len(x) for x in inputs]
    return (torch.linalg.inv(sum(grams)) @ sum(g @ w.t() for g, w in zip(grams, weights, strict=True))).t()


def by_hand(suite, averaged, off_diagonal: float, follow: bool) -> dict[str, torch.Tensor]:
    """Maps by least squares on each expert's inputs; ``follow``: on what the merged blocks hand on."""
    merged = dict(averaged)
    drawn = training_images(suite, QUIET["images"], 0)
    images = {task: suite.normalise(part).double() for task, part in drawn.items()}
    streams = {task: embedded(merged if follow else suite.experts[task], x) for task, x in images.items()}
    for prefix in PREFIXES:
        outputs, seen = {}, {}
        for task in suite.tasks:
            outputs[task], seen[task] = block(suite.experts[task], prefix, streams[task], heads=2)
        for name in MAPS:
            inputs = [seen[task][prefix + name].flatten(0, 1) for task in suite.tasks]
            weights = [suite.experts[task][prefix + name] for task in suite.tasks]
            merged[prefix + name] = least_squares(inputs, weights, off_diagonal)
        streams = {t: block(merged, prefix, x, heads=2)[0] for t, x in streams.items()} if follow else outputs
    return merged


@pytest.mark.parametrize("off_diagonal", [1, 0.95, 0.0])
@pytest.mark.parametrize("method", [regmean, regmean_pp])
def test_against_least_squares_by_hand(exact_suite, averaged, method, off_diagonal):
    expected = by_hand(exact_suite, averaged, off_diagonal, follow=method is regmean_pp)
    merged = method(exact_suite, off_diagonal=off_diagonal, **QUIET).state_dict()
    # The jitter of 1e-6 shows where the Gram matrices are nearly singular.
    assert_close(merged, expected, rtol=1e-3, atol=1e-4)
    rest = {key: t for key, t in averaged.items() if not key.endswith(MAPS)}
    assert_close({key: merged[key] for key in rest}, rest)


def test_gradient_is_zero_without_shrinkage():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(4, 50, 6, generator=generator, dtype=torch.float64)
    weights = torch.randn(4, 3, 6, generator=generator, dtype=torch.float64)
    equations = NormalEquations(1.0, jitter=0.0)
    for x, w in zip(inputs, weights, strict=True):
        equations.add("map", x.t() @ x / len(x), w)
    solution = equations.solve()["map"].clone().requires_grad_()
    loss = sum((x @ solution.t() - x @ w.t()).square().mean(0).sum() for x, w in zip(inputs, weights, strict=True))
    (gradient,) = torch.autograd.grad(loss, solution)
    assert float(gradient.abs().max()) < 1e-12 < 1e-2 < float(loss.detach())


@pytest.mark.parametrize("off_diagonal", [1.0, 0.95, 0.0])
def test_equal_grams_give_the_average_and_dead_inputs_too(off_diagonal):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    x[:, 4] = 0
    weights = torch.randn(4, 3, 6, generator=generator, dtype=torch.float64)
    equations = NormalEquations(off_diagonal)
    for k, w in enumerate(weights):
        equations.add("same", x.t() @ x, w)
        equations.add("scaled", (1 + k) * x.t() @ x, w)
        equations.add("dead", torch.zeros(6, 6, dtype=torch.float64), w)
    solved = equations.solve()
    for name in ("same", "dead"):
        torch.testing.assert_close(solved[name], weights.mean(0))
    shares = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    torch.testing.assert_close(solved["scaled"], torch.tensordot(shares, weights, 1))


@pytest.mark.parametrize("method", [regmean, regmean_pp])
def test_one_task_is_its_expert_and_equal_experts_are_kept(exact_suite, method):
    alone = toy.suite(seed=1, tasks=("alpha",), dtype=torch.float64)
    assert_close(method(alone, **QUIET).state_dict(), dict(alone.experts["alpha"]))
    same = exact_suite.experts["beta"]
    equal = dataclasses.replace(exact_suite, experts=dict.fromkeys(exact_suite.tasks, same))
    assert_close(method(equal, **QUIET).state_dict(), dict(same))


@pytest.mark.parametrize("method", [regmean, regmean_pp])
def test_mlp_only_averages_attention(exact_suite, averaged, method):
    whole, part = (method(exact_suite, mlp_only=only, **QUIET).state_dict() for only in (False, True))
    attention = [key for key in whole if ".attn." in key and key.endswith("weight")]
    assert len(attention) == 4
    assert_close({key: part[key] for key in attention}, {key: averaged[key] for key in attention})
    assert not any(torch.allclose(whole[key], averaged[key]) for key in attention)
    mlp = [key for key in whole if ".mlp." in key and key.endswith("weight")]
    assert not any(torch.allclose(part[key], averaged[key]) for key in mlp)
    if method is regmean:  # every map is solved for on its own
        assert_close({key: part[key] for key in mlp}, {key: whole[key] for key in mlp})


def test_the_last_norm_may_stay_as_it_was(exact_suite, averaged):
    """As published; nothing else moves, and a final projection is averaged all the same."""
    ours = regmean_pp(exact_suite, **QUIET)
    theirs = regmean_pp(exact_suite, last_norm="pretrained", **QUIET).state_dict()
    assert ours.hyper["last_norm"] == "average"
    for key, t in ours.state_dict().items():
        norm = key.startswith("ln_post.")
        assert torch.equal(theirs[key], exact_suite.pretrained[key] if norm else t), key
        assert not norm or not torch.equal(t, theirs[key])
    assert_close({"proj": theirs["proj"]}, {"proj": averaged["proj"]})
    with pytest.raises(ValueError, match="last_norm 'pretraned' is unknown: did you mean 'pretrained'"):
        regmean_pp(exact_suite, last_norm="pretraned", **QUIET)


def test_order_of_tasks_does_not_matter(exact_suite):
    turned = dataclasses.replace(exact_suite, experts=dict(reversed(exact_suite.experts.items())))
    for method in (regmean, regmean_pp):
        assert_close(method(turned, **QUIET).state_dict(), method(exact_suite, **QUIET).state_dict())


@pytest.mark.parametrize("bad", [-0.1, 1.1, True, "0.95", float("nan")])
def test_bad_values(suite, bad):
    for method in (regmean, regmean_pp):
        with pytest.raises(ValueError, match=r"off_diagonal=.* must lie in \[0, 1\]"):
            method(suite, off_diagonal=bad, **QUIET)
        with pytest.raises(ValueError, match="images=0 must be a whole number"):
            method(suite, images=0)
