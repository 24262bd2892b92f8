"""ProDistill against the published loop written out: autograd through the merge, one block at a time."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import toy
from byhand import block, embedded
from strategies import assert_close, copy
from torch import nn

import adamerging_lib as am
from adamerging_lib.learning.streams import seeded
from adamerging_lib.methods.prodistill import prodistill
from adamerging_lib.probing.activations import training_images

PREFIXES = ("transformer.resblocks.0.", "transformer.resblocks.1.")
QUIET = {"images": 4, "epochs": 3, "batch_size": 5, "lr": 0.05, "progress": False}


@pytest.fixture(scope="module")
def exact_suite():
    return toy.suite(seed=4, dtype=torch.float64)


@pytest.fixture(scope="module")
def arithmetic(exact_suite):
    return am.run_method("task_arithmetic", exact_suite, scaling=0.3).state_dict()


def published_loop(suite, arithmetic, options) -> tuple[dict[str, torch.Tensor], list[float]]:
    merged, order = dict(arithmetic), seeded("prodistill", 0)
    drawn = training_images(suite, options["images"], 0)
    images = {task: suite.normalise(part).double() for task, part in drawn.items()}
    own = torch.cat([embedded(merged, x) for x in images.values()])
    theirs = {task: embedded(suite.experts[task], x) for task, x in images.items()}
    losses = []
    for prefix in PREFIXES:
        theirs = {task: block(suite.experts[task], prefix, x, heads=2)[0] for task, x in theirs.items()}
        aims = torch.cat(list(theirs.values()))
        keys = [key for key in merged if key.startswith(prefix)]
        coefficients = {
            (task, key): torch.full_like(merged[key], 0.3).requires_grad_() for task in suite.tasks for key in keys
        }
        adam = torch.optim.Adam(coefficients.values(), lr=options["lr"])

        def mix(key, coefficients=coefficients):
            base = suite.pretrained[key]
            return base + sum(coefficients[task, key] * (suite.experts[task][key] - base) for task in suite.tasks)

        for _ in range(options["epochs"]):
            total = 0.0
            for pick in torch.randperm(len(aims), generator=order).split(options["batch_size"]):
                out, _ = block({key: mix(key) for key in keys}, prefix, own[pick], heads=2)
                loss = ((out - aims[pick]) ** 2).sum()
                adam.zero_grad()
                loss.backward()
                adam.step()
                total += float(loss.detach())
            losses.append(total / aims.numel() * len(suite.tasks))
        merged |= {key: mix(key).detach() for key in keys}
        own = block(merged, prefix, own, heads=2)[0]
    return merged, losses


def test_against_the_published_loop(exact_suite, arithmetic):
    expected, losses = published_loop(exact_suite, arithmetic, QUIET)
    merged = prodistill(exact_suite, **QUIET)
    assert_close(merged.state_dict(), expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(torch.tensor(merged.history["loss"]), torch.tensor(losses, dtype=torch.float64))
    assert list(merged.history["block"]) == [p.rstrip(".") for p in PREFIXES for _ in range(3)]
    assert list(merged.history["step"]) == list(range(6))


def test_what_lies_outside_blocks_is_task_arithmetic(exact_suite, arithmetic):
    merged = prodistill(exact_suite, **QUIET).state_dict()
    for key, t in arithmetic.items():
        if key.startswith(PREFIXES):
            # Adam moves every coefficient, but for the keys' biases, on which no output depends.
            assert not torch.allclose(merged[key], t)
        else:
            torch.testing.assert_close(merged[key], t)


def test_the_error_falls(exact_suite):
    merged = prodistill(exact_suite, **{**QUIET, "images": 8, "epochs": 20, "batch_size": 24})
    by_block = merged.history.groupby("block")["loss"]
    assert (by_block.last() < 0.7 * by_block.first()).all()


def test_one_expert_taken_whole_is_a_fixed_point():
    """Up to the first block: Adam divides rounding errors by themselves, which the next block then follows."""
    alone = toy.suite(seed=1, tasks=("alpha",), dtype=torch.float64)
    merged = prodistill(alone, init=1.0, **{**QUIET, "epochs": 1, "batch_size": 4})
    assert (merged.history["loss"] < 1e-15).all()
    before = [key for key in alone.pretrained if not key.startswith(PREFIXES[1])]
    expert = alone.experts["alpha"]
    assert_close({k: merged.state[k] for k in before}, {k: expert[k] for k in before}, rtol=0, atol=1e-6)


def test_no_epoch_is_task_arithmetic(exact_suite, arithmetic):
    merged = prodistill(exact_suite, **{**QUIET, "epochs": 0})
    assert_close(merged.state_dict(), arithmetic)
    assert merged.history.empty and "block" in merged.history


def test_zero_task_vectors_give_the_pretrained_model(exact_suite):
    idle = dataclasses.replace(exact_suite, experts={t: copy(exact_suite.pretrained) for t in exact_suite.tasks})
    assert_close(prodistill(idle, **QUIET).state_dict(), dict(exact_suite.pretrained))


def test_recipes_and_bad_values(suite):
    assert prodistill(suite, recipe="mini", epochs=1, images=2, progress=False).hyper["lr"] == 0.05
    for hyper, message in (
        ({"recipe": "quick"}, "recipe 'quick' is unknown"),
        ({"epochs": -1}, "epochs=-1 must be a whole number"),
        ({"lr": -1.0}, "lr=-1.0 must be a positive number"),
        ({"init": float("nan")}, "init=nan must be a finite number"),
    ):
        with pytest.raises(ValueError, match=message):
            prodistill(suite, progress=False, **hyper)


def test_encoder_without_blocks(suite):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(192, 8))
    state = {key: t.detach().clone() for key, t in encoder.state_dict().items()}
    other = dataclasses.replace(suite, encoder=encoder, pretrained=state, experts=dict.fromkeys(suite.tasks, state))
    with pytest.raises(ValueError, match=r"has no transformer blocks"):
        prodistill(other, **QUIET)
