"""Shared fixtures: one toy suite, and a cache of fits that never leaves the test's folder."""

from __future__ import annotations

import matplotlib
import pytest
import torch
import toy
from hypothesis import settings

# No figure of a test opens a window. Not by the environment: notebooks that tests execute draw in their own way.
matplotlib.use("Agg")
# The same examples in every run: a red test is then a change of the code. Deadlines would test the machine.
settings.register_profile("steady", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("steady")

# Toy tensors are too small to share out: threads would only wait for each other, worst beside a training run.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def suite():
    return toy.suite(seed=0)


@pytest.fixture
def task_vectors(suite):
    return suite.task_vectors()


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ADAMERGING_CACHE", str(tmp_path_factory.mktemp("fits")))
