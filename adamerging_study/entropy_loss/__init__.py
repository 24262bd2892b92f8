"""Entropy against loss, the ground that AdaMerging stands on: eleven bins, and Spearman's correlation."""

from ..rooms import Face

ALL = "all"
"""The task of rows that pool the images of all tasks."""
BINS = 11

FACE = Face(
    question="Does low entropy of a prediction mean low loss, before and after adaptation?",
    factors={
        "kind": "what a row holds: `bin`, the mean loss (nats), its deviation and the number of images in one bin of "
        "entropy; `spearman`, the rank correlation of entropy and loss over all n images",
        "bin": "0 to 10: entropy in (bin/10, (bin+1)/10] nats, the last without an upper end",
    },
    measured={
        "value": "Spearman's correlation; None where entropy or loss is constant",
        "deviation": "standard deviation of the loss of a bin's images (nats); missing for a single image",
    },
    tolerance={"value": 0.05, "deviation": 0.1},
)
