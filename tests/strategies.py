"""Random little checkpoints for property tests."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

SHAPES = {"conv1.weight": (2, 3), "blocks.0.fc.weight": (4, 2), "blocks.0.fc.bias": (4,), "scale": ()}


def checkpoints(seed: int, tasks: int, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """θ0 and experts with a matrix, a vector, a scalar and an integer buffer."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> dict[str, Tensor]:
        state = {key: torch.randn(shape, generator=generator).to(dtype) for key, shape in SHAPES.items()}
        return {**state, "position_ids": torch.arange(3)}

    return draw(), {f"task_{k}": draw() for k in range(tasks)}


def some_checkpoints(dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64)) -> st.SearchStrategy:
    return st.builds(checkpoints, st.integers(0, 10_000), st.integers(1, 5), st.sampled_from(dtypes))


def copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: t.clone() for key, t in state.items()}


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert list(a) == list(b)
    for key in a:
        assert a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]), key


def assert_close(a: dict[str, Tensor], b: dict[str, Tensor], **tolerance: float) -> None:
    assert list(a) == list(b)
    for key in a:
        torch.testing.assert_close(a[key], b[key], **tolerance)
