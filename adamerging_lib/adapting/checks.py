"""What is looked at before the first step: whether a model can be learned from at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .batches import Batches, Inputs, told
from .template import Template, moved


def check_start(
    template: Template, k: int, state: Mapping[str, Tensor], merged: Sequence[str], stream: Batches
) -> None:
    """Run a task's first batch, and of a list one batch of each shape, forward and backward.

    Arguments:
        template: the model.
        k: the task.
        state: as merged at the start.
        merged: names of what is merged.
        stream: of the task.

    Raises:
        ValueError: for what the model cannot take, logits that are not finite or leave no entropy, and a model that
            does not use what it is given.
    """
    device = next(iter(state.values())).device
    for batch in stream.shapes():
        inputs = moved(batch, device, template.dtype)
        _check_inputs(inputs, stream.owner)
        leaves = {key: state[key].detach().clone().requires_grad_() for key in merged}
        scores = template.scores(k, {**state, **leaves}, inputs)
        _check_scores(scores, template, k, told(batch))
        _check_uses(scores, leaves, template.tasks[k])


def _check_inputs(inputs: Inputs, owner: str) -> None:
    for name, value in [("", inputs)] if isinstance(inputs, Tensor) else inputs.items():
        if isinstance(value, Tensor) and value.is_floating_point() and not bool(torch.isfinite(value).all()):
            where = f"{name!r} of {owner}" if name else owner
            raise ValueError(f"{where} holds NaN or Inf: look at how the batches are made")


def _check_scores(scores: Tensor, template: Template, k: int, batch: str) -> None:
    task = template.tasks[k]
    if not bool(torch.isfinite(scores).all()):
        raise ValueError(
            f"the logits of task {task!r} are NaN or Inf at the start, for {batch}: start closer to the base, with a "
            f"smaller init, and look at the inputs' scale"
        )
    if scores.shape[-1] < 2 and template.teachers is None:
        raise ValueError(
            f"task {task!r} has one output, which has no entropy: take objective='imitation', or logits= that makes "
            f"two columns of it"
        )


def _check_uses(scores: Tensor, leaves: Mapping[str, Tensor], task: str) -> None:
    if scores.requires_grad:
        grads = torch.autograd.grad(scores.double().square().sum(), list(leaves.values()), allow_unused=True)
        if any(grad is not None for grad in grads):
            return
    raise ValueError(
        f"the logits of task {task!r} depend on none of the merged tensors: the model's forward runs without gradients "
        f"(torch.no_grad, inference_mode, detach), or takes weights from elsewhere than its parameters"
    )
