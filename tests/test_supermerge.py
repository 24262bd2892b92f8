"""SuperMerge: labels, bounded coefficients, and the tree of pairs."""

from __future__ import annotations

import dataclasses
import importlib

import pytest
import torch
import toy
from strategies import assert_close, assert_equal
from torch.func import functional_call
from torch.nn import functional as F

import adamerging_lib as am
from adamerging_lib.learning.streams import task_streams
from adamerging_lib.methods.supermerge import supermerge

SHORT = {"images": 20, "steps": 6, "lr": 0.05, "batch_size": 4, "batches": 2, "progress": False}


def test_descent_is_the_paper_written_out():
    """tanh(w) T_k added to θ0, cross-entropy to labels, torch's Adam on w, all through autograd."""
    suite = toy.suite(seed=1, dtype=torch.float64)
    fit = supermerge(suite, **SHORT)
    names = fit.coefficients.rows
    w = torch.full((3, len(names)), 0.3, dtype=torch.float64).atanh().requires_grad_()
    adam = torch.optim.Adam([w], lr=0.05)
    streams = task_streams(
        suite, suite.tasks, size=4, seed=0, setting="transductive", device=torch.device("cpu"), images=20,
        labelled=suite.training(),
    )  # fmt: skip
    for step in range(6):
        state = dict(suite.pretrained)
        for row, name in enumerate(names):
            for k, task in enumerate(suite.tasks):
                state[name] = state[name] + w[k, row].tanh() * (suite.experts[task][name] - suite.pretrained[name])
        total = 0.0
        for stream, task in zip(streams, suite.tasks, strict=True):
            for b in (2 * step, 2 * step + 1):
                place = stream.indices(b)
                images, labels = suite.train[task].images[place], suite.train[task].labels[place]
                feature = F.normalize(functional_call(suite.encoder, state, (suite.normalise(images).double(),)))
                total = total + F.cross_entropy(feature @ suite.heads[task].T, labels)
        assert fit.history["loss"][step] == pytest.approx(total.item(), rel=1e-8)
        w.grad = torch.autograd.grad(total, w)[0]
        adam.step()
    torch.testing.assert_close(fit.coefficients.values, w.detach().tanh(), rtol=1e-7, atol=1e-9)


def test_the_loss_on_its_labelled_images_goes_down_and_no_test_image_is_read(suite):
    blank = {t: dataclasses.replace(d, images=torch.zeros_like(d.images)) for t, d in suite.test.items()}
    hyper = {**SHORT, "steps": 40}
    fit = supermerge(suite, **hyper)
    assert_equal(supermerge(dataclasses.replace(suite, test=blank), **hyper).state_dict(), fit.state_dict())
    assert fit.history["loss"].tail(5).mean() < 0.95 * fit.history["loss"].head(5).mean()
    assert fit.coefficients.values.abs().max() < 1


def test_labels_are_read(suite):
    turned = {t: dataclasses.replace(d, labels=d.labels.flip(0)) for t, d in suite.train.items()}
    other = supermerge(dataclasses.replace(suite, train=turned), **SHORT)
    assert not torch.equal(other.coefficients.values, supermerge(suite, **SHORT).coefficients.values)


@pytest.mark.parametrize("granularity", ["tensor", "block", "task"])
@pytest.mark.parametrize("tasks", [("a", "b"), ("a", "b", "c"), ("a", "b", "c", "d", "e")])
def test_pairs_give_products_of_coefficients(tasks, granularity):
    suite = toy.suite(seed=4, tasks=tasks, dtype=torch.float64)
    merged = supermerge(suite, hierarchical=True, granularity=granularity, **SHORT)
    assert merged.coefficients.tasks == suite.tasks
    assert_close(merged.state_dict(), suite.task_vectors().merge(merged.coefficients.values, granularity))
    assert merged.hyper["hierarchical"] and merged.coefficients.values.abs().max() < 1


def test_two_tasks_are_one_pair(suite):
    two = dataclasses.replace(suite, experts={t: suite.experts[t] for t in suite.tasks[:2]})
    tree, flat = supermerge(two, hierarchical=True, **SHORT), supermerge(two, **SHORT)
    assert_equal(tree.state_dict(), flat.state_dict())


def test_the_tree_sees_two_vectors_at_a_time_and_every_task(suite, monkeypatch):
    module = importlib.import_module("adamerging_lib.methods.supermerge")  # the package holds the function of that name

    seen, original = [], module.learn

    def learn(suite, tv, streams, start, **options):
        seen.append((tv.tasks, options["tasks"], len(streams)))
        return original(suite, tv, streams, start, **options)

    monkeypatch.setattr(module, "learn", learn)
    five = toy.suite(tasks=("a", "b", "c", "d", "e"))
    supermerge(five, hierarchical=True, **SHORT)
    assert [vectors for vectors, _, _ in seen] == [("a", "b"), ("a+b", "c"), ("d", "e"), ("a+b+c", "d+e")]
    assert all(list(tasks) == "+".join(vectors).split("+") and n == len(tasks) for vectors, tasks, n in seen)


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"images": 31}, "images=31, but task 'alpha' has 30"),
        ({"init": 1.0}, r"keeps λ inside \(-1, 1\)"),
        ({"recipe": "large"}, "recipe 'large' is unknown"),
        ({"setting": "online"}, "setting 'online' is unknown"),
        ({"granularity": "layer"}, "granularity 'layer' is unknown"),
    ],
)
def test_bad_arguments(suite, hyper, message):
    with pytest.raises(ValueError, match=message):
        supermerge(suite, **{**SHORT, **hyper})


def test_no_training_images_is_said(suite):
    with pytest.raises(ValueError, match="profile 'toy' has no training images of alpha, beta, gamma"):
        supermerge(dataclasses.replace(suite, train=None), **SHORT)
    broken = {**suite.heads, "beta": suite.heads["beta"] * float("nan")}
    with pytest.raises(ValueError, match="the loss of beta is NaN at step 0"):
        supermerge(dataclasses.replace(suite, heads=broken), **SHORT)


def test_cached_and_found_again(suite):
    hyper = {**SHORT, "recipe": "mini"}
    one, two = (am.run_method("supermerge", suite, **hyper) for _ in range(2))
    assert_equal(one.state_dict(), two.state_dict())
    turned = {t: dataclasses.replace(d, labels=d.labels.flip(0)) for t, d in suite.train.items()}
    other = am.run_method("supermerge", dataclasses.replace(suite, train=turned), **hyper)
    assert not torch.equal(other.coefficients.values, one.coefficients.values)
