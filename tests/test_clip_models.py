"""Whole CLIP models of Hugging Face as open_clip's: the same features of images and of words, and broken ones named."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from clips import open_clip, randomised
from mirror import SIZE, clip_config
from safetensors.torch import load_file, save_file

from adamerging_lib.checkpoints import load_clip_model
from adamerging_lib.checkpoints.huggingface import DEFAULTS
from adamerging_lib.state import CheckpointError


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """(folder, transformers' model)."""
    folder = tmp_path_factory.mktemp("clip")
    model = randomised(transformers.CLIPModel(transformers.CLIPConfig(**clip_config())), 0)
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(clip_config()))
    return folder, model


@pytest.fixture
def copy(published, tmp_path):
    """The folder again, to be broken; and its tensors."""
    state = load_file(published[0] / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(clip_config()))
    return tmp_path, state


def agree(model, theirs) -> None:
    tokens = open_clip.SimpleTokenizer(context_length=77)(["a photo of a cat", "digits: “7”", "x " * 100])
    pixels = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for ours, reference in (
            (model.encode_text(tokens), theirs.get_text_features(tokens)),
            (model.encode_image(pixels), theirs.get_image_features(pixels)),
        ):
            reference = getattr(reference, "pooler_output", reference)
            assert (ours - reference).abs().max() < 1e-5 and reference.abs().max() > 0.1
    assert model.logit_scale.exp() == theirs.logit_scale.exp() and not model.training


def test_features_of_images_and_words_are_transformers_own(published):
    agree(load_clip_model(published[0]), published[1])


@pytest.mark.parametrize("form", ["bin", "old names", "half"])
def test_other_forms_of_the_same(published, copy, form):
    folder, state = copy
    if form == "old names":  # buffers of transformers before 4.31, as in OpenAI's own files
        state |= {f"{tower}_model.embeddings.position_ids": torch.arange(9)[None] for tower in ("text", "vision")}
    if form == "bin":
        torch.save(state, folder / "pytorch_model.bin")
    else:
        cast = torch.float16 if form == "half" else torch.float32
        save_file({k: t.to(cast) if t.is_floating_point() else t for k, t in state.items()},
                  folder / "model.safetensors")  # fmt: skip
    model = load_clip_model(folder)
    if form == "half":
        assert all(t.dtype == torch.float32 for t in model.state_dict().values())
    else:
        agree(model, published[1])


def test_what_a_config_leaves_out_is_transformers_default():
    """Newer releases write only what differs from their defaults."""
    for tower, theirs in (("vision", transformers.CLIPVisionConfig()), ("text", transformers.CLIPTextConfig())):
        assert DEFAULTS[tower] == {key: getattr(theirs, key) for key in DEFAULTS[tower]}


@pytest.mark.parametrize(
    ("tower", "changes", "message"),
    [
        ("vision_config", {"hidden_act": "gelu"}, "activations 'gelu' and 'quick_gelu'"),
        ("vision_config", {"hidden_act": "relu"}, "activations 'relu'"),
        ("vision_config", {"layer_norm_eps": 1e-6}, "layer_norm_eps 1e-06; open_clip's tower has"),
        ("text_config", {"layer_norm_eps": 1e-6}, "layer_norm_eps 1e-06 of the text tower"),
        ("vision_config", {"hidden_size": "much"}, "describes no CLIP model"),
        ("vision_config", {"image_size": 32}, r"'visual.positional_embedding' .* is \[5, 16\], .* wants \[17, 16\]"),
        ("vision_config", {"num_hidden_layers": 3}, "'visual.transformer.resblocks.2.ln_1.weight' of .* is missing"),
        ("vision_config", {"num_hidden_layers": 1}, "holds more than .*config.json wants"),
        ("text_config", {"num_hidden_layers": 1}, r"holds 'text_model.encoder.layers.1.\S+', which the model of"),
        ("text_config", {"num_hidden_layers": 3}, "lacks 'text_model.encoder.layers.2.layer_norm1.weight'"),
        ("text_config", {"vocab_size": 10}, "'token_embedding.weight' of "),
    ],
)
def test_a_config_that_does_not_describe_the_weights(copy, tower, changes, message):
    folder, state = copy
    save_file(state, folder / "model.safetensors")
    config = clip_config()
    config[tower] |= changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        load_clip_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("text_model.final_layer_norm.bias"), "lacks 'text_model.final_layer_norm.bias' of a whole"),
        (lambda s: s.pop("logit_scale"), "lacks 'logit_scale'"),
        (lambda s: s.pop("visual_projection.weight"), "has no projection: a base is a whole CLIPModel"),
        (lambda s: s.update({"text_model.extra": torch.zeros(1)}), "holds 'text_model.extra', which the model of"),
        (lambda s: s["text_projection.weight"].fill_(float("nan")), "'text_projection' of .* holds NaN"),
    ],
)
def test_a_base_that_is_not_whole(copy, change, message):
    folder, state = copy
    change(state)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_clip_model(folder)


def test_no_config(copy):
    (copy[0] / "config.json").unlink()
    with pytest.raises(CheckpointError, match="config.json is missing: fetch it"):
        load_clip_model(copy[0])
