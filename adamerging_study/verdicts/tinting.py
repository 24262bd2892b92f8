"""What the Model Tinting paper says, as verdicts over the tinting record."""

from __future__ import annotations

import pandas as pd

from ..tables.tinting import average, kept, pilot
from .common import Verdict


def tinting(rows: pd.DataFrame) -> list[Verdict]:
    """One layer is worth much, both together more, the filter a little; and what held-out images say."""
    start, both, adapted = (average(rows, m) for m in ("task_arithmetic", "tint", "layer_wise_adamerging"))
    alone = {name: average(rows, "tint", name) for name in ("coefficients only", "layer only")}
    held = average(rows, "tint", setting="inductive")
    fair = held - average(rows, "layer_wise_adamerging", setting="inductive")
    layers, shares = pilot(rows), kept(rows)
    telling = (shares["right if kept"] - shares["right if dropped"]).mean()
    return [
        Verdict("A head alone lifts the merged model by at least 5 points", alone["layer only"] - start, 5),
        Verdict("The best single layer is the head", layers.get("head", float("nan")) - layers.max(), 0),
        Verdict("λ and head together beat λ alone", both - alone["coefficients only"], 0),
        Verdict("λ and head together beat the head alone", both - alone["layer only"], 0),
        Verdict("The confidence filter helps (Tint++ ≥ Tint)", average(rows, "tint_pp") - both, 0),
        Verdict("Tinting beats layer-wise AdaMerging by at least 5 points", both - adapted, 5),
        Verdict("It comes within 3 points of the experts", average(rows, "individual") - both, high=3),
        Verdict("Soft labels are at least as good", average(rows, "tint", "soft labels") - both, 0),
        Verdict("On held-out images too it beats AdaMerging by at least 5 points", fair, 5),
        Verdict("Held-out images lose at most 3 points against those adapted on", both - held, high=3),
        Verdict("Where the filter drops an image, the expert is wrong more often", telling, 0),
    ]
