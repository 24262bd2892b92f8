"""LiNeS against plain loops, for the three ways of naming transformer blocks."""

from __future__ import annotations

import pytest
import torch
from loops import lists, moved, vectors_of
from strategies import assert_close

from adamerging_lib import TaskVectors, merge
from adamerging_lib.methods.consensus import consensus_vector
from adamerging_lib.methods.ties import ties_vector

BLOCKS = (
    "transformer.resblocks.{}.ln_1.weight",
    "vision_model.encoder.layers.{}.mlp.fc1.weight",
    "blocks.{}.norm1.bias",
)
OUTSIDE = ("positional_embedding", "vision_model.embeddings.class_embedding", "pos_embed")


def model(pattern: str, outside: str, blocks: int = 12) -> TaskVectors:
    """Two tasks of a model with one tensor a block; blocks come in the order of text, not of numbers."""
    generator = torch.Generator().manual_seed(blocks)
    names = [outside, *sorted(pattern.format(i) for i in range(blocks))]
    draw = [{name: torch.randn(3, generator=generator, dtype=torch.float64) for name in names} for _ in range(3)]
    return TaskVectors.from_state_dicts(draw[0], {"one": draw[1], "other": draw[2]})


@pytest.mark.parametrize(("pattern", "outside"), list(zip(BLOCKS, OUTSIDE, strict=True)))
def test_against_plain_loops(pattern, outside):
    tv, alpha, beta = model(pattern, outside), 0.2, 0.7
    state = merge("lines", tv, alpha=alpha, beta=beta).state_dict()
    for key, t in tv.vectors.items():
        numbers = [part for part in key.split(".") if part.isdigit()]
        scaling = alpha + (beta * int(numbers[0]) / 11 if numbers else 0)
        for entry in range(3):
            expected = float(tv.pretrained[key][entry]) + scaling * sum(float(t[k, entry]) for k in range(2))
            assert float(state[key][entry]) == pytest.approx(expected, abs=1e-12)


def test_alpha_of_the_bases(task_vectors):
    """1/K where τ is the sum itself; where less is in τ, more of it is taken, in the ratio of the L1 norms."""
    tv = task_vectors
    summed = sum(abs(sum(column)) for column in zip(*lists(tv), strict=True))
    for base, vector in (
        ("task_arithmetic", {key: t.sum(0) for key, t in tv.vectors.items()}),
        ("ties", ties_vector(tv, 0.2, "mean")),
        ("consensus_ta", consensus_vector(tv, 0.4, 2)),
    ):
        merged = merge("lines", tv, base=base, beta=0.0)
        left = sum(abs(v) for t in vector.values() for v in t.reshape(-1).tolist())
        assert merged.hyper["alpha"] == pytest.approx(summed / left / 3, rel=1e-5)
        expected = {
            key: t + merged.hyper["alpha"] * vector[key] if key in vector else t for key, t in tv.pretrained.items()
        }
        assert_close(merged.state_dict(), expected)
    assert merge("lines", tv).hyper["alpha"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("base", ["task_arithmetic", "ties", "consensus_ta"])
def test_scaling_law(task_vectors, base):
    """Task vectors c times as long move the model c times as far: α is a ratio of norms."""
    tv = task_vectors
    longer = tv.replace({key: 2 * t for key, t in tv.vectors.items()})
    once, twice = (moved(v, merge("lines", v, base=base).state_dict()) for v in (tv, longer))
    torch.testing.assert_close(torch.tensor(twice), 2 * torch.tensor(once), atol=1e-5, rtol=1e-4)


def test_one_block_takes_alpha():
    tv = model(BLOCKS[0], OUTSIDE[0], blocks=1)
    merged = merge("lines", tv, alpha=0.3).state_dict()
    assert_close(merged, merge("task_arithmetic", tv, scaling=0.3).state_dict())


def test_text_tower_takes_alpha():
    tv = model("vision_model.encoder.layers.{}.x", "text_model.encoder.layers.7.x")
    state = merge("lines", tv, alpha=0.1, beta=0.5).state_dict()
    expected = merge("task_arithmetic", tv, scaling=0.1).state_dict()["text_model.encoder.layers.7.x"]
    torch.testing.assert_close(state["text_model.encoder.layers.7.x"], expected)


def test_a_model_without_blocks_and_an_unknown_base(task_vectors):
    with pytest.raises(ValueError, match="finds no transformer blocks .* use ties itself"):
        merge("lines", vectors_of([1.0, 2.0]), base="ties")
    with pytest.raises(ValueError, match="base 'dare' is unknown; choose from task_arithmetic, ties, consensus_ta"):
        merge("lines", task_vectors, base="dare")
