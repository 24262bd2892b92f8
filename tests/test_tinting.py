"""Tint and Tint++: the published loop written out, the filters, every kind of layer, and what is never read."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import toy
from strategies import assert_close, assert_equal
from torch.func import functional_call
from torch.nn import functional as F

import adamerging_lib as am
from adamerging_lib.learning import imitation
from adamerging_lib.learning.imitation import surest, tinted_tensors
from adamerging_lib.learning.streams import Stream
from adamerging_lib.methods import keeps, run_method, tinting
from adamerging_lib.methods.tinting import RECIPES, _order
from adamerging_lib.probing.experts import expert_table, images_used
from adamerging_lib.suite import split_indices

SHORT = {"epochs": 3, "lr": 0.05, "batch_size": 6, "progress": False}
LAYER = "transformer.resblocks.1.mlp.c_proj"


@pytest.fixture(scope="module")
def exact():
    return toy.suite(seed=5, dtype=torch.float64)


def predictions(suite):
    """Task → class that its individual model predicts of every test image."""
    every = {task: torch.arange(len(suite.test[task].images)) for task in suite.tasks}
    return {task: expert_table(suite, task, e, device=torch.device("cpu")).argmax(-1) for task, e in every.items()}


def fit(suite, method="tint", **hyper):
    return run_method(method, suite, cache=False, **{**SHORT, **hyper})


def plain_filter(expert, merged):
    """Image by image: kept if both say the same, or if the individual model's probability is not the smaller one."""
    kept = []
    for a, b in zip(expert.softmax(-1).tolist(), merged.softmax(-1).tolist(), strict=True):
        same = a.index(max(a)) == b.index(max(b))
        kept.append(same or max(a) >= max(b))
    return torch.tensor(kept)


def published_loop(suite, *, filter, layer, learn, targets, top_p, epochs, lr, batch_size):
    """The released script with autograd through the merge: one Adam, experts run anew in every update."""
    tv = suite.task_vectors()
    raw = torch.full((len(tv.tasks), len(tv.vectors)), 0.3, dtype=torch.float64, requires_grad=True)
    names = [key for key in tv.vectors if key == layer or key.startswith(f"{layer}.")]
    weights = {t: suite.heads[t].clone().requires_grad_(layer == "head" and learn != "coefficients") for t in tv.tasks}
    biases = {t: torch.zeros(len(w), dtype=w.dtype, requires_grad=w.requires_grad) for t, w in weights.items()}
    inner = {t: {} for t in tv.tasks}
    if learn != "coefficients":
        inner = {t: {key: suite.experts[t][key].clone().requires_grad_() for key in names} for t in tv.tasks}
    learned = [p for t in tv.tasks for p in (weights[t], biases[t], *inner[t].values()) if p.requires_grad]
    adam = torch.optim.Adam([*([] if learn == "layer" else [raw]), *learned], lr=lr)
    streams = {t: Stream(suite.test[t].images, size=batch_size, task=t, seed=0) for t in tv.tasks}
    for epoch in range(epochs):
        for k in _order(tv.tasks, 0, epoch):
            task = tv.tasks[k]
            images = suite.normalise(streams[task].batch(epoch)).double()
            with torch.no_grad():
                feature = functional_call(suite.encoder, dict(suite.experts[task]), (images,))
                expert = feature / feature.norm(dim=-1, keepdim=True) @ suite.heads[task].t()
            state = dict(suite.pretrained)
            for row, key in enumerate(tv.vectors):
                lam = raw[:, row].clamp(0, 1)
                state[key] = tv.pretrained[key] + sum(lam[j] * tv.vectors[key][j] for j in range(len(tv.tasks)))
            feature = functional_call(suite.encoder, {**state, **inner[task]}, (images,))
            scores = feature / feature.norm(dim=-1, keepdim=True) @ weights[task].t() + biases[task]
            kept = plain_filter(expert, scores) if filter == "confidence" else torch.ones(len(scores), dtype=torch.bool)
            if top_p is not None:
                best = sorted(range(len(scores)), key=lambda i: -expert[i].softmax(-1).max().item())
                kept &= torch.isin(torch.arange(len(scores)), torch.tensor(best[: -int(-top_p * len(scores) // 1)]))
            if not kept.any():
                continue
            target = expert.softmax(-1) if targets == "soft" else expert.argmax(-1)
            adam.zero_grad()
            F.cross_entropy(scores[kept], target[kept]).backward()
            adam.step()
    return raw.detach(), weights, biases, inner


@pytest.mark.parametrize("case", [
    {},
    {"filter": "confidence"},
    {"layer": LAYER},
    {"layer": "conv1.weight", "filter": "confidence"},
    {"learn": "coefficients"},
    {"learn": "layer"},
    {"learn": "layer", "layer": "transformer.resblocks.0"},
    {"targets": "soft", "top_p": 0.4},
    {"filter": "confidence", "top_p": 0.8},
], ids=str)  # fmt: skip
def test_fit_equals_the_published_loop(exact, case):
    options = {"filter": "none", "layer": "head", "learn": "both", "targets": "hard", "top_p": None, **case}
    short = {key: SHORT[key] for key in ("epochs", "lr", "batch_size")}
    raw, weights, biases, inner = published_loop(exact, **options, **short)
    found = tinting(exact, **SHORT, **options)
    torch.testing.assert_close(found.coefficients.values, raw.clamp(0, 1), rtol=1e-8, atol=1e-10)
    assert (options["learn"] == "layer") == bool((found.coefficients.values == 0.3).all())
    for task in exact.tasks:
        if options["learn"] == "coefficients":
            assert found.heads is None and found.overrides is None
        elif options["layer"] == "head":
            torch.testing.assert_close(found.heads[task], weights[task].detach(), rtol=1e-8, atol=1e-10)
            torch.testing.assert_close(found.biases[task], biases[task].detach(), rtol=1e-8, atol=1e-10)
            assert not torch.equal(found.heads[task], exact.heads[task])
        else:
            # A bias that keys share leaves attention as it is: its gradient is rounding noise, which Adam turns into
            # steps of up to lr · |noise| / ε.
            noisy = [key for key in inner[task] if key.endswith("in_proj_bias")]
            found_inner, inner_exact = dict(found.overrides[task]), {k: t.detach() for k, t in inner[task].items()}
            for key in noisy:
                width = len(inner_exact[key]) // 3
                keys = slice(width, 2 * width)
                assert (found_inner[key][keys] - inner_exact[key][keys]).abs().max() < 1e-7
                for state in (found_inner, inner_exact):
                    state[key] = torch.cat([state[key][:width], state[key][2 * width :]])
            assert_close(found_inner, inner_exact, rtol=1e-8, atol=1e-10)


def test_published_recipe_is_the_default(suite):
    assert RECIPES["paper"] == {"epochs": 500, "lr": 1e-2, "batch_size": 32}
    found = fit(suite, epochs=0, lr=None, batch_size=None)
    assert found.hyper == {
        "filter": "none", "layer": "head", "learn": "both", "targets": "hard", "top_p": None, **RECIPES["paper"],
        "epochs": 0, "init": 0.3, "seed": 0, "setting": "transductive",
    }  # fmt: skip


def test_no_epoch_is_task_arithmetic_with_the_zero_shot_heads(suite):
    found = fit(suite, epochs=0)
    assert_close(found.state_dict(), run_method("task_arithmetic", suite, scaling=0.3).state_dict())
    for task in suite.tasks:
        assert torch.equal(found.heads[task], suite.heads[task]) and not found.biases[task].any()
    assert len(found.history) == 0 and found.trajectory.shape[0] == 1
    inner = fit(suite, epochs=0, layer=LAYER)
    for task in suite.tasks:
        assert_equal(dict(inner.overrides[task]), {k: suite.experts[task][k] for k in inner.overrides[task]})
        assert list(inner.overrides[task]) == [f"{LAYER}.weight", f"{LAYER}.bias"]
        assert torch.equal(inner.state_dict(task)[f"{LAYER}.bias"], suite.experts[task][f"{LAYER}.bias"])


def test_filter_by_hand():
    def logit(*p):
        return torch.tensor(p).log()

    expert = torch.stack([logit(0.6, 0.4), logit(0.6, 0.4), logit(0.6, 0.4), logit(0.9, 0.1), logit(0.4, 0.6)])
    merged = torch.stack([logit(0.99, 0.01), logit(0.3, 0.7), logit(0.45, 0.55), logit(0.1, 0.9), logit(0.1, 0.9)])
    kept, agree = keeps(expert, merged)
    # Agreement, surer merged model (dropped), surer expert, equally sure, agreement.
    assert agree.tolist() == [True, False, False, False, True]
    assert kept.tolist() == [True, False, True, True, True]
    assert kept.tolist() == plain_filter(expert, merged).tolist()
    assert surest(expert, 0.4).tolist() == [False, False, False, True, True] or surest(expert, 0.4).sum() == 2
    assert surest(expert, 0.2).tolist() == [False, False, False, True, False]
    assert surest(expert, 1.0).all() and surest(expert, 1e-9).sum() == 1


def test_a_batch_without_any_kept_image_makes_no_update(suite, monkeypatch):
    nothing = torch.zeros(SHORT["batch_size"], dtype=torch.bool)
    monkeypatch.setattr(imitation, "keeps", lambda expert, merged: (nothing, nothing))
    found, start = fit(suite, "tint_pp"), fit(suite, "tint_pp", epochs=0)
    assert_equal(found.state_dict(), start.state_dict())
    for task in suite.tasks:
        assert torch.equal(found.heads[task], suite.heads[task]) and not found.biases[task].any()
    assert len(found.history) == 9 and found.history["loss"].isna().all() and (found.history["kept"] == 0).all()


def test_history_tells_loss_share_and_agreement(suite):
    plain, half, sure = fit(suite), fit(suite, top_p=0.5), fit(suite, "tint_pp")
    assert list(plain.history) == ["epoch", "task", "loss", "kept", "agreement"]
    assert (plain.history["kept"] == 1).all() and (half.history["kept"] == 0.5).all()
    assert (sure.history["kept"] >= sure.history["agreement"]).all() and sure.history["agreement"].between(0, 1).all()
    for _, rows in plain.history.groupby("epoch"):
        assert sorted(rows["task"]) == sorted(suite.tasks)
    orders = {tuple(rows["task"]) for _, rows in fit(suite, epochs=8).history.groupby("epoch")}
    assert len(orders) > 1
    assert plain.trajectory.shape == (4, 3, len(suite.task_vectors().vectors))


def test_it_comes_to_agree_with_the_individual_models(suite):
    def agreement(merged):
        right = []
        for task, label in predictions(suite).items():
            images = suite.normalise(suite.test[task].images)
            unit = merged.features(suite.encoder, merged.state_dict(task), images, task)
            scores = unit @ (merged.heads or suite.heads)[task].t() + (merged.biases or {}).get(task, 0)
            right.append((scores.argmax(-1) == label).float().mean())
        return torch.stack(right).mean().item()

    start = agreement(fit(suite, epochs=0))
    for case in ({}, {"layer": LAYER}, {"targets": "soft"}, {"learn": "coefficients"}):
        assert agreement(fit(suite, epochs=30, batch_size=30, lr=0.02, **case)) > min(0.99, start + 0.02), case


def test_tables_hold_the_individual_models_predictions(suite):
    frame = am.evaluate(suite, run_method("individual", suite)).set_index("task")
    for task, label in predictions(suite).items():
        right = (label == suite.test[task].labels).double().mean().item()
        assert 100 * right == pytest.approx(frame.loc[task, "accuracy"])


def test_table_holds_the_images_used_only(suite):
    stream = Stream(suite.test["beta"].images, size=4, task="beta", seed=0)
    used = images_used(stream, 3)
    table = expert_table(suite, "beta", used, device=torch.device("cpu"))
    whole = expert_table(suite, "beta", torch.arange(30), device=torch.device("cpu"))
    assert len(used) == 12 and table.isnan().any(1).nonzero().flatten().tolist() == sorted(
        {*range(30)} - {*used.tolist()}
    )
    torch.testing.assert_close(table[used], whole[used])
    assert len(images_used(stream, 0)) == 0 and images_used(stream, 9).tolist() == list(range(30))


@pytest.mark.parametrize("layer", ["head", LAYER])
def test_labels_are_never_read_and_held_out_images_neither(layer):
    suite = toy.suite(seed=2)
    _, held_out = split_indices(30)

    def scrambled(data):
        images = data.images.clone()
        images[held_out] = 0
        return am.TaskData(images, torch.full_like(data.labels, -1), data.classes)

    other = dataclasses.replace(suite, test={task: scrambled(data) for task, data in suite.test.items()})
    hyper = {"setting": "inductive", "layer": layer, "epochs": 6}
    one, two = fit(suite, "tint_pp", **hyper), fit(other, "tint_pp", **hyper)
    for task in suite.tasks:
        assert_equal(one.state_dict(task), two.state_dict(task))
        assert one.heads is None or torch.equal(one.heads[task], two.heads[task])
    assert not torch.equal(
        fit(suite, layer=layer).coefficients.values, fit(other, layer=layer).coefficients.values
    )  # transductive: those images count


@pytest.mark.parametrize("case", [{}, {"layer": LAYER, "filter": "confidence"}], ids=str)
def test_order_of_tasks_does_not_matter(exact, case):
    turned = dataclasses.replace(exact, experts={task: exact.experts[task] for task in exact.tasks[::-1]})
    one, two = (tinting(suite, **SHORT, **case) for suite in (exact, turned))
    for task in exact.tasks:
        assert_close(one.state_dict(task), two.state_dict(task), rtol=1e-8, atol=1e-9)
        if one.heads:
            torch.testing.assert_close(one.heads[task], two.heads[task], rtol=1e-8, atol=1e-9)


def test_an_unseen_task_gets_the_shared_encoder_and_its_own_zero_shot_head(suite):
    seen = dataclasses.replace(suite, experts={task: suite.experts[task] for task in suite.tasks[:2]})
    for layer in ("head", LAYER):
        found = fit(seen, layer=layer)
        frame = am.evaluate(suite, found).set_index("task")
        shared = am.Merged(found.state, "x", {"setting": "transductive"}, found.tasks)
        expected = am.evaluate(suite, shared).set_index("task")
        assert frame.loc["gamma", "entropy"] == pytest.approx(expected.loc["gamma", "entropy"])
        assert frame.loc["alpha", "entropy"] != pytest.approx(expected.loc["alpha", "entropy"])


def test_names_of_layers(suite):
    tv = suite.task_vectors()
    assert tinted_tensors("head", tv) == ()
    assert tinted_tensors("proj", tv) == ("proj",)
    assert tinted_tensors(LAYER, tv) == (f"{LAYER}.weight", f"{LAYER}.bias")
    assert len(tinted_tensors("transformer.resblocks.0", tv)) == 12
    with pytest.raises(ValueError, match=r"unknown: did you mean 'transformer.resblocks.1.mlp.c_proj'\?"):
        fit(suite, layer="transformer.resblocks.1.mlp.cproj")
    with pytest.raises(ValueError, match="layer 'position_ids' is unknown"):
        fit(suite, layer="position_ids")


def test_a_tied_layer_is_tinted_under_both_names():
    suite = toy.suite(seed=4)
    one, other = "transformer.resblocks.0.ln_1.weight", "transformer.resblocks.1.ln_1.weight"

    def tied(state):
        return {**state, other: state[one]}

    suite = dataclasses.replace(
        suite, pretrained=tied(suite.pretrained), experts={t: tied(s) for t, s in suite.experts.items()}
    )
    assert tinted_tensors(other, suite.task_vectors()) == (one,)
    found = fit(suite, layer=other)
    for task in suite.tasks:
        state = found.state_dict(task)
        assert torch.equal(state[one], state[other]) and not torch.equal(state[one], suite.experts[task][one])


def test_half_precision_layers_keep_their_dtype_and_learn_in_float32():
    suite = toy.suite(seed=2, dtype=torch.bfloat16)
    found, inner = fit(suite), fit(suite, layer=LAYER)
    for task in suite.tasks:
        assert found.heads[task].dtype == torch.bfloat16
        assert {t.dtype for t in inner.overrides[task].values()} == {torch.bfloat16}
    assert found.coefficients.values.dtype == torch.float32


@pytest.mark.parametrize(("hyper", "message"), [
    ({"targets": "sharp"}, "targets 'sharp' is unknown"),
    ({"learn": "heads"}, "learn 'heads' is unknown"),
    ({"top_p": 0}, r"top_p=0 is not a share in \(0, 1\]"),
    ({"top_p": 50}, r"top_p=50 is not a share"),
    ({"init": float("nan")}, "init=nan must be a finite number"),
    ({"epochs": -1}, "epochs=-1 must be a whole number of at least 0"),
    ({"recipe": "long"}, "recipe 'long' is unknown"),
    ({"setting": "online"}, "setting 'online' is unknown"),
    ({"filter": "confidence"}, "tint has no hyper-parameter 'filter'"),
], ids=str)  # fmt: skip
def test_bad_arguments(suite, hyper, message):
    with pytest.raises(ValueError, match=message):
        fit(suite, **hyper)


def test_losses_that_are_nan_name_their_task(suite):
    broken = dataclasses.replace(suite, heads={**suite.heads, "beta": suite.heads["beta"] * float("nan")})
    with pytest.raises(ValueError, match="the loss of beta is NaN at step 0"):
        fit(broken, epochs=1)


def test_unknown_filter(suite):
    with pytest.raises(ValueError, match="filter 'entropy' is unknown"):
        tinting(suite, filter="entropy", **SHORT)
