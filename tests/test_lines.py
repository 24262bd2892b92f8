"""LiNeS against plain loops, for several ways of naming blocks."""

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
    """Two tasks of a model with one tensor per block; blocks come in the order of text, not of numbers."""
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


def sublayers(side: str, block: int) -> list[str]:
    """T5's names of one block: self-attention, in the decoder cross-attention, and the feed-forward layer."""
    inner = ["SelfAttention.q", *["EncDecAttention.q"] * (side == "decoder"), "DenseReluDense.wi"]
    return [
        f"{side}.block.{block}.layer.{n}.{kind}.weight" for n, one in enumerate(inner) for kind in (one, "layer_norm")
    ]


def staged(pattern: str, depths: tuple[int, ...], first: int = 0) -> list[list[str]]:
    """One tensor for each block, whose numbers start again in every stage."""
    return [[pattern.format(stage, block)] for stage, depth in enumerate(depths, first) for block in range(depth)]


# Model → its stacks, each a list of blocks from the first to the last.
NESTED = {
    "T5": [
        [sublayers("encoder", block) for block in range(4)],
        [sublayers("decoder", block) for block in range(3)],
    ],
    "Swin": [staged("layers.{}.blocks.{}.norm1.weight", (2, 2, 6, 2))],
    "ConvNeXt": [staged("stages.{}.blocks.{}.norm.weight", (2, 1, 3))],
    "ResNet": [staged("layer{}.{}.conv1.weight", (2, 2, 2, 2), first=1)],
    "their ResNet": [staged("resnet.encoder.stages.{}.layers.{}.layer.1.convolution.weight", (2, 3))],
    "DINOv2 in chunks": [[[f"blocks.{block // 3}.{block}.attn.qkv.weight"] for block in range(12)]],
}


@pytest.mark.parametrize("case", NESTED)
def test_numbers_within_numbers(case):
    """Each stack's blocks from first to last, whatever numbers stand in them; all else by α."""
    alpha, beta, outside = 0.5, 0.7, ["shared.weight", "final_layer_norm.weight"]
    names = [name for blocks in NESTED[case] for block in blocks for name in block] + outside
    state = merge("lines", vectors_named(sorted(names)), alpha=alpha, beta=beta).state_dict()
    for name in outside:
        assert float(state[name]) == pytest.approx(alpha * 3)
    for blocks in NESTED[case]:
        for depth, block in enumerate(blocks):
            for name in block:
                assert float(state[name]) == pytest.approx((alpha + beta * depth / (len(blocks) - 1)) * 3), name


def vectors_named(names: list[str]) -> TaskVectors:
    """θ0 = 0, experts of ones and of twos."""
    states = [{name: torch.full((1,), value, dtype=torch.float64) for name in names} for value in (0.0, 1.0, 2.0)]
    return TaskVectors.from_state_dicts(states[0], {"one": states[1], "two": states[2]})


def test_blocks_of_unknown_depth_are_refused():
    """Groups of blocks within a block: scaled by the outer number, all blocks of a group would be of one depth."""
    modules = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    names = [f"layers.{s}.residual_group.blocks.{b}.{m}.weight" for s in range(2) for b in range(2) for m in modules]
    with pytest.raises(ValueError, match=r"layers\.N\.residual_group\.blocks\.N .* use task_arithmetic itself"):
        merge("lines", vectors_named(names))


def test_a_model_without_blocks_and_an_unknown_base(task_vectors):
    with pytest.raises(ValueError, match="finds no transformer blocks .* use ties itself"):
        merge("lines", vectors_of([1.0, 2.0]), base="ties")
    with pytest.raises(ValueError, match="base 'dare' is unknown"):
        merge("lines", task_vectors, base="dare")
