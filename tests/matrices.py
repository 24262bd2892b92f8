"""Task vectors of one matrix, with the tensors around it that spectral methods treat otherwise."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from adamerging_lib import TaskVectors

KEY = "blocks.0.mlp.weight"

shapes = st.sampled_from([(5, 8), (8, 5), (6, 6)])
seeds = st.integers(0, 10_000)
counts = st.integers(1, 4)


def of_matrices(*stack: Tensor) -> TaskVectors:
    """θ0 and experts whose difference in ``KEY`` is the k-th matrix; convolution, bias and text projection besides."""
    generator = torch.Generator().manual_seed(1)
    others = {"conv1.weight": (2, 3, 2, 2), "blocks.0.mlp.bias": (3,), "text_projection": (4, 4)}

    def around() -> dict[str, Tensor]:
        return {k: torch.randn(shape, generator=generator, dtype=stack[0].dtype) for k, shape in others.items()}

    pretrained = {KEY: torch.zeros_like(stack[0]), **around()}
    return TaskVectors.from_state_dicts(pretrained, {f"t{k}": {KEY: t, **around()} for k, t in enumerate(stack)})


def draw(seed: int, shape: tuple[int, int], tasks: int, scale: float = 1.0) -> list[Tensor]:
    """Random float64 matrices of full rank."""
    generator = torch.Generator().manual_seed(seed)
    return list(scale * torch.randn(tasks, *shape, generator=generator, dtype=torch.float64))


def moved(tv: TaskVectors, state: dict[str, Tensor]) -> Tensor:
    """What a method added to the matrix."""
    return state[KEY] - tv.pretrained[KEY]


def assert_others_are_means(tv: TaskVectors, state: dict[str, Tensor], scaling: float = 1.0) -> None:
    for key, t in tv.vectors.items():
        if key != KEY:
            torch.testing.assert_close(state[key], tv.pretrained[key] + scaling * t.mean(0))
