"""Merge the experts of some tasks, test on the others too: does a merged model know more than it was merged from?

Rows of a record: as in `measure`, with ``group`` ``seen`` or ``unseen``, each with an ``Average`` of its own, and the
split in ``condition``: ``without digits, landcover`` names the tasks whose experts took no part.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from adamerging_lib.evaluation import evaluate
from adamerging_lib.methods import run_method
from adamerging_lib.methods.registry import find
from adamerging_lib.records import rows_of
from adamerging_lib.suite import Suite
from adamerging_lib.worlds.roles import same_role


def generalisation(
    suite: Suite,
    splits: Sequence[Sequence[str]],
    methods: Sequence[str],
    learning: Mapping[str, Any],
    *,
    seed: int = 0,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Every method on every split: merged from the seen tasks, measured on seen and unseen ones.

    Arguments:
        suite: experts, heads and test images of all tasks.
        splits: the unseen tasks of each split, under the suite's names or those of another profile.
        methods: method ids; adaptive ones learn on the seen tasks' images alone.
        learning: hyper-parameters of adaptive methods.
        seed: of adaptive methods.
        device: ``cpu``, ``cuda`` or ``auto``.

    Returns:
        Rows of a record.

    Raises:
        ValueError: for a split with unknown tasks, or one that leaves nothing to merge or to test.
    """
    rows = []
    for split in splits:
        unseen = same_role(split, suite.tasks)
        part = hide(suite, unseen)
        for method in methods:
            options = {**learning, "seed": seed, "device": device, "progress": False} if find(method).adaptive else {}
            frame = evaluate(part, run_method(method, part, **options), device=device)
            about = {"method": method, "condition": f"without {', '.join(unseen)}", "seed": seed}
            hidden = frame["task"].isin(unseen)
            for group, own in (("seen", frame[~hidden]), ("unseen", frame[hidden])):
                rows += rows_of(own.reset_index(drop=True), group=group, **about)
    return rows


def hide(suite: Suite, unseen: Sequence[str]) -> Suite:
    """The suite without the experts of some tasks; their heads and test images stay."""
    if unknown := [task for task in unseen if task not in suite.experts]:
        raise ValueError(f"the suite has no task {unknown[0]!r}: its tasks are {', '.join(suite.tasks)}")
    experts = {task: state for task, state in suite.experts.items() if task not in unseen}
    if not experts or not unseen:
        raise ValueError(f"{len(unseen)} of {len(suite.experts)} tasks are unseen: leave some to merge and to test")
    return dataclasses.replace(suite, experts=experts, joint=None)  # the joint model has seen all tasks


def all_splits(tasks: Sequence[str], size: int = 2) -> list[list[str]]:
    """Every choice of so many unseen tasks: 28 pairs of eight."""
    return [list(unseen) for unseen in itertools.combinations(tasks, size)]
