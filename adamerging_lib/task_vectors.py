"""Task vectors T_k = θ_k − θ0, the merge θ(λ) = θ0 + Σ_k λ_k T_k, and its exact gradient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .files.align import Options, align
from .files.kinds import is_copied, is_statistic, layout_of, ties
from .layers import block_order, block_rows
from .runtime.devices import sent
from .runtime.values import few
from .state import (
    CheckpointError,
    StateDict,
    accumulation_dtype,
    averaged,
    check_codes,
    is_finite,
    is_merged,
    narrowed,
    vectors_of,
)
from .vectors.lowrank import Factors

GRANULARITIES = ("task", "block", "module", "tensor", "component")


@dataclass(frozen=True)
class Rows:
    """Which tensors share a coefficient: row names, and the row of every merged tensor, or its components' rows."""

    names: tuple[str, ...]
    index: Mapping[str, int | slice]


@dataclass(frozen=True)
class TaskVectors:
    """θ0 and the stacked task vectors of K tasks.

    Arguments:
        tasks: K task names.
        pretrained: state dict of θ0, all keys; statistics (see below) are not θ0's but those that merged models get.
        vectors: tensor name → T ``[K, *shape]`` of every tensor that is merged, in θ0's order, float32 or float64;
            narrower ones, made by `to`, are widened one at a time where they are used. For adapters, `adapt` has
            `Factors` there, which merges and gradients take as they are. Not merged, and copied from θ0, are whole
            numbers, empty tensors, counters, buffers that a library derives from its configuration, and what
            is not finite but equal in all models, such as masks of −∞.
        tied: name → name of the tensor whose values it has in θ0 and every θ_k; merged once, under one coefficient.
        statistics: tensor name → running means or variances ``[1 + K, *shape]`` of θ0 and every θ_k. They are no
            weights and have no T: every merged model gets their mean over θ_k, which is only a starting point, and
            must be recalibrated by passes over images before it is used.

    Example:
        >>> tv = am.TaskVectors.from_state_dicts(base, experts)
        >>> state = tv.merge(torch.full((2, 1), 0.3, dtype=torch.float64), "task")  # θ0 + 0.3 (T_cars + T_pets)
        >>> sorted(state)
        ['body.bias', 'body.weight']
    """

    tasks: tuple[str, ...]
    pretrained: StateDict
    vectors: Mapping[str, Tensor]
    tied: Mapping[str, str] = field(default_factory=dict)
    statistics: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def from_state_dicts(
        cls,
        pretrained: StateDict,
        experts: Mapping[str, StateDict] | Iterable[tuple[str, StateDict]],
        *,
        drop: Iterable[str] = (),
        strip: Iterable[str] = (),
        cast: bool = False,
    ) -> TaskVectors:
        """Compute T_k = θ_k − θ0 for every tensor of weights, in float32 (float64 for float64 checkpoints).

        Arguments:
            pretrained: state dict of θ0.
            experts: task name → state dict of θ_k, or (name, state dict) pairs.
            drop, strip, cast: for models that do not fit together, see `files.align.Options`.

        Raises:
            CheckpointError: for a duplicate name, an empty list, or checkpoints that do not fit together.
        """
        if not isinstance(experts, Mapping):
            pairs = list(experts)
            names = [name for name, _ in pairs]
            if duplicates := sorted({name for name in names if names.count(name) > 1}):
                raise CheckpointError(f"task names given twice: {', '.join(duplicates)}; name every expert differently")
            experts = dict(pairs)
        fitting = align(pretrained, experts, Options.of(drop, strip, cast))
        pretrained, experts = fitting.pretrained, fitting.experts
        tied = ties([pretrained, *experts.values()], weights(pretrained))
        start, vectors, statistics = dict(pretrained), {}, {}
        for key, tensor in pretrained.items():
            if is_copied(key, tensor) or is_statistic(key):
                tuned = {task: state[key] for task, state in experts.items()}
                if is_copied(key, tensor):
                    check_codes(key, tensor, tuned)
                else:
                    start[key] = averaged(key, tensor, tuned)
                    statistics[key] = torch.stack([tensor, *tuned.values()]).detach()
            elif key not in tied and (t := vectors_of(key, tensor, experts)) is not None:
                vectors[key] = t
        if not vectors:
            raise CheckpointError(f"no tensor of weights that could be merged is among {few(list(pretrained))}")
        return cls(
            tuple(experts), start, vectors, {key: home for key, home in tied.items() if home in vectors}, statistics
        )

    def only(self, names: Iterable[str]) -> TaskVectors:
        """Restrict the task vectors to some tensors of θ0, as of a model that has no others."""
        parts = {part: getattr(self, part) for part in ("pretrained", "vectors", "tied", "statistics")}
        names = list(names)
        return replace(self, **{part: {n: of[n] for n in names if n in of} for part, of in parts.items()})

    def subset(self, tasks: Sequence[str]) -> TaskVectors:
        """Return the task vectors of only some tasks, in the order given."""
        if unknown := [task for task in tasks if task not in self.tasks]:
            raise ValueError(f"no task vector for {', '.join(map(repr, unknown))}; known: {', '.join(self.tasks)}")
        if not tasks or len(set(tasks)) != len(tasks):
            raise ValueError(f"tasks {list(tasks)} are empty or named twice: give each task once")
        index = [self.tasks.index(task) for task in tasks]
        statistics = {key: t[[0, *(1 + k for k in index)]] for key, t in self.statistics.items()}
        means = {key: averaged(key, t[0], dict(zip(tasks, t[1:], strict=True))) for key, t in statistics.items()}
        return replace(
            self,
            tasks=tuple(tasks),
            pretrained={**self.pretrained, **means} if means else self.pretrained,
            vectors={key: t[index] for key, t in self.vectors.items()},
            statistics=statistics,
        )

    def replace(self, vectors: Mapping[str, Tensor]) -> TaskVectors:
        """Return the same θ0 and tasks with other vectors of the same names and shapes, such as Φ(T_k)."""
        if difference := vectors.keys() ^ self.vectors.keys():
            raise ValueError(f"vectors differ in their names from the task vectors': {sorted(difference)[:5]}")
        for key, own in self.vectors.items():
            if vectors[key].shape != own.shape:
                raise ValueError(f"{key!r} has shape {list(vectors[key].shape)}, expected {list(own.shape)}")
        return replace(self, vectors={key: vectors[key] for key in self.vectors})

    def to(
        self,
        device: torch.device | str | None = None,
        *,
        widen: bool = False,
        vectors_dtype: torch.dtype | None = None,
    ) -> TaskVectors:
        """Move the tensors to a device; ``widen`` also casts half-precision tensors of θ0 to float32, for computing.

        Arguments:
            device: the device; default: leave them where they are.
            widen: see above.
            vectors_dtype: keep the vectors T_k, and only these, in this type.
        """

        def move(t: Tensor) -> Tensor:
            return t.to(device, accumulation_dtype(t.dtype) if widen and is_merged(t) else None)

        return replace(
            self,
            pretrained={key: move(t) for key, t in self.pretrained.items()},
            vectors={
                key: move(t) if vectors_dtype is None else t.to(device, vectors_dtype)
                for key, t in self.vectors.items()
            },
            statistics={key: move(t) for key, t in self.statistics.items()},
        )

    def rows(self, granularity: str) -> Rows:
        """Name the coefficient rows: one for all (task), one per transformer block, one per module, or one per tensor.

        Arguments:
            granularity: ``task``, ``block`` (``embeddings``, ``block_0``, …, ``head``, and ``text`` where a text
                tower came along), ``module`` (weight and bias together), ``tensor`` (the published "layer") or
                ``component`` (of vectors that were taken apart, see `components`; one per tensor for others).
                Blocks and their order are those of `layers`.

        Returns:
            Row names and tensor name → row.
        """
        names = tuple(self.vectors)
        if granularity == "task":
            return Rows(("all",), dict.fromkeys(names, 0))
        if granularity == "tensor":
            return Rows(names, {name: row for row, name in enumerate(names)})
        if granularity == "component":
            return self._components()
        if granularity == "module":
            groups = {name: name.rpartition(".")[0] or name for name in names}
        elif granularity == "block":
            try:
                groups = block_rows(names)
            except ValueError as error:
                raise ValueError(f"granularity 'block': {error}; use 'tensor' or 'module'") from error
        else:
            raise ValueError(f"granularity {granularity!r} is unknown; choose from {', '.join(GRANULARITIES)}")
        order = dict.fromkeys(groups.values())
        if granularity == "block":
            order = sorted(order, key=block_order)
        place = {group: row for row, group in enumerate(order)}
        return Rows(tuple(place), {name: place[group] for name, group in groups.items()})

    def _components(self) -> Rows:
        found, index = [], {}
        for name, t in self.vectors.items():
            pieces = getattr(t, "pieces", None)
            index[name] = len(found) if pieces is None else slice(len(found), len(found) + pieces)
            found += [name] if pieces is None else [f"{name}[{j}]" for j in range(pieces)]
        return Rows(tuple(found), index)

    def merge(self, coefficients: Tensor, granularity: str) -> dict[str, Tensor]:
        """Merge with coefficients λ: θ(λ)^l = θ0^l + Σ_k λ_k^{r(l)} T_k^l.

        Arguments:
            coefficients: λ ``[K, R]``, rows as in ``rows(granularity)``.
            granularity: see `rows`.

        Returns:
            A new state dict in θ0's key order and dtypes; sums run in float32 or wider and are cast once.
            What has no vector is copied, see `TaskVectors`.

        Raises:
            ValueError: for coefficients that do not fit, or where a merged number is too large for its type.
        """
        rows = self.rows(granularity)
        self.check_coefficients(coefficients, rows)
        merged = self._merge(coefficients, rows)
        check_merged(self, merged)
        return merged

    def _merge(self, coefficients: Tensor, rows: Rows) -> dict[str, Tensor]:
        # Unchecked: a fit calls it at every step, where a test for NaN would stall a GPU.
        merged: dict[str, Tensor] = {}
        with torch.no_grad():
            columns: dict[tuple[torch.dtype, torch.device], Tensor] = {}
            for key, base in self.pretrained.items():
                if key in self.tied:
                    merged[key] = base  # its place; the name that it is tied to may come later
                elif key not in self.vectors:
                    merged[key] = base.detach().clone()
                else:
                    t = _wide(self.vectors[key])
                    kind = (t.dtype, t.device)
                    if kind not in columns:
                        columns[kind] = coefficients.detach().to(t.device, t.dtype).t().contiguous()  # [R, K]
                    column, wide = columns[kind][rows.index[key]], base.detach().to(t.device, t.dtype)
                    if isinstance(t, Factors):
                        merged[key] = narrowed(t.added(wide, column), base.dtype)
                        continue
                    flat = torch.addmv(wide.reshape(-1), t.reshape(len(t), base.numel()).t(), column)
                    merged[key] = narrowed(flat.view(base.shape), base.dtype)
        return merged | {key: merged[home] for key, home in self.tied.items()}

    def coefficient_gradient(self, grads: Mapping[str, Tensor | None], granularity: str) -> Tensor:
        """Compute ∂L/∂λ_k^r = Σ_{l in row r} ⟨∂L/∂θ^l, T_k^l⟩, exact because θ(λ) is linear in λ.

        Arguments:
            grads: tensor name → ∂L/∂θ of the same shape, or None where L does not depend on it.
            granularity: see `rows`.

        Returns:
            Gradient ``[K, R]``.
        """
        if missing := self.vectors.keys() - grads.keys():
            raise ValueError(f"no gradient for {sorted(missing)[:5]}: give one per merged tensor, None where unused")
        return self._gradient(grads, self.rows(granularity))

    def _gradient(self, grads: Mapping[str, Tensor | None], rows: Rows) -> Tensor:
        first = next(iter(self.vectors.values()))
        shape, wide = (len(rows.names), len(self.tasks)), accumulation_dtype(first.dtype)
        gradient = torch.zeros(shape, dtype=wide, device=first.device)
        used = [key for key in self.vectors if grads[key] is not None]
        with torch.no_grad():
            products, places = [], []
            for key in used:
                t, g, row = _wide(self.vectors[key]), grads[key].reshape(-1), rows.index[key]
                if isinstance(row, slice):
                    products.append(t.each(g))
                else:
                    factored = isinstance(t, Factors)
                    own = t.products(g) if factored else t.reshape(len(t), g.numel()) @ g.to(t)
                    products.append(own[None])
                places += range(row.start, row.stop) if isinstance(row, slice) else [row]
            if products:
                where = sent(torch.tensor(places), gradient.device)
                gradient.index_add_(0, where, torch.cat([product.to(gradient) for product in products]))
        return gradient.t().contiguous()

    def check_coefficients(self, coefficients: Tensor, rows: Rows) -> None:
        """Raise ValueError unless λ is a finite tensor of shape ``[K, R]``."""
        expected = [len(self.tasks), len(rows.names)]
        if not isinstance(coefficients, Tensor) or list(coefficients.shape) != expected:
            found = list(coefficients.shape) if isinstance(coefficients, Tensor) else type(coefficients).__name__
            raise ValueError(f"coefficients must be a tensor {expected} ([tasks, rows]), got {found}")
        if not bool(torch.isfinite(coefficients).all()):
            raise ValueError("coefficients hold NaN or Inf: give finite numbers")


def _wide(t: Tensor | Factors) -> Tensor | Factors:
    return t.to(accumulation_dtype(t.dtype))


def weights(pretrained: StateDict) -> list[str]:
    """Names of the tensors of θ0 that are merged, as far as names and types tell."""
    layout = layout_of(pretrained)
    return [key for key, t in layout.items() if is_merged(t) and not is_copied(key, t) and not is_statistic(key)]


def check_merged(tv: TaskVectors, state: StateDict) -> None:
    """Raise ValueError where a merged tensor holds NaN or Inf, as half precision does that overflows.

    Arguments:
        tv: what was merged.
        state: what came out; what it copied from θ0 is not looked at.
    """
    for key in tv.vectors:
        if key in state and is_merged(state[key]) and not is_finite(state[key]):
            kind = str(state[key].dtype).removeprefix("torch.")
            raise ValueError(
                f"{key!r} holds NaN or Inf once merged, in {kind}: take a smaller scaling, or merge models that were "
                f"cast to a wider type"
            )
