"""The cache of fits: it never gives back what something else made."""

from __future__ import annotations

import dataclasses
import importlib
import threading
import time

import pytest
import torch
import toy

import adamerging_lib
from adamerging_lib import state
from adamerging_lib.runtime import cache


def counting(result=1.0):
    calls = []

    def compute():
        calls.append(1)
        return {"z": torch.tensor([result]), "a": torch.zeros(3)}, {"note": "n"}

    return calls, compute


def test_computed_once_and_equal():
    calls, compute = counting()
    first = cache.cached("kind", {"a": 1}, {"f": "0"}, "code", compute)
    second = cache.cached("kind", {"a": 1}, {"f": "0"}, "code", compute)
    assert len(calls) == 1 and first[1] == second[1] == {"note": "n"}
    assert list(first[0]) == list(second[0]) == ["z", "a"]
    assert all(torch.equal(first[0][key], second[0][key]) for key in first[0])


@pytest.mark.parametrize(
    "key",
    [
        ("other", {"a": 1}, {"f": "0"}, "code"),
        ("kind", {"a": 2}, {"f": "0"}, "code"),
        ("kind", {"a": 1, "b": None}, {"f": "0"}, "code"),
        ("kind", {"a": 1}, {"f": "1"}, "code"),
        ("kind", {"a": 1}, {}, "code"),
        ("kind", {"a": 1}, {"f": "0"}, "new code"),
    ],
)
def test_every_part_of_the_key_counts(key):
    calls, compute = counting()
    cache.cached("kind", {"a": 1}, {"f": "0"}, "code", compute)
    cache.cached(*key, compute)
    assert len(calls) == 2


def test_failed_computation_leaves_nothing():
    def fail():
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        cache.cached("kind", {}, {}, "code", fail)
    assert not cache.folder().exists() or not list(cache.folder().glob("*.safetensors"))


def test_broken_files_are_named():
    _, compute = counting()
    cache.cached("kind", {}, {}, "code", compute)
    (path,) = cache.folder().glob("*.safetensors")
    state.save(path, {"z": torch.zeros(1)}, {"key": "another"})
    with pytest.raises(ValueError, match="does not hold the fit"):
        cache.cached("kind", {}, {}, "code", compute)
    path.write_bytes(b"half")
    with pytest.raises(ValueError, match="text that begins 'half', not weights"):
        cache.cached("kind", {}, {}, "code", compute)


@pytest.mark.parametrize("value", [object(), float("nan"), torch.zeros(1)])
def test_keys_are_plain_values(value):
    with pytest.raises(ValueError, match="cache key of 'kind' needs plain finite values"):
        cache.cached("kind", {"a": value}, {}, "code", counting()[1])


def test_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("ADAMERGING_CACHE", str(tmp_path / "x"))
    assert cache.folder() == tmp_path / "x"
    monkeypatch.delenv("ADAMERGING_CACHE")
    assert cache.folder().parts[-2:] == (".cache", "fits")


def test_suite_is_told_by_its_tensors_not_by_its_checksums(suite):
    reference = cache.fingerprint_suite(suite)
    assert cache.fingerprint_suite(toy.suite(seed=0)) == reference
    assert cache.fingerprint_suite(dataclasses.replace(suite, assets={"a.safetensors": "0"})) == reference
    other = cache.fingerprint_suite(toy.suite(seed=1))
    assert {key for key in reference if reference[key] != other[key]} == reference.keys() - {"encoder"}
    training = cache.fingerprint_suite(dataclasses.replace(suite, encoder=toy.ToyViT().train()))
    assert training == reference  # its own weights and mode are never used
    heads = cache.fingerprint_suite(dataclasses.replace(suite, encoder=toy.ToyViT(heads=4)))
    assert heads["encoder"] != reference["encoder"]  # same tensors, same repr


MODULE = '''
"""Docstring."""
from .{helper} import VALUE

def compute():
    """Docstring."""
    from adamerging_lib import {helper}  # comment

    return VALUE
'''


def test_code_fingerprint_follows_imports_and_ignores_comments(tmp_path, monkeypatch):
    monkeypatch.setattr(adamerging_lib, "__path__", [*adamerging_lib.__path__, str(tmp_path)])

    def digest(helper: str, source: str = MODULE, deeper: str = "VALUE = 1") -> str:
        for name, text in (("probe", source), ("probe_helper", helper), ("probe_deeper", deeper)):
            (tmp_path / f"{name}.py").write_text(text.replace("{helper}", "probe_helper"))
        importlib.invalidate_caches()

        def compute():
            raise AssertionError("only its home counts")

        compute.__module__ = "adamerging_lib.probe"
        return cache.fingerprint_code(compute)

    helper = "from .probe_deeper import VALUE\n"
    base = digest(helper)
    assert digest(helper) == base
    assert digest(f"# why\n\n'Docstring.'\n{helper}\n") == base
    assert digest(f"{helper}VALUE = VALUE + 1\n") != base
    assert digest(helper, deeper="VALUE = 2") != base
    assert digest(helper, MODULE.replace("return VALUE", "return -VALUE")) != base
    assert digest(helper, MODULE.replace("# comment", "# another")) == base
    assert cache.fingerprint_code(adamerging_lib.adamerge) != cache.fingerprint_code(adamerging_lib.evaluate)


def test_two_processes_compute_once(tmp_path, monkeypatch):
    """Who comes second waits for the first and reads: notebooks run side by side and share fits."""
    monkeypatch.setenv("ADAMERGING_CACHE", str(tmp_path))
    calls, started = [], threading.Event()

    def compute():
        calls.append(1)
        started.set()
        time.sleep(0.2)
        return {"x": torch.ones(1)}, {}

    first = threading.Thread(target=cache.cached, args=("lock", {}, {}, "", compute))
    first.start()
    started.wait(10)
    tensors, _ = cache.cached("lock", {}, {}, "", compute)
    first.join()
    assert len(calls) == 1 and torch.equal(tensors["x"], torch.ones(1))
