"""AdaMerging and AdaMerging++: coefficients learned by minimising prediction entropy on unlabelled test images."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..cache import fingerprint_suite
from ..coefficients import Coefficients
from ..forward import resolve_device
from ..splits import SETTINGS
from ..task_vectors import Rows, TaskVectors
from .merged import Fit
from .objective import Objective
from .registry import register
from .resume import restore_run, save_run
from .streams import task_streams
from .ties import ties_split

if TYPE_CHECKING:
    from ..suite import Suite

RECIPES: dict[str, dict[str, float | int]] = {
    # What all four published scripts do; the paper names only the learning rate and the batch size.
    "paper": {"steps": 500, "lr": 1e-3, "batch_size": 16, "batches": 2},
    # Sized for two CPU cores and the small encoder.
    "mini": {"steps": 100, "lr": 1e-2, "batch_size": 16, "batches": 1},
}
BETAS = (0.9, 0.999)
INITIAL = 0.3
CHECKPOINT_EVERY = 25

METHOD_IDS = {
    ("task", "plain"): "task_wise_adamerging",
    ("task", "ties"): "task_wise_adamerging_pp",
    ("tensor", "plain"): "layer_wise_adamerging",
    ("tensor", "ties"): "layer_wise_adamerging_pp",
}


def adamerge(
    suite: Suite,
    *,
    granularity: str = "tensor",
    vectors: str = "plain",
    recipe: str = "paper",
    steps: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    batches: int | None = None,
    init: float | Tensor | Coefficients | None = None,
    clamp: bool = True,
    keep: float = 0.2,
    seed: int = 0,
    setting: str = "transductive",
    device: str | torch.device = "cpu",
    checkpoint: str | Path | None = None,
    progress: bool = True,
    callback: Callable[[int, Tensor], None] | None = None,
) -> Fit:
    """min over λ of Σ_k Σ_batches mean_x H(softmax(h_k(f_θ(λ)(x)))), θ(λ)^l = θ0^l + Σ_k clamp(λ_k^l, 0, 1) T_k^l.

    Arguments:
        suite: encoder, checkpoints, heads, and test images; labels are never read.
        granularity: ``tensor`` (published as layer-wise), ``task`` (task-wise), ``block`` or ``module``.
        vectors: ``plain`` T_k, or ``ties`` for Φ(T_k), the "++" variants.
        recipe: ``paper`` or ``mini``; the next four arguments override it one by one.
        steps: Adam steps (500).
        lr: learning rate of λ (1e-3).
        batch_size: images a batch (16).
        batches: batches a task and step (2); the loss sums their mean entropies, as the published code does.
        init: λ at the start (0.3): a number, a tensor ``[K, R]`` or `Coefficients`.
        clamp: use λ clamped to [0, 1], with zero gradient outside, as published.
        keep: share of entries kept by trimming, for ``vectors="ties"``.
        seed: of the image streams, the only chance in the method.
        setting: ``transductive`` (adapt on all test images, as published) or ``inductive`` (on one half of them).
        device: ``cpu``, ``cuda`` or ``auto``.
        checkpoint: file to keep λ, Adam's state and the history in every 25 steps; a run that finds it goes on from
            there to the same result bit for bit. More steps than it was made with are allowed.
        progress: show a bar with loss and λ range on stderr.
        callback: called after every step with (steps done, λ as used ``[K, R]``).

    Returns:
        Fit: merged state, ``coefficients`` as used, ``history`` (step, loss = the objective in nats, mean entropy a
        task, λ minimum, mean and maximum before the step), ``trajectory`` ``[steps + 1, K, R]``.

    Raises:
        ValueError: for unknown or unusable arguments, a checkpoint of another run, or entropies that are NaN.

    Source:
        AdaMerging, Sections 3.2.1 and 3.2.2; recipe from the published scripts.

    Differs from the published code:
        One merge a step, and the exact gradient ⟨∂L/∂θ^l, T_k^l⟩ instead of back-propagation through sixteen merges:
        the same numbers, less time and memory. Batches come from shuffled passes over the images, where the
        published loop shuffles anew for every step and so may see an image again before it has seen all. The text
        mentions neither the clamp, nor 500 steps, nor two batches.
    """
    options = {**_recipe(recipe), **_given(steps=steps, lr=lr, batch_size=batch_size, batches=batches)}
    _check_options(options, vectors=vectors, setting=setting)
    device = resolve_device(device)
    tv = suite.task_vectors()
    if vectors == "ties":
        tv = ties_split(tv, keep)
    rows = tv.rows(granularity)
    start, plain_init = _initial(init, tv, rows)
    hyper = {"granularity": granularity, "vectors": vectors, **options, "init": plain_init, "clamp": clamp}
    hyper |= {"keep": keep} if vectors == "ties" else {}
    hyper |= {"seed": seed, "setting": setting}

    streams = task_streams(suite, tv.tasks, size=options["batch_size"], seed=seed, setting=setting, device=device)
    objective = Objective.of(suite, tv, rows, clamp=clamp, device=device)
    raw = nn.Parameter(start.to(next(iter(objective.tv.vectors.values())), copy=True))
    optimiser = torch.optim.Adam([raw], lr=options["lr"], betas=BETAS)
    losses, trajectory = [], [objective.used(raw)]
    if checkpoint is not None:
        # More steps of the same descent are the same run, so their number is no part of its identity.
        identity = {key: value for key, value in hyper.items() if key != "steps"}
        identity |= {"tasks": list(tv.tasks), "rows": list(rows.names), **fingerprint_suite(suite)}
        losses, trajectory = restore_run(checkpoint, identity, raw, optimiser, options["steps"]) or (losses, trajectory)

    done, total, batches = len(losses), options["steps"], options["batches"]
    method = METHOD_IDS.get((granularity, vectors), f"{granularity}_adamerging" + "_pp" * (vectors == "ties"))
    with tqdm(total=total, initial=done, desc=method, unit="step", file=sys.stderr, disable=not progress) as bar:
        for step in range(done, total):
            images = torch.cat([s.batch(step * batches + b).to(device) for s in streams for b in range(batches)])
            values, raw.grad = objective.losses_and_gradient(raw, images, batches)
            optimiser.step()
            losses.append(values)
            trajectory.append(objective.used(raw))
            last = step + 1 == total
            # Reading a number stalls a GPU, so the bar and the check for NaN look only now and then.
            if last or step % max(1, total // 50) == 0:
                _check_losses(values, tv.tasks, step)
                used = trajectory[-1]
                bar.set_postfix(loss=f"{values.sum():.3f}", λ=f"{used.min():.2f}..{used.max():.2f}", refresh=False)
            if checkpoint is not None and (last or (step + 1) % CHECKPOINT_EVERY == 0):
                save_run(checkpoint, identity, raw, optimiser, losses, trajectory)
            bar.update()
            if callback is not None:
                callback(step + 1, trajectory[-1])

    path = torch.stack(trajectory).cpu()
    return Fit(
        state=tv.merge(path[-1], granularity),
        method=method,
        hyper=hyper,
        tasks=tv.tasks,
        coefficients=Coefficients(path[-1], tv.tasks, rows.names, granularity),
        history=_history(losses, path, tv.tasks, batches),
        trajectory=path,
    )


for (_granularity, _vectors), _id in METHOD_IDS.items():
    register(
        _id,
        label=("Task-wise" if _granularity == "task" else "Layer-wise") + " AdaMerging" + "++" * (_vectors == "ties"),
        needs="unlabelled test images",
        source="Yang et al. 2024 (AdaMerging), Section 3.2",
        takes="suite",
        adaptive=True,
    )(functools.partial(adamerge, granularity=_granularity, vectors=_vectors))


def _recipe(name: str) -> dict[str, Any]:
    if name not in RECIPES:
        raise ValueError(f"recipe {name!r} is unknown; choose from {', '.join(RECIPES)}")
    return RECIPES[name]


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _check_options(options: dict[str, Any], *, vectors: str, setting: str) -> None:
    for name, least in (("steps", 0), ("batch_size", 1), ("batches", 1)):
        if isinstance(options[name], bool) or not isinstance(options[name], int) or options[name] < least:
            raise ValueError(f"{name}={options[name]!r} must be a whole number of at least {least}")
    if not 0 < options["lr"] < float("inf"):
        raise ValueError(f"lr={options['lr']!r} must be a positive number")
    if vectors not in ("plain", "ties"):
        raise ValueError(f"vectors {vectors!r} is unknown; use 'plain' or 'ties'")
    if setting not in SETTINGS:
        raise ValueError(f"setting {setting!r} is unknown; use {' or '.join(SETTINGS)}")


def _initial(init: float | Tensor | Coefficients | None, tv: TaskVectors, rows: Rows) -> tuple[Tensor, Any]:
    """λ before the first step ``[K, R]``, and the same as a plain value for the record."""
    if isinstance(init, Coefficients):
        init = init.aligned(tv.tasks, rows.names)
    if not isinstance(init, Tensor):
        value = INITIAL if init is None else float(init)
        start = torch.full((len(tv.tasks), len(rows.names)), value, dtype=torch.float64)
        tv.check_coefficients(start, rows)
        return start, value
    tv.check_coefficients(init, rows)
    return init.detach(), init.detach().cpu().double().tolist()


def _check_losses(values: Tensor, tasks: tuple[str, ...], step: int) -> None:
    if bad := [task for task, value in zip(tasks, values.tolist(), strict=True) if value != value]:
        raise ValueError(f"the entropy of {', '.join(bad)} is NaN at step {step}: lower lr, or check images and heads")


def _history(losses: list[Tensor], path: Tensor, tasks: tuple[str, ...], batches: int) -> pd.DataFrame:
    table = torch.stack(losses).double().cpu() if losses else torch.empty(0, len(tasks), dtype=torch.float64)
    before = path[:-1].double().flatten(1)
    columns = {
        "step": range(len(table)),
        "loss": table.sum(1).numpy(),
        "lambda_min": before.amin(1).numpy(),
        "lambda_mean": before.mean(1).numpy(),
        "lambda_max": before.amax(1).numpy(),
    }
    return pd.DataFrame(columns | {task: table[:, k].numpy() / batches for k, task in enumerate(tasks)})
