"""The entropy objective of λ and its exact gradient, at the price of one forward and backward through the encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..forward import entropy, features, logits, prepare_encoder
from ..task_vectors import Rows, TaskVectors

if TYPE_CHECKING:
    from ..suite import Suite


@dataclass(frozen=True)
class Objective:
    """L(λ) = Σ_k Σ_batches mean_x H(softmax(h_k(f_θ(λ)(x)))).

    Arguments:
        tv: task vectors on the device, half precision widened.
        rows: which tensors share a coefficient.
        encoder: template in evaluation mode, on the device.
        heads: K head weights ``[classes, dim]``, on the device.
        normalise: uint8 images → float images.
        clamp: whether λ is clamped to [0, 1].
    """

    tv: TaskVectors
    rows: Rows
    encoder: nn.Module
    heads: tuple[Tensor, ...]
    normalise: Callable[[Tensor], Tensor]
    clamp: bool

    @classmethod
    def of(cls, suite: Suite, tv: TaskVectors, rows: Rows, *, clamp: bool, device: torch.device) -> Objective:
        """Everything on the device, once."""
        encoder = prepare_encoder(suite.encoder, tv.pretrained, device)
        heads = tuple(suite.heads[task].detach().to(device) for task in tv.tasks)
        return cls(tv.to(device, widen=True), rows, encoder, heads, suite.normalise, clamp)

    def used(self, raw: Tensor) -> Tensor:
        """The coefficients that a raw λ stands for, ``[K, R]``."""
        return raw.detach().clamp(0, 1) if self.clamp else raw.detach().clone()

    def losses_and_gradient(self, raw: Tensor, images: Tensor, batches: int) -> tuple[Tensor, Tensor]:
        """Losses of the tasks ``[K]`` and ∂(Σ_k L_k)/∂raw ``[K, R]``.

        θ(λ) is linear in λ, so the merge needs no graph: merge into leaves, differentiate with respect to them, and
        take inner products with the task vectors. All tasks share one forward.

        Arguments:
            raw: λ before clamping, ``[K, R]``.
            images: uint8 ``[K · batches · size, 3, h, w]``, task after task.
            batches: batches of one task; their mean entropies are summed.
        """
        state = self.tv._merge(self.used(raw), self.rows)
        leaves = [state[key].requires_grad_() for key in self.tv.vectors]
        unit = features(self.encoder, state, self.normalise(images))
        count = len(images) // len(self.heads)
        entropies = [
            entropy(logits(part, head)).sum() for part, head in zip(unit.split(count), self.heads, strict=True)
        ]
        losses = torch.stack(entropies) * (batches / count)
        # Tensors that the encoder does not use, such as a text tower's, have no gradient: their λ stays where it is.
        grads = torch.autograd.grad(losses.sum(), leaves, allow_unused=True)
        gradient = self.tv._gradient(dict(zip(self.tv.vectors, grads, strict=True)), self.rows)
        if self.clamp:
            # torch.clamp passes the gradient on the bounds themselves, and so does the published forward.
            gradient *= (raw >= 0) & (raw <= 1)
        return losses.detach(), gradient
