"""A base and its experts, taken apart: what is merged, what each task keeps, statistics, and what is copied."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from ..adapters.expert import AdapterExpert
from ..adapters.source import is_adapter, open_adapter
from ..checkpoints.reading import open_source
from ..files.kinds import is_copied, is_derived, is_mask, is_statistic, layout_of, same_numbers
from ..files.names import dropped
from ..runtime.values import few
from ..state import CheckpointError, StateDict, accumulation_dtype, averaged, check_finite
from ..task_vectors import TaskVectors
from ..vectors.lowrank import Factors

Given = StateDict | str | os.PathLike[str]


@dataclass(frozen=True)
class Parts:
    """A base and its experts, taken apart.

    Arguments:
        tv: θ0 with everything that is shared (statistics as the experts' average), and the vectors of what is merged.
        private: task → the tensors that it keeps for itself.
        statistics: task → its expert's own statistics of activations, such as BatchNorm's.
        ties: name → name of the tensor that the model itself ties it to; only the latter are in the states.
    """

    tv: TaskVectors
    private: dict[str, dict[str, Tensor]]
    statistics: dict[str, dict[str, Tensor]]
    ties: dict[str, str]


def open_state(given: Given, base: StateDict | None = None) -> StateDict:
    """A state dict, as it is or of a file or folder; an adapter becomes the base with it.

    Arguments:
        given: state dict; or a checkpoint as a file or folder, none of which is executed; or an adapter's folder.
        base: state dict of θ0, for adapters.

    Raises:
        CheckpointError: naming the file and the mend.
    """
    if isinstance(given, Mapping):
        return given
    if isinstance(given, nn.Module):
        raise CheckpointError(f"a {type(given).__name__} is a module, not a state dict: give its .state_dict()")
    if not isinstance(given, str | os.PathLike):
        raise CheckpointError(f"a {type(given).__name__} is not a checkpoint: give a state dict, a file or a folder")
    if not is_adapter(given):
        return open_source(Path(given)).tensors
    if base is None:
        raise CheckpointError(f"{given} is an adapter, not a model: give the base that it changes as pretrained")
    return AdapterExpert(open_adapter(given), base)


def take_apart(
    model: nn.Module,
    pretrained: Given,
    experts: Mapping[str, Given],
    private: str | Sequence[str] = (),
    *,
    factored: bool = True,
) -> Parts:
    """Open and check all checkpoints, and say which tensor is what.

    Arguments:
        model: the template; its weights are not used, its names and shapes are.
        pretrained: θ0, see `open_state`.
        experts: task → θ_k.
        private: patterns of the names of tensors that each task keeps, as in ``head.*``.
        factored: where all experts are adapters, keep their products as `Factors`.

    Raises:
        CheckpointError: for checkpoints that do not fit the model or each other, with the tensors and the mend.
        ValueError: for a pattern that fits nothing or tears apart what belongs together.
    """
    if not experts:
        raise CheckpointError("no experts to merge: give at least one task with its checkpoint")
    base = open_state(pretrained)
    own, ties = _names(model)
    kept = private_names(model, private)
    needed = own.keys() - ties.keys()
    views = {
        task: _View(open_state(given, base), own, ties, f"expert {task!r}", needed) for task, given in experts.items()
    }
    base = _View(base, own, ties, "pretrained", needed - kept, extra=True)
    shared = [name for name in own if name in needed - kept]
    _check_shapes(own, base, views, shared)
    copied, statistics, merged = _kinds(model, base, views, shared)
    if not merged:
        raise ValueError(f"private={private!r} leaves no tensor to merge: name the heads only")
    small = _factors(base, merged, views) if factored else {}
    whole = [name for name in merged if name not in small]
    tv = TaskVectors(tuple(views), {}, {})
    if whole:
        tv = TaskVectors.from_state_dicts(base.only(whole), {task: state.only(whole) for task, state in views.items()})
    if small:
        base.check_finite(small)
        tv = replace(
            tv,
            pretrained={**tv.pretrained, **{name: base[name] for name in small}},
            vectors={name: small.get(name, tv.vectors.get(name)) for name in merged if name not in tv.tied},
        )
    extra = {name: base[name].detach().clone() for name in copied}
    for name in statistics:
        extra[name] = averaged(name, base[name], {task: state[name] for task, state in views.items()})
    mine = [name for name in own if name in needed & kept]
    for view in views.values():
        view.check_finite((*mine, *statistics))
    return Parts(
        replace(tv, pretrained={**tv.pretrained, **extra}),
        {task: {name: state[name].detach().clone() for name in mine} for task, state in views.items()},
        {task: {name: state[name].detach().clone() for name in statistics} for task, state in views.items()},
        ties,
    )


def _factors(base: StateDict, names: Sequence[str], views: Mapping[str, _View]) -> dict[str, Factors]:
    """Name → factors, of the tensors to which adapters add products and nothing else."""
    found = {}
    changes = {task: view.changes for task, view in views.items()}
    for name in names if None not in changes.values() else ():
        own = [known.get(view.place(name)) for known, view in zip(changes.values(), views.values(), strict=True)]
        if any(change is not None and (change.whole or change.bias) for change in own):
            continue
        wide = accumulation_dtype(base[name].dtype)
        products = [
            [product.matrices(view.source.tensors, wide) for product in change.products] if change is not None else []
            for change, view in zip(own, views.values(), strict=True)
        ]
        if any(products):
            first = next(product for change in own if change is not None for product in change.products)
            found[name] = Factors.of(products, first.shape)
    return found


def private_names(model: nn.Module, private: str | Sequence[str]) -> set[str]:
    """Names of a model's tensors that patterns name.

    Raises:
        ValueError: for a pattern that fits nothing, a weight that would be private while its bias is merged, or a
            tensor that would be private under one of its names only.
    """
    own, ties = _names(model)
    patterns = [private] if isinstance(private, str) else list(private)
    kept = dropped(own, patterns) if patterns else set()
    for name in sorted(kept):
        module, _, last = name.rpartition(".")
        bias = f"{module}.bias" if module else "bias"
        if last == "weight" and bias in own and bias not in kept:
            raise ValueError(f"{name!r} is private and {bias!r} would be merged: give private={pattern(module)!r}")
    for name, home in ties.items():
        if (name in kept) != (home in kept):
            raise ValueError(
                f"{name!r} and {home!r} are one tensor of the model (tied), and private={private!r} names only one of "
                f"them: name both, or none"
            )
    return kept


def pattern(module: str) -> str:
    """What names all tensors of a module."""
    return f"{module}.*" if module else "*"


def _names(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A model's tensors by name, and of those that are one object the later names with the first."""
    own = model.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    ties = {name: home for name, t in own.items() if (home := first.setdefault(id(t), name)) != name}
    return dict(own), ties


class _View(Mapping[str, Tensor]):
    """A state dict under a model's names: every tensor that the model has, once.

    Arguments:
        state: as it was given.
        own: the model's tensors.
        ties: see `Parts`.
        owner: what messages call it.
        needed: names that must be there.
        extra: whether it may have others, as a base has a head that no task uses.
    """

    def __init__(
        self,
        state: StateDict,
        own: StateDict,
        ties: Mapping[str, str],
        owner: str,
        needed: set[str],
        extra: bool = False,
    ) -> None:
        self._state, self._own, self.owner = state, own, owner
        layout = layout_of(state)
        others = {home: [name for name in ties if ties[name] == home] for home in set(ties.values())}
        self._where = {}
        for name in own:
            if name not in ties and (found := next((n for n in (name, *others.get(name, ())) if n in layout), None)):
                self._where[name] = found
        filled = {name for name in needed - self._where.keys() if is_copied(name, own[name])}
        if missing := sorted(needed - self._where.keys() - filled):
            raise CheckpointError(_missing(missing, owner, [name for name in layout if name not in own]))
        strange = [] if extra else [n for n in layout if n not in own and not is_derived(n, layout[n])]
        if strange:
            raise CheckpointError(
                f"{owner} has {few(strange)}, which the model does not have: give the model that it was made with"
            )
        self._filled = filled
        adapter = state if isinstance(state, AdapterExpert) else None
        self.changes = None if adapter is None else adapter.changes
        self.source = None if adapter is None else adapter.source
        if hasattr(state, "difference"):
            self.difference = lambda key: state.difference(self._where[key])
        for name, home in ties.items():
            if {name, home} <= layout.keys() and not same_numbers(state[name], state[home]):
                raise CheckpointError(
                    f"{name!r} and {home!r} are one tensor of the model (tied), and {owner} has two different ones: "
                    f"build the model without that tie"
                )

    def __getitem__(self, name: str) -> Tensor:
        return self._own[name].detach() if name in self._filled else self._state[self._where[name]]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._own if name in self._where or name in self._filled)

    def __len__(self) -> int:
        return len(self._where) + len(self._filled)

    def __contains__(self, name: object) -> bool:  # Mapping's own would read the tensor
        return name in self._where or name in self._filled

    def place(self, name: str) -> str:
        """The name of a tensor in the state dict itself."""
        return self._where.get(name, name)

    def check_finite(self, names: Iterable[str]) -> None:
        """Raise CheckpointError where one of these tensors holds NaN or Inf."""
        for name in names:
            check_finite(name, self.owner.removeprefix("expert ").strip("'"), self[name])

    def unchanged(self, name: str) -> bool:
        """Whether an adapter leaves a tensor as it is in the base."""
        return self.changes is not None and self.place(name) not in self.changes

    def like(self, name: str) -> Tensor:
        """A tensor of the same shape and type, which need not be read."""
        return self._own[name] if name in self._filled else layout_of(self._state)[self._where[name]]

    def only(self, names: Sequence[str]) -> StateDict:
        """The part with these names; what makes differences without rounding still does."""
        part = _Part({name: self for name in names})
        if hasattr(self, "difference"):
            part.difference = self.difference
        return part


class _Part(Mapping[str, Tensor]):
    def __init__(self, views: Mapping[str, _View]) -> None:
        self._views = views

    def __getitem__(self, name: str) -> Tensor:
        return self._views[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)


def _missing(missing: Sequence[str], owner: str, others: Sequence[str]) -> str:
    told = f"{owner} lacks {few(missing)}, which the model has"
    for wrapper in ("module.", "_orig_mod.", "model."):
        if any(name.startswith(wrapper) for name in others):
            return f"{told}; its names begin with {wrapper!r}: give {{k.removeprefix({wrapper!r}): v for k, v in …}}"
    if owner == "pretrained":
        modules = sorted({name.rpartition(".")[0] for name in missing})
        named = ", ".join(repr(pattern(module)) for module in modules[:3])
        told += f". If these are heads that every task has for itself: private=[{named}]"
        return told + ("; else it is the base of another model" if len(modules) > 1 else "")
    return f"{told}: is it of another model? It has {few(list(others))} that the model does not have"


def _check_shapes(own: StateDict, base: _View, experts: Mapping[str, _View], shared: Sequence[str]) -> None:
    views = {"pretrained": base, **experts}
    apart = []
    for name in shared:
        shapes = {owner: list(view.like(name).shape) for owner, view in views.items()}
        if len({tuple(shape) for shape in shapes.values()}) > 1:
            apart.append((name, shapes))
        elif shapes["pretrained"] != list(own[name].shape):
            raise CheckpointError(
                f"{name!r} is {shapes['pretrained']} in the checkpoints and {list(own[name].shape)} in the model: "
                f"build the model as they were"
            )
        for owner, view in views.items():
            if (kind := view.like(name).dtype) != base.like(name).dtype:
                raise CheckpointError(
                    f"{name!r} is {kind} in {owner} and {base.like(name).dtype} in pretrained: cast one of them, such "
                    f"as {{name: t.to({base.like(name).dtype}) for name, t in state.items()}}"
                )
    if apart:
        modules = dict.fromkeys(name.rpartition(".")[0] for name, _ in apart)
        patterns = [pattern(module) for module in modules]
        told = "; ".join(
            f"{name!r} is " + ", ".join(f"{s} in {o}" for o, s in shapes.items()) for name, shapes in apart[:3]
        )
        more = f" and {len(apart) - 3} more" if len(apart) > 3 else ""
        mend = repr(patterns[0] if len(patterns) == 1 else patterns)
        raise CheckpointError(
            f"{told}{more}: tensors of different size cannot be merged. Where they are the tasks' own heads, give "
            f"private={mend}"
        )


def _kinds(
    model: nn.Module, base: _View, experts: Mapping[str, _View], shared: Sequence[str]
) -> tuple[list[str], list[str], list[str]]:
    """Names of what is copied from θ0, of statistics, and of what is merged."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    copied, statistics, merged = [], [], []
    for name in shared:
        tensor = base[name]
        if name not in parameters and is_statistic(name) and tensor.is_floating_point():
            statistics.append(name)
        elif is_copied(name, tensor) or is_mask(tensor):
            if tensor.dim() and not is_derived(name, tensor):
                _check_equal(name, tensor, experts)
            copied.append(name)
        elif all(state.unchanged(name) for state in experts.values()):
            copied.append(name)
        elif name not in parameters and all(same_numbers(tensor, state[name]) for state in experts.values()):
            copied.append(name)
        else:
            merged.append(name)
    return copied, statistics, merged


def _check_equal(name: str, tensor: Tensor, experts: Mapping[str, _View]) -> None:
    for task, state in experts.items():
        if not same_numbers(tensor, state[name]):
            raise CheckpointError(
                f"{name!r} of expert {task!r} holds {tensor.dtype} values that differ from pretrained's, which cannot "
                f"be merged: give private={name!r} too"
            )
