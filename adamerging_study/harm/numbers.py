"""How far each case ends from its start, with the guard and without, and the worst of them."""

from __future__ import annotations

from functools import reduce
from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu

from ..frames import AVERAGE
from ..sample import Sample, ratio
from . import KEPT, LAST, METHOD, OBJECTIVES, OTHERS, RECIPE, START

CLEAN = "clean"
HARM = 0.5
"""Points below the start that count as harm."""
NAMED = ("clean", "batch_1", "skew_0_1", "sorted", "stretched_3", "other_base", "untrained", "unsure")
"""Situations that numbers have names for, beside those of the run."""
SIGNS = {"beliefs": 1, "agreement": 1, "variety": 1, "entropy": -1, "drift": -1}
"""Statistic → 1 where a rise speaks for a state, -1 where a fall does."""
VETOING = ("beliefs", *OTHERS)
"""Those that have a natural threshold: the start's own value."""


def numbers(sample: Sample) -> dict[str, np.ndarray]:
    """Points above the start, on other images, unless said otherwise; dots in names of situations become underscores.

    ``SITUATION_OBJECTIVE_last`` and ``_kept`` (by the guard); ``diverse_over_entropy_SITUATION`` and
    ``prior_over_diverse_SITUATION`` without the guard;
    ``worst_OBJECTIVE_last`` and ``_kept`` over all situations, ``worst_last`` and ``worst_kept`` over all cases;
    ``share_kept_OBJECTIVE``, percent of the clean gain that the guard keeps; ``cases``, and how many of them end more
    than half a point below their start, ``harmed_last`` and ``harmed_kept``, of one objective
    ``harmed_last_OBJECTIVE`` and ``harmed_kept_OBJECTIVE``; ``fits``, one per case and seed, how many of these do,
    ``fits_harmed_last`` and ``fits_harmed_kept``, and the worst of them, ``fits_worst_last`` and ``fits_worst_kept``.

    Of statistics that need no label (`SIGNS`), over the fits whose rows have them: ``compared``, how many these are,
    and ``compared_harmed``; ``auc_STATISTIC``, the share of pairs of a fit that ended in harm and one that did not in
    which the change from start to last state speaks less for the former, ties by half; ``veto_STATISTIC_harmed`` and
    ``veto_STATISTIC_share`` (percent), fits that end in harm and the share of the sum of gains that is kept where the
    last state is kept if the statistic does not speak against it, else the start; with ``both`` for beliefs and variety
    together, and of the gains of one objective ``veto_STATISTIC_share_OBJECTIVE``.

    The recommended recipe stands in the place of an objective in names that end in one or have one in them; it counts
    in none of the others, but in ``cases_recipe``, ``fits_recipe``, ``fits_harmed_STATE_recipe`` and
    ``fits_worst_STATE_recipe``.
    """
    points = gains(sample)
    points = {(situation.replace(".", "_"), *rest): gain for (situation, *rest), gain in points.items()}
    situations = list(dict.fromkeys([*NAMED, *(situation for situation, *_ in points)]))
    nan = sample.point(np.nan)
    cases = list(product(situations, (*OBJECTIVES, RECIPE), (LAST, KEPT)))
    found = {"_".join(case): points.get(case, nan) for case in cases}
    for situation in situations:
        step = found[f"{situation}_diverse_{LAST}"] - found[f"{situation}_entropy_{LAST}"]
        found[f"diverse_over_entropy_{situation}"] = step
        step = found[f"{situation}_prior_{LAST}"] - found[f"{situation}_diverse_{LAST}"]
        found[f"prior_over_diverse_{situation}"] = step
    for objective in (*OBJECTIVES, RECIPE):
        share = ratio(found[f"{CLEAN}_{objective}_{KEPT}"], found[f"{CLEAN}_{objective}_{LAST}"])
        found[f"share_kept_{objective}"] = 100 * share
    for state in (LAST, KEPT):
        for group in (OBJECTIVES, *([objective] for objective in (*OBJECTIVES, RECIPE))):
            own = [gain for (_, objective, of), gain in points.items() if of == state and objective in group]
            of = "" if group is OBJECTIVES else f"_{group[0]}"
            found[f"worst{of}_{state}"] = reduce(np.minimum, own) if own else nan
            found[f"harmed_{state}{of}"] = sample.point(sum(gain[0] < -HARM for gain in own))
    own = [objective == RECIPE for _, objective, state in points if state == LAST]
    found |= {"cases": sample.point(len(own) - sum(own)), f"cases_{RECIPE}": sample.point(sum(own))}
    return found | _single(sample) | _statistics(sample)


def _single(sample: Sample) -> dict[str, np.ndarray]:
    """Of single fits, by their average rows: how many, how many end in harm, and the worst."""
    all_rows = sample.frame[(sample.frame["method"] == METHOD) & (sample.frame["task"] == AVERAGE)]
    case, recipe, found = ["situation", "seed"], all_rows["objective"] == RECIPE, {}
    for of, rows in {"": all_rows[~recipe], f"_{RECIPE}": all_rows[recipe]}.items():
        start = rows[rows["state"] == START].set_index(case)["accuracy"]
        found[f"fits{of}"] = sample.point((rows["state"] == LAST).sum())
        for state in (LAST, KEPT):
            lead = rows[rows["state"] == state].set_index(case)["accuracy"].sub(start)
            found[f"fits_harmed_{state}{of}"] = sample.point((lead < -HARM).sum())
            found[f"fits_worst_{state}{of}"] = sample.point(lead.min())
    return found


def leads(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per case and seed: ``real`` lead of the last state over the start, points, and what `SIGNS` lists.

    Of each statistic the change from start to last state; ``beliefs`` are the lead that the guard expected, in points.
    Missing where a row was kept before they were measured. Without the recommended recipe, whose coefficients move on
    another scale.
    """
    own, case = rows[(rows["method"] == METHOD) & (rows["task"] == AVERAGE)], ["situation", "seed"]
    own = own[own["objective"] != RECIPE]
    changes = {"accuracy": "real", **{f"watched_{name}": name for name in OTHERS}}
    known = {"expected_lead": "beliefs", "drift": "drift"}  # told as changes
    own = own.reindex(columns=[*case, "objective", "state", *changes, *known]).rename(columns=changes | known)
    first = own[own["state"] == START].set_index(case)[[*changes.values()]]
    last = own[own["state"] == LAST].set_index([*case, "objective"])
    last[first.columns] -= first.reindex(last.index.droplevel("objective")).to_numpy()
    return last.drop(columns="state").reset_index()


def auc(score: np.ndarray, harmed: np.ndarray) -> float:
    """Share of pairs (harmed, not) in which the harmed one has the lower score, ties by half; NaN without pairs."""
    worse, rest = score[harmed], score[~harmed]
    pairs = len(worse) * len(rest)
    return float(mannwhitneyu(rest, worse).statistic) / pairs if pairs else float("nan")


def _statistics(sample: Sample) -> dict[str, np.ndarray]:
    frame = leads(sample.frame).dropna(subset=[*SIGNS])
    real, harmed = frame["real"].to_numpy(), frame["real"].to_numpy() < -HARM
    found = {"compared": len(frame), "compared_harmed": harmed.sum()}
    speaks = {name: sign * frame[name].to_numpy() for name, sign in SIGNS.items()}
    found |= {f"auc_{name}": auc(score, harmed) for name, score in speaks.items()}
    rules = {name: speaks[name] >= 0 for name in VETOING}
    rules["both"] = rules["beliefs"] & rules["variety"]
    gains, objective = real.clip(min=0), frame["objective"].to_numpy()
    groups = {"": np.ones(len(frame), bool), **{f"_{name}": objective == name for name in OBJECTIVES}}
    for name, kept in rules.items():
        found[f"veto_{name}_harmed"] = (harmed & kept).sum() if len(frame) else np.nan
        for group, own in groups.items():
            gained = gains[own].sum()
            found[f"veto_{name}_share{group}"] = 100 * gains[own & kept].sum() / gained if gained else np.nan
    found["auc_agreement_over_beliefs"] = found["auc_agreement"] - found["auc_beliefs"]
    return {name: sample.point(value) for name, value in found.items()}


def gains(sample: Sample) -> dict[tuple[str, str, str], np.ndarray]:
    """(situation, objective, state) → points above the start."""
    rows = sample.frame[(sample.frame["method"] == METHOD) & (sample.frame["task"] == AVERAGE)]
    found = {}
    rows = rows[rows["state"] == LAST]
    for situation, objective in dict.fromkeys(zip(rows["situation"], rows["objective"], strict=True)):
        about = {"situation": situation, "setting": "inductive", "condition": ...}
        start = sample.average(METHOD, state=START, objective=RECIPE if objective == RECIPE else None, **about)
        for state in (LAST, KEPT):
            end = sample.average(METHOD, state=state, objective=objective, **about)
            found[situation, objective, state] = end - start
    return found
