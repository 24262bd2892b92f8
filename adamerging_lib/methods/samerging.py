"""SAMerging: coefficients that imitate the experts where the loss is flat."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..learning.adaptation import Adaptation, learns
from ..learning.descent import initial, learn
from ..learning.imitation import distillation_loss, taught_streams
from ..learning.model import suite_source
from ..learning.recipes import check_positive
from ..merged import Fit
from .registry import register

if TYPE_CHECKING:
    from ..suite import Suite

RECIPES: dict[str, dict[str, float | int]] = {
    "paper": {"steps": 1000, "lr": 1e-3, "batch_size": 16, "batches": 1},
    # Sized for two CPU cores. Of the rates 0.001 to 1 the one whose distance ended lowest on 64 images per task of the
    # drawn world; no label was read.
    "mini": {"steps": 50, "lr": 1e-2, "batch_size": 16, "batches": 1},
}
TEMPERATURE = 2.0
MOMENTUM, DECAY = 0.99, 5e-4


@register(
    "samerging",
    label="SAMerging",
    needs="unlabelled test images",
    source="Dalili and Mahdavi 2025 (SAMerging)",
    takes="suite",
    adaptive=True,
)
@learns(RECIPES, images="test")
def samerging(
    suite: Suite,
    run: Adaptation,
    *,
    rho: float = 0.07,
    images: int | None = None,
    checkpoint: str | Path | None = None,
) -> Fit:
    """min over λ of max over small ε of Σ_k mean_x KL(p_k(x) ‖ p(x)) at λ + ε, θ^l = θ0^l + Σ_k λ_k^l T_k^l / ‖T_k^l‖.

    p_k and p are the softmax of half the logits of expert k and of the merged model. The inner maximum, over ‖ε / λ‖ ≤
    ρ, is replaced by its first-order solution ε = ρ λ² g / ‖λ g‖, g the gradient at λ (adaptive sharpness-aware
    minimisation), which is 0 where λ is. Stochastic gradient descent moves λ from 0.

    Arguments:
        suite: encoder, checkpoints, heads, and test images; labels are never read.
        steps: of gradient descent with momentum 0.99 and weight decay 5e-4 (1000).
        lr: its learning rate (1e-3).
        rho: ρ.
        images: learn from a fixed pool of so many images per task instead of all.
        checkpoint: file to keep the run in, as in `adamerge`.

    Returns:
        Fit, as `adamerge` returns it; its λ belong to the normalised task vectors.

    Raises:
        ValueError: for options of no use, or losses that are NaN.

    Touches:
        Every floating-point tensor that the encoder uses.

    Needs:
        Unlabelled test images of every task.

    Cost:
        Twice AdaMerging's per step, and one forward of every expert over its images.

    Published:
        Averages are in the paper, which was not at hand.

    Source:
        Dalili and Mahdavi 2025 (Model Merging via Multi-Teacher Knowledge Distillation), arXiv 2512.21288; all settings
        from the authors' code.

    Differs from the published code:
        Batches come from shuffled passes over the images, there from an order that is drawn anew every 100 steps. A
        tensor that a task leaves as it is stays so; there its division by zero is not caught.
    """
    check_positive("rho", rho)
    tv = suite.task_vectors()
    tv = tv.replace({key: _normalised(t) for key, t in tv.vectors.items()})
    start, plain = initial(0.0, tv, tv.rows("tensor"))
    hyper: dict[str, Any] = {**run.options, "init": plain, "rho": float(rho)}
    hyper |= {"images": images} if images is not None else {}
    hyper |= {"seed": run.seed, "setting": run.setting}
    return learn(
        suite_source(suite), tv, taught_streams(suite, run.streams(suite, images=images), run.device), start, run=run,
        method="samerging", hyper=hyper, granularity="tensor", clamp=False, checkpoint=checkpoint,
        terms={"loss": distillation_loss(TEMPERATURE), "sharpness": rho},
        optimiser=partial(torch.optim.SGD, momentum=MOMENTUM, weight_decay=DECAY),
    )  # fmt: skip


def _normalised(t: torch.Tensor) -> torch.Tensor:
    """T_k / ‖T_k‖ of one tensor's task vectors ``[K, *shape]``, zero where there is nothing to divide."""
    norms = torch.linalg.vector_norm(t.flatten(1).double(), dim=1)
    return (t / torch.where(norms > 0, norms, 1).to(t).view(-1, *[1] * (t.dim() - 1))).to(t)
