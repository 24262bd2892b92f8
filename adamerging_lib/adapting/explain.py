"""What a fit learned, in words, as a table and as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .adapted import Adapted

EDGE = 1e-6
MOST = 60


@dataclass(frozen=True)
class Explanation:
    """What a fit learned; print it to read it.

    Arguments:
        text: in words.
        table: one row per task: coefficients (mean, least, most, where they began) and mean entropies before and after.
        coefficients: rows down, tasks across.
    """

    text: str
    table: pd.DataFrame
    coefficients: pd.DataFrame

    def __str__(self) -> str:
        return self.text

    def figure(self) -> Figure:
        """A heatmap of the coefficients, rows down and tasks across."""
        from matplotlib.figure import Figure

        values = self.coefficients
        height = min(12.0, 1.5 + 0.2 * len(values))
        figure = Figure(figsize=(3.5 + 0.6 * len(values.columns), height), layout="constrained")
        axes = figure.subplots()
        edge = max(0.5, float(values.abs().to_numpy().max()))
        image = axes.imshow(values, aspect="auto", interpolation="nearest", cmap="RdBu_r", vmin=-edge, vmax=edge)
        axes.set_xticks(range(len(values.columns)), values.columns, rotation=30, ha="right")
        step = -(-len(values) // MOST)
        axes.set_yticks(range(0, len(values), step), values.index[::step], fontsize=6)
        figure.colorbar(image, ax=axes, label="coefficient")
        return figure


def explained(fit: Adapted) -> Explanation:
    """Words, table and coefficients of a fit."""
    values, start = fit.coefficients.to_frame(), fit.trajectory[0].double()
    rows = []
    for k, task in enumerate(fit.tasks):
        own, seen = values[task], fit.confidence.get(task, {})
        rows.append(
            {
                "task": task, "coefficient": own.mean(), "least": own.min(), "most": own.max(),
                "began": float(start[k].mean()), **{f"entropy {name}": number for name, number in seen.items()},
            }
        )  # fmt: skip
    table = pd.DataFrame(rows).set_index("task")
    return Explanation(_words(fit, values, table), table, values)


def _words(fit: Adapted, values: pd.DataFrame, table: pd.DataFrame) -> str:
    steps = len(fit.trajectory) - 1
    lines = [
        f"{len(values) * len(fit.tasks)} coefficients of {len(fit.tasks)} tasks "
        f"({fit.coefficients.granularity}: {len(values)} per task), {steps} steps."
    ]
    for task, row in table.iterrows():
        moved = "above" if row["coefficient"] > row["began"] else "below"
        lines.append(
            f"  {task}: {row['coefficient']:.2f} on average ({row['least']:.2f} to {row['most']:.2f}), {moved} "
            f"{row['began']:.2f} where it began"
        )
    if fit.hyper.get("clamp") is True:
        edge = float(((values <= EDGE) | (values >= 1 - EDGE)).to_numpy().mean())
        lines.append(f"{edge:.0%} of the coefficients lie on a bound, 0 or 1.")
    if len(values) > 1:
        spread = values.std(axis=1).sort_values(ascending=False)
        named = ", ".join(f"{name} ({spread[name]:.2f})" for name in spread.index[:3])
        if len(fit.tasks) > 1:
            lines.append(f"Tasks differ most in: {named} (standard deviation over tasks).")
    return "\n".join(lines + _guard(fit) + _confidence(fit))


def _guard(fit: Adapted) -> list[str]:
    if fit.guard is None:
        return []
    kept, last = fit.guard[fit.guard["kept"]].iloc[0], fit.guard.iloc[-1]
    told = "by the experts' beliefs about inputs that were kept back"
    if kept["step"] == 0:
        return [f"The guard went back to the start: no state leads it clearly {told} (the last: {_lead(last)})."]
    where = "the last state" if kept["step"] == last["step"] else f"the state after {kept['step']} steps"
    return [f"The guard kept {where}: {_lead(kept)} above the start in expected accuracy, {told}."]


def _lead(row: pd.Series) -> str:
    return f"{100 * row['lead']:+.1f} ± {100 * row['error']:.1f} points"


def _confidence(fit: Adapted) -> list[str]:
    lines = []
    for word, sign in (("gain", 1), ("lose", -1)):
        found = [
            f"{task} ({seen['before']:.2f} to {seen['after']:.2f} of {seen['most']:.2f} nats)"
            for task, seen in fit.confidence.items()
            if sign * (seen["before"] - seen["after"]) > 0
        ]
        if found:
            lines.append(f"These {word} confidence, by the mean entropy of predictions: {'; '.join(found)}.")
    if lines:
        lines.append("Confidence is not accuracy: measure that with labels, am.evaluate(fit, data).")
    return lines
