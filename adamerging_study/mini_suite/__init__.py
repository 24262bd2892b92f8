"""The tasks and experts of a world: what is merged, and the two properties of experts on which merging rests."""

from ..rooms import Face

HALFWAY = 0.5
"""The share of a task vector at which claims look."""

FACE = Face(
    question="Are these experts fit for merging: short, straight moves from one encoder, nearly at right angles?",
    factors={
        "alpha": "α of a model θ0 + α T_task, measured on its own task",
        "kind": "what was measured of task vectors: `relative_norm`, ‖T_task‖ / ‖θ0‖, or `cosine` with that of `other`",
        "other": "the second task of a pair",
    },
    measured={"value": "a norm or a cosine"},
    shown=("columns",),
    tolerance={"accuracy": 1.0, "value": 0.02},
)
