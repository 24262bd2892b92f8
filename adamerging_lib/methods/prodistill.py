"""ProDistill: a coefficient for every number of the task vectors, learned block after block from the experts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..forward import compute_state, prepare_encoder
from ..learning.adaptation import Adaptation, Steps, learns
from ..merged import Merged
from ..probing.activations import training_images
from ..probing.blocks import BlockChain
from ..runtime.values import is_number
from ..state import StateDict
from ..vectors.elementwise import add
from .registry import register

if TYPE_CHECKING:
    from ..suite import Suite

RECIPES: dict[str, dict[str, float | int]] = {
    # The published script's defaults; the paper searches lr in 0.01..0.1 and epochs in 20..100.
    "paper": {"images": 64, "lr": 0.01, "epochs": 100, "batch_size": 128},
    # Sized for two CPU cores and the small encoder.
    "mini": {"images": 64, "lr": 0.05, "epochs": 20, "batch_size": 128},
}
BATCH = 64


@register(
    "prodistill",
    label="ProDistill",
    needs="unlabelled training images",
    source="Xu et al. 2025",
    takes="suite",
    adaptive=True,
    trains=True,
)
@learns(RECIPES, images="train")
def prodistill(
    suite: Suite,
    run: Adaptation,
    *,
    init: float = 0.3,
) -> Merged:
    """θ^b = θ0^b + Σ_k λ_k^b ⊙ T_k^b, λ^b = argmin Σ_k Σ_x ‖f_{θ^b}(z(x)) − f_{θ_k^b}(z_k(x))‖², block b after block.

    z are the tokens that the blocks merged so far hand on, z_k those of expert k (the dual inputs).

    Arguments:
        suite: encoder, checkpoints and training images; labels are never read.
        images: training images per task (64).
        epochs: passes over the K · images images, for each block (100); 0 leaves λ where it starts.
        batch_size: images per step, of all tasks mixed (128).
        init: λ at the start, and of all that lies outside blocks for good (0.3).
        seed: of the choice of images and of the shuffles.

    Returns:
        The shared encoder, with a ``history`` of one row per block and epoch: step, block, loss (mean squared error of
        a token's entry over the epoch).

    Raises:
        ValueError: for unusable arguments, an encoder without a chain of transformer blocks, or a loss that is NaN.

    Touches:
        Every floating-point tensor of the blocks; the rest is task arithmetic with ``init``.

    Needs:
        Unlabelled training images of every task.

    Cost:
        epochs · K · images forward and backward passes in all, one block at a time. Memory: task vectors, λ, its
        gradient and Adam's two moments of one block (5 K P / blocks), and three token streams of K · images images;
        activations of one block only.

    Published:
        86.0 / 88.9 / 91.9 (P1).

    Source:
        Xu et al. 2025 (Progressive Layer-wise Distillation); recipe from the published script.

    Differs from the published code:
        Targets are computed once per block instead of once per step, and ∂L/∂λ_k = ∂L/∂θ ⊙ T_k without a graph through
        the merge: the same numbers, less time and memory.
    """
    if not (is_number(init) and math.isfinite(init)):
        raise ValueError(f"init={init!r} must be a finite number")
    tv, device, options = suite.task_vectors(), run.device, run.options
    drawn = training_images(suite, options["images"], run.seed)
    owner = torch.cat([torch.full((len(part),), k) for k, part in enumerate(drawn.values())]).to(device)
    encoder = prepare_encoder(suite.encoder, tv.pretrained, device)
    vector = {key: init * t.sum(0) for key, t in tv.vectors.items()}
    start = compute_state(add(tv, vector), device)
    chain = BlockChain(encoder, start, suite.normalise(drawn[tv.tasks[0]][:1].to(device)))

    def enter(state: StateDict, task: str) -> Tensor:
        batches = drawn[task].split(BATCH)
        return torch.cat([chain.enter(state, suite.normalise(batch.to(device))) for batch in batches])

    with torch.no_grad():
        merged_tokens = torch.cat([enter(start, task) for task in tv.tasks])
        expert_tokens = {task: enter(compute_state(suite.experts[task], device), task) for task in tv.tasks}
    order, total = run.generator("prodistill"), len(chain) * options["epochs"]
    steps = run.steps("prodistill", tv.tasks, total=total, loss="error", unit="epoch")
    for index, prefix in enumerate(chain.prefixes):
        experts = {task: compute_state(under(suite.experts[task], prefix), device) for task in tv.tasks}
        with torch.no_grad():
            expert_tokens = {task: chain.run(index, experts[task], x) for task, x in expert_tokens.items()}
        block = Block(
            run=partial(chain.run, index),
            base=compute_state(under(tv.pretrained, prefix), device),
            vectors={key: t.to(device) for key, t in under(tv.vectors, prefix).items()},
            tokens=merged_tokens,
            aims=torch.cat(list(expert_tokens.values())),
            owner=owner,
            tasks=tv.tasks,
        )
        merged_tokens, learned = block.distil(init, options, order, steps)
        vector |= {key: t.to(vector[key]) for key, t in learned.items()}
    history = steps.history()
    history.insert(1, "block", [prefix.rstrip(".") for prefix in chain.prefixes for _ in range(options["epochs"])])
    hyper = {**options, "init": init, "seed": run.seed}
    return Merged(add(tv, vector), "prodistill", hyper, tv.tasks, history=history)


def under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The part of a state dict below a prefix, names as they are."""
    return {key: t for key, t in state.items() if key.startswith(prefix)}


@dataclass(frozen=True)
class Block:
    """One block to be learned: what goes in, what each expert makes of its own, and what may be mixed.

    Arguments:
        run: (the block's state, tokens) → tokens.
        base: its part of θ0.
        vectors: its tensors' T ``[K, *shape]``.
        tokens: what the blocks merged so far put out ``[n, tokens, width]``.
        aims: what the expert of each image's task puts out, likewise.
        owner: int64 ``[n]``, that task.
        tasks: names.
    """

    run: Callable[[StateDict, Tensor], Tensor]
    base: StateDict
    vectors: Mapping[str, Tensor]
    tokens: Tensor
    aims: Tensor
    owner: Tensor
    tasks: tuple[str, ...]

    def distil(
        self, init: float, options: Mapping[str, Any], order: torch.Generator, steps: Steps
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Learn λ; each epoch's losses ``[K]`` go to the steps. Returns the tokens put out, and Σ_k λ_k ⊙ T_k."""
        raw = {key: torch.full_like(t, init) for key, t in self.vectors.items()}
        optimiser = torch.optim.Adam(list(raw.values()), lr=options["lr"])
        per_task = self.owner.bincount(minlength=len(self.tasks)) * self.aims[0].numel()
        for _ in range(options["epochs"]):
            loss = torch.zeros(len(per_task), dtype=self.aims.dtype, device=self.aims.device)
            shuffled = torch.randperm(len(self.aims), generator=order).to(self.aims.device)
            for pick in shuffled.split(options["batch_size"]):
                state = self.merged(raw)
                leaves = [state[key].requires_grad_() for key in raw]
                error = (self.run(state, self.tokens[pick]) - self.aims[pick]).square().flatten(1).sum(1)
                for key, gradient in zip(raw, torch.autograd.grad(error.sum(), leaves), strict=True):
                    raw[key].grad = gradient * self.vectors[key]
                optimiser.step()
                loss.index_add_(0, self.owner[pick], error.detach())
            steps.add(loss / per_task)
        with torch.no_grad():
            state = self.merged(raw)
            tokens = torch.cat([self.run(state, part) for part in self.tokens.split(BATCH)])
        return tokens, {key: (raw[key] * t).sum(0) for key, t in self.vectors.items()}

    def merged(self, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """θ0 + Σ_k λ_k ⊙ T_k."""
        return {**self.base} | {key: self.base[key] + (raw[key] * t).sum(0) for key, t in self.vectors.items()}
