"""Inputs of linear maps, also those that attention hides, against a forward written out by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import toy
from byhand import CLIP_NAMES, TIMM_NAMES, block
from short import SHORT
from torch import nn
from torch.func import functional_call

import adamerging_lib as am
from adamerging_lib.forward import features
from adamerging_lib.probing.activations import gram_matrices, recording, training_images
from adamerging_lib.probing.blocks import BlockChain
from adamerging_lib.worlds.encoders import MiniConfig, mini_clip


def timm_vit() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 0}
        return VisionTransformer(**sizes, norm_layer=nn.LayerNorm).eval()


@pytest.fixture(scope="module", params=["toy", "open_clip", "timm"])
def model(request) -> tuple[nn.Module, dict[str, torch.Tensor], int]:
    """Encoder, state dict, image size."""
    if request.param == "toy":
        suite = toy.suite(seed=0)
        return suite.encoder, suite.pretrained, 8
    encoder = mini_clip(MiniConfig(layers=2)).visual.eval() if request.param == "open_clip" else timm_vit()
    return encoder, encoder.state_dict(), 32 if request.param == "open_clip" else 8


def images(n: int, size: int) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def recorded(encoder, state, x) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    calls: dict[str, list[torch.Tensor]] = {}
    with torch.no_grad(), recording(encoder, lambda name, t: calls.setdefault(name, []).append(t)):
        out = functional_call(encoder, dict(state), (x,))
    assert all(len(seen) == 1 for seen in calls.values())
    return out, {name: seen[0] for name, seen in calls.items()}


def test_outputs_stay_and_every_input_is_the_one_by_hand(model):
    encoder, state, size = model
    x = images(3, size)
    with torch.no_grad():
        plain = functional_call(encoder, dict(state), (x,))
    out, inputs = recorded(encoder, state, x)
    torch.testing.assert_close(out, plain, rtol=1e-6, atol=1e-6)
    names = TIMM_NAMES if "norm.weight" in state else CLIP_NAMES
    chain = BlockChain(encoder, state, x[:1])
    with torch.no_grad():
        tokens = chain.enter(state, x)
    expected = {}
    heads = next(p.num_heads for p in encoder.modules() if hasattr(p, "num_heads"))
    for index, prefix in enumerate(chain.prefixes):
        with torch.no_grad():
            ran = chain.run(index, state, tokens)
            tokens, seen = block(state, prefix, tokens, heads, names)
        torch.testing.assert_close(ran, tokens, rtol=1e-5, atol=1e-5)
        expected |= seen
    assert inputs.keys() == expected.keys()
    for name, t in expected.items():
        torch.testing.assert_close(inputs[name], t, rtol=1e-5, atol=1e-5, msg=name)


def test_grams_do_not_depend_on_batches_and_nothing_is_left_behind(model):
    encoder, state, size = model
    x = images(5, size)
    before = [dict(vars(part)) for part in encoder.modules()]

    def run(batch):
        return features(encoder, state, batch)

    whole, parts = (gram_matrices(encoder, run, x.split(n)) for n in (5, 2))
    _, inputs = recorded(encoder, state, x)
    assert whole.keys() == parts.keys() == inputs.keys()
    for name, t in inputs.items():
        flat = t.reshape(-1, t.shape[-1]).double()
        torch.testing.assert_close(whole[name], flat.t() @ flat / len(flat), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-5, atol=1e-6)
    assert [dict(vars(part)) for part in encoder.modules()] == before
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in encoder.modules())


def test_sequence_first_attention():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        attention = nn.MultiheadAttention(16, 2).eval()
    x = torch.randn(5, 3, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = attention(x, x, x, need_weights=False)[0]
        with recording(attention, lambda name, t: None):
            torch.testing.assert_close(attention(x, x, x)[0], plain, rtol=1e-6, atol=1e-6)


def test_attention_that_cannot_be_recorded():
    attention = nn.MultiheadAttention(16, 2, batch_first=True).eval()
    x = torch.zeros(1, 4, 16)
    with recording(attention, lambda name, t: None), pytest.raises(ValueError, match="only unmasked self-attention"):
        attention(x, x.clone(), x)
    with recording(attention, lambda name, t: None), pytest.raises(ValueError, match="only unmasked self-attention"):
        attention(x, x, x, attn_mask=torch.zeros(4, 4))

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.in_proj_weight = nn.Parameter(torch.zeros(12, 4))

    with pytest.raises(ValueError, match="in_proj_weight belongs to a Own"):
        with recording(nn.Sequential(attention, Own()), lambda name, t: None):
            pass
    assert "forward" not in vars(attention), "a refused module is left as it was"


def test_training_images_are_distinct_and_seeded(suite):
    drawn = training_images(suite, 20, 0)
    assert list(drawn) == list(suite.tasks)
    for task, part in drawn.items():
        pool = {image.numpy().tobytes() for image in suite.train[task].images}
        chosen = [image.numpy().tobytes() for image in part]
        assert len(set(chosen)) == 20 and set(chosen) <= pool
        assert torch.equal(training_images(suite, 20, 0)[task], part)
        assert not torch.equal(training_images(suite, 20, 1)[task], part)
    assert all(len(part) == 30 for part in training_images(suite, 1000, 0).values())
    with pytest.raises(ValueError, match="images=0 must be a whole number of at least 1"):
        training_images(suite, 0, 0)


@pytest.mark.parametrize("method", ["fisher", "regmean", "regmean_pp", "prodistill"])
def test_methods_that_look_inside_work_on_another_library_s_encoder(suite, method):
    encoder, generator = timm_vit(), torch.Generator().manual_seed(0)
    pretrained = {key: t.clone() for key, t in encoder.state_dict().items()}
    experts = {task: toy.noise(pretrained, 0.05, generator) for task in suite.tasks}
    heads = {task: torch.randn(len(head), 16, generator=generator) for task, head in suite.heads.items()}
    other = dataclasses.replace(suite, encoder=encoder, pretrained=pretrained, experts=experts, heads=heads)
    merged = am.run_method(method, other, cache=False, progress=False, **SHORT[method]).state_dict()
    averaged = am.run_method("weight_averaging", other, cache=False).state_dict()
    assert all(bool(torch.isfinite(t).all()) for t in merged.values())
    same = [key for key, t in merged.items() if torch.allclose(t, averaged[key])]
    maps = [key for key in merged if key.startswith("blocks.") and key.endswith("weight") and "norm" not in key]
    assert len(maps) == 8 and not set(maps) & set(same)


class Odd(nn.Module):
    """Blocks by the right name, in a chain that a merge cannot follow."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.blocks = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(2)[..., :3]
        if self.how == "twice":
            return self.blocks[0](self.blocks[0](x))
        if self.how == "changed":
            return self.blocks[1](self.blocks[0](x) + 1)
        if self.how == "turned":
            x = x.transpose(0, 1)
        return self.blocks[1](self.blocks[0](x))


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), "has no transformer blocks named"),
        (Odd("twice"), "its blocks are not called once each"),
        (Odd("changed"), "it changes the tokens between blocks"),
        (Odd("turned"), r"its blocks take \[3, 1, 3\] for one image, not \[1, tokens, width\]"),
    ],
)
def test_encoders_that_are_no_chain(encoder, message):
    with pytest.raises(ValueError, match=message):
        BlockChain(encoder, encoder.state_dict(), torch.zeros(1, 3, 2, 2))
