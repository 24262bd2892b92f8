"""Tables of the leaderboard: methods compete only with those that need the same and come out as the same kind.

Rows are those of a performance record (see `common`); the row ``Average`` also tells ``seconds``, ``memory`` (bytes)
and ``storage`` (numbers of 32 bits a task).
"""

from __future__ import annotations

import pandas as pd

from adamerging_lib.methods import methods
from adamerging_lib.methods.registry import NEEDS
from adamerging_lib.published import ARCHITECTURES, POOLS, leaderboard, pool_averages

from ..display import Table
from .common import AVERAGE, BOUNDS, accuracies, average_half_widths, averages, headline, label, labelled, points

ONE, PARTS = "one model for all tasks", "parts for each task"
REFERENCE = "reference points"
_IN_WORDS = {"nothing": "checkpoints alone", "labels": "labelled images"}


def kind(method: str) -> str:
    """Whether a method gives one model for all tasks and images, or keeps or computes parts of it for each."""
    row = methods().loc[method]
    return ONE if row["static"] and row["task_specific"] == "nothing" else PARTS


def group(method: str) -> str:
    """The competition that a method is in: what it needs, and what kind of model comes out."""
    if method in BOUNDS:
        return REFERENCE
    needs = methods().loc[method, "needs"]
    return _name(needs, kind(method))


def group_names() -> list[str]:
    """All groups that a method may be in, from little that is needed to much; reference points first."""
    return [REFERENCE, *(_name(needs, kind) for needs in NEEDS for kind in (ONE, PARTS))]


def _name(needs: str, kind: str) -> str:
    return f"from {_IN_WORDS.get(needs, needs)}, {kind}"


def standings(rows: pd.DataFrame) -> pd.DataFrame:
    """The leaderboard as numbers, a mean over seeds where there are several.

    Arguments:
        rows: rows of a leaderboard record.

    Returns:
        Method ids × ``group, needs, kind, average`` (percent), ``normalised`` (mean over tasks of accuracy by the
        task's own expert, percent; missing where experts were not run), ``seconds, memory`` (MB), ``storage``; by
        group, best first.
    """
    single = accuracies(rows).drop(columns=AVERAGE)
    costs = headline(rows).query("task == @AVERAGE").groupby("method", sort=False)
    costs = costs[["seconds", "memory", "storage"]].mean()
    frame = pd.DataFrame({"group": {method: group(method) for method in single.index}})
    frame["needs"] = methods()["needs"].reindex(frame.index)
    frame["kind"] = frame.index.map(kind)
    frame["average"] = averages(rows)
    experts = single.loc["individual"] if "individual" in single.index else float("nan")
    frame["normalised"] = 100 * (single / experts).mean(axis=1)
    frame["seconds"], frame["memory"], frame["storage"] = costs["seconds"], costs["memory"] / 1e6, costs["storage"]
    frame["group"] = pd.Categorical(frame["group"], group_names(), ordered=True)
    return frame.sort_values(["group", "average"], ascending=[True, False], kind="stable").rename_axis("method")


def by_group(rows: pd.DataFrame, pool: str = "P1") -> list[Table]:
    """One table a group, best method first, published averages of one checkpoint pool beside.

    Arguments:
        rows: rows of a leaderboard record.
        pool: ``P1``, ``P2`` or ``P3``.
    """
    frame, half = standings(rows), average_half_widths(rows)
    theirs = pool_averages(pool).reindex(frame.index)
    measured = pd.DataFrame(
        {
            "average": frame["average"].map("{:.1f}".format) + " ± " + half.map("{:.1f}".format),
            "of experts, %": _text(frame["normalised"], ".1f"),
            "seconds": _text(frame["seconds"], ".2g", whole_from=10),
            "MB": _text(frame["memory"], ".0f"),
            "numbers kept a task": _text(frame["storage"], ",.0f"),
        }
    )
    # What a reference point costs is training, which nobody does here.
    measured.loc[frame["group"] == REFERENCE, ["seconds", "MB"]] = None
    parts = {"measured": measured, f"published, {pool}": theirs.map(_as_printed, na_action="ignore")}
    shown = pd.concat(parts, axis="columns").rename_axis(columns=[None, None])
    return [
        Table(labelled(shown.loc[part.index]), f"{name[:1].upper()}{name[1:]}")
        for name, part in frame.groupby("group", observed=True, sort=True)
    ]


def by_task(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy (percent) of every method on every task, in the order of the standings, as text."""
    frame = accuracies(rows).loc[standings(rows).index]
    return labelled(frame.map("{:.1f}".format)).rename_axis(columns=None)


def published_beside(rows: pd.DataFrame, pool: str = "P1") -> pd.DataFrame:
    """Everything published of one checkpoint pool, our own average beside where we have run the method.

    Arguments:
        rows: rows of a leaderboard record.
        pool: ``P1``, ``P2`` or ``P3``.

    Returns:
        One line a published method and source: needs as published, averages of three architectures, the measured one
        (for the first source of a method), source.
    """
    keys = ["method", "method_id", "needs", "source"]
    frame = leaderboard(pool).pivot(index=keys, columns="arch", values="accuracy")
    order = leaderboard(pool)[keys].drop_duplicates()
    frame = frame.reindex(columns=list(ARCHITECTURES)).loc[pd.MultiIndex.from_frame(order)].reset_index()
    ours = averages(rows).map("{:.1f}".format)
    first = ~frame["method_id"].duplicated()
    frame["measured"] = frame["method_id"].where(first).map(ours)
    for arch, name in ARCHITECTURES.items():
        frame[f"published, {name}"] = frame[arch].map(_as_printed, na_action="ignore")
    frame["published needs"] = frame["needs"].replace("", "–")
    columns = [f"published, {name}" for name in ARCHITECTURES.values()]
    return frame[["method", "measured", *columns, "published needs", "source"]].set_index("method").rename_axis(None)


def in_words(rows: pd.DataFrame) -> list[str]:
    """What the tables show, one sentence a group of two or more: the winner, its lead, how near to the experts."""
    frame, lines = standings(rows), []
    for name, part in frame.groupby("group", observed=True, sort=True):
        if name == REFERENCE or len(part) < 2:
            continue
        best, second = part.iloc[0], part.iloc[1]
        share = "" if pd.isna(best["normalised"]) else f", {best['normalised']:.1f} % of the experts"
        lines.append(
            f"{name[:1].upper()}{name[1:]}: {label(best.name)} leads with {best['average']:.1f}{share}, "
            f"{points(best['average'] - second['average'])} {label(second.name)}; {len(part)} methods."
        )
    return lines


def slow(rows: pd.DataFrame, seconds: float) -> list[str]:
    """Methods that took longer than so many seconds, slowest first, as sentences."""
    frame = standings(rows).sort_values("seconds", ascending=False, kind="stable")
    slow = frame[frame["seconds"] > seconds]
    return [f"{label(method)}: {row['seconds']:.0f} s" for method, row in slow.iterrows()] or ["none"]


def numbers(rows: pd.DataFrame) -> dict[str, float | str | int]:
    """The numbers of a leaderboard record that prose quotes: of each group its best method and average."""
    frame = standings(rows)
    found: dict[str, float | str | int] = {"methods": int((frame["group"] != REFERENCE).sum())}
    for needs in NEEDS:
        for short, wanted in (("one", ONE), ("parts", PARTS)):
            part = frame[(frame["group"] != REFERENCE) & (frame["needs"] == needs) & (frame["kind"] == wanted)]
            if len(part):
                key, average = f"{needs.replace(' ', '_')}_{short}", float(part["average"].iloc[0])
                found |= {f"{key}_best": label(part.index[0]), f"{key}_average": round(average, 2)}
    return found


def pool_caption(pool: str) -> str:
    """Which experts the published numbers belong to."""
    return f"Published averages: pool {pool}, {POOLS[pool]}; over the paper's own eight tasks."


def _text(values, spec: str, whole_from: float = float("inf")):
    """Numbers as text, missing ones left missing; from ``whole_from`` on without digits after the point."""
    return values.map(lambda v: f"{v:.0f}" if abs(v) >= whole_from else format(v, spec), na_action="ignore")


def _as_printed(value: float) -> str:
    """Two digits after the point where two were printed."""
    return f"{value:.2f}".removesuffix("0")


def order_in_words(rows: pd.DataFrame, pool: str, arch: str) -> list[str]:
    """How far the order of merging methods is the published one: rank correlation over those that have both numbers.

    Arguments:
        rows: rows of a leaderboard record.
        pool: ``P1``, ``P2`` or ``P3``.
        arch: ``ViT-B-32``, ``ViT-B-16`` or ``ViT-L-14``.
    """
    theirs = pool_averages(pool)[ARCHITECTURES[arch]]
    both = pd.concat([averages(rows).drop(index=list(BOUNDS), errors="ignore"), theirs], axis=1, join="inner").dropna()
    where = f"published for {ARCHITECTURES[arch]} in pool {pool}"
    if len(both) < 3:
        return [f"Fewer than three of the merging methods run here have an average {where}."]
    rho = both.iloc[:, 0].corr(both.iloc[:, 1], method="spearman")
    return [f"{len(both)} merging methods have an average {where}; rank correlation with the order here: {rho:.2f}."]
