"""Whether experts are fit for merging: task vectors nearly at right angles, and a short, smooth way to each expert."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import torch

from .evaluation import evaluate
from .methods import Merged
from .suite import Suite
from .task_vectors import TaskVectors


def cosines(tv: TaskVectors) -> pd.DataFrame:
    """cos(T_j, T_k) = ⟨T_j, T_k⟩ / (‖T_j‖ ‖T_k‖) over all tensors: tasks × tasks.

    Source:
        Ilharco et al. 2023 report that task vectors of CLIP models are nearly orthogonal.
    """
    gram = _gram(tv)
    norms = gram.diagonal().sqrt()
    values = gram / (norms[:, None] * norms).clamp_min(torch.finfo(gram.dtype).tiny)
    return pd.DataFrame(values.numpy(), index=list(tv.tasks), columns=list(tv.tasks))


def relative_norms(tv: TaskVectors) -> pd.Series:
    """‖T_k‖ / ‖θ0‖ of every task: how far fine-tuning moved."""
    base = sum(tv.pretrained[key].double().square().sum() for key in tv.vectors).sqrt()
    return pd.Series((_gram(tv).diagonal().sqrt() / base).numpy(), index=list(tv.tasks))


def expert_path(suite: Suite, alphas: Iterable[float], *, device: str = "cpu") -> pd.DataFrame:
    """Accuracy of θ0 + α T_k on task k itself, the other task vectors left out.

    Arguments:
        suite: with its experts.
        alphas: values of α; 0 is zero-shot, 1 the expert.
        device: ``cpu``, ``cuda`` or ``auto``.

    Returns:
        Rows ``task, alpha, accuracy`` (percent), ``n``.
    """
    tv, frames = suite.task_vectors(), []
    for alpha in alphas:
        states = {}
        for task in tv.tasks:
            states[task] = tv.subset([task]).merge(torch.tensor([[float(alpha)]], dtype=torch.float64), "task")
        path = Merged(None, "expert_path", {"alpha": alpha}, tv.tasks, task_states=states)
        frames.append(evaluate(suite, path, device=device).assign(alpha=float(alpha)))
    rows = pd.concat(frames, ignore_index=True)[["task", "alpha", "accuracy", "n"]]
    order = {task: place for place, task in enumerate(tv.tasks)}
    return rows.sort_values(["task", "alpha"], key=lambda c: c.map(order) if c.name == "task" else c, ignore_index=True)


def gain_share(path: pd.DataFrame, alpha: float) -> pd.Series:
    """(acc(α) − acc(0)) / (acc(1) − acc(0)) of every task, percent: the share of the expert's gain reached at α.

    Arguments:
        path: rows of `expert_path`, with α = 0, α and 1 among them.
        alpha: where to look.

    Raises:
        ValueError: where one of the three values of α is missing.
    """
    table = path.pivot(index="task", columns="alpha", values="accuracy").loc[path["task"].unique()]
    if missing := [a for a in (0.0, float(alpha), 1.0) if a not in table]:
        raise ValueError(f"the path has no α = {', '.join(map(str, missing))}: measure it there too")
    return 100 * (table[float(alpha)] - table[0.0]) / (table[1.0] - table[0.0])


def _gram(tv: TaskVectors) -> torch.Tensor:
    """⟨T_j, T_k⟩ ``[K, K]``, summed over tensors in float64."""
    flat = (vectors.double().flatten(1) for vectors in tv.vectors.values())
    return sum(v @ v.T for v in flat).cpu()
