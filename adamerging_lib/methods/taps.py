"""TAPS: each task replaces the few layers that it needs, found while it trains; all others stay shared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..forward import compute_state, prepare_encoder
from ..learning.adaptation import Adaptation, learns
from ..learning.recipes import check_positive
from ..merged import Merged
from .mtl import labelled_batches, task_losses, train
from .registry import register

if TYPE_CHECKING:
    from ..suite import Suite

RECIPES: dict[str, dict[str, float | int]] = {
    # Budget and learning rate of joint training's recipes, and gates at a rate of our own: the author's code trains
    # convolutional networks by SGD, whose rates say nothing of Adam's on CLIP.
    "paper": {"steps": 4000, "lr": 1e-5, "gate_lr": 1e-3, "batch_size": 32},
    "mini": {"steps": 50, "lr": 5e-4, "gate_lr": 1e-2, "batch_size": 16},
}
START = 0.2


@register(
    "taps",
    label="TAPS",
    needs="labels",
    source="Wallingford et al. 2022 (TAPS), Section 3",
    task_specific="Σ of |θ^l| over its open layers l",
    task_id=True,
    static=False,
    takes="suite",
    adaptive=True,
    trains=True,
)
@learns(RECIPES, images="labels")
def taps(
    suite: Suite,
    run: Adaptation,
    *,
    threshold: float = 0.1,
    sparsity: float = 1.0,
) -> Merged:
    """min over Δ_k, s_k of CE_k(θ_k) + ν/L Σ_l |s_k^l|, θ_k^l = θ0^l + 1[s_k^l > τ] Δ_k^l, for each task by itself.

    The gradient passes the step function as if it were the identity: ∂/∂s^l = ⟨∂CE/∂θ^l, Δ^l⟩ + ν/L sign(s^l), and
    ∂/∂Δ^l = 1[s^l > τ] ∂CE/∂θ^l.

    Arguments:
        suite: θ0, heads, and labelled training images; the experts play no part.
        threshold: τ.
        sparsity: ν, the price of a layer's gate.
        steps: steps of Adam (4000), with cosine decay to 0.
        lr: learning rate of Δ at the start (1e-5).
        gate_lr: learning rate of s at the start (1e-3).

    Returns:
        θ0 with, for each task, its open layers as ``overrides``; ``history`` with the mean share of open layers before
        the step (``open``) beside step, loss and each task's CE.

    Raises:
        ValueError: for unknown or unusable arguments, a suite without training images, or losses that are NaN.

    Touches:
        Every parameter of the encoder, a layer being one tensor.

    Needs:
        Labelled training images of every task, and the task's identity at inference.

    Cost:
        One forward and backward of all images per step, each task under weights of its own; memory 4·K·P with Adam.

    Published:
        None found for the eight CLIP tasks.

    Source:
        Wallingford et al. 2022, arXiv 2203.16708: the sequential form, where the shared weights stay θ0. Threshold and
        sparsity as in its author's code.

    Differs from the published code:
        There gates start at 0.15, and weights and gates alike learn by SGD, rate 0.01 with momentum 0.9 and cosine
        decay, in 30 epochs of batches of 32, one update per eight batches; the price of gates is charged after the
        first epochs (``warmup_epochs``, 2) and divided by 52 whatever the number of layers. Here gates start at 0.2,
        Adam learns with rates of its own for weights and gates, steps are those of joint training, and the price is
        charged from the first. A gate at the threshold itself is open there, shut here.
    """
    check_positive("sparsity", sparsity)
    if not 0 < threshold < START:
        raise ValueError(f"threshold={threshold!r} must lie inside (0, {START}): gates start at {START}, open")
    device, options = run.device, run.options
    hyper: dict[str, Any] = {"threshold": threshold, "sparsity": sparsity, **options, "seed": run.seed}
    batch = labelled_batches(suite, run)
    encoder = prepare_encoder(suite.encoder, suite.pretrained, device)
    base = compute_state(suite.pretrained, device)
    names = [name for name, _ in encoder.named_parameters()]
    deltas = {task: [torch.zeros_like(base[name]) for name in names] for task in suite.tasks}
    gates = base[names[0]].new_full((len(suite.tasks), len(names)), START)
    shares = []

    def weights(k: int, task: str) -> dict[str, Tensor]:
        gate = (gates[k] > threshold).to(gates)
        return {name: base[name] + gate[i] * deltas[task][i] for i, name in enumerate(names)}

    def gradients(step: int) -> Tensor:
        opened = (gates > threshold).to(gates)
        shares.append(opened.mean())
        gates.grad = sparsity / len(names) * gates.sign()
        losses = []
        for k, task in enumerate(suite.tasks):
            own = {name: t.requires_grad_() for name, t in weights(k, task).items()}
            head = suite.heads[task].detach().to(device)
            losses.append(task_losses(suite, encoder, {**base, **own}, *batch(task, step), [head]))
            parts = torch.autograd.grad(losses[k].sum(), list(own.values()), allow_unused=True, materialize_grads=True)
            for i, (delta, part) in enumerate(zip(deltas[task], parts, strict=True)):
                gates.grad[k, i] += (part * delta).sum()
                delta.grad = opened[k, i] * part
        return torch.cat(losses)

    groups = [
        {"params": [delta for parts in deltas.values() for delta in parts], "lr": options["lr"]},
        {"params": [gates], "lr": options["gate_lr"]},
    ]
    history = train(run.steps("taps", suite.tasks), groups, gradients)
    history["open"] = torch.stack(shares).cpu().numpy() if shares else []
    overrides = {}
    for k, task in enumerate(suite.tasks):
        own = zip(weights(k, task).items(), (gates[k] > threshold).tolist(), strict=True)
        overrides[task] = {name: t.to(suite.pretrained[name]) for (name, t), is_open in own if is_open}
    state = {key: t.detach().clone() for key, t in suite.pretrained.items()}
    return Merged(state, "taps", hyper, suite.tasks, overrides=overrides, history=history)
