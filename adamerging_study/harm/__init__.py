"""When adaptation harms: odd streams, corrupted images and bad experts, with a guard and without."""

from __future__ import annotations

from ..rooms import Face

METHOD = "adapted"
"""The ``method`` of all rows of a case; its factors tell which."""
START, LAST, KEPT = "start", "last", "kept"
STATES = {START: "start", LAST: "without guard", KEPT: "with guard"}
"""Which state of the path a row measures."""
STREAMS = {
    "clean": "all images, shuffled",
    "batch_1": "one image per batch", "batch_4": "four images per batch", "batch_64": "64 images per batch",
    "skew_1": "classes skewed, Dirichlet 1", "skew_0.1": "classes skewed, Dirichlet 0.1",
    "sorted": "one class after another",
}  # fmt: skip
"""What is learned from, in the place of shuffled batches of 16 images."""
EXPERTS = {
    "unsure": "an expert is unsure", "stretched_3": "a task vector times three", "untrained": "an expert is untrained",
    "other_base": "an expert of another base",
}  # fmt: skip
"""What is wrong with one expert, a fault that the experiment ``check`` injects."""
OBJECTIVES = {
    "entropy": "entropy", "diverse": "entropy, diverse", "prior": "entropy, diverse as the experts",
    "imitation": "imitation",
}  # fmt: skip

RECIPE = "recipe"
"""In the place of an objective: imitation from TSV-M, one coefficient per singular component, as this study recommends.
All others start from Task Arithmetic and learn one coefficient per tensor."""

OTHERS = {
    "agreement": "the share of predictions that are the expert's class",
    "variety": "the entropy (nats) of the mean prediction of a task",
    "entropy": "the mean entropy (nats) of predictions",
}
"""Statistics that need no label, beside the experts' beliefs, and what they are."""

FACE = Face(
    question="When does adaptation end below its start, and does a guard that sees no label step back in time?",
    factors={
        "situation": "what is odd: the stream of images, their corruption, or one expert",
        "objective": "what is minimised, or `recipe` for the recommended one, which has a start of its own",
        "state": "which state of the path is measured: `start`, `last`, or the one `kept` by the guard",
    },
    measured={
        "step": "after how many steps the measured state was reached",
        "expected_lead": "of the average: points above the start by the experts' beliefs about images kept back",
        "expected_error": "standard error of `expected_lead`",
        **{f"watched_{name}": f"of the average: {what}, on images kept back" for name, what in OTHERS.items()},
        "drift": "of the average: mean distance of the coefficients from where they started",
    },
)


def told(situation: str) -> str:
    """A situation in words."""
    return STREAMS.get(situation) or EXPERTS.get(situation) or situation.replace("_", " ")
