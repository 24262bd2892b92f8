"""Robustness: merged models on corrupted test images, and what minimising entropy does to their predictions there."""

from ..rooms import Face

FACE = Face(
    question="Does AdaMerging stay above Task Arithmetic on corrupted images, and is it wise to learn on them?",
    factors={
        "severity": "of the corruption, 1 to 5; 0 for clean images",
        "adapted_on": "images that it learned on: ``corrupted`` (the same, as in the paper), ``clean`` or ``nothing``",
        "objective": "what was minimised, where the fit was looked at step by step",
        "step": "of that fit; other rows are of finished models and lack both",
    },
    measured={"share": "percentage of images taken for the class that is predicted most often"},
    shown=("reference",),
    loads=("profile", "tasks"),
    tolerance={"accuracy": 2.0},
)
