"""Model Tinting: coefficients and one layer per task, learned together from the individual models' predictions."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor, nn

from ..coefficients import Coefficients
from ..forward import prepare_encoder
from ..learning.adaptation import Adaptation, learns
from ..learning.imitation import FILTERS, HEAD, TARGETS, Imitation, tinted_tensors
from ..learning.streams import seeded
from ..merged import Fit
from ..probing.experts import expert_table, images_used
from ..runtime.values import is_number, one_of
from ..state import accumulation_dtype
from ..task_vectors import TaskVectors
from .registry import register

if TYPE_CHECKING:
    from ..suite import Suite

RECIPES: dict[str, dict[str, float | int]] = {
    # Both released scripts; 500 epochs of one update per task are 4,000 updates for eight tasks.
    "paper": {"epochs": 500, "lr": 1e-2, "batch_size": 32},
    # Sized for two CPU cores and the small encoder.
    "mini": {"epochs": 30, "lr": 1e-2, "batch_size": 32},
}
LEARN = ("both", "coefficients", "layer")


@learns(RECIPES, images="test")
def tinting(
    suite: Suite,
    run: Adaptation,
    *,
    filter: str = "none",
    layer: str = HEAD,
    learn: str = "both",
    targets: str = "hard",
    top_p: float | None = None,
    init: float = 0.3,
) -> Fit:
    """min over λ and φ of Σ_k mean_x CE(h_k(f_θ(λ)(x)), argmax h_k(f_θ_k(x))), where φ_k is one layer of task k.

    Arguments:
        suite: encoder, checkpoints, heads, and test images; labels are never read.
        filter: ``none`` (`tint`), or ``confidence`` (`tint_pp`): an image counts only where the individual model
            agrees with the merged one or is at least as sure of its own prediction, see `keeps`.
        layer: φ, ``head`` (weight and bias, from the zero-shot head and 0) or a tensor or module of the encoder, such
            as ``transformer.resblocks.5.mlp.c_proj`` (from the individual model's).
        learn: ``both``, ``coefficients`` alone (no layer is tinted), or ``layer`` alone (λ stays at init).
        targets: ``hard`` predictions of the individual model, or its ``soft`` probabilities.
        top_p: None, or the share of every batch, in (0, 1], that counts: where the individual model is surest.
        epochs: rounds over the tasks in shuffled order (500), each with one batch and one update per task.
        lr: learning rate of Adam (1e-2), of λ and φ alike.
        init: λ at the start (0.3; the authors take 0.1 for 14 and 20 tasks).
        seed: of the image streams and the order of tasks, the only chance in the method.

    Returns:
        Fit: merged state; heads and biases, or overrides, of the tinted layer; ``coefficients`` as used (those of a
        tinted tensor stay at init, and only unseen tasks see them); ``history``, one row per update (epoch, task, loss
        in nats or NaN where nothing was kept, share of the batch kept, share where both models agree);
        ``trajectory`` ``[epochs + 1, K, R]``.

    Raises:
        ValueError: for unknown or unusable arguments, naming the nearest layer, or losses that are NaN.

    Touches: every tensor through λ, clamped to [0, 1]; per task the tinted layer. A layer of the encoder instead of
        the head makes inference need the task for more than the head.
    Needs: the individual models and unlabelled test images. It distils K experts on the images it is measured on
        (transductive), so its peers are Surgery, ProDistill and EMR rather than Task Arithmetic.
    Cost: K merges and backward passes per round, 128,000 images with the paper's recipe, and one forward of every
        expert over the images used; memory of K + 3 encoders. Keeps Σ_k classes·(dim + 1) numbers, or K layers.
    Published: Tint++ with its successor's text 90.1 ± 0.1 at ViT-B/32 (pool P1); v1's own tables: none found.

    Source:
        Jung et al. 2024 (Model Tinting, arXiv 2412.19098), Section 3. Soft labels are an option of its released code
        (``crosspseudosoft``), not of its text; the top-p filter and the start of a tinted encoder layer are its
        successor's, SyMerge (Jung et al. 2026), whose text has soft labels too.

    Differs from the published code:
        Pseudo-labels are computed once per image instead of in every update, and the gradient of λ is the inner
        product ⟨∂L/∂θ^l, T_k^l⟩: the same numbers. A batch that the filter empties makes no update, where the
        published mean over nothing is NaN. Only the head as a layer was released; other layers follow the text. Adam
        leaves other tasks' layers alone, as under torch ≥ 2; under older versions its momentum moves them. Batches
        come from shuffled passes over the images, where the published loop shuffles anew for every batch.
    """
    _check(filter, targets, learn, top_p, init)
    device, total, tv = run.device, run.options["epochs"], suite.task_vectors()
    method = "tint" if filter == "none" else "tint_pp"
    names = tinted_tensors(layer, tv)

    streams = run.streams(suite)
    used = [images_used(stream, total) for stream in streams]
    experts = [expert_table(suite, task, which, device=device) for task, which in zip(tv.tasks, used, strict=True)]
    problem = _problem(suite, tv, names, filter, targets, top_p, tint=learn != "coefficients", device=device)
    like = next(iter(problem.tv.vectors.values()))
    shape = len(tv.tasks), len(problem.rows.names)
    raw = nn.Parameter(torch.full(shape, float(init), dtype=like.dtype, device=device))
    learned = None if learn == "layer" else raw
    layers = [problem.layer(k) for k in range(len(tv.tasks))]
    everything = [*([] if learned is None else [raw]), *(t for part in layers for t in part)]
    optimiser = torch.optim.Adam(everything, lr=run.options["lr"])

    state, path, seen = problem.merged(raw), [raw.detach().clamp(0, 1)], []
    steps = run.steps(method, tv.tasks, total=total, unit="epoch")
    for epoch in steps:
        for k in _order(tv.tasks, run.seed, epoch):
            index, images = streams[k].indices(epoch), streams[k].batch(epoch).to(device)
            if learned is not None:
                state = problem.merged(raw)
            numbers, gradient, grads = problem.gradients(k, state, learned, images, experts[k][index.to(device)])
            seen.append((epoch, k, numbers))
            if grads is None:
                continue
            optimiser.zero_grad(set_to_none=True)
            raw.grad = gradient
            for t, grad in zip(layers[k], grads, strict=True):
                t.grad = grad
            optimiser.step()
        path.append(raw.detach().clamp(0, 1))
        last = sorted(seen[-len(tv.tasks) :], key=lambda row: row[1])
        losses, kept, _ = torch.stack([numbers for *_, numbers in last]).unbind(1)
        steps.add(torch.where(kept > 0, losses, 0), λ=path[-1])  # of a batch that the filter empties the loss is NaN

    path = torch.stack(path).cpu()
    return Fit(
        state=tv.merge(path[-1], "tensor"),
        method=method,
        hyper={
            "filter": filter, "layer": layer, "learn": learn, "targets": targets, "top_p": top_p, **run.options,
            "init": float(init), "seed": run.seed, "setting": run.setting,
        },
        tasks=tv.tasks,
        coefficients=Coefficients(path[-1], tv.tasks, problem.rows.names, "tensor"),
        history=_history(seen, tv.tasks),
        trajectory=path,
        **_kept(suite, tv, problem, learn),
    )  # fmt: skip


_TEST_IMAGES = {"needs": "unlabelled test images", "takes": "suite", "adaptive": True}
_SOURCE, _HEADS = "Jung et al. 2024 (Model Tinting), Section 3", "classes · (dim + 1)"
register("tint", label="Tint", source=_SOURCE, task_specific=_HEADS, **_TEST_IMAGES)(
    functools.partial(tinting, filter="none")
)
register("tint_pp", label="Tint++", source=_SOURCE, task_specific=_HEADS, **_TEST_IMAGES)(
    functools.partial(tinting, filter="confidence")
)


def _check(filter: str, targets: str, learn: str, top_p: float | None, init: float) -> None:
    one_of("filter", filter, FILTERS)
    one_of("targets", targets, TARGETS)
    one_of("learn", learn, LEARN)
    if top_p is not None and not (is_number(top_p) and 0 < top_p <= 1):
        raise ValueError(f"top_p={top_p!r} is not a share in (0, 1]: the surest half of a batch is 0.5")
    if not (is_number(init) and math.isfinite(init)):
        raise ValueError(f"init={init!r} must be a finite number")


def _problem(
    suite: Suite, tv: TaskVectors, names: Sequence[str], filter: str, targets: str, top_p: float | None, *,
    tint: bool, device: torch.device,
) -> Imitation:  # fmt: skip
    """What is minimised, with heads, biases and encoder tensors of every task as they are before the first update."""
    own = [_start(suite, task, names, tint=tint, device=device) for task in tv.tasks]
    heads, biases, inside = zip(*own, strict=True)
    encoder, wide = prepare_encoder(suite.encoder, tv.pretrained, device), tv.to(device, widen=True)
    rows = tv.rows("tensor")
    return Imitation(wide, rows, encoder, suite.normalise, heads, biases, inside, filter, targets, top_p)


def _start(
    suite: Suite, task: str, names: Sequence[str], *, tint: bool, device: torch.device
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Head, bias and encoder tensors of a task before the first update; what will be learned requires a gradient."""

    def wide(t: Tensor) -> Tensor:
        return t.detach().to(device, accumulation_dtype(t.dtype), copy=True)

    weight = wide(suite.heads[task]).requires_grad_(tint and not names)
    bias = weight.new_zeros(len(weight)).requires_grad_(tint and not names)
    return weight, bias, {key: wide(suite.experts[task][key]).requires_grad_() for key in names if tint}


def _order(tasks: Sequence[str], seed: int, epoch: int) -> list[int]:
    """Places of the tasks in the order of one epoch, which does not depend on the order they are given in."""
    by_name = sorted(range(len(tasks)), key=tasks.__getitem__)
    return [by_name[place] for place in torch.randperm(len(tasks), generator=seeded("order", seed, epoch)).tolist()]


def _history(seen: Sequence[tuple[int, int, Tensor]], tasks: Sequence[str]) -> pd.DataFrame:
    numbers = torch.stack([row for *_, row in seen]).double().cpu() if seen else torch.empty(0, 3)
    columns = {"epoch": [epoch for epoch, *_ in seen], "task": [tasks[k] for _, k, _ in seen]}
    shares = {name: numbers[:, i].numpy() for i, name in enumerate(("loss", "kept", "agreement"))}
    return pd.DataFrame(columns | shares)


def _kept(suite: Suite, tv: TaskVectors, problem: Imitation, learn: str) -> dict[str, dict]:
    """The tinted layer of each task as fields of `Merged`, in the dtypes that it had."""

    def done(t: Tensor, like: Tensor) -> Tensor:
        return t.detach().to("cpu", like.dtype)

    if learn == "coefficients":
        return {}
    if not any(problem.inside):
        pairs = zip(tv.tasks, problem.heads, problem.biases, strict=True)
        parts = [(t, done(w, suite.heads[t]), done(b, suite.heads[t])) for t, w, b in pairs]
        return {"heads": {t: w for t, w, _ in parts}, "biases": {t: b for t, _, b in parts}}
    places = {key: tv.tied.get(key, key) for key in tv.pretrained}
    return {
        "overrides": {
            task: {key: done(own[home], tv.pretrained[key]) for key, home in places.items() if home in own}
            for task, own in zip(tv.tasks, problem.inside, strict=True)
        }
    }
