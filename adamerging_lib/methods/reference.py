"""Reference points: no fine-tuning, one model per task, and joint training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..merged import Merged
from ..task_vectors import TaskVectors
from .registry import register

if TYPE_CHECKING:
    from ..suite import Suite


@register("zero_shot", label="Pretrained", needs="nothing", source="Radford et al. 2021", streams=True)
def zero_shot(tv: TaskVectors) -> Merged:
    """θ = θ0: the pre-trained encoder as it is.

    Arguments:
        tv: θ0 and T_k.

    Returns:
        θ0, copied.
    """
    own = {**tv.pretrained, **{key: t[0] for key, t in tv.statistics.items()}}
    return Merged({key: t.detach().clone() for key, t in own.items()}, "zero_shot", {}, tv.tasks)


@register(
    "individual",
    label="Individual",
    needs="nothing",
    task_specific="P (a whole encoder)",
    task_id=True,
    static=False,
    source="AdaMerging, Section 4.1",
    takes="suite",
)
def individual(suite: Suite) -> Merged:
    """θ_k for task k: K fine-tuned encoders, each with its own head.

    Arguments:
        suite: with its experts.

    Returns:
        Task-specific weights; the experts' own tensors, not copies.
    """
    return Merged(None, "individual", {}, suite.tasks, task_states=dict(suite.experts))


@register(
    "traditional_mtl",
    label="Traditional MTL",
    needs="labels",
    source="AdaMerging, Section 4.1",
    takes="suite",
)
def traditional_mtl(suite: Suite) -> Merged:
    """θ = argmin Σ_k CE_k: one encoder trained on all tasks together, trained with the suite.

    Arguments:
        suite: with its joint-training model.

    Raises:
        ValueError: where the profile has no joint-training model.
    """
    if suite.joint is None:
        raise ValueError(f"profile {suite.profile!r} has no joint-training model: train one, or leave this method out")
    return Merged(dict(suite.joint), "traditional_mtl", {}, suite.tasks)
