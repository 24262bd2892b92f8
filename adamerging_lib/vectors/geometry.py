"""How task vectors lie to θ0 and to each other: norms, angles, conflicts of sign."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..task_vectors import TaskVectors


def cosines(tv: TaskVectors) -> pd.DataFrame:
    """cos(T_j, T_k) = ⟨T_j, T_k⟩ / (‖T_j‖ ‖T_k‖) over all tensors: tasks × tasks.

    Source:
        Ilharco et al. 2023 report that task vectors of CLIP models are nearly orthogonal.
    """
    return _cosines(_gram(tv).numpy(), tv.tasks)


def relative_norms(tv: TaskVectors) -> pd.Series:
    """‖T_k‖ / ‖θ0‖ of every task: how far fine-tuning moved."""
    base = sum(tv.pretrained[key].double().square().sum() for key in tv.vectors).sqrt().cpu()
    return pd.Series((_gram(tv).diagonal().sqrt() / base).numpy(), index=list(tv.tasks))


@dataclass(frozen=True)
class Part:
    """One tensor's share of a geometry.

    Arguments:
        shape: of the tensor.
        gram: ⟨T_j, T_k⟩ ``[K, K]``.
        along: ⟨θ0, T_k⟩ ``[K]``.
        base: ‖θ0‖².
        changed: entries of T_k that are not zero ``[K]``.
        against: of these, whose sign is not that of Σ_j T_j ``[K]``.
        equal: whether T_j and T_k are equal to the last bit ``[K, K]``.
        ranks: effective rank of each T_k ``[K]``; None where the tensor is not a matrix, or ranks were not asked for.
    """

    shape: tuple[int, ...]
    gram: np.ndarray
    along: np.ndarray
    base: float
    changed: np.ndarray
    against: np.ndarray
    equal: np.ndarray
    ranks: np.ndarray | None = None


@dataclass(frozen=True)
class Geometry:
    """How K task vectors lie to θ0 and to each other, tensor by tensor; see `geometry`.

    Arguments:
        tasks: K names.
        parts: tensor name → its share.
    """

    tasks: tuple[str, ...]
    parts: Mapping[str, Part]

    def total(self, field: str) -> np.ndarray:
        """A field of `Part` summed over all tensors."""
        shape = {"gram": (len(self.tasks),) * 2, "base": ()}.get(field, len(self.tasks))
        return sum((getattr(part, field) for part in self.parts.values()), np.zeros(shape))

    @property
    def norms(self) -> np.ndarray:
        """‖T_k‖ ``[K]``."""
        return np.sqrt(self.total("gram").diagonal())

    @property
    def relative(self) -> np.ndarray:
        """‖T_k‖ / ‖θ0‖ ``[K]``; from a θ0 of zeros every other model is infinitely far."""
        base = float(self.total("base"))
        return self.norms / base**0.5 if base else np.where(self.norms == 0, 0.0, np.inf)

    @property
    def cosines(self) -> pd.DataFrame:
        """cos(T_j, T_k): tasks × tasks; 0 where one of the two is zero."""
        return _cosines(self.total("gram"), self.tasks)

    @property
    def equal(self) -> np.ndarray:
        """Whether T_j and T_k are equal to the last bit ``[K, K]``."""
        whole = np.ones((len(self.tasks),) * 2, dtype=bool)
        return np.logical_and.reduce([whole, *(part.equal for part in self.parts.values())])

    @property
    def effective_ranks(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each T_k ``[K]``: mean effective rank of its matrices, and that as a share of what noise would have.

        Matrices count by ‖T_k‖². Noise of shape [m, n] has an effective rank of about m n / (m + n). NaN where no
        matrix of a task differs from θ0's, or ranks were not asked for.
        """
        known = [part for part in self.parts.values() if part.ranks is not None]
        weights = np.array([part.gram.diagonal() for part in known]).reshape(-1, len(self.tasks))
        noise = np.array([noise_rank(part.shape) for part in known])
        ranks = np.array([part.ranks for part in known]).reshape(weights.shape)
        moved = weights > 0  # a zero matrix has no rank
        total = np.where(moved.any(0), weights.sum(0), np.nan)
        weighted = np.where(moved, weights * ranks, 0)
        return weighted.sum(0) / total, (weighted / noise.reshape(-1, 1)).sum(0) / total


def geometry(tv: TaskVectors, *, ranks: bool = False) -> Geometry:
    """Measure how task vectors lie to θ0 and to each other, in one pass over the tensors; they may be read lazily.

    Arguments:
        tv: θ0 and T_k.
        ranks: whether effective ranks are measured too, see `effective_rank`.
    """
    tensors = ((key, t.shape[1:], [(tv.pretrained[key], t)]) for key, t in tv.vectors.items())
    return measured(tv.tasks, tensors, ranks=ranks)


Pieces = Iterable[tuple[Tensor, Tensor]]
"""Of one tensor θ0 and T ``[K, *shape]``; in one piece, or flat in several."""


def measured(
    tasks: Sequence[str], tensors: Iterable[tuple[str, Sequence[int], Pieces]], *, ranks: bool = False
) -> Geometry:
    """As `geometry`, of tensors that come one after another.

    Arguments:
        tasks: K names.
        tensors: name, shape, and numbers of every tensor.
        ranks: whether effective ranks are measured too; matrices then come in one piece.
    """
    return Geometry(tuple(tasks), {key: _part(len(tasks), shape, found, ranks) for key, shape, found in tensors})


def _part(k: int, shape: Sequence[int], pieces: Pieces, ranks: bool) -> Part:
    gram, (changed, against) = np.zeros((1 + k, 1 + k)), np.zeros((2, k), dtype=np.int64)
    equal, found = np.ones((k, k), dtype=bool), None
    for base, t in pieces:
        flat, row = t.reshape(k, base.numel()), base.reshape(1, -1)
        for at in range(0, flat.shape[1], _CACHED):
            piece = flat[:, at : at + _CACHED]
            products = _product([row[:, at : at + _CACHED], piece]).numpy()
            signs = piece.sign()
            gram += products
            changed += _counted(signs.abs())
            against += _counted(signs.mul_(piece.sum(0).sign_()).clamp_(max=0).neg_())
            equal &= _equal(piece, products[1:, 1:])
        if ranks and is_matrix(shape):
            found = np.array([effective_rank(own) for own in t])
    return Part(tuple(shape), gram[1:, 1:], gram[0, 1:], float(gram[0, 0]), changed, against, equal, found)


# Entries that are looked at together: they stay in the processor's cache, which makes it three times as fast.
_CACHED = 1 << 16


def _counted(ones: Tensor) -> np.ndarray:
    """How many ones are in each row of ones and zeros; as a sum of floats, exact below 2²⁴, which is fastest."""
    return ones.sum(1).cpu().numpy().astype(np.int64)


def _equal(t: Tensor, gram: np.ndarray) -> np.ndarray:
    equal, products = np.eye(len(t), dtype=bool), gram.tolist()  # lists: most tensors are small, and many
    for j, row in enumerate(products):
        for k in range(j + 1, len(row)):
            # Only those are compared entry by entry that may be equal: of honest experts none.
            if max(abs(row[k] - row[j]), abs(row[k] - products[k][k])) <= 1e-9 * row[j]:
                equal[j, k] = equal[k, j] = not row[j] or torch.equal(t[j], t[k])
    return equal


def is_matrix(shape: Sequence[int]) -> bool:
    """Whether a tensor is a matrix, or a convolution that can be read as one, with two rows and columns at least."""
    return len(shape) >= 2 and shape[0] > 1 and prod(shape[1:]) > 1


def noise_rank(shape: Sequence[int]) -> float:
    """About the effective rank that a matrix of independent random numbers has: m n / (m + n)."""
    m, n = shape[0], prod(shape[1:])
    return m * n / (m + n)


_SMALL, _PROBES = 256, 64


def effective_rank(t: Tensor) -> float:
    """(Σ σ²)² / Σ σ⁴ of a matrix: r where r singular values are equal and the others zero; NaN of a zero matrix.

    Exact, by the Gram matrix of the smaller side, where that has at most 256 rows. Of larger matrices Σ σ⁴ = ‖T Tᵀ‖² is
    estimated without bias by 64 random vectors g of a fixed seed, as the mean of ‖T Tᵀ g‖², which costs as much as 128
    products of the matrix with a vector.

    Arguments:
        t: a matrix ``[m, n]``; of a tensor of more dimensions, all but the first count as columns.
    """
    flat = t.reshape(len(t), -1)
    flat = flat.T if flat.shape[0] > flat.shape[1] else flat
    length = torch.linalg.vector_norm(flat, dtype=torch.float64)
    if not length:
        return float("nan")
    flat = flat / length  # so that no square overflows or vanishes
    if len(flat) <= _SMALL:
        fourth = float((flat @ flat.T).square().sum(dtype=torch.float64))
    else:
        generator = torch.Generator().manual_seed(0)
        probes = torch.randn(len(flat), _PROBES, generator=generator).to(flat)
        fourth = float((flat @ (flat.T @ probes)).square().sum(dtype=torch.float64)) / _PROBES
    return 1 / fourth


def compare(found: Geometry) -> pd.DataFrame:
    """How the task vectors lie to θ0 and to each other, as a table.

    Arguments:
        found: of `geometry`.

    Returns:
        One row per task: ``norm`` ‖T_k‖, ``relative`` ‖T_k‖ / ‖θ0‖, ``changed`` share of entries that are not zero,
        ``conflict`` share of these whose sign is not that of Σ_j T_j, ``nearest`` the task with the largest
        ``cosine``, and that cosine.
    """
    size, changed = sum(prod(part.shape) for part in found.parts.values()), found.total("changed")
    frame = pd.DataFrame({"norm": found.norms, "relative": found.relative}, index=list(found.tasks))
    frame["changed"] = changed / max(size, 1)
    frame["conflict"] = found.total("against") / changed.clip(1)
    others = found.cosines.where(~np.eye(len(found.tasks), dtype=bool))
    single = len(found.tasks) == 1
    frame["nearest"] = None if single else others.idxmax(axis=1)
    frame["cosine"] = None if single else others.max(axis=1)
    return frame


def _cosines(gram: np.ndarray, tasks: tuple[str, ...]) -> pd.DataFrame:
    norms = np.sqrt(gram.diagonal())
    values = gram / np.maximum(norms[:, None] * norms, np.finfo(gram.dtype).tiny)
    return pd.DataFrame(values, index=list(tasks), columns=list(tasks))


def _gram(tv: TaskVectors) -> Tensor:
    """⟨T_j, T_k⟩ ``[K, K]``, summed over tensors in float64."""
    return sum(_gram_of(t) for t in tv.vectors.values())


def _gram_of(t: Tensor) -> Tensor:
    flat = t.reshape(len(t), t[0].numel())
    # A piece at a time: a large embedding in float64 would take twice the memory of all models' embeddings.
    return sum(_product([flat[:, at : at + _PIECE]]) for at in range(0, max(1, flat.shape[1]), _PIECE))


_PIECE = 1 << 20


def _product(rows: Sequence[Tensor]) -> Tensor:
    """Inner products, in float64, of the rows of matrices of one width."""
    last = rows[-1]
    wide = last.new_empty((sum(map(len, rows)), last.shape[1]), dtype=torch.float64)
    at = 0
    for row in rows:
        wide[at : at + len(row)] = row
        at += len(row)
    return (wide @ wide.T).cpu()
