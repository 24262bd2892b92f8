"""The measurement behind Tables 4 and 7, and a fit on noisy images looked at step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from adamerging_lib.evaluation import evaluate, predictions
from adamerging_lib.forward import entropy
from adamerging_lib.merged import Merged
from adamerging_lib.methods.registry import find
from adamerging_lib.suite import Suite
from adamerging_lib.worlds.corruptions import corrupt

from .. import measuring
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
    seed: int = 0,
    device: str = "cpu",
    **learning: Any,
) -> list[dict[str, Any]]:
    """Every method on clean images and under every corruption; then one fit under several objectives, step by step.

    Arguments:
        suite: what to merge, with clean test images.
        methods, corruptions, severities, swept: as in `robustness`.
        severity: of the comparison and of the fit looked at, 1 to 5.
        family: of corruptions, see `corrupt`.
        failing, objectives, every: as in `failure`; no objectives for none of it.
        test_images: drawn per task; 0 for all.
        seed: of corruptions, of adaptive methods and of those that draw at random.
        device: ``cpu``, ``cuda`` or ``auto``.
        learning: hyper-parameters of adaptive methods.

    Returns:
        Rows of a record.

    Raises:
        ValueError: for unknown names, or a method of ``swept`` that is not among ``methods``.
    """
    suite = suite.some_images(test_images or None)
    options = {"severity": severity, "family": family, "seed": seed, "device": device}
    rows = robustness(suite, methods, corruptions, learning, severities=severities, swept=swept, **options)
    return rows + failure(suite, failing, objectives or {}, learning, every=every, **options)


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
    seed: int = 0,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Every method on clean images and under every corruption.

    Arguments:
        suite, severity, family, seed, device: as in `measure`.
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
    options = {"learning": learning, "seed": seed, "device": device}
    merged = {method: measuring.fit(suite, method, **options) for method in methods}

    def measured(shifted: Suite, method: str, model: Merged, adapted_on: str, name: str, level: int) -> list:
        adapted_on = adapted_on if find(method).adaptive else "nothing"
        about = {"method": method, "condition": name, "severity": level, "adapted_on": adapted_on, "seed": seed}
        return measuring.rows_of(evaluate(shifted, model, device=device, outcomes=True), group="all", **about)

    rows = [row for method in methods for row in measured(suite, method, merged[method], "clean", "clean", 0)]
    for name in corruptions:
        for level in sorted({severity, *severities}):
            shifted = corrupt(suite, name, level, seed, family=family)
            for method in methods if level == severity else swept:
                rows += measured(shifted, method, merged[method], "clean", name, level)
                if level == severity and find(method).adaptive:
                    adapted = measuring.fit(shifted, method, **options)
                    rows += measured(shifted, method, adapted, "corrupted", name, level)
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
    seed: int = 0,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Layer-wise AdaMerging on corrupted images under several objectives, looked at every few steps.

    Arguments:
        suite, learning, severity, family, seed, device: as in `robustness`.
        name: the corruption.
        objectives: label → what changes in the objective, see `adamerge`; nothing for entropy alone.
        every: steps between two looks; the last step is looked at too.

    Returns:
        Rows of a record, one per task, step and objective.
    """
    if not objectives:
        return []
    shifted = corrupt(suite, name, severity, seed, family=family)
    about = {"method": LEARNED, "condition": name, "severity": severity, "adapted_on": "corrupted", "seed": seed}
    rows, looks = [], {}
    for label, objective in objectives.items():
        changed = {"objective": dict(objective)} if objective else {}
        fit = measuring.fit(shifted, LEARNED, learning=learning, seed=seed, device=device, **changed)
        last = len(fit.trajectory) - 1
        for step in sorted({*range(0, last, every), last}):
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
    found = []
    for task, scores, labels in predictions(suite, merged, device=device):
        predicted = scores.argmax(-1)
        right = predicted == labels
        found.append(
            {
                "task": task,
                "accuracy": 100 * right.double().mean().item(),
                "entropy": entropy(scores).mean().item(),
                "share": 100 * predicted.bincount().max().item() / len(labels),
                "n": len(labels),
                "right": right.numpy(),
            }
        )
    return pd.DataFrame(found)
