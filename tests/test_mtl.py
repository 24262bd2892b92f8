"""Joint training and its variants: the descent written out, and what combining promises."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import toy
from strategies import assert_equal
from torch.func import functional_call
from torch.nn import functional as F

from adamerging_lib.learning.adaptation import Adaptation
from adamerging_lib.learning.combine import combiner
from adamerging_lib.methods import registry
from adamerging_lib.methods.mtl import joint_training, labelled_batches

SHORT = {"steps": 5, "lr": 0.01, "batch_size": 4, "progress": False}
RULES = ("pcgrad", "wpcgrad", "cagrad", "nash_mtl", "min_norm")


def task_loss(suite, state, task, images, labels):
    unit = F.normalize(functional_call(suite.encoder, state, (suite.normalise(images).double(),)), dim=-1)
    return F.cross_entropy(unit @ suite.heads[task].T, labels)


@pytest.mark.parametrize("rule", [None, *RULES])
def test_descent_written_out(rule):
    """Each task's gradient by itself, flattened into one matrix; the rule on its rows; torch's Adam, cosine decay."""
    suite = toy.suite(seed=1, dtype=torch.float64)
    merged = joint_training(suite, combine=rule, **SHORT)
    batch = labelled_batches(suite, Adaptation({"batch_size": 4}, images="labels"))
    keys = [key for key, t in suite.pretrained.items() if t.is_floating_point()]
    state = {key: t.clone() for key, t in suite.pretrained.items()}
    leaves = [state[key].requires_grad_() for key in keys]
    adam = torch.optim.Adam(leaves, lr=0.01)
    for step in range(5):
        adam.param_groups[0]["lr"] = 0.01 * (1 + math.cos(math.pi * step / 5)) / 2
        losses = [task_loss(suite, state, task, *batch(task, step)) for task in suite.tasks]
        assert merged.history["loss"][step] == pytest.approx(sum(losses).item(), rel=1e-8)
        rows = [torch.autograd.grad(loss, leaves) for loss in losses]
        jacobian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
        weights = torch.ones(3).double() if rule is None else combiner(rule, suite.tasks)(jacobian @ jacobian.T, step)
        for leaf, part in zip(leaves, (weights @ jacobian).split([leaf.numel() for leaf in leaves]), strict=True):
            leaf.grad = part.view_as(leaf)
        adam.step()
    # Adam divides by the gradient's size, so that rounding matters where a gradient is nearly zero.
    for key in keys:
        torch.testing.assert_close(merged.state[key], state[key].detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", [None, *RULES])
def test_every_rule_learns(suite, rule):
    history = joint_training(suite, combine=rule, **{**SHORT, "steps": 60, "batch_size": 15}).history
    assert list(history.columns) == ["step", "loss", *suite.tasks]
    assert history["loss"].tail(5).mean() < 0.9 * history["loss"].head(5).mean()


def test_one_task_is_fine_tuning_whatever_the_rule():
    suite = toy.suite(seed=1, tasks=("alpha",), dtype=torch.float64)
    plain = joint_training(suite, **SHORT)
    for rule in ("pcgrad", "wpcgrad", "min_norm"):  # the others change the gradient's length from step to step
        assert_equal(joint_training(suite, combine=rule, **SHORT).state_dict(), plain.state_dict())


def test_experts_and_test_images_play_no_part(suite):
    blank = {t: dataclasses.replace(d, images=torch.zeros_like(d.images)) for t, d in suite.test.items()}
    other = dataclasses.replace(suite, experts={t: suite.pretrained for t in suite.tasks}, test=blank)
    assert_equal(joint_training(other, **SHORT).state_dict(), joint_training(suite, **SHORT).state_dict())


def test_zero_steps_are_the_pretrained_model(suite):
    merged = joint_training(suite, **{**SHORT, "steps": 0})
    assert_equal(merged.state_dict(), dict(suite.pretrained))
    assert len(merged.history) == 0


@pytest.mark.parametrize("id", ["joint_training", "pcgrad", "wpcgrad", "cagrad", "nash_mtl"])
def test_each_id_takes_only_what_it_uses(suite, id):
    method = registry.find(id)
    for name, value, user in [("priorities", {"alpha": 2.0}, "wpcgrad"), ("c", 0.5, "cagrad")]:
        if id == user:
            registry.check_hyper(method, {name: value})
            assert method.function(suite, **{name: value}, **SHORT).hyper[name] == value
        else:
            with pytest.raises(ValueError, match=f"{id} has no hyper-parameter '{name}'"):
                registry.check_hyper(method, {name: value})


def test_bad_arguments(suite):
    for hyper, message in [
        ({"combine": "graddrop"}, "combine 'graddrop' is unknown"),
        ({"c": 0.3}, "c=0.3 is CAGrad's radius"),
        ({"recipe": "tiny"}, "recipe 'tiny' is unknown"),
        ({"lr": -1.0}, "lr=-1.0 must be a positive number"),
        ({"setting": "online"}, "setting 'online' is unknown"),
    ]:
        if "c" in hyper:
            hyper = {**hyper, "combine": "pcgrad"}
        with pytest.raises(ValueError, match=message):
            joint_training(suite, **{**SHORT, **hyper})
    with pytest.raises(ValueError, match="has no training images"):
        joint_training(dataclasses.replace(suite, train=None), **SHORT)
    broken = {**suite.heads, "beta": suite.heads["beta"] * float("nan")}
    for rule in (None, "cagrad"):
        with pytest.raises(ValueError, match="the loss of beta is NaN at step 0"):
            joint_training(dataclasses.replace(suite, heads=broken), combine=rule, **SHORT)


def test_progress_goes_to_stderr_or_nowhere(suite, capsys):
    joint_training(suite, **{**SHORT, "progress": True})
    out, err = capsys.readouterr()
    assert out == "" and "joint_training" in err and "loss=" in err
    joint_training(suite, **SHORT)
    assert capsys.readouterr() == ("", "")
