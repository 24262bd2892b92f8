"""The descent of λ: Adam on an `Objective`, resumable, shared by all methods that learn merging coefficients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from ..coefficients import Coefficients
from ..merged import Fit
from ..runtime import distributed
from ..runtime.devices import advice_on_memory
from ..state import accumulation_dtype
from ..task_vectors import Rows, TaskVectors
from .adaptation import Adaptation
from .guard import Guard
from .model import Source
from .objective import CLAMPS, Objective
from .resume import restore_run, save_run

BETAS = (0.9, 0.999)
INITIAL = 0.3


def learn(
    source: Source,
    tv: TaskVectors,
    streams: Sequence[Any],
    start: Tensor,
    *,
    run: Adaptation,
    method: str,
    hyper: Mapping[str, Any],
    granularity: str,
    tasks: Sequence[str] | None = None,
    clamp: bool | str = True,
    terms: Mapping[str, Any] | None = None,
    checkpoint: str | Path | None = None,
    save_every: int = 25,
    callback: Callable[[int, Tensor], None] | None = None,
    guard: Guard | None = None,
    optimiser: Callable[..., torch.optim.Optimizer] | None = None,
) -> Fit:
    """λ ← λ − Adam(∇L(λ)), for as many steps as the run's options say.

    Arguments:
        source: of the model that is run.
        tv: θ0 and the vectors that λ scales.
        streams: one per task, in the order of ``tasks``, as the model draws from; with labels where the loss needs
            them.
        start: λ before the first step, as used, ``[K, R]``.
        run: device and progress, and the options ``steps``, ``lr`` and ``batches``.
        method: id of the result.
        hyper: of the result.
        granularity: rows of λ.
        tasks: those that have images; default those of the task vectors.
        clamp: what λ is of the raw parameter, see `Objective`.
        terms: further fields of `Objective`; ``pull`` pulls to ``start``.
        checkpoint: file to keep the run in.
        save_every: steps between checkpoints.
        callback: called after every step with (steps done, λ as used ``[K, R]``).
        guard: chooses a state of the path; default the last.
        optimiser: ([λ], lr) → the optimiser that moves λ; default Adam.

    Returns:
        Fit: merged state, coefficients, history, trajectory, and what the guard saw.

    Raises:
        ValueError: where λ cannot start where asked, the checkpoint is another run's, or losses are NaN.
    """
    tasks, rows = tuple(tasks or tv.tasks), tv.rows(granularity)
    terms, mine, options = dict(terms or {}), distributed.own(len(tasks)), run.options
    weights = terms.pop("weights", None)
    if distributed.active():
        terms |= {"spread": len(tasks)}
    if isinstance(terms.get("loss"), tuple):
        terms["loss"] = terms["loss"][mine.start : mine.stop]
    if weights is not None:
        terms |= {"weights": weights[mine.start : mine.stop]}
    size = sum(tv.pretrained[key].numel() for key in tv.vectors)
    with advice_on_memory(size, len(tv.tasks), {**hyper, **terms}):
        own = [tasks[k] for k in mine]
        objective = Objective.of(source, tv, rows, clamp=clamp, device=run.device, tasks=own, **terms)
    kind = next(iter(tv.vectors.values())).dtype
    raw = nn.Parameter(_raw(start, clamp).to(run.device, accumulation_dtype(kind), copy=True))
    objective = replace(objective, start=objective.used(raw))
    optimiser = (optimiser or partial(torch.optim.Adam, betas=BETAS))([raw], lr=options["lr"])
    losses, trajectory = [], [objective.used(raw)]
    if checkpoint is not None:
        # More steps of the same descent are the same run, so their number is not part of its identity.
        identity = {key: value for key, value in hyper.items() if key != "steps"}
        identity |= {"tasks": list(tasks), "rows": list(rows.names), **source.fingerprint()}
        losses, trajectory = restore_run(checkpoint, identity, raw, optimiser, options["steps"]) or (losses, trajectory)
        distributed.agree(len(losses), f"checkpoints {checkpoint}, steps done")

    if guard is not None:
        guard.looked(tv, trajectory[0][None].cpu(), granularity, tasks, run.device)  # its errors come before the steps
    batches, labelled = options["batches"], streams[0].labels is not None
    steps = run.steps(method, tasks, loss="loss" if labelled else "entropy", done=losses)
    with advice_on_memory(size, len(tv.tasks), {**hyper, **terms}):
        for step in steps:
            numbers = range(step * batches, (step + 1) * batches)
            inputs, labels = objective.model.drawn([streams[k] for k in mine], numbers, run.device)
            values, raw.grad = objective.losses_and_gradient(raw, inputs, batches, labels=labels, step=step)
            optimiser.step()
            trajectory.append(objective.used(raw))
            steps.add(values, λ=trajectory[-1])
            due = step + 1 == options["steps"] or (step + 1) % save_every == 0
            if checkpoint is not None and due and distributed.leads():
                save_run(checkpoint, identity, raw, optimiser, steps.losses, trajectory)
            if callback is not None:
                callback(step + 1, trajectory[-1])

    path = torch.stack(trajectory).cpu()
    seen = None if guard is None else guard.looked(tv, path, granularity, tasks, run.device)
    final = path[-1 if seen is None else int(seen["step"][seen["kept"]].item())]
    return Fit(
        state=tv.merge(final, granularity),
        method=method,
        hyper=dict(hyper),
        tasks=tv.tasks,
        coefficients=Coefficients(final, tv.tasks, rows.names, granularity),
        history=_history(steps.history(), path, tasks, weights, objective.pull, batches),
        trajectory=path,
        guard=seen,
    )


def initial(init: float | Tensor | Coefficients | None, tv: TaskVectors, rows: Rows) -> tuple[Tensor, Any]:
    """λ before the first step ``[K, R]``, and the same as a plain value for the record; 0.3 where not given."""
    if isinstance(init, Coefficients):
        init = init.aligned(tv.tasks, rows.names)
    if not isinstance(init, Tensor):
        value = INITIAL if init is None else float(init)
        start = torch.full((len(tv.tasks), len(rows.names)), value, dtype=torch.float64)
        tv.check_coefficients(start, rows)
        return start, value
    tv.check_coefficients(init, rows)
    return init.detach(), init.detach().cpu().double().tolist()


def _raw(start: Tensor, clamp: bool | str) -> Tensor:
    """The raw parameter that stands for λ."""
    if clamp not in CLAMPS:
        raise ValueError(f"clamp={clamp!r} is unknown; use {', '.join(map(repr, CLAMPS))}")
    if not isinstance(clamp, str):
        return start
    low, inverse = (-1, torch.atanh) if clamp == "tanh" else (0, torch.logit)
    if not bool(((start > low) & (start < 1)).all()):
        raise ValueError(f"clamp={clamp!r} keeps λ inside ({low}, 1): start there, not at {_range(start)}")
    return inverse(start)


def _range(values: Tensor) -> str:
    return f"{values.min():g}..{values.max():g}"


def _history(
    table: pd.DataFrame, path: Tensor, tasks: Sequence[str], weights: Tensor | None, pull: float, batches: int
) -> pd.DataFrame:
    before = path[:-1].double().flatten(1)
    if weights is not None:
        table["loss"] = table[list(tasks)].to_numpy() @ weights.cpu().numpy()
    if pull:
        table["loss"] += pull * (before - before[:1]).square().sum(1).numpy()
    table[list(tasks)] /= batches
    spread = {"min": before.amin(1), "mean": before.mean(1), "max": before.amax(1)}
    for place, (name, values) in enumerate(spread.items(), start=2):
        table.insert(place, f"lambda_{name}", values.numpy())
    return table
