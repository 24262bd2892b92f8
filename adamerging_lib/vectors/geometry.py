"""Whether experts are fit for merging: task vectors nearly at right angles, and a short, smooth way to each expert.

`measure_experts` measures once and gives rows of a record; the other functions read such rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..evaluation import evaluate
from ..methods import Merged
from ..records import rows_of
from ..suite import Suite
from ..task_vectors import TaskVectors


def cosines(tv: TaskVectors) -> pd.DataFrame:
    """cos(T_j, T_k) = ⟨T_j, T_k⟩ / (‖T_j‖ ‖T_k‖) over all tensors: tasks × tasks.

    Source:
        Ilharco et al. 2023 report that task vectors of CLIP models are nearly orthogonal.
    """
    return _cosines(_gram(tv), tv.tasks)


def relative_norms(tv: TaskVectors) -> pd.Series:
    """‖T_k‖ / ‖θ0‖ of every task: how far fine-tuning moved."""
    base = sum(tv.pretrained[key].double().square().sum() for key in tv.vectors).sqrt().cpu()
    return pd.Series((_gram(tv).diagonal().sqrt() / base).numpy(), index=list(tv.tasks))


def compare(tv: TaskVectors) -> pd.DataFrame:
    """How the task vectors lie to θ0 and to each other, from one pass over the tensors; they may be read lazily.

    Arguments:
        tv: θ0 and T_k.

    Returns:
        One row a task: ``norm`` ‖T_k‖, ``relative`` ‖T_k‖ / ‖θ0‖, ``changed`` share of entries that are not zero,
        ``conflict`` share of these whose sign is not that of Σ_j T_j, ``nearest`` the task with the largest
        ``cosine``, and that cosine.
    """
    gram, base = torch.zeros(len(tv.tasks), len(tv.tasks), dtype=torch.float64), 0.0
    size, changed, against = 0, *torch.zeros(2, len(tv.tasks), dtype=torch.int64)
    for key, t in tv.vectors.items():
        gram += _gram_of(t)
        base += float(torch.linalg.vector_norm(tv.pretrained[key].to(t.dtype), dtype=torch.float64)) ** 2
        size, total = size + t[0].numel(), t.sum(0)
        for k, own in enumerate(t):  # one task at a time, for memory
            changed[k] += own.count_nonzero().cpu()
            against[k] += (own * total < 0).count_nonzero().cpu()
    norms = gram.diagonal().sqrt()
    frame = pd.DataFrame({"norm": norms.numpy()}, index=list(tv.tasks))
    frame["relative"] = frame["norm"] / base**0.5 if base else float("nan")
    frame["changed"] = changed.numpy() / size
    frame["conflict"] = against.numpy() / changed.clamp_min(1).numpy()
    others = _cosines(gram, tv.tasks).where(~np.eye(len(tv.tasks), dtype=bool))
    single = len(tv.tasks) == 1
    frame["nearest"] = None if single else others.idxmax(axis=1)
    frame["cosine"] = None if single else others.max(axis=1)
    return frame


def measure_experts(suite: Suite, alphas: Iterable[float], *, device: str = "cpu") -> list[dict[str, Any]]:
    """Accuracy of θ0 + α T_k on task k itself (the other task vectors left out), cosines and norms of task vectors.

    Arguments:
        suite: with its experts.
        alphas: values of α; 0 is zero-shot, 1 the expert.
        device: ``cpu``, ``cuda`` or ``auto``.

    Returns:
        Rows of a record: ``method`` is ``expert_path`` (condition ``alpha=…``, with ``alpha``, ``task``, ``accuracy``
        in percent, ``n``, …) or ``task_vectors`` (condition ``cosine`` with ``task``, ``other``, or
        ``relative_norm``; the number in ``value``).
    """
    tv, rows = suite.task_vectors(), []
    for alpha in alphas:
        one = torch.tensor([[float(alpha)]], dtype=torch.float64)
        states = {task: tv.subset([task]).merge(one, "task") for task in tv.tasks}
        path = Merged(None, "expert_path", {"alpha": alpha}, tv.tasks, task_states=states)
        identity = {"method": "expert_path", "condition": f"alpha={alpha:.2f}", "alpha": float(alpha)}
        rows += rows_of(evaluate(suite, path, device=device), **identity)
    angles, norms = cosines(tv), relative_norms(tv)
    for j, task in enumerate(tv.tasks):
        rows.append({"method": "task_vectors", "condition": "relative_norm", "task": task, "value": float(norms[task])})
        for other in tv.tasks[j + 1 :]:
            angle = float(angles.loc[task, other])
            rows.append({"method": "task_vectors", "condition": "cosine", "task": task, "other": other, "value": angle})
    return rows


def path_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy (percent) over α, tasks × α in the record's order; the average left out."""
    path = rows[(rows["method"] == "expert_path") & (rows["task"] != "Average")]
    return path.pivot_table(index="task", columns="alpha", values="accuracy", sort=False).sort_index(axis=1)


def cosines_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Cosines between task vectors, tasks × tasks in the record's order, 1 on the diagonal."""
    pairs = rows[rows["condition"] == "cosine"]
    tasks = rows.loc[rows["condition"] == "relative_norm", "task"].tolist()
    square = pd.DataFrame(np.eye(len(tasks)), index=tasks, columns=tasks)
    for pair in pairs.itertuples():
        square.loc[pair.task, pair.other] = square.loc[pair.other, pair.task] = pair.value
    return square


def gain_share(path: pd.DataFrame, alpha: float) -> pd.Series:
    """(acc(α) − acc(0)) / (acc(1) − acc(0)) of every task, percent: the share of the expert's gain reached at α.

    Arguments:
        path: of `path_of`, with α = 0, α and 1 among its columns.
        alpha: where to look.

    Raises:
        ValueError: where one of the three values of α is missing.
    """
    if missing := [a for a in (0.0, float(alpha), 1.0) if a not in path]:
        raise ValueError(f"the path has no α = {', '.join(map(str, missing))}: measure it there too")
    return 100 * (path[float(alpha)] - path[0.0]) / (path[1.0] - path[0.0])


def summary(rows: pd.DataFrame, alpha: float = 0.3) -> pd.DataFrame:
    """One line a task: zero-shot and expert accuracy, share of the gain at α, norm, and the largest cosine, as text."""
    path, angles = path_of(rows), cosines_of(rows)
    norms = rows[rows["condition"] == "relative_norm"].set_index("task")["value"]
    others = angles.where(~np.eye(len(angles), dtype=bool))
    columns = {
        "zero-shot": path[0.0].map("{:.1f}".format),
        "expert": path[1.0].map("{:.1f}".format),
        f"share of the gain at α = {alpha:g}": gain_share(path, alpha).map("{:.0f} %".format, na_action="ignore"),
        "‖T‖ / ‖θ0‖": norms.map("{:.3f}".format),
        "largest cosine with another": others.max().map("{:.2f}".format),
    }
    return pd.DataFrame(columns).loc[path.index].rename_axis(index=None)


def _cosines(gram: torch.Tensor, tasks: tuple[str, ...]) -> pd.DataFrame:
    norms = gram.diagonal().sqrt()
    values = gram / (norms[:, None] * norms).clamp_min(torch.finfo(gram.dtype).tiny)
    return pd.DataFrame(values.numpy(), index=list(tasks), columns=list(tasks))


def _gram(tv: TaskVectors) -> torch.Tensor:
    """⟨T_j, T_k⟩ ``[K, K]``, summed over tensors in float64."""
    return sum(_gram_of(t) for t in tv.vectors.values())


def _gram_of(t: torch.Tensor) -> torch.Tensor:
    # A piece at a time: a large embedding in float64 would take twice the memory of all models' embeddings.
    pieces = (piece.double() for piece in t.reshape(len(t), t[0].numel()).split(1 << 20, dim=1))
    return sum(piece @ piece.T for piece in pieces).cpu()
