"""AdaMerging and AdaMerging++: coefficients learned by minimising prediction entropy on unlabelled test images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..coefficients import Coefficients
from ..forward import raw_features
from ..learning.adaptation import Adaptation, learns
from ..learning.combine import combiner, task_weights
from ..learning.descent import initial, learn
from ..learning.guard import suite_guard
from ..learning.imitation import imitation_loss, taught_streams
from ..learning.model import suite_source
from ..learning.objective import entropy_loss
from ..learning.recipes import check_count, check_positive
from ..merged import Fit
from ..runtime.devices import dtype
from ..runtime.values import one_of
from ..task_vectors import TaskVectors
from ..vectors.components import tsv_split, tsv_start
from .registry import register
from .ties import ties_split

if TYPE_CHECKING:
    from ..suite import Suite

RECIPES: dict[str, dict[str, float | int]] = {
    # What all four published scripts do; the paper names only the learning rate and the batch size.
    "paper": {"steps": 500, "lr": 1e-3, "batch_size": 16, "batches": 2},
    # Sized for two CPU cores and the small encoder.
    "mini": {"steps": 50, "lr": 1e-2, "batch_size": 16, "batches": 1},
}
CHECKPOINT_EVERY = 25
IMITATION = "imitation"
TERMS = ("filter", "diversity", "prior", "pull", "weights")
PRIORS = ("experts",)

Split = Callable[[TaskVectors], TaskVectors]
"""Takes task vectors apart into what λ scales."""

_SUFFIXES = {"plain": "", "ties": "_pp", "tsv": "_tsv"}
METHOD_IDS = {
    ("task", "plain"): "task_wise_adamerging",
    ("task", "ties"): "task_wise_adamerging_pp",
    ("tensor", "plain"): "layer_wise_adamerging",
    ("tensor", "ties"): "layer_wise_adamerging_pp",
}


@learns(RECIPES, images="test")
def adamerge(
    suite: Suite,
    run: Adaptation,
    *,
    granularity: str = "tensor",
    vectors: str | Split = "plain",
    init: float | Tensor | Coefficients | None = None,
    clamp: bool | str | None = None,
    keep: float = 0.2,
    images: int | None = None,
    objective: str | Mapping[str, Any] | None = None,
    combine: str | None = None,
    guard: bool = False,
    passes: int = 1,
    autocast: str | None = None,
    vectors_dtype: str | None = None,
    compile: bool = False,
    checkpoint: str | Path | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
) -> Fit:
    """Learn the coefficients λ that minimise the entropy of the merged model's predictions on unlabelled images.

    min over λ of Σ_k Σ_batches mean_x H(softmax(h_k(f_θ(λ)(x)))), θ(λ)^l = θ0^l + Σ_k clamp(λ_k^l, 0, 1) T_k^l.

    Arguments:
        suite: encoder, checkpoints, heads, and test images; labels are never read.
        granularity: ``tensor`` (published as layer-wise), ``task`` (task-wise), ``block``, ``module``, or, with
            ``vectors="tsv"``, ``component``: one per singular triplet, our extension.
        vectors: ``plain`` T_k; ``ties`` for Φ(T_k), the "++" variants; ``tsv`` for each task's part of TSV-M's sum,
            which it then starts from (with ``tensor`` or ``component``), our extension. Or a function, such as
            ``am.ties_split``, that takes the `TaskVectors` apart itself: it returns others for λ to scale, from 1 by
            default, and may bring a θ0 of its own; a checkpoint knows it by its name.
        batches: per task and step (2); the loss sums their mean entropies, as the published code does.
        init: λ at the start (0.3; with ``tsv`` where the sum is TSV-M's; with a function 1): a number, a tensor
            ``[K, R]`` or `Coefficients`.
        clamp: use λ clamped to [0, 1], with zero gradient outside, as published (True; the default except
            for ``tsv`` and functions, which start on the bound); or leave it free (False), or let it be the ``tanh`` or
            ``sigmoid`` of what Adam moves, inside (−1, 1) or (0, 1) and never without gradient.
        keep: share of entries kept by trimming, for ``vectors="ties"``.
        images: adapt on a fixed pool of so many images per task instead of all; pools of one seed are nested.
        objective: changes of the objective, by name. ``filter`` (EATA and SAR: 0.4): only images whose entropy is
            below this share of log C count. ``diversity`` (SHOT: 1): weight of minus the entropy of a batch's mean
            prediction. ``prior`` (``experts``, our extension): the batch's mean prediction is drawn towards the
            expert's on the same batch, instead of towards uniform. ``pull``: weight of ‖λ − λ_start‖². ``weights``:
            task → positive weight of its loss, 1 if not named; with ``combine="wpcgrad"`` its priority instead. Or
            ``imitation``: cross-entropy with the predictions of each task's expert on the same unlabelled images, our
            extension.
        combine: join the K tasks' gradients of λ by ``pcgrad``, ``wpcgrad``, ``cagrad``, ``nash_mtl`` or ``min_norm``
            instead of adding them up; see `combiner`. Our extension: no table of it was found.
        guard: keep a quarter of the images back, at most 64 per task, and of eleven states on the path return the one
            that the experts' predictions on these speak for, or the start where none leads it by more than one
            standard error; see `Guard`. Our extension.
        device: ``cpu``, ``cuda`` or ``auto``. Within a process group, see `distributed`, the tasks are spread over it.
        passes: forward and backward passes that share a step, at most one per task (1): more need less memory for
            activations, and give the same gradient.
        autocast: ``bfloat16`` computes the encoder's products in it; weights, logits, entropies and λ stay float32.
        vectors_dtype: ``bfloat16`` keeps T_k in it on the device while λ is learned, half the memory. The result is
            merged from the unrounded T_k.
        compile: put the encoder through ``torch.compile``, which takes minutes at the first step.
        checkpoint: file to keep λ, Adam's state and the history in every 25 steps; a run that finds it goes on from
            there to the same result bit for bit. More steps than it was made with are allowed.
        callback: called after every step with (steps done, λ as used ``[K, R]``).

    Returns:
        Fit: merged state, ``coefficients`` as used, ``history`` (step, loss = the objective in nats, mean entropy
        per task, λ minimum, mean and maximum before the step), ``trajectory`` ``[steps + 1, K, R]``.

    Raises:
        ValueError: for unknown or unusable arguments, a checkpoint of another run, or entropies that are NaN.
        MemoryError: where a GPU has too little memory, saying which of the arguments above help.

    Touches:
        Every floating-point tensor that the encoder uses.

    Needs:
        Unlabelled test images of every task.

    Cost:
        One forward and backward of all images per step, and K·P multiplications; memory (K + 3)·P and activations, each
        of which ``passes``, ``autocast`` and ``vectors_dtype`` make smaller. ``combine`` takes one
        backward per task instead of one for all, each of its own images, K times the inner products, and a K×K problem
        solved on the CPU, which a GPU waits for.

    Published:
        Eight-task average at ViT-B/32 (P1): task-wise 71.1, task-wise "++" 73.7, layer-wise 80.1, layer-wise "++" 81.1.

    Source:
        AdaMerging, Sections 3.2.1 and 3.2.2; recipe from the published scripts.

    Differs from the published code:
        One merge per step, and the exact gradient ⟨∂L/∂θ^l, T_k^l⟩ instead of back-propagation through sixteen merges:
        the same numbers, less time and memory. Batches come from shuffled passes over the images, where the
        published loop shuffles anew for every step and so may see an image again before it has seen all. The text
        mentions neither the clamp, nor 500 steps, nor two batches.

    Example:
        >>> suite = am.load_suite("mini").some_images(20)
        >>> fit = am.adamerge(suite, granularity="task", steps=2, batch_size=4, progress=False)
        >>> fit.coefficients.values.shape  # one λ per task
        torch.Size([8, 1])
    """
    tv = suite.task_vectors()
    terms = loss_terms(objective, combine, tv.tasks, seed=run.seed, device=run.device)
    terms |= speed_terms(tv, passes=passes, autocast=autocast, vectors_dtype=vectors_dtype, compile=compile)
    clamp = starts_at_published(vectors) if clamp is None else clamp
    tv = split(tv, vectors, keep)
    start, plain_init = started(init, tv, vectors, granularity)
    hyper = {"granularity": granularity, "vectors": called(vectors), **run.options, "init": plain_init, "clamp": clamp}
    hyper |= {"keep": keep} if vectors == "ties" else {}
    # What is left at its default is not recorded: it is the published method.
    hyper |= {"images": images} if images is not None else {}
    hyper |= {"objective": objective if isinstance(objective, str) else dict(objective)} if objective else {}
    hyper |= {"combine": combine} if combine is not None else {}
    hyper |= {"guard": True} if guard else {}
    hyper |= {"seed": run.seed, "setting": run.setting}
    speed = {"passes": passes, "autocast": autocast, "vectors_dtype": vectors_dtype, "compile": compile}
    hyper |= {name: value for name, value in speed.items() if value != (1 if name == "passes" else None) and value}
    streams, watch = run.streams(suite, images=images), None
    if guard:
        watch, streams = suite_guard(suite, streams, run.device)
    return learn(
        suite_source(suite),
        tv,
        taught_streams(suite, streams, run.device) if needs_experts(objective) else streams,
        start,
        run=run,
        method=METHOD_IDS.get((granularity, vectors), f"{granularity}_adamerging{_SUFFIXES.get(vectors, '_own')}"),
        hyper=hyper,
        granularity=granularity,
        clamp=clamp,
        terms=terms,
        checkpoint=checkpoint,
        save_every=CHECKPOINT_EVERY,
        callback=callback,
        guard=watch,
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


def starts_at_published(vectors: str | Split) -> bool:
    """Whether λ starts at 0.3 and is clamped by default, as published: of plain and trimmed task vectors."""
    return vectors in ("plain", "ties")


def called(vectors: str | Split) -> str:
    """The name of what λ scales, for a record: of a function its own."""
    return vectors if isinstance(vectors, str) else getattr(vectors, "__qualname__", type(vectors).__name__)


def split(tv: TaskVectors, vectors: str | Split, keep: float) -> TaskVectors:
    """What λ scales: T_k, the parts that `adamerge` knows by name, or those of a function.

    Arguments:
        tv: θ0 and T_k.
        vectors: ``plain``, ``ties`` or ``tsv``, or a function.
        keep: of Ties.

    Raises:
        ValueError: for an unknown name, or a function that returns no task vectors of the same tasks and tensors.
    """
    if callable(vectors):
        parts, name = vectors(tv), called(vectors)
        if not isinstance(parts, TaskVectors):
            raise ValueError(f"vectors={name} returned a {type(parts).__name__}: let it return TaskVectors")
        if parts.tasks != tv.tasks or parts.vectors.keys() != tv.vectors.keys():
            raise ValueError(
                f"vectors={name} returned other tasks or tensors than it was given: let it change their values "
                "alone, as TaskVectors.replace does"
            )
        return parts
    one_of("vectors", vectors, tuple(_SUFFIXES))
    if vectors == "ties":
        return ties_split(tv, keep)
    return tsv_split(tv) if vectors == "tsv" else tv


def started(
    init: float | Tensor | Coefficients | None, tv: TaskVectors, vectors: str | Split, granularity: str
) -> tuple[Tensor, Any]:
    """λ before the first step ``[K, R]``, and the same as a plain value for the record.

    Arguments:
        init: see `adamerge`.
        tv: of `split`.
        vectors, granularity: likewise.
    """
    rows = tv.rows(granularity)
    if vectors == "tsv" and init is None:
        return tsv_start(tv, rows), "TSV-M"
    return initial(1.0 if init is None and callable(vectors) else init, tv, rows)


def needs_experts(objective: object) -> bool:
    """Whether an ``objective`` of `adamerge` or `adapt` asks what the experts predict."""
    return objective == IMITATION or (isinstance(objective, Mapping) and objective.get("prior") is not None)


def loss_terms(
    objective: str | Mapping[str, Any] | None,
    combine: str | None,
    tasks: Sequence[str],
    *,
    seed: int,
    device: torch.device,
) -> dict[str, Any]:
    """The fields of `Objective` that the arguments ``objective`` and ``combine`` of `adamerge` stand for.

    Raises:
        ValueError: naming what is unknown or unusable.
    """
    if isinstance(objective, str):
        one_of("objective", objective, (IMITATION,))
    given = {} if isinstance(objective, str) else dict(objective or {})
    if unknown := [name for name in given if name not in TERMS]:
        raise ValueError(f"objective has no {', '.join(map(repr, unknown))}; known: {', '.join(TERMS)}")
    for name in ("filter", "diversity", "pull"):
        if given.get(name) is not None:
            check_positive(f"objective[{name!r}]", given[name])
    if given.get("prior") is not None:
        one_of("objective['prior']", given["prior"], PRIORS)
        if not given.get("diversity"):
            raise ValueError("objective['prior'] says what predictions are to be diverse as: give 'diversity' too")
    if (given.get("filter") or 0) > 1:
        raise ValueError(f"objective['filter']={given['filter']!r} is a share of log C: give one of at most 1")
    weights = given.get("weights")
    terms = {
        "loss": entropy_loss(
            filter=given.get("filter"), diversity=given.get("diversity") or 0.0, prior=needs_experts(given)
        ),
        "pull": given.get("pull") or 0.0,
    }
    if objective == IMITATION:
        terms["loss"] = imitation_loss
    if combine is not None:
        terms["combine"] = combiner(combine, tasks, seed=seed, priorities=weights if combine == "wpcgrad" else None)
    if weights and combine != "wpcgrad":
        terms["weights"] = task_weights(weights, tasks, "weights").to(device)
    return terms


def speed_terms(
    tv: TaskVectors, *, passes: int, autocast: str | None, vectors_dtype: str | None, compile: bool
) -> dict[str, Any]:
    """The fields of `Objective` that the arguments of `adamerge` of these names stand for.

    Raises:
        ValueError: naming what is unknown or unusable.
    """
    check_count("passes", passes)
    if passes > len(tv.tasks):
        raise ValueError(f"passes={passes} is more than one per task: give at most {len(tv.tasks)}")
    narrow = {"autocast": dtype("autocast", autocast), "vectors_dtype": dtype("vectors_dtype", vectors_dtype)}
    terms: dict[str, Any] = {name: value for name, value in narrow.items() if value is not None}
    if terms and (wide := [key for key, t in tv.vectors.items() if t.dtype == torch.float64]):
        raise ValueError(f"{' and '.join(terms)} are for float32 models, and {wide[0]!r} is float64: leave them out")
    terms |= {"features": torch.compile(raw_features)} if compile else {}
    return {"passes": passes, **terms}
