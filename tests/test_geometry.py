"""The geometry of task vectors, against one long vector per task."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from adamerging_lib import TaskVectors
from adamerging_lib.vectors import geometry


def flat(tv):
    return torch.cat([v.double().flatten(1) for v in tv.vectors.values()], dim=1)


def test_cosines_agree_with_one_long_vector_per_task(suite):
    tv = suite.task_vectors()
    long = torch.nn.functional.normalize(flat(tv), dim=1)
    frame = geometry.cosines(tv)
    np.testing.assert_allclose(frame, long @ long.T, atol=1e-12)
    assert frame.index.tolist() == frame.columns.tolist() == list(tv.tasks)


def test_cosines_of_a_copy_an_opposite_and_nothing(suite):
    base, moved = suite.pretrained, suite.experts["alpha"]
    opposite = {key: 2 * base[key] - moved[key] if base[key].is_floating_point() else base[key] for key in base}
    tv = TaskVectors.from_state_dicts(base, {"a": moved, "same": moved, "against": opposite, "none": base})
    np.testing.assert_allclose(geometry.cosines(tv).loc["a"], [1, 1, -1, 0], atol=1e-6)


def test_relative_norms(suite):
    tv = suite.task_vectors()
    base = torch.cat([suite.pretrained[key].double().flatten() for key in tv.vectors])
    np.testing.assert_allclose(geometry.relative_norms(tv), flat(tv).norm(dim=1) / base.norm())


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_effective_rank_counts_equal_singular_values(rank):
    u, v = (torch.linalg.qr(torch.randn(n, rank, generator=generator(rank)))[0] for n in (20, 30))
    for scale in (1e-20, 1.0, 1e15):
        assert geometry.effective_rank(scale * u @ v.T) == pytest.approx(rank, rel=1e-4)
        assert geometry.effective_rank((scale * u @ v.T).T) == pytest.approx(rank, rel=1e-4)
    assert math.isnan(geometry.effective_rank(torch.zeros(3, 4)))


def test_effective_rank_is_that_of_the_singular_values_for_every_size(monkeypatch):
    t = torch.randn(40, 60, generator=generator(0)) @ torch.diag(0.9 ** torch.arange(60))
    s = torch.linalg.svdvals(t.double())
    exact = float((s**2).sum() ** 2 / (s**4).sum())
    assert geometry.effective_rank(t) == pytest.approx(exact, rel=1e-4)
    monkeypatch.setattr(geometry, "_SMALL", 8)  # as of larger matrices, by random vectors
    assert geometry.effective_rank(t) == pytest.approx(exact, rel=0.25)
    assert geometry.effective_rank(t) == geometry.effective_rank(t)


def test_noise_has_about_the_rank_that_is_said():
    t = torch.randn(200, 300, generator=generator(1))
    assert geometry.effective_rank(t) == pytest.approx(geometry.noise_rank(t.shape), rel=0.05)
    kernel = t.reshape(200, 12, 5, 5)
    assert geometry.effective_rank(kernel) == pytest.approx(geometry.effective_rank(t))
    assert geometry.noise_rank(kernel.shape) == geometry.noise_rank(t.shape)


def test_parts_add_up_to_the_whole(suite):
    tv = suite.task_vectors()
    found, long = geometry.geometry(tv, ranks=True), flat(tv)
    base = torch.cat([suite.pretrained[key].double().flatten() for key in tv.vectors])
    np.testing.assert_allclose(found.total("gram"), long @ long.T, rtol=1e-9)
    np.testing.assert_allclose(found.total("along"), long @ base, rtol=1e-6)
    np.testing.assert_allclose(found.total("base"), base @ base)
    np.testing.assert_allclose(found.norms, long.norm(dim=1))
    assert found.total("changed").tolist() == [long.shape[1]] * 3
    assert not found.equal[~np.eye(3, dtype=bool)].any() and found.equal.diagonal().all()
    rank, share = found.effective_ranks
    assert (rank > 1).all() and (share > 0).all() and (share <= 1.2).all()


def test_equal_to_the_last_bit_and_no_less(suite):
    base, moved = suite.pretrained, suite.experts["alpha"]
    nearly = {key: t.clone() for key, t in moved.items()}
    nearly["proj"][0, 0] = torch.nextafter(nearly["proj"][0, 0], torch.tensor(9.0))
    tv = TaskVectors.from_state_dicts(base, {"a": moved, "same": dict(moved), "nearly": nearly, "none": base})
    assert geometry.geometry(tv).equal.tolist() == [
        [True, True, False, False], [True, True, False, False], [False, False, True, False], [False] * 3 + [True],
    ]  # fmt: skip
    ranks = geometry.geometry(tv, ranks=True).effective_ranks
    assert all(math.isnan(values[3]) and np.isfinite(values[:3]).all() for values in ranks)


def generator(seed):
    return torch.Generator().manual_seed(seed)
