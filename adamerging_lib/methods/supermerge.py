"""SuperMerge: bounded layer-wise coefficients learned from a few labelled images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..coefficients import Coefficients
from ..learning.adaptation import Adaptation, learns
from ..learning.descent import initial, learn
from ..learning.model import suite_source
from ..learning.objective import label_loss
from ..merged import Merged
from ..state import StateDict
from ..task_vectors import TaskVectors
from .adamerging import RECIPES
from .registry import register

if TYPE_CHECKING:
    from ..suite import Suite


@register(
    "supermerge",
    label="SuperMerge",
    needs="labels",
    source="Yang et al. 2024 (SuperMerge)",
    takes="suite",
    adaptive=True,
    trains=True,
)
@learns(RECIPES, images="labels")
def supermerge(
    suite: Suite,
    run: Adaptation,
    *,
    images: int | None = 256,
    hierarchical: bool = False,
    granularity: str = "tensor",
    init: float = 0.3,
) -> Merged:
    """min over w of Σ_k CE(h_k(f_θ(w)(x)), y), θ(w)^l = θ0^l + Σ_k tanh(w_k^l) T_k^l.

    Arguments:
        suite: encoder, checkpoints, heads, and labelled training images.
        images: labelled images per task, drawn once (256); None for all. The paper says "a small validation set".
        hierarchical: merge the tasks in pairs, then the results in pairs, and so on, so that the device never holds
            more than two task vectors.
        granularity: ``tensor`` (published), ``task``, ``block`` or ``module``.
        steps: steps of Adam, of every pair where hierarchical.
        init: tanh(w) at the start, inside (−1, 1).
        seed: of the pool and the batches.

    Returns:
        Merged state and ``coefficients``. Hierarchical: the products of the coefficients along the tree, and the
        history of the last pair; else a `Fit` as `adamerge` returns it.

    Raises:
        ValueError: for unknown or unusable arguments, or a suite without training images.

    Touches:
        Every floating-point tensor that the encoder uses.

    Needs:
        A few labelled training images of every task.

    Cost:
        As AdaMerging: one forward and backward of all images per step, memory (K + 3)·P. Hierarchical: ⌈log2 K⌉ times
        the images, memory 5·P on the device.

    Published:
        None found for the eight CLIP tasks.

    Source:
        Yang et al. 2024, arXiv 2412.10416. Its optimiser, steps and start were not found: AdaMerging's are used.
    """
    hyper: dict[str, Any] = {"images": images, "hierarchical": hierarchical, "granularity": granularity, **run.options}
    hyper |= {"init": init, "seed": run.seed}
    streams = dict(zip(suite.tasks, run.streams(suite, images=images), strict=True))

    def fit(experts: Mapping[str, StateDict], tasks: Sequence[str]) -> Merged:
        tv = TaskVectors.from_state_dicts(suite.pretrained, experts)
        start, _ = initial(init, tv, tv.rows(granularity))
        return learn(
            suite_source(suite), tv, [streams[task] for task in tasks], start, run=run, method="supermerge",
            hyper=hyper, granularity=granularity, tasks=tasks, clamp="tanh", terms={"loss": label_loss},
        )  # fmt: skip

    def tree(tasks: Sequence[str]) -> tuple[StateDict, Merged | None, dict[str, Tensor | float]]:
        # A model, the fit that made it, and what it holds of each task: θ^l = θ0^l + Σ_k share_k^l T_k^l.
        if len(tasks) == 1:
            return suite.experts[tasks[0]], None, {tasks[0]: 1.0}
        middle = (len(tasks) + 1) // 2
        halves = {"+".join(half): tree(half) for half in (tasks[:middle], tasks[middle:])}
        merged = fit({name: state for name, (state, _, _) in halves.items()}, tasks)
        own = zip(merged.coefficients.values, halves.values(), strict=True)
        return merged.state, merged, {task: c * share for c, (_, _, parts) in own for task, share in parts.items()}

    if not hierarchical or len(suite.tasks) == 1:
        return fit(suite.experts, suite.tasks)
    state, last, shares = tree(suite.tasks)
    table = Coefficients(torch.stack(list(shares.values())), suite.tasks, last.coefficients.rows, granularity)
    return Merged(state, "supermerge", hyper, suite.tasks, coefficients=table, history=last.history)
