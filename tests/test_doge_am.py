"""DOGE AM: AdaMerging's descent on DOGE's vectors."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from strategies import assert_close, assert_equal

import adamerging_lib as am
from adamerging_lib.methods.doge import doge_vectors
from adamerging_lib.methods.doge_am import RECIPES, doge_am

SHORT = {"iterations": 5, "steps": 6, "lr": 0.05, "batch_size": 4, "batches": 2, "progress": False}


def vectors_of(suite, **hyper):
    return doge_vectors(suite.task_vectors(), per_task=True, **hyper)


def test_it_is_adamerging_of_a_suite_whose_experts_are_doges(suite):
    vectors = vectors_of(suite, iterations=5)
    experts = {
        task: {key: t + vectors.vectors[key][k] if key in vectors.vectors else t for key, t in suite.pretrained.items()}
        for k, task in enumerate(suite.tasks)
    }
    hyper = {name: value for name, value in SHORT.items() if name != "iterations"}
    expected = am.adamerge(dataclasses.replace(suite, experts=experts), clamp=False, **hyper)
    fit = doge_am(suite, **SHORT)
    # θ0 + T − θ0 is T but for rounding.
    torch.testing.assert_close(fit.trajectory, expected.trajectory, rtol=1e-3, atol=1e-3)


def test_what_doge_leaves_alone_stays_as_pretrained(suite):
    fit = doge_am(suite, **SHORT)
    assert_close(fit.state_dict(), vectors_of(suite, iterations=5).merge(fit.coefficients.values, "tensor"))
    still = [key for key, t in vectors_of(suite, iterations=5).vectors.items() if not t.any()]
    assert still and len(still) < len(fit.coefficients.rows)
    for key in still:
        assert torch.equal(fit.state_dict()[key], suite.pretrained[key])
        assert bool((fit.coefficients.values[:, fit.coefficients.rows.index(key)] == 0.3).all())


def test_published_recipe():
    assert RECIPES["paper"] == {"steps": 1000, "lr": 1e-3, "batch_size": 16, "batches": 1}


def test_resumes_and_describes_itself(suite, tmp_path):
    path = tmp_path / "fit.safetensors"
    doge_am(suite, checkpoint=path, **{**SHORT, "steps": 3})
    resumed, whole = doge_am(suite, checkpoint=path, **SHORT), doge_am(suite, **SHORT)
    assert torch.equal(resumed.trajectory, whole.trajectory)
    assert_equal(resumed.state_dict(), whole.state_dict())
    assert whole.hyper["clamp"] is False and whole.hyper["iterations"] == 5 and whole.method == "doge_am"
    with pytest.raises(ValueError, match="another run.*keep: 0.3 there, 0.5 here"):
        doge_am(suite, checkpoint=path, **{**SHORT, "keep": 0.5})


def test_bad_arguments(suite):
    for hyper, message in [
        ({"keep": 30}, "keep=30 is not a share"),
        ({"iterations": -1}, "iterations=-1 must be a whole number"),
        ({"recipe": "long"}, "recipe 'long' is unknown"),
        ({"setting": "online"}, "setting 'online' is unknown"),
    ]:
        with pytest.raises(ValueError, match=message):
            doge_am(suite, **{**SHORT, **hyper})
