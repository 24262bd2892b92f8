"""This study's recipe: one coefficient per singular component of TSV-M's sum, learned by imitating the experts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..learning.adaptation import Adaptation, learns
from ..merged import Fit
from .adamerging import IMITATION, adamerge
from .registry import register

if TYPE_CHECKING:
    from ..suite import Suite

RECIPE: dict[str, float | int] = {"steps": 100, "lr": 0.03, "batch_size": 16, "batches": 1}


@register(
    "component_adamerging",
    label="AdaMerging per component",
    needs="unlabelled test images",
    source="this study, What is the gain made of?",
    takes="suite",
    adaptive=True,
)
@learns({"paper": RECIPE, "mini": RECIPE}, images="test")
def component_adamerging(
    suite: Suite,
    run: Adaptation,
    *,
    images: int | None = None,
    guard: bool = False,
    checkpoint: str | Path | None = None,
) -> Fit:
    """min over λ of Σ_k mean_x CE(p_k(x), p(x)), θ(λ)^l = θ0^l + polar(U) diag(λ^l ⊙ s) polar(V)ᵀ, from TSV-M's λ = 1.

    p_k and p are the predictions of expert k and of the merged model on task k's unlabelled images; U, s and V are
    those of `tsv_m`. The recipe was chosen in the drawn world: its rate on images that the study's page on the gain
    does not measure on, and when three cells of that page had been seen. Runs that measure on all test images measure
    on those too.

    Arguments:
        suite: encoder, checkpoints, heads, and test images; labels are never read.
        recipe: ``paper`` and ``mini`` are the same.
        images: learn from a fixed pool of so many images per task instead of all.
        guard, checkpoint: as in `adamerge`.

    Returns:
        Fit, as `adamerge` returns it.

    Raises:
        ValueError: as `adamerge`.

    Touches:
        As `tsv_m`; tensors that are not matrices by one coefficient per task.

    Needs:
        Unlabelled test images of every task, and the experts while it learns.

    Cost:
        TSV-M's, one forward of every expert over its images, and AdaMerging's per step.

    Published:
        By nobody else.

    Source:
        This study. TSV-M's basis is Gargiulo et al. 2025; coefficients of components were learned before by AdaRank,
        imitation of the experts by Model Tinting, SyMerge, ProDistill and SAMerging.
    """
    fit = adamerge(
        suite, granularity="component", vectors="tsv", objective=IMITATION, images=images, guard=guard,
        checkpoint=checkpoint, seed=run.seed, setting=run.setting, device=run.device, progress=run.progress,
        **run.options,
    )  # fmt: skip
    return replace(fit, method="component_adamerging")
