"""The one registry: method id → function, with what it needs, what it keeps, and where it comes from."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..merged import Merged
from ..published.competitions import BOUNDS, NEEDS, competition, competitions, gives
from ..runtime.values import Parameter, few, nearest
from ..task_vectors import TaskVectors, check_merged


@dataclass(frozen=True)
class Method:
    """A registered method; the fields are the arguments of `register`."""

    id: str
    label: str
    function: Callable[..., Merged]
    needs: str
    task_specific: str
    task_id: bool
    static: bool
    source: str
    takes: str
    adaptive: bool
    trains: bool
    streams: bool | Callable[..., Any]
    linear: bool | Callable[..., bool]
    entrywise: bool

    @property
    def gives(self) -> str:
        """The kind of model that comes out, one of ``competitions.GIVES``."""
        return gives(self.static, self.task_specific)

    @property
    def competition(self) -> str:
        """The competition that it is in: what it needs, and what kind of model comes out."""
        return competition(self.id, self.needs, self.gives)


_METHODS: dict[str, Method] = {}


def register(
    id: str,
    *,
    label: str,
    needs: str,
    source: str,
    task_specific: str = "nothing",
    task_id: bool = False,
    static: bool = True,
    takes: str = "task_vectors",
    adaptive: bool = False,
    trains: bool = False,
    streams: bool | Callable[..., Any] = False,
    linear: bool | Callable[..., bool] = False,
    entrywise: bool = False,
) -> Callable[[Callable[..., Merged]], Callable[..., Merged]]:
    """Decorator: make a function known as a method.

    Arguments:
        id: method id, as in records and commands.
        label: name in tables and figures.
        needs: what it needs beyond checkpoints and heads, one of ``NEEDS``.
        source: paper and section.
        task_specific: what it keeps per task beyond one encoder and the zero-shot heads, in numbers (formula).
        task_id: whether inference must know the task for more than the choice of the head.
        static: whether one encoder, the same for every task and image, is what comes out.
        takes: ``task_vectors`` or ``suite``, the function's only positional argument.
        adaptive: whether it learns from images by a seeded run; such fits are cached and take ``seed, setting,
            device, progress``, see `learns`.
        trains: whether it reads ``suite.train``; its fits are then kept under those images' digests too.
        streams: whether each tensor can be merged without the others. True: the function, given one tensor, gives
            that tensor of the whole result. A function ``survey(tv, **hyper)``: the same, once it has what survey
            found out about all tensors as second positional argument.
        entrywise: whether, of a tensor that is merged without the others, each entry can be merged alone too.
        linear: whether the result is θ0 + Σ_k λ_k T_k with λ that hyper-parameters and names alone decide, so that a
            merge of adapters is an adapter. A function ``linear(**hyper)``: whether it is with these.
    """
    if needs not in NEEDS:
        raise ValueError(f"method {id!r} needs {needs!r}: say one of {', '.join(NEEDS)}")

    def decorate(function: Callable[..., Merged]) -> Callable[..., Merged]:
        if id in _METHODS:
            raise ValueError(f"method id {id!r} is registered twice")
        _METHODS[id] = Method(
            id,
            label,
            function,
            needs,
            task_specific,
            task_id,
            static,
            source,
            takes,
            adaptive,
            trains,
            streams,
            linear,
            entrywise,
        )
        return function

    return decorate


def find(id: str) -> Method:
    """The registered method of an id; an unknown one is a ValueError that suggests the nearest."""
    if id not in _METHODS:
        raise ValueError(f"method {id!r} is unknown: {nearest(id, _METHODS)}Known methods: {', '.join(_METHODS)}")
    return _METHODS[id]


def hyper_parameters(method: Method) -> dict[str, Parameter]:
    """The method's hyper-parameters by name, with types and defaults."""
    parameters = inspect.signature(method.function).parameters.items()
    # What a partial has fixed belongs to the method's id.
    fixed = getattr(method.function, "keywords", {})
    return {
        name: Parameter(p.annotation, p.default)
        for name, p in parameters
        if p.kind is p.KEYWORD_ONLY and name not in fixed
    }


def check_hyper(method: Method, hyper: dict[str, Any]) -> None:
    """Raise ValueError for hyper-parameters that the method does not have, listing those it has."""
    known = hyper_parameters(method)
    if unknown := [name for name in hyper if name not in known]:
        raise ValueError(
            f"{method.id} has no hyper-parameter {', '.join(map(repr, unknown))}; known: {', '.join(known) or 'none'}"
        )


def methods() -> pd.DataFrame:
    """List all methods by id, with columns label, needs, task_specific (numbers per task), task_id, static and source.

    Reference points come first, then one competition after another, see `competitions`; within one, sorted by label.

    Example:
        >>> am.methods().loc["ties", ["label", "needs"]].tolist()
        ['Ties-Merging', 'nothing']
    """
    columns = ["id", "label", "needs", "task_specific", "task_id", "static", "source"]
    ordered = sorted(_METHODS.values(), key=_place)
    return pd.DataFrame([[getattr(m, c) for c in columns] for m in ordered], columns=columns).set_index("id")


def _place(method: Method) -> tuple[int, int, str]:
    reference = BOUNDS.index(method.id) if method.id in BOUNDS else 0
    return competitions().index(method.competition), reference, method.label.casefold()


def merge(method_id: str, task_vectors: TaskVectors, **hyper: Any) -> Merged:
    """Merge with a method that needs nothing but checkpoints.

    Arguments:
        method_id: one of `methods`.
        task_vectors: θ0 and T_k.
        hyper: the method's keyword arguments.

    Raises:
        ValueError: for an unknown id or hyper-parameter, a method that needs images (use `run_method`), or a merged
            number that is too large for its type.

    Warns:
        UserWarning: where the models have running statistics, which are averaged and must be recalibrated.

    Example:
        >>> tv = am.TaskVectors.from_state_dicts(base, experts)
        >>> am.merge("ties", tv, scaling=0.3, keep=0.2).tasks
        ('cars', 'pets')
    """
    method = find(method_id)
    if method.takes != "task_vectors":
        raise ValueError(f"{method_id} needs {method.needs}: use run_method({method_id!r}, suite)")
    check_hyper(method, hyper)
    merged = method.function(task_vectors, **hyper)
    if merged.state is not None:
        check_merged(task_vectors, merged.state)
    if task_vectors.statistics and method_id != "zero_shot":
        warnings.warn(recalibrate(task_vectors.statistics), stacklevel=2)
    return merged


def recalibrate(statistics: Collection[str]) -> str:
    """What to say of a merged model that has running statistics, named here."""
    return (
        f"running statistics are averaged over the experts ({few(list(statistics))}): they are not those of the merged "
        f"model, which must be recalibrated before it is used, by passes over images in training mode without steps"
    )
