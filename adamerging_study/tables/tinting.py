"""Tables of the tinting experiment, from its rows."""

from __future__ import annotations

import pandas as pd

from .common import AVERAGE, label

VARIANTS = {
    "clean": "λ and head (Tint)",
    "coefficients only": "λ alone",
    "layer only": "head alone",
    "soft labels": "λ and head, soft labels",
    "surest half": "λ and head, surest half of each batch",
}


def average(rows: pd.DataFrame, method: str, condition: str = "clean", setting: str = "transductive") -> float:
    """Average accuracy (percent) of one variant in one setting; NaN where it was not run."""
    own = rows[(rows["method"] == method) & (rows["condition"] == condition) & (rows["task"] == AVERAGE)]
    own = own[own["setting"] == setting]
    return float(own["accuracy"].mean()) if len(own) else float("nan")


def variants(rows: pd.DataFrame) -> pd.DataFrame:
    """What is learned, its average accuracy, and what it gains over Task Arithmetic, as text."""
    start = average(rows, "task_arithmetic")
    found = {
        "nothing (Task Arithmetic)": start,
        "λ, by entropy (layer-wise AdaMerging)": average(rows, "layer_wise_adamerging"),
    }
    found |= {title: average(rows, "tint", condition) for condition, title in VARIANTS.items()}
    found["λ and head, confidence filter (Tint++)"] = average(rows, "tint_pp")
    found["the experts themselves"] = average(rows, "individual")
    frame = pd.DataFrame({"average accuracy": found, "gain": {k: v - start for k, v in found.items()}})
    frame["average accuracy"] = frame["average accuracy"].map("{:.1f}".format)
    frame["gain"] = frame["gain"].map("{:+.1f}".format)
    return frame.rename_axis(index="what is learned")


def pilot(rows: pd.DataFrame) -> pd.Series:
    """Average accuracy by the layer tinted alone, in the record's order."""
    own = rows[(rows["condition"] == "pilot") & (rows["task"] == AVERAGE)]
    return own.set_index("layer")["accuracy"]


def settings(rows: pd.DataFrame) -> pd.DataFrame:
    """Average accuracy on the images adapted on, and on images held out, by method, as text."""
    methods = ["task_arithmetic", "layer_wise_adamerging", "tint", "tint_pp", "individual"]
    lines = {
        label(m): [average(rows, m, setting="transductive"), average(rows, m, setting="inductive")] for m in methods
    }
    frame = pd.DataFrame(
        lines, index=["adapted and measured on all images", "adapted on one half, measured on the other"]
    )
    return frame.T.map("{:.1f}".format)


def kept(rows: pd.DataFrame) -> pd.DataFrame:
    """Share of the images that the filter keeps in the end, how often the expert is right there: tasks × quantities."""
    own = rows[rows["quantity"].isin(["kept in the end", "right if kept", "right if dropped"])]
    frame = own.pivot_table(index="task", columns="quantity", values="value", sort=False)
    for quantity in ("right if kept", "right if dropped"):
        if quantity not in frame:
            frame[quantity] = float("nan")
    return frame[["kept in the end", "right if kept", "right if dropped"]]


def kept_text(rows: pd.DataFrame) -> pd.DataFrame:
    """The same as text, percent."""
    return kept(rows).map("{:.1f}".format, na_action="ignore").rename_axis(columns=None)
