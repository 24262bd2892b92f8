"""What AdaMerging's gain is made of: where it starts, how fine its coefficients are, what it minimises."""

import pandas as pd

from ..rooms import Face

METHOD = "adapted"
"""The ``method`` of all rows of a cell of the grid; its factors tell which."""
MIXED = "mixed"
"""The ``method`` of mixtures of the plain sum and WUDI's closed form that are the same in all directions: the control
of SWUDI, which takes the one in weak directions and the other in strong ones."""
FILTERED = ("wudi", "swudi", "swudi_a")
"""Methods that lie between the two, or at an end."""
WEIGHTS = "weights"
GRAINS = {"tensor": "per tensor", "component": "per component", WEIGHTS: "all weights"}
"""What is learned, from coarse to fine."""
STARTS = {
    "task_arithmetic": "Task Arithmetic", "ties": "Ties-Merging", "iso_c": "Iso-C", "tsv_m": "TSV-M", "wudi": "WUDI",
}  # fmt: skip
"""The merged model at the first step."""
OBJECTIVES = {
    "entropy": "entropy", "diverse": "entropy, diverse", "prior": "entropy, diverse as the experts",
    "imitation": "imitation", "hard_imitation": "imitation, hard",
    "sure_imitation": "imitation, where the expert is surer", "labels": "labels",
}  # fmt: skip
"""What is minimised."""
RECIPE = ("tsv_m", "component", "imitation")
"""Start, grain and objective that this study recommends, for every number of images: chosen on images that the grid is
not measured on, when three of its cells, at two images per task, had been seen."""
CHOICES = ("task_arithmetic", "tensor", "entropy")
"""Those of AdaMerging, here with the grid's steps and rate."""

PLAIN = {"condition": "clean", "group": "all"}
"""Of rows that tell of clean images and of tasks whose experts are all there."""


def plain(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that `PLAIN` tells of."""
    return rows[(rows["condition"] == PLAIN["condition"]) & (rows["group"] == PLAIN["group"])]


FACE = Face(
    question="Where does AdaMerging's gain come from: the start, the number of coefficients, or the objective?",
    factors={
        "start": "the merged model that learning starts from",
        "grain": "what is learned: a coefficient per tensor or per singular component, or all weights",
        "objective": "what is minimised",
        "images": "unlabelled images per task that are learned from; 0 for all that may be",
        "unseen": "the tasks whose experts were left out, where some were",
        "rate": "the learning rate, where it is not the one that the run gives for what is learned",
        "mixed": "WUDI's closed form as a share of a mixture with the plain sum of the task vectors",
    },
    measured={
        "distance": "of the average: how far a merged model lies from the plain sum, WUDI's closed form being at 1",
    },
)
