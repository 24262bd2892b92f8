"""Task vectors of one tensor as products of small factors, as of LoRA: T_k = B_k A_k, never multiplied out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """T ``[K, *shape]`` of K tasks, T_k = B_k A_k, of any rank each, none among them.

    Arguments:
        b: all B_k side by side ``[m, R]``.
        a: all A_k below each other ``[R, n]``.
        owner: task of each of the R columns and rows, int64 ``[R]``.
        tasks: K.
        shape: of the tensor, m·n numbers.
    """

    b: Tensor
    a: Tensor
    owner: Tensor
    tasks: int
    shape: torch.Size

    @classmethod
    def of(cls, products: Sequence[Sequence[tuple[Tensor, Tensor]]], shape: torch.Size) -> Factors:
        """From each task's pairs (B ``[m, r]``, A ``[r, n]``); a task may have none, but not all of them."""
        pairs = [(k, pair) for k, own in enumerate(products) for pair in own]
        owner = torch.tensor([k for k, (b, _) in pairs for _ in range(b.shape[1])], dtype=torch.int64)
        b, a = (torch.cat([pair[i] for _, pair in pairs], 1 - i).contiguous() for i in (0, 1))
        return cls(b, a, owner, len(products), shape)

    def __len__(self) -> int:
        return self.tasks

    def __getitem__(self, k: int) -> Tensor:
        """T_k, multiplied out."""
        if not 0 <= k < self.tasks:
            raise IndexError(k)  # which ends an iteration
        own = self.owner == k
        return (self.b[:, own] @ self.a[own]).view(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Of the factors."""
        return self.b.dtype

    @property
    def device(self) -> torch.device:
        """Of the factors."""
        return self.b.device

    @property
    def nbytes(self) -> int:
        """Of the factors."""
        return self.b.nbytes + self.a.nbytes + self.owner.nbytes

    def is_floating_point(self) -> bool:
        """True."""
        return True

    def to(self, *given: object) -> Factors:
        """On another device or in another type, as of tensors."""
        b = self.b.to(*given)
        return replace(self, b=b, a=self.a.to(*given), owner=self.owner.to(b.device))

    def added(self, base: Tensor, coefficients: Tensor) -> Tensor:
        """θ0 + Σ_k c_k B_k A_k, of the base's shape, for c ``[K]``; one product of matrices."""
        scaled = self.b * coefficients[self.owner]
        return torch.addmm(base.reshape(len(scaled), -1), scaled, self.a).view(base.shape)

    def products(self, gradient: Tensor) -> Tensor:
        """⟨G, T_k⟩ = ⟨B_kᵀ G, A_k⟩, ``[K]``."""
        small = self.b.t() @ gradient.reshape(self.b.shape[0], -1).to(self.b)
        return self.b.new_zeros(self.tasks).index_add_(0, self.owner, (small * self.a).sum(1))
