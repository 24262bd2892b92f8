"""DOGE AM: layer-wise AdaMerging on DOGE's projected task vectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..coefficients import Coefficients
from ..learning.adaptation import Adaptation, learns
from ..learning.descent import initial, learn
from ..learning.model import suite_source
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
@learns(RECIPES, images="test")
def doge_am(
    suite: Suite,
    run: Adaptation,
    *,
    keep: float = 0.3,
    iterations: int = 400,
    init: float | Tensor | Coefficients | None = None,
    clamp: bool | str = False,
    checkpoint: str | Path | None = None,
) -> Fit:
    """min over λ of Σ_k Σ_x H(softmax(h_k(f_θ(λ)(x)))), θ(λ)^l = θ0^l + Σ_k λ_k^l (T_k^l + Δ_k^l) ⊙ M_k^l.

    Arguments:
        suite: encoder, checkpoints, heads, and test images; labels are never read.
        keep: share of entries that each M_k keeps, see `doge_vectors`.
        iterations: steps of DOGE's own descent per matrix.
        init: λ at the start (0.3), as in `adamerge`.
        clamp: as in `adamerge`; the port leaves λ free.
        checkpoint: file to keep the run in, as in `adamerge`.

    Returns:
        Fit, as `adamerge` returns it.

    Raises:
        ValueError: as `adamerge`, and for a model without matrices.

    Touches:
        The tensors that DOGE touches, see `doge_vectors`; the others stay as in θ0, and their λ at the start.

    Needs:
        Unlabelled test images of every task.

    Cost:
        DOGE's descent on every matrix with one Δ_k per task, then AdaMerging's.

    Published:
        None found.

    Source:
        Wei et al. 2025 (Adaptive Projective Gradient Descent), arXiv 2501.01230; the authors' port in FusionBench.

    Differs from the published code:
        Entropy is Σ −p log p from a log-softmax, where the port has log(p + 1e-8); its 1,000 steps are those of
        ``recipe="paper"``. Of DOGE's own part what `doge_ta` says.
    """
    tv = suite.task_vectors()
    start, plain_init = initial(init, tv, tv.rows("tensor"))
    hyper: dict[str, Any] = {"keep": keep, "iterations": iterations, **run.options, "init": plain_init, "clamp": clamp}
    hyper |= {"seed": run.seed, "setting": run.setting}
    streams = run.streams(suite)
    # On the device, where its many small products are quick; back, because learn merges the result where θ0 is.
    moved = doge_vectors(tv.to(run.device), per_task=True, keep=keep, iterations=iterations)
    vectors = tv.replace({key: t.to(tv.vectors[key].device) for key, t in moved.vectors.items()})
    return learn(
        suite_source(suite), vectors, streams, start, run=run, method="doge_am", hyper=hyper, granularity="tensor",
        clamp=clamp, checkpoint=checkpoint,
    )  # fmt: skip
