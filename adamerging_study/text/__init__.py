"""Text: the same methods on experts that read English sentences instead of looking at images."""

from ..rooms import Face

EXISTING = (
    "weight_averaging", "task_arithmetic", "ties", "fisher", "regmean", "task_wise_adamerging",
    "task_wise_adamerging_pp", "layer_wise_adamerging", "layer_wise_adamerging_pp",
)  # fmt: skip
"""What merged models into one when SuperMerge was published."""

FACE = Face(
    question="What of all this holds on text: AdaMerging's gain, and the two methods whose papers claim language too?",
    world="mini-text",
    only=("mini-text",),
)
