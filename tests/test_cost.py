"""Seconds and memory of a run: what was used, when it was used, no matter who ran before."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from adamerging_lib.runtime import cost

MEGABYTE = 2**20
ROOT = Path(__file__).resolve().parents[1]
on_linux = pytest.mark.skipif(not cost._cpu_reset(torch.device("cpu")), reason="the system keeps no mark of its memory")


def use(megabytes: int) -> None:
    """From 32 MB on, glibc gives a freed piece back to the system at once."""
    np.ones(megabytes * MEGABYTE, dtype=np.uint8)


def test_result_and_seconds():
    """Seconds of work, not of waiting: what else runs on the machine must not count."""

    def work():
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
        time.sleep(0.2)
        return "made"

    start = time.process_time()
    result, seconds, _ = cost.measured(work)
    assert result == "made" and 0.05 <= seconds <= time.process_time() - start


@on_linux
@pytest.mark.parametrize("megabytes", [40, 100])
def test_memory_that_is_freed_again_counts(megabytes):
    _, _, peak = cost.measured(lambda: use(megabytes))
    assert abs(peak / MEGABYTE - megabytes) < 8


@on_linux
def test_an_earlier_run_changes_nothing():
    """Many small pieces stay with the process when they are freed; the next run's share of them must be seen."""

    def pieces() -> None:
        for _ in [np.ones(50_000, dtype=np.uint8) for _ in range(800)]:
            pass

    first, second = (cost.measured(pieces)[2] / MEGABYTE for _ in range(2))
    assert first == pytest.approx(38, abs=8) and second == pytest.approx(first, abs=8)
    assert cost.measured(lambda: None)[2] / MEGABYTE < 4


NESTED = """
import numpy as np
from adamerging_lib.runtime import cost

def use(megabytes):
    np.ones(megabytes * 2**20, dtype=np.uint8)

def outer(before, inner, after):
    use(before)
    found = cost.measured(lambda: use(inner))[2]
    use(after)
    return found

for sizes in [(120, 40, 40), (40, 120, 40), (40, 40, 120)]:
    found, _, peak = cost.measured(lambda: outer(*sizes))
    assert abs(found / 2**20 - sizes[1]) < 8 and abs(peak / 2**20 - 120) < 8, (sizes, found, peak)
"""


@on_linux
def test_a_run_inside_a_run():
    """The inner one counts its own, the outer one its own highest moment, before, inside or after the inner.

    In a process of its own: what other tests have left in this one may be given back in the middle of it.
    """
    subprocess.run([sys.executable, "-c", NESTED], check=True, cwd=ROOT)


@on_linux
def test_a_run_that_fails_leaves_no_trace():
    def fail() -> None:
        use(100)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        cost.measured(fail)
    assert cost.measured(lambda: use(40))[2] / MEGABYTE < 48


def test_a_system_without_such_a_mark(monkeypatch):
    monkeypatch.setattr(cost.sys, "platform", "darwin")
    assert cost.measured(lambda: "made")[2] is None


@on_linux
def test_a_container_that_hides_the_mark(monkeypatch, tmp_path):
    (tmp_path / "status").write_text("Name:\tpython\nVmRSS:\t  100 kB\n")
    (tmp_path / "clear_refs").mkdir()
    monkeypatch.setattr(cost, "_PROCESS", tmp_path)
    assert cost.measured(lambda: "made")[2] is None


@pytest.mark.gpu
def test_memory_of_a_gpu():
    def work() -> torch.Tensor:
        torch.ones(64 * MEGABYTE, dtype=torch.uint8, device="cuda")
        return torch.ones(8 * MEGABYTE, dtype=torch.uint8, device="cuda")

    kept, _, peak = cost.measured(work, "cuda")
    assert 64 <= peak / MEGABYTE < 70 and len(kept) == 8 * MEGABYTE
