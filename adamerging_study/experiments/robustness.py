"""Merged models on corrupted test images, and what minimising entropy does to their predictions there, step by step.

Rows of a record: as in `measure`, with the corruption's name in ``condition`` (``clean`` for none), its ``severity`` (0
for none), and in ``adapted_on`` the images that the coefficients were learned on: ``corrupted`` ones (the same, as in
the paper), ``clean`` ones, or ``nothing``. Rows of `failure` also have ``objective`` and ``step``, and in ``share`` the
percentage of images that are taken for the class named most often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from adamerging_lib.evaluation import evaluate, predictions
from adamerging_lib.forward import entropy
from adamerging_lib.methods import Merged, run_method
from adamerging_lib.methods.registry import find
from adamerging_lib.records import rows_of
from adamerging_lib.suite import Suite
from adamerging_lib.worlds.corruptions import corrupt

from . import at_step

ADAPTED = "layer_wise_adamerging"


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
        suite: what to merge, with clean test images.
        methods: method ids. Adaptive ones learn once on the clean images and once on every set of corrupted ones.
        corruptions: names of corruptions.
        learning: hyper-parameters of adaptive methods.
        severity: of the comparison, 1 to 5.
        severities: further ones, at which the methods of ``swept`` are measured as they are on clean images.
        swept: some of the methods.
        family: of corruptions.
        seed: of corruptions and of adaptive methods.
        device: ``cpu``, ``cuda`` or ``auto``.

    Returns:
        Rows of a record.

    Raises:
        ValueError: for unknown names, or a method of ``swept`` that is not among ``methods``.
    """
    if unknown := set(swept) - set(methods):
        raise ValueError(f"swept methods {sorted(unknown)} are not among the methods {list(methods)}: add them there")
    merged = {method: run_method(method, suite, **_options(method, learning, seed, device)) for method in methods}

    def measured(shifted: Suite, method: str, model: Merged, adapted_on: str, name: str, level: int) -> list:
        adapted_on = adapted_on if find(method).adaptive else "nothing"
        about = {"method": method, "condition": name, "severity": level, "adapted_on": adapted_on, "seed": seed}
        return rows_of(evaluate(shifted, model, device=device), group="all", **about)

    rows = [row for method in methods for row in measured(suite, method, merged[method], "clean", "clean", 0)]
    for name in corruptions:
        for level in sorted({severity, *severities}):
            shifted = corrupt(suite, name, level, seed, family=family)
            for method in methods if level == severity else swept:
                rows += measured(shifted, method, merged[method], "clean", name, level)
                if level == severity and find(method).adaptive:
                    fit = run_method(method, shifted, **_options(method, learning, seed, device))
                    rows += measured(shifted, method, fit, "corrupted", name, level)
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
        Rows of a record, one a task, step and objective.
    """
    shifted = corrupt(suite, name, severity, seed, family=family)
    options = _options(ADAPTED, learning, seed, device)
    about = {"method": ADAPTED, "condition": name, "severity": severity, "adapted_on": "corrupted", "seed": seed}
    rows, looks = [], {}
    for label, objective in objectives.items():
        fit = run_method(ADAPTED, shifted, **options, **({"objective": dict(objective)} if objective else {}))
        last = len(fit.trajectory) - 1
        for step in sorted({*range(0, last, every), last}):
            if step or not looks:  # all objectives start alike
                looks[step] = watch(shifted, at_step(shifted, fit, step), device)
            rows += rows_of(looks[step], **about, group="all", objective=label, step=step)
    return rows


def watch(suite: Suite, merged: Merged, device: str = "cpu") -> pd.DataFrame:
    """Accuracy (percent), mean entropy (nats), and share of the class predicted most often (percent), task by task."""
    found = []
    for task, scores, labels in predictions(suite, merged, device=device):
        predicted = scores.argmax(-1)
        found.append(
            {
                "task": task,
                "accuracy": 100 * (predicted == labels).double().mean().item(),
                "entropy": entropy(scores).mean().item(),
                "share": 100 * predicted.bincount().max().item() / len(labels),
                "n": len(labels),
            }
        )
    return pd.DataFrame(found)


def _options(method: str, learning: Mapping[str, Any], seed: int, device: str) -> dict[str, Any]:
    if not find(method).adaptive:
        return {}
    return {**learning, "seed": seed, "device": device, "progress": False}
