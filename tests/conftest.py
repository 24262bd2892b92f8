"""Shared fixtures: one toy suite, and a cache of fits that never leaves the test's folder."""

from __future__ import annotations

import pytest
import toy


@pytest.fixture(scope="session")
def suite():
    return toy.suite(seed=0)


@pytest.fixture
def task_vectors(suite):
    return suite.task_vectors()


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ADAMERGING_CACHE", str(tmp_path_factory.mktemp("fits")))
