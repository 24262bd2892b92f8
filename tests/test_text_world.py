"""The world of text: its encoder, tokens and heads, and that its zoo can be trained, resumed, loaded and merged."""

import json
import re
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel

import adamerging_lib as am
from adamerging_lib.forward import features, logits, raw_features
from adamerging_lib.runtime import compat
from adamerging_lib.state import CheckpointError, sha256
from adamerging_lib.worlds.mini.stages import Schedule
from adamerging_lib.worlds.text import build, world
from adamerging_lib.worlds.text.build import Builder, Recipe
from adamerging_lib.worlds.text.encoder import (
    CLS,
    MASK,
    PAD,
    SEP,
    SPECIAL,
    TextConfig,
    TextEncoder,
    Tokenizer,
    affine_head,
    fit_head,
    hidden_states,
    masked,
    train_tokenizer,
)  # fmt: skip
from adamerging_lib.worlds.text.pretraining import lines
from adamerging_lib.worlds.text.tasks import TASKS, render
from adamerging_lib.worlds.text.world import MADE_BY, SHIPPED, load_text, load_tokenizer, text_data
from adamerging_lib.worlds.zoo import read_manifest

SMALL = TextConfig(width=16, layers=2, heads=2, inner=32)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokenizer.json"
    train_tokenizer(lines(0, 1500), SMALL.vocabulary, path)
    return Tokenizer(path, SMALL.length)


def encoder(seed: int = 0) -> TextEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TextEncoder(SMALL).eval().requires_grad_(False)


def test_tokens_hold_every_task_whole_and_no_unknown_word(tokenizer):
    for task in TASKS:
        tokens = tokenizer(render(task, "test", 0, 300)[0])
        assert tokens.shape == (300, SMALL.length) and not (tokens == SPECIAL.index("[UNK]")).any()
        assert (tokens[:, 0] == CLS).all() and int(tokens.max()) < SMALL.vocabulary
        assert ((tokens == SEP).sum(1) == (2 if task in ("entailment", "paraphrase") else 1)).all()


def test_tokens_of_two_splits_differ(tokenizer):
    """Two texts that a tokenizer cannot tell apart would be one text to the encoder."""
    for task in TASKS:
        train, test = (set(map(tuple, text_data(task, s, tokenizer, 300).images.tolist())) for s in ("train", "test"))
        assert not train & test


def test_a_text_that_does_not_fit_is_named(tokenizer):
    with pytest.raises(ValueError, match=r"'the dog .* has \d+ tokens, 32 fit: shorten it"):
        tokenizer([("the dog " * 30,)])


def test_features_have_length_one_and_end_in_a_constant(tokenizer):
    found = encoder()(tokenizer(render("entailment", "test", 0, 5)[0]))
    assert found.shape == (5, SMALL.width + 1)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(found[:, -1], torch.full((5,), 0.5**0.5))


def test_features_do_not_depend_on_the_padding_of_others(tokenizer):
    texts = [*render("acceptability", "test", 0, 4)[0], *render("paraphrase", "test", 0, 2)[0]]
    model, tokens = encoder(), tokenizer(texts)
    together = model(tokens)
    for row in range(len(texts)):
        torch.testing.assert_close(model(tokens[row : row + 1])[0], together[row], rtol=1e-4, atol=1e-5)


def test_the_second_text_has_another_type(tokenizer):
    tokens, seen = tokenizer([("the dog sits .", "the cat stands .")]), {}
    bert = encoder().bert
    bert.embeddings.register_forward_pre_hook(lambda _, __, given: seen.update(given), with_kwargs=True)
    _, mask = hidden_states(bert, tokens)
    first = int((tokens[0] == SEP).nonzero()[0])
    assert seen["token_type_ids"][0].tolist() == [0] * (first + 1) + [1] * (int(mask.sum()) - first - 1) + [0] * int(
        (~mask).sum()
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), classes=st.integers(2, 7), width=st.integers(1, 9), scale=st.floats(0.01, 30))
def test_an_affine_head_is_a_linear_one_with_bias(seed, classes, width, scale):
    drawn = torch.Generator().manual_seed(seed)
    weight, bias = (scale * torch.randn(*shape, generator=drawn).double() for shape in ((classes, width), (classes,)))
    given_ = torch.randn(5, width, generator=drawn).double()
    unit = torch.nn.functional.normalize(given_, dim=-1)
    whole = torch.cat([unit, torch.ones(5, 1).double()], 1) * 0.5**0.5
    # what evaluation and adaptation do: length one, then the head
    found = logits(torch.nn.functional.normalize(whole, dim=-1), affine_head(weight, bias))
    torch.testing.assert_close(found, unit @ weight.T + bias)


def test_a_head_is_the_minimum_of_its_loss_and_finds_a_bias():
    drawn = torch.Generator().manual_seed(0)
    labels = torch.cat([torch.zeros(90), torch.ones(10)]).long()
    unit = torch.nn.functional.normalize(torch.randn(100, 4, generator=drawn), dim=-1)
    found = torch.cat([unit, torch.ones(100, 1)], 1) * 0.5**0.5
    weight, bias = fit_head(found, labels, 2, 1.0)
    # so strong a decay leaves little but the bias, which tells how often the classes come
    assert weight.norm() < 0.1 and (bias[0] - bias[1]).item() == pytest.approx(torch.tensor(9.0).log().item(), abs=0.05)
    weight, bias = (t.double().requires_grad_() for t in fit_head(found, labels, 2, 0.01))
    loss = torch.nn.functional.cross_entropy(unit.double() @ weight.T + bias, labels) + 0.01 * weight.square().sum()
    for gradient in torch.autograd.grad(loss, (weight, bias)):
        assert gradient.abs().max() < 1e-4


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), rate=st.floats(0.05, 0.95))
def test_masking_leaves_special_tokens_and_what_is_not_guessed(seed, rate):
    drawn = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 50, (8, 12), generator=drawn)
    before = tokens.clone()
    given_, chosen = masked(tokens, rate, 50, drawn)
    assert torch.equal(tokens, before) and torch.equal(given_[~chosen], tokens[~chosen])
    assert not (chosen & (tokens < len(SPECIAL))).any()
    assert ((given_[chosen] == MASK) | (given_[chosen] >= len(SPECIAL))).all()


def test_whole_numbers_reach_the_encoder_as_they_are_under_any_weights(tokenizer):
    tokens, model = tokenizer(render("topics", "test", 0, 3)[0]), encoder()
    wide = {key: t.double() for key, t in model.state_dict().items()}
    torch.testing.assert_close(raw_features(model, wide, tokens).float(), model(tokens))
    torch.testing.assert_close(features(model, model.state_dict(), tokens), model(tokens))


def small_recipe() -> Recipe:
    brief = {"lr": 1e-3, "batch_size": 4, "warmup": 1}
    return Recipe(
        encoder=SMALL, lines=1500, vocabulary_lines=1500, head_texts=3, pretraining=Schedule(steps=3, **brief),
        fine_tuning=Schedule(steps=2, **brief), joint=Schedule(steps=2, **brief),
    )  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A zoo of a few steps, whose training was cut off once, and when what was done by then was written."""
    few = lambda task, split, tokenizer, count=None: text_data(task, split, tokenizer, 24)  # noqa: E731
    folder, stopped, tune = tmp_path_factory.mktemp("zoo"), [], Builder.tune

    def interrupted(self, name, *rest):
        if name == "questions" and not stopped:
            stopped.append(name)
            raise KeyboardInterrupt
        tune(self, name, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAMERGING_CACHE", str(folder / "cache"))
        for module in (build, world):
            patch.setattr(module, "text_data", few)
        patch.setattr(Builder, "tune", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Builder(small_recipe(), folder, "cpu").run()
        builder = Builder(small_recipe(), folder, "cpu")
        done = {path.name: path.stat().st_mtime_ns for path in builder.out.glob("*.safetensors")}
        manifest = builder.run()
        suite = load_text(list(TASKS), builder.out)
        training = suite.training()
    return builder, done, manifest, suite, training


def test_the_builder_goes_on_where_it_was_cut_off(built):
    builder, done, manifest, *_ = built
    assert {"sentiment.safetensors", "topics.safetensors", "heads.safetensors"} <= set(done)
    assert "questions.safetensors" not in done and "joint.safetensors" not in done
    for name in ("sentiment.safetensors", "topics.safetensors", "heads.safetensors"):
        assert (builder.out / name).stat().st_mtime_ns == done[name]
    assert manifest == read_manifest(builder.out) and manifest["recipe"] == small_recipe().plain()
    assert set(manifest["accuracies"]) == {"zero_shot", "individual", "traditional_mtl"}
    told = manifest["diagnosis"]
    assert set(told["norm"]) == set(TASKS) and len(told["cosine"]) == 15 and all(map(len, told["path"].values()))
    assert set(manifest["seconds"]) == {"lines", "pre-training", "fine-tuning", "joint"}
    assert set(manifest["files"]) == {"pretrained", "heads", "joint", *TASKS}


def test_a_suite_of_text_serves_the_registry_and_evaluation(built):
    *_, suite, training = built
    assert suite.tasks == tuple(TASKS) == am.profile("mini-text").tasks == tuple(training)
    assert any(not torch.equal(suite.experts["topics"][key], suite.pretrained[key]) for key in suite.pretrained)
    for method in ("task_arithmetic", "ties", "individual", "traditional_mtl", "regmean"):
        frame = am.evaluate(suite, am.run_method(method, suite))
        assert list(frame.task) == list(TASKS) and frame.accuracy.between(0, 100).all(), method
    fisher = am.run_method("fisher", suite, images=2)  # whose gradients per text come from vmap
    assert am.evaluate(suite, fisher).accuracy.between(0, 100).all()
    fit = am.adamerge(suite, recipe="mini", steps=2, batch_size=3, progress=False)
    assert fit.coefficients.values.shape[0] == len(TASKS) and len(am.evaluate(suite, fit)) == len(TASKS)
    blocks = am.adamerge(suite, granularity="block", recipe="mini", steps=1, batch_size=3, progress=False)
    assert {"embeddings", "block_0", "block_1"} <= set(blocks.coefficients.rows)


@pytest.mark.parametrize("method", ["prodistill", "regmean_pp"])
def test_methods_that_go_block_by_block_refuse_blocks_with_a_mask(built, method):
    *_, suite, _ = built
    with pytest.raises(ValueError, match="block by block.* which of them are padding"):
        am.run_method(method, suite)


def test_a_text_has_the_same_gradient_alone_and_among_longer_ones(tokenizer):
    model, texts = encoder(), tokenizer([("the dog runs",), ("the small dog that i saw runs here",)])
    weights = {key: t.detach() for key, t in model.state_dict().items()}

    def first(state, tokens):
        return torch.func.functional_call(model, state, (tokens[None],))[0, 0]

    with sdpa_kernel(SDPBackend.MATH):  # the others are not made for vmap
        each = torch.func.vmap(torch.func.grad(first), (None, 0))(weights, texts)
    for row, text in enumerate(texts):
        alone = torch.func.grad(first)(weights, text)
        for key, gradient in alone.items():
            torch.testing.assert_close(each[key][row], gradient, rtol=1e-4, atol=1e-7)


def test_evaluation_is_that_of_a_head_with_bias(built):
    builder, *_, suite, _ = built
    kept = {key: t.float() for key, t in world.load_checkpoint("heads", builder.out).items()}
    frame = am.evaluate(suite, am.run_method("individual", suite)).set_index("task")
    for task, data in suite.test.items():
        model = TextEncoder(SMALL)
        model.load_state_dict(dict(suite.experts[task]))
        hidden, mask = hidden_states(model.eval().bert, data.images)
        mean = torch.stack([row[own].mean(0) for row, own in zip(hidden, mask, strict=True)])
        unit = mean / mean.norm(dim=1, keepdim=True)
        scores = unit @ kept[f"{task}.weight"].T + kept[f"{task}.bias"]
        right = (scores.argmax(1) == data.labels).double().mean().item()
        assert frame.accuracy[task] == pytest.approx(100 * right, abs=1e-9)


def test_damaged_and_missing_parts_are_named_with_the_command_that_makes_them(built, tmp_path):
    mend = re.escape(f"`{MADE_BY}`")
    copied = shutil.copytree(built[0].out, tmp_path / "zoo")
    (copied / "tokenizer.json").write_text((copied / "tokenizer.json").read_text() + " ")
    with pytest.raises(CheckpointError, match=rf"tokenizer\.json has SHA-256 .* {mend}"):
        load_text(["topics"], copied)
    (copied / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=rf"no tokenizer at .* {mend}"):
        load_tokenizer(copied)
    shutil.copy2(built[0].out / "tokenizer.json", copied)
    raw = bytearray((copied / "topics.safetensors").read_bytes())
    raw[-1] ^= 1
    (copied / "topics.safetensors").write_bytes(raw)
    with pytest.raises(CheckpointError, match=rf"topics\.safetensors has SHA-256 .* {mend}"):
        load_text(["sentiment", "topics"], copied)
    with pytest.raises(CheckpointError, match=rf"manifest\.json is missing; run {mend}"):
        load_text(["topics"], tmp_path / "nothing")


def test_without_transformers_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"the world of text needs: install the extra, pip install 'adamerging_lib\["):
        compat.import_tokenizers()


shipped = pytest.mark.skipif(not (SHIPPED / "manifest.json").is_file(), reason="the zoo of text is not shipped")


def test_a_profile_without_its_zoo_says_how_to_make_it(monkeypatch, tmp_path):
    monkeypatch.setattr(world.load_text, "__defaults__", (tmp_path,))
    with pytest.raises(CheckpointError, match=re.escape(f"run `{MADE_BY}`")):
        am.load_suite("mini-text")


@shipped
def test_shipped_files_have_their_checksums_and_fit_in_fifteen_megabytes():
    manifest = read_manifest(SHIPPED)
    assert manifest["recipe"] == json.loads(json.dumps(Recipe().plain()))
    entries = {f"{name}.safetensors": entry for name, entry in manifest["files"].items()}
    for name, entry in {**entries, "tokenizer.json": manifest["tokenizer"]}.items():
        assert sha256(SHIPPED / name) == entry["sha256"] and (SHIPPED / name).stat().st_size == entry["bytes"]
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 15e6
    assert {path.name for path in SHIPPED.iterdir()} == {*entries, "tokenizer.json", "manifest.json"}


@shipped
def test_the_shipped_world_keeps_its_gate():
    """Experts are good, adding them hurts, and one model can do all: else the world would have nothing to show."""
    suite = am.load_suite("mini-text").some_images(400)
    mean = {m: am.evaluate(suite, am.run_method(m, suite)).accuracy.mean()
            for m in ("individual", "task_arithmetic", "traditional_mtl")}  # fmt: skip
    assert mean["individual"] >= 88 and mean["individual"] - mean["task_arithmetic"] >= 8
    assert mean["individual"] - mean["traditional_mtl"] <= 4
    stated = {name: sum(row.values()) / len(row) for name, row in read_manifest(SHIPPED)["accuracies"].items()}
    assert stated["individual"] >= 88 and stated["individual"] - stated["traditional_mtl"] <= 4
    assert mean["individual"] == pytest.approx(stated["individual"], abs=1.5)


@shipped
def test_no_token_is_beyond_the_shipped_vocabulary():
    tokenizer = load_tokenizer()
    tokens = tokenizer(lines(0, 300))
    assert int(tokens.max()) < Recipe().encoder.vocabulary and (tokens == PAD).any()
