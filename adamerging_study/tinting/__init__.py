"""Model Tinting taken apart: which layer, λ and layer alone and together, the filter, and images held out."""

from ..rooms import Face

FACE = Face(
    question="How much do learned λ, one layer per task and the confidence filter each do for Model Tinting?",
    factors={
        "variant": "what is learned, or from what, other than in the method itself: see VARIANTS, and ``pilot``",
        "layer": "the one layer that a row of the pilot tints",
        "quantity": "what else was measured: ``kept`` and ``agreement`` over epochs, in the fit; of the finished model "
        "on all test images ``kept in the end``, ``right if kept`` and ``right if dropped``; ``share of the encoder`` "
        "that is kept per task",
        "epoch": "round over the tasks, of a quantity of the fit",
    },
    measured={"value": "of a quantity, percent"},
    tolerance={"accuracy": 1.5},
)
VARIANTS = {
    "coefficients only": ("λ alone", {"learn": "coefficients"}),
    "layer only": ("head alone", {"learn": "layer"}),
    "soft labels": ("λ and head, soft labels", {"targets": "soft"}),
    "surest half": ("λ and head, surest half of each batch", {"top_p": 0.5}),
}
"""Variant of `tint` → what is learned, in words, and the hyper-parameters that say so."""
PILOT = "pilot"
