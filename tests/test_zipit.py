"""ZipIt's matching: experts shuffled by hand must come back, and permuting must change nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import toy
from strategies import assert_close, copy
from torch import nn

import adamerging_lib as am
from adamerging_lib.forward import features
from adamerging_lib.methods.zipit import correlations, matching, parts_of, unit_matches, zipit

QUIET = {"images": 20, "progress": False}


@pytest.fixture(scope="module")
def exact_suite():
    """Experts that stay near θ0, as fine-tuned ones do, over spread-out weights: units then tell themselves apart."""
    suite = toy.suite(seed=4, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    experts = {task: toy.noise(suite.pretrained, 0.005, generator) for task in suite.tasks}
    return dataclasses.replace(suite, experts=experts)


def shuffled_by_hand(state, seed: int) -> dict[str, torch.Tensor]:
    """An expert of width 16 with 2 heads and 32 units whose hidden units and heads changed places, index by index."""
    state, generator = copy(dict(state)), torch.Generator().manual_seed(seed)
    for block in ("transformer.resblocks.0.", "transformer.resblocks.1."):
        units = torch.randperm(32, generator=generator).tolist()
        old = copy(state)
        for i, j in enumerate(units):
            state[f"{block}mlp.c_fc.weight"][i] = old[f"{block}mlp.c_fc.weight"][j]
            state[f"{block}mlp.c_fc.bias"][i] = old[f"{block}mlp.c_fc.bias"][j]
            state[f"{block}mlp.c_proj.weight"][:, i] = old[f"{block}mlp.c_proj.weight"][:, j]
        for part in range(3):
            for head in range(2):
                to = slice(16 * part + 8 * head, 16 * part + 8 * head + 8)
                source = slice(16 * part + 8 * (1 - head), 16 * part + 8 * (1 - head) + 8)
                for name in ("attn.in_proj_weight", "attn.in_proj_bias"):
                    state[block + name][to] = old[block + name][source]
        state[f"{block}attn.out_proj.weight"] = old[f"{block}attn.out_proj.weight"].roll(8, 1)
    return state


def outputs(suite, state) -> torch.Tensor:
    images = suite.normalise(suite.test["alpha"].images).double()
    with torch.no_grad():
        return features(suite.encoder, state, images)


def test_a_shuffled_expert_computes_the_same_and_is_brought_back_exactly(exact_suite):
    shuffled = shuffled_by_hand(exact_suite.experts["beta"], seed=1)
    torch.testing.assert_close(outputs(exact_suite, shuffled), outputs(exact_suite, exact_suite.experts["beta"]))
    mixed = dataclasses.replace(exact_suite, experts={**exact_suite.experts, "beta": shuffled})
    restored, plain = zipit(mixed, **QUIET).state_dict(), zipit(exact_suite, **QUIET).state_dict()
    assert_close(restored, plain, rtol=0, atol=1e-15)
    table = unit_matches(mixed, **QUIET)
    moved = table[table.task == "beta"].set_index(["block", "kind"]).in_place
    assert (moved.xs("attention heads", level="kind") == 0).all()
    assert (moved.xs("MLP units", level="kind") < 0.2).all()
    averaged = am.run_method("weight_averaging", mixed, cache=False).state_dict()
    assert not torch.allclose(
        restored["transformer.resblocks.0.mlp.c_fc.weight"], averaged["transformer.resblocks.0.mlp.c_fc.weight"]
    )


def test_without_shuffling_it_is_the_average(exact_suite):
    table = unit_matches(exact_suite, **QUIET)
    assert list(table.columns) == ["task", "block", "kind", "units", "in_place"]
    assert len(table) == 2 * 2 * 2 and (table.in_place == 1).all() and set(table.units) == {2, 32}
    averaged = am.run_method("weight_averaging", exact_suite, cache=False).state_dict()
    assert_close(zipit(exact_suite, **QUIET).state_dict(), averaged, rtol=0, atol=1e-15)


def test_shuffled_copies_of_one_expert_are_that_expert(exact_suite):
    one = dict(exact_suite.experts["alpha"])
    copies = {"alpha": one, "beta": shuffled_by_hand(one, 1), "gamma": shuffled_by_hand(one, 2)}
    merged = zipit(dataclasses.replace(exact_suite, experts=copies), **QUIET)
    assert_close(merged.state_dict(), one)


def test_correlations_against_numpy(exact_suite):
    images = exact_suite.normalise(exact_suite.test["alpha"].images).double()
    first, other = exact_suite.experts["alpha"], exact_suite.experts["beta"]
    name = "transformer.resblocks.1.mlp.c_proj.weight"
    seen = []
    for state in (first, other):
        model = toy.ToyViT().double().eval()
        model.load_state_dict(state)
        model.transformer.resblocks[1].mlp.c_proj.register_forward_pre_hook(lambda m, x: seen.append(x[0].detach()))
        model(images)
    x, y = (t.reshape(-1, 32).numpy() for t in seen)
    expected = np.corrcoef(x, y, rowvar=False)[:32, 32:]
    found = correlations(exact_suite.encoder, first, other, images.split(7), [name])
    assert list(found) == [name]
    np.testing.assert_allclose(found[name].numpy(), expected, atol=1e-9)
    flat = {**first, name.replace("c_proj", "c_fc"): torch.zeros(32, 16, dtype=torch.float64)}
    constant = correlations(exact_suite.encoder, flat, other, [images], [name])[name]
    assert bool(torch.isfinite(constant).all()) and float(constant.abs().max()) < 1e-3


def test_matching_takes_the_largest_total_not_the_greediest():
    similarity = torch.tensor([[0.9, 0.8], [0.85, 0.1]], dtype=torch.float64)
    assert matching(similarity, 2).tolist() == [1, 0]
    # Heads of two channels: only like channels count.
    channels = torch.tensor([[0, 1, 0.9, 0], [1, 0, 0, 0.9], [0.9, 0, 0, 1], [0, 0.9, 1, 0]], dtype=torch.float64)
    assert matching(channels, 2).tolist() == [1, 0]


@pytest.mark.parametrize("separate", [False, True])
def test_layouts_of_other_libraries(separate):
    """timm's fused qkv and Hugging Face's separate maps: any order of units must leave the function alone."""

    class Attention(nn.Module):
        num_heads = 2

        def __init__(self) -> None:
            super().__init__()
            names = ("q_proj", "k_proj", "v_proj", "out_proj") if separate else ("proj",)
            for name in names:
                self.add_module(name, nn.Linear(4, 4))
            if not separate:
                self.qkv = nn.Linear(4, 12, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = (self.q_proj(x), self.k_proj(x), self.v_proj(x)) if separate else self.qkv(x).chunk(3, -1)
            q, k, v = (t.unflatten(-1, (2, 2)).transpose(1, 2) for t in (q, k, v))
            y = ((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2)
            return self.out_proj(y) if separate else self.proj(y)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("self_attn" if separate else "attn", Attention())
            self.mlp = nn.Sequential()
            self.mlp.add_module("fc1", nn.Linear(4, 6))
            self.mlp.add_module("act", nn.GELU())
            self.mlp.add_module("fc2", nn.Linear(6, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.mlp(x + (self.self_attn if separate else self.attn)(x))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.ModuleDict({"blocks": nn.Sequential(Block(), Block())}).double()
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        before = model["blocks"](x)
        state = model.state_dict()
        parts = list(parts_of(model, state))
        assert sorted((p.block, p.kind, p.count) for p in parts) == [
            (f"blocks.{b}", kind, n) for b in (0, 1) for kind, n in (("MLP units", 6), ("attention heads", 2))
        ]
        for part in parts:
            order = torch.arange(part.count).roll(1)
            moved = part.permuted(state, order)
            assert not torch.equal(moved[part.columns], state[part.columns])
            state |= moved
        model.load_state_dict(state)
        torch.testing.assert_close(model["blocks"](x), before)


def test_unknown_layouts():
    with pytest.raises(ValueError, match="has no MLP or attention of a known layout"):
        list(parts_of(nn.Linear(2, 2), {"weight": torch.zeros(2, 2)}))
    gated = {"blocks.0.mlp.fc1.weight": torch.zeros(9, 4), "blocks.0.mlp.fc2.weight": torch.zeros(4, 6)}
    with pytest.raises(ValueError, match="'blocks.0.mlp.fc2.weight' takes 6 .* 'mlp.fc1.weight'"):
        list(parts_of(nn.Linear(2, 2), gated))
