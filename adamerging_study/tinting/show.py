"""Tables and figures of the study of Tinting: the pilot, what is learned, and what the filter keeps."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from adamerging_lib.layers import RESBLOCKS

from ..frames import AVERAGE, half_width, labelled
from ..sample import Sample
from ..style import WIDTH, colour, styled
from . import PILOT, VARIANTS

TINT = "#7A3FA0"


def average(rows: pd.DataFrame, method: str, variant: str | None = None, setting: str = "transductive") -> float:
    """Average accuracy (percent) of one variant in one setting, of the method itself by default; NaN if not run.

    A mean over seeds where there are several.
    """
    wanted = rows["variant"].isna() if variant is None else rows["variant"] == variant
    own = rows[(rows["method"] == method) & wanted & (rows["task"] == AVERAGE) & (rows["setting"] == setting)]
    return float(own["accuracy"].mean()) if len(own) else float("nan")


LEARNED: dict[str, tuple[str, str | None]] = {
    "nothing (Task Arithmetic)": ("task_arithmetic", None),
    "λ, by entropy (layer-wise AdaMerging)": ("layer_wise_adamerging", None),
    "λ and head (Tint)": ("tint", None),
    **{title: ("tint", variant) for variant, (title, _) in VARIANTS.items()},
    "λ and head, confidence filter (Tint++)": ("tint_pp", None),
    "the experts themselves": ("individual", None),
}
"""What is learned, in words → method and variant, from nothing to the experts."""


def variants(rows: pd.DataFrame) -> pd.Series:
    """What is learned, in words → average accuracy (percent), in the order of `LEARNED`."""
    found = {title: average(rows, *which) for title, which in LEARNED.items()}
    return pd.Series(found).rename_axis("what is learned")


def variants_half_widths(rows: pd.DataFrame) -> pd.Series:
    """What is learned, in words → half a 95 % interval (points) of its average, as in `frames.half_width`."""
    sample, halves = Sample(rows, where={"setting": "transductive"}), {}
    for title, (method, variant) in LEARNED.items():
        own = sample.rows(method=method, variant=variant)
        tasks = own[own["task"] != AVERAGE].groupby("task", as_index=False)[["accuracy", "n"]].mean()
        drawn = sample.average(method, variant=variant)
        halves[title] = half_width(drawn, tasks.to_dict("records")) if len(tasks) else float("nan")
    return pd.Series(halves)


def variants_text(rows: pd.DataFrame) -> pd.DataFrame:
    """The same as text, with the gain over Task Arithmetic (points)."""
    found = variants(rows)
    gain = found - average(rows, "task_arithmetic")
    return pd.DataFrame({"average accuracy": found.map("{:.1f}".format), "gain": gain.map("{:+.1f}".format)})


def pilot(rows: pd.DataFrame) -> pd.Series:
    """Average accuracy by the layer tinted alone, in the record's order."""
    own = rows[(rows["variant"] == PILOT) & (rows["task"] == AVERAGE)]
    return own.groupby("layer", sort=False)["accuracy"].mean()


def settings(rows: pd.DataFrame) -> pd.DataFrame:
    """Average accuracy on the images adapted on, and on images held out, by method, as text."""
    methods = ["task_arithmetic", "layer_wise_adamerging", "tint", "tint_pp", "individual"]
    titles = {
        "transductive": "adapted and measured on all images",
        "inductive": "adapted on one half, measured on the other",
    }
    columns = {title: [average(rows, m, setting=setting) for m in methods] for setting, title in titles.items()}
    return labelled(pd.DataFrame(columns, index=methods).map("{:.1f}".format), rows)


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


@styled
def single_layers(rows: pd.DataFrame) -> Figure:
    """Average accuracy by the one layer that is tinted, λ left at its start; levels of Task Arithmetic and experts."""
    bars = pilot(rows)[::-1]
    figure, axes = plt.subplots(figsize=(WIDTH, 0.34 * len(bars) + 1.1))
    axes.barh([_layer_name(name) for name in bars.index], bars, color=TINT)
    for method, name in (("task_arithmetic", "no layer"), ("individual", "experts")):
        level = average(rows, method)
        axes.axvline(level, color=colour(method), ls="--", lw=1.2)
        axes.text(level, 1.01, name, ha="center", va="bottom", fontsize=9, color=colour(method),
                  transform=axes.get_xaxis_transform())  # fmt: skip
    for place, value in enumerate(bars):
        axes.text(value - 0.6, place, f"{value:.1f}", va="center", ha="right", color="white", fontsize=9)
    axes.set_xlabel("average accuracy (%), one layer per task learned, λ = 0.3")
    return figure


@styled
def what_is_learned(rows: pd.DataFrame) -> Figure:
    """Average accuracy by what is learned, with 95 % intervals."""
    values, half = variants(rows)[::-1], variants_half_widths(rows)[::-1]
    figure, axes = plt.subplots(figsize=(WIDTH, 0.36 * len(values) + 0.7))
    axes.barh(range(len(values)), values, color="#9DB7CE")
    axes.errorbar(values, range(len(values)), xerr=half, fmt="none", color="#222222", lw=1.2, capsize=2.5)
    axes.set_yticks(range(len(values)), [name.replace(", ", ",\n", 1) for name in values.index], fontsize=9)
    for place, value in enumerate(values):
        axes.text(1, place, f"{value:.1f}", va="center", ha="left", fontsize=9)
    axes.set_xlabel("average accuracy (%)")
    return figure


@styled
def filtering(rows: pd.DataFrame) -> Figure:
    """Share of the images that Tint++ keeps, and where both models agree, over the rounds, with the first seed."""
    figure, axes = plt.subplots(figsize=(WIDTH, 3.0))
    for quantity, style, title in (("kept", "-", "kept"), ("agreement", "--", "both models agree")):
        line = rows[rows["quantity"] == quantity].groupby("epoch")["value"].mean()
        axes.plot(line.index, line, style, color=TINT, label=title)
    axes.set(xlabel="rounds over the tasks", ylabel="share of the images (%)", ylim=(None, 101))
    axes.legend(frameon=False, loc="lower right")
    return figure


def _layer_name(layer: str) -> str:
    """What a reader calls a layer: ``…resblocks.5.mlp.c_proj`` is "block 5, MLP out"."""
    block, _, inside = layer.removeprefix(RESBLOCKS).partition(".")
    if not layer.startswith(RESBLOCKS):
        return {"proj": "projection"}.get(layer, layer)
    return f"block {block}, {'MLP out' if inside == 'mlp.c_proj' else inside}"
