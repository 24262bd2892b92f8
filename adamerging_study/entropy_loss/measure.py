"""Entropy and loss of every test image, in bins and as a rank correlation, as in Figures 3 and 11."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from adamerging_lib.evaluation import predictions
from adamerging_lib.forward import entropy
from adamerging_lib.merged import Merged
from adamerging_lib.suite import Suite

from .. import measuring
from . import ALL, BINS


def measure(
    suite: Suite,
    *,
    before: str,
    after: str,
    test_images: int = 0,
    setting: str = "transductive",
    seeds: Sequence[int] = (0,),
    device: str = "cpu",
    **learning: Any,
) -> list[dict[str, Any]]:
    """Entropy and loss of every test image before adaptation, after it, and under the experts.

    Arguments:
        suite: what to merge, and labelled test images.
        before, after: method ids of the merged model that adaptation starts from, and of what it makes of it.
        test_images: drawn per task; 0 for all.
        seeds: of the order of images; methods that learn are run with each.
        setting, device: as in `measuring.measure`.
        learning: hyper-parameters of adaptive methods.

    Returns:
        Rows of a record, those of ``before`` first, then ``after``, then ``individual``.

    Source:
        AdaMerging, Section 3.2.2 and Appendix B.3.
    """
    suite, rows = suite.some_images(test_images or None), []
    options = {"learning": learning, "setting": setting, "device": device}
    for method, seed in ((m, s) for m in (before, after, "individual") for s in measuring.seeds_of(m, seeds)):
        merged = measuring.fit(suite, method, seed=seed, **options)
        for task, (uncertainty, loss) in _of_images(suite, merged, setting, device).items():
            about = {"method": method, "task": task, "seed": seed}
            rows += [{**about, "kind": "bin", **row} for row in binned(uncertainty, loss)]
            rho = measuring.rank_correlation(uncertainty, loss)
            rows.append({**about, "kind": "spearman", "value": rho, "n": len(loss)})
    return rows


def binned(uncertainty: Tensor, loss: Tensor) -> list[dict[str, float]]:
    """Mean and standard deviation of the loss of the images in each bin of entropy, bins without an image left out.

    Arguments:
        uncertainty: entropy of each image, nats, ``[n]``.
        loss: cross-entropy of each image, nats, ``[n]``.
    """
    index = (uncertainty * 10).ceil().long().sub(1).clamp(0, BINS - 1)  # (0, 0.1], …, (0.9, 1.0], (1, ∞)
    rows = []
    for number in range(BINS):
        if len(inside := loss[index == number]):
            spread = {"deviation": inside.std().item()} if len(inside) > 1 else {}
            rows.append({"bin": number, "loss": inside.mean().item(), "n": len(inside), **spread})
    return rows


def _of_images(suite: Suite, merged: Merged, setting: str, device: str) -> Mapping[str, tuple[Tensor, Tensor]]:
    """Task → entropy and loss of each of its images; `ALL` pools them."""
    split = "held_out" if setting == "inductive" else "all"
    pairs = {
        task: (entropy(scores), cross_entropy(scores, labels, reduction="none"))
        for task, scores, labels in predictions(suite, merged, split=split, device=device)
    }
    return pairs | {ALL: tuple(torch.cat(parts) for parts in zip(*pairs.values(), strict=True))}
