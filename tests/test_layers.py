"""What names of tensors tell, against models as open_clip, timm and transformers build them, and by hand."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn
from torch.func import functional_call

import adamerging_lib
from adamerging_lib import layers
from adamerging_lib.layers import Scheme, block_order, block_rows, in_block, is_mlp, is_stacked, read, role, units
from adamerging_lib.methods.zipit import parts_of
from adamerging_lib.runtime.compat import import_open_clip, import_timm, import_torchvision
from adamerging_lib.task_vectors import TaskVectors
from adamerging_study.coefficients.measure import role_of

SMALL = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2)
WORDS, PICTURE = SMALL | {"vocab_size": 11}, SMALL | {"image_size": 8, "patch_size": 4}
GPT = dict(bos_token_id=0, eos_token_id=0, pad_token_id=0)
SEQ = dict(
    vocab_size=11, d_model=16, encoder_layers=2, decoder_layers=3, encoder_attention_heads=2, encoder_ffn_dim=32,
    decoder_attention_heads=2, decoder_ffn_dim=32, decoder_start_token_id=0, forced_eos_token_id=0, **GPT,
)  # fmt: skip
T5 = dict(vocab_size=11, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_decoder_layers=3, num_heads=2)
STAGES = dict(depths=[1, 2, 2], out_features=None, out_indices=None)

# Model of transformers: its configuration, and the class of its blocks.
TRANSFORMERS = {
    "BertForMaskedLM": (WORDS, "BertLayer"),
    "DistilBertModel": (dict(vocab_size=11, dim=16, n_layers=3, n_heads=2, hidden_dim=32), "TransformerBlock"),
    "DebertaV2Model": (WORDS, "DebertaV2Layer"),
    "LlamaForCausalLM": (WORDS | GPT, "LlamaDecoderLayer"),
    "GPT2LMHeadModel": (dict(n_embd=16, n_layer=3, n_head=2, vocab_size=11) | GPT, "GPT2Block"),
    "GPTNeoXForCausalLM": (WORDS | GPT, "GPTNeoXLayer"),
    "T5ForConditionalGeneration": (T5, "T5Block"),
    "T5EncoderModel": (T5 | {"feed_forward_proj": "gated-gelu"}, "T5Block"),
    "BartForConditionalGeneration": (SEQ, "BartEncoderLayer BartDecoderLayer"),
    "WhisperForConditionalGeneration": (SEQ, "WhisperEncoderLayer WhisperDecoderLayer"),
    "ViTForImageClassification": (PICTURE, "ViTLayer"),
    "Dinov2Model": (PICTURE, "Dinov2Layer"),
    "BeitModel": (PICTURE, "BeitLayer"),
    "CLIPVisionModelWithProjection": (PICTURE, "CLIPEncoderLayer"),
    "CLIPTextModel": (WORDS | GPT, "CLIPEncoderLayer"),
    "SwinForImageClassification": (
        dict(image_size=32, patch_size=2, embed_dim=8, depths=[1, 2, 2], num_heads=[1, 2, 2], window_size=2),
        "SwinLayer",
    ),
    "ConvNextForImageClassification": (STAGES | dict(hidden_sizes=[4, 8, 8], num_stages=3), "ConvNextLayer"),
    "ResNetForImageClassification": (
        STAGES | dict(embedding_size=4, hidden_sizes=[4, 8, 8], layer_type="basic"), "ResNetBasicLayer",
    ),
}  # fmt: skip
TIMM = {
    "vit_tiny_patch16_224": "Block",
    "vit_small_patch14_reg4_dinov2": "Block",
    "eva02_tiny_patch14_224": "EvaBlock",
    "swin_tiny_patch4_window7_224": "SwinTransformerBlock",
    "convnext_atto": "ConvNeXtBlock",
    "resnet18": "BasicBlock",
    "resnet50": "Bottleneck",
    "efficientnet_b0": "DepthwiseSeparableConv InvertedResidual",
    "regnety_002": "Bottleneck",
    "mvitv2_tiny": "MultiScaleBlock",
}
CLIP = dict(embed_dim=16, text_cfg=dict(width=16, heads=2, layers=2, vocab_size=11, context_length=4))
OPEN_CLIP = {
    "ViT": dict(layers=3, width=64, head_width=32, image_size=32, patch_size=16),
    "ResNet": dict(layers=(1, 2, 1, 1), width=8, image_size=32),
}


@cache
def hugging_face(name: str) -> nn.Module:
    import_torchvision()  # some of transformers' modules import it
    kind = getattr(transformers, name)
    with torch.device("meta"):
        return kind(kind.config_class(**{k: v for k, v in TRANSFORMERS[name][0].items() if v is not None}))


@cache
def timm(name: str) -> nn.Module:
    with torch.device("meta"):
        return import_timm().create_model(name, pretrained=False)


@cache
def open_clip(kind: str) -> nn.Module:
    model = import_open_clip().model
    text, vision = model.CLIPTextCfg(**CLIP["text_cfg"]), model.CLIPVisionCfg(**OPEN_CLIP[kind])
    return model.CLIP(CLIP["embed_dim"], vision, text)


@cache
def two_towers() -> nn.Module:
    import_torchvision()
    config = transformers.CLIPConfig(text_config=WORDS | GPT | {"num_hidden_layers": 2}, vision_config=PICTURE)
    with torch.device("meta"):
        return transformers.CLIPModel(config)


MODELS = [
    *(pytest.param(hugging_face, name, blocks, id=name) for name, (_, blocks) in TRANSFORMERS.items()),
    *(pytest.param(timm, name, blocks, id=name) for name, blocks in TIMM.items()),
    pytest.param(lambda kind: open_clip(kind).visual, "ViT", "ResidualAttentionBlock", id="open_clip ViT"),
    pytest.param(lambda kind: open_clip(kind).visual, "ResNet", "Bottleneck", id="open_clip ResNet"),
]


def blocks_of(model: nn.Module, classes: str) -> dict[str, list[str]]:
    """Paths of the blocks of each stack in the order of the network, by their classes."""
    stacks: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        if type(module).__name__ in classes.split():
            stacks.setdefault(re.split(r"\d", name)[0], []).append(name)
    return stacks


@pytest.mark.parametrize(("build", "name", "classes"), MODELS)
def test_depth_is_the_place_among_the_blocks_that_a_library_builds(build, name, classes):
    model = build(name)
    found, stacks = read(model.state_dict()), blocks_of(model, classes)
    assert all(len(paths) > 1 for paths in stacks.values()) and stacks
    for paths in stacks.values():
        for depth, path in enumerate(paths):
            inside = [layer for key, layer in found.items() if key.startswith(path + ".")]
            assert {(layer.block, layer.depth, layer.blocks) for layer in inside} == {(path, depth, len(paths))}
            assert inside[0].relative_depth == depth / (len(paths) - 1)
    every = [path for paths in stacks.values() for path in paths]
    outside = {key: layer for key, layer in found.items() if not key.startswith(tuple(f"{p}." for p in every))}
    assert all(not layer.block for layer in outside.values())
    # Only what belongs to a stage as a whole has a depth without lying in a block.
    assert all("downsampl" in key for key, layer in outside.items() if layer.depth is not None)
    assert len({layer.group for layer in found.values() if "block_" in layer.group}) == len(every)


@pytest.mark.parametrize(("build", "name", "classes"), MODELS)
def test_rows_run_through_the_network(build, name, classes):
    model = build(name)
    found, order = read(model.state_dict()), []
    order = sorted({layer.group for layer in found.values()}, key=block_order)
    places = [next(lay for lay in found.values() if lay.group == group) for group in order]
    inside = [layer for layer in places if layer.depth is not None]
    assert [layer.depth for layer in inside] == [
        depth for stack in dict.fromkeys(layer.stack for layer in inside)
        for depth in range(next(layer.blocks for layer in inside if layer.stack == stack))
    ]  # fmt: skip
    stacks = list(dict.fromkeys(layer.stack for layer in inside))
    assert len(stacks) == len(blocks_of(model, classes))
    assert len(stacks) == 1 or [stack.rpartition(".")[2] for stack in stacks] == ["encoder", "decoder"]
    assert order[0] == "embeddings" and order[1].endswith("block_0")


def test_downsampling_goes_with_the_stage_that_it_opens_or_closes():
    """timm downsamples at the start of a stage, Hugging Face at its end."""
    opening = read(timm("swin_tiny_patch4_window7_224").state_dict())
    closing = read(hugging_face("SwinForImageClassification").state_dict())
    opens = {n: {opening[k].depth for k in opening if k.startswith(f"layers.{n}.downsample")} for n in range(4)}
    closes = {n: {closing[k].depth for k in closing if f"layers.{n}.downsample" in k} for n in range(3)}
    assert opens == {0: set(), 1: {2}, 2: {4}, 3: {10}}  # depths 2, 2, 6, 2
    assert closes == {0: {0}, 1: {2}, 2: set()}  # depths 1, 2, 2


@pytest.mark.parametrize("model", ["Hugging Face", "ViT", "ResNet"])
def test_beside_an_image_tower_all_else_is_text(model):
    names = (two_towers() if model == "Hugging Face" else open_clip(model)).state_dict()
    found = read(names)
    text = {name for name, layer in found.items() if layer.group == "text"}
    assert text == {name for name in names if not name.startswith(("visual.", "vision_model.", "visual_projection"))}
    assert any("layers.1." in name or "resblocks.1." in name for name in text)
    assert all(found[name].depth is None and not found[name].block for name in text)
    assert max(layer.depth or 0 for layer in found.values()) == (4 if model == "ResNet" else 2)
    prefix = "vision_model.encoder.layers" if model == "Hugging Face" else "visual."
    assert all(layer.block.startswith(prefix) for layer in found.values() if layer.block)


def block(path: str) -> list[str]:
    modules = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    return [f"{path}.{module}.{kind}" for module in modules for kind in ("weight", "bias")] + [f"{path}.gamma_1"]


def test_chunks_of_dinov2():
    """Its repository keeps a block's number and puts the chunk's before it."""
    paths = [f"blocks.{number // 4}.{number}" for number in range(12)]
    found = read(["cls_token", *(name for path in reversed(paths) for name in block(path)), "norm.weight"])
    for depth, path in enumerate(paths):
        assert {(found[name].depth, found[name].group) for name in block(path)} == {(depth, f"block_{depth}")}


def test_two_stacks_without_towers_have_depths_of_their_own():
    towers = ("vision_tower.encoder", "language_model")
    names = [f"model.{tower}.layers.{n}.mlp.fc1.weight" for tower in towers for n in range(3)]
    found = read([*names, "lm_head.weight"])
    assert [found[name].depth for name in names] == [0, 1, 2, 0, 1, 2]
    assert found[names[1]].group == "model.vision_tower.encoder.block_1" and found[names[1]].blocks == 3
    assert found["lm_head.weight"].group == "head"


# Image towers beside models that are more than CLIP's text tower: stack → blocks.
TOWERS = {
    "Qwen2VL": {"model.visual": 2, "model.language_model": 3},
    "Idefics2": {"model.vision_model.encoder": 2, "model.connector.perceiver_resampler": 1, "model.text_model": 3},
    "Kosmos2": {"vision_model.model.encoder": 2, "text_model.model": 3},
    "BLIP-2": {"vision_model.encoder": 2, "qformer.encoder": 1, "language_model.model.decoder": 3},
}


@pytest.mark.parametrize("case", TOWERS)
def test_a_language_model_beside_an_image_tower_has_depths(case):
    """Its blocks are what most merges of such models are about."""
    kinds = dict(visual="blocks", language_model="layers", vision_model="layers", qformer="layer")
    paths = {
        stack: [f"{stack}.{next((w for k, w in kinds.items() if k in stack), 'layers')}.{n}" for n in range(count)]
        for stack, count in TOWERS[case].items()
    }
    first = next(iter(paths))
    outside = [f"{first.partition('encoder')[0].rstrip('.')}.patch_embed.proj.weight", "lm_head.weight"]
    found = read([*(name for blocks in paths.values() for path in blocks for name in block(path)), *outside])
    for blocks in paths.values():
        for depth, path in enumerate(blocks):
            inside = {(found[name].depth, found[name].blocks, found[name].block) for name in block(path)}
            assert inside == {(depth, len(blocks), path)}
    assert {found[name].depth for name in outside} == {None} and not any(lay.group == "text" for lay in found.values())


def test_segformer_counts_on_from_stage_to_stage():
    """Each stage begins with patches of its own, which go with its first block."""
    import_torchvision()
    sizes = dict(depths=[1, 2], hidden_sizes=[4, 8], num_attention_heads=[1, 2], sr_ratios=[2, 1])
    kind = transformers.SegformerForImageClassification
    with torch.device("meta"):
        model = kind(kind.config_class(num_encoder_blocks=2, **sizes))
    found, (paths,) = read(model.state_dict()), blocks_of(model, "SegformerLayer").values()
    assert len(paths) == 3
    for depth, path in enumerate(paths):
        assert {layer.depth for key, layer in found.items() if key.startswith(f"{path}.")} == {depth}
    patches = {key.split("stages.")[1][0]: layer.depth for key, layer in found.items() if "patch_embeddings" in key}
    assert patches == {"0": 0, "1": 1}


def test_levels_beside_an_image_tower_that_no_row_describes():
    """As BridgeTower's, whose text tower alone would be passed over."""
    cross = [name for n in range(2) for name in block(f"cross_modal_layers.{n}")]
    names = [f"{tower}.encoder.layers.{n}.mlp.fc1.weight" for tower in ("vision_model", "text_model") for n in range(2)]
    assert {layer.group for layer in read(names).values()} == {"block_0", "block_1", "text"}
    with pytest.raises(ValueError, match=r"cross_modal_layers\.N cannot be told"):
        read([*names, *cross])


def test_heads_of_several_layers_are_no_stacks():
    """Detection and segmentation models keep such beside their blocks."""
    maps = [f"layers.{n}.{kind}" for n in range(3) for kind in ("weight", "bias")]
    heads = [f"{head}.{name}" for head in ("bbox", "decoder.query") for name in maps]
    found = read([*(name for n in range(2) for name in block(f"decoder.layers.{n}")), *heads])
    assert {found[name].group for name in heads} == {"head"}
    assert {layer.depth for layer in found.values()} == {0, 1, None}
    alone = read(heads[:6])  # where nothing else is there, they are all the depth there is
    assert [alone[name].depth for name in heads[:6]] == [0, 0, 1, 1, 2, 2]


TORCHVISION = {
    "resnet18": "BasicBlock", "resnext50_32x4d": "Bottleneck", "vit_b_32": "EncoderBlock", "swin_t": "features.N.N",
    "convnext_tiny": "features.N.N", "efficientnet_b0": "features.N.N", "mobilenet_v2": "features.N",
    "mobilenet_v3_small": "features.N", "densenet121": "denseblockN.denselayerN", "vgg11_bn": "features.N",
    "maxvit_t": "blocks.N.layers.N", "mnasnet0_5": "layers.N.N",
    "shufflenet_v2_x1_0": "stageN.N", "squeezenet1_0": "features.N", "googlenet": "inceptionNa",
}  # fmt: skip


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_is_read_right_or_refused_by_its_levels(name):
    import_torchvision()
    import torchvision

    kept = {"init_weights": False} if name == "googlenet" else {}
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None, **kept)
    if "N" in TORCHVISION[name]:
        with pytest.raises(ValueError, match=re.escape(TORCHVISION[name])):
            read(model.state_dict())
        return
    found = read(model.state_dict())
    (paths,) = blocks_of(model, TORCHVISION[name]).values()
    for depth, path in enumerate(paths):
        inside = {lay.depth for key, lay in found.items() if key.startswith(f"{path}.")}
        assert inside == {depth}
    assert {lay.blocks for lay in found.values()} == {0, len(paths)}


UNKNOWN = {
    "ConvMixer": (lambda: timm("convmixer_768_32").state_dict(), "blocks.N.N"),
    "norms among the blocks of a stage": (lambda: timm("csatv2").state_dict(), "stages.N.N"),
    "CrossViT": (lambda: timm("crossvit_9_240").state_dict(), "blocks.N.blocks.N"),
    "CaiT": (lambda: timm("cait_xxs24_224").state_dict(), "blocks_token_only.N"),
    "SwinIR": (
        lambda: [n for s in range(2) for b in range(3) for n in block(f"layers.{s}.residual_group.blocks.{b}")],
        "layers.N.residual_group.blocks.N",
    ),
    "SegFormer of transformers 4": (
        lambda: [n for s in range(2) for b in range(2) for n in block(f"encoder.block.{s}.{b}")], "encoder.block.N.N",
    ),
    "Dinat": (
        lambda: [n for s in range(2) for b in range(2) for n in block(f"encoder.levels.{s}.layers.{b}")],
        "encoder.levels.N",
    ),
    "stages and blocks side by side": (lambda: block("layers.0") + block("blocks.0"), "layers.N and blocks.N"),
    "ALBERT": (lambda: block("encoder.albert_layer_groups.0.albert_layers.0"), "albert_layer_groups.N.albert_layers.N"),
    "MLP": (lambda: ["net.0.weight", "net.2.weight"], "net.N"),
    "nothing numbered": (lambda: ["weight", "bias"], "none"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNKNOWN)
def test_levels_that_no_row_describes_are_refused_by_name(case):
    names, levels = UNKNOWN[case]
    with pytest.raises(ValueError, match=re.escape(levels)):
        read(names())
    with pytest.raises(ValueError, match=re.escape(levels)):
        state = {name: torch.zeros(1) for name in names()}
        TaskVectors.from_state_dicts(state, {"a": state}).rows("block")


def test_numbers_inside_a_block_and_outside_are_no_levels():
    experts = [f"model.layers.{n}.mlp.experts.{e}.w{k}.weight" for n in range(2) for e in range(4) for k in (1, 2, 3)]
    stem = [f"stem.{n}.{name.removeprefix('x.')}" for n in range(3) for name in block("x")]
    head = [f"head.{n}.{name.removeprefix('x.')}" for n in range(3) for name in block("x")]
    found = read([*experts, *stem, *head])
    assert [found[name].depth for name in experts] == [0] * 12 + [1] * 12
    assert {found[name].group for name in stem} == {"embeddings"} and {found[n].group for n in head} == {"head"}


def test_another_family_is_one_row(monkeypatch):
    model = timm("nest_tiny")
    with pytest.raises(ValueError, match="levels.N"):
        read(model.state_dict())
    row = Scheme("timm: NesT", "levels.N.transformer_encoder.N", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    monkeypatch.setattr(layers, "SCHEMES", (*layers.SCHEMES, replace(row, stacked=True)))
    found = read(model.state_dict())
    (paths,) = blocks_of(model, "TransformerLayer").values()
    for depth, path in enumerate(paths):
        assert {lay.depth for key, lay in found.items() if key.startswith(path + ".")} == {depth}
    assert found["levels.1.pool.conv.weight"].depth == len([p for p in paths if p.startswith("levels.0.")])
    assert len(list(units(model.state_dict()))) == 2 * len(paths)


# The rules by which the committed records were made, for the names that they could read.
OLD_BLOCK = re.compile(r"(?:^|\.)(?:resblocks|blocks|layers|layer|h)\.(\d+)\.")
OLD_TOWER = re.compile(r"^(?:model\.)?(?:visual|vision_model)\.")
OLD_BEFORE = re.compile(
    r"^(?:class_embedding|positional_embedding|conv1|ln_pre|embeddings|pre_layrnorm|pre_layernorm"
    r"|cls_token|reg_token|dist_token|pos_embed|patch_embed|norm_pre|(?:\w+\.)?(?:embeddings|embed_tokens|wte|wpe))(?:\.|$)"
)
OLD_KINDS = {
    "attention in": r"in_proj_weight$|[qkv]_proj\.weight$|attn\.qkv\.weight$",
    "attention out": r"attn\.out_proj\.weight$|attn\.proj\.weight$",
    "MLP in": r"c_fc\.weight$|mlp\.fc1\.weight$",
    "MLP out": r"c_proj\.weight$|mlp\.fc2\.weight$",
    "LayerNorm": r"(^|[._])(ln|norm|layer_norm|layernorm|layrnorm)[._\d]",
    "bias": r"bias$",
    "embedding, projection": r"",
}
UNCHANGED = {
    "published encoder": lambda: layers.encoder_names(12),
    "open_clip tower": lambda: open_clip("ViT").visual.state_dict(),
    "open_clip": lambda: open_clip("ViT").state_dict(),
    "open_clip in task_vectors": lambda: [f"model.{name}" for name in open_clip("ViT").state_dict()],
    "timm ViT": lambda: timm("vit_tiny_patch16_224").state_dict(),
    "timm DINOv2": lambda: timm("vit_small_patch14_reg4_dinov2").state_dict(),
    "Hugging Face CLIP": lambda: two_towers().state_dict(),
    "Hugging Face vision": lambda: hugging_face("CLIPVisionModelWithProjection").state_dict(),
    "without a prefix": lambda: [
        name.removeprefix("vision_model.")
        for name in hugging_face("CLIPVisionModelWithProjection").state_dict() if "visual_projection" not in name
    ],
}  # fmt: skip


@pytest.mark.parametrize("case", UNCHANGED)
def test_names_that_the_records_were_made_with_are_read_as_before(case):
    names = list(UNCHANGED[case]())
    towered = any(OLD_TOWER.match(name) for name in names)
    groups, order = block_rows(names), ["embeddings"]
    for name in names:
        short, found = OLD_TOWER.subn("", name)
        inside = OLD_BLOCK.search(short)
        if towered and not found and not name.startswith("visual_projection"):
            assert groups[name] == "text"
        elif inside:
            assert groups[name] == f"block_{inside[1]}" and in_block(name)
        else:
            assert groups[name] == ("embeddings" if OLD_BEFORE.match(short) else "head")
            assert not in_block(name)
        assert is_stacked(name) == name.endswith(("in_proj_weight", "qkv.weight"))
        kind = next(kind for kind, pattern in OLD_KINDS.items() if re.search(pattern, name))
        assert role_of(name) == kind
        assert (role(name) == "MLP out") == name.endswith(("c_proj.weight", "mlp.fc2.weight"))
    numbers = {int(group.removeprefix("block_")) for group in groups.values() if group.startswith("block_")}
    order += [f"block_{number}" for number in sorted(numbers)] + ["head", "text"]
    assert sorted(set(groups.values()), key=block_order) == [group for group in order if group in groups.values()]


ROLES = [
    ("model.layers.3.self_attn.q_proj.weight", "attention in"),
    ("model.layers.3.self_attn.o_proj.weight", "attention out"),
    ("model.layers.3.mlp.gate_proj.weight", "MLP in"),
    ("model.layers.3.mlp.down_proj.weight", "MLP out"),
    ("model.layers.3.input_layernorm.weight", "norm"),
    ("model.embed_tokens.weight", "embedding"),
    ("lm_head.weight", "head"),
    ("transformer.h.0.attn.c_attn.weight", "attention in"),
    ("transformer.h.0.attn.c_proj.weight", "attention out"),
    ("transformer.h.0.mlp.c_proj.weight", "MLP out"),
    ("transformer.wte.weight", "embedding"),
    ("bert.encoder.layer.1.attention.self.key.weight", "attention in"),
    ("bert.encoder.layer.1.attention.output.dense.weight", "attention out"),
    ("bert.encoder.layer.1.intermediate.dense.weight", "MLP in"),
    ("bert.encoder.layer.1.output.dense.weight", "MLP out"),
    ("bert.encoder.layer.1.output.LayerNorm.bias", "norm"),
    ("bert.encoder.layer.1.output.dense.bias", "bias"),
    ("decoder.block.1.layer.1.EncDecAttention.k.weight", "attention in"),
    ("decoder.block.1.layer.2.DenseReluDense.wi_0.weight", "MLP in"),
    ("decoder.block.1.layer.2.DenseReluDense.wo.weight", "MLP out"),
    ("model.decoder.layers.0.encoder_attn.out_proj.weight", "attention out"),
    ("model.decoder.layers.0.fc1.weight", "MLP in"),
    ("layers.1.blocks.0.attn.qkv.weight", "attention in"),
    ("layers.1.blocks.0.attn.relative_position_bias_table", "other"),
    ("stages.1.blocks.0.mlp.fc2.weight", "MLP out"),
    ("convnext.encoder.stages.0.layers.1.pwconv1.weight", "MLP in"),
    ("layer1.0.conv1.weight", "other"),
    ("layer1.0.bn1.running_var", "norm"),
    ("encoder.layers.0.self_attn.in_proj_weight", "attention in"),
    ("encoder.layers.0.linear2.weight", "MLP out"),
    ("visual.proj", "projection"),
    ("visual_projection.weight", "projection"),
    ("visual.attnpool.positional_embedding", "head"),
    ("patch_embed.proj.weight", "embedding"),
    ("patch_embed.proj.bias", "bias"),
    ("head.fc.weight", "head"),
]


@pytest.mark.parametrize(("name", "expected"), ROLES)
def test_roles(name, expected):
    assert role(name) == expected and expected in layers.ROLES


# Matrices in blocks that are neither of attention nor of the MLP: tables of positions, gates of channels.
BESIDE = re.compile(r"relative_attention_bias|relative_position_bias|rel_pos|shortcut_proj")


@pytest.mark.parametrize(("build", "name", "classes"), MODELS)
def test_every_matrix_of_a_block_has_a_role(build, name, classes):
    state = build(name).state_dict()
    matrices = [key for key, layer in read(state).items() if layer.block and state[key].dim() == 2]
    assert {key for key in matrices if layers.ROLES.index(role(key)) > 3 and not BESIDE.search(key)} == set()
    blocks = {layer.block for layer in read(state).values() if layer.block}
    by_block = {block: {role(key) for key in matrices if key.startswith(block + ".")} for block in blocks}
    convolutional = {"ResNet", "resnet18", "resnet50", "efficientnet_b0", "regnety_002", "convnext_atto"}
    convolutional |= {"ResNetForImageClassification"}
    attentive = name not in convolutional | {"ConvNextForImageClassification"}
    expected = {"attention in", "attention out"} if attentive else set()
    for roles in by_block.values():
        assert roles - {"other"} - expected == (set() if name in convolutional else {"MLP in", "MLP out"})
        assert expected <= roles


def tiny(build) -> tuple[nn.Module, torch.Tensor]:
    """A model with numbers of its own in every tensor, in float64, and something to call it with."""
    import_torchvision()
    model, x = build()
    generator = torch.Generator().manual_seed(0)
    model = model.to_empty(device="cpu").double().eval() if next(model.parameters()).is_meta else model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model, x


def built(name: str, **options) -> nn.Module:
    kind = getattr(transformers, name)
    return kind(kind.config_class(**{**TRANSFORMERS[name][0], **options}))


def vit() -> nn.Module:
    import_timm()
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(img_size=8, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=0, qk_norm=True)


PIXELS = torch.linspace(-1, 1, 2 * 3 * 64, dtype=torch.float64).view(2, 3, 8, 8)
WORD_IDS = torch.arange(10).view(2, 5)
MOVABLE = {
    "timm ViT": (lambda: (vit(), PIXELS), 4),
    "open_clip": (lambda: (open_clip("ViT").visual, torch.ones(2, 3, 32, 32, dtype=torch.float64).tril()), 6),
    "torch": (lambda: (nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), 2), 
                       torch.linspace(-1, 1, 80, dtype=torch.float64).view(2, 5, 8)), 4),
    "Hugging Face ViT": (lambda: (built("ViTForImageClassification"), PIXELS), 6),
    "Hugging Face DINOv2": (lambda: (built("Dinov2Model"), PIXELS), 6),
    "Hugging Face CLIP": (lambda: (built("CLIPVisionModelWithProjection"), PIXELS), 6),
    "BERT": (lambda: (built("BertForMaskedLM").bert, WORD_IDS), 6),
    "DistilBERT": (lambda: (built("DistilBertModel"), WORD_IDS), 6),
}  # fmt: skip


@pytest.mark.parametrize("case", MOVABLE)
def test_units_may_change_places(case):
    """Any order of hidden units and heads computes the same."""
    model, x = tiny(MOVABLE[case][0])
    state = {key: t.clone() for key, t in model.state_dict().items()}
    parts = list(parts_of(model, state))
    assert len(parts) == MOVABLE[case][1] and {part.kind for part in parts} == {"MLP units", "attention heads"}

    def compute(state: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.no_grad():
            out = functional_call(model, state, (x,))
        return out if isinstance(out, torch.Tensor) else out[0]

    before = compute(state)
    for part in parts:
        moved = part.permuted(state, torch.arange(part.count).roll(1))
        assert not torch.equal(moved[part.columns], state[part.columns])
        assert not torch.allclose(compute(state | {part.columns: moved[part.columns]}), before)
        state |= moved
    torch.testing.assert_close(compute(state), before)


@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "beit_base_patch16_224", "convnextv2_atto", "eva02_tiny_patch14_224"]
)
def test_units_that_other_tensors_depend_on_are_refused(name):
    model = timm(name)
    with pytest.raises(ValueError, match="relative_position|q_bias|grn|norm|fc1"):
        list(parts_of(model, model.state_dict()))


def test_a_transposed_or_mixed_layout_has_no_units():
    assert not [u for u in units(hugging_face("GPT2LMHeadModel").state_dict())]
    assert {u.kind for u in units(hugging_face("GPTNeoXForCausalLM").state_dict())} == {"MLP units"}


def test_modules_that_are_a_whole_mlp():
    model = open_clip("ViT").visual
    assert [name for name, _ in model.named_modules() if is_mlp(name)] == [
        f"transformer.resblocks.{n}.mlp" for n in range(3)
    ]
    assert is_mlp("encoder.block.0.layer.1.DenseReluDense") and not is_mlp("") and not is_mlp("layers.0")
    assert not is_mlp("layer.0.output")


def test_names_are_strings_only():
    """Nothing of torch or of the library is imported: figures may ask without loading either."""
    tree = ast.parse(Path(layers.__file__).read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    roots = {n.module.split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom) and not n.level}
    roots |= {alias.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    assert roots <= sys.stdlib_module_names and not [n for n in nodes if getattr(n, "level", 0)]
    assert Path(layers.__file__).parent == Path(adamerging_lib.__file__).parent
