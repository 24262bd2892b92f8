"""What an adaptive run remembers of its losses."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor


def check_losses(values: Tensor, tasks: Sequence[str], step: int, what: str) -> None:
    """Raise ValueError where the losses ``[K]`` of a step hold NaN, naming the tasks."""
    if bad := [task for task, value in zip(tasks, values.tolist(), strict=True) if value != value]:
        raise ValueError(f"the {what} of {', '.join(bad)} is NaN at step {step}: lower lr, or check images and heads")


def loss_history(losses: Sequence[Tensor], tasks: Sequence[str]) -> pd.DataFrame:
    """One row a step: step, loss (the sum over tasks), and one column a task, from losses ``[K]`` a step."""
    table = torch.stack(list(losses)).double().cpu() if losses else torch.empty(0, len(tasks), dtype=torch.float64)
    columns = {"step": range(len(table)), "loss": table.sum(1).numpy()}
    return pd.DataFrame(columns | {task: table[:, k].numpy() for k, task in enumerate(tasks)})
