"""The measurement behind Tables 4 and 7, and a fit on noisy images looked at step by step."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from torch import Tensor

from adamerging_lib.forward import entropy
from adamerging_lib.merged import Merged
from adamerging_lib.methods.registry import find
from adamerging_lib.suite import Suite
from adamerging_lib.worlds.corruptions import corrupt

from .. import evaluations, fits, measuring
from ..fits import Wanted
from .numbers import LEARNED


def measure(
    suite: Suite,
    *,
    methods: Sequence[str],
    corruptions: Sequence[str],
    severity: int,
    severities: Sequence[int] = (),
    swept: Sequence[str] = (),
    family: str = "native",
    failing: str = "impulse_noise",
    objectives: Mapping[str, Mapping[str, Any]] | None = None,
    every: int = 10,
    test_images: int = 0,
    seeds: Sequence[int] = (0,),
    device: str = "cpu",
    **learning: Any,
) -> list[dict[str, Any]]:
    """Every method on clean images and under every corruption; then one fit under several objectives, step by step.

    Arguments:
        suite: what to merge, with clean test images.
        methods, corruptions, severities, swept: as in `robustness`.
        severity: of the comparison and of the fit looked at, 1 to 5; the other severities are measured with the first
            seed.
        family: of corruptions, see `corrupt`.
        failing, objectives, every: as in `failure`; no objectives for none of it.
        test_images: drawn per task; 0 for all.
        seeds: of corruptions, of adaptive methods and of those that draw at random.
        device: ``cpu``, ``cuda`` or ``auto``.
        learning: hyper-parameters of adaptive methods.

    Returns:
        Rows of a record.

    Raises:
        ValueError: for unknown names, or a method of ``swept`` that is not among ``methods``.
    """
    suite = suite.some_images(test_images or None)
    options = {"severity": severity, "family": family, "seeds": seeds, "device": device}
    rows = robustness(suite, methods, corruptions, learning, severities=severities, swept=swept, **options)
    return rows + failure(suite, failing, objectives or {}, learning, every=every, **options)


def kept(
    *,
    methods: Sequence[str],
    corruptions: Sequence[str],
    severity: int,
    family: str,
    failing: str,
    objectives: Mapping[str, Mapping[str, Any]],
    test_images: int,
    seeds: Sequence[int],
    device: str = "cpu",
    **others: Any,
) -> Iterator[Wanted]:
    """The fits that a run with these parameters reads where they are kept.

    Arguments:
        methods, corruptions, severity, family, failing, objectives, test_images, seeds, device: as in `measure`.
        others: further parameters of the notebook, the hyper-parameters of adaptive methods among them.
    """
    learning = {name: value for name, value in others.items() if name not in ("severities", "swept", "every")}
    changed = {label: what for label, what in objectives.items() if what}  # entropy alone is among the corruptions
    for seed, method in itertools.product(seeds, fits.learned(methods)):
        options = {**learning, "seed": seed, "device": device}
        for name in ("clean", *corruptions):
            part = functools.partial(_part, name=name, severity=severity, family=family, count=test_images, seed=seed)
            yield Wanted(f"{name}-{method}-{seed}", method, options, part)
    for seed, (label, objective) in itertools.product(seeds, changed.items()):
        options = {**learning, "seed": seed, "device": device, "objective": dict(objective)}
        part = functools.partial(_part, name=failing, severity=severity, family=family, count=test_images, seed=seed)
        yield Wanted(f"{failing}-{label.lower().replace(' ', '-')}-{seed}", LEARNED, options, part)


def _part(suite: Suite, name: str, severity: int, family: str, count: int, seed: int) -> Suite:
    suite = suite.some_images(count or None)
    return suite if name == "clean" else corrupt(suite, name, severity, seed, family=family)


def robustness(
    suite: Suite,
    methods: Sequence[str],
    corruptions: Sequence[str],
    learning: Mapping[str, Any],
    *,
    severity: int,
    severities: Sequence[int] = (),
    swept: Sequence[str] = (),
    family: str = "native",
    seeds: Sequence[int] = (0,),
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Every method on clean images and under every corruption.

    Arguments:
        suite, severity, family, seeds, device: as in `measure`.
        methods: method ids. Adaptive ones learn once on the clean images and once on every set of corrupted ones.
        corruptions: names of corruptions.
        learning: hyper-parameters of adaptive methods.
        severities: further ones, at which the methods of ``swept`` are measured as they are on clean images.
        swept: some of the methods.

    Returns:
        Rows of a record.
    """
    if unknown := set(swept) - set(methods):
        raise ValueError(f"swept methods {sorted(unknown)} are not among the methods {list(methods)}: add them there")

    def measured(shifted: Suite, method: str, seed: int, model: Merged, adapted_on: str, name: str, level: int) -> list:
        adapted_on = adapted_on if find(method).adaptive else "nothing"
        about = {"method": method, "condition": name, "severity": level, "adapted_on": adapted_on, "seed": seed}
        return measuring.rows_of(evaluations.evaluate(shifted, model, device=device), group="all", **about)

    rows, merged = [], {}
    for seed in seeds:
        options = {"learning": learning, "seed": seed, "device": device}
        for method in (method for method in methods if seed in measuring.seeds_of(method, seeds)):
            merged[method] = measuring.fit(suite, method, **options)
            rows += measured(suite, method, seed, merged[method], "clean", "clean", 0)
        levels = sorted({severity, *severities} if seed == seeds[0] else {severity})
        for name, level in itertools.product(corruptions, levels):
            shifted = corrupt(suite, name, level, seed, family=family)
            for method in methods if level == severity else swept:
                rows += measured(shifted, method, seed, merged[method], "clean", name, level)
                if level == severity and find(method).adaptive:
                    adapted = measuring.fit(shifted, method, **options)
                    rows += measured(shifted, method, seed, adapted, "corrupted", name, level)
    return rows


def failure(
    suite: Suite,
    name: str,
    objectives: Mapping[str, Mapping[str, Any]],
    learning: Mapping[str, Any],
    *,
    severity: int,
    every: int,
    family: str = "native",
    seeds: Sequence[int] = (0,),
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Layer-wise AdaMerging on corrupted images under several objectives, looked at every few steps.

    Arguments:
        suite, learning, severity, family, seeds, device: as in `robustness`.
        name: the corruption.
        objectives: label → what changes in the objective, see `adamerge`; nothing for entropy alone.
        every: steps between two looks with the first seed; the last step is looked at too, and of other seeds only the
            first and the last.

    Returns:
        Rows of a record, one per task, step and objective.
    """
    if not objectives:
        return []
    rows = []
    for seed, label in itertools.product(seeds, objectives):
        if label == next(iter(objectives)):
            shifted, looks = corrupt(suite, name, severity, seed, family=family), {}
        about = {"method": LEARNED, "condition": name, "severity": severity, "adapted_on": "corrupted", "seed": seed}
        changed = {"objective": dict(objectives[label])} if objectives[label] else {}
        fit = measuring.fit(shifted, LEARNED, learning=learning, seed=seed, device=device, **changed)
        last = len(fit.trajectory) - 1
        for step in sorted({*range(0, last, every if seed == seeds[0] else max(last, 1)), last}):
            if step or not looks:  # all objectives start alike
                looks[step] = watch(shifted, measuring.at_step(shifted, fit, step), device)
            rows += measuring.rows_of(looks[step], **about, group="all", objective=label, step=step)
    return rows


def watch(suite: Suite, merged: Merged, device: str = "cpu") -> pd.DataFrame:
    """What a model predicts, task by task.

    Returns:
        One row per task: task, accuracy (percent), entropy (nats, mean), share of the class predicted most often
        (percent), n, and in ``right`` which images are classified correctly, bool ``[n]``.
    """
    frame = evaluations.evaluate(suite, merged, device=device, measure=_watched)
    return frame.drop(columns=["setting", "split"])


def _watched(scores: Tensor, labels: Tensor) -> dict[str, float | int]:
    predicted = scores.argmax(-1)
    return {
        "accuracy": 100 * (predicted == labels).double().mean().item(),
        "entropy": entropy(scores).mean().item(),
        "share": 100 * predicted.bincount().max().item() / len(labels),
        "n": len(labels),
    }
