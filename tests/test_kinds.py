"""What tensors are beside weights: what shows it, and what does not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adamerging_lib.files import kinds

INF = float("inf")
FLOAT, HALF, FP8 = torch.zeros(4, 4), torch.zeros(4, 4).half(), torch.zeros(4, 4).to(torch.float8_e4m3fn)
INT8, UINT8, INT32 = (torch.zeros(4, 4, dtype=t) for t in (torch.int8, torch.uint8, torch.int32))
UINT32, INT64 = torch.zeros(4, 4, dtype=torch.uint32), torch.zeros(4, 4, dtype=torch.int64)

QUANTISED = {
    "bitsandbytes int8": {"a.b.weight": INT8, "a.b.SCB": FLOAT},
    "bitsandbytes nf4": {"b.weight": UINT8, "b.weight.absmax": FLOAT, "b.weight.quant_state.bitsandbytes__nf4": UINT8},
    "its map alone": {"b.weight": UINT8, "b.weight.quant_map": FLOAT},
    "GPTQ": {"q_proj.qweight": INT32, "q_proj.qzeros": INT32, "q_proj.scales": HALF, "q_proj.g_idx": INT32},
    "without its scales": {"q_proj.qweight": INT32},
    "fp8 in blocks": {"layers.0.w.weight": FP8, "layers.0.w.weight_scale_inv": FLOAT},
    "fp8 per tensor": {"w.weight": FP8, "w.weight_scale": FLOAT, "w.input_scale": FLOAT},
    "fp8 of experts": {"mlp.experts.gate_up_proj": FP8, "mlp.experts.gate_up_proj_scale": FLOAT},
    "fp8 with an input scale alone": {"w.weight": FP8, "w.input_scale": FLOAT},
    "compressed-tensors": {"w.weight_packed": INT32, "w.weight_scale": HALF, "w.weight_shape": INT64},
    "compressed-tensors int8": {"w.weight": INT8, "w.weight_scale": HALF},
    "NVFP4": {"w.weight": UINT8, "w.weight_scale": FP8, "w.weight_scale_2": FLOAT},
    "MXFP4": {"e.gate_up_proj_blocks": UINT8, "e.gate_up_proj_scales": UINT8},
    "HQQ": {"l.W_q": UINT8, "l.scale": HALF, "l.zero": HALF},
    "MLX": {"l.weight": UINT32, "l.scales": HALF, "l.biases": HALF},
    "quanto": {"l.weight._data": INT8, "l.weight._scale": HALF},
    "torchao": {"l.weight:qdata": INT8, "l.weight:scale": HALF},
    "EETQ": {"l.weight": INT8, "l.weight_scales": HALF},
    "AQLM": {"l.codes": INT8, "l.codebooks": HALF, "l.scales": HALF},
    "ComfyUI": {"l.weight": FP8, "l.scale_weight": FLOAT},
    "at the root": {"weight": INT8, "scale": FLOAT},
    "four bits": {"w": torch.empty(4, 4, dtype=torch.float4_e2m1fn_x2)},
}
ORDINARY = {
    "layer scale": {"blocks.0.scales": FLOAT, "blocks.0.weight": FLOAT, "blocks.0.ls1.gamma": FLOAT},
    "scale of half precision": {"l.weight": HALF, "l.scale": HALF, "l.weight_scale": HALF},
    "absmax of a float": {"l.weight": FLOAT, "l.absmax": FLOAT},
    "a query matrix": {"attn.W_q": FLOAT, "attn.scale": FLOAT},
    "plain fp8": {"l.weight": FP8, "l.bias": FP8},
    "plain fp8 with a learned temperature": {"attn.in_proj_weight": FP8, "attn.logit_scale": FLOAT},
    "a causal mask": {"attn.bias": UINT8, "attn.scale": FLOAT},
    "Swin's index": {"attn.relative_position_index": INT64, "attn.logit_scale": FLOAT},
    "scales of another module": {"a.weight": FP8, "b.weight_scale": FLOAT},
    "counters": {"bn.weight": FLOAT, "bn.num_batches_tracked": torch.tensor(3)},
}


@pytest.mark.parametrize("name", QUANTISED)
@pytest.mark.parametrize("before", ["", "model.layers.11."])
def test_quantised_weights_are_seen(name, before):
    layout = {before + key: t.to("meta") for key, t in QUANTISED[name].items()} | {"norm.weight": FLOAT}
    told = kinds.quantised(layout)
    assert told is not None and any(repr(key) in told for key in layout)


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_names_are_not(name):
    assert kinds.quantised(ORDINARY[name]) is None


@pytest.mark.parametrize(
    "name",
    ["bn.running_mean", "running_var", "norm.moving_variance", "bn.moving_mean", "a.running_std",
     "bn.running_avg_var", "batch_stats.bn.mean", "batch_stats/bn/var"],
)  # fmt: skip
def test_statistics(name):
    assert kinds.is_statistic(name)
    assert kinds.is_spread(name) == ("var" in name or "std" in name)


@pytest.mark.parametrize("name", ["bn.weight", "mean.weight", "running_shoes.weight", "variance_head.bias", "var"])
def test_weights_are_no_statistics(name):
    assert not kinds.is_statistic(name) and not kinds.is_spread(name)


@pytest.mark.parametrize(
    ("name", "tensor", "copied"),
    [
        ("a.position_ids", INT64, True),
        ("a.weight", INT8, True),
        ("a.weight", torch.zeros(0, 4), True),
        ("a.weight", FLOAT, False),
        ("bn.num_batches_tracked", torch.tensor(3.0), True),
        ("layers.0.self_attn.rotary_emb.inv_freq", torch.rand(4), True),
        ("h.0.attn.bias", torch.ones(1, 1, 4, 4), True),
        ("h.0.attn.bias", torch.ones(4), False),
        ("h.0.attn.masked_bias", torch.tensor(-1e4), True),
        ("logit_scale", torch.tensor(1.0), False),
    ],
)
def test_what_is_copied(name, tensor, copied):
    assert kinds.is_copied(name, tensor) == copied


def test_masks():
    causal = torch.full((3, 3), -INF).triu(1)
    assert kinds.is_mask(causal) and kinds.is_mask(causal.half()) and kinds.is_mask(torch.full((2,), -INF))
    for broken in (FLOAT, -causal, torch.tensor([-INF, 1.0, 2.0]), torch.tensor([-INF, float("nan")]), torch.zeros(0)):
        assert not kinds.is_mask(broken)


def test_equal_bits_and_numbers():
    nan = torch.tensor([float("nan"), 0.0])
    assert kinds.same_bits(nan, nan.clone()) and not kinds.same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert not kinds.same_bits(torch.zeros(2), torch.zeros(2).half())
    tril = torch.ones(3, 3).tril()
    assert all(kinds.same_numbers(tril, tril.to(t)) for t in (torch.bool, torch.uint8, torch.int64, torch.float16))
    assert not kinds.same_numbers(tril.byte(), 2 * tril.byte()) and not kinds.same_numbers(tril, tril[None])


@given(st.integers(0, 1000), st.integers(1, 4), st.permutations(["a", "b", "c", "d", "e"]))
def test_ties_are_what_is_equal_in_every_model(seed, models, order):
    generator = torch.Generator().manual_seed(seed)
    states = []
    for _ in range(models):
        one, other = torch.randn(2, 3, generator=generator), torch.randn(2, 3, generator=generator)
        state = {"a": one, "b": one.clone(), "c": one.t().contiguous(), "d": other, "e": one.double()}
        states.append({key: state[key] for key in order})
    assert kinds.ties(states, order) == {"b": "a"}
    states[-1]["b"] = states[-1]["b"] + 1
    assert kinds.ties(states, order) == {}


def test_constants_are_no_ties():
    zero, one = torch.zeros(4), torch.ones(4)
    assert kinds.ties([{"a": zero, "b": zero}, {"a": one, "b": one}], "ab") == {}
    ramp = torch.arange(4.0)
    assert kinds.ties([{"a": zero, "b": zero}, {"a": ramp, "b": ramp}], "ab") == {"b": "a"}


def test_a_difference_between_the_sampled_entries_is_seen():
    long = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    other = long.clone()
    other[1] += 1
    assert kinds.sample(long) == kinds.sample(other)
    assert kinds.ties([{"a": long, "b": other}], "ab") == {}
