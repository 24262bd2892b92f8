"""The objective of λ and its exact gradient, at the price of one forward and backward through the encoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..forward import entropy
from ..runtime.distributed import gathered, summed
from ..task_vectors import Rows, TaskVectors
from .combine import Combine
from .model import Model, Scored, Source

Loss = Callable[[Tensor, Tensor | None, int], Tensor]
"""(logits ``[n, classes]``, labels ``[n]`` or None, batches) → Σ over the batches of the mean loss in each."""

CLAMPS = (True, False, "tanh", "sigmoid")


def entropy_loss(*, filter: float | None = None, diversity: float = 0.0, prior: bool = False) -> Loss:
    """Σ_batches mean_x H(p(x)), and two cures for its collapse to one class.

    Arguments:
        filter: keep only images with H(p(x)) < filter · log C, the reliable ones; a batch's mean is over these, and 0
            where there is none.
        diversity: w in − w · H(mean_x p(x)) of each batch: confident on each image, diverse over all (information
            maximisation). All images of the batch count, also those that the filter leaves out.
        prior: diverse as the task's expert finds the same batch, whose logits come in the place of labels: the second
            term is + w · KL(mean_x p(x) ‖ mean_x p_k(x)). Where the classes of a batch are skewed, diversity is wrong.

    Source:
        EATA (Niu et al. 2022) and SAR (Niu et al. 2023) for the filter, whose threshold is 0.4 · log C; SHOT (Liang
        et al. 2020) for the diversity term, with weight 1.
    """

    def loss(scores: Tensor, labels: Tensor | None, batches: int) -> Tensor:
        values = entropy(scores)
        if filter is None:
            total = values.sum() * (batches / len(values))
        else:
            kept = (values.detach() < filter * math.log(scores.shape[-1])).view(batches, -1)
            total = ((values.view(batches, -1) * kept).sum(1) / kept.sum(1).clamp(min=1)).sum()
        if diversity:
            log_mean = _log_mean(scores, batches)
            wanted = _log_mean(labels[:, : scores.shape[-1]], batches) if prior else 0
            total = total + diversity * (log_mean.exp() * (log_mean - wanted)).sum()
        return total

    return loss


def _log_mean(scores: Tensor, batches: int) -> Tensor:
    """log mean_x p(x) of each batch, ``[batches, classes]``; p may underflow to 0, its logarithm does not."""
    log_p = scores.log_softmax(-1).view(batches, -1, scores.shape[-1])
    return log_p.logsumexp(1) - math.log(log_p.shape[1])


def label_loss(scores: Tensor, labels: Tensor | None, batches: int) -> Tensor:
    """Σ_batches mean_x CE(p(x), y)."""
    return F.cross_entropy(scores, labels, reduction="sum") * (batches / len(scores))


@dataclass(frozen=True)
class Objective:
    """L(λ) = Σ_k w_k L_k(λ) + pull · ‖λ − λ_start‖², where L_k(λ) is the loss of the merged model on task k's inputs.

    Arguments:
        tv: task vectors on the device, half precision widened.
        rows: which tensors share a coefficient.
        model: merged state and inputs → logits of the K tasks that have inputs.
        clamp: what λ is of the raw parameter: clamped to [0, 1] (True), itself (False), its ``tanh`` or ``sigmoid``.
        loss: of one task, see `Loss`; or one for each of the K.
        weights: w ``[K]``, or None for 1.
        pull: weight of the pull to the start.
        start: λ_start ``[K, R]``, for the pull.
        combine: joins the K tasks' gradients instead of summing them.
        passes: forward and backward passes per step, each of some tasks; ``combine`` takes one per task in any case.
        sharpness: ρ, radius of adaptive sharpness-aware minimisation: the gradient is taken at r + ρ r² g / ‖r g‖, g
            being the gradient at the raw parameter r; None for the gradient at r.
        spread: K, where the tasks are spread over a group of processes and ``model`` and ``weights`` are only this
            one's; None where it has all.
    """

    tv: TaskVectors
    rows: Rows
    model: Model
    clamp: bool | str
    loss: Loss | tuple[Loss, ...] = entropy_loss()
    weights: Tensor | None = None
    pull: float = 0.0
    start: Tensor | None = None
    combine: Combine | None = None
    passes: int = 1
    sharpness: float | None = None
    spread: int | None = None

    @classmethod
    def of(
        cls,
        source: Source,
        tv: TaskVectors,
        rows: Rows,
        *,
        clamp: bool | str,
        device: torch.device,
        tasks: Sequence[str] | None = None,
        vectors_dtype: torch.dtype | None = None,
        **terms: Any,
    ) -> Objective:
        """Everything on the device, once.

        Arguments:
            source: of the model.
            tv, rows, clamp, device: see the fields.
            tasks: those that have inputs; default those of the task vectors.
            vectors_dtype: narrower type to keep the task vectors in; sums over them stay wide.
            terms: further fields, and the model's options ``autocast`` and ``features``.
        """
        inside = {name: terms.pop(name) for name in ("autocast", "features") if name in terms}
        model = source.opened(tv, tasks or tv.tasks, device, **inside)
        return cls(tv.to(device, widen=True, vectors_dtype=vectors_dtype), rows, model, clamp, **terms)

    def used(self, raw: Tensor) -> Tensor:
        """The coefficients that a raw λ stands for, ``[K, R]``."""
        raw = raw.detach()
        if isinstance(self.clamp, str):
            return raw.tanh() if self.clamp == "tanh" else raw.sigmoid()
        return raw.clamp(0, 1) if self.clamp else raw.clone()

    def slope(self, raw: Tensor) -> Tensor:
        """∂λ/∂raw, element by element, ``[K, R]``."""
        if isinstance(self.clamp, str):
            used = self.used(raw)
            return 1 - used**2 if self.clamp == "tanh" else used * (1 - used)
        # torch.clamp passes the gradient on the bounds themselves, and so does the published forward.
        return (raw >= 0) & (raw <= 1) if self.clamp else torch.ones_like(raw, dtype=torch.bool)

    def losses_and_gradient(
        self, raw: Tensor, inputs: Any, batches: int, *, labels: Any = None, step: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Losses of the tasks ``[K]`` and the gradient of the objective with respect to raw ``[K, R]``.

        θ(λ) is linear in λ, so the merge needs no graph: merge into leaves, differentiate with respect to them, and
        take inner products with the task vectors. All tasks share one forward and backward, or each of ``passes``
        has some, and their gradients with respect to the leaves add up; where the tasks' gradients are to be
        combined, each has its own on its own images, and K times the inner products.

        Arguments:
            raw: what Adam moves, ``[K, R]``.
            inputs: batches of all tasks, as `Model.drawn` gives them; where spread, of this process's tasks.
            batches: batches of one task; their mean losses are summed.
            labels: of the inputs, for losses that need them.
            step: seeds the combining rules that draw.
        """
        values, gradient = self._at(raw, inputs, batches, labels, step)
        if self.sharpness is not None:
            raw = raw.detach()
            length = torch.linalg.vector_norm(raw * gradient).clamp(min=torch.finfo(raw.dtype).tiny)
            _, gradient = self._at(raw + self.sharpness / length * raw**2 * gradient, inputs, batches, labels, step)
        return values, gradient

    def _at(self, raw: Tensor, inputs: Any, batches: int, labels: Any, step: int) -> tuple[Tensor, Tensor]:
        state = self.tv._merge(self.used(raw), self.rows)
        leaves = [state[key].requires_grad_() for key in self.tv.vectors]
        tasks = self.model.count
        passes = tasks if self.combine is not None else min(self.passes, tasks)
        losses, gradients = [], []
        for group in [range(i * tasks // passes, (i + 1) * tasks // passes) for i in range(passes)]:
            scored = self.model.scored(state, inputs, labels, group)
            values = torch.stack([self._loss(k, parts, batches) for k, parts in zip(group, scored, strict=True)])
            total = values.sum()
            if self.weights is not None:
                total = values @ self.weights[group.start : group.stop].to(values)
            total.backward(inputs=leaves)
            losses.append(values.detach())
            if self.combine is not None or group.stop == tasks:
                # Tensors that the model does not use, such as a text tower's, have no gradient: their λ stays.
                gradient = self.tv._gradient({key: state[key].grad for key in self.tv.vectors}, self.rows)
                gradients.append(gradient.mul_(self.slope(raw)))
                for leaf in leaves:
                    leaf.grad = None
        values = torch.cat(losses)
        if self.spread is not None:
            values = gathered(values, self.spread)
        if self.combine is not None:
            each = torch.stack(gradients)
            gradient = self._combined(each if self.spread is None else gathered(each, self.spread), step)
        elif self.spread is not None:
            gradient = summed(gradient)
        if self.pull:
            gradient = gradient + 2 * self.pull * (self.used(raw) - self.start) * self.slope(raw)
        return values, gradient

    def _loss(self, k: int, parts: Scored, batches: int) -> Tensor:
        loss = self.loss[k] if isinstance(self.loss, tuple) else self.loss
        first, *rest = (loss(scores, labels, batches // len(parts)) for scores, labels in parts)
        return sum(rest, first)

    def _combined(self, gradients: Tensor, step: int) -> Tensor:
        flat = gradients.flatten(1)
        weights = self.combine(flat @ flat.t(), step)
        return (weights.to(flat) @ flat).view_as(gradients[0])
