"""How many faults were found, how often the innocent were accused, and what a stretched expert costs a merge."""

from __future__ import annotations

import numpy as np

from ..sample import Sample
from . import CLEAN, FAULTS, STRETCHED


def numbers(sample: Sample) -> dict[str, np.ndarray]:
    """Counts, shares (percent), and accuracies of merges (percent) with their differences (points).

    ``faults`` (kinds), ``tried`` and ``found`` (sets with a fault), ``found_share``, ``visible_share`` (except for
    faults that weights cannot show), ``always_found`` and ``never_found`` (kinds), ``blamed`` (experts accused in these
    sets although nothing was done to them), ``clean_sets``, ``false_alarms`` (of them) and their share;
    ``FAULT_found``; ``METHOD_clean``, ``METHOD_stretched`` and ``METHOD_lost`` of every method measured,
    and ``ties_beyond_wudi`` where one is stretched.
    """
    faults = sample.rows(method="check", kind="fault", fault=..., experts=..., condition=None)
    clean = sample.rows(method="check", kind="clean", experts=..., condition=None)
    by_fault = faults.groupby("fault")["hit"]
    visible = faults[[bool(FAULTS[fault].codes) for fault in faults["fault"]]]
    alarms = (clean["exit"] > 0).sum()
    found = {
        "faults": faults["fault"].nunique(), "tried": len(faults), "found": faults["hit"].sum(),
        "found_share": 100 * faults["hit"].mean(), "visible_share": 100 * visible["hit"].mean(),
        "always_found": (by_fault.min() == 1).sum(), "never_found": (by_fault.max() == 0).sum(),
        "blamed": faults["blamed"].sum(), "clean_sets": len(clean), "false_alarms": alarms,
        "false_alarm_share": 100 * alarms / max(1, len(clean)),
    }  # fmt: skip
    found |= {f"{fault}_found": hits for fault, hits in by_fault.sum().items()}
    values = {name: sample.point(float(value)) for name, value in found.items()}
    for method in sample.rows(kind="merged", fault=CLEAN)["method"].unique():
        at = {case: sample.average(method, kind="merged", fault=case) for case in (CLEAN, STRETCHED)}
        values |= {f"{method}_clean": at[CLEAN], f"{method}_stretched": at[STRETCHED]}
        values[f"{method}_lost"] = at[CLEAN] - at[STRETCHED]
    none = sample.point(np.nan)
    values["ties_beyond_wudi"] = values.get("ties_stretched", none) - values.get("wudi_stretched", none)
    return {"wudi_lost": none, **values}
