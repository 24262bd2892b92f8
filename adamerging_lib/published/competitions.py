"""Which methods compete: those that need the same and give the same kind of model."""

from __future__ import annotations

BOUNDS = ("zero_shot", "individual", "traditional_mtl")
"""Reference points, not merging methods: they merge nothing, or need all the labelled training images."""
NEEDS = ("nothing", "unlabelled training images", "unlabelled test images", "labels")
"""What a method needs beyond checkpoints and heads, from little to much; only methods with the same needs compete."""
ONE, PARTS = "one model for all tasks", "parts for each task"
GIVES = (ONE, PARTS)
REFERENCE = "reference points"

_IN_WORDS = {"nothing": "checkpoints alone", "labels": "labelled images"}


def gives(static: bool, task_specific: str) -> str:
    """Whether a method gives one model for all tasks and images, or keeps or computes parts of it for each.

    Arguments:
        static: whether one encoder, the same for every task and image, is what comes out.
        task_specific: what it keeps per task, as it is registered.

    Returns:
        ``ONE`` or ``PARTS``.
    """
    return ONE if static and task_specific == "nothing" else PARTS


def competition(method: str, needs: str, gives: str) -> str:
    """The name of the competition that a method is in, one of `competitions`.

    Arguments:
        method: its id.
        needs: one of ``NEEDS``.
        gives: one of ``GIVES``.
    """
    return REFERENCE if method in BOUNDS else _name(needs, gives)


def competitions() -> list[str]:
    """Names of all competitions, reference points first, then from little that is needed to much."""
    return [REFERENCE, *(_name(needs, gives) for needs in NEEDS for gives in GIVES)]


def _name(needs: str, gives: str) -> str:
    return f"from {_IN_WORDS.get(needs, needs)}, {gives}"
