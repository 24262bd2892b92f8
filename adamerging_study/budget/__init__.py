"""What layer-wise AdaMerging needs: one setting varied at a time around a base run, and ever more tasks merged."""

from ..rooms import Face

METHOD = "layer_wise_adamerging"
"""The method of the base run."""
STEPS, TASKS = "steps", "tasks"
"""The factors that are not settings of one more run: looks along one long run, and how many tasks are merged."""

FACE = Face(
    question="How many steps, images and coefficients does AdaMerging need, and what do more tasks change?",
    factors={
        "factor": "the setting that is varied; rows of the base run lack it",
        "level": "what that setting is set to, as text",
    },
    tolerance={"accuracy": 2.0},
)
