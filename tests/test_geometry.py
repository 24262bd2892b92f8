"""The geometry of task vectors, against one long vector per task."""

from __future__ import annotations

import numpy as np
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
