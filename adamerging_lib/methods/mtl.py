"""Joint training with frozen heads, and its variants that combine the tasks' gradients instead of adding them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..forward import compute_state, features, logits, prepare_encoder
from ..learning.adaptation import Adaptation, Steps, learns
from ..learning.combine import combiner
from ..merged import Merged
from ..state import StateDict
from .registry import register

if TYPE_CHECKING:
    from ..suite import Suite

RECIPES: dict[str, dict[str, float | int]] = {
    # FusionBench's clip_finetune; the AdaMerging paper says nothing of its joint training.
    "paper": {"steps": 4000, "lr": 1e-5, "batch_size": 32},
    # Sized for two CPU cores: a fifth of the steps, and half the batch, of the shipped joint model.
    "mini": {"steps": 50, "lr": 5e-4, "batch_size": 16},
}


@learns(RECIPES, images="labels")
def joint_training(
    suite: Suite,
    run: Adaptation,
    *,
    combine: str | None = None,
    priorities: Mapping[str, float] | None = None,
    c: float | None = None,
) -> Merged:
    """θ ← θ − Adam(d), d = Σ_k w_k ∇CE_k(θ), from θ0: w = 1 for plain joint training, else found from ⟨∇CE_i, ∇CE_j⟩.

    Arguments:
        suite: θ0, heads, and labelled training images; the experts play no part.
        combine: None adds the gradients up (w = 1): the control. ``pcgrad`` takes from each gradient what points
            against another; ``wpcgrad`` takes it, of a pair in conflict, from the one that its priority leaves behind;
            ``cagrad`` maximises the worst task's progress within a ball about the mean gradient; ``nash_mtl`` gives
            every task the same share of progress, (GᵀG)α = 1/α; ``min_norm`` is MGDA. See `combiner`.
        priorities: wPCGrad's, task → positive number, 1 if not named.
        c: CAGrad's radius (0.4; its authors use 0.4 and 0.5).
        steps: steps of Adam (4000), with cosine decay to 0.
        seed: of the batches and of the rules that draw.

    Returns:
        The shared encoder, with ``history``: step, loss = Σ_k CE_k, and CE of each task, before the step.

    Raises:
        ValueError: for unknown or unusable arguments, a suite without training images, or losses that are NaN.

    Touches:
        Every parameter of the encoder; it stays in evaluation mode, as CLIP's has no dropout.

    Needs:
        Labelled training images of every task.

    Cost:
        One forward and backward of all images per step. With ``combine``, one backward per task, each of its own
        images, K gradients in memory (K·P), and a K×K problem solved on the CPU, for which a GPU waits.

    Published:
        Joint training: eight-task average at ViT-B/32 88.9 (P1), 88.6 (P2). None found for the other rules.

    Source:
        Yu et al. 2020 (PCGrad), Bohn et al. 2024 (wPCGrad), Liu et al. 2021 (CAGrad), Navon et al. 2022 (Nash-MTL).

    Differs from the published code:
        wPCGrad's code and text were not found, only what its abstract says: the order of pairs and the drawing within
        a pair are ours. CAGrad's gradient is K times as long there, as that of the summed losses is, and optionally
        1/(1 + c²) as long: factors that Adam undoes, and that are left out here. Nash-MTL is solved exactly and at
        every step, and its combined gradient has norm 1, as its published cap always binds.
    """
    device = run.device
    hyper: dict[str, Any] = {**run.options, "seed": run.seed}
    hyper |= {"priorities": dict(priorities)} if priorities else {}
    hyper |= {"c": 0.4 if c is None else c} if combine == "cagrad" else {}
    rule = combine and combiner(combine, suite.tasks, seed=run.seed, priorities=priorities, c=c)
    batch = labelled_batches(suite, run)
    encoder = prepare_encoder(suite.encoder, suite.pretrained, device)
    state = {key: t.clone() for key, t in compute_state(suite.pretrained, device).items()}
    parameters = [state[name].requires_grad_() for name, _ in encoder.named_parameters()]
    heads = [suite.heads[task].detach().to(device) for task in suite.tasks]
    gathered = [p.new_empty(len(heads), *p.shape) for p in parameters] if rule else []

    def summed(step: int) -> Tensor:
        images, labels = zip(*(batch(task, step) for task in suite.tasks), strict=True)
        losses = task_losses(suite, encoder, state, torch.cat(images), torch.cat(labels), heads)
        for parameter, part in zip(parameters, _gradient(losses.sum(), parameters), strict=True):
            parameter.grad = part
        return losses

    def combined(step: int) -> Tensor:
        losses = []
        for k, task in enumerate(suite.tasks):
            losses.append(task_losses(suite, encoder, state, *batch(task, step), heads[k : k + 1]))
            for whole, part in zip(gathered, _gradient(losses[k].sum(), parameters), strict=True):
                whole[k] = part
        gram = sum(whole.flatten(1) @ whole.flatten(1).t() for whole in gathered)
        weights = rule(gram, step).to(gram)
        for parameter, whole in zip(parameters, gathered, strict=True):
            parameter.grad = torch.tensordot(weights, whole, 1)
        return torch.cat(losses)

    method = combine or "joint_training"
    groups = [{"params": parameters, "lr": run.options["lr"]}]
    history = train(run.steps(method, suite.tasks), groups, combined if rule else summed)
    final = {key: t.detach().to(suite.pretrained[key]) for key, t in state.items()}
    return Merged(final, method, hyper, suite.tasks, history=history)


_RULES = {
    None: ("Joint training", "AdaMerging, Section 4.1"),
    "pcgrad": ("Joint training, PCGrad", "Yu et al. 2020"),
    "wpcgrad": ("Joint training, wPCGrad", "Bohn et al. 2024"),
    "cagrad": ("Joint training, CAGrad", "Liu et al. 2021"),
    "nash_mtl": ("Joint training, Nash-MTL", "Navon et al. 2022"),
}
for _rule, (_label, _source) in _RULES.items():
    _unused = {name: None for name, user in (("priorities", "wpcgrad"), ("c", "cagrad")) if user != _rule}
    register(
        _rule or "joint_training",
        label=_label,
        needs="labels",
        source=_source,
        takes="suite",
        adaptive=True,
        trains=True,
    )(functools.partial(joint_training, combine=_rule, **_unused))


def train(steps: Steps, groups: Sequence[Mapping[str, Any]], gradients: Callable[[int], Tensor]) -> pd.DataFrame:
    """Adam with cosine decay to zero, on gradients that need not be those of one loss.

    Arguments:
        steps: of the run.
        groups: parameters and their learning rates, as torch's optimisers take them.
        gradients: step → losses of the tasks ``[K]``; leaves a gradient in every parameter.

    Returns:
        History: step, loss (their sum), and the loss of each task, before the step.

    Raises:
        ValueError: for losses that are NaN.
    """
    optimiser = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps.total, 1))
    for step in steps:
        steps.add(gradients(step))
        optimiser.step()
        schedule.step()
    return steps.history()


def labelled_batches(suite: Suite, run: Adaptation) -> Callable[[str, int], tuple[Tensor, Tensor]]:
    """(task, step) → training images and labels on the device: the same batches for all methods of one seed."""
    streams = dict(zip(suite.tasks, run.streams(suite), strict=True))
    return lambda task, step: (
        streams[task].batch(step).to(run.device),
        streams[task].batch_labels(step).to(run.device),
    )


def task_losses(
    suite: Suite, encoder: nn.Module, state: StateDict, images: Tensor, labels: Tensor, heads: Sequence[Tensor]
) -> Tensor:
    """Mean cross-entropies ``[len(heads)]`` of one batch per head, all in one forward."""
    size = len(images) // len(heads)
    unit = features(encoder, state, suite.normalise(images)).split(size)
    parts = zip(unit, heads, labels.split(size), strict=True)
    return torch.stack([F.cross_entropy(logits(part, head), y) for part, head, y in parts])


def _gradient(loss: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
