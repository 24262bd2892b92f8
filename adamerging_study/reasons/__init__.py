"""When does lowering entropy help? What is known of each task, and what changing heads, classes or experts does."""

from ..rooms import Face

BEFORE, AFTER = "task_arithmetic", "layer_wise_adamerging"
"""The merged model before adaptation, and after it."""
LEAST_LOSS = 1.0
"""Points that merging must have cost a task, for a recovered share of them to mean anything."""

FACE = Face(
    question="On which tasks does lowering entropy win accuracy back, and what does it depend on?",
    factors={
        "kind": "rows that measure no images: classes (how many a task has) and spearman (the rank correlation of "
        "entropy and loss over its images before adaptation), both in value",
        "scale": "by how much all heads were sharpened",
        "classes": "how many classes the task in narrowed was left with",
        "narrowed": "the task with the most classes, where it was left with some of them",
        "left_out": "the task with the weakest expert, where it was not merged",
        "rule": "how the tasks' gradients were combined, where they were not added up",
    },
    measured={"value": "what the kind of a row says"},
    tolerance={"accuracy": 2.0},
)
