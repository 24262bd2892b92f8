"""Accuracy, entropy, loss and calibration of a merged model; the transductive and the inductive setting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from .forward import compute_state, entropy, logits, prepare_encoder, resolve_device
from .runtime.values import one_of
from .suite import SETTINGS, Suite, split_indices

if TYPE_CHECKING:
    from .adapting.adapted import Adapted
    from .merged import Merged


def evaluate(
    suite: Suite | Adapted,
    merged: Merged | Mapping[str, Iterable[Any]],
    *,
    setting: str | None = None,
    split: str | None = None,
    device: str | torch.device = "cpu",
    batch_size: int | None = None,
    outcomes: bool = False,
) -> pd.DataFrame:
    """Measure a merged model on every task of a suite, or an adapted model on batches; the same code for all methods.

    Arguments:
        suite: encoder, heads, and labelled test images; or what `adapt` returned.
        merged: task → labelled batches, (inputs, labels) or dicts with ``labels``, for what `adapt` returned; else
            shared or task-specific weights; the model's own heads and adapters, if any, are used.
        setting: ``transductive`` (measured on the images that adaptation may have used, as in the paper) or
            ``inductive`` (adapted to one half, measured on the other). Default: the setting that an adaptive method
            was fitted in, transductive for all others.
        split: ``all`` or ``held_out``. Default: ``held_out`` in the inductive setting, else ``all``.
        device: ``cpu``, ``cuda`` or ``auto``.
        batch_size: images per forward pass; by default 512 on a GPU, and 128 on a CPU, whose caches hold that many.
            Batches given are taken as they are.
        outcomes: add a column ``right`` with a bool array ``[n]`` per row: which images are classified correctly.

    Returns:
        One row per task: task, accuracy (percent), n, entropy (nats, mean), loss (nats, mean cross-entropy),
        calibration (expected calibration error, percent), setting, split.

    Raises:
        ValueError: the setting or split would measure an inductive fit on images that it adapted to, or batches are
            unusable.

    Example:
        >>> suite = am.load_suite("mini").some_images(20)
        >>> merged = am.run_method("task_arithmetic", suite, scaling=0.3)
        >>> am.evaluate(suite, merged).columns.tolist()
        ['task', 'accuracy', 'n', 'entropy', 'loss', 'calibration', 'setting', 'split']
    """
    if isinstance(suite, Suite):
        setting, split = measured_on(merged, setting, split)
        found = predictions(suite, merged, split=split, device=device, batch_size=batch_size)
    else:
        from .adapting.measure import adapted_predictions

        setting, split = measured_on(suite, setting, split)
        found = adapted_predictions(suite, merged, split=split, device=device)
    return pd.DataFrame(
        {
            "task": task, **measured(scores, labels), "setting": setting, "split": split,
            **({"right": (scores.argmax(-1) == labels).numpy()} if outcomes else {}),
        }
        for task, scores, labels in found
    )  # fmt: skip


def predictions(
    suite: Suite,
    merged: Merged,
    *,
    split: str = "all",
    device: str | torch.device = "cpu",
    batch_size: int | None = None,
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Task, logits (float64 ``[n, classes]``) and labels ``[n]`` of a merged model, task by task, on the CPU.

    Arguments: as in `evaluate`, with ``split`` either ``all`` or ``held_out``.

    Raises:
        ValueError: for labels that do not fit images or head, or logits that are not finite.
    """
    device = resolve_device(device)
    batch_size = batch_size or (128 if device.type == "cpu" else 512)
    shared: dict[str, Tensor] | None = None
    for task, data in suite.test.items():
        if shared is None or merged.task_states is not None or merged.overrides is not None:
            state = merged.state_dict(task)
            encoder = prepare_encoder(suite.encoder, state, device)
            shared = compute_state(state, device)
        head = (merged.heads or {}).get(task, suite.heads[task]).to(device)
        bias = (merged.biases or {}).get(task)
        images, labels = data.images, data.labels
        if len(images) != len(labels) or len(labels) == 0:
            raise ValueError(f"task {task!r} has {len(images)} images and {len(labels)} labels: both must be n > 0")
        if split == "held_out":
            _, held_out = split_indices(len(labels))
            images, labels = images[held_out], labels[held_out]
        if int(labels.min()) < 0 or int(labels.max()) >= len(head):
            raise ValueError(f"labels of task {task!r} lie outside its head's {len(head)} classes")
        parts = []
        with torch.inference_mode():
            for batch in images.split(batch_size):
                unit = merged.features(encoder, shared, suite.normalise(batch.to(device)), task)
                scores = logits(unit, head)
                parts.append(scores if bias is None else scores + bias.to(scores))
        scores = torch.cat(parts).double().cpu()
        if not bool(torch.isfinite(scores).all()):
            raise ValueError(f"{merged.method} gives NaN or Inf logits on task {task!r}: its weights have diverged")
        yield task, scores, labels.cpu()


def measured_on(merged: Merged, setting: str | None = None, split: str | None = None) -> tuple[str, str]:
    """The setting and split that a model is measured in, where they are not given; arguments, errors: `evaluate`."""
    fitted = merged.hyper.get("setting")
    setting = setting or fitted or "transductive"
    one_of("setting", setting, SETTINGS)
    split = split or ("held_out" if setting == "inductive" else "all")
    one_of("split", split, ("all", "held_out"))
    if setting == "inductive" and split == "all":
        raise ValueError("the inductive setting is measured on split='held_out': 'all' holds the adaptation images")
    if fitted and fitted != setting:
        raise ValueError(f"this {merged.method} was fitted in the {fitted} setting, not the {setting} one: fit it anew")
    return setting, split


def measured(scores: Tensor, labels: Tensor, bins: int = 15) -> dict[str, float | int]:
    """Accuracy, n, entropy, loss and calibration of one task's predictions, as in `evaluate`.

    Arguments:
        scores: logits ``[n, classes]``.
        labels: ``[n]``.
        bins: of the calibration error.
    """
    confidence, predicted = scores.softmax(-1).max(-1)
    right = predicted == labels
    # Expected calibration error: Σ_b (n_b / n) |accuracy_b − confidence_b| over equal-width confidence bins.
    index = (confidence * bins).long().clamp_(max=bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, index, right.double() - confidence)
    return {
        "accuracy": 100 * right.double().mean().item(),
        "n": len(labels),
        "entropy": entropy(scores).mean().item(),
        "loss": F.cross_entropy(scores, labels).item(),
        "calibration": 100 * gap.abs().sum().item() / len(labels),
    }
