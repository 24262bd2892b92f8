"""Kept fits: found where parameters and data agree and nowhere else, the same model, and replay sees what changed."""

from __future__ import annotations

import dataclasses
import random
import subprocess
from pathlib import Path

import pytest
import torch

from adamerging_lib import evaluate
from adamerging_lib.learning import objective
from adamerging_lib.methods import run_method
from adamerging_lib.runtime import places
from adamerging_study import fits, measuring, refit

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = {"recipe": "paper", "steps": 60, "lr": 0.01, "batch_size": 4, "batches": 1, "seed": 3}
METHODS = ["layer_wise_adamerging", "task_wise_adamerging_pp"]


@pytest.fixture(params=METHODS)
def kept(request, suite, tmp_path, monkeypatch):
    """One fit of a method on the toy suite, kept in a checkout of the test's own."""
    monkeypatch.setattr(places, "committed", lambda: tmp_path)
    fit = run_method(request.param, suite, cache=False, **OPTIONS, progress=False)
    found = fits.shorten(fit, suite, {"seconds": 7.0})
    fits.write(found, fits.folder(suite.profile) / "one.safetensors")
    return fit, found


def test_a_kept_fit_is_the_model_that_was_fitted(suite, kept):
    fit, _ = kept
    found = fits.find(suite, fit.method, OPTIONS)
    model = fits.model(found, suite)
    assert model.hyper == fit.hyper and model.tasks == fit.tasks and model.seconds == 7.0
    assert all(torch.equal(model.state[key], value) for key, value in fit.state.items())
    assert torch.equal(model.coefficients.values, fit.coefficients.values)
    for step in (0, 1, 25, 50, 60):
        assert torch.equal(model.trajectory[step], fit.trajectory[step])
    assert model.trajectory[30].isnan().all() and len(model.trajectory) == 61


CHANGES = [{"steps": 59}, {"lr": 0.02}, {"seed": 4}, {"objective": {"diversity": 1.0}}]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_other_parameters_are_another_fit(suite, kept, change):
    fit, _ = kept
    assert fits.find(suite, fit.method, OPTIONS) is not None
    assert fits.find(suite, fit.method, {**OPTIONS, **change}) is None


def test_other_data_is_another_fit(suite, kept):
    fit, _ = kept
    task = suite.tasks[0]
    data = suite.test[task]
    darker = dataclasses.replace(data, images=(data.images // 2))
    assert fits.find(dataclasses.replace(suite, test={**suite.test, task: darker}), fit.method, OPTIONS) is None
    assert fits.find(suite.subset(suite.tasks[:2]), fit.method, OPTIONS) is None


def test_measuring_takes_the_kept_fit(suite, kept, monkeypatch):
    fit, _ = kept
    learning = {name: value for name, value in OPTIONS.items() if name != "seed"}
    found = measuring.fit(suite, fit.method, learning=learning, seed=3)
    assert found.trajectory[30].isnan().all() and torch.equal(found.coefficients.values, fit.coefficients.values)


def test_replay_leads_along_the_kept_path(suite, kept):
    assert fits.replay(kept[1], suite) <= 1e-6


def test_replay_finds_one_altered_coefficient(suite, kept):
    _, found = kept
    path = found.path.clone()
    path[3, 0, 0] += 2 * fits.tolerance(found)
    assert fits.replay(dataclasses.replace(found, path=path), suite) > fits.tolerance(found)


def test_replay_finds_another_loss(suite, kept, monkeypatch):
    """The last task's entropy counts a tenth more."""
    _, found = kept
    plain = objective.Objective.losses_and_gradient

    def heavier(self, *given, **options):
        self = dataclasses.replace(self, weights=torch.tensor([1.0] * (self.model.count - 1) + [1.1]))
        return plain(self, *given, **options)

    monkeypatch.setattr(objective.Objective, "losses_and_gradient", heavier)
    assert fits.replay(found, suite) > fits.tolerance(found)


TINTING = {"recipe": "mini", "epochs": 4, "batch_size": 4, "seed": 3}
TINTS = {
    "Tint": ("tint", {}),
    "Tint++": ("tint_pp", {}),
    "λ alone": ("tint", {"learn": "coefficients"}),
    "head alone": ("tint", {"learn": "layer"}),
    "soft labels": ("tint", {"targets": "soft"}),
}


@pytest.fixture(params=TINTS)
def tint(request, suite, tmp_path, monkeypatch):
    """A fit of Tinting on the toy suite, kept in a checkout of the test's own, with its options."""
    monkeypatch.setattr(places, "committed", lambda: tmp_path)
    method, changed = TINTS[request.param]
    options = {**TINTING, **changed}
    fit = run_method(method, suite, cache=False, **options, progress=False)
    fits.write(fits.shorten(fit, suite), fits.folder(suite.profile) / "one.safetensors")
    return fit, options


def equal(found, expected):
    """Whether two mappings of tensors are equal bit for bit, or both are none."""
    if not found or not expected:
        return not found and not expected
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_kept_fit_of_tinting_is_the_model_that_was_fitted(suite, tint):
    fit, options = tint
    model = fits.model(fits.find(suite, fit.method, options), suite)
    assert model.hyper == fit.hyper and model.tasks == fit.tasks and model.method == fit.method
    assert equal(model.state, fit.state) and equal(model.heads, fit.heads) and equal(model.biases, fit.biases)
    assert model.task_storage == fit.task_storage
    assert torch.equal(model.coefficients.values, fit.coefficients.values)
    assert tuple(model.coefficients.rows) == tuple(fit.coefficients.rows)
    assert torch.equal(model.trajectory, fit.trajectory)  # fewer steps than are kept whole
    epochs = fit.history.groupby("epoch")[list(fits.HISTORY)].mean()
    assert model.history.groupby("epoch")[list(fits.HISTORY)].mean().equals(epochs)
    kept, whole = (evaluate(suite, one, outcomes=True) for one in (model, fit))
    assert kept["entropy"].tolist() == whole["entropy"].tolist()
    assert all((a == b).all() for a, b in zip(kept["right"], whole["right"], strict=True))


@pytest.mark.parametrize("change", [{"epochs": 5}, {"seed": 4}, {"top_p": 0.5}, {"layer": "proj"}], ids=str)
def test_other_parameters_of_tinting_are_another_fit(suite, tint, change):
    fit, options = tint
    assert fits.find(suite, fit.method, options) is not None
    assert fits.find(suite, fit.method, {**options, **change}) is None


def test_tinting_is_replayed_along_its_path(suite, tint):
    fit, options = tint
    kept = fits.find(suite, fit.method, options)
    assert fits.replay(kept, suite, steps=2) <= 1e-6
    path = kept.path.clone()
    path[1, 0, 0] += 2 * fits.tolerance(kept)
    assert fits.replay(dataclasses.replace(kept, path=path), suite, steps=2) > fits.tolerance(kept)


def test_a_file_that_is_no_fit_is_named(tmp_path, suite, kept):
    path = fits.folder(suite.profile) / "other.safetensors"
    fits.save(path, {"path": torch.zeros(1)}, {})
    with pytest.raises(ValueError, match=r"other\.safetensors"):
        fits.find(suite, kept[0].method, OPTIONS)


def sampled(count: int = 2) -> list[Path]:
    """Some committed fits, others with every commit."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    known = sorted((ROOT / "results").glob("*/fits/*.safetensors"))
    return random.Random(head).sample(known, min(count, len(known)))


@pytest.mark.parametrize("path", sampled(), ids=lambda path: path.stem)
def test_a_committed_fit_is_replayed(path):
    refit.replay(path)
