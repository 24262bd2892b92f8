"""A doctor before the merge: which injected faults `adamerging check` finds, and how often it accuses the innocent."""

from __future__ import annotations

from dataclasses import dataclass

from ..rooms import Face

STRETCHED, CLEAN = "stretched_3", "clean"
"""Cases in which merging is measured too."""


@dataclass(frozen=True)
class Fault:
    """One way in which a set of experts can be wrong.

    Arguments:
        told: what is done to the set, for tables.
        codes: kinds of findings (see `adamerging_lib.doctor`) that name it rightly.
        why: why it may be missed, as far as that is known; empty where it never is.
    """

    told: str
    codes: tuple[str, ...]
    why: str = ""


FAULTS = {
    "untrained": Fault("an expert is the base itself", ("untrained",)),
    "rounded": Fault("an expert is the base, rounded to bfloat16", ("rounded", "still")),
    "random": Fault("an expert was never trained: random weights of the base's size", ("foreign",)),
    "half": Fault("an expert stopped half-way to its end", ("short", "still", "uneven"),
                  "Half as long as the others is what a lightly trained honest expert may be, and the line lies there; "
                  "of two, nobody can say which one is of the wrong length."),
    "quarter": Fault("an expert stopped a quarter of the way", ("short", "still", "uneven")),
    "unsure": Fault("an expert was trained on, against its certainty, to five times its entropy",
                    ("far", "short", "still", "uneven", "rewritten"),
                    "The push is a tenth of the task vector's length, more or less, in directions of its own: only "
                    "images show it."),
    "stretched_3": Fault("a task vector is stretched by three", ("far", "uneven")),
    "stretched_10": Fault("a task vector is stretched by ten", ("far", "uneven")),
    "twice": Fault("an expert is given under two names", ("same",)),
    "noisy_copy": Fault("a second copy of an expert, with noise of a third of its length", ("copy",)),
    "earlier_copy": Fault("two checkpoints of one training, at 70 and 100 % of the way", ("copy",)),
    "exchanged_names": Fault("two experts under each other's names", (),
                             "Names are nowhere in the weights, so nothing can be seen: only images tell."),
    "exchanged_base": Fault("an expert is given as the base, and the base as that expert", ("exchanged",)),
    "wrong_base": Fault("the base is another initialisation", ("foreign_base",)),
    "units": Fault("an expert has its hidden units in another order", ("foreign",)),
    "other_base": Fault("an expert was trained from another initialisation", ("foreign",)),
    "snapshot": Fault("an expert was trained from another snapshot of the base, three task vectors away",
                      ("far", "uneven", "rewritten", "foreign")),
    "int8": Fault("an expert is stored as 8-bit codes with scales", ("quantised",)),
    "from_4_bits": Fault("an expert was quantised to 4 bits and widened again", ("coarse",)),
    "cut": Fault("an expert's file is cut short", ("unreadable",)),
    "nan": Fault("an expert holds one NaN", ("not_finite",)),
}  # fmt: skip
"""Every fault that is injected, by its id."""

FACE = Face(
    question="Does the doctor find what is wrong with experts before they are merged, and leave honest ones alone?",
    factors={
        "kind": "`fault` (one injected), `clean` (none) or `merged` (accuracy after the merge)",
        "fault": "what was done to the set, one of `FAULTS`",
        "experts": "how many experts the set has",
    },
    measured={
        "hit": "1 where the fault was named, of the right expert",
        "blamed": "experts accused although nothing was done to them",
        "codes": "kinds of errors and warnings",
        "exit": "exit code",
    },
    tolerance={"accuracy": 1.0, "hit": 0, "blamed": 0, "exit": 0},
)
