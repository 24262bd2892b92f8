"""What rounding the weights costs: the same images under the same coefficients, with whole and with rounded weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from adamerging_lib.forward import features, logits
from adamerging_lib.state import StateDict
from adamerging_lib.suite import Suite

from .world import Choice


def predictions(suite: Suite, state: StateDict) -> dict[str, Tensor]:
    """Task → logits ``[n, classes]`` of its test images under a state dict."""
    with torch.no_grad():
        return {
            task: logits(features(suite.encoder, state, suite.normalise(data.images)), suite.heads[task])
            for task, data in suite.test.items()
        }


def accuracy(suite: Suite, found: Mapping[str, Tensor]) -> dict[str, float]:
    """Task → percent of its images whose highest logit is the label's."""
    right = {task: found[task].argmax(1) == suite.test[task].labels for task in suite.tasks}
    return {task: 100 * float(hits.float().mean()) for task, hits in right.items()}


def cost(whole: Suite, small: Suite, offered: list[Choice]) -> list[dict[str, float | str]]:
    """Per set of coefficients: average accuracy with whole and with rounded weights, and how many predictions differ.

    Arguments:
        whole: the suite.
        small: the same with rounded weights.
        offered: sets of coefficients.
    """
    vectors = whole.task_vectors(), small.task_vectors()
    rows = []
    for choice in offered:
        found = [
            predictions(suite, tv.merge(choice.coefficients, "tensor"))
            for suite, tv in zip((whole, small), vectors, strict=True)
        ]
        before, after = (list(accuracy(whole, each).values()) for each in found)
        changed = sum(int((found[0][t].argmax(1) != found[1][t].argmax(1)).sum()) for t in whole.tasks)
        rows.append({
            "label": choice.label, "whole": sum(before) / len(before), "rounded": sum(after) / len(after),
            "changed": changed,
        })  # fmt: skip
    return rows
