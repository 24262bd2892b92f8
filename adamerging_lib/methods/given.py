"""Merging with coefficients that exist already, such as those that AdaMerging's authors released."""

from __future__ import annotations

from dataclasses import replace

from ..coefficients import Coefficients
from ..layers import TEXT_AFTER, TEXT_BEFORE, VISUAL
from ..merged import Merged
from ..task_vectors import TaskVectors


def merge_with(tv: TaskVectors, coefficients: Coefficients) -> Merged:
    """Merge with given coefficients: θ^l = θ0^l + Σ_k λ_k^{r(l)} T_k^l, λ matched by the names of tasks and rows.

    A table of AdaMerging's authors names its rows after their image encoder: ``visual.…`` and six text leftovers, whose
    coefficients never had a gradient. Task vectors of the vision tower alone use the former and leave the latter out.
    For their ++ tables, give the task vectors after Ties (`ties_split`), as AdaMerging++ does.

    Arguments:
        tv: θ0 and T_k for the tasks that the table names, in any order.
        coefficients: λ, such as one of `read_authors_file`, or loaded by `Coefficients.load`.

    Returns:
        The merged model, with the coefficients as used; ``hyper`` lists the rows left out.

    Raises:
        ValueError: names the tasks or rows that only one of the two has.

    Example:
        >>> tv = am.TaskVectors.from_state_dicts(base, experts)
        >>> table = am.Coefficients(torch.tensor([[0.5], [0.25]]), tv.tasks, ("all",), "task")
        >>> merged = am.merge_with(tv, table)
        >>> moved = 0.5 * (experts["cars"]["body.weight"] - base["body.weight"])
        >>> moved += 0.25 * (experts["pets"]["body.weight"] - base["body.weight"])
        >>> torch.allclose(merged.state["body.weight"], base["body.weight"] + moved)
        True
    """
    rows = tv.rows(coefficients.granularity)
    wanted, table, left_out = rows.names, coefficients, ()
    if any(row.startswith(VISUAL) for row in coefficients.rows):
        wanted = _published_names(rows.names)
        left_out = tuple(row for row in coefficients.rows if row not in wanted and row in TEXT_BEFORE + TEXT_AFTER)
        kept = [index for index, row in enumerate(coefficients.rows) if row not in left_out]
        table = replace(coefficients, values=table.values[:, kept], rows=tuple(table.rows[index] for index in kept))
    values = table.aligned(tv.tasks, wanted)
    return Merged(
        tv.merge(values, coefficients.granularity), "merge_with",
        {"granularity": coefficients.granularity, "left_out": left_out}, tv.tasks,
        coefficients=Coefficients(values, tv.tasks, rows.names, coefficients.granularity),
    )  # fmt: skip


def _published_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names as in an open_clip model: from ``model.visual.…`` (task_vectors), ``visual.…``, or the tower's own."""
    model = next((name[: name.index(VISUAL)] for name in names if VISUAL in name), None)
    return tuple(VISUAL + name if model is None else name.removeprefix(model) for name in names)
