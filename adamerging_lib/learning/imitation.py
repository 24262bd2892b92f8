"""The objective of Tinting: the merged model imitates each individual model, in λ and in one layer per task."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..forward import compute_state, features, logits, prepare_encoder
from ..runtime.values import nearest
from ..state import StateDict
from ..task_vectors import Rows, TaskVectors

if TYPE_CHECKING:
    from ..suite import Suite
    from .streams import Stream

BATCH = 128
FILTERS = ("none", "confidence")
TARGETS = ("hard", "soft")
HEAD = "head"


def tinted_tensors(layer: str, tv: TaskVectors) -> tuple[str, ...]:
    """The merged tensors that a layer's name stands for: one tensor, all of a module, or none for ``head``.

    Raises:
        ValueError: for an unknown name, with the nearest known one.
    """
    if layer == HEAD:
        return ()
    named = [key for key in (*tv.vectors, *tv.tied) if key == layer or key.startswith(f"{layer}.")]
    if not named:
        parts = [key.split(".") for key in tv.vectors]
        known = dict.fromkeys([HEAD, *(".".join(p[:n]) for p in parts for n in range(len(p), 0, -1))])
        raise ValueError(
            f"layer {layer!r} is unknown: {nearest(layer, known)}Give 'head', or a tensor or module of the encoder"
        )
    return tuple(dict.fromkeys(tv.tied.get(key, key) for key in named))


def keeps(expert: Tensor, merged: Tensor) -> tuple[Tensor, Tensor]:
    """Which images Tint++ learns from: argmax agrees, or the individual model is at least as sure of its own.

    Arguments:
        expert: the individual model's logits ``[n, classes]``.
        merged: the merged model's logits ``[n, classes]``.

    Returns:
        (kept ``[n]``, agree ``[n]``), bool.
    """
    (sure, label), (other_sure, other) = (scores.softmax(-1).max(-1) for scores in (expert, merged))
    agree = label == other
    return agree | (sure >= other_sure), agree


def surest(expert: Tensor, share: float) -> Tensor:
    """The ⌈share·n⌉ images that the individual model is surest of, bool ``[n]``, from its logits ``[n, classes]``."""
    sure = expert.softmax(-1).amax(-1)
    count = min(len(sure), math.ceil(share * len(sure)))
    return torch.zeros_like(sure, dtype=torch.bool).index_fill_(0, sure.topk(count).indices, True)


def imitation_loss(scores: Tensor, taught: Tensor, batches: int) -> Tensor:
    """Σ_batches of the mean cross-entropy with the expert's prediction, or mean square where there is one output.

    Arguments:
        scores: logits ``[n, classes]``.
        taught: the expert's; further columns, which `taught_streams` fills up, do not count.
        batches: how many.
    """
    if scores.shape[-1] == 1:
        return F.mse_loss(scores, taught) * batches
    return F.cross_entropy(scores, taught[:, : scores.shape[-1]].softmax(-1)) * batches


def distillation_loss(temperature: float) -> Callable[[Tensor, Tensor, int], Tensor]:
    """Σ_batches of the mean KL(softmax(z_k / T) ‖ softmax(z / T)), z_k the expert's logits and z the merged model's.

    Arguments:
        temperature: T.

    Returns:
        A function of logits ``[n, classes]``, the expert's as in `imitation_loss`, and a count of batches.
    """

    def loss(scores: Tensor, taught: Tensor, batches: int) -> Tensor:
        own, theirs = scores / temperature, taught[:, : scores.shape[-1]] / temperature
        own, theirs = own.log_softmax(-1), theirs.log_softmax(-1)
        return F.kl_div(own, theirs, log_target=True, reduction="batchmean") * batches

    return loss


def taught_streams(suite: Suite, streams: Sequence[Stream], device: torch.device) -> list[Stream]:
    """The same streams, with what each task's expert says of its test images in the place of labels.

    Arguments:
        suite: with experts and heads.
        streams: of its test images, one per task, in its order.
        device: where experts run; their logits are kept beside the images.

    Returns:
        Streams whose labels are logits ``[n, most classes of a task]``, −∞ where a task has fewer.
    """
    most, found = max(map(len, suite.heads.values())), []
    for task, stream in zip(suite.tasks, streams, strict=True):
        state = compute_state(suite.experts[task], device)
        encoder, head = prepare_encoder(suite.encoder, state, device), suite.heads[task].to(device)
        scores = []
        with torch.no_grad():
            for images in stream.images.split(BATCH):
                scores.append(logits(features(encoder, state, suite.normalise(images.to(device))), head))
        scores = F.pad(torch.cat(scores), (0, most - len(head)), value=-torch.inf)
        found.append(stream.with_labels(scores.to(stream.images.device)))
    return found


@dataclass(frozen=True)
class Imitation:
    """L_k(λ, φ_k) = mean over the kept images of CE(h_k(f_θ(λ), φ_k), prediction of the individual model).

    Arguments:
        tv: task vectors on the device, half precision widened.
        rows: which tensors share a coefficient.
        encoder: template in evaluation mode, on the device.
        normalise: uint8 images → float images.
        heads: K weights ``[classes, dim]``.
        biases: K biases ``[classes]``, zero where nobody learns them.
        inside: K dicts of the tensors that take the merged ones' place for that task, the same names in each. What
            is to be learned of these three requires a gradient.
        filter: ``none`` or ``confidence``, see `keeps`.
        targets: ``hard`` or ``soft``.
        top_p: share of a batch that counts, see `surest`; None for all.
    """

    tv: TaskVectors
    rows: Rows
    encoder: nn.Module
    normalise: Callable[[Tensor], Tensor]
    heads: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    inside: tuple[Mapping[str, Tensor], ...]
    filter: str
    targets: str
    top_p: float | None

    def layer(self, k: int) -> list[Tensor]:
        """What is learned of task k beside λ."""
        return [t for t in (self.heads[k], self.biases[k], *self.inside[k].values()) if t.requires_grad]

    def merged(self, raw: Tensor) -> dict[str, Tensor]:
        """θ(clamp(λ, 0, 1))."""
        return self.tv._merge(raw.detach().clamp(0, 1), self.rows)

    def scores(self, k: int, state: StateDict, images: Tensor) -> Tensor:
        """Logits ``[n, classes]`` of uint8 images under a merged state with task k's own layer in its place."""
        own = self.inside[k]
        own = {key: own[home] for key in state if (home := self.tv.tied.get(key, key)) in own}
        unit = features(self.encoder, {**state, **own}, self.normalise(images))
        return logits(unit, self.heads[k]) + self.biases[k].to(unit)

    def losses(self, expert: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cross-entropies ``[n]`` in nats, which of them count, and where both models agree (bool ``[n]``)."""
        kept, agree = keeps(expert, scores.detach())
        if self.filter == "none":
            kept = torch.ones_like(kept)
        if self.top_p is not None:
            kept = kept & surest(expert, self.top_p)
        target = expert.argmax(-1) if self.targets == "hard" else expert.softmax(-1).to(scores)
        return F.cross_entropy(scores, target, reduction="none"), kept, agree

    def gradients(
        self, k: int, state: StateDict, raw: Tensor | None, images: Tensor, expert: Tensor
    ) -> tuple[Tensor, Tensor | None, list[Tensor] | None]:
        """One batch of task k.

        Arguments:
            k: the task.
            state: θ(λ), from `merged`.
            raw: λ before clamping ``[K, R]``, or None where it is not learned.
            images: uint8 ``[n, 3, h, w]``.
            expert: the individual model's logits ``[n, classes]``.

        Returns:
            (loss, share kept and share of agreement in one tensor ``[3]``; ∂L_k/∂raw ``[K, R]`` or None; gradients
            of `layer`). Both are None, and the loss NaN, where the filter leaves nothing.
        """
        layer = self.layer(k)
        free = [] if raw is None else [key for key in self.tv.vectors if key not in self.inside[k]]
        leaves = [state[key].requires_grad_() for key in free]
        losses, kept, agree = self.losses(expert, self.scores(k, state, images))
        shares = [kept.to(losses).mean(), agree.to(losses).mean()]
        # A look at a number stalls a GPU, but whether there is an update depends on it; without a filter all are kept.
        if self.filter != "none" and not bool(kept.any()):
            return torch.stack([losses.new_tensor(torch.nan), *shares]), None, None
        loss = torch.where(kept, losses, 0).sum() / kept.sum()
        grads = torch.autograd.grad(loss, [*leaves, *layer], allow_unused=True)
        gradient = None
        if raw is not None:
            by_name = {**dict.fromkeys(self.tv.vectors), **dict(zip(free, grads, strict=False))}
            # As torch.clamp, whose gradient passes on the bounds themselves.
            gradient = self.tv._gradient(by_name, self.rows) * ((raw.detach() >= 0) & (raw.detach() <= 1))
        return torch.stack([loss.detach(), *shares]), gradient, list(grads[len(leaves) :])
