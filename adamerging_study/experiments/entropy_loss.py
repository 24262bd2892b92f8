"""Is low entropy a sign of low loss? Eleven bins of entropy, and Spearman's correlation, as in Figures 3 and 11.

Rows of a record: ``condition="bin"`` with ``task, bin`` (0 to 10: entropy in (bin/10, (bin+1)/10] nats, the last open)
and ``loss`` (mean cross-entropy, nats), ``n``; ``condition="spearman"`` with ``task`` and ``value``. The task ``all``
pools the images of all tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.functional import cross_entropy

from adamerging_lib.evaluation import predictions
from adamerging_lib.forward import entropy
from adamerging_lib.methods import run_method
from adamerging_lib.methods.registry import find
from adamerging_lib.suite import Suite

BINS = 11
ALL = "all"


def entropy_loss(
    suite: Suite,
    methods: Sequence[str],
    learning: Mapping[str, Any],
    *,
    seed: int = 0,
    setting: str = "transductive",
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Entropy and loss of every test image under every method, in bins and as a rank correlation.

    Arguments:
        suite: what to merge, and labelled test images.
        methods: method ids.
        learning: hyper-parameters of adaptive methods.
        seed, setting, device: as in `measure`.

    Returns:
        Rows of a record.

    Source:
        AdaMerging, Section 3.2.2 and Appendix B.3.
    """
    rows = []
    for method in methods:
        hyper = {**learning, "seed": seed, "setting": setting, "device": device, "progress": False}
        merged = run_method(method, suite, **(hyper if find(method).adaptive else {}))
        split = "held_out" if setting == "inductive" else "all"
        pairs = {}
        for task, scores, labels in predictions(suite, merged, split=split, device=device):
            pairs[task] = entropy(scores), cross_entropy(scores, labels, reduction="none")
        pairs[ALL] = tuple(torch.cat(parts) for parts in zip(*pairs.values(), strict=True))
        for task, (uncertainty, loss) in pairs.items():
            about = {"method": method, "task": task, "seed": seed}
            rows += [{**about, "condition": "bin", **row} for row in binned(uncertainty, loss)]
            rows.append({**about, "condition": "spearman", "value": correlation(uncertainty, loss), "n": len(loss)})
    return rows


def binned(uncertainty: Tensor, loss: Tensor) -> list[dict[str, float]]:
    """Mean loss of the images in each bin of entropy, bins without an image left out."""
    index = (uncertainty * 10).ceil().long().sub(1).clamp(0, BINS - 1)  # (0, 0.1], …, (0.9, 1.0], (1, ∞)
    rows = []
    for number in range(BINS):
        if len(inside := loss[index == number]):
            rows.append({"bin": number, "loss": inside.mean().item(), "n": len(inside)})
    return rows


def correlation(uncertainty: Tensor, loss: Tensor) -> float | None:
    """Spearman's rank correlation; None where one of the two is constant."""
    if len(uncertainty.unique()) < 2 or len(loss.unique()) < 2:
        return None
    return float(spearmanr(uncertainty.numpy(), loss.numpy()).statistic)
