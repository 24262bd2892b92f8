"""What the study of Tinting found, by name: averages of methods and variants, and what each part does."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np

from ..sample import Sample
from . import PILOT

METHODS = {
    "ta": "task_arithmetic", "individual": "individual", "lw": "layer_wise_adamerging", "tint": "tint",
    "tint_pp": "tint_pp",
}  # fmt: skip
"""How the names of numbers call a method."""
TINTED = {"lambda": "coefficients only", "head": "layer only", "soft": "soft labels", "surest": "surest half"}
"""How they call a variant of `tint`."""
PAIRS = (
    ("lambda", "ta"), ("head", "ta"), ("lw", "ta"), ("tint", "ta"), ("tint", "lambda"), ("tint", "head"),
    ("tint", "lw"), ("soft", "tint"), ("tint_pp", "tint"), ("tint_pp", "lw"), ("tint_pp", "individual"),
)  # fmt: skip


def numbers(sample: Sample) -> dict[str, np.ndarray]:
    """``A_average`` (percent) and ``A_over_B`` (points), as `METHODS` and `TINTED` call them; and what stands alone.

    ``held_out_tint_over_lw`` and ``held_out_loss`` are of images that were not adapted on; ``head_over_other_layers``
    is the pilot's lead of the head over the best other layer; ``expert_right_if_kept_over_dropped`` is the mean over
    tasks with dropped images; ``share_kept`` is percent of the encoder per task.
    """
    at = {short: sample.average(method) for short, method in METHODS.items()}
    at |= {short: sample.average("tint", variant=variant) for short, variant in TINTED.items()}
    found = {f"{short}_average": values for short, values in at.items()}
    found |= {f"{high}_over_{low}": at[high] - at[low] for high, low in PAIRS}
    held = sample.average("tint", setting="inductive")
    found["held_out_tint_over_lw"] = held - sample.average(METHODS["lw"], setting="inductive")
    found["held_out_loss"] = at["tint"] - held
    pilot = sample.each("accuracy", by="layer", method="tint", variant=PILOT)
    head, nothing = pilot.pop("head", sample.point(np.nan)), sample.point(np.nan)
    found["head_over_other_layers"] = head - reduce(np.maximum, pilot.values()) if pilot else nothing
    found["expert_right_if_kept_over_dropped"] = sample.point(_telling(sample))
    found["share_kept"] = sample.value("value", quantity="share of the encoder", condition=None)
    return found


def _telling(sample: Sample) -> float:
    """How much more often experts are right on images that the filter keeps, points."""
    kept, dropped = (
        sample.each("value", by="task", quantity=f"right if {which}", condition=None) for which in ("kept", "dropped")
    )
    gaps = [kept[task][0] - dropped[task][0] for task in kept if task in dropped]
    gaps = [gap for gap in gaps if not math.isnan(gap)]
    return float(np.mean(gaps)) if gaps else math.nan
