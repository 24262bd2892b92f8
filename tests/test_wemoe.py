"""WEMoE against an encoder written out image by image, in both routings, and the published adaptation."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
import toy
from strategies import assert_equal
from torch import nn
from torch.nn import functional as F

import adamerging_lib as am
from adamerging_lib.learning.streams import Stream
from adamerging_lib.methods import run_method, wemoe
from adamerging_lib.methods.wemoe import RECIPES, mlp_vectors
from adamerging_lib.probing import mixtures
from adamerging_lib.suite import split_indices

SHORT = {"steps": 3, "lr": 0.05, "batch_size": 4, "progress": False}


@pytest.fixture(scope="module")
def exact():
    return toy.suite(seed=5, dtype=torch.float64)


def fit(suite, **hyper):
    return run_method("wemoe", suite, cache=False, **{**SHORT, **hyper})


def written_out(suite, merged_state, extra, images, *, by_image):
    """Unit features, block by block and image by image: θ0 + Σ_k r_k T_k of every MLP, merged anew."""
    encoder = suite.encoder
    state = {key: t for key, t in merged_state.items()}

    def part(prefix, module, *args, **kwargs):
        own = {key.removeprefix(prefix): t for key, t in state.items() if key.startswith(prefix)}
        return torch.func.functional_call(module, own, args, kwargs)

    x = part("conv1.", encoder.conv1, images).flatten(2).transpose(1, 2)
    x = torch.cat([state["class_embedding"].expand(len(x), 1, -1), x], 1) + state["positional_embedding"]
    x = part("ln_pre.", encoder.ln_pre, x)
    for b, block in enumerate(encoder.transformer.resblocks):
        name = f"transformer.resblocks.{b}."
        y = part(f"{name}ln_1.", block.ln_1, x)
        x = x + part(f"{name}attn.", block.attn, y, y, y, need_weights=False)[0]
        y = part(f"{name}ln_2.", block.ln_2, x)
        mlp = f"{name}mlp"
        router = {key.split("|")[2]: t for key, t in extra.items() if key.startswith(f"{mlp}|router|")}
        routes = []
        for image in y:
            tokens = image
            if "hidden.weight" in router:
                tokens = F.relu(tokens @ router["hidden.weight"].t() + router["hidden.bias"])
            scores = tokens @ router["weight"].t() + router["bias"] if "weight" in router else router["bias"][None]
            routes.append(scores.mean(0))
        if not by_image:
            routes = [sum(routes) / len(routes)] * len(routes)
        out = []
        for image, route in zip(y, routes, strict=True):
            w = {
                key: suite.pretrained[f"{mlp}.{key}"]
                + sum(
                    route[k] * (suite.experts[task][f"{mlp}.{key}"] - suite.pretrained[f"{mlp}.{key}"])
                    for k, task in enumerate(suite.tasks)
                )
                for key in ("c_fc.weight", "c_fc.bias", "c_proj.weight", "c_proj.bias")
            }
            out.append(
                F.gelu(image @ w["c_fc.weight"].t() + w["c_fc.bias"]) @ w["c_proj.weight"].t() + w["c_proj.bias"]
            )
        x = x + torch.stack(out)
    feature = part("ln_post.", encoder.ln_post, x[:, 0]) @ state["proj"]
    return feature / feature.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("router_layers", [0, 1, 2])
@pytest.mark.parametrize("routing", ["image", "batch"])
def test_features_equal_the_encoder_written_out(exact, routing, router_layers):
    merged = fit(exact, routing=routing, router_layers=router_layers)
    images = exact.normalise(exact.test["beta"].images[:7]).double()
    found = merged.features(exact.encoder, merged.state_dict(), images, "beta")
    expected = written_out(exact, merged.state_dict(), merged.extra, images, by_image=routing == "image")
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("case", [{}, {"routing": "batch", "cosine": False}, {"router_layers": 1}], ids=str)
def test_routers_learn_as_in_the_published_loop(exact, case):
    """Sum of the tasks' mean entropies, one Adam step, cosine schedule; autograd through the encoder written out."""
    options = {"routing": "image", "cosine": True, "router_layers": 2, **case}
    start, found = fit(exact, steps=0, **options), fit(exact, **options)
    extra = {name: t.clone().requires_grad_("|router|" in name) for name, t in start.extra.items()}
    routers = {name: t for name, t in extra.items() if t.requires_grad}
    adam = torch.optim.Adam(routers.values(), lr=SHORT["lr"])
    streams = [Stream(exact.test[task].images, size=4, task=task, seed=0) for task in exact.tasks]
    for step in range(SHORT["steps"]):
        total = 0
        for stream, task in zip(streams, exact.tasks, strict=True):
            images = exact.normalise(stream.batch(step)).double()
            by_image = options["routing"] == "image"
            unit = written_out(exact, start.state_dict(), extra, images, by_image=by_image)
            p = (unit @ exact.heads[task].t()).softmax(-1)
            loss = -(p * p.log()).sum(-1).mean()
            assert found.history[task][step] == pytest.approx(loss.item(), rel=1e-8)
            total = total + loss
        for group in adam.param_groups:
            group["lr"] = SHORT["lr"] * (0.5 * (1 + math.cos(math.pi * step / 3)) if options["cosine"] else 1)
        adam.zero_grad()
        total.backward()
        adam.step()
        assert found.history["loss"][step] == pytest.approx(total.item(), rel=1e-8)
    for name, t in routers.items():
        torch.testing.assert_close(found.extra[name], t.detach(), rtol=1e-7, atol=1e-9)
        assert not torch.equal(found.extra[name], start.extra[name])


def test_published_recipe_is_the_default(suite):
    assert RECIPES["paper"] == {"steps": 1000, "lr": 1e-4, "batch_size": 16}
    assert wemoe(suite, steps=0, progress=False).hyper == {
        "init": 0.3, "router_layers": 2, "routing": "image", **RECIPES["paper"], "steps": 0, "cosine": True, "seed": 0,
        "setting": "transductive",
    }  # fmt: skip


def test_routers_start_small_and_with_lambda_as_bias(suite):
    extra = fit(suite, steps=0, init=0.4).extra
    mlp = "transformer.resblocks.0.mlp"
    assert (extra[f"{mlp}|router|bias"] == 0.4).all() and not extra[f"{mlp}|router|hidden.bias"].any()
    assert 0.005 < extra[f"{mlp}|router|hidden.weight"].std() < 0.015 and extra[f"{mlp}|router|weight"].shape == (3, 16)
    again, other = fit(suite, steps=0, init=0.4).extra, fit(suite, steps=0, seed=1).extra
    assert torch.equal(again[f"{mlp}|router|weight"], extra[f"{mlp}|router|weight"])
    assert not torch.equal(other[f"{mlp}|router|weight"], extra[f"{mlp}|router|weight"])


@pytest.mark.parametrize("init", [0.3, 0.0, 0.7])
def test_without_input_and_steps_it_is_task_arithmetic(suite, init):
    merged, plain = fit(suite, steps=0, router_layers=0, init=init), run_method("task_arithmetic", suite, scaling=init)
    images = suite.normalise(suite.test["alpha"].images)
    expected = plain.features(suite.encoder, plain.state_dict(), images)
    torch.testing.assert_close(merged.features(suite.encoder, merged.state_dict(), images), expected)
    state = merged.state_dict()
    for key, t in plain.state_dict().items():
        assert torch.equal(state[key], suite.pretrained[key] if ".mlp." in key else t), key


def test_zero_task_vectors_leave_the_pretrained_features(suite):
    idle = dataclasses.replace(suite, experts={task: dict(suite.pretrained) for task in suite.tasks})
    merged, images = fit(idle), suite.normalise(suite.test["alpha"].images)
    expected = run_method("zero_shot", idle).features(suite.encoder, suite.pretrained, images)
    torch.testing.assert_close(merged.features(suite.encoder, merged.state_dict(), images), expected)


def test_by_image_nothing_else_in_the_batch_counts(exact):
    images = exact.normalise(torch.cat([exact.test[task].images[:3] for task in exact.tasks])).double()
    for routing, alone in (("image", True), ("batch", False)):
        merged = fit(exact, routing=routing)
        together = merged.features(exact.encoder, merged.state_dict(), images)
        single = torch.cat([merged.features(exact.encoder, merged.state_dict(), image[None]) for image in images])
        assert torch.allclose(together, single, rtol=1e-9, atol=1e-11) == alone, routing
    by_image = dataclasses.replace(merged, forward=mixtures.mixed_by_image)
    one = images[:1]
    torch.testing.assert_close(
        by_image.features(exact.encoder, merged.state_dict(), one),
        merged.features(exact.encoder, merged.state_dict(), one),
    )


def test_how_many_images_are_mixed_together_does_not_matter(exact, monkeypatch):
    merged, images = fit(exact), exact.normalise(exact.test["alpha"].images).double()
    whole = merged.features(exact.encoder, merged.state_dict(), images)
    monkeypatch.setattr(mixtures, "TOGETHER", 7)
    torch.testing.assert_close(merged.features(exact.encoder, merged.state_dict(), images), whole)


def test_the_task_is_not_asked_for(suite):
    merged, images = fit(suite), suite.normalise(suite.test["alpha"].images)
    features = [merged.features(suite.encoder, merged.state_dict(t), images, t) for t in (None, "alpha", "unseen")]
    assert torch.equal(features[0], features[1]) and torch.equal(features[0], features[2])


def test_storage_is_the_mlps_task_vectors_and_the_routers(suite):
    def numbers(tasks, blocks, width, hidden):
        mlp = 2 * width * hidden + width + hidden
        return blocks * (tasks * mlp + width * width + width + tasks * (width + 1))

    assert fit(suite).task_storage == numbers(3, 2, 16, 32) / 3
    # The published counts at ViT-B/32 with eight tasks, text tower included: 573.96 M in all, 7.16 M trained.
    assert round((113_448_705 + numbers(8, 12, 768, 3072)) / 1e6, 2) == 573.96
    assert round(numbers(0, 12, 768, 3072) / 1e6 + 8 * 12 * 769 / 1e6, 2) == 7.16


def test_entropy_falls(suite):
    merged = fit(suite, steps=40, lr=0.02, batch_size=10)
    assert merged.history["loss"].iloc[-5:].mean() < 0.9 * merged.history["loss"].iloc[:5].mean()
    assert list(merged.history) == ["step", "loss", *suite.tasks]


def test_neither_labels_nor_held_out_images_are_read():
    suite = toy.suite(seed=2)
    _, held_out = split_indices(30)

    def scrambled(data):
        images = data.images.clone()
        images[held_out] = 0
        return am.TaskData(images, torch.full_like(data.labels, -1), data.classes)

    other = dataclasses.replace(suite, test={task: scrambled(data) for task, data in suite.test.items()})
    assert_equal(dict(fit(suite, setting="inductive").extra), dict(fit(other, setting="inductive").extra))


def test_the_template_is_as_before_even_when_a_forward_fails(suite):
    merged = fit(suite)
    with pytest.raises(RuntimeError):
        merged.features(suite.encoder, merged.state_dict(), torch.zeros(1, 3, 4, 4))
    assert not any("forward" in vars(module) for module in suite.encoder.modules())


def test_encoders_that_it_cannot_mix(suite):
    tv = suite.task_vectors()
    assert list(mlp_vectors(suite.encoder, tv)) == [f"transformer.resblocks.{b}.mlp" for b in (0, 1)]
    with pytest.raises(ValueError, match="mixes modules named 'mlp', .* and the encoder has none"):
        mlp_vectors(nn.Linear(2, 2), tv)
    late = copy.deepcopy(suite.encoder)
    late.transformer.resblocks[0].attn.batch_first = False
    with pytest.raises(ValueError, match="batch_first=True"):
        mlp_vectors(late, tv)


@pytest.mark.parametrize(("hyper", "message"), [
    ({"routing": "token"}, "routing 'token' is unknown"),
    ({"router_layers": 3}, "router_layers=3: a router has 0, 1 or 2 layers"),
    ({"setting": "online"}, "setting 'online' is unknown"),
    ({"lr": 0}, "lr=0 must be a positive number"),
    ({"init": float("inf")}, "hold NaN or Inf"),
], ids=str)  # fmt: skip
def test_bad_arguments(suite, hyper, message):
    with pytest.raises(ValueError, match=message):
        fit(suite, **hyper)


def test_entropies_that_are_nan_name_their_task(suite):
    broken = dataclasses.replace(suite, heads={**suite.heads, "beta": suite.heads["beta"] * float("nan")})
    with pytest.raises(ValueError, match="the entropy of beta is NaN at step 0"):
        fit(broken)
