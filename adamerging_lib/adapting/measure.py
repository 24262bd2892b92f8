"""Accuracy, entropy and loss of an adapted model on labelled batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..forward import resolve_device
from ..runtime.values import one_of
from .adapted import Adapted
from .batches import check_data, held_out, inputs_of, labels_of, length, rows, told
from .template import moved, scores_of

IGNORED = -100


def adapted_predictions(
    fit: Adapted, data: Mapping[str, Iterable[Any]], *, split: str = "all", device: str | torch.device = "cpu"
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Task, logits (float64 ``[n, classes]``) and labels ``[n]`` of an adapted model, task by task, on the CPU.

    Arguments:
        fit: what `adapt` returned.
        data: task → labelled batches.
        split: ``all``, or ``held_out``: only inputs of the half that the inductive setting does not adapt on.
        device: where it runs.

    Raises:
        ValueError: for unusable batches, labels that do not fit, or logits that are not finite.
    """
    if not isinstance(fit, Adapted):
        raise ValueError(f"a {type(fit).__name__} cannot be measured: give a suite, or what am.adapt returned")
    if not isinstance(data, Mapping) or not data:
        raise ValueError("give labelled batches by task: {task: batches of (inputs, labels)}")
    for task in data:
        one_of("task", task, fit.tasks)
    for task, batches in data.items():
        yield task, *_predicted(fit, task, batches, resolve_device(device), split)


def _predicted(
    fit: Adapted, task: str, batches: Iterable[Any], device: torch.device, split: str
) -> tuple[Tensor, Tensor]:
    owner = f"data[{task!r}]"
    check_data(batches, owner)
    parts = list(_parts(fit, task, batches, device, split))
    if not parts:
        raise ValueError(f"{owner} has no input to measure on: give labelled batches that can be gone through")
    scores, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    if not bool(torch.isfinite(scores).all()):
        raise ValueError(f"the merged model gives NaN or Inf logits on {owner}: its weights or inputs are broken")
    if int(labels.min()) < 0 or int(labels.max()) >= scores.shape[1]:
        raise ValueError(
            f"labels of {owner} go from {int(labels.min())} to {int(labels.max())}, and its head has "
            f"{scores.shape[1]} classes, from 0"
        )
    return scores, labels


def _parts(
    fit: Adapted, task: str, batches: Iterable[Any], device: torch.device, split: str
) -> Iterator[tuple[Tensor, Tensor]]:
    model = fit.model(task).to(device)
    dtype = next((t.dtype for t in model.state_dict().values() if t.is_floating_point()), torch.float32)
    for number, batch in enumerate(batches):
        name = f"batch {number} of data[{task!r}]"
        inputs, labels = inputs_of(batch, name), labels_of(batch, name)
        if len(labels) != length(inputs):
            raise ValueError(f"{name} has {length(inputs)} inputs and {len(labels)} labels: give one label per input")
        if split == "held_out":
            kept = held_out(inputs)
            inputs, labels = rows(inputs, kept), labels[kept]
        if not len(labels):
            continue
        with torch.inference_mode():
            scores = scores_of(model, moved(inputs, device, dtype), task, fit.logits).double().cpu()
        mask = inputs.get("attention_mask") if isinstance(inputs, dict) else None
        if labels.dim() > 1 and isinstance(mask, Tensor) and mask.shape == labels.shape:
            labels = labels[mask.cpu().bool()]
        labels = labels.reshape(-1).cpu()
        if len(labels) != len(scores):
            raise ValueError(f"{name}, {told(inputs)}, has {len(scores)} predictions and {len(labels)} labels")
        counted = labels != IGNORED
        yield scores[counted], labels[counted]
