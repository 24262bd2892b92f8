"""AdaRank: its gradient against autograd through the straight-through mask, and what scores and λ do."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import toy
from torch.nn import functional as F

import adamerging_lib as am
from adamerging_lib import merge
from adamerging_lib.forward import features
from adamerging_lib.methods.adarank import SCORE, Components
from adamerging_lib.vectors.spectral import block_matrices

SHORT = {"recipe": "mini", "steps": 3, "batch_size": 4, "progress": False}


def run(suite: am.Suite, **hyper) -> am.Merged:
    return am.run_method("adarank", suite, cache=False, **{**SHORT, **hyper})


def wide(suite: am.Suite) -> am.Suite:
    """In float64, where autograd and the chain rule by hand agree to rounding."""

    def widen(state):
        return {key: t.double() if t.is_floating_point() else t for key, t in state.items()}

    return dataclasses.replace(
        suite,
        pretrained=widen(suite.pretrained),
        experts={task: widen(state) for task, state in suite.experts.items()},
        heads={task: head.double() for task, head in suite.heads.items()},
    )


def test_gradient_is_autograd_through_the_published_mask():
    suite = wide(toy.suite(seed=4))
    tv = suite.task_vectors()
    parts, temperature = Components.of(tv), 2.0
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape):
        return torch.nn.Parameter(torch.randn(*shape, generator=generator, dtype=torch.float64))

    table = leaf(3, len(tv.vectors))
    scores = {key: leaf(*vh.shape[:2]) for key, (_, vh) in parts.factors.items()}
    images = suite.normalise(torch.cat([suite.test[task].images[:5] for task in suite.tasks])).double()

    def loss(state):
        unit = features(suite.encoder, state, images).split(5)
        p = [F.softmax(u @ head.T, -1) for u, head in zip(unit, suite.heads.values(), strict=True)]
        return sum(-(one * one.log()).sum(-1).mean() for one in p)

    # The merge as the published code builds it, one SVD per matrix and task, with the graph through it.
    built = dict(suite.pretrained)
    for row, (key, t) in enumerate(tv.vectors.items()):
        for k in range(3):
            vector = t[k]
            if key in scores:
                u, s, vh = torch.linalg.svd(t[k], full_matrices=False)
                soft = torch.sigmoid(scores[key][k] / temperature)
                mask = soft + ((soft > 0.5).double() - soft).detach()
                vector = (u * (mask * s)) @ vh
            built[key] = built[key] + table[k, row] * vector
    expected = torch.autograd.grad(loss(built), [table, *scores.values()])

    state = parts.merge(table, scores)
    for key in tv.vectors:
        torch.testing.assert_close(state[key], built[key].detach())
    leaves = {key: state[key].requires_grad_() for key in tv.vectors}
    grads = torch.autograd.grad(loss(state), list(leaves.values()), allow_unused=True)
    parts.backward(dict(zip(leaves, grads, strict=True)), table, scores, temperature)
    for found, wanted in zip([table, *scores.values()], expected, strict=True):
        torch.testing.assert_close(found.grad, wanted, rtol=1e-6, atol=1e-12)
        assert wanted.abs().max() > 1e-6


def test_before_the_first_step_it_is_task_arithmetic(suite):
    state = run(suite, steps=0).state_dict()
    for key, t in merge("task_arithmetic", suite.task_vectors()).state_dict().items():
        torch.testing.assert_close(state[key], t, msg=key)


def test_before_the_first_step_it_is_cart():
    """Mean of the experts, plus 2.3 times what is left of every expert at a share of its rank."""
    suite = wide(toy.suite(seed=5))
    state = run(suite, steps=0, start="cart", rank=0.25).state_dict()
    inside = block_matrices(suite.task_vectors())
    for key, t in suite.pretrained.items():
        if not t.is_floating_point():
            continue
        experts = torch.stack([s[key] for s in suite.experts.values()])
        left = experts - experts.mean(0)
        if key in inside:
            u, s, vh = torch.linalg.svd(left, full_matrices=False)
            r = int(0.25 * s.shape[-1])
            left = (u[..., :r] * s[:, None, :r]) @ vh[:, :r]
        torch.testing.assert_close(state[key], experts.mean(0) + 2.3 * left.sum(0), msg=key)


def test_rank_zero_leaves_the_blocks_matrices_alone(suite):
    state = run(suite, steps=0, rank=0.0).state_dict()
    inside = block_matrices(suite.task_vectors())
    for key, t in suite.pretrained.items():
        assert torch.equal(state[key], t) == (key in inside or not t.is_floating_point()), key


def test_scores_flip_and_coefficients_move(suite):
    """A learning rate past the first scores prunes at once what raises the entropy, and takes it back."""
    merged = run(suite, steps=4, lr=2 * SCORE)
    kept = merged.history["kept"]
    assert kept[0] == 1 and 0.2 < kept[1] < 0.8 and kept.nunique() > 2
    assert list(merged.history) == ["step", "loss", *suite.tasks, "kept"]
    assert merged.history["loss"].to_numpy() == pytest.approx(merged.history[list(suite.tasks)].sum(axis=1).to_numpy())
    values = merged.coefficients.values
    assert values.shape == (3, len(suite.task_vectors().vectors)) and float((values - 0.3).abs().max()) > 0.1
    assert float(values.min()) < 0, "λ is not clamped"


def test_entropy_falls(suite):
    history = run(suite, steps=40, batch_size=30, lr=3e-3).history
    assert history["loss"].iloc[-1] < 0.9 * history["loss"].iloc[0]


def test_settings_and_seeds_draw_other_images(suite):
    one, same, other, half = (run(suite, **h) for h in ({}, {}, {"seed": 1}, {"setting": "inductive"}))
    assert one.history.equals(same.history)
    assert not one.history.equals(other.history) and not one.history.equals(half.history)


def test_tied_tensors_stay_tied():
    suite = toy.suite(seed=6)
    first, second = (f"transformer.resblocks.{b}.mlp.c_fc.weight" for b in (0, 1))
    for state in (suite.pretrained, *suite.experts.values()):
        state[second] = state[first]
    assert suite.task_vectors().tied == {second: first}
    for start in ("task_arithmetic", "cart"):
        state = run(suite, start=start).state_dict()
        assert torch.equal(state[first], state[second])


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"start": "iso"}, "start 'iso' is unknown"),
        ({"rank": 16}, r"rank=16 is not a share in \[0, 1\]: 16 % is 0.16"),
        ({"temperature": 0}, "temperature=0 must be a positive number"),
        ({"recipe": "quick"}, "recipe 'quick' is unknown"),
        ({"setting": "online"}, "setting 'online' is unknown"),
        ({"steps": 1.5}, "steps=1.5 must be a whole number"),
    ],
)
def test_bad_hyper(suite, hyper, message):
    with pytest.raises(ValueError, match=message):
        run(suite, **hyper)
