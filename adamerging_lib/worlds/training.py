"""Training loops: one resumable optimiser loop, and on it pre-training, fine-tuning and joint training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, pad
from tqdm import tqdm

from ..learning.streams import in_passes
from ..suite import TaskData
from .augmentation import Augmentation, augment


def optimise(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    *,
    steps: int,
    lr: float,
    warmup: int,
    weight_decay: float,
    checkpoint: Path,
    label: str,
    save_every: int = 500,
) -> None:
    """AdamW with linear warm-up and cosine decay to zero; resumes from ``checkpoint`` when a run was cut off.

    Arguments:
        model: trained in place; parameters that do not require a gradient stay as they are.
        loss: step number → scalar loss. It must depend on the step alone (batches drawn by step), so that a resumed run
            goes through the same batches.
        steps, lr, warmup, weight_decay: the schedule; weight decay touches matrices only.
        checkpoint: file with model, optimiser and step, written every ``save_every`` steps and removed by the caller.
        label: what the progress bar says.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        first = saved["step"]
    model.train()
    bar = tqdm(range(first, steps), initial=first, total=steps, desc=label, unit="step", mininterval=2)
    for step in bar:
        ramp = min(1.0, (step + 1) / max(warmup, 1))
        rate = lr * ramp * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps)).item())
        for group in optimiser.param_groups:
            group["lr"] = rate
        value = loss(step)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        if step % 20 == 0:
            bar.set_postfix(loss=f"{value.item():.3f}", refresh=False)
        if (step + 1) % save_every == 0 or step + 1 == steps:
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            partial = checkpoint.with_suffix(".partial")
            torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}, partial)
            partial.replace(checkpoint)
    model.eval()


def batch_indices(step: int, batch: int, count: int, seed: int) -> Tensor:
    """Indices of a step's batch in endless shuffled passes over ``count`` images; a function of the step alone."""

    def shuffled(epoch: int) -> Tensor:
        # Not the seeds of `streams.seeded`: what is shipped was trained with these, and can be trained again.
        return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))

    return in_passes(step * batch, batch, count, shuffled)


def random_crop(images: Tensor, generator: torch.Generator, margin: int = 2) -> Tensor:
    """Images shifted by up to ``margin`` pixels with reflected borders, ``[n, 3, h, w]``."""
    count, _, height, width = images.shape
    padded = pad(images, (margin,) * 4, mode="reflect")
    top, left = torch.randint(0, 2 * margin + 1, (2, count), generator=generator)
    rows = (top[:, None] + torch.arange(height)).to(images.device)
    columns = (left[:, None] + torch.arange(width)).to(images.device)
    which = torch.arange(count, device=images.device)
    return padded[which[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def contrastive_loss(images: Tensor, texts: Tensor, which: Tensor, logit_scale: Tensor) -> Tensor:
    """CLIP's symmetric loss where several images may share a caption: every image of the caption counts as its match.

    Arguments:
        images: features ``[n, dim]``.
        texts: features of the distinct captions ``[m, dim]``.
        which: caption of each image, int64 ``[n]``.
        logit_scale: log of the inverse temperature.
    """
    logits = logit_scale.exp() * normalize(images, dim=-1) @ normalize(texts, dim=-1).T  # [n, m]
    matches = torch.zeros_like(logits).scatter_(1, which[:, None], 1.0).T  # [m, n]
    return (cross_entropy(logits, which) + cross_entropy(logits.T, matches / matches.sum(1, keepdim=True))) / 2


def head_loss(
    encoder: Callable[[Tensor], Tensor], images: Tensor, heads: Sequence[Tensor], labels: Sequence[Tensor]
) -> Tensor:
    """Σ_k cross-entropy of frozen heads on one concatenated batch, split in the heads' order."""
    features = normalize(encoder(images), dim=-1).split([len(part) for part in labels])
    losses = [cross_entropy(f @ head.T, y) for f, head, y in zip(features, heads, labels, strict=True)]
    return torch.stack(losses).sum()


def fine_tune(
    encoder: nn.Module,
    data: Mapping[str, TaskData],
    heads: Mapping[str, Tensor],
    normalise: Callable[[Tensor], Tensor],
    *,
    steps: int,
    lr: float,
    batch_size: int,
    weight_decay: float,
    warmup: int,
    seed: int,
    device: str,
    checkpoint: Path,
    label: str,
    views: Mapping[str, Augmentation] | None = None,
    margin: int = 2,
    bfloat16: bool = False,
    save_every: int = 500,
) -> None:
    """The encoder fine-tuned with frozen heads: on one task an expert, on all of them joint training (Traditional MTL).

    Every step takes one batch of ``batch_size`` images of each task and minimises the sum of the cross-entropies.

    Arguments:
        encoder: trained in place.
        data: task → training images.
        heads: task → frozen head.
        normalise: images as they are kept → what the encoder takes.
        steps, lr, batch_size, weight_decay, warmup, seed, checkpoint, label, save_every: see `optimise`.
        device: ``cpu`` or ``cuda``.
        views: task → how its images are augmented; by default all are shifted by up to ``margin`` pixels.
        margin: of that shift; 0 for inputs that are not images.
        bfloat16: the encoder computes in bfloat16, its weights stay float32. Faster where the hardware has it.

    Source: AdaMerging, App. A.
    """
    encoder.to(device)
    frozen = [heads[task].to(device) for task in data]

    def loss(step: int) -> Tensor:
        images, labels = [], []
        for place, part in enumerate(data.values()):
            chosen = batch_indices(step, batch_size, len(part), seed + 7919 * place)
            images.append(part.images[chosen])
            labels.append(part.labels[chosen].to(device))
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        batch = normalise(torch.cat(images).to(device))
        if views is None:
            batch = random_crop(batch, generator, margin) if margin else batch
        else:
            parts = zip(batch.split(batch_size), data, strict=True)
            batch = torch.cat([augment(part, views[task], generator) for part, task in parts])
        return head_loss(encode, batch, frozen, labels)

    def encode(images: Tensor) -> Tensor:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16):
            return encoder(images).float()

    optimise(
        encoder, loss, steps=steps, lr=lr, warmup=warmup, weight_decay=weight_decay, checkpoint=checkpoint, label=label,
        save_every=save_every,
    )  # fmt: skip


def pre_train(
    model: nn.Module,
    images: Tensor,
    captions: Tensor,
    tokens: Tensor,
    normalise: Callable[[Tensor], Tensor],
    *,
    steps: int,
    lr: float,
    batch_size: int,
    weight_decay: float,
    warmup: int,
    seed: int,
    device: str,
    checkpoint: Path,
) -> None:
    """A CLIP pre-trained contrastively.

    Arguments:
        model: ``open_clip.CLIP``, trained in place.
        images: uint8 ``[n, 3, h, w]``; captions: int64 ``[n]``, rows of ``tokens`` ``[m, context]``.
    """
    model.to(device)
    tokens = tokens.to(device)

    def loss(step: int) -> Tensor:
        chosen = batch_indices(step, batch_size, len(images), seed)
        distinct, which = captions[chosen].to(device).unique(return_inverse=True)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        batch = random_crop(normalise(images[chosen].to(device)), generator)
        return contrastive_loss(model.visual(batch), model.encode_text(tokens[distinct]), which, model.logit_scale)

    optimise(
        model,
        loss,
        steps=steps,
        lr=lr,
        warmup=warmup,
        weight_decay=weight_decay,
        checkpoint=checkpoint,
        label="pre-training",
    )
