"""Tables of the performance experiment: the paper's Tables 1, 2 and 5, and how far the methods are from the experts."""

from __future__ import annotations

import pandas as pd

from adamerging_lib.published import ARCHITECTURES, published

from .common import AVERAGE, BOUNDS, accuracies, averages, interval_half_widths, label, labelled, points


def sweep(rows: pd.DataFrame) -> pd.DataFrame:
    """Average accuracy over λ: ``method, scaling, accuracy``, sorted; a mean over seeds where there are several."""
    if "scaling" not in rows:
        return pd.DataFrame(columns=["method", "scaling", "accuracy"])
    points = rows[rows["scaling"].notna() & rows["condition"].str.startswith("lambda=") & (rows["task"] == AVERAGE)]
    return points.groupby(["method", "scaling"], sort=True, as_index=False)["accuracy"].mean()


def published_averages() -> pd.DataFrame:
    """Published average accuracies of Tables 1, 2 and 5: method ids × architectures as in prose."""
    rows = published("performance").query("task == @AVERAGE")
    frame = rows.pivot(index="method_id", columns="arch", values="accuracy")
    return frame[list(ARCHITECTURES)].rename(columns=ARCHITECTURES)


def published_performance(arch: str) -> pd.DataFrame:
    """The paper's Table 1, 2 or 5 as printed, averages included: methods × tasks, as text."""
    rows = published("performance", arch=arch)
    frame = rows.pivot_table(index="method", columns="task", values="accuracy", sort=False)
    frame.columns = pd.MultiIndex.from_product([[f"published, {ARCHITECTURES[arch]}"], frame.columns.tolist()])
    return frame.map("{:.1f}".format, na_action="ignore").rename_axis(index=None)


def performance(rows: pd.DataFrame) -> pd.DataFrame:
    """The paper's Tables 1, 2 and 5 as measured, the published averages beside them.

    Arguments:
        rows: rows of a performance record.

    Returns:
        Methods × (the average, "accuracy ± half a 95 % interval"; published averages of three architectures; the
        same interval task by task), as text. The interval is a bootstrap over test images; it says nothing about
        other seeds.
    """
    measured = accuracies(rows)
    half = interval_half_widths(rows).reindex_like(measured)
    cells = measured.map("{:.1f}".format) + " ± " + half.map("{:.1f}".format)
    theirs = published_averages().reindex(measured.index).map("{:.1f}".format, na_action="ignore")
    parts = {
        "average": cells[[AVERAGE]].rename(columns={AVERAGE: "measured"}),
        "average, published": theirs,
        "measured, by task": cells.drop(columns=AVERAGE),
    }
    return labelled(pd.concat(parts, axis="columns").rename_axis(columns=[None, None]))


def gap_to_experts(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every method minus that of the task's own expert, paired by task: method ids × tasks, in points."""
    frame = accuracies(rows)
    if "individual" not in frame.index:
        raise ValueError("the record has no rows of 'individual': run it too, the gap is measured against it")
    return frame.drop(index="individual") - frame.loc["individual"]


def ranking(rows: pd.DataFrame, arch: str = "ViT-B-32") -> pd.DataFrame:
    """Merging methods from best to worst: place, average, lead over the next, and the published place beside.

    Arguments:
        rows: rows of a performance record.
        arch: whose published averages order the last two columns.
    """
    ours = averages(rows).drop(index=list(BOUNDS), errors="ignore").sort_values(ascending=False, kind="stable")
    theirs = published_averages()[ARCHITECTURES[arch]].reindex(ours.index)
    frame = pd.DataFrame(
        {
            "place": range(1, len(ours) + 1),
            "average": ours.map("{:.1f}".format),
            "lead over the next": (ours - ours.shift(-1)).map("{:+.1f}".format, na_action="ignore"),
            "published place": theirs.rank(ascending=False, method="min").astype("Int64").astype("string"),
            f"published average, {ARCHITECTURES[arch]}": theirs.map("{:.1f}".format, na_action="ignore"),
        }
    )
    return labelled(frame)


def ranking_in_words(rows: pd.DataFrame, arch: str = "ViT-B-32") -> list[str]:
    """What the table shows, one sentence a line: best method, gains over Task Arithmetic and Ties at their best λ."""
    ours = averages(rows)
    merged = ours.drop(index=list(BOUNDS), errors="ignore")
    best = merged.idxmax()
    lines = [f"Best merged model: {label(best)}, {merged[best]:.1f} on average."]
    for bound in ("individual", "traditional_mtl"):
        if bound in ours:
            lines.append(f"It is {points(merged[best] - ours[bound])} {label(bound)} ({ours[bound]:.1f}).")
    theirs = published_averages()[ARCHITECTURES[arch]]
    for learned, base in {"layer_wise_adamerging": "task_arithmetic", "layer_wise_adamerging_pp": "ties"}.items():
        peak = best_scaling(rows, base)
        if learned in ours and peak is not None:
            scaling, accuracy = peak
            lines.append(
                f"{label(learned)} is {points(ours[learned] - accuracy)} {label(base)} at its best λ ({scaling:g}); "
                f"published, {ARCHITECTURES[arch]}: {points(theirs[learned] - theirs[base])} it."
            )
    return lines


def best_scaling(rows: pd.DataFrame, method: str) -> tuple[float, float] | None:
    """λ with the highest average accuracy in a method's sweep, and that accuracy; None without a sweep."""
    points = sweep(rows).query("method == @method")
    if points.empty:
        return None
    top = points.loc[points["accuracy"].idxmax()]
    return float(top["scaling"]), float(top["accuracy"])


def key_numbers(rows: pd.DataFrame) -> dict[str, float | str]:
    """The numbers of a performance record that prose quotes, percent or points with two digits.

    What was not run is left out.
    """
    ours = averages(rows)
    merged = ours.drop(index=list(BOUNDS), errors="ignore")
    peak = best_scaling(rows, "task_arithmetic")
    names = {
        "zero_shot_average": "zero_shot",
        "individual_average": "individual",
        "mtl_average": "traditional_mtl",
        "ta_average": "task_arithmetic",
        "ties_average": "ties",
        "lw_average": "layer_wise_adamerging",
        "lwpp_average": "layer_wise_adamerging_pp",
    }
    numbers = {key: float(ours[method]) for key, method in names.items() if method in ours}
    if {"lw_average", "ta_average"} <= set(numbers):
        numbers["gain_lw_over_ta"] = numbers["lw_average"] - numbers["ta_average"]
    if peak and "lw_average" in numbers:
        numbers |= {"best_scaling_ta": peak[0], "gain_lw_over_best_ta": numbers["lw_average"] - peak[1]}
    best = {"best_method": label(merged.idxmax()), "best_average": round(float(merged.max()), 2)} if len(merged) else {}
    return {**best, **{key: round(number, 2) for key, number in numbers.items()}}
