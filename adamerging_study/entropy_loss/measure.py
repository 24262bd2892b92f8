"""Entropy and loss of every test image, in bins and as a rank correlation, as in Figures 3 and 11."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.functional import cross_entropy

from adamerging_lib.evaluation import predictions
from adamerging_lib.forward import entropy
from adamerging_lib.merged import Merged
from adamerging_lib.methods import run_method
from adamerging_lib.methods.registry import find
from adamerging_lib.suite import Suite

from . import ALL, BINS


def measure(
    suite: Suite,
    *,
    before: str,
    after: str,
    test_images: int = 0,
    setting: str = "transductive",
    seed: int = 0,
    device: str = "cpu",
    **learning: Any,
) -> list[dict[str, Any]]:
    """Entropy and loss of every test image before adaptation, after it, and under the experts.

    Arguments:
        suite: what to merge, and labelled test images.
        before, after: method ids of the merged model that adaptation starts from, and of what it makes of it.
        test_images: drawn per task; 0 for all.
        setting, seed, device: as in `measuring.measure`.
        learning: hyper-parameters of adaptive methods.

    Returns:
        Rows of a record, those of ``before`` first, then ``after``, then ``individual``.

    Source:
        AdaMerging, Section 3.2.2 and Appendix B.3.
    """
    suite, rows = suite.some_images(test_images or None), []
    options = {**learning, "seed": seed, "setting": setting, "device": device, "progress": False}
    for method in (before, after, "individual"):
        merged = run_method(method, suite, **(options if find(method).adaptive else {}))
        for task, (uncertainty, loss) in _of_images(suite, merged, setting, device).items():
            about = {"method": method, "task": task, "seed": seed}
            rows += [{**about, "kind": "bin", **row} for row in binned(uncertainty, loss)]
            rows.append({**about, "kind": "spearman", "value": correlation(uncertainty, loss), "n": len(loss)})
    return rows


def binned(uncertainty: Tensor, loss: Tensor) -> list[dict[str, float]]:
    """Mean loss of the images in each bin of entropy, bins without an image left out.

    Arguments:
        uncertainty: entropy of each image, nats, ``[n]``.
        loss: cross-entropy of each image, nats, ``[n]``.
    """
    index = (uncertainty * 10).ceil().long().sub(1).clamp(0, BINS - 1)  # (0, 0.1], …, (0.9, 1.0], (1, ∞)
    rows = []
    for number in range(BINS):
        if len(inside := loss[index == number]):
            rows.append({"bin": number, "loss": inside.mean().item(), "n": len(inside)})
    return rows


def correlation(uncertainty: Tensor, loss: Tensor) -> float | None:
    """Spearman's rank correlation of two vectors ``[n]``; None where one of the two is constant."""
    if len(uncertainty.unique()) < 2 or len(loss.unique()) < 2:
        return None
    return float(spearmanr(uncertainty.numpy(), loss.numpy()).statistic)


def _of_images(suite: Suite, merged: Merged, setting: str, device: str) -> Mapping[str, tuple[Tensor, Tensor]]:
    """Task → entropy and loss of each of its images; `ALL` pools them."""
    split = "held_out" if setting == "inductive" else "all"
    pairs = {
        task: (entropy(scores), cross_entropy(scores, labels, reduction="none"))
        for task, scores, labels in predictions(suite, merged, split=split, device=device)
    }
    return pairs | {ALL: tuple(torch.cat(parts) for parts in zip(*pairs.values(), strict=True))}
