"""The measurement behind Tables 3 and 6, and behind any other choice of unseen tasks."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from adamerging_lib.suite import Suite
from adamerging_lib.worlds.roles import same_role

from .. import evaluations, fits, measuring
from ..fits import Wanted


def measure(
    suite: Suite,
    *,
    splits: Sequence[Sequence[str]],
    methods: Sequence[str],
    test_images: int = 0,
    seeds: Sequence[int] = (0,),
    device: str = "cpu",
    **learning: Any,
) -> list[dict[str, Any]]:
    """Every method on every split: merged from the seen tasks, measured on seen and unseen ones.

    Arguments:
        suite: experts, heads and test images of all tasks.
        splits: the unseen tasks of each split, under the suite's names or those of another profile; empty for all
            pairs.
        methods: method ids; adaptive ones learn on the seen tasks' images alone.
        test_images: drawn per task; 0 for all.
        seeds: of adaptive methods and of those that draw at random.
        device: ``cpu``, ``cuda`` or ``auto``.
        learning: hyper-parameters of adaptive methods.

    Returns:
        Rows of a record, with ``group`` ``seen`` or ``unseen``, each with an ``Average`` of its own.

    Raises:
        ValueError: for a split with unknown tasks, or one that leaves nothing to merge or to test.
    """
    suite, rows = suite.some_images(test_images or None), []
    for split in splits or all_splits(suite.tasks):
        unseen = same_role(split, suite.tasks)
        part = hide(suite, unseen)
        for method, seed in ((m, s) for m in methods for s in measuring.seeds_of(m, seeds)):
            model = measuring.fit(part, method, learning=learning, seed=seed, device=device)
            frame = evaluations.evaluate(part, model, device=device)
            about = {"method": method, "condition": "clean", "unseen": ", ".join(unseen), "seed": seed}
            rows += measuring.rows_by_group(frame, part.tasks, **about)
    return rows


def kept(
    *,
    splits: Sequence[Sequence[str]],
    methods: Sequence[str],
    test_images: int,
    seeds: Sequence[int],
    device: str = "cpu",
    **learning: Any,
) -> Iterator[Wanted]:
    """The fits that a run with these parameters reads where they are kept; none of all 28 splits.

    Arguments:
        splits, methods, test_images, seeds, device, learning: as in `measure`.
    """
    for split in splits:
        for method in fits.learned(methods):
            for seed in seeds:
                part = functools.partial(_part, split=split, test_images=test_images)
                name = f"without-{'-'.join(split)}-{method}-{seed}"
                yield Wanted(name, method, {**learning, "seed": seed, "device": device}, part)


def _part(suite: Suite, split: Sequence[str], test_images: int) -> Suite:
    return hide(suite.some_images(test_images or None), same_role(split, suite.tasks))


def hide(suite: Suite, unseen: Sequence[str]) -> Suite:
    """The suite without the experts of some tasks; their heads and test images stay.

    Raises:
        ValueError: for a task that the suite has no expert of, and where none or all of them are unseen.
    """
    if unknown := [task for task in unseen if task not in suite.experts]:
        raise ValueError(f"the suite has no task {unknown[0]!r}: its tasks are {', '.join(suite.tasks)}")
    experts = {task: state for task, state in suite.experts.items() if task not in unseen}
    if not experts or not unseen:
        raise ValueError(f"{len(unseen)} of {len(suite.experts)} tasks are unseen: leave some to merge and to test")
    return dataclasses.replace(suite, experts=experts, joint=None)  # the joint model has seen all tasks


def all_splits(tasks: Sequence[str], size: int = 2) -> list[list[str]]:
    """Every choice of that many unseen tasks: 28 pairs of eight."""
    return [list(unseen) for unseen in itertools.combinations(tasks, size)]
