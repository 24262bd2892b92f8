"""Faults injected into sets of experts, honest sets beside them, and what a stretched expert does to merges."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adamerging_lib.doctor.check import check
from adamerging_lib.doctor.findings import NOTE
from adamerging_lib.doctor.report import Report
from adamerging_lib.suite import Suite

from .. import measuring
from . import CLEAN, FAULTS, STRETCHED
from .faults import Set, inject


def measure(
    suite: Suite,
    *,
    seeds: Sequence[int],
    sizes: Sequence[int] = (),
    methods: Sequence[str] = (),
    test_images: int = 0,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Check sets with one fault and sets with none, and measure what a stretched expert does to merging methods.

    Arguments:
        suite: whose experts are drawn from.
        seeds: each draws, of every fault and for every size, which experts are in the set and which one is faulty.
        sizes: numbers of experts; empty for two to all. A fault takes the next one for each seed.
        methods: whose merges of all experts are measured, with one stretched and with none.
        test_images: drawn per task for these; 0 for all.
        device: ``cpu``, ``cuda`` or ``auto``, for these.

    Returns:
        Rows of a record.
    """
    sizes = list(sizes) or list(range(2, len(suite.experts) + 1))
    rows = [_fault_row(suite, fault, number, seed, sizes) for number, fault in enumerate(FAULTS) for seed in seeds]
    rows += [_clean_row(suite, size, seed) for size in sizes for seed in seeds]
    return rows + list(_merged(suite.some_images(test_images or None), methods, seeds, device))


def _fault_row(suite: Suite, fault: str, number: int, seed: int, sizes: Sequence[int]) -> dict[str, Any]:
    size = sizes[(number + seed) % len(sizes)]
    tasks = _drawn(suite, size, [seed, number])
    with tempfile.TemporaryDirectory() as folder:
        experts = {task: suite.experts[task] for task in sorted(tasks, key=list(suite.experts).index)}
        generator = torch.Generator().manual_seed(seed)
        whole = Set(suite, suite.pretrained, experts, tasks[0], tasks[1], generator, Path(folder))
        report = check(*inject(fault, whole))
    return {
        "method": "check", "kind": "fault", "fault": fault, "seed": seed, "task": tasks[0], "experts": size,
        "hit": int(hits(report, fault, tasks[0])), "blamed": len(blamed(report, fault, tasks[:2])), **_about(report),
    }  # fmt: skip


def _clean_row(suite: Suite, size: int, seed: int) -> dict[str, Any]:
    tasks = _drawn(suite, size, [seed, size, 1])
    report = check(suite.pretrained, {task: suite.experts[task] for task in tasks})
    accused = {name for finding in _grave(report) for name in finding.experts}
    about = {"method": "check", "kind": "clean", "seed": seed, "experts": size}
    return {**about, "blamed": len(accused), **_about(report)}


def _drawn(suite: Suite, size: int, seed: Sequence[int]) -> list[str]:
    return np.random.default_rng(list(seed)).permutation(list(suite.experts))[:size].tolist()


def _grave(report: Report) -> list:
    return [finding for finding in report.findings if finding.level != NOTE]


def _about(report: Report) -> dict[str, Any]:
    return {"codes": ", ".join(dict.fromkeys(f.code for f in _grave(report))), "exit": report.exit_code}


def hits(report: Report, fault: str, victim: str) -> bool:
    """Whether a report names a fault: a finding of the right kind, of the right expert or of the set as a whole.

    Arguments:
        report: of a set with the fault.
        fault: its id.
        victim: the faulty expert.
    """
    right = [finding for finding in _grave(report) if finding.code in FAULTS[fault].codes]
    return any(not finding.experts or victim in finding.experts for finding in right)


def blamed(report: Report, fault: str, involved: Sequence[str]) -> set[str]:
    """Experts that a report accuses although nothing was done to them.

    Arguments:
        report: of a set with the fault.
        fault: its id.
        involved: the faulty expert, and the one in whose place a copy of it lies.
    """
    copied = FAULTS[fault].codes in (("same",), ("copy",))
    innocent = set(report.experts.index) - set(involved if copied else involved[:1])
    # Of two uneven experts either may be the faulty one, and the finding says so.
    accusing = [finding for finding in _grave(report) if finding.code != "uneven"]
    return {name for finding in accusing for name in finding.experts if name in innocent}


def _merged(suite: Suite, methods: Sequence[str], seeds: Sequence[int], device: str) -> Iterator[dict[str, Any]]:
    for method in methods:
        yield from measuring.measure(suite, method, device=device, about={"kind": "merged", "fault": CLEAN})
        order = _drawn(suite, len(suite.experts), [0])  # one after another, so that no seed repeats another's
        for seed in seeds:
            victim = order[seed % len(order)]
            longer = {key: torch.lerp(suite.pretrained[key], t, 3.0) if t.is_floating_point() else t
                      for key, t in suite.experts[victim].items()}  # fmt: skip
            stretched = dataclasses.replace(suite, experts={**suite.experts, victim: longer})
            about = {"kind": "merged", "fault": STRETCHED}
            yield from measuring.measure(stretched, method, device=device, seed=seed, about=about)
