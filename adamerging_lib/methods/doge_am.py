"""DOGE AM: layer-wise AdaMerging on DOGE's projected task vectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..coefficients import Coefficients
from ..forward import resolve_device
from ..learning.descent import initial, learn
from ..learning.recipes import check_setting, resolve
from ..learning.streams import task_streams
from ..merged import Fit
from .doge import doge_vectors
from .registry import register

if TYPE_CHECKING:
    from ..suite import Suite

RECIPES: dict[str, dict[str, float | int]] = {
    # FusionBench's layer-wise AdaMerging, on which the authors' port is built.
    "paper": {"steps": 1000, "lr": 1e-3, "batch_size": 16, "batches": 1},
    # As AdaMerging's.
    "mini": {"steps": 50, "lr": 1e-2, "batch_size": 16, "batches": 1},
}


@register(
    "doge_am",
    label="DOGE AM",
    needs="unlabelled test images",
    source="Wei et al. 2025 (DOGE), Section 3",
    takes="suite",
    adaptive=True,
)
def doge_am(
    suite: Suite,
    *,
    keep: float = 0.3,
    iterations: int = 400,
    recipe: str = "paper",
    steps: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    batches: int | None = None,
    init: float | Tensor | Coefficients | None = None,
    clamp: bool | str = False,
    seed: int = 0,
    setting: str = "transductive",
    device: str | torch.device = "cpu",
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Fit:
    """min over λ of Σ_k Σ_x H(softmax(h_k(f_θ(λ)(x)))), θ(λ)^l = θ0^l + Σ_k λ_k^l (T_k^l + Δ_k^l) ⊙ M_k^l.

    Arguments:
        suite: encoder, checkpoints, heads, and test images; labels are never read.
        keep: share of entries that each M_k keeps, see `doge_vectors`.
        iterations: steps of DOGE's own descent a matrix.
        recipe: ``paper`` or ``mini``; the next four override it one by one.
        steps: Adam steps.
        lr: learning rate of λ.
        batch_size: images a batch.
        batches: batches a task and step.
        init: λ at the start (0.3), as in `adamerge`.
        clamp: as in `adamerge`; the port leaves λ free.
        seed: of the image streams.
        setting: ``transductive`` or ``inductive``.
        device: ``cpu``, ``cuda`` or ``auto``.
        checkpoint: file to keep the run in, as in `adamerge`.
        progress: show a bar on stderr.

    Returns:
        Fit, as `adamerge` returns it.

    Raises:
        ValueError: as `adamerge`, and for a model without matrices.

    Touches:
        The tensors that DOGE touches, see `doge_vectors`; the others stay as in θ0, and their λ at the start.

    Needs:
        Unlabelled test images of every task.

    Cost:
        DOGE's descent on every matrix with one Δ_k a task, then AdaMerging's.

    Published:
        None found.

    Source:
        Wei et al. 2025 (Adaptive Projective Gradient Descent), arXiv 2501.01230; the authors' port in FusionBench.
    """
    options = resolve(RECIPES, recipe, steps=steps, lr=lr, batch_size=batch_size, batches=batches)
    check_setting(setting)
    device = resolve_device(device)
    tv = suite.task_vectors()
    start, plain_init = initial(init, tv, tv.rows("tensor"))
    hyper: dict[str, Any] = {"keep": keep, "iterations": iterations, **options, "init": plain_init, "clamp": clamp}
    hyper |= {"seed": seed, "setting": setting}
    streams = task_streams(suite, tv.tasks, size=options["batch_size"], seed=seed, setting=setting, device=device)
    # On the device, where its many small products are quick; back, because learn merges the result where θ0 is.
    moved = doge_vectors(tv.to(device), per_task=True, keep=keep, iterations=iterations)
    vectors = tv.replace({key: t.to(tv.vectors[key].device) for key, t in moved.vectors.items()})
    return learn(
        suite, vectors, streams, start, method="doge_am", hyper=hyper, granularity="tensor", device=device,
        clamp=clamp, checkpoint=checkpoint, progress=progress,
    )  # fmt: skip
