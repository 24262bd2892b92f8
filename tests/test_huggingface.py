"""Hugging Face's CLIP vision models against open_clip's tower: the same numbers, the same features, both ways."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from clips import clip, images, open_clip, randomised, to_hf
from safetensors.torch import load_file, save_file
from shards import shards
from strategies import assert_equal
from torch.func import functional_call

from adamerging_lib.checkpoints import from_hf, load_encoder
from adamerging_lib.checkpoints.huggingface import tower_config
from adamerging_lib.checkpoints.tower import ordered_tower
from adamerging_lib.state import CheckpointError

CLASSES = ("CLIPVisionModel", "CLIPVisionModelWithProjection", "CLIPModel")
# Names of transformers 4, which wrote the published files, and of 5.
FOUR, FIVE = "vision_model.", ""


def config(**changes):
    small = dict(hidden_size=16, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=8)
    return transformers.CLIPVisionConfig(**{**small, "patch_size": 4, "projection_dim": 6, **changes})


def model(name: str, vision, seed: int = 0):
    if name == "CLIPModel":
        text = dict(hidden_size=8, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=10)
        vision = transformers.CLIPConfig(
            text_config={**text, "max_position_embeddings": 4}, vision_config=vision.to_dict(), projection_dim=6
        )
    return randomised(getattr(transformers, name)(vision), seed)


def features(tower, state, pixels):
    with torch.no_grad():
        return functional_call(tower.eval(), state, (pixels,))


def theirs(hf, pixels, projection):
    """Features of a vision model; one without projection gets the base's."""
    with torch.no_grad():
        if hasattr(hf, "visual_projection"):
            found = hf.get_image_features(pixels) if hasattr(hf, "text_model") else hf(pixels).image_embeds
            return getattr(found, "pooler_output", found)
        return hf(pixels).pooler_output @ projection


@pytest.mark.parametrize("form", ["file", "shards", "bin"])
@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_a_published_folder_gives_the_same_features(tmp_path, name, form, act):
    hf = model(name, config(hidden_act=act))
    hf.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    if form == "shards":
        shards(tmp_path, load_file(file))
    elif form == "bin":
        torch.save(load_file(file), tmp_path / "pytorch_model.bin")
    if form != "file":
        file.unlink()
    base = clip(1, quick_gelu=act == "quick_gelu").visual
    state = load_encoder(tmp_path, base, base.state_dict())
    assert list(state) == list(base.state_dict())
    assert torch.equal(state["proj"], base.proj) == (name == "CLIPVisionModel")
    expected = theirs(hf, images(), base.proj)
    assert (features(base, state, images()) - expected).abs().max() < 1e-5 and expected.abs().max() > 0.1


@pytest.mark.parametrize("prefix", [FOUR, FIVE])
@pytest.mark.parametrize("projection", [True, False])
def test_both_ways_give_back_every_bit(prefix, projection):
    tower = dict(clip().visual.state_dict())
    if not projection:
        del tower["proj"]
    back, dropped = from_hf(to_hf(tower, prefix))
    assert_equal(back, tower)
    assert not dropped and all(t.is_contiguous() for t in back.values())


@pytest.mark.parametrize("name", CLASSES[:2])
def test_their_own_classes_load_what_is_written_for_them(name):
    hf = model(name, config())
    state = hf.state_dict()
    prefix = next(key for key in state if key.endswith("class_embedding")).removesuffix("embeddings.class_embedding")
    tower, dropped = from_hf(state)
    assert not dropped
    assert_equal(dict(sorted(to_hf(tower, prefix).items())), dict(sorted(state.items())))
    other = clip(3).visual.state_dict()
    hf.load_state_dict(to_hf({key: other[key] for key in tower}, prefix), strict=True)
    base = clip(3).visual
    assert (theirs(hf, images(), base.proj) - features(base, dict(other), images())).abs().max() < 1e-5


def test_names_of_both_releases_read_alike_and_the_positions_buffer_is_dropped_by_name():
    tower = {key: t for key, t in clip().visual.state_dict().items() if key != "proj"}
    old = to_hf(tower, FOUR) | {"vision_model.embeddings.position_ids": torch.arange(5).unsqueeze(0)}
    assert "vision_model.pre_layrnorm.weight" in old and "pre_layrnorm.weight" in to_hf(tower, FIVE)
    read, dropped = from_hf(old)
    assert_equal(read, from_hf(to_hf(tower, FIVE))[0])
    assert dropped == ("vision_model.embeddings.position_ids",)


def test_query_key_and_value_are_stacked_in_open_clips_order():
    tower = clip().visual.state_dict()
    theirs = to_hf(tower)
    stacked = tower["transformer.resblocks.1.attn.in_proj_weight"]
    for place, part in enumerate("qkv"):
        own = theirs[f"vision_model.encoder.layers.1.self_attn.{part}_proj.weight"]
        assert torch.equal(own, stacked[16 * place : 16 * (place + 1)])
    assert torch.equal(theirs["visual_projection.weight"], tower["proj"].T)


def test_half_precision_is_kept():
    tower = {key: t.half() for key, t in clip().visual.state_dict().items()}
    assert_equal(from_hf(to_hf(tower))[0], tower)


def published(tmp_path, seed=2, **changes):
    """An expert as tanganke's are published: transformers 4's names, no projection."""
    tower = {key: t for key, t in clip(seed).visual.state_dict().items() if key != "proj"}
    save_file({key: t.contiguous() for key, t in to_hf(tower).items()}, tmp_path / "model.safetensors")
    settings = config().to_dict() | changes
    (tmp_path / "config.json").write_text(json.dumps(settings))
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "activation 'gelu', the encoder has 'quick_gelu'"),
        ({"num_attention_heads": 4}, "for heads '4', the encoder has '2'"),
        ({"layer_norm_eps": 1e-6}, "layer_norm_eps 1e-06; open_clip's tower has 1e-05"),
        ({"layer_norm_eps": "much"}, "config.json is not a configuration of a CLIP model"),
    ],
)
def test_what_the_tensors_do_not_tell_is_checked(tmp_path, changes, message):
    base = clip(0).visual
    with pytest.raises(CheckpointError, match=message):
        load_encoder(published(tmp_path, **changes), base, base.state_dict())


@pytest.mark.parametrize("old", [None, {}, {"hidden_act": "gelu"}, {"num_attention_heads": 2, "layer_norm_eps": 1e-6}])
@pytest.mark.parametrize("new", [None, {}, {"hidden_act": "gelu", "num_attention_heads": 4, "image_size": 8}])
@pytest.mark.parametrize("tower", ["vision", "text"])
def test_old_settings_overrule_new_ones_as_in_transformers(tower, new, old):
    settings = {f"{tower}_config": new, f"{tower}_config_dict": old}
    theirs = getattr(transformers.CLIPConfig(**json.loads(json.dumps(settings))), f"{tower}_config")
    for content in (settings, {key: value for key, value in settings.items() if value is not None}):
        found = tower_config(content, tower)
        if content or tower == "vision":
            assert found == {key: getattr(theirs, key, value) for key, value in found.items()}


def test_old_settings_are_checked(tmp_path):
    base = clip(0).visual
    published(tmp_path)
    settings = {"vision_config": {"hidden_act": "quick_gelu", "num_attention_heads": 2}}
    for old, message in (
        ({"hidden_act": "gelu", "num_attention_heads": 2}, "activation 'gelu'"),
        ({"hidden_act": "quick_gelu"}, "for heads '12', the encoder has '2'"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(settings | {"vision_config_dict": old}))
        with pytest.raises(CheckpointError, match=message):
            load_encoder(tmp_path, base, base.state_dict())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"vision_config_dict": settings["vision_config"]}))
    load_encoder(tmp_path, base, base.state_dict())


def test_a_configuration_within_a_full_clips_is_found(tmp_path):
    base = clip(0).visual
    published(tmp_path)
    (tmp_path / "config.json").write_text(
        json.dumps({"vision_config": {"hidden_act": "gelu", "num_attention_heads": 2}})
    )
    with pytest.raises(CheckpointError, match="activation 'gelu'"):
        load_encoder(tmp_path, base, base.state_dict())
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="config.json is not a configuration"):
        load_encoder(tmp_path, base, base.state_dict())
    (tmp_path / "config.json").unlink()
    load_encoder(tmp_path, base, base.state_dict())


@pytest.mark.parametrize("change", [{"layers": 3}, {"width": 24}], ids=str)
def test_another_architecture_is_told_in_words(tmp_path, change):
    base = clip(0, **change).visual
    with pytest.raises(CheckpointError, match=r"is a ViT of 2 blocks, width 16, .* its base is a ViT of (3|2) blocks"):
        load_encoder(published(tmp_path), base, base.state_dict())


def test_broken_checkpoints_are_named():
    state = to_hf(clip().visual.state_dict())
    with pytest.raises(CheckpointError, match="lacks 'vision_model.encoder.layers.0.self_attn.k_proj.bias'"):
        from_hf({key: t for key, t in state.items() if "layers.0.self_attn.k_proj.bias" not in key})
    with pytest.raises(CheckpointError, match="'vision_model.head.probe', which no CLIP vision model has"):
        from_hf(state | {"vision_model.head.probe": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="holds no CLIP vision model"):
        from_hf({"bert.embeddings.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="is not a CLIP ViT: it lacks"):
        ordered_tower({}, "the tower")


def test_a_base_needs_its_projection(tmp_path):
    encoder = clip().visual
    with pytest.raises(CheckpointError, match="has no projection: give the base"):
        load_encoder(published(tmp_path), encoder)
    with pytest.raises(CheckpointError, match="the base has no projection 'proj'"):
        load_encoder(tmp_path, encoder, {key: t for key, t in encoder.state_dict().items() if key != "proj"})


FULL = {
    "ViT-B-32-quickgelu": dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, patch_size=32),
    "ViT-B-16-quickgelu": dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, patch_size=16),
    "ViT-L-14-quickgelu": dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, patch_size=14),
}
SIZES = {"ViT-B-32-quickgelu": (87_456_000, 199), "ViT-B-16-quickgelu": (85_799_424, 199),
         "ViT-L-14-quickgelu": (303_179_776, 391)}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("arch", FULL)
def test_full_size(tmp_path, arch):
    settings = open_clip.get_model_config(arch)
    vision = open_clip.model.CLIPVisionCfg(**settings["vision_cfg"])
    base = open_clip.model._build_vision_tower(settings["embed_dim"], vision, quick_gelu=settings["quick_gelu"])
    hf = transformers.CLIPVisionModel(
        config(**FULL[arch], intermediate_size=4 * FULL[arch]["hidden_size"], image_size=224)
    ).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in hf.parameters():  # near where trained ones are, so that 24 blocks stay well conditioned
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    assert (sum(p.numel() for p in hf.parameters()), len(hf.state_dict())) == SIZES[arch]
    hf.save_pretrained(tmp_path)
    state = load_encoder(tmp_path, base, base.state_dict())
    pixels = images(2, 224)
    expected = theirs(hf, pixels, base.proj)
    assert (features(base, state, pixels) - expected).abs().max() < 1e-5 * max(1, expected.abs().max())
