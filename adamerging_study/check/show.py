"""Tables of the doctor's hits, misses and false alarms, and of merges with a stretched expert."""

from __future__ import annotations

import pandas as pd

from ..frames import AVERAGE, labels
from . import CLEAN, FAULTS, STRETCHED


def hits(rows: pd.DataFrame) -> pd.DataFrame:
    """Each fault: how often it was named, what was said, how many innocent experts were accused; misses explained."""
    faults, lines = rows[rows["kind"] == "fault"], []
    for fault, part in faults.groupby("fault", sort=False):
        about = FAULTS[str(fault)]
        missed = int((part["hit"] == 0).sum())
        said = ", ".join(dict.fromkeys(code for codes in part["codes"] for code in codes.split(", ") if code))
        lines.append({
            "what was done": about.told, "found": f"{int(part['hit'].sum())} of {len(part)}", "said": said or "nothing",
            "innocents accused": str(int(part["blamed"].sum())), "why it is missed": about.why if missed else "",
        })  # fmt: skip
    return pd.DataFrame(lines)


def alarms(rows: pd.DataFrame) -> pd.DataFrame:
    """Honest sets, by their number of experts: how many there were, and of how many the doctor warned."""
    clean = rows[rows["kind"] == "clean"].astype({"experts": int})
    frame = clean.groupby("experts")["exit"].agg(["count", lambda codes: int((codes > 0).sum())])
    frame.columns = ["honest sets", "false alarms"]
    frame.loc["all"] = frame.sum()
    return frame.rename_axis("experts").astype(int).reset_index()


def merges(rows: pd.DataFrame) -> pd.DataFrame:
    """Average accuracy (percent) of each method: all experts honest, and one stretched, mean over who it is."""
    part = rows[(rows["kind"] == "merged") & (rows["task"] == AVERAGE)]
    frame = part.groupby(["method", "fault"])["accuracy"].mean().unstack()[[CLEAN, STRETCHED]]
    frame["lost"] = frame[CLEAN] - frame[STRETCHED]
    frame = frame.sort_values(STRETCHED, ascending=False).rename(index=labels(rows))
    return frame.rename(columns={CLEAN: "all honest", STRETCHED: "one stretched by three"}).rename_axis(
        index=None, columns=None
    )
