"""TAPS: gates, their straight-through gradient, and storage."""

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
from adamerging_lib.methods.mtl import labelled_batches
from adamerging_lib.methods.taps import START, taps

SHORT = {"steps": 6, "lr": 0.01, "gate_lr": 0.05, "batch_size": 4, "progress": False}


class Gate(torch.autograd.Function):
    """1[s > τ] forwards, the identity backwards."""

    @staticmethod
    def forward(ctx, s):
        return (s > 0.1).to(s.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad


def test_descent_is_the_paper_written_out():
    """Every task by itself, through a straight-through gate and autograd."""
    suite = toy.suite(seed=1, dtype=torch.float64)
    merged = taps(suite, sparsity=3.0, **SHORT)
    batch = labelled_batches(suite, Adaptation({"batch_size": 4}, images="labels"))
    keys = [key for key, t in suite.pretrained.items() if t.is_floating_point()]
    closed = 0
    for task in suite.tasks:
        deltas = [torch.zeros_like(suite.pretrained[key]).requires_grad_() for key in keys]
        gates = torch.full((len(keys),), START, dtype=torch.float64).requires_grad_()
        adam = torch.optim.Adam([{"params": deltas, "lr": 0.01}, {"params": [gates], "lr": 0.05}])
        for step in range(6):
            decay = (1 + math.cos(math.pi * step / 6)) / 2
            adam.param_groups[0]["lr"], adam.param_groups[1]["lr"] = 0.01 * decay, 0.05 * decay
            is_open = Gate.apply(gates)
            state = dict(suite.pretrained)
            state |= {key: suite.pretrained[key] + is_open[i] * deltas[i] for i, key in enumerate(keys)}
            images, labels = batch(task, step)
            unit = F.normalize(functional_call(suite.encoder, state, (suite.normalise(images).double(),)), dim=-1)
            loss = F.cross_entropy(unit @ suite.heads[task].T, labels)
            assert merged.history[task][step] == pytest.approx(loss.item(), rel=1e-8)
            adam.zero_grad()
            (loss + 3.0 * gates.abs().mean()).backward()
            adam.step()
        expected = {key for i, key in enumerate(keys) if gates[i] > 0.1}
        assert set(merged.overrides[task]) == expected
        closed += len(keys) - len(expected)
        for i, key in enumerate(keys):
            if key in expected:
                whole = (suite.pretrained[key] + deltas[i]).detach()
                torch.testing.assert_close(merged.overrides[task][key], whole, rtol=1e-6, atol=1e-7)
    assert 0 < closed < 3 * len(keys), "the test shows gates of both kinds"


def test_a_task_without_open_gates_is_the_pretrained_model_and_storage_counts_the_open_ones(suite):
    merged = taps(suite, sparsity=3.0, **{**SHORT, "steps": 10})
    assert_equal(merged.state_dict(), dict(suite.pretrained))
    sizes = [sum(t.numel() for t in merged.overrides.get(task, {}).values()) for task in suite.tasks]
    assert merged.task_storage == pytest.approx(sum(sizes) / 3) and 0 < merged.task_storage
    nothing = taps(suite, sparsity=1e4, **{**SHORT, "steps": 10})
    assert nothing.task_storage == 0 and nothing.history["open"].iloc[-1] == 0
    assert_equal(nothing.state_dict("beta"), dict(suite.pretrained))


def test_a_higher_price_opens_fewer_layers(suite):
    hyper = {**SHORT, "steps": 40, "batch_size": 10}
    shares = [taps(suite, sparsity=nu, **hyper).history["open"].iloc[-1] for nu in (0.01, 1.0, 100.0)]
    assert shares[0] > shares[1] > shares[2]
    assert taps(suite, sparsity=1.0, **hyper).history["open"][0] == 1


def test_it_learns(suite):
    history = taps(suite, sparsity=0.01, **{**SHORT, "steps": 60, "batch_size": 15}).history
    assert list(history.columns) == ["step", "loss", *suite.tasks, "open"]
    assert history["loss"].tail(5).mean() < 0.9 * history["loss"].head(5).mean()


def test_tasks_do_not_touch_each_other(suite):
    alone = dataclasses.replace(suite, experts={"beta": suite.experts["beta"]})
    one, all_ = taps(alone, **SHORT), taps(suite, **SHORT)
    assert_equal(one.state_dict("beta"), all_.state_dict("beta"))


def test_zero_steps_change_nothing(suite):
    merged = taps(suite, **{**SHORT, "steps": 0})
    for task in suite.tasks:
        assert_equal(merged.state_dict(task), dict(suite.pretrained))
    assert len(merged.history) == 0


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"threshold": 0.5}, r"threshold=0.5 must lie inside \(0, 0.2\)"),
        ({"sparsity": 0}, "sparsity=0 must be a positive number"),
        ({"gate_lr": -1.0}, "gate_lr=-1.0 must be a positive number"),
        ({"setting": "online"}, "setting 'online' is unknown"),
    ],
)
def test_bad_arguments(suite, hyper, message):
    with pytest.raises(ValueError, match=message):
        taps(suite, **{**SHORT, **hyper})
