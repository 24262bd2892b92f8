"""AdaMerging for any model: one's own module, checkpoints, heads and data."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..coefficients import Coefficients
from ..forward import resolve_device
from ..learning.adaptation import Adaptation
from ..learning.descent import learn
from ..learning.imitation import imitation_loss
from ..learning.objective import Loss
from ..learning.recipes import check_setting, resolve
from ..methods.adamerging import (
    Split,
    called,
    loss_terms,
    needs_experts,
    speed_terms,
    split,
    started,
    starts_at_published,
)
from ..runtime.cost import measured
from ..runtime.values import one_of
from .adapted import Adapted
from .batches import Batches
from .engine import RECALIBRATE, Engine
from .parts import Given, take_apart
from .statistics import MODES, layers
from .template import Logits

RECIPE = {"steps": 500, "lr": 1e-3, "batches": 1}
OBJECTIVES = ("entropy", "imitation")
_TASK = re.compile(r"[\w-][\w.-]*")
Objective = str | Mapping[str, Any] | Callable[[str, Tensor], Tensor]


def adapt(
    model: nn.Module,
    pretrained: Given,
    experts: Mapping[str, Given],
    *,
    data: Mapping[str, Iterable[Any]],
    logits: Logits | None = None,
    private: str | Sequence[str] = (),
    granularity: str = "tensor",
    vectors: str | Split = "plain",
    keep: float = 0.2,
    init: float | Tensor | Coefficients | None = None,
    clamp: bool | str | None = None,
    objective: Objective = "entropy",
    combine: str | None = None,
    guard: bool = False,
    steps: int | None = None,
    lr: float | None = None,
    batches: int | None = None,
    seed: int = 0,
    setting: str = "transductive",
    statistics: str = "batch",
    recalibrate: str = "auto",
    passes: int = 1,
    autocast: str | None = None,
    vectors_dtype: str | None = None,
    device: str | torch.device = "cpu",
    checkpoint: str | os.PathLike[str] | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
    progress: bool = True,
) -> Adapted:
    """Learn from unlabelled data how much of each expert goes into every tensor: AdaMerging for any model.

    Arguments:
        model: the template, any module; its weights are not used, and it is not changed. Its forward pass must use its
            own parameters (``torch.func.functional_call``).
        pretrained: θ0: a state dict, a file, or a folder; no code in it is executed. It may lack private tensors.
        experts: task → θ_k of the same kinds, or the folder of a LoRA adapter. Where all are adapters, their factors
            are never multiplied out: memory of K adapters, not of K models.
        data: task → its batches, anything that can be iterated over: tensors, tuples that begin with the input, or
            dicts of tensors (keyword arguments, as for Hugging Face models). Labels are never used. What
            can be iterated over only once is read into memory, as many batches as the run needs.
        logits: (task, the model's output) → logits ``[n, classes]``, or ``[n, places, classes]`` with one prediction
            per place; default: the output itself, or its ``logits``. Places that an ``attention_mask`` masks are left
            out.
        private: patterns of names such as ``"head.*"``: tensors, of any size, that each task keeps for itself.
        granularity: ``tensor`` (published as layer-wise), ``task``, ``block``, ``module`` or ``component``, see
            `adamerge`.
        vectors: ``plain`` T_k; ``ties`` for Φ(T_k), the "++" variants; ``tsv`` for the parts of TSV-M's sum;
            or a function of the `TaskVectors`, see `adamerge`.
        keep: share of entries kept by trimming, for ``vectors="ties"``.
        init: λ at the start (0.3; with ``tsv``, the λ at which the sum is TSV-M's): a number, a tensor ``[K, R]`` or
            `Coefficients`.
        clamp: λ within [0, 1] (True; the default except with ``tsv``), free (False), or the ``tanh`` or ``sigmoid`` of
            what Adam moves.
        objective: ``entropy`` (published), or a mapping with the changes that `adamerge` knows (``filter``,
            ``diversity``, ``prior``, ``pull``, ``weights``); ``imitation`` of the experts' predictions, also for
            regression heads; or a function (task, logits of a batch) → number to minimise.
        combine: join the tasks' gradients by a rule instead of adding them up, see `adamerge`.
        guard: keep about a quarter of the inputs back, of which at most the first 64 or so per task are looked at, and
            return the state on the path that the experts' predictions on them speak for, or the start; see `adamerge`.
        steps: number of steps of Adam (500).
        lr: learning rate of Adam (1e-3).
        batches: number of batches per task and step (1); the published scripts take 2 of 16 images, here the batch size
            is that of ``data``.
        seed: for what loaders draw from torch's generator (shuffling) while they are iterated over here.
        setting: ``transductive``, or ``inductive``: adapt to one half of each task's inputs, chosen by their bytes,
            so that `evaluate` can measure on the other half.
        statistics: BatchNorm while λ is learned: ``batch`` (each batch's own), ``mixed`` (half of it, half the experts'
            average) or ``none`` (the experts' average). Statistics never have coefficients. The default, and that of
            ``recalibrate``, are what `benchmarks/batchnorm.py` measured as best; models without BatchNorm have none.
        recalibrate: BatchNorm's statistics recomputed at the end, on the data: for each ``task``, ``shared`` by all, or
            ``none``. ``auto``: for each task where tasks keep private tensors, so that the task is known anyway,
            else shared.
        passes: forward and backward passes that share a step, at most one per task (1); more need less memory.
        autocast: ``bfloat16`` computes the model's matrix products in that type.
        vectors_dtype: ``bfloat16`` keeps T_k in that type on the device.
        device: ``cpu``, ``cuda`` or ``auto``. Within a process group, see `distributed`, the tasks are spread over it.
        checkpoint: file in which the run is saved every 25 steps; a run that finds it resumes from there.
        callback: called after every step with (number of steps done, λ as used ``[K, R]``).
        progress: show a bar on stderr.

    Returns:
        Adapted: ``model(task)``, ``save(folder)``, ``explain()``, ``coefficients``, ``history``.

    Raises:
        CheckpointError: checkpoints do not fit the model or each other.
        ValueError: arguments or data are unusable; raised before the first step wherever that can be known.

    Example:
        >>> fit = am.adapt(net, base, experts, data=data, private="head.*", steps=20, lr=0.01, progress=False)
        >>> fit.coefficients.tasks
        ('cars', 'pets')
        >>> am.evaluate(fit, labelled)["task"].tolist()
        ['cars', 'pets']
    """
    _check_names(experts, data)
    one_of("statistics", statistics, MODES)
    one_of("recalibrate", recalibrate, RECALIBRATE)
    check_setting(setting)
    options = resolve({"paper": RECIPE}, "paper", steps=steps, lr=lr, batches=batches)
    run = Adaptation(options, "test", seed, setting, resolve_device(device), progress)
    model = unwrapped(model)
    parts = take_apart(model, pretrained, experts, private, factored=vectors == "plain")
    clamp = starts_at_published(vectors) if clamp is None else clamp
    tv = split(parts.tv, vectors, keep)
    start, plain_init = started(init, tv, vectors, granularity)
    hyper = {"granularity": granularity, "vectors": called(vectors), **options, "init": plain_init, "clamp": clamp}
    hyper |= {"keep": keep} if vectors == "ties" else {}
    hyper |= {"objective": _plain(objective), "combine": combine, "seed": seed, "setting": setting}
    hyper |= {"guard": True} if guard else {}
    hyper |= {"private": [private] if isinstance(private, str) else list(private), "statistics": statistics}
    terms = _terms(objective, combine, parts.tv.tasks, run)
    speed = speed_terms(tv, passes=passes, autocast=autocast, vectors_dtype=vectors_dtype, compile=False)
    hyper |= {"passes": passes, "autocast": autocast, "vectors_dtype": vectors_dtype}
    count = max(1, options["steps"] * options["batches"])
    least = 2 if layers(model) else 1  # one input has no variance
    streams = {
        task: Batches(
            data[task], task, seed=seed, inductive=setting == "inductive", count=count, least=least, guarded=guard
        )
        for task in tv.tasks
    }
    engine = Engine(model, parts, logits, run, statistics, streams, taught=needs_experts(objective))
    watch = engine.guard() if guard else None
    before = engine.check(tv, start.clamp(0, 1) if clamp is True else start, granularity)
    fit, seconds, memory = measured(
        lambda: learn(
            engine.source, tv, list(streams.values()), start, run=run, method="adapted", hyper=hyper,
            granularity=granularity, clamp=clamp, terms=terms | speed, checkpoint=checkpoint, callback=callback,
            guard=watch,
        ),
        run.device,
    )  # fmt: skip
    return replace(engine.finished(fit, before, recalibrate), seconds=seconds, memory=memory)


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside torch.compile's, DataParallel's and the like, by whose names checkpoints are saved."""
    while isinstance(inside := getattr(model, "_orig_mod", None) or _parallel(model), nn.Module):
        model = inside
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model is a {type(model).__name__}: give a torch.nn.Module")
    return model


def _parallel(model: nn.Module) -> nn.Module | None:
    kinds = nn.DataParallel, nn.parallel.DistributedDataParallel
    return model.module if isinstance(model, kinds) else None


def _check_names(experts: Mapping[str, Given], data: Mapping[str, Iterable[Any]]) -> None:
    for what, given in (("experts", experts), ("data", data)):
        if not isinstance(given, Mapping):
            raise ValueError(f"{what} is a {type(given).__name__}: give a dict, task → …")
    for task in experts:
        if not isinstance(task, str) or not _TASK.fullmatch(task):
            raise ValueError(f"task name {task!r} should be letters, digits, '_', '-' and '.': it names files")
    if missing := [task for task in experts if task not in data]:
        raise ValueError(f"data has no batches of {', '.join(missing)}: give some, unlabelled ones, or leave it out")
    if unknown := [task for task in data if task not in experts]:
        told = f"data names {', '.join(map(repr, unknown))}, which is not an expert's task"
        raise ValueError(f"{told}: {', '.join(experts)}")


def _terms(objective: Objective, combine: str | None, tasks: Sequence[str], run: Adaptation) -> dict[str, Any]:
    """The fields of the objective that the arguments of these names stand for."""
    named = objective if isinstance(objective, Mapping) else None
    terms = loss_terms(named, combine, tasks, seed=run.seed, device=run.device)
    if isinstance(objective, str):
        one_of("objective", objective, OBJECTIVES)
        if objective == "imitation":
            terms["loss"] = imitation_loss
    elif callable(objective):
        terms["loss"] = tuple(_own_loss(objective, task) for task in tasks)
    elif named is None:
        raise ValueError(f"objective={objective!r} is unknown: give 'entropy', 'imitation', a mapping or a function")
    return terms


def _own_loss(objective: Callable[[str, Tensor], Tensor], task: str) -> Loss:
    def loss(scores: Tensor, labels: Tensor | None, batches: int) -> Tensor:
        value = objective(task, scores)
        if not isinstance(value, Tensor) or value.dim() or not value.requires_grad:
            raise ValueError(
                f"the objective gives no number that depends on the logits of {task!r}: return a tensor of one"
            )
        return value * batches

    return loss


def _plain(objective: Objective) -> Any:
    if callable(objective):
        return f"{getattr(objective, '__module__', '')}.{getattr(objective, '__qualname__', type(objective).__name__)}"
    return dict(objective) if isinstance(objective, Mapping) else objective
